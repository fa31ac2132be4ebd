"""Metrics on disk: JSON lines always, TensorBoard beside them through clu where TensorFlow is installed."""

import importlib.util
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdjax.runtime.files import write_text


def finite(value: Any) -> Any:
    """`value` with every NaN and infinity in it replaced by None: JSON knows neither."""
    if isinstance(value, Mapping):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class MetricsWriter:
    """Appends records to `directory/metrics.jsonl`.

    Args:
        directory: of one stage; made if absent.
        resumed_at: step the stage goes on from; later records are cut away, as those steps come again.
        tensorboard: also write TensorBoard event files, where its packages are installed.
    """

    def __init__(self, directory: Path, resumed_at: int, *, tensorboard: bool):
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / "metrics.jsonl"
        self._path.touch()
        lines = self._path.read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= resumed_at]
        if kept != lines:
            write_text(self._path, "".join(kept))
        self._file = self._path.open("a")
        self._tensorboard = None
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
        record = {"step": step, "kind": kind, **facts, "students": rows}
        self._file.write(json.dumps(finite(record), allow_nan=False) + "\n")
        self._file.flush()
        if self._tensorboard is not None:
            scalars = {f"{kind}/{name}/{row}": value for row, one in rows.items() for name, value in one.items()}
            self._tensorboard.write_scalars(step, scalars)

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
