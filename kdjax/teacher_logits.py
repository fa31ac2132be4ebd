"""Teacher logits once: `teacher_logits[view, example, class]`, an array on disk.

The array of a teacher lies in a folder named by its fingerprint, one file a view. A view that is there is never
computed again, by any student, epoch or later run. Logits are stored, not probabilities, so that any temperature can
follow. Cached consistent views: arXiv 2106.05237.
"""

import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

FORMAT = 1
"""Version of the layout on disk; part of the fingerprint."""


def tree_digest(tree: Any) -> str:
    """SHA-256 of the names, shapes, dtypes and bytes of a tree of arrays, in hexadecimal."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@dataclasses.dataclass(frozen=True)
class Pass:
    """What a pass of the teacher did: the array (views, examples, classes) float32, and how much was computed."""

    logits: np.ndarray
    folder: Path
    forward_images: int
    """Images that went through the teacher; 0 where every view was on disk."""


def cached_pass(
    cache_dir: Path,
    parts: Mapping[str, Any],
    *,
    views: int,
    shape: tuple[int, int],
    compute_view: Callable[[int], np.ndarray],
    log: Callable[[str], None],
) -> Pass:
    """The logits of `views` views, read where they are on disk and computed where not.

    Args:
        cache_dir: holds one folder a fingerprint; may be shared by runs.
        parts: all that the logits depend on, as JSON values. Its hash is the fingerprint.
        views: number of views.
        shape: (examples, classes).
        compute_view: from a view to its (examples, classes) float32 logits.
        log: takes lines for the person who waits.
    """
    document = json.dumps({**parts, "format": FORMAT}, sort_keys=True, indent=1)
    folder = cache_dir / "teacher_logits" / hashlib.sha256(document.encode()).hexdigest()[:16]
    if not folder.exists():
        _log_nearest(folder, json.loads(document), log)
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "parts.json", document.encode())
    logits = np.empty((views, *shape), np.float32)
    computed = 0
    for view in range(views):
        path = folder / f"view-{view:04d}.npy"
        stored = _read(path, shape, log)
        if stored is None:
            stored = np.asarray(compute_view(view), np.float32)
            buffer = io.BytesIO()
            np.save(buffer, stored, allow_pickle=False)
            _write(path.with_suffix(".sha256"), hashlib.sha256(buffer.getvalue()).hexdigest().encode())
            _write(path, buffer.getvalue())
            computed += 1
        logits[view] = stored
    log(f"teacher logits: {views - computed} of {views} views from {folder}, {computed} computed")
    return Pass(logits, folder, computed * shape[0])


def _write(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, also where another run writes the same one."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def _read(path: Path, shape: tuple[int, int], log: Callable[[str], None]) -> np.ndarray | None:
    """A stored view, or None where there is none or it is damaged."""
    if not path.exists():
        return None
    content = path.read_bytes()
    digest = path.with_suffix(".sha256")
    if not digest.exists() or digest.read_text() != hashlib.sha256(content).hexdigest():
        log(f"teacher logits: {path} is damaged and is computed again")
        return None
    array = np.load(io.BytesIO(content), allow_pickle=False)
    if array.shape != shape:
        raise ValueError(f"{path}: shape {array.shape}, expected {shape}")  # the fingerprint fixes the shape
    return array


def _log_nearest(folder: Path, parts: dict[str, Any], log: Callable[[str], None]) -> None:
    """Says in what the entry about to be made differs from the nearest one there is."""
    others = [json.loads(path.read_text()) for path in folder.parent.glob("*/parts.json")]
    differing = [sorted(name for name in parts if other.get(name) != parts[name]) for other in others]
    if differing:
        log(f"teacher logits: not cached; the nearest entry differs in {', '.join(min(differing, key=len))}")
