"""Which arms are shown and compared: by weights and validation alone."""

import pytest

from kdjax.objective.terms import TERMS
from kdjax.results import comparison


def arm(validation, family=None, **weights):
    made = {"weights": {"ce": 1.0, "kl": 0.0, **weights}, "val_top1": validation}
    return {**made, "family": family} if family else made


@pytest.mark.parametrize("term", TERMS)
def test_an_arm_uses_the_teacher_where_a_term_with_weight_does(term):
    assert comparison.uses_teacher(arm([0.5], **{term: 0.5})) == (term != "ce")
    assert not comparison.uses_teacher(arm([0.5], **{term: 0.0}))
    assert comparison.uses_teacher(arm([0.5], term_of_an_older_version=1.0))


def test_the_best_trial_of_a_family_is_selected_on_validation():
    arms = {
        "a_0": arm([0.5, 0.7], "a"),
        "a_1": arm([0.7, 0.7], "a"),
        "a_2": arm([0.6, 0.8], "a"),  # equal to a_1 and later
        "failed": arm([None, None], "b"),
        "b": arm([0.1, 0.1], "b"),
        "alone": arm([0.2, 0.2]),
    }
    assert comparison.select(arms, "top1") == {"a": "a_1", "b": "b", "alone": "alone"}
    shown = comparison.shown_arms({"arms": arms, "selected": comparison.select(arms, "top1")})
    assert list(shown) == ["a_1", "b", "alone"] and shown["a_1"] is arms["a_1"]
    assert list(comparison.shown_arms({"arms": arms})) == list(arms)


def test_a_seed_that_failed_weighs_more_than_the_mean_of_the_others():
    whole, half, none = arm([0.8, 0.8, 0.8]), arm([0.9, 0.9, None]), arm([None, None, None])
    for arms in ({"none": none, "half": half, "whole": whole}, {"whole": whole, "none": none, "half": half}):
        assert comparison.find_alone(arms, "top1") == "whole"
        family = {name: {**one, "family": "one"} for name, one in arms.items()}
        assert comparison.select(family, "top1") == {"one": "whole"}
    assert comparison.find_alone({"none": none, "half": half}, "top1") == "half"
    # Runs of more seeds are no better for that.
    assert comparison.find_alone({"three": whole, "two": arm([0.81, 0.81])}, "top1") == "two"


def test_settings_are_those_of_the_arm_or_in_earlier_versions_of_the_configuration():
    config = {"student": {"learning_rate": 1e-3, "weight_decay": 0.01}, "arms": {"kl": {"learning_rate": 3e-3}}}
    arms = {"kl": arm([0.5]), "joined": {**arm([0.5]), "learning_rate": 2e-3, "labeled_only": True}}
    results = {"arms": arms, "config": config}
    rest = {"weight_decay": 0.01, "class_weights": []}
    assert comparison.settings(results, "kl") == {"learning_rate": 3e-3, "labeled_only": False, **rest}
    assert comparison.settings(results, "joined") == {"learning_rate": 2e-3, "labeled_only": True, **rest}
    nothing = {"learning_rate": None, "weight_decay": None, "labeled_only": False, "class_weights": []}
    assert comparison.settings({"arms": arms, "config": {}}, "kl") == nothing


def test_of_equals_on_validation_the_lower_nll_is_chosen():
    trial = arm([0.9, 0.8], "taught", kl=1.0)
    arms = {"old": trial, "worse": {**trial, "val_nll": [0.5, 0.3]}, "lower": {**trial, "val_nll": [0.2, 0.2]}}
    assert comparison.select(arms, "top1") == {"taught": "lower"}
    arms["better"] = {**arm([0.91, 0.8], "taught", kl=1.0), "val_nll": [9.0, 9.0]}
    assert comparison.select(arms, "top1") == {"taught": "better"}
    alone = {"first": {**arm([0.9]), "val_nll": [0.3]}, "second": {**arm([0.9]), "val_nll": [0.2]}}
    assert comparison.find_alone(alone, "top1") == "second"


def test_gains_are_over_the_best_on_validation_of_those_without_a_teacher():
    arms = {"kl": arm([0.99], kl=1.0), "student_alone": arm([0.6, 0.6]), "labeled_alone": arm([0.5, 0.8])}
    assert comparison.baselines(arms) == ["student_alone", "labeled_alone"]
    assert comparison.find_alone(arms, "top1") == "labeled_alone"
    arms["labeled_alone"]["val_top1"] = [0.6, 0.6]
    assert comparison.find_alone(arms, "top1") == "student_alone"  # the first of equals
    arms["student_alone"]["val_top1"] = [None, None]
    assert comparison.find_alone(arms, "top1") == "labeled_alone"
    arms["labeled_alone"]["val_top1"] = [None, None]
    assert comparison.find_alone(arms, "top1") == "student_alone"
    assert comparison.find_alone({"kl": arms["kl"]}, "top1") is None and comparison.find_alone({}, "top1") is None
    assert comparison.on_validation(arm([0.5, None, 0.7]), "top1") == 0.6
