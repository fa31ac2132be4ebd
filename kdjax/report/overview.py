"""Several runs on the same images as one page: `python -m kdjax.report.overview RUN… --output=overview.html`.

For teachers × students, such as those of `configs/pairs.py`. The page shows what every teacher and student reaches on
the test images, the gain of each taught student over the same student without a teacher, and accuracy over
parameters, multiply-adds and, for runs that were exported, latency.

Of every run one arm that uses the teacher is shown, the one that is best on validation; and of each student the arm
without a teacher that is best on validation, whichever run it is in. A student is the same in two runs where its
network, its data and all settings of its training are, but for those that an arm sets for itself. Gains are paired by
seed, and over the arm without a teacher that has most seeds in common, of those the one that is best on validation.
Where classes are unequal, macro recall takes the place of top-1.
"""

import argparse
import collections
import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdjax.errors import InputError, reason
from kdjax.report import charts
from kdjax.report.evaluated import Evaluated
from kdjax.report.exported import is_of
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
    shown_arms,
    uses_teacher,
)
from kdjax.runtime import files
from kdjax.runtime.command import Parser, run_command


@dataclasses.dataclass(frozen=True)
class Row:
    """A network of one of the runs, or the mean of the students of an arm.

    Attributes:
        name: of the network, with its teacher.
        run: the directory of its run.
        style: color and marker, see `charts`.
        arm: its loss; "" of a teacher.
        cost: params and macs, and latency_ms where it was measured.
        figures: mean, std and ci95 of what it is judged by on test, fractions.
        over: arm and run of the same student without a teacher, that it is compared with; "" where none is there.
        otherwise: what the two arms set for themselves, where it differs.
        differences: on test to that one, of each seed that both have; None where one of the two failed.
        seeds, failed: of the students, all and those without a finite result; empty of a teacher.
        taught: whether it learned from a teacher.
    """

    name: str
    run: str
    style: str
    arm: str
    cost: Mapping[str, Any]
    figures: Mapping[str, Any]
    over: str = ""
    otherwise: str = ""
    differences: Sequence[float | None] = ()
    seeds: Sequence[int] = ()
    failed: Sequence[int] = ()
    taught: bool = False

    @property
    def gain(self) -> dict[str, Any] | None:
        """`intervals.summary` of the differences; None where there is nothing to compare with."""
        return intervals.summary(self.differences) if self.over else None

    @property
    def pairs(self) -> int:
        """The seeds that the gain is of."""
        return _ended(self.differences)


def rows(folders: Sequence[Path]) -> tuple[str, list[Row]]:
    """What the page shows of some runs: the teachers, then each student alone and with its teachers.

    Returns:
        What they are judged by, "top1" or "macro_recall", see `comparison.judged_by`; and the rows.

    Raises:
        InputError: a run is not evaluated or not final, or measures on other images than the first.
    """
    places = [os.path.realpath(folder) for folder in folders]
    if len(set(places)) < len(places):
        twice = next(folder for folder, place in zip(folders, places, strict=True) if places.count(place) > 1)
        raise InputError(f"{twice} is given twice: give each run once")
    found = [_read(folder) for folder in folders]
    tested = [compare.test_split(folder / "splits.json") for folder in folders]
    for folder, split in zip(folders, tested, strict=True):
        if split != tested[0]:
            raise InputError(
                f"{folder}: its test images or classes are not those of {folders[0]}: give runs of one data set and "
                "dataset.splits"
            )
    _check_images(folders, found)
    measure = document.judged_by_all({folder: one.results for folder, one in zip(folders, found, strict=True)})
    shown: dict[str, Row] = {}
    for one in found:
        if facts := one.results["teacher"]:
            shown.setdefault(
                one.teacher,
                Row(f"teacher {facts['model']}", one.run, "t", "", facts, {"mean": facts["test"].get(measure)}),
            )
    listed = list(shown.values())
    students = list(dict.fromkeys(one.student for one in found))
    for number, student in enumerate(students):
        listed += _of_student([one for one in found if one.student == student], f"s{number % charts.STYLES}", measure)
    return measure, listed


