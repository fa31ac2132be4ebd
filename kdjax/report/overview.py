"""Shows several runs on the same images on one page: `python -m kdjax.report.overview RUN… --output=overview.html`.

It is made for pairs of teachers and students, such as those of `configs/pairs.py`. The page shows the test accuracy of
every teacher and student, the gain of each taught student over the same student without a teacher, and accuracy over
parameters, multiply-adds and, for exported runs, latency.

For every run, it shows the arm with a teacher that is best on validation. For every student, it shows the arm without a
teacher that is best on validation, from any of the runs. Two runs have the same student if its network, its data and
its training settings are equal, except for settings that an arm overrides. A gain is paired by seed. It is over the arm
without a teacher that shares the most seeds; among several such arms, the one that is best on validation. If classes
are unequal, macro recall replaces top-1.
"""

import argparse
import collections
import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdjax.errors import InputError, one_line
from kdjax.report import charts
from kdjax.report.evaluated import Evaluated
from kdjax.report.exported import matches_results
from kdjax.report.markup import Markup, element
from kdjax.report.measures import scattered
from kdjax.report.parts import figure, panels, table
from kdjax.report.shell import document as page
from kdjax.report.summary import leading_arm, signed
from kdjax.results import compare, document, formats, intervals, notes
from kdjax.results.comparison import (
    NAMES,
    failed_seeds,
    figures,
    paired,
    rank,
    settings,
    shown_arms,
    uses_teacher,
)
from kdjax.runtime import files
from kdjax.runtime.command import Parser, run_command


@dataclasses.dataclass(frozen=True)
class Row:
    """A teacher of one of the runs, or the mean of the students of an arm.

    Attributes:
        name: the network and its teacher.
        run: the directory of its run.
        style: color and marker, see `charts`.
        arm: the name of the arm; "" for a teacher.
        cost: params and macs, and latency_ms if it was measured.
        figures: mean, std and ci95 of the measure on test, fractions.
        over: arm and run of the same student without a teacher that it is compared with; "" if there is none.
        setting_differences: settings that the two arms override differently, as text.
        differences: on test, minus that student, for each seed that both have; None if either failed.
        seeds, failed: all seeds of the students, and those without a finite result; empty for a teacher.
        taught: whether it learned from a teacher.
    """

    name: str
    run: str
    style: str
    arm: str
    cost: Mapping[str, Any]
    figures: Mapping[str, Any]
    over: str = ""
    setting_differences: str = ""
    differences: Sequence[float | None] = ()
    seeds: Sequence[int] = ()
    failed: Sequence[int] = ()
    taught: bool = False

    @property
    def gain(self) -> dict[str, Any] | None:
        """`intervals.summary` of the differences; None if there is nothing to compare with."""
        return intervals.summary(self.differences) if self.over else None

    @property
    def pairs(self) -> int:
        """The number of seeds that the gain is computed from."""
        return _successes(self.differences)


def rows(folders: Sequence[Path]) -> tuple[str, list[Row]]:
    """Returns the rows that the page shows: the teachers, then each student alone and with its teachers.

    Returns:
        The measure, "top1" or "macro_recall", see `comparison.judged_by`; and the rows.

    Raises:
        InputError: a run is given twice, not evaluated or not final, or was tested on other images than the first.
    """
    paths = [os.path.realpath(folder) for folder in folders]
    if len(set(paths)) < len(paths):
        repeated = next(folder for folder, path in zip(folders, paths, strict=True) if paths.count(path) > 1)
        raise InputError(f"{repeated} is given twice: give each run once")
    runs = [_read(folder) for folder in folders]
    test_splits = [compare.test_split(folder / "splits.json") for folder in folders]
    for folder, split in zip(folders, test_splits, strict=True):
        if split != test_splits[0]:
            raise InputError(
                f"{folder}: its test images or classes are not those of {folders[0]}: give runs of one data set and "
                "dataset.splits"
            )
    _check_images(folders, runs)
    measure = document.judged_by_all({folder: run.results for folder, run in zip(folders, runs, strict=True)})
    teachers: dict[str, Row] = {}
    for run in runs:
        if facts := run.results["teacher"]:
            teachers.setdefault(
                run.teacher,
                Row(f"teacher {facts['model']}", run.folder, "t", "", facts, {"mean": facts["test"].get(measure)}),
            )
    table_rows = list(teachers.values())
    students = list(dict.fromkeys(run.student for run in runs))
    for number, student in enumerate(students):
        same_student = [run for run in runs if run.student == student]
        table_rows += _student_rows(same_student, f"s{number % charts.STYLES}", measure)
    return measure, table_rows


