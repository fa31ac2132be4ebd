"""Decoded images on disk: a .npy of bytes or 16 bits to map into memory and a JSON index, no pickle.

`<cache_dir>/decoded/<key>/images.npy` and `index.json`. A folder is written under a temporary name and renamed when
complete, so a run that dies leaves nothing that looks finished. A lock says that its writer lives; what the dead left
is swept by the next writer.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from kdjax.errors import reason
from kdjax.runtime import temporary

FORMAT = 2
_DAY = 86_400.0


def key_of(parts: Any) -> str:
    """A folder name (hex) for the JSON-serializable description of what is cached."""
    text = json.dumps([FORMAT, parts], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def row_hashes(images: np.ndarray, pool: concurrent.futures.Executor) -> list[str]:
    """sha256 (hex) of every row of `images`."""
    return list(
        pool.map(lambda i: hashlib.sha256(np.ascontiguousarray(images[i]).data).hexdigest(), range(len(images)))
    )


def read(
    folder: pathlib.Path, pool: concurrent.futures.Executor, log: Callable[[str], None]
) -> tuple[np.ndarray, dict[str, Any]] | None:
    """Memory-mapped images and the index, or None where the folder is absent or damaged (then that is logged).

    Every row and the index are compared with their hashes: a cache that lies is worse than none, and hashing runs at
    disk speed.
    """
    if not os.path.isdir(folder):  # the name may be too long to ask pathlib
        return None
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        if images.dtype not in (np.uint8, np.uint16) or images.shape != tuple(index["shape"]):
            raise ValueError(f"images.npy holds {images.dtype} {images.shape}")
        if _seal(index["shape"], index["hashes"], index["content"]) != index["seal"]:
            raise ValueError("index.json differs from its own seal")
        if row_hashes(images, pool) != index["hashes"]:
            raise ValueError("images.npy differs from the hashes in index.json")
        return images, index["content"]
    except (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError) as error:
        log(f"cache {folder} is damaged ({reason(error, 120)}): decoding again")
        return None


def _seal(shape: Any, hashes: Any, content: Any) -> str:
    return hashlib.sha256(json.dumps([shape, hashes, content]).encode()).hexdigest()


def _sweep(parent: pathlib.Path) -> None:
    """Removes what writers left that are gone, also those of versions without locks, a day after their last change."""
    temporary.sweep(parent)
    with contextlib.suppress(OSError):
        for place in parent.glob(".*"):
            known = place.suffix == ".lock" or place.with_name(place.name + ".lock").exists()
            if not known and time.time() - _touched(place) > _DAY:
                shutil.rmtree(place, ignore_errors=True)


def _touched(folder: pathlib.Path) -> float:
    return max((path.stat().st_mtime for path in (folder, *folder.iterdir())), default=0.0)


class Writer:
    """Builds one cache folder: fill `images`, then `finish`; a context manager that leaves no temporary files."""

    def __init__(self, folder: pathlib.Path, shape: tuple[int, ...], dtype: DTypeLike = np.uint8):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        self._folder = folder
        self._shape = shape
        with contextlib.ExitStack() as stack:
            self._building = stack.enter_context(temporary.folder(folder.parent, folder.name))
            self.images = np.lib.format.open_memmap(self._building / "images.npy", "w+", dtype, shape)
            if hasattr(os, "posix_fallocate"):
                # Room is claimed now: a full disk met while writing into a map would kill the process.
                with open(self._building / "images.npy", "r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, os.path.getsize(file.name))
            self._held = stack.pop_all()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def finish(self, content: dict[str, Any], pool: concurrent.futures.Executor) -> None:
        """Writes the index and moves the folder in place; a damaged folder of that name is replaced."""
        self.images.flush()
        hashes = row_hashes(self.images, pool)
        # As it will be read: tuples become lists.
        shape, content = json.loads(json.dumps([self._shape, content]))
        index = {"shape": shape, "hashes": hashes, "content": content, "seal": _seal(shape, hashes, content)}
        (self._building / "index.json").write_text(json.dumps(index), encoding="utf-8")
        old = None
        if self._folder.exists():
            old = pathlib.Path(tempfile.mkdtemp(prefix=f".{self._folder.name}-old-", dir=self._folder.parent))
            os.replace(self._folder, old)
        try:
            os.rename(self._building, self._folder)
        except OSError:
            # Another process finished the same work first: its folder has the same content.
            if not self._folder.is_dir():
                raise
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