def _check_images(folders: Sequence[Path], found: Sequence[Evaluated]) -> None:
    """That images of the same names are the same, of those runs that say what they were tested on."""
    first: tuple[Path, compare.TestImages] | None = None
    for folder, one in zip(folders, found, strict=True):
        if (folder / "evaluation" / "logits.npz").is_file():  # figures may be kept without it
            tested, _ = compare.read_test_images(folder, one.results)
            if first:
                compare.check_images(*first, folder, tested)
            first = first or (folder, tested)


def _of_student(found: Sequence[Evaluated], style: str, measure: str) -> list[Row]:
    """The rows of one student: the best without a teacher and others that gains are over, and one of each run."""
    arm = lambda one, arm: shown_arms(one.results)[arm]
    baselines = [(one, alone) for one in found if (alone := one.alone(measure))]
    by_rank = lambda pair: rank(arm(*pair), measure)
    shown, listed = [max(baselines, key=by_rank)] if baselines else [], []

    def row(one: Evaluated, name: str, of: str, **more: Any) -> Row:
        facts = arm(one, name)
        cost = {**one.results["student"], "latency_ms": one.latency.get(name)}
        seeds = {"seeds": facts["seeds"], "failed": failed_seeds(facts)}
        return Row(f"{one.student_name} {of}", one.run, style, name, cost, figures(facts, measure), **seeds, **more)

    for one in found:
        taught = [name for name, facts in shown_arms(one.results).items() if uses_teacher(facts)]
        if taught:
            # Where all of them failed, the first is there to say so.
            leading = name if (name := leading_arm(one.results, measure)) in taught else taught[0]
            to = [intervals.paired_differences(*paired(arm(one, leading), arm(*pair), measure)) for pair in baselines]
            chosen = max(
                zip(baselines, to, strict=True), key=lambda pair: (_ended(pair[1]), by_rank(pair[0])), default=None
            )
            compared: dict[str, Any] = {}
            if chosen:
                (its, alone), differences = chosen
                shown.append(chosen[0])
                compared = {"over": f"{alone} of {its.run}", "differences": differences}
                ours, theirs = one.own(leading), its.own(alone)
                differing = (f"{name} {ours[name]} and {theirs[name]}" for name in ours if ours[name] != theirs[name])
                compared["otherwise"] = ", ".join(differing)
            listed.append(row(one, leading, f"from {one.results['teacher']['model']}", **compared, taught=True))
    return [*(row(*pair, "alone") for pair in baselines if pair in shown), *listed]


def _ended(differences: Sequence[float | None]) -> int:
    return sum(one is not None for one in differences)


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
            measured = parity["artifacts"]["student.onnx"]["latency_ms"]
            found = {parity["student"]["arm"]: _milliseconds(measured["1"])} if measured else {}
            latency = found if is_of(parity["student"], results["arms"]) else {}
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is not what an export writes: {fix}") from error
    return Evaluated(str(folder), results, latency)


def _milliseconds(value: Any) -> float:
    if not 0 < float(value) < math.inf:
        raise ValueError(f"{value} takes no time")
    return float(value)