def _check_images(folders: Sequence[Path], runs: Sequence[Evaluated]) -> None:
    """Checks that images of the same name are the same, for the runs whose test images are stored.

    Raises:
        InputError: they are not, or a file is damaged.
    """
    first: tuple[Path, compare.TestImages] | None = None
    for folder, run in zip(folders, runs, strict=True):
        if (folder / "evaluation" / "logits.npz").is_file():  # a run may be kept without this file
            images, _ = compare.read_test_images(folder, run.results)
            if first:
                compare.check_images(*first, folder, images)
            first = first or (folder, images)


def _student_rows(runs: Sequence[Evaluated], style: str, measure: str) -> list[Row]:
    """Returns the rows of one student: its baselines (the best, and others that gains refer to), then one per run."""
    arm_results = lambda run, arm: shown_arms(run.results)[arm]
    baselines = [(run, alone) for run in runs if (alone := run.alone(measure))]
    by_rank = lambda pair: rank(arm_results(*pair), measure)
    shown_baselines, taught_rows = [max(baselines, key=by_rank)] if baselines else [], []

    def row(run: Evaluated, name: str, suffix: str, **comparison: Any) -> Row:
        facts = arm_results(run, name)
        cost = {**run.results["student"], "latency_ms": run.latency.get(name)}
        seeds = {"seeds": facts["seeds"], "failed": failed_seeds(facts)}
        title, values = f"{run.student_name} {suffix}", figures(facts, measure)
        return Row(title, run.folder, style, name, cost, values, **seeds, **comparison)

    for run in runs:
        taught_arms = [name for name, facts in shown_arms(run.results).items() if uses_teacher(facts)]
        if taught_arms:
            # If all arms with a teacher failed, the first of them is listed to show that.
            leading = name if (name := leading_arm(run.results, measure)) in taught_arms else taught_arms[0]
            differences_by_baseline = [
                intervals.paired_differences(*paired(arm_results(run, leading), arm_results(*pair), measure))
                for pair in baselines
            ]
            best = max(
                zip(baselines, differences_by_baseline, strict=True),
                key=lambda pair: (_successes(pair[1]), by_rank(pair[0])),
                default=None,
            )
            comparison: dict[str, Any] = {}
            if best:
                (baseline_run, alone), differences = best
                shown_baselines.append(best[0])
                comparison = {"over": f"{alone} of {baseline_run.folder}", "differences": differences}
                pair = settings(run.results, leading), settings(baseline_run.results, alone)
                comparison["setting_differences"] = notes.setting_differences(*pair)
            taught_rows.append(row(run, leading, f"from {run.results['teacher']['model']}", **comparison, taught=True))
    return [*(row(*pair, "alone") for pair in baselines if pair in shown_baselines), *taught_rows]


def _successes(differences: Sequence[float | None]) -> int:
    return sum(difference is not None for difference in differences)


def _read(folder: Path) -> Evaluated:
    path = folder / "results.json"
    if not path.is_file():
        what = "is a file" if folder.is_file() else "has no results.json"
        raise InputError(f"{folder} {what}: give directories of runs with --stages=evaluate done")
    results = document.read_final(path, "run --stages=evaluate of that run again")
    latency: dict[str, float] = {}
    path = folder / "export" / "parity.json"
    if path.is_file():
        fix = "run --stages=export of that run again"
        parity = files.read_json(path, fix)
        try:
            times = parity["artifacts"]["student.onnx"]["latency_ms"]
            latency = {parity["student"]["arm"]: _milliseconds(times["1"])} if times else {}
            latency = latency if matches_results(parity["student"], results["arms"]) else {}
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is not what an export writes: {fix}") from error
    return Evaluated(str(folder), results, latency)


def _milliseconds(value: Any) -> float:
    if not 0 < float(value) < math.inf:
        raise ValueError(f"{value} takes no time")
    return float(value)


