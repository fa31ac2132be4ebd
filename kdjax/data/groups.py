"""Groups of images that stay on one side of a split, and how they are dealt out: whole, and stratified by class.

Identical images are one group, and so are tiles of one place and, where asked for, images that are nearly the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence

import numpy as np


def connected(*keys: Sequence[Hashable], pairs: Iterable[tuple[int, int]] = ()) -> np.ndarray:
    """Groups of examples that share a key or are a pair, directly or through others.

    Args:
        *keys: of N examples each; the key None is shared with nobody.
        pairs: numbers of examples.

    Returns:
        (N,) int64, numbers of the groups in the order of their first examples.
    """
    from scipy.sparse import coo_array  # takes a while, and predictions and maps have no use for it
    from scipy.sparse.csgraph import connected_components

    edges = list(pairs)
    for key in keys:
        first: dict[Hashable, int] = {}
        edges += [(first.setdefault(value, number), number) for number, value in enumerate(key) if value is not None]
    rows, columns = np.array(edges, int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(edges)), (rows, columns)), (len(keys[0]), len(keys[0])))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def deal(groups: np.ndarray, labels: np.ndarray, shares: Sequence[float], *, purpose: str, seed: int) -> np.ndarray:
    """Deals whole groups out to parts, so that each part gets about its share of every class.

    Large groups go first, by their size times a factor of 1/4 to 1 that sha256(purpose, seed, number) draws: by size
    alone, every seed would deal groups of unlike sizes in the same way. Each goes where the counts by class come
    nearest to what they should be. Every part gets a group where there are enough.

    Args:
        groups: (N,) int, the group of each example.
        labels: (N,) int, the class of each example; −1, no class, counts for nothing. Each group has one with a class.
        shares: of the parts, above 0; they add up to 1.
        purpose: what is dealt, so that other deals of one seed differ.
        seed: data seed.

    Returns:
        (N,) int, the part of each example.

    Raises:
        ValueError: there are fewer groups than parts.
    """
    numbers = np.unique(groups)
    if len(numbers) < len(shares):
        raise ValueError(f"{len(numbers)} groups for {len(shares)} parts")
    classes = int(labels.max(initial=0)) + 1
    held = labels >= 0
    counts = np.zeros((int(groups.max()) + 1, classes))
    np.add.at(counts, (groups[held], labels[held]), 1)
    total = np.maximum(counts.sum(0), 1)
    wanted = np.asarray(shares)[:, None] * total
    size = counts.sum(1).astype(int).tolist()
    # Whole numbers, so that the order is the same on every machine.
    drawn = {n: int.from_bytes(hashlib.sha256(f"{purpose}/{seed}/{n}".encode()).digest()) for n in numbers.tolist()}
    order = sorted(drawn, key=lambda n: (-size[n] * (4 * 2**256 - 3 * drawn[n]), n))
    have, part_of = np.zeros_like(wanted), np.zeros(len(counts), int)
    empty = set(range(len(shares)))
    for place, number in enumerate(order):
        after = have + counts[number]
        # Deviations are in shares of a class, so that a rare class weighs as much as a common one.
        worse = (np.square((after - wanted) / total) - np.square((have - wanted) / total)).sum(1)
        choices = sorted(empty) if len(empty) >= len(order) - place else range(len(shares))
        part = min(choices, key=lambda one: (worse[one] / shares[one], one))
        have[part] += counts[number]
        part_of[number] = part
        empty.discard(part)
    return part_of[groups]
