"""The plan: which examples, in which view, each step trains on.

A pure function of (seed, step). Each seed walks through one random permutation of the training split after another;
a batch may straddle two of them, so no example is dropped and none is seen more often than another. Or it draws every
class equally often, see `balanced`.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from kdjax.inputs import balanced

_KEPT = 4
"""Epochs that are kept of each seed; steps that are read ahead may straddle two."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Examples and views of every step.

    Attributes:
        seeds: one integer a seed, each with an order of its own.
        examples: number of training examples.
        batch_size: global batch size.
        views: size of the pool of views of an example. Each example walks through the whole pool before a view comes
            again, starting at a place drawn per seed. 0 = no pool: a fresh view every time.
        partners: whether each example is given a partner to be mixed with.
        rows: the examples to train on, as indices into the training split; None = all.
        labels: of the training split, -1 for unlabeled, where every class is drawn equally often; None = every example
            is.
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
        """The examples to train on by class, where classes are drawn equally often."""
        if self.labels is None:
            return None
        labels = np.array(self.labels)
        return balanced.strata(labels if self._rows is None else labels[self._rows])

    @functools.cached_property
    def _rows(self) -> np.ndarray | None:
        return None if self.rows is None else np.array(self.rows, np.int32)

    @functools.cached_property
    def _kept_epochs(self) -> Callable[[int, int, int], tuple[np.ndarray, ...]]:
        """`_draw_epoch`, which keeps no more than the steps that are read ahead need: one takes 8 bytes an example."""
        return functools.lru_cache(maxsize=_KEPT * len(self.seeds))(self._draw_epoch)

    def __call__(self, step: int) -> tuple[np.ndarray, ...]:
        """Example, view and place in the global batch of `step`, and partner and its view where there are partners.

        Each is int32 of shape (seed, batch).
        """
        count = self.examples if self.rows is None else len(self.rows)
        position = step * self.batch_size + np.arange(self.batch_size)
        epochs, offsets = np.divmod(position, count)
        examples = np.empty((len(self.seeds), self.batch_size), np.int32)
        views, partners, partner_views = (np.zeros_like(examples) for _ in range(3))
        for epoch in np.unique(epochs):
            here = epochs == epoch
            for row, seed in enumerate(self.seeds):
                slots = offsets[here]
                order, view, *others = self._kept_epochs(seed, int(epoch), count)
                examples[row, here], views[row, here] = order[slots], view[slots]
                if self.partners:
                    second = others[0][slots]
                    partners[row, here], partner_views[row, here] = order[second], view[second]
        if self._rows is not None:
            examples, partners = self._rows[examples], self._rows[partners]
        places = np.broadcast_to(np.arange(self.batch_size, dtype=np.int32), examples.shape)
        return (examples, views, places, partners, partner_views) if self.partners else (examples, views, places)

    def _draw_epoch(self, seed: int, epoch: int, count: int) -> tuple[np.ndarray, ...]:
        """The examples of an epoch in their order, the view of each, and their partners where there are any."""
        if self._strata is not None:
            drawn = balanced.epoch_of(seed, epoch, self._strata, self.views)
        else:
            drawn = _uniform_epoch(seed, epoch, count, self.views)
        return (*drawn, _partners(seed, epoch, count)) if self.partners else drawn


@dataclasses.dataclass(frozen=True)
class Groups:
    """Plans of several groups of arms, each with examples of its own: the arrays of a `Plan` as (seed, group, batch).

    Attributes:
        plans: one a group, of the same seeds, batch size and partners.
    """

    plans: tuple[Plan, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """One integer a seed."""
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
        """See `Plan.__call__`."""
        return tuple(np.stack(arrays, axis=1) for arrays in zip(*(plan(step) for plan in self.plans), strict=True))


def _uniform_epoch(seed: int, epoch: int, examples: int, views: int) -> tuple[np.ndarray, np.ndarray]:
    """The examples of an epoch in their order, and the view of each."""
    order = np.random.default_rng((seed, epoch, 0)).permutation(examples).astype(np.int32)
    if views == 0:
        return order, np.random.default_rng((seed, epoch, 1)).integers(2**31, size=examples).astype(np.int32)[order]
    start = np.random.default_rng((seed, 2)).integers(views, size=examples)
    return order, ((start + epoch) % views).astype(np.int32)[order]


def _partners(seed: int, epoch: int, examples: int) -> np.ndarray:
    """The partner of each draw of an epoch, as the number of another draw: each serves once."""
    return np.random.default_rng((seed, epoch, 3)).permutation(examples).astype(np.int32)