def render(table_rows: Sequence[Row], facts: Mapping[str, Any], measure: str) -> str:
    """Renders the page.

    Args:
        table_rows: the rows, from `rows`.
        facts: the section `dataset` of results.json.
        measure: the measure of the rows.
    """
    header = (
        "",
        "run",
        "arm",
        "seeds",
        f"test {NAMES[measure]} %",
        "95% interval",
        "points over alone",
        "95% interval",
        "params",
        "MACs",
        "ms",
    )
    cells = [
        (
            row.name,
            row.run,
            row.arm,
            f"{len(row.seeds) - len(row.failed)} of {len(row.seeds)}" if row.failed else len(row.seeds) or "",
            formats.percent_and_spread(row.figures["mean"], row.figures.get("std")),
            formats.interval(row.figures.get("ci95")),
            formats.signed_points(row.gain["mean"]) if row.gain and row.gain["mean"] is not None else "",
            " to ".join(map(formats.signed_points, row.gain["ci95"])) if row.gain and row.gain["ci95"] else "",
            formats.short(row.cost.get("params")),
            formats.short(row.cost.get("macs")),
            f"{row.cost['latency_ms']:.2f}" if row.cost.get("latency_ms") else "",
        )
        for row in table_rows
    ]
    caption = (
        f"{facts['splits']['test']} test images of {facts['name']}. Students are means over seeds; arms are chosen on "
        "validation. Gains are over the same student without a teacher, paired by seed; intervals need three seeds "
        "that differ. ms: one image through student.onnx, where a run exported this arm."
    )
    chart_panels = [
        (f"{NAMES[measure].capitalize()} over {unit}", chart)
        for key, unit in (("params", "parameters"), ("macs", "multiply-adds"), ("latency_ms", "latency, ms"))
        if (chart := _chart(table_rows, key, unit, measure)) is not None
    ]
    remarks = [
        notes.failure_note(f"{row.name} ({row.arm} of {row.run})", notes.seed_list(row.failed), len(row.failed))
        for row in table_rows
        if row.failed
    ]
    alone = collections.Counter(row.style for row in table_rows if row.seeds and not row.taught)
    remarks += [
        f"{row.name} ({row.arm} of {row.run}): the gain is over {row.over}, from {row.pairs} of {len(row.seeds)} seeds"
        + (f"; the two arms set {row.setting_differences} for themselves." if row.setting_differences else ".")
        for row in table_rows
        if row.over and (alone[row.style] > 1 or row.pairs < len(row.seeds) or row.setting_differences)
    ]
    return page(
        f"{facts['name']}: teachers and students",
        f"{len(table_rows)} networks on the same images",
        element("p", _finding(table_rows), class_="finding"),
        figure(table("Networks", header, cells, class_="results"), caption),
        *([element("ul", *(element("li", remark) for remark in remarks), class_="notes")] if remarks else []),
        figure(panels(chart_panels), "The cross is a teacher; students of one kind share a color and a marker."),
    )


def _finding(table_rows: Sequence[Row]) -> str:
    """States which student gains most from its teacher, if any does, and how certain that is."""
    taught_rows = [row for row in table_rows if row.taught]
    if not taught_rows:
        return "No student that learned from a teacher is here to compare with."
    if not any(row.seeds and not row.taught for row in table_rows):
        return "No student without a teacher is here to compare with."
    gains = [(row.gain["mean"], row) for row in taught_rows if row.gain and row.gain["mean"] is not None]
    if not any(row.gain for row in taught_rows):
        return "No taught student is here without a teacher as well, so there is no gain to report."
    if not gains:
        return "No taught student has a successful seed in common with itself alone: there is no gain to report."
    largest, best = max(gains, key=lambda pair: pair[0])
    text = f"{best.name} gains most, {signed(largest)} points."
    if largest <= 0:
        text = f"No taught student does better than itself alone. {best.name} comes nearest, {signed(largest)} points."
    bounds = intervals.summary(best.differences, largest_of=len(gains))["ci95"]
    if bounds is None:
        return f"{text} There is no interval: it takes three seeds that differ."
    choice = f", corrected for the choice of the largest of {len(gains)} gains on test (Bonferroni)," * (len(gains) > 1)
    text += f" The 95 % interval{choice} is {' to '.join(map(signed, bounds))}"
    if bounds[0] <= 0 <= bounds[1]:
        return f"{text} and contains 0: these seeds do not show that distillation helps or harms."
    return f"{text}."


def _chart(table_rows: Sequence[Row], key: str, unit: str, measure: str) -> Markup | None:
    names = collections.Counter(row.name for row in table_rows)
    points = [
        charts.Point(
            row.name if names[row.name] == 1 else f"{row.name}, {row.run}",
            row.style,
            row.cost[key],
            100 * row.figures["mean"],
        )
        for row in table_rows
        if row.cost.get(key) and row.figures["mean"] is not None
    ]
    return scattered(points, f"{unit}, log scale", NAMES[measure]) if points else None


def main(arguments: list[str]) -> None:
    """Runs the command."""
    parser = Parser(
        prog="python -m kdjax.report.overview",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="directory of an evaluated run")
    parser.add_argument(
        "--output", type=Path, default=Path("overview.html"), metavar="FILE", help="default: %(default)s"
    )
    options = parser.parse_args(arguments)
    if options.output.suffix != ".html" or os.path.isdir(options.output) or not os.path.isdir(options.output.parent):
        raise InputError(f"--output {options.output}: give the name of a .html file in an existing folder")
    measure, table_rows = rows(options.runs)
    facts = _read(options.runs[0]).results["dataset"]
    try:
        files.write_text(options.output, render(table_rows, facts, measure))
    except OSError as error:
        raise InputError(f"--output {options.output}: cannot be written ({one_line(error)}): give another") from error
    print(f"{len(table_rows)} networks of {len(options.runs)} run{'s' * (len(options.runs) > 1)}: {options.output}")


if __name__ == "__main__":
    run_command(main)
