"""Caches decoded images on disk, as a memory-mapped .npy of 8 or 16 bits with metadata beside it; no pickle.

    <cache_dir>/decoded/<key>/images.npy    (rows, S, S, channels)
                              hashes.npy    uint8 (rows, 32), the hash of each row
                              NAME.npy      further arrays
                              index.json    all other content, and a seal over everything but the pixels
    <cache_dir>/decoded/.<key>.partial      an unfinished folder, and its journal
    <cache_dir>/decoded/.<key>.writing      the lock of its writer

A folder is built under another name and renamed when complete, so a run that dies leaves nothing that looks finished.
The next writer of the same folder continues from the journaled rows whose hashes match. Meanwhile other processes wait.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from kdjax.data.rows import Rows, row_hash, row_hashes
from kdjax.errors import InputError, one_line
from kdjax.runtime import files

FORMAT = 3
_LEFTOVER_SECONDS = 7 * 86_400.0
"""How long the leftovers of an interrupted writer are kept after their last change."""

_POLL_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class CachedImages:
    """Decoded images with their metadata.

    Attributes:
        images: (rows, S, S, channels) uint8 or uint16.
        hashes: uint8 (rows, 32), see `row_hashes`.
        content: JSON data.
        arrays: name -> further array.
    """

    images: np.ndarray
    hashes: np.ndarray
    content: dict[str, Any]
    arrays: dict[str, np.ndarray]


def key_of(parts: Any) -> str:
    """The folder name (hex) for a JSON-serializable description of what is cached."""
    text = json.dumps([FORMAT, parts], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def read(folder: pathlib.Path, threads: concurrent.futures.Executor, log: Callable[[str], None]) -> CachedImages | None:
    """Reads a cache folder and maps its images; returns None if it is absent, or damaged, which is logged.

    Everything in the folder is compared with its hash once, before anything is used, because a wrong cache is worse
    than none. Rows are not checked again when they are read: in the middle of training it would be too late to decode
    a damaged one again. This pass reads one row at a time, at the speed of the disk or of SHA-256. No second pass is
    needed, because fingerprints are computed from the hashes.
    """
    if not os.path.isdir(folder):  # pathlib raises if the name is too long
        return None
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        arrays = {name: np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("hashes", *index["arrays"])}
        images = np.load(folder / "images.npy", mmap_mode="r", allow_pickle=False)
        if images.dtype not in (np.uint8, np.uint16) or images.shape != tuple(index["shape"]):
            raise ValueError(f"images.npy holds {images.dtype} {images.shape}")
        if _seal(index["shape"], index["content"], arrays) != index["seal"]:
            raise ValueError("index.json and the arrays beside it differ from their seal")
        if not np.array_equal(row_hashes(images, threads), arrays["hashes"]):
            raise ValueError("images.npy differs from hashes.npy")
        return CachedImages(images, arrays.pop("hashes"), index["content"], arrays)
    except (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError) as error:
        log(f"cache {folder} is damaged ({one_line(error, 120)}): decoding again")
        return None


@contextlib.contextmanager
def writer_lock(folder: pathlib.Path, log: Callable[[str], None]) -> Iterator[bool]:
    """Locks a folder against other writers until the block ends, and removes old leftovers of interrupted writers.

    Yields:
        Whether this writer had to wait; if so, the folder may exist by now.

    Raises:
        OSError: the cache cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock, waited = folder.with_name(f".{folder.name}.writing"), False
    while True:
        with contextlib.suppress(BlockingIOError):
            descriptor = files.lock(lock)
            with contextlib.suppress(FileNotFoundError):  # the previous holder may have just removed the lock file
                if os.path.samestat(os.fstat(descriptor), lock.stat()):
                    break
            os.close(descriptor)
        if not waited:
            log(f"cache {folder}: another process decodes these images; waiting for it")
        waited = True
        time.sleep(_POLL_SECONDS)
    try:
        _sweep(folder)
        yield waited
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _sweep(folder: pathlib.Path) -> None:
    """Removes what dead writers of other folders left behind, a week after its last change."""
    with contextlib.suppress(OSError):
        for path in folder.parent.glob(".*"):
            if path.name.startswith(f".{folder.name}.") or time.time() - _last_change(path) < _LEFTOVER_SECONDS:
                continue
            lock = path.with_suffix(".writing") if path.is_dir() else path
            with contextlib.suppress(BlockingIOError):
                descriptor = files.lock(lock)
                shutil.rmtree(path, ignore_errors=True)
                lock.unlink(missing_ok=True)
                os.close(descriptor)


def _last_change(path: pathlib.Path) -> float:
    members = path.iterdir() if path.is_dir() else ()
    return max(member.stat().st_mtime for member in (path, *members))


class ImageBuffer:
    """An array of images that is filled row by row, in memory.

    Attributes:
        images: (rows, S, S, channels), zeros in rows that were not added yet.
        hashes: uint8 (rows, 32), the hashes of the rows that were added.
        notes: row -> the JSON data noted on it; its keys are the rows that were added.
        settled: the JSON data noted on all rows, or None.
    """

    def __init__(self, images: np.ndarray):
        self.images = images
        self.hashes = np.zeros((len(images), 32), np.uint8)
        self.notes: dict[int, Any] = {}
        self.settled: Any = None

    def add(self, row: int, image: np.ndarray, note: Any) -> None:
        """Adds the image of a row, with a note on it. May be called from any thread."""
        self.images[row] = image
        self.hashes[row] = np.frombuffer(row_hash(self.images[row]), np.uint8)
        self.notes[row] = note

    def settle(self, note: Any) -> None:
        """Notes what holds for all rows from now on."""
        self.settled = note

    def finish(self, content: dict[str, Any], arrays: dict[str, np.ndarray]) -> CachedImages:
        """Returns the finished images.

        Args:
            content: JSON data.
            arrays: file name without suffix -> further array.
        """
        return CachedImages(self.images, self.hashes, content, arrays)


