"""Stage `report`: reads a finished run and writes WORKDIR/report.html."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kdjax.data.dataset import Split
from kdjax.data.loading import locations
from kdjax.data.rows import Rows
from kdjax.errors import InputError
from kdjax.inputs import batch
from kdjax.report import exported, findings, page
from kdjax.report.composite import Composite, composite
from kdjax.report.material import Located, Material, Side, Views
from kdjax.results import document, logits
from kdjax.results.comparison import shown_arms
from kdjax.results.metrics import log_softmax
from kdjax.run.run import Run
from kdjax.run.soft_targets import open_targets
from kdjax.run.teacher_source import given_field
from kdjax.runtime import files
from kdjax.runtime.metrics_writer import read_records

VIEWED_IMAGES, VIEWS = 6, 3


def report(run: Run) -> None:
    """Writes WORKDIR/report.html, the same bytes whenever the run's files are the same.

    Raises:
        InputError: a stage before this one has not been run, or its files are of other data; names the stage to run.
    """
    results = document.read(*_written_by("evaluate", run.workdir / "results.json"))
    if results["dataset"]["fingerprint"] != run.dataset.fingerprint:
        raise InputError(f"{run.workdir}/results.json is of other data than this run: run --stages=evaluate again")
    if list(results["arms"]) != [arm.name for arm in run.student.arms]:
        raise InputError(f"{run.workdir}/results.json is of other arms than this run: run --stages=evaluate again")
    if not len(run.dataset.test):
        raise InputError("report: the data set has no test images, so there is nothing to show")
    stored = _logits(run, results)
    students = [
        (row, column)
        for column, arm in enumerate(run.student.arms)
        if arm.name in shown_arms(results)
        for row, measured in enumerate(results["arms"][arm.name]["test_metrics"])
        if measured is not None and measured["top1"] is not None
    ]
    shown = Composite()
    if run.dataset.statistics is not None:
        shown = composite(run.dataset.meaning.names, run.dataset.train.images)
    records = {"teacher": [], "distill": _records(run, "distill")}
    if results["teacher"] is not None and given_field(run.config) is None:
        records["teacher"] = _records(run, "teacher")
    material = Material(
        results=results,
        records=records,
        students=[(run.student.arms[column].name, run.student.seeds[row]) for row, column in students],
        test=_side(run.dataset.test, "test", stored, students, shown),
        validation=_side(run.dataset.validation, "validation", stored, students, shown),
        views=_views(run, students, shown, taught=results["teacher"] is not None),
        parity=_parity(run, results),
        note=" ".join(filter(None, (run.config.run.note, shown.words))),
        located=_located(run),
    )
    if jax.process_index() == 0:
        files.write_text(run.workdir / "report.html", page.render(material))
        run.log(f"report: {run.workdir / 'report.html'}")


def _written_by(stage: str, path: Path) -> tuple[Path, str]:
    """A file of a stage, which must be there, and how to get a good one."""
    if not path.is_file():
        raise InputError(f"report: there is no {path}: run --stages={stage} first")
    return path, f"run --stages={stage} again"


def _records(run: Run, stage: str) -> list[dict[str, Any]]:
    """The learning curves of a stage."""
    path, _ = _written_by(stage, run.workdir / stage / "metrics.jsonl")
    fix = "delete those lines; their points are then missing from the curves"
    records = read_records(path, fix)
    for number, one in enumerate(records, 1):
        if not isinstance(one.get("students"), dict) or not {"kind", "epoch"} <= one.keys():
            raise InputError(f"{path}, line {number}, is not a record of metrics: {fix}")
    return records


def _parity(run: Run, results: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the export measured, None without an export of a student of these results."""
    path = run.workdir / "export" / "parity.json"
    if not path.is_file():
        return None
    fix = "run --stages=export again"
    found = files.read_json(path, fix)
    if not isinstance(found, dict) or not {"student", "artifacts", "machine", "test_images"} <= found.keys():
        raise InputError(f"{path} is not the parity.json of an export: {fix}")
    artifacts, measured = found["artifacts"], {"bytes", "top1", "agreement", "latency_ms"}
    if not isinstance(artifacts, dict) or not all(isinstance(one, dict) for one in artifacts.values()):
        raise InputError(f"{path} is not the parity.json of an export: {fix}")
    for name, one in artifacts.items():
        if not measured <= one.keys():
            raise InputError(f"{path} lacks {', '.join(sorted(measured - one.keys()))} of {name}: {fix}")
    if not exported.is_of(found["student"], results["arms"]):
        run.log(f"report: {path} is left out, as its student is none of results.json: {fix}")
        return None
    return found


