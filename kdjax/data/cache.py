"""Decoded images on disk: a uint8 .npy to map into memory and a JSON index, no pickle.

`<cache_dir>/decoded/<key>/images.npy` and `index.json`. A folder is written under a temporary name and renamed when
complete, so a run that dies leaves nothing that looks finished.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

FORMAT = 1


def key_of(parts: Any) -> str:
    """A folder name (hex) for the JSON-serialisable description of what is cached."""
    text = json.dumps([FORMAT, parts], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def row_hashes(images: np.ndarray, pool: concurrent.futures.Executor) -> list[str]:
    """sha256 (hex) of every row of `images`."""
    return list(pool.map(lambda i: hashlib.sha256(np.ascontiguousarray(images[i])).hexdigest(), range(len(images))))


def read(
    folder: pathlib.Path, pool: concurrent.futures.Executor, log: Callable[[str], None]
) -> tuple[np.ndarray, dict[str, Any]] | None:
    """Memory-mapped images and the index, or None where the folder is absent or damaged (then that is logged).

    Every row is compared with its hash: a cache that lies is worse than none, and hashing runs at disk speed.
    """
    if not folder.is_dir():
        return None
    try:
        index = json.loads((folder / "index.json").read_text())
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        if images.dtype != np.uint8 or images.shape != tuple(index["shape"]):
            raise ValueError(f"images.npy holds {images.dtype} {images.shape}")
        if row_hashes(images, pool) != index["hashes"]:
            raise ValueError("images.npy differs from the hashes in index.json")
        return images, index["content"]
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        log(f"cache {folder} is damaged ({' '.join(str(error).split())[:120]}): decoding again")
        return None


class Writer:
    """Builds one cache folder: fill `images`, then `finish`; a context manager that leaves no temporary files."""

    def __init__(self, folder: pathlib.Path, shape: tuple[int, ...]):
        folder.parent.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._shape = shape
        self._building = pathlib.Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            self.images = np.lib.format.open_memmap(self._building / "images.npy", "w+", np.uint8, shape)
            if hasattr(os, "posix_fallocate"):
                # Room is claimed now: a full disk met while writing into a map would kill the process.
                with open(self._building / "images.npy", "r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, os.path.getsize(file.name))
        except OSError:
            shutil.rmtree(self._building, ignore_errors=True)
            raise

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._building, ignore_errors=True)

    def finish(self, content: dict[str, Any], pool: concurrent.futures.Executor) -> None:
        """Writes the index and moves the folder in place; a damaged folder of that name is replaced."""
        self.images.flush()
        index = {"shape": list(self._shape), "hashes": row_hashes(self.images, pool), "content": content}
        (self._building / "index.json").write_text(json.dumps(index))
        os.chmod(self._building, 0o755)
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
