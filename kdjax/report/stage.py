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
from kdjax.report.material import Material, Side, TileLocations, Views
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
    """Writes WORKDIR/report.html; the same files of a run give the same bytes.

    Raises:
        InputError: an earlier stage has not been run, or its files belong to other data; the message names the stage to
            run.
    """
    results = document.read(*_stage_file("evaluate", run.workdir / "results.json"))
    if results["dataset"]["fingerprint"] != run.dataset.fingerprint:
        raise InputError(f"{run.workdir}/results.json is of other data than this run: run --stages=evaluate again")
    if list(results["arms"]) != list(run.student.arm_names):
        raise InputError(f"{run.workdir}/results.json is of other arms than this run: run --stages=evaluate again")
    if not len(run.dataset.test):
        raise InputError("report: the data set has no test images, so there is nothing to show")
    arrays = _logits(run, results)
    students = [
        (row, column)
        for column, arm in enumerate(run.student.arm_names)
        if arm in shown_arms(results)
        for row, figures in enumerate(results["arms"][arm]["test_metrics"])
        if figures is not None and figures["top1"] is not None
    ]
    to_pictures = Composite()
    if run.dataset.statistics is not None:
        to_pictures = composite(run.dataset.meaning.names, run.dataset.train.images)
    records = {"teacher": [], "distill": _records(run, "distill")}
    if results["teacher"] is not None and given_field(run.config) is None:
        records["teacher"] = _records(run, "teacher")
    material = Material(
        results=results,
        records=records,
        students=[(run.student.arm_names[column], run.student.seeds[row]) for row, column in students],
        test=_side(run.dataset.test, "test", arrays, students, to_pictures),
        validation=_side(run.dataset.validation, "validation", arrays, students, to_pictures),
        views=_views(run, students, to_pictures, has_teacher=results["teacher"] is not None),
        parity=_parity(run, results),
        note=" ".join(filter(None, (run.config.run.note, to_pictures.words))),
        locations=_tile_locations(run),
    )
    if jax.process_index() == 0:
        files.write_text(run.workdir / "report.html", page.render(material))
        run.log(f"report: {run.workdir / 'report.html'}")


def _stage_file(stage: str, path: Path) -> tuple[Path, str]:
    """Returns a file of a stage, which must exist, and how to repair it, for messages.

    Raises:
        InputError: the file does not exist.
    """
    if not path.is_file():
        raise InputError(f"report: there is no {path}: run --stages={stage} first")
    return path, f"run --stages={stage} again"


def _records(run: Run, stage: str) -> list[dict[str, Any]]:
    """Reads the learning curves of a stage.

    Raises:
        InputError: the file does not exist, or a line is not a record of metrics.
    """
    path, _ = _stage_file(stage, run.workdir / stage / "metrics.jsonl")
    fix = "delete those lines; their points are then missing from the curves"
    records = read_records(path, fix)
    for number, record in enumerate(records, 1):
        if not isinstance(record.get("students"), dict) or not {"kind", "epoch"} <= record.keys():
            raise InputError(f"{path}, line {number}, is not a record of metrics: {fix}")
    return records


def _parity(run: Run, results: Mapping[str, Any]) -> dict[str, Any] | None:
    """Reads what the export measured; None if no student of these results was exported.

    Raises:
        InputError: the file is damaged.
    """
    path = run.workdir / "export" / "parity.json"
    if not path.is_file():
        return None
    fix = "run --stages=export again"
    parity = files.read_json(path, fix)
    if not isinstance(parity, dict) or not {"student", "artifacts", "machine", "test_images"} <= parity.keys():
        raise InputError(f"{path} is not the parity.json of an export: {fix}")
    artifacts, required = parity["artifacts"], {"bytes", "top1", "agreement", "latency_ms"}
    if not isinstance(artifacts, dict) or not all(isinstance(artifact, dict) for artifact in artifacts.values()):
        raise InputError(f"{path} is not the parity.json of an export: {fix}")
    for name, artifact in artifacts.items():
        if not required <= artifact.keys():
            raise InputError(f"{path} lacks {', '.join(sorted(required - artifact.keys()))} of {name}: {fix}")
    if not exported.matches_results(parity["student"], results["arms"]):
        run.log(f"report: {path} is left out, as its student is none of results.json: {fix}")
        return None
    return parity