def _logits(run: Run, results: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What teacher, if there is one, and students say of validation and test, in the shapes of this run."""
    path, fix = _written_by("evaluate", run.workdir / "evaluation" / "logits.npz")
    classes = len(run.dataset.classes)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, split in (("validation", run.dataset.validation), ("test", run.dataset.test)):
        if results["teacher"] is not None:
            shapes[f"teacher_{name}"] = (len(split.labels), classes)
        shapes[f"student_{name}"] = (*run.student.rows, len(split.labels), classes)
    return logits.read(path, shapes, fix, results.get("logits_sha256"))


def _side(
    split: Split, name: str, stored: dict[str, np.ndarray], students: list[tuple[int, int]], shown: Composite
) -> Side:
    """A split as the page shows it: unlabeled images left out, the students in one row."""
    kept = split.labels >= 0
    teacher, population = stored.get(f"teacher_{name}"), stored[f"student_{name}"]
    chosen = [population[place] for place in students]
    rows = np.stack(chosen) if chosen else np.zeros((0, *population.shape[2:]))
    if teacher is not None and not np.isfinite(teacher[kept]).all():  # a folder of logits may lack it
        teacher = None
    return Side(
        name=name,
        images=Rows.of(split.images).select(kept).viewed(shown),
        labels=split.labels[kept],
        names=[one for one, there in zip(split.names, kept, strict=True) if there],
        teacher=None if teacher is None else log_softmax(teacher[kept].astype(np.float64)),
        students=log_softmax(rows[:, kept].astype(np.float64)),
    )


def _located(run: Run) -> Located | None:
    """Where the tiles lie, as far as they or a table say."""
    section = run.config.dataset
    splits = {"training": run.dataset.train, "validation": run.dataset.validation, "test": run.dataset.test}
    added = set(run.dataset.members.get("unlabeled", ()))  # files of another folder
    names = {side: [name for name in split.names if name not in added] for side, split in splits.items()}
    found = locations(section, sum(names.values(), []))
    if found is None:
        return None
    known = ~np.isnan(found[:, 0])
    side = np.repeat(list(names), [len(one) for one in names.values()])
    return Located(
        sides={name: found[known & (side == name)] for name in names},
        unknown=int((~known).sum()) + len(added),
        by_place=None if run.dataset.overlap is None else section.split_by == "place",
        block_km=section.block_km,
    )


def _views(run: Run, students: list[tuple[int, int]], shown: Composite, *, taught: bool) -> Views:
    """The first views of a training image of several classes, and what the networks say of them.

    The pictures are rounded to the bits of the images before the networks see them, so that they are asked about what
    the page shows.
    """
    train, classes = run.dataset.train, len(run.dataset.classes)
    spread = np.unique(np.linspace(0, classes - 1, min(classes, VIEWED_IMAGES)).round().astype(int))
    examples = np.array(findings.one_of_each(train.labels, spread.tolist()), np.int64)
    # No more than there were in training: an epoch visits one view of each image.
    count = min(VIEWS, run.config.student.epochs, run.config.distill.views or VIEWS)
    images = train.images[examples]
    keys = batch.view_keys(run.config.data_seed, *np.broadcast_arrays(examples[:, None], np.arange(count)[None]))
    repeated = np.broadcast_to(images[:, None], (len(images), count, *images.shape[1:]))

    def pictures(size: int) -> np.ndarray:
        render = functools.partial(batch.render, size=size, augmentation=run.augmentation)
        views = jax.jit(render)(repeated, keys)
        return np.rint(float(np.iinfo(images.dtype).max) * np.asarray(views)).astype(images.dtype)

    def by_view(output: np.ndarray) -> np.ndarray:
        return log_softmax(output.astype(np.float64)).reshape(*output.shape[:-2], len(images), count, classes)

    seen = pictures(run.student.size)
    predict = run.student.predicting(run.student.finished().best.variables)
    population = by_view(predict(seen.reshape(-1, *seen.shape[2:])))
    teachers = [source.teacher for source in open_targets(run).sources] if taught else [None]
    logits = []
    for teacher in teachers:
        if teacher is not None:
            views = pictures(teacher.parts["size"])
            logits.append(teacher.clean(views.reshape(-1, *views.shape[2:])))
    said = by_view(np.mean(logits, axis=0)) if len(logits) == len(teachers) else None
    return Views(
        names=[train.names[one] for one in examples],
        labels=[int(train.labels[one]) for one in examples],
        images=shown(images),
        views=shown(seen),
        teacher=said,
        students=np.stack([population[place] for place in students]) if students else population[:0, 0],
    )
