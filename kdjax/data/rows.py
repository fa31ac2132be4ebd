"""Rows of arrays in files: a split is a selection of rows, which are read only when they are indexed."""

from __future__ import annotations

import concurrent.futures
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

_ROWS_AT_ONCE = 64


class Rows:
    """Selected rows (N, …) of one or several arrays, which may be mapped from files.

    Indexing works along the first axis like in NumPy, by an integer, a slice, a mask or an array of integers. It reads
    the rows into a new array. `np.asarray` reads all rows. Other rows are not read, and nothing is cached.

    Args:
        arrays: arrays (n, …) with the same dtype and row shape.
        places: int (N,), the selected rows, numbered through all arrays; None = all rows in order.
        view: function that changes a block (n, …) when it is read, such as a selection of bands; None = unchanged.
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
        """Wraps an array as rows; returns rows unchanged."""
        return images if isinstance(images, Rows) else cls((images,))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that all rows take when read into memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> np.ndarray:
        if isinstance(index, tuple):
            raise TypeError("rows are indexed along their first axis alone")
        places = self._places[index]
        flat = places.reshape(-1)
        rows = self._read(flat)
        if self._view is not None:
            rows = np.ascontiguousarray(self._view(rows))
        return rows.reshape(*places.shape, *self.shape[1:])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[number] for number in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("rows cannot be had without reading them")
        return self[:] if dtype is None else self[:].astype(dtype, copy=False)

    def select(self, chosen: np.ndarray | slice) -> Rows:
        """Selects rows by integers, a mask or a slice, in that order; nothing is read."""
        return Rows(self._arrays, self._places[chosen], self._view)

    def viewed(self, view: Callable[[np.ndarray], np.ndarray]) -> Rows:
        """The same rows, changed by `view` (see the class) when they are read."""
        inner = self._view
        return Rows(self._arrays, self._places, view if inner is None else lambda block: view(inner(block)))

    def followed_by(self, other: Rows) -> Rows:
        """Concatenates these rows and those of `other`; neither may have a view."""
        if self._view is not None or other._view is not None:
            raise ValueError("only rows as they are stored follow each other")
        places = np.concatenate([self._places, self._ends[-1] + other._places])
        return Rows((*self._arrays, *other._arrays), places)

    def _read(self, places: np.ndarray) -> np.ndarray:
        """Copies rows, by their numbers (n,) through all arrays, without the view."""
        if len(self._arrays) == 1:
            return np.asarray(self._arrays[0][places])
        rows = np.empty((len(places), *self._arrays[0].shape[1:]), self._arrays[0].dtype)
        source = np.searchsorted(self._ends, places, side="right")
        for number in np.unique(source):
            in_array, array = source == number, self._arrays[number]
            rows[in_array] = array[places[in_array] - (self._ends[number] - len(array))]
        return rows


Images = Rows | np.ndarray
"""Images (N, S, S, channels), uint8 or uint16, which may be mapped from files."""


def row_hash(row: np.ndarray) -> bytes:
    """sha256 of a row's values."""
    return hashlib.sha256(np.ascontiguousarray(row).data).digest()


def row_hashes(rows: Images, threads: concurrent.futures.Executor | None = None) -> np.ndarray:
    """sha256 of each row's values, uint8 (N, 32); rows are read one at a time."""
    hashes = np.empty((len(rows), 32), np.uint8)

    def hash_block(start: int) -> None:
        for number in range(start, min(start + _ROWS_AT_ONCE, len(rows))):
            hashes[number] = np.frombuffer(row_hash(rows[number]), np.uint8)

    for _ in (threads.map if threads else map)(hash_block, range(0, len(rows), _ROWS_AT_ONCE)):
        pass
    return hashes
