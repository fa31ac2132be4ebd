"""Epochs that draw every class equally often, whatever its number of examples.

The draws of a class are counted through all epochs. They go through one random permutation of its examples after
another, so the numbers of visits of its examples differ by at most one. Each visit of an example takes the next view of
its pool. So a rare example is seen in all its views before one is repeated, and no views beyond the pool are needed.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Strata:
    """The indices of the examples of each class.

    Attributes:
        classes: (n,) int for each class that has labeled examples, in the order of the classes.
        unlabeled: (n,) int, the examples without a label.
    """

    classes: tuple[np.ndarray, ...]
    unlabeled: np.ndarray

    @property
    def labeled(self) -> int:
        """Number of labeled examples."""
        return sum(map(len, self.classes))


def strata(labels: Sequence[int] | np.ndarray) -> Strata:
    """Groups examples by class, given their labels (N,) int, -1 for unlabeled."""
    array = np.asarray(labels)
    classes = tuple(np.flatnonzero(array == label) for label in np.unique(array[array >= 0]))
    return Strata(classes, np.flatnonzero(array < 0))


def most_visits(labels: Sequence[int] | np.ndarray, epochs: int) -> int:
    """Returns an upper bound on how often any example is drawn in `epochs` epochs."""
    by_class = strata(labels)
    if not by_class.classes:
        return epochs
    draws = -(-epochs * by_class.labeled // len(by_class.classes))  # of the first class; others have at most one less
    return max(epochs * bool(len(by_class.unlabeled)), -(-draws // min(map(len, by_class.classes))))


def draw_epoch(seed: int, epoch: int, by_class: Strata, views: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws the examples of an epoch in their order, and the view of each.

    An epoch has as many draws as there are examples. Each unlabeled example is drawn once. The other draws go to the
    classes in turn, so that after any number of epochs their counts differ by at most one.

    Args:
        seed: seed of the order.
        epoch: number of the epoch.
        by_class: the examples by class.
        views: size of the pool of views of an example; 0 = no pool, a fresh view every time.

    Returns:
        Indices of the examples and numbers of the views, (N,) int32 each.
    """
    count, labeled, classes = by_class.labeled + len(by_class.unlabeled), by_class.labeled, len(by_class.classes)
    examples, rounds, fresh = (np.zeros(count, np.int64) for _ in range(3))
    turn = epoch * labeled + np.arange(labeled)
    for place, members in enumerate(by_class.classes):
        slots = np.flatnonzero(turn % classes == place)
        cycles, offsets = np.divmod(turn[slots] // classes, len(members))
        rounds[slots] = cycles
        for cycle in np.unique(cycles):
            in_cycle = cycles == cycle
            rng = np.random.default_rng((seed, int(cycle), 4, place))
            order, fresh_views = rng.permutation(len(members)), rng.integers(2**31, size=len(members))
            examples[slots[in_cycle]] = members[order[offsets[in_cycle]]]
            fresh[slots[in_cycle]] = fresh_views[offsets[in_cycle]]
    examples[labeled:], rounds[labeled:] = by_class.unlabeled, epoch
    fresh[labeled:] = np.random.default_rng((seed, epoch, 1)).integers(2**31, size=count - labeled)
    view_numbers = fresh
    if views:
        start = np.random.default_rng((seed, 2)).integers(views, size=count)
        view_numbers = (start[examples] + rounds) % views
    order = np.random.default_rng((seed, epoch, 0)).permutation(count)
    return examples[order].astype(np.int32), view_numbers[order].astype(np.int32)
