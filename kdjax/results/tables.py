"""Formats the results of a run for people: the closing table, Markdown, and CSV.

All functions take the dictionary of `results.json`. Accuracies are percentages in tables and fractions in the CSV.
Names are escaped for each format, see `text`.
"""

import csv
import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kdjax.results import formats, intervals, notes, text
from kdjax.results.comparison import NAMES, figures, judged_by, settings, shown_arms, uses_teacher

TABLE_WIDTH = 118
MEASURES = ("top1", "macro_recall", "macro_f1", "nll", "ece", "agreement", "kl")
UNEQUAL_FIRST = ("macro_recall", "macro_f1", "top1", *MEASURES[3:])
"""The order of the measures if classes are unequal."""


def table(results: Mapping[str, Any], closing: str | None = None) -> str:
    """Returns the closing table: a row for the teacher, if there is one, and one per arm, followed by the notes.

    Args:
        results: from `document.build`, or read from results.json.
        closing: a last paragraph from the caller, such as that the networks were trained from scratch.

    Returns:
        Lines of text without a trailing newline.
    """
    header, rows = table_rows(results)
    paragraphs = [*notes.table_notes(results), *([closing] if closing else [])]
    lines = aligned(header, rows, apart=results["teacher"] is not None)
    return "\n".join([text.printable(title(results)), "", *lines, "", *map(wrapped, paragraphs)])


def markdown(results: Mapping[str, Any], closing: str | None = None) -> str:
    """Returns the same as `table`, in Markdown; `closing` may contain markup."""
    header, rows = table_rows(results)
    line = lambda cells: "| " + " | ".join(cells) + " |"
    paragraphs = [*map(text.markdown, notes.table_notes(results)), *([closing] if closing else [])]
    return "\n".join(
        [
            text.markdown(title(results)),
            "",
            line(map(text.markdown, header)),
            line(["---", *["---:"] * (len(header) - 1)]),
            *(line(map(text.markdown, row)) for row in rows),
            "",
            *(f"- {paragraph}" for paragraph in paragraphs),
            "",
        ]
    )


def over_splits(combined: Mapping[str, Any]) -> str:
    """Returns the table of several splits with its notes.

    Args:
        combined: from `document.combine`.
    """
    rows, teacher = [], combined["teacher"]
    teacher_row = {f"teacher {teacher['model']}": teacher} if teacher else {}
    for name, row in (*teacher_row.items(), *combined["arms"].items()):
        gain = row.get("minus_alone")
        rows.append(
            [
                name,
                formats.percent_and_spread(row["mean"], row["std"]),
                formats.interval(row["ci95"]),
                formats.signed_points(gain["mean"]) if gain and gain["mean"] is not None else "",
                formats.p_value(row.get("p_vs_alone")),
            ]
        )
    count, seeds = len(combined["data_seeds"]), len(combined["seeds"])
    by_place = all(combined.get("folds") or [None])
    which = f"data seeds {', '.join(map(str, combined['data_seeds']))}"
    each_has = f"{'the same teacher' if teacher['same'] else 'a teacher of its own'} and " if teacher else ""
    note = (
        (f"{count}-fold cross-validation over places" if by_place else f"Over {count} splits ({which})")
        + f", each with {each_has}{seeds} seed{'s' * (seeds > 1)} an arm: "
        "mean ± standard deviation over splits of the mean over seeds. "
        + (
            "The splits share training images, so intervals and p-values (paired, Holm-corrected) use the corrected "
            "variance of Nadeau and Bengio (2003)."
            if combined["dataset"]["overlap"]
            else "No two splits share an image. p-values are paired and Holm-corrected."
        )
    )
    alone, without_teacher, better = map(combined.__getitem__, ("alone", "baselines", "better_baselines"))
    header = ["", f"test {NAMES[combined['measure']]} %", "95% interval", f"points over {alone}", "p (Holm)"]
    name = text.printable(combined["dataset"]["name"])
    unfinished_splits = [split for split, final in zip(_splits(combined), combined["final"], strict=True) if not final]
    warnings = (
        [f"NOT FINAL: the students of {', '.join(unfinished_splits)} have not finished training."]
        if unfinished_splits
        else []
    )
    unequal = (
        "Classes are unequal, so macro recall (balanced accuracy), the mean over the classes, takes the place of "
        "top-1, which mostly counts the frequent classes."
    )
    paragraphs = [
        *warnings,
        *([unequal] if combined["measure"] == "macro_recall" else []),
        note,
        *notes.baseline_note(alone, without_teacher, better, len(combined["arms"])),
        *_trials_over_splits(combined),
        *_failures_over_splits(combined),
    ]
    lines = aligned(*_without_empty_columns(header, rows), apart=teacher is not None)
    return "\n".join([f"{name} over splits", "", *lines, "", *map(wrapped, paragraphs)])


