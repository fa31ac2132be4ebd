"""Decoded images on disk: a .npy of bytes or 16 bits to map into memory, and what is known of them; no pickle.

    <cache_dir>/decoded/<key>/images.npy    (rows, S, S, channels)
                              hashes.npy    uint8 (rows, 32), the hash of each row
                              NAME.npy      further arrays; index.json, all else, and a seal over everything but pixels
    <cache_dir>/decoded/.<key>.partial      what a writer has made so far, and its journal
    <cache_dir>/decoded/.<key>.writing      the lock of that writer

A folder is built under another name and renamed when complete, so a run that dies leaves nothing that looks finished.
The next writer of the same folder goes on from the rows in the journal whose hashes agree. Other processes wait for the
one that writes.
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
from kdjax.errors import InputError, reason
from kdjax.runtime import files

FORMAT = 3
_KEPT_SECONDS = 7 * 86_400.0
"""How long what an interrupted writer left is kept, counted from its last change."""

_POLL_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Stored:
    """Decoded images, and what is known of them.

    Attributes:
        images: (rows, S, S, channels) uint8 or uint16.
        hashes: uint8 (rows, 32), see `row_hashes`.
        content: JSON data.
        arrays: by their names.
    """

    images: np.ndarray
    hashes: np.ndarray
    content: dict[str, Any]
    arrays: dict[str, np.ndarray]


def key_of(parts: Any) -> str:
    """A folder name (hex) for the JSON-serializable description of what is cached."""
    text = json.dumps([FORMAT, parts], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def read(folder: pathlib.Path, threads: concurrent.futures.Executor, log: Callable[[str], None]) -> Stored | None:
    """What a folder holds, its images mapped, or None where it is absent or damaged (then that is logged).

    Every row and all else are compared with their hashes, once, before anything is used: a cache that lies is worse
    than none. A row that was found damaged in the middle of training could not be decoded again without other rows
    having been trained on in between, so rows are not checked when they are read. The pass takes a row at a time, runs
    at the speed of the disk or of SHA-256, and needs no second one: fingerprints are made of the hashes.
    """
    if not os.path.isdir(folder):  # the name may be too long to ask pathlib
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
        return Stored(images, arrays.pop("hashes"), index["content"], arrays)
    except (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError) as error:
        log(f"cache {folder} is damaged ({reason(error, 120)}): decoding again")
        return None


@contextlib.contextmanager
def alone(folder: pathlib.Path, log: Callable[[str], None]) -> Iterator[bool]:
    """Keeps other writers of a folder waiting until the block ends, and sweeps what others left long ago.

    Gives whether this one had to wait: then the folder may be there by now.

    Raises:
        OSError: the cache cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock, waited = folder.with_name(f".{folder.name}.writing"), False
    while True:
        with contextlib.suppress(BlockingIOError):
            held = files.lock(lock)
            with contextlib.suppress(FileNotFoundError):  # the one who held it may have removed it just now
                if os.path.samestat(os.fstat(held), lock.stat()):
                    break
            os.close(held)
        if not waited:
            log(f"cache {folder}: another process decodes these images; waiting for it")
        waited = True
        time.sleep(_POLL_SECONDS)
    try:
        _sweep(folder)
        yield waited
    finally:
        lock.unlink(missing_ok=True)
        os.close(held)


def _sweep(folder: pathlib.Path) -> None:
    """Removes what writers of other folders left that are gone, a week after its last change."""
    with contextlib.suppress(OSError):
        for place in folder.parent.glob(".*"):
            if place.name.startswith(f".{folder.name}.") or time.time() - _touched(place) < _KEPT_SECONDS:
                continue
            lock = place.with_suffix(".writing") if place.is_dir() else place
            with contextlib.suppress(BlockingIOError):
                held = files.lock(lock)
                shutil.rmtree(place, ignore_errors=True)
                lock.unlink(missing_ok=True)
                os.close(held)


def _touched(place: pathlib.Path) -> float:
    inside = place.iterdir() if place.is_dir() else ()
    return max(path.stat().st_mtime for path in (place, *inside))


