"""The soft targets of a run: its teacher, and the logits that are stored or computed once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from kdjax.errors import Preempted
from kdjax.inputs import augment
from kdjax.run.learners import best_teacher
from kdjax.run.run import Run
from kdjax.runtime import files, preemption
from kdjax.teacher import teachers
from kdjax.teacher.store import LogitsFolder, cached, named, view_name


def teacher_of(run: Run) -> teachers.Teacher | None:
    """The teacher of a run; None where its logits are given."""
    config = run.config.teacher
    if run.config.distill.logits:
        return None
    size, data_seed = run.teacher_size, run.config.data_seed
    if config.onnx:
        return teachers.from_onnx(
            config.onnx,
            layout=config.onnx_layout,
            pixels=config.onnx_input,
            order=config.onnx_classes,
            classes=run.dataset.classes,
            size=size,
            data_seed=data_seed,
        )
    return teachers.from_network(
        config.model,
        run.network("teacher"),
        best_teacher(run),
        size=size,
        data_seed=data_seed,
        dtype=str(run.dtype),
        on_device=run.on_device(run.dataset.train.images),
        mapping=run.mapping,
    )


def _logits_folders(run: Run, teacher: teachers.Teacher | None) -> list[LogitsFolder]:
    """Where the teacher's logits lie; several where the mean of several teachers is wanted."""
    parts = {
        "examples": run.dataset.fingerprint,
        "augmentation": augment.describe(),
        "data_seed": run.config.data_seed,
        **(teacher.parts if teacher else {}),
    }
    classes = len(run.dataset.classes)
    if teacher is None:
        return named(run.config.distill.logits, parts, classes, run.log)
    return [cached(run.cache_dir, parts, classes, run.log)]


def view_logits(run: Run, teacher: teachers.Teacher | None, views: int) -> np.ndarray:
    """Teacher logits (views, examples, classes) of the training split."""
    images = run.dataset.train.images
    names = [view_name(view) for view in range(views)]

    def compute(name: str, start: int, end: int) -> np.ndarray:
        return teacher.views(images, np.arange(start, end), names.index(name))

    return np.stack(_stored_logits(run, teacher, "views", dict.fromkeys(names, len(images)), compute))


def clean_logits(run: Run, teacher: teachers.Teacher | None) -> dict[str, np.ndarray]:
    """Teacher logits of the plain validation and test images."""
    splits = {"validation": run.dataset.validation, "test": run.dataset.test}

    def compute(name: str, start: int, end: int) -> np.ndarray:
        return teacher.clean(splits[name].images[start:end])

    rows = {name: len(split) for name, split in splits.items()}
    return dict(zip(splits, _stored_logits(run, teacher, "clean", rows, compute), strict=True))


def _stored_logits(
    run: Run,
    teacher: teachers.Teacher | None,
    kind: str,
    rows: dict[str, int],
    compute: Callable[[str, int, int], np.ndarray],
) -> list[np.ndarray]:
    """The logits of each name, read where they are on disk; the images that went through the teacher are counted.

    The count is of what was missing when this run first asked, so that an interruption does not change it; what had to
    be computed again after one is counted apart.
    """
    record = run.results_dir / "teacher_logits.json"
    document = json.loads(record.read_text()) if record.exists() else {}
    folders = _logits_folders(run, teacher)
    if kind not in document or document[kind].get("images", rows) != rows:  # the configuration was changed since
        missing = [end - start for name, count in rows.items() for start, end in folders[0].missing(name, count)]
        document[kind] = {
            "folders": [str(one.folder) for one in folders],
            "images": rows,
            "forward_images": sum(missing) if teacher else 0,
            "started_images": 0,
        }
    found = []
    for number, (name, count) in enumerate(rows.items()):

        def counted(start: int, end: int, name: str = name, number: int = number) -> np.ndarray:
            if preemption.requested():  # one process alone ends at once; several must end at the same shard
                raise Preempted("teacher logits: ended by SIGTERM; the shards computed so far are saved")
            run.log(f"teacher logits: {name} ({number + 1} of {len(rows)}), images {start} to {end}")
            document[kind]["started_images"] += end - start
            _write(record, document)
            return compute(name, start, end)

        found.append(np.mean([one.read(name, count, counted if teacher else None) for one in folders], axis=0))
    _write(record, document)
    run.log(
        f"teacher logits: {', '.join(document[kind]['folders'])}: {kind} complete, "
        f"{document[kind]['started_images']} images went through the teacher"
    )
    return found


def _write(path: Path, document: dict[str, Any]) -> None:
    if jax.process_index() == 0:
        files.write_json(path, document)
