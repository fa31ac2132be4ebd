"""What teachers say of every view of every example, as arrays on disk that are read where they are asked for."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kdjax.data.rows import Rows


class Views:
    """An array (views, examples, n), of which a pair of indices [views, examples] (int, of one shape) reads its part.

    `np.asarray` reads all.

    Args:
        views: of each view the rows (examples, n) of each teacher; of several teachers the mean is taken.
    """

    def __init__(self, views: Sequence[Sequence[Rows]]):
        self._views = tuple(map(tuple, views))
        first = self._views[0][0]
        self.shape, self.dtype = (len(self._views), *first.shape), first.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, place: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        views, examples = np.broadcast_arrays(*place)
        found = np.empty((*views.shape, self.shape[-1]), self.dtype)
        for view in np.unique(views):
            here = views == view
            found[here] = self._of(view, examples[here])
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = np.stack([self._of(view, slice(None)) for view in range(len(self._views))])
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def _of(self, view: int, examples: Any) -> np.ndarray:
        parts = [rows[examples] for rows in self._views[view]]
        return np.mean(parts, axis=0) if len(parts) > 1 else parts[0]


class MeanOfViews:
    """An array like `Views` of a single view (1, examples, n): the mean over all of them, whichever is asked for.

    Args:
        views: an array (views, examples, n), or `Views`.
    """

    def __init__(self, views: Views | np.ndarray):
        self._views, self.shape, self.dtype = views, (1, *views.shape[1:]), views.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, place: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        _, examples = np.broadcast_arrays(*place)
        every = np.arange(len(self._views)).reshape(-1, *[1] * examples.ndim)
        return self._views[every, examples].mean(0)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = np.asarray(self._views).mean(0, keepdims=True)
        return whole if dtype is None else whole.astype(dtype, copy=False)