def _logits(run: Run, results: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Reads the logits of the students, and of the teacher if there is one, on validation and test.

    Raises:
        InputError: the file is missing or damaged, or the shapes are not those of this run.
    """
    path, fix = _stage_file("evaluate", run.workdir / "evaluation" / "logits.npz")
    classes = len(run.dataset.classes)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, split in (("validation", run.dataset.validation), ("test", run.dataset.test)):
        if results["teacher"] is not None:
            shapes[f"teacher_{name}"] = (len(split.labels), classes)
        shapes[f"student_{name}"] = (*run.student.rows, len(split.labels), classes)
    return logits.read(path, shapes, fix, results.get("logits_sha256"))


def _side(
    split: Split, name: str, arrays: dict[str, np.ndarray], students: list[tuple[int, int]], to_pictures: Composite
) -> Side:
    """Returns a split as the page shows it: without unlabeled images, and with the chosen students on one axis."""
    labeled = split.labels >= 0
    teacher, population = arrays.get(f"teacher_{name}"), arrays[f"student_{name}"]
    selected = [population[place] for place in students]
    rows = np.stack(selected) if selected else np.zeros((0, *population.shape[2:]))
    if teacher is not None and not np.isfinite(teacher[labeled]).all():  # a folder of stored logits may lack this split
        teacher = None
    return Side(
        name=name,
        images=Rows.of(split.images).select(labeled).viewed(to_pictures),
        labels=split.labels[labeled],
        names=[name for name, is_labeled in zip(split.names, labeled, strict=True) if is_labeled],
        teacher=None if teacher is None else log_softmax(teacher[labeled].astype(np.float64)),
        students=log_softmax(rows[:, labeled].astype(np.float64)),
    )


def _tile_locations(run: Run) -> TileLocations | None:
    """Returns where the tiles lie, according to the images or a table; None if neither says."""
    section = run.config.dataset
    splits = {"training": run.dataset.train, "validation": run.dataset.validation, "test": run.dataset.test}
    unlabeled = set(run.dataset.members.get("unlabeled", ()))  # files of another folder, whose places are not looked up
    names = {side: [name for name in split.names if name not in unlabeled] for side, split in splits.items()}
    positions = locations(section, sum(names.values(), []))
    if positions is None:
        return None
    located = ~np.isnan(positions[:, 0])
    side = np.repeat(list(names), [len(side_names) for side_names in names.values()])
    return TileLocations(
        sides={name: positions[located & (side == name)] for name in names},
        unknown=int((~located).sum()) + len(unlabeled),
        by_place=None if run.dataset.overlap is None else section.split_by == "place",
        block_km=section.block_km,
    )


def _views(run: Run, students: list[tuple[int, int]], to_pictures: Composite, *, has_teacher: bool) -> Views:
    """Renders the first views of one training image of each of several classes, and runs the networks on them.

    The networks see the views rounded to the integers of the images, which are the pictures that the page shows.
    """
    train, classes = run.dataset.train, len(run.dataset.classes)
    class_indices = np.unique(np.linspace(0, classes - 1, min(classes, VIEWED_IMAGES)).round().astype(int))
    examples = np.array(findings.first_examples(train.labels, class_indices.tolist()), np.int64)
    # Training sees no more views than this, because an epoch visits one view of each image.
    count = min(VIEWS, run.config.student.epochs, run.config.distill.views or VIEWS)
    images = train.images[examples]
    keys = batch.view_keys(run.config.data_seed, *np.broadcast_arrays(examples[:, None], np.arange(count)[None]))
    repeated = np.broadcast_to(images[:, None], (len(images), count, *images.shape[1:]))

    def rendered(size: int) -> np.ndarray:
        render = functools.partial(batch.render, size=size, augmentation=run.augmentation)
        views = jax.jit(render)(repeated, keys)
        return np.rint(float(np.iinfo(images.dtype).max) * np.asarray(views)).astype(images.dtype)

    def by_view(output: np.ndarray) -> np.ndarray:
        return log_softmax(output.astype(np.float64)).reshape(*output.shape[:-2], len(images), count, classes)

    student_views = rendered(run.student.size)
    predict = run.student.predicting(run.student.finished().best.variables)
    population = by_view(predict(student_views.reshape(-1, *student_views.shape[2:])))
    teachers = [source.teacher for source in open_targets(run).sources] if has_teacher else [None]
    logits = []
    for teacher in teachers:
        if teacher is not None:
            views = rendered(teacher.parts["size"])
            logits.append(teacher.clean(views.reshape(-1, *views.shape[2:])))
    teacher_outputs = by_view(np.mean(logits, axis=0)) if len(logits) == len(teachers) else None
    return Views(
        names=[train.names[example] for example in examples],
        labels=[int(train.labels[example]) for example in examples],
        images=to_pictures(images),
        views=to_pictures(student_views),
        teacher=teacher_outputs,
        students=np.stack([population[place] for place in students]) if students else population[:0, 0],
    )
