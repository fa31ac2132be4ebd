"""Epochs that draw every class equally often, whatever its number of examples.

The draws of a class are numbered through all epochs. They walk through one random permutation of its examples after
another, so the visits of its examples differ by one at most. Each visit of an example takes the next view of its pool:
a rare example is seen in all its views before one comes again, and no view is asked for that uniform draws would not.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Strata:
    """Examples by class.

    Attributes:
        classes: (n,) int of each class that has labeled examples, in the order of the classes.
        unlabeled: (n,) int, the examples without a label.
    """

    classes: tuple[np.ndarray, ...]
    unlabeled: np.ndarray

    @property
    def labeled(self) -> int:
        """Number of labeled examples."""
        return sum(map(len, self.classes))


def strata(labels: Sequence[int] | np.ndarray) -> Strata:
    """The examples by class: labels (N,) int, -1 for unlabeled."""
    given = np.asarray(labels)
    classes = tuple(np.flatnonzero(given == label) for label in np.unique(given[given >= 0]))
    return Strata(classes, np.flatnonzero(given < 0))


def most_visits(labels: Sequence[int] | np.ndarray, epochs: int) -> int:
    """The most that an example is drawn in so many epochs."""
    held = strata(labels)
    if not held.classes:
        return epochs
    draws = -(-epochs * held.labeled // len(held.classes))  # of the first class, and of another one less at most
    return max(epochs * bool(len(held.unlabeled)), -(-draws // min(map(len, held.classes))))


def epoch_of(seed: int, epoch: int, held: Strata, views: int) -> tuple[np.ndarray, np.ndarray]:
    """The examples of an epoch in their order, and the view of each.

    An epoch has as many draws as there are examples. Each unlabeled example is drawn once. The other draws go to the
    classes in turn, so that after any number of epochs their counts differ by one at most.

    Args:
        seed: of the order.
        epoch: its number.
        held: the examples by class.
        views: size of the pool of views of an example; 0 = no pool, a fresh view every time.

    Returns:
        (N,) int32 each.
    """
    count, labeled, classes = held.labeled + len(held.unlabeled), held.labeled, len(held.classes)
    examples, rounds, fresh = (np.zeros(count, np.int64) for _ in range(3))
    turn = epoch * labeled + np.arange(labeled)
    for place, members in enumerate(held.classes):
        slots = np.flatnonzero(turn % classes == place)
        cycles, offsets = np.divmod(turn[slots] // classes, len(members))
        rounds[slots] = cycles
        for cycle in np.unique(cycles):
            here = cycles == cycle
            rng = np.random.default_rng((seed, int(cycle), 4, place))
            order, drawn = rng.permutation(len(members)), rng.integers(2**31, size=len(members))
            examples[slots[here]] = members[order[offsets[here]]]
            fresh[slots[here]] = drawn[offsets[here]]
    examples[labeled:], rounds[labeled:] = held.unlabeled, epoch
    fresh[labeled:] = np.random.default_rng((seed, epoch, 1)).integers(2**31, size=count - labeled)
    shown = fresh
    if views:
        start = np.random.default_rng((seed, 2)).integers(views, size=count)
        shown = (start[examples] + rounds) % views
    order = np.random.default_rng((seed, epoch, 0)).permutation(count)
    return examples[order].astype(np.int32), shown[order].astype(np.int32)