def _splits(combined: Mapping[str, Any]) -> list[str]:
    """Returns the name of each split."""
    return [
        f"fold {fold[0]}" if fold else f"data seed {seed}"
        for fold, seed in zip(combined["folds"], combined["data_seeds"], strict=True)
    ]


def _trials_over_splits(combined: Mapping[str, Any]) -> Iterator[str]:
    """Names the trial of each split that the row of a family shows."""
    for family, trials in combined["selected"].items():
        trial_by_split = [f"{name} of {split}" for name, split in zip(trials, _splits(combined), strict=True)]
        names = f"{trials[0]} of all" if len(set(trials)) == 1 else ", ".join(trial_by_split)
        yield f"{family}: of each split the trial with the best validation {NAMES[combined['measure']]}, {names}."


def _failures_over_splits(combined: Mapping[str, Any]) -> Iterator[str]:
    """Names the seeds of each arm that failed, by split, and how many splits remain."""
    splits = _splits(combined)
    for name, arm in combined["arms"].items():
        failures, remaining = [], len(splits)
        for split, failed in zip(splits, arm["failed"], strict=True):
            all_failed = len(failed) == len(combined["seeds"])
            remaining -= all_failed
            if failed:
                failures.append(f"{'all seeds' if all_failed else notes.seed_list(failed)} of {split}")
        if failures:
            count = sum(map(len, arm["failed"]))
            remainder = f" That leaves {remaining} of {len(splits)} splits." if remaining < len(splits) else ""
            yield notes.failure_note(name, ", ".join(failures), count) + remainder


def comma_separated(results: Mapping[str, Any]) -> str:
    """Returns the CSV: a line for the teacher, if any, and one per student, whose fields are empty if it failed."""
    arms = results["arms"]
    terms = list(dict.fromkeys(term for arm in arms.values() for term in arm["weights"]))
    measure = judged_by(results["dataset"])
    measures = MEASURES if measure == "top1" else UNEQUAL_FIRST
    selected_by = list(dict.fromkeys((f"val_{measure}", "val_top1")))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    write = lambda *fields: writer.writerow(map(text.cell, fields))
    rates = ("learning_rate", "weight_decay")
    write("arm", "seed", *terms, "temperature", *rates, *selected_by, *(f"test_{name}" for name in measures))
    if teacher := results["teacher"]:
        empty = [""] * (len(terms) + 4)
        write("teacher", *empty, *map(teacher.get, selected_by), *(teacher["test"].get(m) for m in measures))
    for name, arm in arms.items():
        own = [
            *(arm["weights"].get(term) for term in terms),
            arm["temperature"],
            *map(settings(results, name).get, rates),
        ]
        for place, (seed, test) in enumerate(zip(arm["seeds"], arm["test_metrics"], strict=True)):
            validation = [arm[key][place] for key in selected_by]
            values = [(test or {}).get(name) for name in measures]
            write(name, seed, *own, *validation, *values)
    return buffer.getvalue()


