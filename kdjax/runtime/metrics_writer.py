"""Metrics on disk: JSON lines always, TensorBoard too where TensorFlow is installed, through clu."""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from kdjax.errors import InputError
from kdjax.runtime import files
from kdjax.runtime.plain import plain


def read_records(path: Path, fix: str) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl, as `MetricsWriter.write` made them.

    Args:
        path: the file.
        fix: what to do where it is damaged, for the message.

    Raises:
        InputError: it is not there, or a line is no record; names the line.
    """
    records = files.read_json_lines(path, fix)
    for number, one in enumerate(records, 1):
        if not isinstance(one, dict) or not isinstance(one.get("step"), int):
            raise InputError(f"{path}, line {number}, is not a record of metrics: {fix}")
    return records


class MetricsWriter:
    """Appends records to `directory/metrics.jsonl`, in the first of several processes.

    Args:
        directory: of one stage; made if absent.
        resumed_at: step the stage goes on from; later records are cut away, as those steps come again. Below 0 all are,
            unread.
        tensorboard: also write TensorBoard event files, where its packages are installed.

    Raises:
        InputError: the file that is there holds something else than records.
    """

    def __init__(self, directory: Path, resumed_at: int, *, tensorboard: bool):
        self._file, self._tensorboard = None, None
        if jax.process_index() > 0:
            return
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / "metrics.jsonl"
        self._path.touch()
        fix = "delete the file, which loses learning curves but nothing that training needs"
        records = read_records(self._path, fix) if resumed_at >= 0 else []
        lines = self._path.read_text(encoding="utf-8").split("\n")
        kept = [line for line, record in zip(lines, records, strict=False) if record["step"] <= resumed_at]
        if [*kept, ""] != lines:
            files.write_text(self._path, "".join(f"{line}\n" for line in kept))
        self._file = self._path.open("a", encoding="utf-8")
        if tensorboard and all(importlib.util.find_spec(name) for name in ("tensorflow", "tensorboard")):
            from clu.metric_writers import SummaryWriter

            self._tensorboard = SummaryWriter(str(directory))

    def write(self, step: int, kind: str, rows: Mapping[str, Mapping[str, float]], **facts: float) -> None:
        """Writes one line.

        Args:
            step: updates made.
            kind: "train" or "validation".
            rows: metrics by student, a student being named "arm/seed".
            **facts: values common to all students.
        """
        if self._file is None:
            return
        record = {"step": step, "kind": kind, **facts, "students": rows}
        self._file.write(json.dumps(plain(record, "metrics"), allow_nan=False) + "\n")
        self._file.flush()
        if self._tensorboard is not None:
            scalars = {f"{kind}/{name}/{row}": value for row, one in rows.items() for name, value in one.items()}
            self._tensorboard.write_scalars(step, scalars)

    def close(self) -> None:
        """Closes the files."""
        if self._file is not None:
            self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
