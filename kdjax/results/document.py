"""The content of `results.json`, from plain data.

All accuracies are fractions.
"""

import importlib.metadata
import math
import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kdjax.results import intervals

_PACKAGES = {
    "kdjax": "kdjax",
    "jax": "jax",
    "jaxlib": "jaxlib",
    "flax": "flax",
    "optax": "optax",
    "orbax": "orbax-checkpoint",
    "numpy": "numpy",
}


def build(
    *,
    dataset: Mapping[str, Any],
    teacher: Mapping[str, Any],
    student: Mapping[str, Any],
    arms: Mapping[str, Mapping[str, Any]],
    environment: Mapping[str, Any],
    config: Any,
    alone: str | None = None,
) -> dict[str, Any]:
    """Assembles the content of results.json.

    Args:
      dataset: name, classes (tuple of str), splits ({train, val, test: number of images}), fingerprint, overlap (as in
        `data.Dataset`), and any more.
      teacher: model, params, macs, forward_images (images the teacher was run on for distillation), test (the dict of
        `metrics.classification`), and any more.
      student: model, params, macs, and any more.
      arms: name -> weights ({'ce', 'kl', 'cosine', ...}), temperature, seeds (list of int), test (per seed the dict of
        `metrics.classification`, joined with that of `metrics.agreement`; None for a seed that failed), val_top1 (per
        seed a fraction or None), and any more, which is passed on. Two keys have a meaning here: 'correct', (seeds,
        test images) bool, is what the bootstrap draws from and is not kept; 'family' makes an arm one trial of several
        of that name, of which the one with the highest mean val_top1 is compared.
      environment: as from `environment()`.
      config: mapping or ConfigDict, kept as it is.
      alone: the arm that the others are compared with. By default 'student_alone', else the first arm whose weights are
        all 0 but 'ce', else none.
    Returns:
      JSON values (None for NaN and infinity) under dataset, teacher, student, arms, environment, config, and, where
      there are families, selected (family -> arm). Each arm:
        weights, temperature, seeds; test_top1, val_top1: per seed; mean, std, ci95 of test_top1 (n - 1; Student's t);
        p_vs_alone: paired two-sided t-test over the seeds both arms have, Holm-corrected over the arms;
        minus_alone: mean, std, ci95 of the paired difference to the student alone (null for that one);
        bootstrap: difference and ci95 of `statistics.paired_bootstrap` against the student alone, or null;
        test_metrics: per seed everything measured on the test split.
    Raises:
      ValueError: a key is missing, lists of an arm have different lengths, seeds repeat, or `alone` is no arm.
    """
    _need("dataset", dataset, "name", "classes", "splits", "fingerprint", "overlap")
    _need("dataset.splits", dataset["splits"], "train", "val", "test")
    _need("teacher", teacher, "model", "params", "macs", "forward_images", "test")
    _need("student", student, "model", "params", "macs")
    built = {name: _arm(name, arm) for name, arm in arms.items()}
    selected = select(built)
    compared = {name: built[name] for name in selected.values()}
    if alone is None:
        alone = find_alone(compared)
    elif alone not in built:
        raise ValueError(f"alone: '{alone}' is none of the arms {', '.join(built)}")
    raw: dict[str, float | None] = {}
    for name, arm in compared.items():
        if alone is None or name == alone:
            continue
        ours, theirs = _paired_by_seed(arm, built[alone])
        raw[name] = intervals.paired_t(ours, theirs)
        arm["minus_alone"] = intervals.summary(intervals.paired_differences(ours, theirs))
        arm["bootstrap"] = _bootstrap(arms[name], arms[alone])
    corrected = intervals.holm(raw)
    for name, arm in compared.items():
        arm["p_vs_alone"] = corrected.get(name)
    families = {"selected": selected} if any("family" in arm for arm in arms.values()) else {}
    return _plain(
        {
            "dataset": dataset,
            "teacher": teacher,
            "student": student,
            "arms": built,
            **families,
            "environment": environment,
            "config": config,
        },
        "results",
    )


