"""The results of a run as people read them: the closing table, Markdown, and CSV.

All take the dictionary of `results.json`. Accuracies are percent in the tables, fractions in the CSV.
"""

import csv
import io
import textwrap
from collections.abc import Mapping
from typing import Any

from kdjax.results import intervals
from kdjax.results.document import find_alone

TABLE_WIDTH = 118


def table(results: Mapping[str, Any], closing: str | None = None) -> str:
    """The closing table: the teacher, one row per arm, and below it what the numbers do and do not say.

    Args:
        results: as from `results.build`, or read from results.json.
        closing: a last paragraph of the caller's, such as that the networks were trained from scratch.

    Returns:
        Lines of text without a trailing newline.
    """
    header, rows = table_rows(results)
    notes = [*table_notes(results), *([closing] if closing else [])]
    return "\n".join(
        [
            title(results),
            "",
            *_align(header, rows),
            "",
            *(textwrap.fill(n, TABLE_WIDTH, initial_indent="- ", subsequent_indent="  ") for n in notes),
        ]
    )


def markdown(results: Mapping[str, Any], closing: str | None = None) -> str:
    """The same as `table`, in Markdown."""
    header, rows = table_rows(results)
    line = lambda cells: "| " + " | ".join(cells) + " |"
    notes = [*table_notes(results), *([closing] if closing else [])]
    return "\n".join(
        [
            title(results),
            "",
            line(header),
            line(["---", *["---:"] * (len(header) - 1)]),
            *map(line, rows),
            "",
            *(f"- {note}" for note in notes),
            "",
        ]
    )


def over_splits(combined: Mapping[str, Any]) -> str:
    """The table of several splits, from `results.combine`."""
    rows = []
    for name, one in ((f"teacher {combined['teacher']['model']}", combined["teacher"]), *combined["arms"].items()):
        gain = one.get("minus_alone")
        rows.append(
            [
                name,
                _percent(one["mean"]) + (f" ± {_percent(one['std'])}" if one["std"] is not None else ""),
                f"{_percent(one['ci95'][0])} to {_percent(one['ci95'][1])}" if one["ci95"] else "",
                _points(gain["mean"], signed=True) if gain and gain["mean"] is not None else "",
                _p(one.get("p_vs_alone")),
            ]
        )
    note = (
        f"Over {len(combined['data_seeds'])} splits (data seeds {', '.join(map(str, combined['data_seeds']))}), each "
        f"with a teacher of its own and {len(combined['seeds'])} seeds an arm: mean ± standard deviation over splits "
        "of the mean over seeds. "
        + (
            "Random splits share images, so intervals and p-values (paired, Holm-corrected) use the corrected variance "
            "of Nadeau and Bengio (2003)."
            if combined["dataset"]["overlap"]
            else "No two splits share an image. p-values are paired and Holm-corrected."
        )
    )
    header = ["", "test top-1 %", "95% interval", "points over alone", "p (Holm)"]
    text = textwrap.fill(note, TABLE_WIDTH, initial_indent="- ", subsequent_indent="  ")
    return "\n".join([f"{combined['dataset']['name']} over splits", "", *_align(header, rows), "", text])


MEASURES = ("top1", "macro_f1", "nll", "ece", "agreement", "kl")


def comma_separated(results: Mapping[str, Any]) -> str:
    """One line a student, the teacher first; empty where a student failed."""
    arms = results["arms"]
    terms = list(dict.fromkeys(term for arm in arms.values() for term in arm["weights"]))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["arm", "seed", *terms, "temperature", "val_top1", *(f"test_{name}" for name in MEASURES)])
    teacher = results["teacher"]
    empty = [""] * (len(terms) + 2)
    writer.writerow(["teacher", *empty, teacher.get("val_top1"), *(teacher["test"].get(m) for m in MEASURES)])
    for name, arm in arms.items():
        weights = [arm["weights"].get(term) for term in terms]
        for seed, validation, test in zip(arm["seeds"], arm["val_top1"], arm["test_metrics"], strict=True):
            measured = [(test or {}).get(measure) for measure in MEASURES]
            writer.writerow([name, seed, *weights, arm["temperature"], validation, *measured])
    return buffer.getvalue()


def title(results: Mapping[str, Any]) -> str:
    """Data, splits and student in one line."""
    dataset, splits = results["dataset"], results["dataset"]["splits"]
    return (
        f"{dataset['name']}: {len(dataset['classes'])} classes, {splits['train']} / {splits['val']} / "
        f"{splits['test']} images for training / validation / test. Student: {results['student']['model']}."
    )


def shown_arms(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The arms of the table: of a family its selected trial."""
    names = results["selected"].values() if "selected" in results else results["arms"]
    return {name: results["arms"][name] for name in names}


def _many(results: Mapping[str, Any]) -> bool:
    return any(len(arm["seeds"]) > 1 for arm in results["arms"].values())


def table_rows(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the closing table, the teacher first; columns that are empty throughout are left out."""
    teacher, student, arms = results["teacher"], results["student"], shown_arms(results)
    terms = list(dict.fromkeys(term for arm in arms.values() for term in arm["weights"]))
    header = ["", *terms, "T", "test top-1 %", "95% interval", "p (Holm)"]
    header += ["macro-F1 %", "NLL", "ECE %", "params", "MACs"]
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
    empty = {column for column in range(1, len(header)) if not any(row[column] for row in rows)}
    kept = lambda row: [cell for column, cell in enumerate(row) if column not in empty]
    return kept(header), [kept(row) for row in rows]


def table_notes(results: Mapping[str, Any]) -> list[str]:
    """What a reader must know to read the table, one sentence or two each."""
    dataset, teacher, arms, many = results["dataset"], results["teacher"], shown_arms(results), _many(results)
    alone, tested = find_alone(arms), dataset["splits"]["test"]
    notes, student = [], results["student"]
    if student.get("step") != student.get("total_steps"):
        notes.append(f"NOT FINAL: the students are at step {student['step']} of {student['total_steps']}.")
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
    gains = {name: arm["bootstrap"] for name, arm in arms.items() if arm.get("bootstrap")}
    if gains:
        signed = lambda fraction: _points(fraction, signed=True)
        notes.append(
            f"Points of top-1 over {alone}, and 95 % interval of a paired bootstrap over the test images: "
            + ", ".join(
                f"{name} {signed(gain['difference'])} ({' to '.join(map(signed, gain['ci95']))})"
                for name, gain in gains.items()
            )
            + ". It says what other test images might have shown of these students, not what other seeds would."
        )
    symmetric = {
        name: intervals.summary(arm["symmetries_top1"]) for name, arm in arms.items() if "symmetries_top1" in arm
    }
    if symmetric:
        notes.append(
            "With the mean probabilities over the eight symmetries of each test image, at eight times the cost: "
            + ", ".join(
                f"{name} {_percent(one['mean'])}" + (f" ± {_percent(one['std'])}" if one["std"] is not None else "")
                for name, one in symmetric.items()
            )
            + " %."
        )
    if "selected" in results:
        trials = {name: 0 for name in results["selected"]}
        for name, arm in results["arms"].items():
            trials[arm.get("family", name)] += 1
        notes.append(
            "Each row is the trial with the best validation top-1 of its family: "
            + ", ".join(f"{name} of {count}" for name, count in trials.items())
            + ". The other trials are in results.json."
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
    if not ratios:
        return "How large the teacher is, is not known."
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


def _over_seeds(arm: Mapping[str, Any], measure: str) -> float | None:
    return intervals.summary([None if m is None else m.get(measure) for m in arm["test_metrics"]])["mean"]


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