def render(listed: Sequence[Row], facts: Mapping[str, Any], measure: str) -> str:
    """The page.

    Args:
        listed: from `rows`.
        facts: of the data set, as results.json has them.
        measure: what the rows are judged by.
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
        for row in listed
    ]
    caption = (
        f"{facts['splits']['test']} test images of {facts['name']}. Students are means over seeds; arms are chosen on "
        "validation. Gains are over the same student without a teacher, paired by seed; intervals need three seeds "
        "that differ. ms: one image through student.onnx, where a run exported this arm."
    )
    drawn = [
        (f"{NAMES[measure].capitalize()} over {unit}", chart)
        for key, unit in (("params", "parameters"), ("macs", "multiply-adds"), ("latency_ms", "latency, ms"))
        if (chart := _chart(listed, key, unit, measure)) is not None
    ]
    remarks = [
        notes.failure_note(f"{row.name} ({row.arm} of {row.run})", notes.seed_list(row.failed), len(row.failed))
        for row in listed
        if row.failed
    ]
    alone = collections.Counter(row.style for row in listed if row.seeds and not row.taught)
    remarks += [
        f"{row.name} ({row.arm} of {row.run}): the gain is over {row.over}, from {row.pairs} of {len(row.seeds)} seeds"
        + (f"; the two arms set {row.otherwise} for themselves." if row.otherwise else ".")
        for row in listed
        if row.over and (alone[row.style] > 1 or row.pairs < len(row.seeds) or row.otherwise)
    ]
    return page(
        f"{facts['name']}: teachers and students",
        f"{len(listed)} networks on the same images",
        element("p", _finding(listed), class_="finding"),
        figure(table("Networks", header, cells, class_="results"), caption),
        *([element("ul", *(element("li", one) for one in remarks), class_="notes")] if remarks else []),
        figure(panels(drawn), "The cross is a teacher; students of one kind share a color and a marker."),
    )


def _finding(listed: Sequence[Row]) -> str:
    """Which student gains most by its teacher, if any does, and how sure that is."""
    taught = [row for row in listed if row.taught]
    if not taught:
        return "No student that learned from a teacher is here to compare with."
    if not any(row.seeds and not row.taught for row in listed):
        return "No student without a teacher is here to compare with."
    gains = [(row.gain["mean"], row) for row in taught if row.gain and row.gain["mean"] is not None]
    if not any(row.gain for row in taught):
        return "No taught student is here without a teacher as well, so there is no gain to report."
    if not gains:
        return "No taught student has a successful seed in common with itself alone: there is no gain to report."
    most, best = max(gains, key=lambda pair: pair[0])
    said = f"{best.name} gains most, {signed(most)} points."
    if most <= 0:
        said = f"No taught student does better than itself alone. {best.name} comes nearest, {signed(most)} points."
    bounds = intervals.summary(best.differences, largest_of=len(gains))["ci95"]
    if bounds is None:
        return f"{said} There is no interval: it takes three seeds that differ."
    choice = f", corrected for the choice of the largest of {len(gains)} gains on test (Bonferroni)," * (len(gains) > 1)
    said += f" The 95 % interval{choice} is {' to '.join(map(signed, bounds))}"
    if bounds[0] <= 0 <= bounds[1]:
        return f"{said} and contains 0: these seeds do not show that distillation helps or harms."
    return f"{said}."


def _chart(listed: Sequence[Row], key: str, unit: str, measure: str) -> Markup | None:
    names = collections.Counter(row.name for row in listed)
    points = [
        charts.Point(
            row.name if names[row.name] == 1 else f"{row.name}, {row.run}",
            row.style,
            row.cost[key],
            100 * row.figures["mean"],
        )
        for row in listed
        if row.cost.get(key) and row.figures["mean"] is not None
    ]
    return scattered(points, f"{unit}, log scale", NAMES[measure]) if points else None


def main(arguments: list[str]) -> None:
    """The command."""
    parser = Parser(
        prog="python -m kdjax.report.overview",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="directory of an evaluated run")
    parser.add_argument(
        "--output", type=Path, default=Path("overview.html"), metavar="FILE", help="default: %(default)s"
    )
    given = parser.parse_args(arguments)
    if given.output.suffix != ".html" or os.path.isdir(given.output) or not os.path.isdir(given.output.parent):
        raise InputError(f"--output {given.output}: give the name of a .html file in an existing folder")
    measure, listed = rows(given.runs)
    facts = _read(given.runs[0]).results["dataset"]
    try:
        files.write_text(given.output, render(listed, facts, measure))
    except OSError as error:
        raise InputError(f"--output {given.output}: cannot be written ({reason(error)}): give another") from error
    print(f"{len(listed)} networks of {len(given.runs)} run{'s' * (len(given.runs) > 1)}: {given.output}")


if __name__ == "__main__":
    run_command(main)
