"""The linear head that a run fits to the embeddings of an encoder, kept in its directory."""

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
    """logits = embedding @ kernel + bias.

    Attributes:
        kernel: (F, classes) float32.
        bias: (classes,) float32.
        parts: what it was fitted to, as JSON values.
        measured: `Probe.figures`, what came of it on validation; none in a head of an earlier version.
    """

    kernel: np.ndarray
    bias: np.ndarray
    parts: dict[str, Any]
    measured: dict[str, float] = dataclasses.field(default_factory=dict)


def write_head(folder: Path, head: Head) -> None:
    """Writes a head into a folder."""
    buffer = io.BytesIO()
    parts, measured = (np.array(json.dumps(said, sort_keys=True)) for said in (head.parts, head.measured))
    np.savez(buffer, kernel=head.kernel, bias=head.bias, parts=parts, measured=measured)
    folder.mkdir(parents=True, exist_ok=True)
    files.write_bytes(folder / NAME, buffer.getvalue())


def read_head(folder: Path, parts: dict[str, Any]) -> Head | None:
    """The head in a folder that was fitted to `parts`; None where there is none.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as held:
            measured = json.loads(str(held["measured"])) if "measured" in held else {}
            head = Head(held["kernel"], held["bias"], json.loads(str(held["parts"])), measured)
    except Exception as error:  # NumPy and zipfile raise whatever a damaged file leads them to
        raise InputError(f"{path} is damaged: remove it and run --stages=teacher again") from error
    return head if head.parts == parts else None
