"""The content of `results.json`, from plain data.

All accuracies are fractions.
"""

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
            in `data.Dataset`), and any more; where training tiles without labels exist, labels ({labeled, total}); for
            runs whose classes may be unequal, class_counts ({train, val, test: labeled images by class}), see
            `comparison.judged_by`.
        teacher: model, params, macs, forward_images (images the teacher was run on for distillation), test (the dict of
            `metrics.classification`), and any more; None of a run without one.
        student: model, params, macs, and any more.
        arms: name -> weights ({'ce', 'kl', 'cosine', ...}), temperature, seeds (list of int), test (per seed the dict
            of `metrics.classification`, joined with that of `metrics.agreement`; None for a seed that failed), val_top1
            (per seed a fraction or None), with class_counts val_macro_recall, val_nll (per seed in nats, which decides
            between equals), and any more, which is passed on. Two keys have a meaning here: 'correct', (seeds, test
            images) bool, is what the bootstrap draws from and is not kept; 'family' makes an arm one trial of several
            of that name, of which the best on validation is compared.
        environment: as from `runtime.environment.environment()`.
        config: mapping or ConfigDict, kept as it is.
        labels: (test images,) int, the classes that the bootstrap of macro recall draws by; not kept.

    Returns:
        JSON values (None for NaN and infinity) under dataset, teacher, student, arms, environment, config, and, where
        there are families, selected (family -> arm). Each arm:
            weights, temperature, seeds; test_top1, val_top1: per seed; mean, std, ci95 of test_top1, see
            `intervals.accuracies`; p_vs_alone: paired two-sided t-test over the seeds both arms have, Holm-corrected
            over the arms; minus_alone: `intervals.summary` of the paired difference to the arm that
            `comparison.find_alone` names (null for that one); bootstrap: difference and ci95 of
            `intervals.paired_bootstrap` against that arm, or null; test_metrics: per seed everything measured on the
            test split; macro_recall: test, mean, std, ci95, p_vs_alone, minus_alone and bootstrap again, of that
            measure, against the same arm.

    Raises:
        ValueError: a key is missing, lists of an arm have different lengths, or seeds repeat.
        TypeError: a value that JSON does not know.
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
    built = {name: _arm(name, arm) for name, arm in arms.items()}
    judged = comparison.judged_by(dataset)
    selected = comparison.select(built, judged)
    _compare({name: built[name] for name in selected.values()}, arms, judged, labels)
    families = {"selected": selected} if any("family" in arm for arm in arms.values()) else {}
    return plain({**sections, "arms": built, **families, "environment": environment, "config": config}, "results")


def read(path: Path, fix: str) -> dict[str, Any]:
    """The content of a results.json.

    Args:
        path: the file.
        fix: what to do where it is damaged, for the message.

    Raises:
        InputError: it is not there, is not JSON, or not the document of one run; names the field that is not.
    """
    found = files.read_json(path, fix)
    flaw = schema.flaw(found)
    if flaw is None:
        return dict(found)
    if isinstance(found, dict) and "data_seeds" in found:  # from `combine`
        raise InputError(f"{path} is of a run over several splits: give its split-0, split-1, … in its place")
    what = f": {flaw} is missing or is not what an evaluation writes" if flaw else ""
    raise InputError(f"{path} is not the results.json of a run{what}: {fix}")


def read_final(path: Path, fix: str) -> dict[str, Any]:
    """As `read`, of a run whose students have learned all they will: beside others nobody would see it if not.

    Raises:
        InputError: as `read`, or they have not.
    """
    found = read(path, fix)
    if not is_final(found):
        step, total = map(found["student"].get, ("step", "total_steps"))
        raise InputError(
            f"{path} is not final, its students are at step {step} of {total}: run --stages=distill,evaluate of that "
            "run to the end"
        )
    return found


def is_final(results: Mapping[str, Any]) -> bool:
    """Whether the students had learned all they will when they were measured; an older version did not say."""
    return bool(results["student"].get("step") == results["student"].get("total_steps"))


def one_teacher(teachers: Sequence[Mapping[str, Any]]) -> bool:
    """Whether all are one, such as a file that was given to every run; False of those that do not say who they are."""
    facts = ("fingerprints",) if all("fingerprints" in one for one in teachers) else ("sha256", "fitted_heads")
    told = [[one.get(name) for name in facts] for one in teachers]
    return told[0][0] is not None and all(one == told[0] for one in told)


