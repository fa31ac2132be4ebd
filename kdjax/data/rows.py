"""Rows of arrays that lie in files: a split of images is a choice of rows, read where they are asked for."""

from __future__ import annotations

import concurrent.futures
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

_BLOCK = 64  # rows


class Rows:
    """Rows (N, …) of one or several arrays, which may be mapped from files.

    Indexed along the first axis, as an array of NumPy, by an integer, a slice, a mask or integers (…): that reads, and
    gives an array of its own. `np.asarray` reads all. What is not asked for is not read, and nothing is kept.

    Args:
        arrays: (n, …) each, of one dtype and with equal rows.
        places: int (N,), the rows by their numbers through all arrays; None = all in their order.
        view: how a block (n, …) is changed when it is read, such as a choice of bands; None = not.
    """

    def __init__(
        self,
        arrays: Sequence[np.ndarray],
        places: np.ndarray | None = None,
        view: Callable[[np.ndarray], np.ndarray] | None = None,
    ):
        self._arrays = tuple(arrays)
        self._ends = np.cumsum([len(array) for array in self._arrays])
        self._places = np.arange(self._ends[-1]) if places is None else np.asarray(places, np.int64)
        self._view = view
        empty = self._arrays[0][:0]
        if any((array.dtype, array.shape[1:]) != (empty.dtype, empty.shape[1:]) for array in self._arrays):
            raise ValueError("rows of unlike dtypes or shapes")
        empty = empty if view is None else view(empty)
        self.dtype: np.dtype = empty.dtype
        self.shape: tuple[int, ...] = (len(self._places), *empty.shape[1:])

    @classmethod
    def of(cls, images: Images) -> Rows:
        """The same as rows, where it is not."""
        return images if isinstance(images, Rows) else cls((images,))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that all rows would take in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> np.ndarray:
        if isinstance(index, tuple):
            raise TypeError("rows are indexed along their first axis alone")
        places = self._places[index]
        flat = places.reshape(-1)
        read = self._read(flat)
        if self._view is not None:
            read = np.ascontiguousarray(self._view(read))
        return read.reshape(*places.shape, *self.shape[1:])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[number] for number in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("rows cannot be had without reading them")
        return self[:] if dtype is None else self[:].astype(dtype, copy=False)

    def select(self, chosen: np.ndarray | slice) -> Rows:
        """The rows that an index, mask or slice chooses, in its order; nothing is read."""
        return Rows(self._arrays, self._places[chosen], self._view)

    def viewed(self, view: Callable[[np.ndarray], np.ndarray]) -> Rows:
        """The same rows, changed by `view` (see the class) when they are read."""
        before = self._view
        return Rows(self._arrays, self._places, view if before is None else lambda block: view(before(block)))

    def followed_by(self, other: Rows) -> Rows:
        """These rows and then those of another, which no view may change."""
        if self._view is not None or other._view is not None:
            raise ValueError("only rows as they are stored follow each other")
        places = np.concatenate([self._places, self._ends[-1] + other._places])
        return Rows((*self._arrays, *other._arrays), places)

    def _read(self, places: np.ndarray) -> np.ndarray:
        """Copies of rows, by their numbers through all arrays (n,)."""
        if len(self._arrays) == 1:
            return np.asarray(self._arrays[0][places])
        found = np.empty((len(places), *self._arrays[0].shape[1:]), self._arrays[0].dtype)
        source = np.searchsorted(self._ends, places, side="right")
        for number in np.unique(source):
            here, array = source == number, self._arrays[number]
            found[here] = array[places[here] - (self._ends[number] - len(array))]
        return found


Images = Rows | np.ndarray
"""(N, S, S, channels) uint8 or uint16, which may lie in files."""


def row_hash(row: np.ndarray) -> bytes:
    """sha256 of the values of a row."""
    return hashlib.sha256(np.ascontiguousarray(row).data).digest()


def row_hashes(rows: Images, threads: concurrent.futures.Executor | None = None) -> np.ndarray:
    """sha256 of the values of every row, uint8 (N, 32), read a row at a time."""
    found = np.empty((len(rows), 32), np.uint8)

    def block(start: int) -> None:
        for number in range(start, min(start + _BLOCK, len(rows))):
            found[number] = np.frombuffer(row_hash(rows[number]), np.uint8)

    for _ in (threads.map if threads else map)(block, range(0, len(rows), _BLOCK)):
        pass
    return found
