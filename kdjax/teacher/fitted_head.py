"""The linear head that a run fits to an encoder's embeddings and keeps in its directory."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from kdjax.errors import InputError
from kdjax.runtime import files

NAME = "head.npz"


@dataclasses.dataclass(frozen=True)
class Head:
    """A linear layer on embeddings: logits = embedding @ kernel + bias.

    Attributes:
        kernel: (F, classes) float32.
        bias: (classes,) float32.
        parts: what it was fitted to, as JSON values.
        measured: `Probe.figures`, its metrics on validation; empty for a head written by an earlier version.
    """

    kernel: np.ndarray
    bias: np.ndarray
    parts: dict[str, Any]
    measured: dict[str, float] = dataclasses.field(default_factory=dict)


def write_head(folder: Path, head: Head) -> None:
    """Writes a head into a folder."""
    buffer = io.BytesIO()
    parts, measured = (np.array(json.dumps(mapping, sort_keys=True)) for mapping in (head.parts, head.measured))
    np.savez(buffer, kernel=head.kernel, bias=head.bias, parts=parts, measured=measured)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_bytes(folder / NAME, buffer.getvalue())


def read_head(folder: Path, parts: dict[str, Any]) -> Head | None:
    """Reads the head in a folder; returns None if there is none, or if it was not fitted to `parts`.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            measured = json.loads(str(arrays["measured"])) if "measured" in arrays else {}
            head = Head(arrays["kernel"], arrays["bias"], json.loads(str(arrays["parts"])), measured)
    except Exception as error:  # a damaged file can make NumPy and zipfile raise anything
        raise InputError(f"{path} is damaged: remove it and run --stages=teacher again") from error
    return head if head.parts == parts else None