def judged_by_all(runs: Mapping[Path, Mapping[str, Any]]) -> str:
    """`comparison.judged_by_all` of runs by their directories.

    Raises:
        InputError: a run has no figures of it: it was evaluated by an earlier version, and is judged by another.
    """
    measure = comparison.judged_by_all(one["dataset"] for one in runs.values())
    wanted = {measure, f"val_{measure}"} if measure != "top1" else set()
    for folder, one in runs.items():
        if any(wanted - arm.keys() for arm in one["arms"].values()):
            raise InputError(
                f"{folder / 'results.json'} has no {comparison.NAMES[measure]}, by which runs of unequal classes are "
                "compared: run --stages=evaluate of that run again"
            )
    return measure


def dtype(results: Mapping[str, Any]) -> str:
    """The compute dtype of a run; earlier versions wrote "auto", which was that of the backend."""
    said = results["config"].get("dtype", "auto")
    on_cpu = results.get("environment", {}).get("backend") == "cpu"
    return said if said != "auto" else "float32" if on_cpu else "bfloat16"


def combine(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What several runs over several splits of one data set say together.

    A repetition is a split: its teacher, and of each arm (of a family its selected trial) the mean over its seeds. What
    an arm gains on a split is paired by seed: where it lost seeds, both count over those that both ended.

    Args:
        runs: as from `build`, one a split.

    Returns:
        dataset {name, classes, overlap (mean over the splits)}, measure, data_seeds, folds (of each its (number, folds)
        of places, or None), final (of each whether its students had learned all they will), seeds, teacher {model,
        same, test_top1, mean, std, ci95} (None where not every split has one; same: whether it is one teacher) and arms
        {NAME: {test_top1, mean, std, ci95, minus_alone, p_vs_alone, failed}}; test_top1 and failed (its seeds) per
        split; selected {NAME: per split its trial}, of families of several. Where classes are unequal on a split,
        measure is "macro_recall", and test_macro_recall is in its place. Intervals and p-values allow for the overlap
        of the splits, see `intervals.summary`; p-values are Holm-corrected over the arms. The arm that the others are
        compared with is the best on validation over all splits of those that use no teacher.

    Raises:
        InputError: a split has other arms, or families of them, than the first.
    """
    first = runs[0]
    overlap = math.fsum(run["dataset"]["overlap"] for run in runs) / len(runs)  # folds may differ in size
    judged = comparison.judged_by_all(run["dataset"] for run in runs)
    trials = [(run["arms"], comparison.select(run["arms"], judged)) for run in runs]
    for number, (run, (_, chosen)) in enumerate(zip(runs, trials, strict=True)):
        if chosen.keys() != trials[0][1].keys():
            raise InputError(
                f"the arms of split {number} (data seed {run['config']['data_seed']}) are {', '.join(chosen)}, those "
                f"of split 0 {', '.join(trials[0][1])}: run --stages=evaluate of all splits again"
            )
    of_family = {family: [arms[chosen[family]] for arms, chosen in trials] for family in trials[0][1]}
    several = [
        family
        for family in of_family
        if any(arm.get("family") == family for arms, _ in trials for arm in arms.values())
    ]
    means = {family: [comparison.figures(arm, judged)["mean"] for arm in one] for family, one in of_family.items()}
    alone = comparison.find_alone(
        {
            family: {
                "weights": one[0]["weights"],
                f"val_{judged}": [comparison.on_validation(arm, judged) for arm in one],
                "val_nll": [intervals.mean(arm.get("val_nll", ())) for arm in one],
            }
            for family, one in of_family.items()
        },
        judged,
    )
    key = f"test_{judged}"
    arms = {name: {key: values, **intervals.accuracies(values, overlap)} for name, values in means.items()}
    gains = {
        name: [
            intervals.mean(intervals.paired_differences(*comparison.paired(*pair, judged)))
            for pair in zip(one, of_family[alone], strict=True)
        ]
        for name, one in of_family.items()
        if alone and name != alone
    }
    nothing = [0.0] * len(runs)
    corrected = intervals.holm({name: intervals.paired_t(gain, nothing, overlap) for name, gain in gains.items()})
    for name, arm in arms.items():
        arm["minus_alone"] = intervals.summary(gains[name], overlap) if name in gains else None
        arm["p_vs_alone"] = corrected.get(name)
        arm["failed"] = [comparison.failed_seeds(one) for one in of_family[name]]
    return {
        "dataset": {"name": first["dataset"]["name"], "classes": first["dataset"]["classes"], "overlap": overlap},
        "measure": judged,
        "data_seeds": [run["config"]["data_seed"] for run in runs],
        "folds": [_fold_of_places(run["config"].get("dataset", {})) for run in runs],
        "final": list(map(is_final, runs)),
        "seeds": list(first["config"]["seeds"]),
        "teacher": _teacher(runs, judged, overlap),
        "arms": arms,
        "selected": {family: [chosen[family] for _, chosen in trials] for family in several},
        "environment": first["environment"],
    }


def _teacher(runs: Sequence[Mapping[str, Any]], judged: str, overlap: float) -> dict[str, Any] | None:
    teachers = [run["teacher"] for run in runs]
    if not all(teachers):
        return None
    values = [one["test"][judged] for one in teachers]
    facts = {"model": teachers[0]["model"], "same": one_teacher(teachers), f"test_{judged}": values}
    return {**facts, **intervals.accuracies(values, overlap)}


def _fold_of_places(section: Mapping[str, Any]) -> list[int] | None:
    """(number, folds) where splits are the folds of one set of places; of folds by image each split draws its own."""
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
    compared = {"p_vs_alone": None, "minus_alone": None, "bootstrap": None}
    return {
        "weights": dict(arm["weights"]),
        "temperature": arm["temperature"],
        "seeds": seeds,
        "test_top1": top1,
        "val_top1": list(arm["val_top1"]),
        **intervals.accuracies(top1),
        **compared,
        "macro_recall": {"test": macro, **intervals.accuracies(macro), **compared},
        **{k: v for k, v in arm.items() if k not in ("weights", "temperature", "seeds", "val_top1", "test", "correct")},
        "test_metrics": list(arm["test"]),
    }


def _compare(
    compared: Mapping[str, dict[str, Any]],
    given: Mapping[str, Mapping[str, Any]],
    judged: str,
    labels: np.ndarray | None,
) -> None:
    """Writes into each compared arm how it differs from the one trained without the teacher, by both measures."""
    alone = comparison.find_alone(compared, judged)
    if alone is None:
        return
    for measure in comparison.NAMES:
        of = {name: arm if measure == "top1" else arm[measure] for name, arm in compared.items()}
        raw: dict[str, float | None] = {}
        for name, arm in compared.items():
            if name == alone:
                continue
            ours, theirs = comparison.paired(arm, compared[alone], measure)
            raw[name] = intervals.paired_t(ours, theirs)
            of[name]["minus_alone"] = intervals.summary(intervals.paired_differences(ours, theirs))
            if measure == "top1" or labels is not None:
                by_class = labels if measure == "macro_recall" else None
                of[name]["bootstrap"] = _bootstrap(given[name], given[alone], by_class)
        for name, p in intervals.holm(raw).items():
            of[name]["p_vs_alone"] = p


def _bootstrap(ours: Mapping[str, Any], theirs: Mapping[str, Any], labels: np.ndarray | None) -> dict[str, Any] | None:
    """Over the seeds that both arms have and in which neither failed; of macro recall with labels."""
    if "correct" not in ours or "correct" not in theirs:
        return None
    # A student whose logits are not finite was measured as well, with None in place of its figures.
    ended_well = lambda measured: measured is not None and plain(measured.get("top1"), "top1") is not None
    valid = [{s: i for i, s in enumerate(arm["seeds"]) if ended_well(arm["test"][i])} for arm in (ours, theirs)]
    shared = [seed for seed in valid[0] if seed in valid[1]]
    if not shared:
        return None
    a, b = (
        np.stack([arm["correct"][places[seed]] for seed in shared])
        for arm, places in zip((ours, theirs), valid, strict=True)
    )
    return intervals.paired_bootstrap(a, b, labels)
