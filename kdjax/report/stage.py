"""Stage `report`: reads a finished run and writes WORKDIR/report.html."""

import functools
import json
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kdjax.config import given_teacher
from kdjax.data import Split
from kdjax.errors import InputError
from kdjax.report import findings, page
from kdjax.report.material import Material, Side, Views
from kdjax.results import tables
from kdjax.results.metrics import log_softmax
from kdjax.run.learners import finished_students
from kdjax.run.run import Run
from kdjax.runtime import files
from kdjax.teacher.targets import teacher_of
from kdjax.training import step
from kdjax.training.predictor import predictor

VIEWED_IMAGES, VIEWS = 6, 3


def report(run: Run) -> None:
    """Writes WORKDIR/report.html, the same bytes whenever the run's files are the same.

    Raises:
        InputError: a stage before this one has not been run, or its files are of other data; names the stage to run.
    """
    results = json.loads(_existing(run.workdir / "results.json", "evaluate").read_text())
    if results["dataset"]["fingerprint"] != run.dataset.fingerprint:
        raise InputError(f"{run.workdir}/results.json is of other data than this run: run --stages=evaluate again")
    if not len(run.dataset.test):
        raise InputError("report: the data set has no test images, so there is nothing to show")
    logits = _logits(_existing(run.workdir / "evaluation" / "logits.npz", "evaluate"))
    students = [
        (row, column)
        for column, name in enumerate(run.arms)
        if name in tables.shown_arms(results)
        for row, measured in enumerate(results["arms"][name]["test_metrics"])
        if measured is not None and measured["top1"] is not None
    ]
    records = {"teacher": [], "distill": _records(_existing(run.workdir / "distill" / "metrics.jsonl", "distill"))}
    if given_teacher(run.config) is None:
        records["teacher"] = _records(_existing(run.workdir / "teacher" / "metrics.jsonl", "teacher"))
    parity = run.workdir / "export" / "parity.json"
    material = Material(
        results=results,
        records=records,
        students=[(run.arms[column], run.config.seeds[row]) for row, column in students],
        test=_side(run.dataset.test, "test", logits, students),
        validation=_side(run.dataset.validation, "validation", logits, students),
        views=_views(run, students),
        parity=json.loads(parity.read_text()) if parity.is_file() else None,
        note=run.config.run.note,
    )
    if jax.process_index() == 0:
        files.write_text(run.workdir / "report.html", page.render(material))
        run.log(f"report: {run.workdir / 'report.html'}")


def _existing(path: Path, stage: str) -> Path:
    if not path.is_file():
        raise InputError(f"report: there is no {path}: run --stages={stage} first")
    return path


def _records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _logits(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"report: {path} cannot be read ({error}): run --stages=evaluate again") from error


def _side(split: Split, name: str, logits: dict[str, np.ndarray], students: list[tuple[int, int]]) -> Side:
    """A split as the page shows it: unlabelled images left out, the students in one row."""
    kept = split.labels >= 0
    teacher, population = logits[f"teacher_{name}"], logits[f"student_{name}"]
    chosen = [population[place] for place in students]
    rows = np.stack(chosen) if chosen else np.zeros((0, *teacher.shape))
    return Side(
        name=name,
        images=split.images[kept],
        labels=split.labels[kept],
        names=[one for one, there in zip(split.names, kept, strict=True) if there],
        teacher=log_softmax(teacher[kept].astype(np.float64)),
        students=log_softmax(rows[:, kept].astype(np.float64)),
    )


def _views(run: Run, students: list[tuple[int, int]]) -> Views:
    """The first views of a training image of several classes, and what the networks say of them.

    The pictures are rounded to 8 bits before the networks see them, so that they are asked about what the page shows.
    """
    train, classes = run.dataset.train, len(run.dataset.classes)
    spread = np.unique(np.linspace(0, classes - 1, min(classes, VIEWED_IMAGES)).round().astype(int))
    examples = np.array(findings.one_of_each(train.labels, spread), int)
    # No more than there were in training: an epoch visits one view of each image.
    count = min(VIEWS, run.config.student.epochs, run.config.distill.views or VIEWS)
    images = train.images[examples]
    keys = step.view_keys(run.config.data_seed, *np.broadcast_arrays(examples[:, None], np.arange(count)[None]))
    repeated = np.broadcast_to(images[:, None], (len(images), count, *images.shape[1:]))

    def pictures(size: int) -> np.ndarray:
        views = jax.jit(functools.partial(step.render, size=size))(repeated, keys)
        return np.rint(255 * np.asarray(views)).astype(np.uint8)

    def by_view(logits: np.ndarray) -> np.ndarray:
        return log_softmax(logits.astype(np.float64)).reshape(*logits.shape[:-2], len(images), count, classes)

    seen = pictures(run.student_size)
    best, _ = finished_students(run)
    predict = predictor(run.network("student"), size=run.student_size, mapping=run.population_mapping)
    placed = run.population_mapping.place({"params": best.params, "batch_stats": best.batch_stats}, "rows")
    population = by_view(predict(placed, seen.reshape(-1, *seen.shape[2:])))
    teacher = teacher_of(run)
    if teacher is not None:
        shown = pictures(run.teacher_size)
        teacher = by_view(teacher.clean(shown.reshape(-1, *shown.shape[2:])))
    return Views(
        names=[train.names[one] for one in examples],
        labels=[int(train.labels[one]) for one in examples],
        images=images,
        views=seen,
        teacher=teacher,
        students=np.stack([population[place] for place in students]) if students else population[:0, 0],
    )