class Writer(ImageBuffer):
    """An image buffer in a cache folder; a context manager, to be used within `writer_lock`.

    It continues from what an interrupted writer left: those rows are in `notes` from the start. Unless it is
    interrupted itself, it leaves either the finished folder or nothing.

    Args:
        folder: the folder to create; a damaged one of that name is replaced.
        shape, dtype: shape and dtype of the images.
        threads: executor for hashing.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        shape: tuple[int, ...],
        dtype: DTypeLike,
        threads: concurrent.futures.Executor,
    ):
        self._folder, self._building = folder, folder.with_name(f".{folder.name}.partial")
        self._journaling = threading.Lock()
        try:
            images = np.load(self._building / "images.npy", mmap_mode="r+", allow_pickle=False)
            if (images.shape, images.dtype) != (shape, np.dtype(dtype)):
                raise ValueError("images of other shape")
            super().__init__(images)
            self._resume((self._building / "journal").read_text(encoding="utf-8"), threads)
        except (OSError, ValueError):
            self._begin(shape, dtype)
        self._journal = (self._building / "journal").open("a", encoding="utf-8")
        self._journal.write("\n")  # the last line of an interrupted writer may be incomplete

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._journal.close()
        if kind is None or issubclass(kind, InputError):
            shutil.rmtree(self._building, ignore_errors=True)

    def add(self, row: int, image: np.ndarray, note: Any) -> None:
        """Adds and journals a row; see `ImageBuffer.add`."""
        super().add(row, image, note)
        self._write([row, self.hashes[row].tobytes().hex(), note])

    def settle(self, note: Any) -> None:
        """Notes and journals what holds for all rows; see `ImageBuffer.settle`."""
        super().settle(note)
        self._write(["", "", note])

    def finish(self, content: dict[str, Any], arrays: dict[str, np.ndarray]) -> CachedImages:
        """Writes the index, moves the folder into place and returns its content; see `ImageBuffer.finish`."""
        missing = np.setdiff1d(np.arange(len(self.images)), np.fromiter(self.notes, np.int64, len(self.notes)))
        for row in missing.tolist():
            self.images[row] = 0
            self.hashes[row] = np.frombuffer(row_hash(self.images[row]), np.uint8)
        self.images.flush()  # type: ignore[attr-defined]
        # The content as it will be read back: tuples become lists.
        shape, content = json.loads(json.dumps([self.images.shape, content]))
        all_arrays = {"hashes": self.hashes, **arrays}
        for name, array in all_arrays.items():
            np.save(self._building / f"{name}.npy", array, allow_pickle=False)
        index = {"shape": shape, "arrays": list(arrays), "content": content, "seal": _seal(shape, content, all_arrays)}
        (self._building / "index.json").write_text(json.dumps(index), encoding="utf-8")
        self._journal.close()
        (self._building / "journal").unlink()
        replaced = None
        if self._folder.exists():
            replaced = pathlib.Path(tempfile.mkdtemp(prefix=f".{self._folder.name}-old-", dir=self._folder.parent))
            os.replace(self._folder, replaced)
        os.rename(self._building, self._folder)
        if replaced is not None:
            shutil.rmtree(replaced, ignore_errors=True)
        images = np.load(self._folder / "images.npy", mmap_mode="r", allow_pickle=False)
        return CachedImages(images, self.hashes, content, arrays)

    def _begin(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        """Creates a folder with space for all images: mapped writes to a full disk would kill the process."""
        shutil.rmtree(self._building, ignore_errors=True)
        self._building.mkdir()
        try:
            super().__init__(np.lib.format.open_memmap(self._building / "images.npy", "w+", dtype, shape))
            if hasattr(os, "posix_fallocate"):
                with open(self._building / "images.npy", "r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, os.path.getsize(file.name))
        except BaseException:
            shutil.rmtree(self._building, ignore_errors=True)
            raise

    def _resume(self, journal: str, threads: concurrent.futures.Executor) -> None:
        """Takes over the rows of a journal whose pixels still match its hashes."""
        journaled: dict[int, tuple[bytes, Any]] = {}
        for line in journal.split("\n"):
            with contextlib.suppress(ValueError, TypeError):
                row, digest, note = json.loads(line)
                if row == "":
                    self.settled = note
                elif 0 <= row < len(self.images):
                    journaled[row] = bytes.fromhex(digest), note
        rows = np.array(sorted(journaled), np.int64)
        for row, digest in zip(rows.tolist(), row_hashes(Rows((self.images,), rows), threads), strict=True):
            if digest.tobytes() == journaled[row][0]:
                self.hashes[row], self.notes[row] = digest, journaled[row][1]

    def _write(self, line: list[Any]) -> None:
        with self._journaling:
            self._journal.write(json.dumps(line) + "\n")


def _seal(shape: Any, content: Any, arrays: Mapping[str, np.ndarray]) -> str:
    """sha256 (hex) over everything in a cache folder but the pixels."""
    hasher = hashlib.sha256(json.dumps([shape, content]).encode())
    for name in sorted(arrays):
        array = arrays[name]
        hasher.update(f"{name} {array.dtype.str} {array.shape}".encode() + array.tobytes())
    return hasher.hexdigest()
