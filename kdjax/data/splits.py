"""Train, validation and test: stratified, seeded, identical images on one side, labels hidden on request.

The order inside a class is the order of sha256(seed, name). It depends on nothing else: not on the versions of
libraries, not on the other classes, and an image added later leaves the others where they were in that order.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import os
import pathlib
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np

from kdjax.data.dataset import Pool
from kdjax.data.groups import deal
from kdjax.errors import InputError, listed, reason

SIDES = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Assignment:
    """Indices (int64) of the examples on each side, ascending; notes; whether the seed drew the test split."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    notes: tuple[str, ...]
    test_drawn: bool


def ranked(purpose: str, seed: int, names: Sequence[str], indices: Sequence[int]) -> list[int]:
    """`indices` in the order of sha256(purpose, seed, name): a shuffle that needs no generator."""
    return sorted(
        indices,
        key=lambda i: hashlib.sha256(f"{purpose}/{seed}/{names[i]}".encode("utf-8", "surrogateescape")).digest(),
    )


def assign(pool: Pool, *, test_fraction: float, validation_fraction: float, seed: int) -> Assignment:
    """Splits examples, stratified by class.

    Official sides are kept. A missing test split is carved from the training part, then a missing validation split
    from what remains. Examples with equal digests go to one side together; where official splits share an image, it
    is dropped from train first, then from validation.

    Args:
        pool: names, labels (an example without one can only be in train), digests, official sides and classes.
        test_fraction: of all examples of a class, in (0, 1), used where there is no official test split.
        validation_fraction: of the part that is not test, in (0, 1), used where there is no official validation split.
        seed: data seed.

    Returns:
        Which examples are on which side.

    Raises:
        InputError: a class is too small to be split, or has no training example.
    """
    labels, digests, names = np.asarray(pool.labels), pool.digests, pool.names
    side = np.array([s or "train" for s in pool.sides], dtype="<U10")
    notes = []
    unlabeled_held = (labels < 0) & (side != "train")
    if unlabeled_held.any():
        notes.append(f"{unlabeled_held.sum()} validation or test examples without a label left out")
        side[unlabeled_held] = ""
    doubtful = _contradictions(side, pool)
    notes += _drop_shared(side, digests)
    has = {s: bool((side == s).any()) for s in SIDES}
    carve = [s for s in ("test", "validation") if not has[s]]
    if carve and any(pool.sides):
        notes.append(f"no official {' and no official '.join(carve)} split: carved from train")
    # Identical images move as one; a group belongs to the class of its first member.
    groups: dict[str, list[int]] = {}
    for i in sorted(np.flatnonzero(side == "train"), key=lambda i: names[i]):
        if labels[i] >= 0:
            groups.setdefault(digests[i], []).append(int(i))
    if carve:
        notes += _describe_groups(groups)
    for c, class_name in enumerate(pool.classes):
        first = {members[0]: members for members in groups.values() if labels[members[0]] == c}
        order = ranked("split", seed, names, list(first))
        left = sum(len(members) for members in first.values())
        if not order:
            raise InputError(f"class {class_name!r} has no training example")
        needed = 1 + ("test" in carve)
        if len(order) < needed:
            raise InputError(
                f"class {class_name!r} has {left} image{'s' * (left > 1)}"
                f"{' (all identical)' * (left > 1)}: training and test need at least one each"
            )
        for target, fraction in (("test", test_fraction), ("validation", validation_fraction)):
            if target in carve:
                taken = _fitting(first, order, max(1, round(fraction * left)))
                for head in taken:
                    side[first[head]] = target
                    left -= len(first[head])
                gone = set(taken)
                order = [head for head in order if head not in gone]
    notes += _drop_shared(side, digests)  # examples without a label stayed in train
    enlarge = "raise dataset.{side}_fraction or add images".format
    return _finish(side, pool, notes + doubtful, enlarge, test_drawn="test" in carve)


