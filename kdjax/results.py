"""The results file of a run, and the table that closes it in the terminal.

`build` turns plain data into the dictionary of `results.json`, `write` puts it on disk, `table` makes it readable. All
accuracies are fractions in the file and percent in the table.
"""

import importlib.metadata
import json
import math
import os
import platform
import re
import tempfile
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kdjax import statistics

TABLE_WIDTH = 118
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
      dataset: name, classes (tuple of str), splits ({train, val, test: number of images}), fingerprint, and any more.
      teacher: model, params, macs, forward_images (images the teacher was run on for distillation), test (the dict of
        `metrics.classification`), and any more.
      student: model, params, macs, and any more.
      arms: name -> weights ({'ce', 'kl', 'cosine', ...}), temperature, seeds (list of int), test (per seed the dict of
        `metrics.classification`, joined with that of `metrics.agreement`; None for a seed that failed), val_top1 (per
        seed a fraction or None), and any more, which is passed on.
      environment: as from `environment()`.
      config: mapping or ConfigDict, kept as it is.
      alone: the arm that the others are compared with. By default 'student_alone', else the first arm whose weights are
        all 0 but 'ce', else none.
    Returns:
      JSON values (None for NaN and infinity) under dataset, teacher, student, arms, environment, config. Each arm:
        weights, temperature, seeds; test_top1, val_top1: per seed; mean, std, ci95 of test_top1 (n - 1; Student's t);
        p_vs_alone: paired two-sided t-test over the seeds both arms have, Holm-corrected over the arms;
        minus_alone: mean, std, ci95 of the paired difference to the student alone (null for that one);
        test_metrics: per seed everything measured on the test split.
    Raises:
      ValueError: a key is missing, lists of an arm have different lengths, seeds repeat, or `alone` is no arm.
    """
    _need("dataset", dataset, "name", "classes", "splits", "fingerprint")
    _need("dataset.splits", dataset["splits"], "train", "val", "test")
    _need("teacher", teacher, "model", "params", "macs", "forward_images", "test")
    _need("student", student, "model", "params", "macs")
    built = {name: _arm(name, arm) for name, arm in arms.items()}
    if alone is None:
        alone = _find_alone(built)
    elif alone not in built:
        raise ValueError(f"alone: '{alone}' is none of the arms {', '.join(built)}")
    raw: dict[str, float | None] = {}
    for name, arm in built.items():
        arm["minus_alone"] = None
        if alone is not None and name != alone:
            ours, theirs = _paired_by_seed(arm, built[alone])
            raw[name] = statistics.paired_t(ours, theirs)
            arm["minus_alone"] = statistics.summary(statistics.paired_differences(ours, theirs))
    corrected = statistics.holm(raw)
    for name, arm in built.items():
        arm["p_vs_alone"] = corrected.get(name)
    return _plain(
        {
            "dataset": dataset,
            "teacher": teacher,
            "student": student,
            "arms": built,
            "environment": environment,
            "config": config,
        },
        "results",
    )


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


def write(path: str | Path, results: Mapping[str, Any]) -> None:
    """Writes JSON so that the file is either the old one or the whole new one.

    Raises:
      ValueError: the results hold NaN or infinity (those of `build` never do).
      OSError: the folder cannot be written.
    """
    path = Path(path)
    text = json.dumps(results, indent=2, allow_nan=False, ensure_ascii=False)
    # Lists of plain values (rows of a confusion matrix) on one line. JSON strings hold no raw line break, so only the
    # breaks between values are touched.
    text = re.sub(r"\[\n[^\[\]{}]*\]", _on_one_line, text)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def table(results: Mapping[str, Any], closing: str | None = None) -> str:
    """The closing table: the teacher, one row per arm, and below it what the numbers do and do not say.

    Args:
      results: as from `build` or read from results.json.
      closing: a last paragraph of the caller's, such as that the networks were trained from scratch.
    Returns:
      Lines of text without a trailing newline.
    """
    dataset, teacher, student, arms = (results[k] for k in ("dataset", "teacher", "student", "arms"))
    splits = dataset["splits"]
    many = any(len(arm["seeds"]) > 1 for arm in arms.values())
    terms = list(dict.fromkeys(term for arm in arms.values() for term in arm["weights"]))
    header = [
        "",
        *terms,
        "T",
        "test top-1 %",
        "95% interval",
        "p (Holm)",
        "macro-F1 %",
        "NLL",
        "ECE %",
        "params",
        "MACs",
    ]
    rows = [
        [
            f"teacher {teacher['model']}",
            *[""] * (len(terms) + 1),
            _percent(teacher["test"].get("top1")),
            "",
            "",
            _percent(teacher["test"].get("macro_f1")),
            _number(teacher["test"].get("nll"), 3),
            _percent(teacher["test"].get("ece")),
            _short(teacher["params"]),
            _short(teacher["macs"]),
        ]
    ]
    for name, arm in arms.items():
        soft = any(value for term, value in arm["weights"].items() if term != "ce")
        rows.append(
            [
                name,
                *(_weight(arm["weights"].get(term)) for term in terms),
                _weight(arm["temperature"]) if soft else "",
                _percent(arm["mean"]) + (f" ± {_percent(arm['std'])}" if arm["std"] is not None else ""),
                f"{_percent(arm['ci95'][0])} to {_percent(arm['ci95'][1])}" if arm["ci95"] else "",
                _p(arm["p_vs_alone"]),
                _percent(_over_seeds(arm, "macro_f1")),
                _number(_over_seeds(arm, "nll"), 3),
                _percent(_over_seeds(arm, "ece")),
                _short(student["params"]),
                _short(student["macs"]),
            ]
        )
    if not many:  # two empty columns less
        drop = {header.index("95% interval"), header.index("p (Holm)")}
        header, *rows = ([cell for i, cell in enumerate(row) if i not in drop] for row in (header, *rows))
    title = (
        f"{dataset['name']}: {len(dataset['classes'])} classes, {splits['train']} / {splits['val']} / "
        f"{splits['test']} images for training / validation / test. Student: {student['model']}."
    )
    notes = [*_notes(results, many), *([closing] if closing else [])]
    return "\n".join(
        [
            title,
            "",
            *_align(header, rows),
            "",
            *(textwrap.fill(n, TABLE_WIDTH, initial_indent="- ", subsequent_indent="  ") for n in notes),
        ]
    )


def compression(teacher: Mapping[str, Any], student: Mapping[str, Any]) -> str:
    """How much smaller the student is, with and without VGG16's fully connected head, in plain words.

    Args:
      teacher, student: params, macs and, where known, activation_bytes; teacher: head and heads (head -> its params),
        where there is a choice of heads.
    """
    kinds = {"params": "parameters", "macs": "multiply-adds", "activation_bytes": "bytes of activations"}
    ratios = [
        f"{teacher[key] / student[key]:.3g} times the {words} ({_short(teacher[key])} to {_short(student[key])})"
        for key, words in kinds.items()
        if teacher.get(key) and student.get(key)
    ]
    text = f"Teacher to student: {', '.join(ratios)}."
    if "activation_bytes" in teacher:
        text += " Activations: the largest input and output of one layer together, float32, one image."
    for head, cost in teacher.get("heads", {}).items():
        if head != teacher["head"]:
            which = "With VGG16's fully connected head" if head == "fc" else "Without its fully connected head"
            text += (
                f" {which} the teacher would have {_short(cost['params'])} parameters, "
                f"{cost['params'] / student['params']:.3g} times the student's."
            )
    return text


def _notes(results: Mapping[str, Any], many: bool) -> list[str]:
    """What a reader must know to read the table, one sentence or two each."""
    dataset, teacher, arms = results["dataset"], results["teacher"], results["arms"]
    alone, tested = _find_alone(arms), dataset["splits"]["test"]
    notes = []
    if tested:
        notes.append(f"{tested} test images: one of them is {_points(1 / tested)} points of top-1.")
    if many:
        seeds = sorted({seed for arm in arms.values() for seed in arm["seeds"]})
        notes.append(
            f"Over seeds {', '.join(map(str, seeds))}: mean ± standard deviation (n - 1) and Student's t "
            "interval. All seeds share one split and one teacher, so the interval says nothing about other "
            "splits or other teachers."
        )
    else:
        notes.append(
            "One seed proves nothing: no interval and no test can be had from it. Set several seeds to compare "
            "arms; they would still share one split and one teacher."
        )
    compared = [name for name, arm in arms.items() if arm["p_vs_alone"] is not None]
    if compared:
        notes.append(
            f"p: two-sided paired t-test against {alone} over the same seeds, Holm-corrected over "
            f"{len(compared)} {'arm' if len(compared) == 1 else 'arms'}."
        )
    for name, arm in arms.items():
        failed = [str(seed) for seed, top1 in zip(arm["seeds"], arm["test_top1"], strict=True) if top1 is None]
        if failed:
            notes.append(
                f"{name}: {'seed' if len(failed) == 1 else 'seeds'} {', '.join(failed)} failed (no finite "
                "result) and is left out of its mean and of every comparison with it."
            )
    return [*notes, *_teacher_notes(teacher, arms, alone), compression(teacher, results["student"])]


def _teacher_notes(teacher: Mapping[str, Any], arms: Mapping[str, Any], alone: str | None) -> list[str]:
    notes, top1 = [], teacher["test"].get("top1")
    if teacher["forward_images"] is not None:
        notes.append(f"The teacher was run on {teacher['forward_images']} images for all students together.")
    gaps = {name: arm["mean"] - top1 for name, arm in arms.items() if top1 is not None and arm["mean"] is not None}
    if not gaps:
        return notes
    notes.append(
        "Student minus teacher, points of test top-1: "
        + ", ".join(f"{name} {_points(gap, signed=True)}" for name, gap in gaps.items())
        + "."
    )
    if alone in gaps and gaps[alone] > 0:
        notes.append(
            f"The teacher is the weaker network here: {_percent(top1)} % against {_percent(arms[alone]['mean'])} "
            f"% of {alone}, which never saw it. A gain by distillation is then not a better network passing on "
            "what it knows."
        )
    elif alone not in gaps and max(gaps.values()) > 0:
        best = max(gaps, key=gaps.get)
        notes.append(
            f"The teacher is the weaker network here: {_percent(top1)} % against {_percent(arms[best]['mean'])} "
            f"% of {best}."
        )
    return notes


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
        **statistics.summary(top1),
        "p_vs_alone": None,
        "minus_alone": None,
        **{k: v for k, v in arm.items() if k not in ("weights", "temperature", "seeds", "val_top1", "test")},
        "test_metrics": list(arm["test"]),
    }


def _find_alone(arms: Mapping[str, Mapping[str, Any]]) -> str | None:
    if "student_alone" in arms:
        return "student_alone"
    hard_only = (name for name, arm in arms.items() if not any(v for k, v in arm["weights"].items() if k != "ce"))
    return next(hard_only, None)


def _paired_by_seed(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[list[float | None], list[float | None]]:
    ours, theirs = (dict(zip(arm["seeds"], arm["test_top1"], strict=True)) for arm in (a, b))
    shared = [seed for seed in ours if seed in theirs]
    return [ours[seed] for seed in shared], [theirs[seed] for seed in shared]


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


def _on_one_line(found: re.Match[str]) -> str:
    opened = re.sub(r"\[\n\s*", "[", found[0])
    return re.sub(r"\n\s*", " ", re.sub(r"\n\s*\]", "]", opened))


def _over_seeds(arm: Mapping[str, Any], measure: str) -> float | None:
    return statistics.summary([None if m is None else m.get(measure) for m in arm["test_metrics"]])["mean"]


def _align(header: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    # Names to the left, numbers to the right. The last ± of a column lines up because all have two decimals.
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in (header, *rows)
    ]
    rule = "-" * len(lines[0])
    return [line.rstrip() for line in (lines[0], rule, lines[1], rule, *lines[2:])]


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.2f}"


def _points(fraction: float, signed: bool = False) -> str:
    return f"{100 * fraction:{'+' if signed else ''}.{2 if abs(fraction) >= 5e-4 or signed else 3}f}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _weight(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _p(value: float | None) -> str:
    return "" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def _short(count: float | None) -> str:
    """1234567 -> 1.23 M."""
    if count is None:
        return "-"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:g}"
