"""Builds, reads and combines the content of `results.json`, as plain data. All accuracies are fractions."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kdjax.errors import InputError
from kdjax.results import comparison, intervals, schema
from kdjax.runtime import files
from kdjax.runtime.plain import plain

_NEEDED = {
    "dataset": ("name", "classes", "splits", "fingerprint", "overlap"),
    "teacher": ("model", "params", "macs", "forward_images", "test"),
    "student": ("model", "params", "macs"),
}


def build(
    *,
    dataset: Mapping[str, Any],
    teacher: Mapping[str, Any] | None,
    student: Mapping[str, Any],
    arms: Mapping[str, Mapping[str, Any]],
    environment: Mapping[str, Any],
    config: Any,
    labels: np.ndarray | None = None,
) -> dict[str, Any]:
    """Assembles the content of results.json.

    Args:
        dataset: name, classes (tuple of str), splits ({train, val, test: number of images}), fingerprint, overlap (as
            in `data.Dataset`), and any other keys; labels ({labeled, total}) if there are training tiles without
            labels; class_counts ({train, val, test: labeled images by class}) if classes may be unequal, see
            `comparison.judged_by`.
        teacher: model, params, macs, forward_images (images the teacher was run on for distillation), test (the dict of
            `metrics.classification`), and any other keys; None for a run without a teacher.
        student: model, params, macs, and any other keys.
        arms: name -> weights ({'ce', 'kl', 'cosine', ...}), temperature, seeds (list of int), test (per seed the dict
            of `metrics.classification`, joined with that of `metrics.agreement`; None for a seed that failed), val_top1
            (per seed a fraction or None), val_macro_recall if there are class_counts, val_nll (per seed in nats, which
            breaks ties), and any other keys, which are passed on. Some of these have a meaning here: 'correct', (seeds,
            test images) bool, is what the bootstrap resamples and is not written; 'family' makes the arm one of
            several trials of that name, of which the best on validation is compared; 'learning_rate', 'weight_decay',
            'labeled_only' and 'class_weights' are read by `comparison.settings`.
        environment: from `runtime.environment.environment()`.
        config: mapping or ConfigDict, written unchanged.
        labels: (test images,) int, the strata of the bootstrap of macro recall; not written.

    Returns:
        JSON values (None for NaN and infinity) under dataset, teacher, student, arms, environment, config, and, where
        there are families, selected (family -> arm). Each arm:
            weights, temperature, seeds; test_top1, val_top1: per seed; mean, std, ci95 of test_top1, see
            `intervals.accuracies`; p_vs_alone: paired two-sided t-test over the seeds both arms have, Holm-corrected
            over the arms; minus_alone: `intervals.summary` of the paired difference to the arm that
            `comparison.find_alone` names (null for that arm itself); bootstrap: difference and ci95 of
            `intervals.paired_bootstrap` against that arm, or null; test_metrics: per seed, everything measured on the
            test split; macro_recall: test, mean, std, ci95, p_vs_alone, minus_alone and bootstrap of that measure,
            against the same arm.

    Raises:
        ValueError: a key is missing, lists of an arm have different lengths, or seeds repeat.
        TypeError: a value cannot be written as JSON.
    """
    sections = {"dataset": dataset, "teacher": teacher, "student": student}
    missing = [
        f"{name}.{key}"
        for name, section in sections.items()
        if section is not None
        for key in _NEEDED[name]
        if key not in section
    ]
    if missing:
        raise ValueError(f"results: missing {', '.join(missing)}")
    documented = {name: _arm(name, arm) for name, arm in arms.items()}
    measure = comparison.judged_by(dataset)
    selected = comparison.select(documented, measure)
    _compare({name: documented[name] for name in selected.values()}, arms, measure, labels)
    families = {"selected": selected} if any("family" in arm for arm in arms.values()) else {}
    return plain({**sections, "arms": documented, **families, "environment": environment, "config": config}, "results")


def read(path: Path, fix: str) -> dict[str, Any]:
    """Reads the content of a results.json.

    Args:
        path: the file.
        fix: how to repair a damaged file, for the message.

    Raises:
        InputError: the file is missing, is not JSON, or is not the document of one run; the message names the first
            field that is wrong.
    """
    results = files.read_json(path, fix)
    flaw = schema.flaw(results)
    if flaw is None:
        return dict(results)
    if isinstance(results, dict) and "data_seeds" in results:  # from `combine`
        raise InputError(f"{path} is of a run over several splits: give its split-0, split-1, … in its place")
    what = f": {flaw} is missing or is not what an evaluation writes" if flaw else ""
    raise InputError(f"{path} is not the results.json of a run{what}: {fix}")


def read_final(path: Path, fix: str) -> dict[str, Any]:
    """Reads a results.json as `read` does, and refuses a run whose students have not finished training.

    Among other runs, nobody would notice that its figures are not final.

    Raises:
        InputError: see `read`; or the run is not final.
    """
    results = read(path, fix)
    if not is_final(results):
        step, total_steps = map(results["student"].get, ("step", "total_steps"))
        raise InputError(
            f"{path} is not final, its students are at step {step} of {total_steps}: run --stages=distill,evaluate of "
            "that run to the end"
        )
    return results


def is_final(results: Mapping[str, Any]) -> bool:
    """Whether the students had finished training when they were measured; true if an older version wrote no step."""
    return bool(results["student"].get("step") == results["student"].get("total_steps"))


def one_teacher(teachers: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all teachers are the same, such as a file that was given to each run; False if it is not recorded."""
    keys = ("fingerprints",) if all("fingerprints" in teacher for teacher in teachers) else ("sha256", "fitted_heads")
    identities = [[teacher.get(key) for key in keys] for teacher in teachers]
    return identities[0][0] is not None and all(identity == identities[0] for identity in identities)


