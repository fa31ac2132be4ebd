"""Class weights come to the arms that they are for, and to heads that are fitted in one go."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

from kdjax.config import base
from kdjax.data.class_weights import class_weights
from kdjax.errors import InputError
from kdjax.run.arms import common_weights, head_weights, student_arms, teacher_arms
from kdjax.run.checks import validate

LABELS = np.repeat([0, 1, 2, -1], [6, 3, 1, 4])
DATASET = SimpleNamespace(classes=("a", "b", "c"), train=SimpleNamespace(labels=LABELS))
BALANCED = pytest.approx((10 / 18, 10 / 9, 10 / 3))


def config(**fields):
    made = base()
    made.arms.own = {"ce": 1.0, "class_weights": ("b=4",)}
    made.arms.plain = {"ce": 1.0, "kl": 1.0, "class_weights": ()}
    made.distill.arms = ("student_alone", "own", "plain")
    made.dataset.update(fields)
    return made


def test_an_arm_has_its_own_weights_or_those_of_all():
    made = config(class_weights=("balanced",))
    alone, own, plain, baseline = student_arms(made, DATASET)
    assert alone.class_weights == baseline.class_weights == common_weights(made, DATASET) == BALANCED
    assert own.class_weights == pytest.approx(np.array([1, 4, 1]) * 10 / 19) and plain.class_weights == ()
    (teacher,) = teacher_arms(made.teacher, common_weights(made, DATASET))
    assert teacher.class_weights == BALANCED and teacher.weights == {"ce": 1.0}
    assert all(arm.class_weights == () for arm in (student_arms(config(), DATASET)[0], *teacher_arms(made.teacher)))


def test_where_they_do_not_fit_the_arm_is_named():
    made = config()
    made.arms.own.class_weights = (1.0, 2.0)
    with pytest.raises(InputError, match="arms.own.class_weights has 2 weights for 3 classes"):
        student_arms(made, DATASET)


def test_balanced_draws_are_weights_of_a_fitted_head():
    """The mean over even draws of classes is that over the examples with balanced weights."""
    assert head_weights(config(), DATASET) == ()
    assert head_weights(config(class_weights=("balanced",)), DATASET) == BALANCED
    assert head_weights(config(sampling="balanced"), DATASET) == BALANCED
    both = np.array(head_weights(config(sampling="balanced", class_weights=(1, 2, 3)), DATASET))
    assert both / both[0] == pytest.approx([1, 2 * 2, 3 * 6]) and (0.6, 0.3, 0.1) @ both == pytest.approx(1)
    even = class_weights("", (1, 2, 3), DATASET.classes, LABELS, even=True)
    losses = np.array([0.5, 2.0, 7.0])
    assert (0.6, 0.3, 0.1) @ (both * losses) == pytest.approx(np.mean(even * losses))


def of_arms(**arms):
    made = base()
    made.dataset.source = "demo"
    made.arms.update(arms)
    return made


def test_a_term_that_asks_for_nothing_of_two_classes_is_refused():
    made, two = config(), SimpleNamespace(classes=("a", "b"), train=SimpleNamespace(labels=np.array([0, 1])))
    made.distill.arms = ("student_alone", "dist")
    with pytest.raises(InputError, match="arms.dist.dist_inter has no effect with two classes: set it to 0"):
        student_arms(made, two)
    made.arms.dist.dist_inter = 0.0
    assert len(student_arms(made, two)) == 2 and len(student_arms(config(), DATASET)) == 4


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        ({"soft": 1.0}, "arms.soft is 1.0: give weights of terms, as"),
        ({"kl:hot": {"ce": 1.0}}, "arms: 'kl:hot' is not a name for an arm: leave out '/' and ':'"),
        ({"soft": {"cee": 1.0}}, "arms.soft.cee: unknown loss term"),
    ],
)
def test_what_is_no_arm_is_refused(arms, said):
    made = of_arms(**arms)
    made.distill.arms = tuple(arms)
    with pytest.raises(InputError, match=said):
        validate(made)


def test_trials_of_a_family_all_learn_from_the_teacher_or_none_does():
    """The best of a family on validation is compared: it would be the baseline or not by chance."""
    made = of_arms(x={"ce": 1.0, "family": "f"}, y={"ce": 1.0, "kl": 1.0, "family": "f"})
    made.distill.arms = ("x", "student_alone")
    validate(made)
    made.distill.arms = ("x", "kl", "y")
    said = "arms.y.family is 'f', that of x, but only one of the two learns from the teacher: give it another"
    with pytest.raises(InputError, match=said):
        validate(made)
    made.distill.arms = ("kl",)
    made.arms.kl.family = "labeled_alone"  # which may join by itself
    with pytest.raises(InputError, match="arms.kl.family is 'labeled_alone', that of labeled_alone, but only one"):
        validate(made)


@pytest.mark.parametrize("arm", [{"ce": 1.0, "kl": 1.0, "labeled_only": True}, {"ce": 1.0}])
def test_the_baseline_that_joins_is_one(arm):
    made = of_arms()
    made.arms.labeled_alone = arm
    with pytest.raises(InputError, match="arms.labeled_alone is the baseline of the labeled tiles alone: give it"):
        validate(made)
    made.arms.labeled_alone = {"ce": 2.0, "kl": 0.0, "labeled_only": True, "learning_rate": 0.1}
    validate(made)


def test_class_weights_of_an_arm_without_a_hard_term_are_refused():
    made = of_arms(soft={"kl": 1.0, "class_weights": ("balanced",)})
    with pytest.raises(InputError, match="arms.soft.class_weights does nothing: the arm has no term that asks"):
        validate(made)
    made.arms.soft.class_weights = ()
    made.dataset.class_weights = ("balanced",)  # those of all arms
    validate(made)


def test_the_mean_of_views_is_for_arms_with_a_teacher():
    made = of_arms()
    made.distill.target = "mean"
    validate(made)
    made.distill.arms = ("student_alone",)
    with pytest.raises(InputError, match="distill.target='mean' does nothing: no arm of distill.arms has a teacher"):
        validate(made)


@pytest.mark.parametrize(
    ("section", "field", "value", "default"),
    [
        ("student", "learning_rate", 5e-4, 1e-3),
        ("student", "weight_decay", 0.1, 0.01),
        ("distill", "temperature", 2, 4),
    ],
)
def test_a_field_that_every_arm_sets_for_itself_does_nothing(section, field, value, default):
    own = {"learning_rate": 2e-3, "weight_decay": 0.0, "temperature": 3.0}
    made = of_arms(taught={"kl": 1.0, **own}, plain={"ce": 1.0, **own}, free={"cosine_batch": 1.0})
    made.distill.arms = ("plain", "taught")
    made.arms.labeled_alone.update(own)  # which may join by itself
    validate(made)
    made[section][field] = value
    said = (
        f"{section}.{field} is {value:g}, but does nothing: every arm that would use it sets its own; leave it at "
        f"{default:g}, or change arms.{'plain' if section == 'student' else 'taught'}.{field}"
    )
    with pytest.raises(InputError, match=f"^{re.escape(said)}$"):
        validate(made)
    made.distill.arms = ("plain", "taught", "free")  # one that sets nothing
    validate(made)
    made.distill.arms = ("plain", "taught")
    del made.arms.labeled_alone[field]
    if section == "student":  # the baseline would use it, and it joins arms with and without a teacher
        validate(made)
        made.distill.arms = ("taught",)
    with pytest.raises(InputError, match=f"^{section}.{field} is .* does nothing"):
        validate(made)


def test_a_temperature_is_for_the_terms_that_depend_on_it():
    made = of_arms(taught={"kl": 1.0, "temperature": 3.0})
    made.distill.temperature = 2.0
    made.distill.arms = ("student_alone", "cosine")  # nobody sets one, as in the arms of another run
    validate(made)
    made.distill.arms = ("student_alone", "cosine", "taught")
    with pytest.raises(InputError, match="^distill.temperature is 2, but does nothing"):
        validate(made)


def test_pixels_are_those_of_weights():
    made = of_arms()
    for section in (made.teacher, made.student):
        section.weights, section.weights_pixels = None, "caffe"
        with pytest.raises(InputError, match="is .caffe., but there is no .*weights, so it does nothing"):
            validate(made)
        section.weights = "owner/name"
        validate(made)


@pytest.mark.parametrize(
    ("name", "arm", "field"),
    [
        ("teacher", {"ce": 1.0, "kl": 1.0}, "arms: "),
        ("mine", {"ce": 1.0, "family": "teacher"}, "arms.mine.family: "),
    ],
)
def test_no_arm_has_the_name_of_the_teacher(name, arm, field):
    """Tables, the report and results.csv have a row of that name already."""
    made = base()
    made.dataset.source = "demo"
    validate(made)
    made.arms[name] = arm
    with pytest.raises(InputError, match=f"^{field}'teacher' is the teacher's own name: choose another$"):
        validate(made)
