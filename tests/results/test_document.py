"""The results dictionary and its file."""

import json

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
from helpers.run_results import TOP1, parts
from scipy import stats

from kdjax.errors import InputError
from kdjax.results import document, metrics, tables


def test_keys_are_those_of_the_contract_and_json_knows_them():
    out = document.build(**parts())
    assert set(out) == {"dataset", "teacher", "student", "arms", "environment", "config"}
    assert {"name", "classes", "splits", "fingerprint"} <= set(out["dataset"])
    assert set(out["dataset"]["splits"]) == {"train", "val", "test"}
    assert {"model", "params", "macs", "forward_images", "test"} <= set(out["teacher"])
    assert set(out["student"]) == {"model", "params", "macs"}
    for arm in out["arms"].values():
        assert {"weights", "seeds", "test_top1", "val_top1", "mean", "std", "ci95", "p_vs_alone"} <= set(arm)
        assert arm["best_step"] == [10, 10, 10]
        assert {"macro_f1", "nll", "ece", "agreement", "kl", "per_class_recall", "confusion"} <= set(
            arm["test_metrics"][0]
        )
    assert out["config"]["rate"] is None
    assert json.loads(json.dumps(out, allow_nan=False)) == out


def test_numbers_agree_with_scipy():
    out = document.build(**parts())["arms"]
    alone = np.array(TOP1["student_alone"])
    raw = {name: stats.ttest_rel(TOP1[name], alone).pvalue for name in TOP1 if name != "student_alone"}
    order = sorted(raw, key=raw.get)
    largest = 0.0
    for rank, name in enumerate(order):
        largest = max(largest, min(1, (3 - rank) * raw[name]))
        assert out[name]["p_vs_alone"] == pytest.approx(largest)
        difference = np.array(TOP1[name]) - alone
        assert out[name]["minus_alone"]["mean"] == pytest.approx(difference.mean())
    assert out["student_alone"]["p_vs_alone"] is None and out["student_alone"]["minus_alone"] is None
    for name, values in TOP1.items():
        assert out[name]["mean"] == pytest.approx(np.mean(values))
        assert out[name]["std"] == pytest.approx(np.std(values, ddof=1))
        low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
        assert out[name]["ci95"] == pytest.approx([low, high], abs=0.02) and out[name]["ci95"] != [low, high]
        if name != "student_alone":
            difference = np.array(values) - alone
            low, high = stats.t.interval(0.95, 2, difference.mean(), stats.sem(difference))
            assert out[name]["minus_alone"]["ci95"] == pytest.approx([low, high])
            assert out[name]["minus_alone"]["std"] == pytest.approx(difference.std(ddof=1))


def test_a_failed_seed_leaves_every_comparison_it_is_in():
    top1 = {**TOP1, "kl": [0.75, None, 0.77]}
    arms = document.build(**parts(top1))["arms"]
    assert arms["kl"]["test_top1"] == [0.75, None, 0.77] and arms["kl"]["test_metrics"][1] is None
    assert arms["kl"]["mean"] == pytest.approx(0.76)
    assert arms["kl"]["minus_alone"]["mean"] == pytest.approx(0.04)
    assert arms["cosine"]["minus_alone"]["mean"] == pytest.approx(0.02 / 3)

    top1 = {**TOP1, "student_alone": [0.70, float("nan"), 0.74]}  # a NaN counts as failed too
    arms = document.build(**parts(top1))["arms"]
    assert arms["student_alone"]["test_top1"] == [0.70, None, 0.74]
    assert arms["kl_cosine"]["minus_alone"]["mean"] == pytest.approx((0.08 + 0.09) / 2)
    assert arms["kl_cosine"]["mean"] == pytest.approx(0.8)
    text = tables.table(document.build(**parts(top1)))
    assert "student_alone: seed 1 failed" in text


