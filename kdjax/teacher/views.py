"""Lazy arrays of teacher outputs for every view of every example, which read from disk only what is indexed."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kdjax.data.rows import Rows


class Views:
    """A lazy array (views, examples, n), indexed by a pair of int arrays [views, examples] that broadcast.

    Indexing reads only those rows, `np.asarray` reads all.

    Args:
        views: for each view, the rows (examples, n) of each teacher; the result is the mean over the teachers.
    """

    def __init__(self, views: Sequence[Sequence[Rows]]):
        self._views = tuple(map(tuple, views))
        first = self._views[0][0]
        self.shape, self.dtype = (len(self._views), *first.shape), first.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        views, examples = np.broadcast_arrays(*indices)
        values = np.empty((*views.shape, self.shape[-1]), self.dtype)
        for view in np.unique(views):
            in_view = views == view
            values[in_view] = self._mean_of_teachers(view, examples[in_view])
        return values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = np.stack([self._mean_of_teachers(view, slice(None)) for view in range(len(self._views))])
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def _mean_of_teachers(self, view: int, examples: Any) -> np.ndarray:
        parts = [rows[examples] for rows in self._views[view]]
        return np.mean(parts, axis=0) if len(parts) > 1 else parts[0]


class MeanOfViews:
    """A lazy array (1, examples, n) that is indexed like `Views` and holds the mean over all views.

    Every view index gives that mean.

    Args:
        views: an array (views, examples, n), or `Views`.
    """

    def __init__(self, views: Views | np.ndarray):
        self._views, self.shape, self.dtype = views, (1, *views.shape[1:]), views.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        _, examples = np.broadcast_arrays(*indices)
        all_views = np.arange(len(self._views)).reshape(-1, *[1] * examples.ndim)
        return self._views[all_views, examples].mean(0)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = np.asarray(self._views).mean(0, keepdims=True)
        return whole if dtype is None else whole.astype(dtype, copy=False)