class Filling:
    """Images that are being made, in memory.

    Attributes:
        images: (rows, S, S, channels), zeros where nothing was added yet.
        hashes: uint8 (rows, 32), of the rows that were added.
        notes: what was said of each row that is done, JSON data.
        settled: what was said of all rows, JSON data, or None.
    """

    def __init__(self, images: np.ndarray):
        self.images = images
        self.hashes = np.zeros((len(images), 32), np.uint8)
        self.notes: dict[int, Any] = {}
        self.settled: Any = None

    def add(self, row: int, image: np.ndarray, note: Any) -> None:
        """Puts an image into a row that had none, with a note on it. From any thread."""
        self.images[row] = image
        self.hashes[row] = np.frombuffer(row_hash(self.images[row]), np.uint8)
        self.notes[row] = note

    def settle(self, note: Any) -> None:
        """Notes what holds for all rows that follow."""
        self.settled = note

    def finish(self, content: dict[str, Any], arrays: dict[str, np.ndarray]) -> Stored:
        """What was made.

        Args:
            content: JSON data.
            arrays: by names that files can have.
        """
        return Stored(self.images, self.hashes, content, arrays)


class Writer(Filling):
    """Images that are being made in a cache folder; a context manager, inside of `alone`.

    It goes on from what an interrupted one left: those rows are in `notes` already. Unless it is interrupted itself, it
    leaves the finished folder or nothing.

    Args:
        folder: what to make; a damaged one of that name is replaced.
        shape, dtype: of the images.
        threads: for hashing.

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
        self._journal.write("\n")  # the last line may be torn

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._journal.close()
        if kind is None or issubclass(kind, InputError):
            shutil.rmtree(self._building, ignore_errors=True)

    def add(self, row: int, image: np.ndarray, note: Any) -> None:
        """See `Filling.add`."""
        super().add(row, image, note)
        self._write([row, self.hashes[row].tobytes().hex(), note])

    def settle(self, note: Any) -> None:
        """See `Filling.settle`."""
        super().settle(note)
        self._write(["", "", note])

    def finish(self, content: dict[str, Any], arrays: dict[str, np.ndarray]) -> Stored:
        """Writes the index, moves the folder in place, and gives what it holds; see `Filling.finish`."""
        missing = np.setdiff1d(np.arange(len(self.images)), np.fromiter(self.notes, np.int64, len(self.notes)))
        for row in missing.tolist():
            self.images[row] = 0
            self.hashes[row] = np.frombuffer(row_hash(self.images[row]), np.uint8)
        self.images.flush()  # type: ignore[attr-defined]
        # As it will be read: tuples become lists.
        shape, content = json.loads(json.dumps([self.images.shape, content]))
        held = {"hashes": self.hashes, **arrays}
        for name, array in held.items():
            np.save(self._building / f"{name}.npy", array, allow_pickle=False)
        index = {"shape": shape, "arrays": list(arrays), "content": content, "seal": _seal(shape, content, held)}
        (self._building / "index.json").write_text(json.dumps(index), encoding="utf-8")
        self._journal.close()
        (self._building / "journal").unlink()
        old = None
        if self._folder.exists():
            old = pathlib.Path(tempfile.mkdtemp(prefix=f".{self._folder.name}-old-", dir=self._folder.parent))
            os.replace(self._folder, old)
        os.rename(self._building, self._folder)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
        images = np.load(self._folder / "images.npy", mmap_mode="r", allow_pickle=False)
        return Stored(images, self.hashes, content, arrays)

    def _begin(self, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        """An empty folder with room for all images: a full disk met while writing into a map would kill the process."""
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
        """Takes over the rows of a journal whose pixels have the hashes that it says."""
        said: dict[int, tuple[bytes, Any]] = {}
        for line in journal.split("\n"):
            with contextlib.suppress(ValueError, TypeError):
                row, digest, note = json.loads(line)
                if row == "":
                    self.settled = note
                elif 0 <= row < len(self.images):
                    said[row] = bytes.fromhex(digest), note
        rows = np.array(sorted(said), np.int64)
        for row, digest in zip(rows.tolist(), row_hashes(Rows((self.images,), rows), threads), strict=True):
            if digest.tobytes() == said[row][0]:
                self.hashes[row], self.notes[row] = digest, said[row][1]

    def _write(self, line: list[Any]) -> None:
        with self._journaling:
            self._journal.write(json.dumps(line) + "\n")


def _seal(shape: Any, content: Any, arrays: Mapping[str, np.ndarray]) -> str:
    total = hashlib.sha256(json.dumps([shape, content]).encode())
    for name in sorted(arrays):
        array = arrays[name]
        total.update(f"{name} {array.dtype.str} {array.shape}".encode() + array.tobytes())
    return total.hexdigest()