def test_all_seeds_failed():
    out = document.build(**parts({**TOP1, "kl": [None] * 3}))
    json.dumps(out, allow_nan=False)
    assert out["arms"]["kl"]["mean"] is None and out["arms"]["kl"]["p_vs_alone"] is None
    assert "kl: seeds 0, 1, 2 failed" in tables.table(out)


def test_pairs_are_made_by_seed_not_by_place():
    given = parts()
    kl = given["arms"]["kl"]
    for key in ("seeds", "test"):
        kl[key] = list(kl[key])[::-1]
    straight = document.build(**parts())["arms"]["kl"]
    turned = document.build(**given)["arms"]["kl"]
    assert turned["p_vs_alone"] == pytest.approx(straight["p_vs_alone"])


def test_alone_is_found_by_its_weights_where_no_arm_has_the_name():
    given = parts()
    given["arms"]["plain"] = given["arms"].pop("student_alone")
    out = document.build(**given)["arms"]
    assert out["plain"]["p_vs_alone"] is None and out["kl"]["p_vs_alone"] is not None


def test_gains_are_over_the_better_of_the_arms_without_a_teacher():
    given = parts({**TOP1, "labeled_alone": [0.77, 0.80, 0.79]})
    given["arms"]["labeled_alone"]["val_top1"] = [0.6, 0.5, 0.5]
    out = document.build(**given)["arms"]
    assert out["labeled_alone"]["minus_alone"] is None and out["labeled_alone"]["p_vs_alone"] is None
    for name in ("student_alone", "kl", "kl_cosine"):
        difference = np.mean(TOP1[name]) - np.mean([0.77, 0.80, 0.79])
        assert out[name]["minus_alone"]["mean"] == pytest.approx(difference)
    # Test accuracies play no part: with equal ones on validation it is the first of the two.
    given["arms"]["labeled_alone"]["val_top1"] = [0.5, 0.5, 0.5]
    assert document.build(**given)["arms"]["student_alone"]["minus_alone"] is None


def test_over_splits_the_better_one_is_chosen_over_all_of_them():
    runs = []
    for labeled, plain in ((0.9, 0.5), (0.4, 0.5), (0.4, 0.5)):
        given = parts({**TOP1, "labeled_alone": [0.6, 0.7, 0.8]}, config={"data_seed": 0, "seeds": (0, 1, 2)})
        given["arms"]["labeled_alone"]["val_top1"] = [labeled] * 3
        given["arms"]["student_alone"]["val_top1"] = [plain] * 3
        runs.append(document.build(**given))
    out = document.combine(runs)["arms"]
    assert out["labeled_alone"]["minus_alone"] is None and out["student_alone"]["minus_alone"] is not None


def test_over_splits_each_lost_seed_counts_against_a_baseline():
    """Its means would hide them: on each split it is the better one with the seeds that are left."""
    runs = []
    for seed in range(3):
        given = parts({**TOP1, "labeled_alone": [0.9, None, None]}, config={"data_seed": seed, "seeds": (0, 1, 2)})
        given["arms"]["labeled_alone"]["val_top1"] = [0.9, None, None]
        runs.append(document.build(**given))
    out = document.combine(runs)
    assert out["alone"] == "student_alone" and out["arms"]["student_alone"]["minus_alone"] is None
    assert out["baselines"] == ["student_alone", "labeled_alone"] and out["better_baselines"] == ["labeled_alone"]
    flat = " ".join(tables.over_splits(out).split())
    note = (
        "Gains are over student_alone: of student_alone and labeled_alone, which use no teacher, it lost the fewest "
        "seeds. With the seeds that succeeded labeled_alone did better on validation, so a gain over student_alone does"
    )
    assert note in flat and note in " ".join(tables.table(runs[0]).split())