def judged_by_all(runs: Mapping[Path, Mapping[str, Any]]) -> str:
    """Returns `comparison.judged_by_all` for runs by their directories.

    Raises:
        InputError: a run has no figures of that measure, because an earlier version evaluated it.
    """
    measure = comparison.judged_by_all(results["dataset"] for results in runs.values())
    required = {measure, f"val_{measure}"} if measure != "top1" else set()
    for folder, results in runs.items():
        if any(required - arm.keys() for arm in results["arms"].values()):
            raise InputError(
                f"{folder / 'results.json'} has no {comparison.NAMES[measure]}, by which runs of unequal classes are "
                "compared: run --stages=evaluate of that run again"
            )
    return measure


def dtype(results: Mapping[str, Any]) -> str:
    """Returns the compute dtype of a run; the "auto" of earlier versions meant the default of the run's backend."""
    recorded = results["config"].get("dtype", "auto")
    on_cpu = results.get("environment", {}).get("backend") == "cpu"
    return recorded if recorded != "auto" else "float32" if on_cpu else "bfloat16"


def combine(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Combines the results of runs on several splits of one data set.

    Each split is one repetition. It contributes its teacher and, for each arm (or the selected trial of a family), the
    mean over the seeds. The gain of an arm on a split is paired by seed, over the seeds that succeeded in both arms.

    Args:
        runs: results from `build`, one per split.

    Returns:
        dataset {name, classes, overlap (mean over the splits)}; measure; data_seeds; folds (per split its (number,
        folds) of places, or None); final (per split whether its students had finished training); seeds; teacher {model,
        same, test_top1, mean, std, ci95} (None unless every split has one; same: whether all have the same teacher);
        arms {NAME: {test_top1, mean, std, ci95, minus_alone, p_vs_alone, failed}}, with test_top1 and failed (the
        failed seeds) per split; alone, baselines and better_baselines, which are those of `comparison` over the seeds
        of all splits together; selected {NAME: trial per split} for families. If classes are unequal on any split,
        measure is "macro_recall" and test_macro_recall replaces test_top1. Intervals and p-values allow for the overlap
        of the splits, see `intervals.summary`; p-values are Holm-corrected over the arms.

    Raises:
        InputError: a split has other arms or families than the first.
    """
    first = runs[0]
    overlap = math.fsum(run["dataset"]["overlap"] for run in runs) / len(runs)  # folds may differ in size
    measure = comparison.judged_by_all(run["dataset"] for run in runs)
    trials = [(run["arms"], comparison.select(run["arms"], measure)) for run in runs]
    for number, (run, (_, selected)) in enumerate(zip(runs, trials, strict=True)):
        if selected.keys() != trials[0][1].keys():
            raise InputError(
                f"the arms of split {number} (data seed {run['config']['data_seed']}) are {', '.join(selected)}, those "
                f"of split 0 {', '.join(trials[0][1])}: run --stages=evaluate of all splits again"
            )
    arms_by_family = {family: [arms[selected[family]] for arms, selected in trials] for family in trials[0][1]}
    with_trials = [
        family
        for family in arms_by_family
        if any(arm.get("family") == family for arms, _ in trials for arm in arms.values())
    ]
    means = {
        family: [comparison.figures(arm, measure)["mean"] for arm in split_arms]
        for family, split_arms in arms_by_family.items()
    }
    pooled = _pooled(arms_by_family, measure)
    alone = comparison.find_alone(pooled, measure)
    key = f"test_{measure}"
    arms = {name: {key: values, **intervals.accuracies(values, overlap)} for name, values in means.items()}
    gains = {
        name: [
            intervals.mean(intervals.paired_differences(*comparison.paired(*pair, measure)))
            for pair in zip(split_arms, arms_by_family[alone], strict=True)
        ]
        for name, split_arms in arms_by_family.items()
        if alone and name != alone
    }
    zeros = [0.0] * len(runs)
    corrected = intervals.holm({name: intervals.paired_t(gain, zeros, overlap) for name, gain in gains.items()})
    for name, arm in arms.items():
        arm["minus_alone"] = intervals.summary(gains[name], overlap) if name in gains else None
        arm["p_vs_alone"] = corrected.get(name)
        arm["failed"] = [comparison.failed_seeds(split_arm) for split_arm in arms_by_family[name]]
    return {
        "dataset": {"name": first["dataset"]["name"], "classes": first["dataset"]["classes"], "overlap": overlap},
        "measure": measure,
        "data_seeds": [run["config"]["data_seed"] for run in runs],
        "folds": [_fold_of_places(run["config"].get("dataset", {})) for run in runs],
        "final": list(map(is_final, runs)),
        "seeds": list(first["config"]["seeds"]),
        "teacher": _teacher(runs, measure, overlap),
        "arms": arms,
        "alone": alone,
        "baselines": comparison.baselines(pooled),
        "better_baselines": comparison.better_baselines(pooled, alone, measure),
        "selected": {family: [selected[family] for _, selected in trials] for family in with_trials},
        "environment": first["environment"],
    }


def _pooled(arms_by_family: Mapping[str, Sequence[Mapping[str, Any]]], measure: str) -> dict[str, dict[str, Any]]:
    """Returns what `comparison` ranks arms by, with the seeds of all splits: each lost seed counts, as in one split."""
    by_seed = (f"val_{measure}", "val_nll")
    return {
        family: {
            "weights": split_arms[0]["weights"],
            **{key: [value for arm in split_arms for value in arm.get(key, ())] for key in by_seed},
        }
        for family, split_arms in arms_by_family.items()
    }


def _teacher(runs: Sequence[Mapping[str, Any]], measure: str, overlap: float) -> dict[str, Any] | None:
    teachers = [run["teacher"] for run in runs]
    if not all(teachers):
        return None
    values = [teacher["test"][measure] for teacher in teachers]
    facts = {"model": teachers[0]["model"], "same": one_teacher(teachers), f"test_{measure}": values}
    return {**facts, **intervals.accuracies(values, overlap)}


def _fold_of_places(section: Mapping[str, Any]) -> list[int] | None:
    """Returns (number, folds) if the splits are folds of one set of places; folds by image are drawn per split."""
    return section.get("fold") or None if section.get("split_by") == "place" else None


def _arm(name: str, arm: Mapping[str, Any]) -> dict[str, Any]:
    seeds = list(arm["seeds"])
    for key in ("test", "val_top1"):
        if len(arm[key]) != len(seeds):
            raise ValueError(f"arms.{name}.{key}: {len(arm[key])} entries for {len(seeds)} seeds")
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"arms.{name}.seeds: a seed is repeated in {seeds}")
    top1, macro = (
        [None if measures is None else plain(measures.get(name), name) for measures in arm["test"]]
        for name in ("top1", "macro_recall")
    )
    no_comparison = {"p_vs_alone": None, "minus_alone": None, "bootstrap": None}
    return {
        "weights": dict(arm["weights"]),
        "temperature": arm["temperature"],
        "seeds": seeds,
        "test_top1": top1,
        "val_top1": list(arm["val_top1"]),
        **intervals.accuracies(top1),
        **no_comparison,
        "macro_recall": {"test": macro, **intervals.accuracies(macro), **no_comparison},
        **{k: v for k, v in arm.items() if k not in ("weights", "temperature", "seeds", "val_top1", "test", "correct")},
        "test_metrics": list(arm["test"]),
    }


def _compare(
    arms: Mapping[str, dict[str, Any]],
    inputs: Mapping[str, Mapping[str, Any]],
    selecting_measure: str,
    labels: np.ndarray | None,
) -> None:
    """Writes into each arm how it differs from the arm trained without the teacher, by both measures."""
    alone = comparison.find_alone(arms, selecting_measure)
    if alone is None:
        return
    for measure in comparison.NAMES:
        figures = {name: arm if measure == "top1" else arm[measure] for name, arm in arms.items()}
        p_values: dict[str, float | None] = {}
        for name, arm in arms.items():
            if name == alone:
                continue
            ours, theirs = comparison.paired(arm, arms[alone], measure)
            p_values[name] = intervals.paired_t(ours, theirs)
            figures[name]["minus_alone"] = intervals.summary(intervals.paired_differences(ours, theirs))
            if measure == "top1" or labels is not None:
                by_class = labels if measure == "macro_recall" else None
                figures[name]["bootstrap"] = _bootstrap(inputs[name], inputs[alone], by_class)
        for name, p in intervals.holm(p_values).items():
            figures[name]["p_vs_alone"] = p


def _bootstrap(ours: Mapping[str, Any], theirs: Mapping[str, Any], labels: np.ndarray | None) -> dict[str, Any] | None:
    """Bootstraps the difference of two arms over their common successful seeds; of macro recall if labels are given."""
    if "correct" not in ours or "correct" not in theirs:
        return None
    # A student with logits that are not finite was measured as well, but its figures are None.
    succeeded = lambda figures: figures is not None and plain(figures.get("top1"), "top1") is not None
    valid = [{s: i for i, s in enumerate(arm["seeds"]) if succeeded(arm["test"][i])} for arm in (ours, theirs)]
    shared = [seed for seed in valid[0] if seed in valid[1]]
    if not shared:
        return None
    a, b = (
        np.stack([arm["correct"][places[seed]] for seed in shared])
        for arm, places in zip((ours, theirs), valid, strict=True)
    )
    return intervals.paired_bootstrap(a, b, labels)