def assign_groups(
    pool: Pool,
    groups: np.ndarray,
    *,
    test_fraction: float,
    validation_fraction: float,
    fold: Sequence[int],
    seed: int,
) -> Assignment:
    """Splits examples so that whole groups stay on one side, stratified by class as well as the groups allow.

    Args:
        pool: names, labels (an example without one is left out where its group is not in train), digests and classes.
        groups: (N,) int, the group of each example; identical ones share it. Those without any label are in train.
        test_fraction: of all examples of a class, in (0, 1).
        validation_fraction: of the part that is not test, in (0, 1).
        fold: (number, folds): the test split is that one of so many folds, which together are everything; () = a drawn
            one of `test_fraction`.
        seed: data seed.

    Raises:
        InputError: the source has splits of its own, there are too few groups, or a class has no training example.
    """
    if any(pool.sides):
        raise InputError(
            f"dataset: {pool.name} has splits of its own, so its images cannot be dealt out by place, near-duplicates "
            "or folds: give one folder of classes, or leave out dataset.split_by, group_near_duplicates and fold"
        )
    labels = np.asarray(pool.labels)
    try:
        if fold:
            shares, purpose, number = (1 / fold[1],) * fold[1], "folds", fold[0]
        else:
            shares, purpose, number = (test_fraction, 1 - test_fraction), "test", 0
        # Dealt out as well, groups without a label would be left out wherever they are not in train.
        dealt = np.flatnonzero(np.isin(groups, groups[labels >= 0]))
        held = deal(groups[dealt], labels[dealt], shares, purpose=purpose, seed=seed) == number
        test, rest = dealt[held], dealt[~held]
        shares = validation_fraction, 1 - validation_fraction
        validation = rest[deal(groups[rest], labels[rest], shares, purpose="validation", seed=seed) == 0]
    except ValueError as error:
        advice = "lower dataset.block_km, leave out dataset.group_near_duplicates, or split by image"
        if fold:
            advice = "give fewer folds in dataset.fold"
        raise InputError(f"dataset: too few groups of images to split ({error}): {advice}") from None
    side = np.array(["train"] * len(labels), dtype="<U10")
    side[test], side[validation] = "test", "validation"
    count = len(np.unique(groups))
    notes = [
        f"{len(labels)} images in {count} groups, each kept on one side: "
        + ", ".join(f"{len(np.unique(groups[side == one]))} in {one}" for one in SIDES)
    ]
    without = (labels < 0) & (side != "train")
    if without.any():
        notes.append(f"{without.sum()} images without a label left out: their groups are in validation or test")
        side[without] = ""
    enlarge = ("add images" if fold else "raise dataset.{side}_fraction or add images").format
    return _finish(side, pool, notes + _contradictions(side, pool), enlarge, test_drawn=True)


def _fitting(groups: dict[int, list[int]], order: list[int], wanted: int) -> list[int]:
    """Heads of groups, taken in order while they fit into `wanted`; one at least, and one group is left over."""
    taken: list[int] = []
    count = 0
    for head in order:
        if len(order) - len(taken) > 1 and count + len(groups[head]) <= wanted:
            taken.append(head)
            count += len(groups[head])
    if not taken and len(order) > 1:
        taken = [min(order, key=lambda head: len(groups[head]))]
    return taken