def test_over_splits_baselines_are_ranked_by_all_seeds():
    """Not by one mean for each split, in which the only seed left of a split weighs as much as three."""
    runs = []
    for seed, (labeled, plain) in enumerate((([0.9, None, None], [0.6] * 3), ([0.5] * 3, [None, None, 0.65]))):
        given = parts({**TOP1, "labeled_alone": TOP1["kl"]}, config={"data_seed": seed, "seeds": (0, 1, 2)})
        given["arms"]["labeled_alone"]["val_top1"] = labeled
        given["arms"]["student_alone"]["val_top1"] = plain
        runs.append(document.build(**given))
    out = document.combine(runs)  # means of splits: 0.7 and 0.625; of seeds: 0.6 and 0.6125
    assert out["alone"] == "student_alone" and out["better_baselines"] == []


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_seeds_have_no_interval_and_no_test(count):
    seeds = tuple(range(count))
    out = document.build(**parts({name: values[:count] for name, values in TOP1.items()}, seeds=seeds))["arms"]
    for name, arm in out.items():
        assert arm["ci95"] is None and arm["p_vs_alone"] is None
        assert (arm["std"] is None) == (count == 1)
        if name != "student_alone":
            assert arm["minus_alone"]["mean"] is not None and arm["minus_alone"]["ci95"] is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"arms": {}}', '{"dataset": 1}', "\x00"])