def combine(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What several runs over several splits of one data set say together.

    A repetition is a split: its teacher, and of each arm (of a family its selected trial) the mean over its seeds.

    Args:
      runs: as from `build`, one a split, of the same arms.

    Returns:
      dataset {name, classes, overlap}, data_seeds, seeds, teacher {model, test_top1, mean, std, ci95} and arms {NAME:
      {test_top1, mean, std, ci95, minus_alone, p_vs_alone}}; test_top1 per split. Intervals and p-values allow for the
      overlap of the splits, see `statistics.summary`; p-values are Holm-corrected over the arms.
    """
    first = runs[0]
    overlap = first["dataset"]["overlap"]
    shown = [select(run["arms"]) for run in runs]
    top1 = {
        family: [run["arms"][chosen[family]]["mean"] for run, chosen in zip(runs, shown, strict=True)]
        for family in shown[0]
    }
    alone = find_alone({family: first["arms"][name] for family, name in shown[0].items()})
    arms = {name: {"test_top1": values, **intervals.summary(values, overlap)} for name, values in top1.items()}
    raw = {name: intervals.paired_t(top1[name], top1[alone], overlap) for name in arms if alone and name != alone}
    corrected = intervals.holm(raw)
    for name, arm in arms.items():
        differences = intervals.paired_differences(top1[name], top1[alone]) if name in raw else None
        arm["minus_alone"] = intervals.summary(differences, overlap) if differences else None
        arm["p_vs_alone"] = corrected.get(name)
    teacher = [run["teacher"]["test"]["top1"] for run in runs]
    return {
        "dataset": {"name": first["dataset"]["name"], "classes": first["dataset"]["classes"], "overlap": overlap},
        "data_seeds": [run["config"]["data_seed"] for run in runs],
        "seeds": list(first["config"]["seeds"]),
        "teacher": {
            "model": first["teacher"]["model"],
            "test_top1": teacher,
            **intervals.summary(teacher, overlap),
        },
        "arms": arms,
        "environment": first["environment"],
    }


def environment() -> dict[str, Any]:
    """What this ran on: versions, devices of all processes, platform, CPU count, XLA_FLAGS. Starts the JAX backend."""
    kinds = Counter(device.device_kind for device in jax.devices())
    return {
        "python": platform.python_version(),
        **{name: _version(distribution) for name, distribution in _PACKAGES.items()},
        "backend": jax.default_backend(),
        "devices": [{"kind": kind, "count": count} for kind, count in sorted(kinds.items())],
        "processes": jax.process_count(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _arm(name: str, arm: Mapping[str, Any]) -> dict[str, Any]:
    _need(f"arms.{name}", arm, "weights", "temperature", "seeds", "test", "val_top1")
    seeds = list(arm["seeds"])
    for key in ("test", "val_top1"):
        if len(arm[key]) != len(seeds):
            raise ValueError(f"arms.{name}.{key}: {len(arm[key])} entries for {len(seeds)} seeds")
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"arms.{name}.seeds: a seed is repeated in {seeds}")
    top1 = [None if measures is None else _plain(measures["top1"], "top1") for measures in arm["test"]]
    return {
        "weights": dict(arm["weights"]),
        "temperature": arm["temperature"],
        "seeds": seeds,
        "test_top1": top1,
        "val_top1": list(arm["val_top1"]),
        **intervals.summary(top1),
        "p_vs_alone": None,
        "minus_alone": None,
        "bootstrap": None,
        **{k: v for k, v in arm.items() if k not in ("weights", "temperature", "seeds", "val_top1", "test", "correct")},
        "test_metrics": list(arm["test"]),
    }


def select(arms: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """For each family of arms its trial with the highest mean validation top-1, the first of equals.

    An arm without a family is one of its own. Arms as in the result of `build`.
    """
    chosen: dict[str, str] = {}
    score = lambda name: intervals.summary(arms[name]["val_top1"])["mean"] or 0.0
    for name, arm in arms.items():
        family = arm.get("family", name)
        if family not in chosen or score(name) > score(chosen[family]):
            chosen[family] = name
    return chosen


def find_alone(arms: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The arm that the others are compared with: the student alone, else the first that has only a hard loss."""
    for name, arm in arms.items():
        if arm.get("family", name) == "student_alone":
            return name
    hard_only = (name for name, arm in arms.items() if not any(v for k, v in arm["weights"].items() if k != "ce"))
    return next(hard_only, None)


def _paired_by_seed(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[list[float | None], list[float | None]]:
    ours, theirs = (dict(zip(arm["seeds"], arm["test_top1"], strict=True)) for arm in (a, b))
    shared = [seed for seed in ours if seed in theirs]
    return [ours[seed] for seed in shared], [theirs[seed] for seed in shared]


def _bootstrap(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Over the seeds that both arms have and in which neither failed."""
    if "correct" not in ours or "correct" not in theirs:
        return None
    valid = [{s: i for i, s in enumerate(arm["seeds"]) if arm["test"][i] is not None} for arm in (ours, theirs)]
    shared = [seed for seed in valid[0] if seed in valid[1]]
    if not shared:
        return None
    pair = (
        np.stack([arm["correct"][places[seed]] for seed in shared])
        for arm, places in zip((ours, theirs), valid, strict=True)
    )
    return intervals.paired_bootstrap(*pair)


def _need(where: str, mapping: Mapping[str, Any], *keys: str) -> None:
    missing = [key for key in keys if key not in mapping]
    if missing:
        raise ValueError(f"{where}: missing {', '.join(missing)}")


def _plain(value: Any, where: str) -> Any:
    """Python values that JSON knows; NaN and infinity become None."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return _plain(np.asarray(value).tolist(), where)
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "items"):  # a mapping or an ml_collections.ConfigDict
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise TypeError(f"{where}: a {type(value).__name__} has no place in a results file")


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