def reuse(path: str, pool: Pool) -> Assignment:
    """Splits by a JSON file {"train": [names], "validation": [names], "test": [names]}, as `splits.json`.

    Examples of the data set that the file does not name are left out, and names of images that are skipped because they
    cannot be read, with notes.

    Raises:
        InputError: unreadable file; unknown names; a name twice; an empty split; a class without training examples.
    """
    field = "dataset.splits"
    labels, names = np.asarray(pool.labels), pool.names
    place = pathlib.Path(os.path.expanduser(path))
    try:
        if place.exists() and not place.is_file():  # reading a pipe would wait for ever
            raise InputError(f"{field}: {path} is not a regular file")
        document = json.loads(place.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{field}: {path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{field}: {path} is not JSON: {reason(error)}") from error
    if not isinstance(document, dict):
        raise InputError(f'{field}: {path} must hold {{"train": [names], "validation": [names], "test": [names]}}')
    where = {unicodedata.normalize("NFC", name): i for i, name in enumerate(names)}
    side, notes = np.array([""] * len(names), dtype="<U10"), []
    for key in SIDES:
        there = document.get(key)
        if not isinstance(there, list) or not there or not all(isinstance(name, str) for name in there):
            raise InputError(f'{field}: {path} needs a list of names under "{key}", not empty')
        there = [unicodedata.normalize("NFC", name) for name in there]  # as in the data set
        skipped = [name for name in there if name in pool.skipped]
        if skipped:
            notes.append(f'{len(skipped)} images that {path} names under "{key}" cannot be read: {listed(skipped, 3)}')
            there = [name for name in there if name not in pool.skipped]
        unknown = [name for name in there if name not in where]
        if unknown:
            raise InputError(
                f'{field}: {path} names {len(unknown)} images under "{key}" that the data set does not have: '
                f"{listed(unknown, 3)}"
            )
        for name in there:
            if side[where[name]]:
                raise InputError(f"{field}: {path} lists {name} twice (in {side[where[name]]} and {key})")
            side[where[name]] = key
    missing = [name for name, s in zip(names, side, strict=True) if not s]
    if missing:
        notes.append(f"{len(missing)} images that {path} does not list left out: {listed(missing, 3)}")
    held = (labels < 0) & ((side == "validation") | (side == "test"))
    if held.any():
        raise InputError(
            f"{field}: {path} puts {names[int(np.flatnonzero(held)[0])]} in a held-out split, but it has no label"
        )
    doubtful = _contradictions(side, pool)
    notes += _drop_shared(side, pool.digests)
    enlarge = lambda side: f'name images under "{side}" in {path} that are on no other side'
    return _finish(side, pool, notes + doubtful, enlarge, test_drawn=False)


def hide_labels(purpose: str, names: Sequence[str], labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Which labels stay when only a fraction is to be used, stratified by class, one per class at least.

    Nested: with the same seed, what a smaller fraction keeps is part of what a larger one keeps.

    Args:
        purpose: 'train' or 'validation'; separate orders.
        names: N names.
        labels: int (N,), -1 = unlabeled already.
        fraction: in (0, 1].
        seed: data seed.

    Returns:
        bool (N,), True where the label stays.
    """
    labels = np.asarray(labels)
    keep = np.zeros(len(labels), bool)
    for c in np.unique(labels[labels >= 0]):
        order = ranked(f"labels-{purpose}", seed, names, np.flatnonzero(labels == c).tolist())
        keep[order[: max(1, round(fraction * len(order)))]] = True
    return keep


def _drop_shared(side: np.ndarray, digests: Sequence[str]) -> list[str]:
    """Takes images that a held-out split also has out of train, then out of validation (in place)."""
    notes = []
    for loser, winners in (("train", ("test", "validation")), ("validation", ("test",))):
        held = {digests[i] for i in np.flatnonzero(np.isin(side, winners)).tolist()}
        shared = [i for i in np.flatnonzero(side == loser).tolist() if digests[i] in held]
        if shared:
            side[shared] = ""
            notes.append(f"{len(shared)} images dropped from {loser}: pixel-identical to one in {' or '.join(winners)}")
    return notes


def _describe_groups(groups: dict[str, list[int]]) -> list[str]:
    several = [members for members in groups.values() if len(members) > 1]
    if not several:
        return []
    return [f"{sum(map(len, several))} images in {len(several)} pixel-identical groups, each kept on one side"]


def _contradictions(side: np.ndarray, pool: Pool) -> list[str]:
    """A note on identical images of several classes on any side: no network can be right about all of them."""
    first: dict[str, int] = {}
    other: dict[str, int] = {}
    for i in np.flatnonzero((side != "") & (pool.labels >= 0)).tolist():
        if pool.labels[first.setdefault(pool.digests[i], i)] != pool.labels[i]:
            other.setdefault(pool.digests[i], i)
    if not other:
        return []
    one, two = sorted(pool.names[places[next(iter(other))]] for places in (first, other))
    return [
        f"warning: {len(other)} pixel-identical groups carry different labels, as {one} and {two}: keep one of each"
    ]


def _finish(
    side: np.ndarray, pool: Pool, notes: list[str], enlarge: Callable[..., str], *, test_drawn: bool
) -> Assignment:
    """The assignment, if each side has what it needs; `enlarge(side=...)` says how an empty one gets images."""
    labels, classes = np.asarray(pool.labels), pool.classes
    counts = {s: collections.Counter(labels[side == s].tolist()) for s in SIDES}
    for c, name in enumerate(classes):
        if not counts["train"][c]:
            raise InputError(f"class {name!r} has no training example left after splitting: add images of it")
    for s in ("validation", "test"):
        if not counts[s]:
            raise InputError(f"the {s} split is empty: {enlarge(side=s)}")
        absent = [name for c, name in enumerate(classes) if not counts[s][c]]
        if absent:
            notes = notes + [f"no {s} example of: {', '.join(absent)}"]
    train, validation, test = (np.flatnonzero(side == s) for s in SIDES)
    return Assignment(train, validation, test, notes=tuple(notes), test_drawn=test_drawn)