def test_garbage_in_place_of_results_is_one_line(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(InputError, match="results.json.*: evaluate again") as caught:
        document.read(path, "evaluate again")
    assert "\n" not in str(caught.value)


def test_results_read_back(tmp_path):
    out = document.build(**parts())
    (tmp_path / "results.json").write_text(json.dumps(out))
    assert document.read(tmp_path / "results.json", "x") == out


def test_missing_and_misfitting_parts_are_named():
    with pytest.raises(ValueError, match="dataset.*fingerprint"):
        document.build(**parts(dataset={"name": "x", "classes": (), "splits": {}}))
    given = parts()
    given["arms"]["kl"]["val_top1"] = [0.5]
    with pytest.raises(ValueError, match="arms.kl.val_top1"):
        document.build(**given)
    with pytest.raises(TypeError, match="config.thing"):
        document.build(**parts(config={"thing": object()}))


def test_configs_and_arrays_become_plain():
    config = ml_collections.ConfigDict({"a": {"b": (1, 2.5)}, "c": None})
    config.a.d = ml_collections.config_dict.placeholder(int)
    given = parts(config=config)
    given["arms"]["kl"]["seconds"] = jnp.asarray([1.5, jnp.nan])
    out = document.build(**given)
    assert out["config"] == {"a": {"b": [1, 2.5], "d": None}, "c": None}
    assert out["arms"]["kl"]["seconds"] == [1.5, None]


def test_of_a_family_the_trial_that_validation_prefers_is_compared():
    given = parts()
    arms = given["arms"]
    for name, family, validation in (
        ("student_alone", "student_alone", [0.6, 0.6, 0.6]),
        ("kl", "soft", [0.5, 0.6, 0.7]),
        ("cosine", "soft", [0.9, 0.8, 0.7]),
        ("kl_cosine", "student_alone", [0.5, 0.9, 0.3]),
    ):
        arms[name] |= {"family": family, "val_top1": validation}
    out = document.build(**given)
    assert out["selected"] == {"student_alone": "student_alone", "soft": "cosine"}
    # One comparison, so Holm changes nothing; the trials that were not selected are compared with nothing.
    expected = stats.ttest_rel(TOP1["cosine"], TOP1["student_alone"]).pvalue
    assert out["arms"]["cosine"]["p_vs_alone"] == pytest.approx(expected)
    assert out["arms"]["kl"]["p_vs_alone"] is None and out["arms"]["kl_cosine"]["p_vs_alone"] is None


def test_the_bootstrap_pairs_seeds_and_leaves_failed_ones_out():
    given = parts({**TOP1, "kl": [0.75, None, 0.77]})
    rng = np.random.default_rng(0)
    correct = {name: rng.random((3, 40)) < 0.7 for name in TOP1}
    for name, arm in given["arms"].items():
        arm["correct"] = correct[name]
    out = document.build(**given)["arms"]
    assert "correct" not in out["kl"] and out["student_alone"]["bootstrap"] is None
    difference = correct["kl"][[0, 2]].mean() - correct["student_alone"][[0, 2]].mean()
    assert out["kl"]["bootstrap"]["difference"] == pytest.approx(difference)
    low, high = out["kl"]["bootstrap"]["ci95"]
    assert low < difference < high


def test_the_bootstrap_leaves_out_students_whose_logits_are_not_finite():
    """They are measured, with None for their accuracies, and `argmax` names some class all the same."""
    given = parts()
    rng = np.random.default_rng(0)
    for arm in given["arms"].values():
        arm["correct"] = rng.random((3, 40)) < 0.7
    lost = metrics.classification(np.full((4, 3), np.nan), np.array([0, 1, 2, 1]))
    given["arms"]["kl"]["test"][2] = {**lost, "agreement": None, "kl": None}
    kl, alone = (given["arms"][name]["correct"][:2].mean() for name in ("kl", "student_alone"))
    out = document.build(**given)["arms"]
    assert out["kl"]["test_top1"] == [*TOP1["kl"][:2], None]
    assert out["kl"]["bootstrap"]["difference"] == pytest.approx(kl - alone)


def of_splits(*top1):
    """One run a split, with these accuracies by arm."""
    config = {"data_seed": 0, "seeds": (0, 1, 2)}
    return [document.build(**parts(one, config={**config, "data_seed": seed})) for seed, one in enumerate(top1)]


def test_splits_of_other_arms_are_refused():
    fewer = {name: TOP1[name] for name in ("student_alone", "kl")}
    for runs, named in ((of_splits(TOP1, TOP1, fewer), 2), (of_splits(fewer, TOP1), 1)):
        with pytest.raises(
            InputError, match=rf"data seed {named}\) are .*: run --stages=evaluate of .* again"
        ) as caught:
            document.combine(runs)
        assert "\n" not in str(caught.value)


def test_the_directory_of_several_splits_is_told_from_that_of_one(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(document.combine(of_splits(TOP1, TOP1))))
    with pytest.raises(
        InputError, match="is of a run over several splits: give its split-0, split-1, … in its place"
    ) as caught:
        document.read(tmp_path / "results.json", "evaluate again")
    assert "\n" not in str(caught.value) and "evaluate again" not in str(caught.value)


def test_the_overlap_of_splits_is_the_mean_of_theirs():
    """Folds over places are not equally large."""
    runs = of_splits(TOP1, {name: values[::-1] for name, values in TOP1.items()}, TOP1)
    for run, overlap in zip(runs, (0.2, 0.3, 0.4), strict=True):
        run["dataset"]["overlap"] = overlap
    assert document.combine(runs)["dataset"]["overlap"] == pytest.approx(0.3)


def test_over_splits_there_is_a_teacher_only_where_all_have_one():
    runs = of_splits(TOP1, {name: values[::-1] for name, values in TOP1.items()})
    assert "teacher vgg16_bn" in tables.over_splits(document.combine(runs))
    runs[1]["teacher"] = None
    combined = document.combine(runs)
    lines = tables.over_splits(combined).splitlines()
    assert combined["teacher"] is None and "eacher" not in "\n".join(lines)
    assert lines[4].startswith("student_alone") and sum(line.startswith("---") for line in lines) == 1


def test_splits_are_repetitions_of_their_own():
    runs = []
    for number in range(3):
        top1 = {name: [v + 0.01 * number for v in values] for name, values in TOP1.items()}
        top1["kl"][0] += 0.03 * (number == 1)
        config = {"data_seed": 5 + number, "seeds": (0, 1, 2)}
        runs.append(document.build(**parts(top1, teacher=0.9 + number / 100, config=config)))
    out = document.combine(runs)
    json.dumps(out, allow_nan=False)
    assert out["data_seeds"] == [5, 6, 7] and out["dataset"]["overlap"] == 0.5
    means = {name: [run["arms"][name]["mean"] for run in runs] for name in TOP1}
    assert out["arms"]["kl"]["test_top1"] == means["kl"]
    assert out["arms"]["kl"]["mean"] == pytest.approx(np.mean(means["kl"]))
    assert out["arms"]["kl"]["minus_alone"]["mean"] == pytest.approx(
        np.mean(means["kl"]) - np.mean(means["student_alone"])
    )
    assert out["arms"]["student_alone"]["p_vs_alone"] is None and 0 < out["arms"]["kl"]["p_vs_alone"] < 1
    assert out["teacher"]["test_top1"] == [0.9, 0.91, 0.92] and out["teacher"]["mean"] == pytest.approx(0.91)
    statistic = stats.ttest_rel(means["kl"], means["student_alone"]).statistic
    corrected = statistic * np.sqrt((1 / 3) / (1 / 3 + 0.5))
    # The others differ by as much on every split, which is no test: one comparison is left, and Holm changes nothing.
    assert out["arms"]["cosine"]["p_vs_alone"] is None and out["arms"]["kl_cosine"]["p_vs_alone"] is None
    assert out["arms"]["kl"]["p_vs_alone"] == pytest.approx(2 * stats.t.sf(corrected, 2))
    text = tables.over_splits(out)
    assert "Nadeau" in text and "data seeds 5, 6, 7" in text and "kl " in text
    for run in runs:
        run["dataset"]["overlap"] = 0.0  # independent sets of images
    independent = document.combine(runs)
    width = lambda out: np.ptp(out["arms"]["kl"]["minus_alone"]["ci95"])
    assert width(out) / width(independent) == pytest.approx(np.sqrt((1 / 3 + 0.5) / (1 / 3)))
    for network in ("teacher", *TOP1):
        of = lambda document, name=network: document["teacher"] if name == "teacher" else document["arms"][name]
        if of(out)["std"]:
            assert 1.5 < np.ptp(of(out)["ci95"]) / np.ptp(of(independent)["ci95"]) < 1.6
    assert "Nadeau" not in tables.over_splits(independent)


def test_over_splits_a_gain_is_paired_by_seed_within_each_split():
    """An arm that lost the seeds that were hard for both has gained nothing by it."""
    lost = {"student_alone": [0.9, 0.3, 0.3], "kl": [0.9, None, None]}
    whole = {"student_alone": [0.5, 0.5, 0.5], "kl": [0.6, 0.5, 0.55]}
    out = document.combine(of_splits(lost, lost, lost))["arms"]
    assert out["kl"]["minus_alone"]["mean"] == 0 and out["kl"]["p_vs_alone"] == 1.0
    assert out["kl"]["mean"] == pytest.approx(0.9) and out["student_alone"]["mean"] == pytest.approx(0.5)
    none = {"student_alone": [None, 0.3, 0.4], "kl": [0.9, None, None]}  # no seed in common
    mixed = document.combine(of_splits(lost, whole, none))["arms"]["kl"]
    assert mixed["minus_alone"]["mean"] == pytest.approx(np.mean([0, 0.05]))
    assert mixed["minus_alone"]["ci95"] is None and mixed["p_vs_alone"] is None  # two splits are left
    assert mixed["failed"] == [[1, 2], [], [1, 2]]


def test_over_splits_the_test_is_that_of_the_paired_gains():
    tops = [{"student_alone": [0.5, 0.6, 0.4], "kl": [0.6 + 0.01 * k, 0.6, None]} for k in (1, 4, 9)]
    runs = of_splits(*tops)
    gains = [np.mean([0.1 + 0.01 * k, 0]) for k in (1, 4, 9)]
    out = document.combine(runs)["arms"]["kl"]
    assert out["minus_alone"]["mean"] == pytest.approx(np.mean(gains))
    statistic = stats.ttest_1samp(gains, 0).statistic * np.sqrt((1 / 3) / (1 / 3 + 0.5))
    assert out["p_vs_alone"] == pytest.approx(2 * stats.t.sf(statistic, 2))
