"""The trained teacher of another run: whether it fits this one."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kdjax.data.dataset import Dataset
from kdjax.errors import InputError
from kdjax.run.record import completed

FIELD = "teacher.workdir"
FREE = ("workdir", "weights")
"""Fields of `config.teacher` that may differ from that run's: where it was read from, and where it began."""


def check_config(config: Any) -> None:
    """Compares this run's teacher, as configured, with that of the run it names.

    Raises:
        InputError: no such run, a teacher that is not at its end, or the first field that differs.
    """
    there = completed(_read(config, "config.json", "teacher", "dataset"))
    theirs, ours = dict(there["teacher"]), dict(json.loads(config.teacher.to_json()))
    for teacher, dataset in ((theirs, there["dataset"]), (ours, config.dataset)):
        teacher["image_size"] = teacher["image_size"] or dataset["image_size"]
    for field in sorted(ours.keys() - FREE):
        if theirs.get(field) != ours[field]:
            raise InputError(
                f"{FIELD}: teacher.{field} is {ours[field]!r} here and {theirs.get(field)!r} in "
                f"{config.teacher.workdir}: set teacher.{field} to what it was"
            )
    total_steps(config)


def check_data(config: Any, dataset: Dataset, log: Callable[[str], None]) -> None:
    """Makes sure that the teacher names the same classes, and saw none of this run's validation and test images.

    A teacher whose best step was chosen on validation images saw these too: they may not be this run's test images.
    Images are known by their names; where the two data sets share none, that is told.

    Raises:
        InputError: other classes, or images on another side.
    """
    there = _read(config, "splits.json", "classes", "train", "validation", "test", "unlabelled")
    if there["classes"] != list(dataset.classes):
        raise InputError(
            f"{FIELD}: {config.teacher.workdir} has not the classes of this data set, or not in their order"
        )
    if not {*there["train"], *there["validation"], *there["test"]} & set(dataset.test.names):
        log(
            f"{FIELD}: no test image of this run is known by its name in {config.teacher.workdir}: make sure that the "
            "teacher was not trained on them under other names"
        )
    trained = (*there["train"], *there["unlabelled"])
    chosen = there["validation"] if config.teacher.select == "best" else ()
    for did, images, side in (
        ("trained on", trained, "validation"),
        ("trained on", trained, "test"),
        ("was selected on", chosen, "test"),
    ):
        both = set(images).intersection(getattr(dataset, side).names)
        if both:
            raise InputError(
                f"{FIELD}: {config.teacher.workdir} {did} {len(both)} of this run's {side} images, such as "
                f"{min(both)}: set dataset.splits={config.teacher.workdir}/splits.json or data_seed to that run's"
            )


def weights(config: Any) -> str | None:
    """What that teacher's training started from; None = from scratch. Raises InputError as `check_config`."""
    return _read(config, "config.json", "teacher")["teacher"]["weights"]


def total_steps(config: Any) -> int:
    """Updates of that teacher's whole training.

    Raises:
        InputError: no teacher was trained there.
    """
    return _read(config, "teacher/program.json", "steps")["steps"]


def _read(config: Any, name: str, *keys: str) -> Mapping[str, Any]:
    path = Path(config.teacher.workdir) / name
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        document = {}
    if not isinstance(document, dict) or not document.keys() >= set(keys):
        raise InputError(f"{FIELD}: {path} is not there, or not of this version: give a run that has trained a teacher")
    return document
