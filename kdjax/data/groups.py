"""Forms groups of images that stay on one side of a split, and deals them out whole, stratified by class.

Identical images form a group, and so do the tiles of one place and, if requested, near-duplicates.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence

import numpy as np


def connected_groups(*keys: Sequence[Hashable], pairs: Iterable[tuple[int, int]] = ()) -> np.ndarray:
    """Groups examples that share a key or form a pair, directly or through other examples.

    Args:
        *keys: sequences of N keys, one for each example; None matches no other key.
        pairs: indices of two examples each.

    Returns:
        (N,) int64, the group of each example, numbered in the order of their first examples.
    """
    from scipy.sparse import coo_array  # a slow import that predictions and maps do not need
    from scipy.sparse.csgraph import connected_components

    edges = list(pairs)
    for key in keys:
        first: dict[Hashable, int] = {}
        edges += [(first.setdefault(value, number), number) for number, value in enumerate(key) if value is not None]
    rows, columns = np.array(edges, int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(edges)), (rows, columns)), (len(keys[0]), len(keys[0])))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def deal(groups: np.ndarray, labels: np.ndarray, shares: Sequence[float], *, purpose: str, seed: int) -> np.ndarray:
    """Deals whole groups out to parts so that each part gets about its share of every class.

    Large groups are dealt first, ordered by their size times a random factor of 1/4 to 1 from sha256(purpose, seed,
    number); by size alone, every seed would deal groups of different sizes in the same way. Each group goes to the part
    whose class counts it brings closest to their targets. Every part gets at least one group.

    Args:
        groups: (N,) int, the group of each example.
        labels: (N,) int, the class of each example; -1 (unlabeled) does not count. Each group has a labeled example.
        shares: the share of each part, above 0, adding up to 1.
        purpose: a word that makes deals with the same seed independent.
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
    is_labeled = labels >= 0
    counts = np.zeros((int(groups.max()) + 1, classes))
    np.add.at(counts, (groups[is_labeled], labels[is_labeled]), 1)
    totals = np.maximum(counts.sum(0), 1)
    targets = np.asarray(shares)[:, None] * totals
    size = counts.sum(1).astype(int).tolist()
    # Integers rather than floats, so that the order is the same on every machine.
    draws = {n: int.from_bytes(hashlib.sha256(f"{purpose}/{seed}/{n}".encode()).digest()) for n in numbers.tolist()}
    order = sorted(draws, key=lambda n: (-size[n] * (4 * 2**256 - 3 * draws[n]), n))
    current, part_of = np.zeros_like(targets), np.zeros(len(counts), int)
    empty = set(range(len(shares)))
    for position, number in enumerate(order):
        enlarged = current + counts[number]
        # Deviations are relative to the class's total, so that a rare class weighs as much as a common one.
        costs = (np.square((enlarged - targets) / totals) - np.square((current - targets) / totals)).sum(1)
        choices = sorted(empty) if len(empty) >= len(order) - position else range(len(shares))
        part = min(choices, key=lambda candidate: (costs[candidate] / shares[candidate], candidate))
        current[part] += counts[number]
        part_of[number] = part
        empty.discard(part)
    return part_of[groups]