def title(results: Mapping[str, Any]) -> str:
    """Returns one line with the data, the splits, the labels unless every training image has one, and the student."""
    dataset, splits = results["dataset"], results["dataset"]["splits"]
    labels = notes.labels(dataset)
    return (
        f"{dataset['name']}: {len(dataset['classes'])} classes, {splits['train']} / {splits['val']} / "
        f"{splits['test']} images for training / validation / test"
        + (f", {labels}" if labels else "")
        + f". Student: {results['student']['model']}."
    )


def table_rows(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Returns the header and the rows of the closing table, the teacher first if there is one, without empty columns.

    If classes are unequal, macro recall and its intervals replace top-1, and top-1 replaces macro-F1: a table with all
    three would be wider than a screen. The CSV has all of them.
    """
    teacher, student, arms = results["teacher"], results["student"], shown_arms(results)
    terms = list(dict.fromkeys(term for arm in arms.values() for term in arm["weights"]))
    measure = judged_by(results["dataset"])
    first = "test top-1 %" if measure == "top1" else f"{NAMES[measure]} %"  # too long with "test"
    second_measure, second_title = ("macro_f1", "macro-F1 %") if measure == "top1" else ("top1", "top-1 %")
    header = ["", *terms, "T", first, "95% interval", "p (Holm)", second_title, "NLL", "ECE %", "params", "MACs"]
    rows = []
    if teacher is not None:
        rows.append(
            [
                f"teacher {teacher['model']}",
                *[""] * (len(terms) + 1),
                formats.percent(teacher["test"].get(measure)),
                "",
                "",
                formats.percent(teacher["test"].get(second_measure)),
                formats.number(teacher["test"].get("nll")),
                formats.percent(teacher["test"].get("ece")),
                formats.short(teacher["params"]),
                formats.short(teacher["macs"]),
            ]
        )
    for name, arm in arms.items():
        arm_figures = figures(arm, measure)
        rows.append(
            [
                name,
                *(formats.weight(arm["weights"].get(term)) for term in terms),
                formats.weight(arm["temperature"]) if uses_teacher(arm) else "",
                formats.percent_and_spread(arm_figures["mean"], arm_figures["std"]),
                formats.interval(arm_figures["ci95"]),
                formats.p_value(arm_figures["p_vs_alone"]),
                formats.percent(_over_seeds(arm, second_measure)),
                formats.number(_over_seeds(arm, "nll")),
                formats.percent(_over_seeds(arm, "ece")),
                formats.short(student["params"]),
                formats.short(student["macs"]),
            ]
        )
    return _without_empty_columns(header, rows)


def _without_empty_columns(header: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    empty = {column for column in range(1, len(header)) if not any(row[column] for row in rows)}
    without_empty = lambda row: [cell for column, cell in enumerate(row) if column not in empty]
    return without_empty(header), [without_empty(row) for row in rows]


def _over_seeds(arm: Mapping[str, Any], measure: str) -> float | None:
    return intervals.mean([None if m is None else m.get(measure) for m in arm["test_metrics"]])


def wrapped(paragraph: str) -> str:
    """Wraps a paragraph below a table to the width of tables."""
    paragraph = text.printable(paragraph, keep="\n\t")
    return textwrap.fill(paragraph, TABLE_WIDTH, initial_indent="- ", subsequent_indent="  ")


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], *, apart: bool = True) -> list[str]:
    """Returns the lines of a text table; `apart` sets the first row, a teacher's, apart from the others by a rule."""
    header, *rows = ([text.printable(cell) for cell in row] for row in (header, *rows))
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    # Names are aligned left, numbers right. The ± of a column line up, because all values have two decimals.
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in (header, *rows)
    ]
    rule = "-" * len(lines[0])
    head = (lines[0], rule, lines[1], rule) if apart else (lines[0], rule, lines[1])
    return [line.rstrip() for line in (*head, *lines[2:])]
