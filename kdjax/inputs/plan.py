"""The plan: which examples, in which views, each step trains on.

The plan is a pure function of (seed, step). Each seed goes through one random permutation of the training split after
another. A batch may span two of them, so no example is dropped and none is seen more often than another. Alternatively,
a plan draws every class equally often, see `balanced`.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from kdjax.inputs import balanced

_CACHED_EPOCHS = 4
"""Number of epochs that are cached for each seed; steps that are read ahead may span two."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """The examples and views of every step.

    Attributes:
        seeds: the seeds; each has its own order.
        examples: number of training examples.
        batch_size: global batch size.
        views: size of the pool of views of an example. Each example goes through the whole pool before a view is
            repeated, starting at a place drawn per seed. 0 = no pool: a fresh view every time.
        partners: whether each example gets a partner to be mixed with.
        rows: the examples to train on, as indices into the training split; None = all.
        labels: labels of the training split, -1 for unlabeled, to draw every class equally often; None = every example
            equally often.
    """

    seeds: tuple[int, ...]
    examples: int
    batch_size: int
    views: int
    partners: bool = False
    rows: tuple[int, ...] | None = None
    labels: tuple[int, ...] | None = None

    @functools.cached_property
    def _strata(self) -> balanced.Strata | None:
        """The examples to train on by class, if classes are drawn equally often; else None."""
        if self.labels is None:
            return None
        labels = np.array(self.labels)
        return balanced.strata(labels if self._rows is None else labels[self._rows])

    @functools.cached_property
    def _rows(self) -> np.ndarray | None:
        return None if self.rows is None else np.array(self.rows, np.int32)

    @functools.cached_property
    def _cached_epoch(self) -> Callable[[int, int, int], tuple[np.ndarray, ...]]:
        """`_draw_epoch` with a cache. It is small, because an epoch takes 8 bytes per example."""
        return functools.lru_cache(maxsize=_CACHED_EPOCHS * len(self.seeds))(self._draw_epoch)

    def __call__(self, step: int) -> tuple[np.ndarray, ...]:
        """Returns examples, views and places in the global batch for `step`, and with partners these and their views.

        Each array is int32 of shape (seed, batch).
        """
        count = self.examples if self.rows is None else len(self.rows)
        position = step * self.batch_size + np.arange(self.batch_size)
        epochs, offsets = np.divmod(position, count)
        examples = np.empty((len(self.seeds), self.batch_size), np.int32)
        views, partners, partner_views = (np.zeros_like(examples) for _ in range(3))
        for epoch in np.unique(epochs):
            in_epoch = epochs == epoch
            for row, seed in enumerate(self.seeds):
                slots = offsets[in_epoch]
                order, view, *pairing = self._cached_epoch(seed, int(epoch), count)
                examples[row, in_epoch], views[row, in_epoch] = order[slots], view[slots]
                if self.partners:
                    paired = pairing[0][slots]
                    partners[row, in_epoch], partner_views[row, in_epoch] = order[paired], view[paired]
        if self._rows is not None:
            examples, partners = self._rows[examples], self._rows[partners]
        places = np.broadcast_to(np.arange(self.batch_size, dtype=np.int32), examples.shape)
        return (examples, views, places, partners, partner_views) if self.partners else (examples, views, places)

    def _draw_epoch(self, seed: int, epoch: int, count: int) -> tuple[np.ndarray, ...]:
        """Draws the examples of an epoch in their order, the view of each, and their partners if there are any."""
        if self._strata is not None:
            draws = balanced.draw_epoch(seed, epoch, self._strata, self.views)
        else:
            draws = _uniform_epoch(seed, epoch, count, self.views)
        return (*draws, _partners(seed, epoch, count)) if self.partners else draws


@dataclasses.dataclass(frozen=True)
class Groups:
    """The plans of several groups of arms that train on different examples; arrays are (seed, group, batch).

    Attributes:
        plans: one plan per group, with the same seeds, batch size and partners.
    """

    plans: tuple[Plan, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of every plan."""
        return self.plans[0].seeds

    @property
    def examples(self) -> int:
        """Number of training examples."""
        return self.plans[0].examples

    @property
    def batch_size(self) -> int:
        """Global batch size of each group."""
        return self.plans[0].batch_size

    def __call__(self, step: int) -> tuple[np.ndarray, ...]:
        """Returns the arrays of `Plan.__call__`, as (seed, group, batch)."""
        return tuple(np.stack(arrays, axis=1) for arrays in zip(*(plan(step) for plan in self.plans), strict=True))


def _uniform_epoch(seed: int, epoch: int, examples: int, views: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws the examples of an epoch in their order, and the view of each."""
    order = np.random.default_rng((seed, epoch, 0)).permutation(examples).astype(np.int32)
    if views == 0:
        return order, np.random.default_rng((seed, epoch, 1)).integers(2**31, size=examples).astype(np.int32)[order]
    start = np.random.default_rng((seed, 2)).integers(views, size=examples)
    return order, ((start + epoch) % views).astype(np.int32)[order]


def _partners(seed: int, epoch: int, examples: int) -> np.ndarray:
    """Draws the partner of each draw of an epoch, as the number of a draw; every draw is a partner once."""
    return np.random.default_rng((seed, epoch, 3)).permutation(examples).astype(np.int32)
