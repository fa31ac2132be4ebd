"""Writes metrics to disk as JSON lines, and through clu for TensorBoard if TensorFlow is installed."""

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
    """Reads the records of a metrics.jsonl, which `MetricsWriter.write` wrote.

    Args:
        path: the file.
        fix: what the user can do if it is damaged, for the message.

    Raises:
        InputError: the file is missing, or a line is not a record; names the line.
    """
    records = files.read_json_lines(path, fix)
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            raise InputError(f"{path}, line {number}, is not a record of metrics: {fix}")
    return records


class MetricsWriter:
    """Appends records to `directory/metrics.jsonl`; of several processes only the first one writes.

    Args:
        directory: directory of one stage; created if absent.
        resumed_at: step from which the stage continues. Records of later steps are removed, because these steps are
            repeated. If it is below 0, all records are removed without being read.
        tensorboard: whether to write TensorBoard event files too, if its packages are installed.

    Raises:
        InputError: the existing file contains something other than records.
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
        kept_lines = [line for line, record in zip(lines, records, strict=False) if record["step"] <= resumed_at]
        if [*kept_lines, ""] != lines:
            files.write_text(self._path, "".join(f"{line}\n" for line in kept_lines))
        self._file = self._path.open("a", encoding="utf-8")
        if tensorboard and all(importlib.util.find_spec(name) for name in ("tensorflow", "tensorboard")):
            from clu.metric_writers import SummaryWriter

            self._tensorboard = SummaryWriter(str(directory))

    def write(self, step: int, kind: str, rows: Mapping[str, Mapping[str, float]], **facts: float) -> None:
        """Writes one record.

        Args:
            step: updates made.
            kind: "train" or "validation".
            rows: metrics of each student, by its name "arm/seed".
            **facts: values common to all students.
        """
        if self._file is None:
            return
        record = {"step": step, "kind": kind, **facts, "students": rows}
        self._file.write(json.dumps(plain(record, "metrics"), allow_nan=False) + "\n")
        self._file.flush()
        if self._tensorboard is not None:
            scalars = {
                f"{kind}/{name}/{row}": value for row, metrics in rows.items() for name, value in metrics.items()
            }
            self._tensorboard.write_scalars(step, scalars)

    def close(self) -> None:
        """Closes the files."""
        if self._file is not None:
            self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
