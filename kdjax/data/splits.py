"""Splits examples into train, validation and test: stratified, seeded, with identical images on one side.

The examples of a class are ordered by sha256(seed, name). That order depends on nothing else, neither on library
versions nor on the other classes, and an image that is added later does not change the order of the others.
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
from kdjax.errors import InputError, first_few, one_line

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
    """Sorts `indices` by sha256(purpose, seed, name): a shuffle without a random generator."""
    return sorted(
        indices,
        key=lambda i: hashlib.sha256(f"{purpose}/{seed}/{names[i]}".encode("utf-8", "surrogateescape")).digest(),
    )


def assign(pool: Pool, *, test_fraction: float, validation_fraction: float, seed: int) -> Assignment:
    """Splits examples, stratified by class.

    Official splits are kept. A missing test split is carved from the training part, then a missing validation split
    from what remains. Examples with equal digests go to one side together. Where official splits share an image, it
    is dropped from train first, then from validation.

    Args:
        pool: names, labels (an unlabeled example can only be in train), digests, official sides and classes.
        test_fraction: share of each class's examples, in (0, 1); used if there is no official test split.
        validation_fraction: share of the examples that are not test, in (0, 1); used if there is no official
            validation split.
        seed: data seed.

    Returns:
        The examples on each side.

    Raises:
        InputError: a class is too small to be split, or has no training example.
    """
    labels, digests, names = np.asarray(pool.labels), pool.digests, pool.names
    side = np.array([s or "train" for s in pool.sides], dtype="<U10")
    notes = []
    unlabeled_held_out = (labels < 0) & (side != "train")
    if unlabeled_held_out.any():
        notes.append(f"{unlabeled_held_out.sum()} validation or test examples without a label left out")
        side[unlabeled_held_out] = ""
    contradictions = _contradictions(side, pool)
    notes += _drop_shared(side, digests)
    is_present = {s: bool((side == s).any()) for s in SIDES}
    missing_sides = [s for s in ("test", "validation") if not is_present[s]]
    if missing_sides and any(pool.sides):
        notes.append(f"no official {' and no official '.join(missing_sides)} split: carved from train")
    # Identical images move together; a group belongs to the class of its first member.
    groups: dict[str, list[int]] = {}
    for i in sorted(np.flatnonzero(side == "train"), key=lambda i: names[i]):
        if labels[i] >= 0:
            groups.setdefault(digests[i], []).append(int(i))
    if missing_sides:
        notes += _describe_groups(groups)
    for c, class_name in enumerate(pool.classes):
        members_of = {members[0]: members for members in groups.values() if labels[members[0]] == c}
        order = ranked("split", seed, names, list(members_of))
        remaining = sum(len(members) for members in members_of.values())
        if not order:
            raise InputError(f"class {class_name!r} has no training example")
        fewest = 1 + ("test" in missing_sides)
        if len(order) < fewest:
            raise InputError(
                f"class {class_name!r} has {remaining} image{'s' * (remaining > 1)}"
                f"{' (all identical)' * (remaining > 1)}: training and test need at least one each"
            )
        for target, fraction in (("test", test_fraction), ("validation", validation_fraction)):
            if target in missing_sides:
                heads = _fitting_heads(members_of, order, max(1, round(fraction * remaining)))
                for head in heads:
                    side[members_of[head]] = target
                    remaining -= len(members_of[head])
                moved = set(heads)
                order = [head for head in order if head not in moved]
    notes += _drop_shared(side, digests)  # again: unlabeled copies of images that were carved are still in train
    enlarge = "raise dataset.{side}_fraction or add images".format
    return _finish(side, pool, notes + contradictions, enlarge, test_drawn="test" in missing_sides)


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
        pool: names, labels (an unlabeled example is left out unless its group is in train), digests and classes.
        groups: (N,) int, the group of each example; identical images share one. Groups without any label go to train.
        test_fraction: share of each class's examples, in (0, 1).
        validation_fraction: share of the examples that are not test, in (0, 1).
        fold: (number, folds): the test split is fold `number` of a partition into `folds`; () = the test split is drawn
            by `test_fraction`.
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
        # Groups without a label are not dealt out: outside train they would be left out.
        eligible = np.flatnonzero(np.isin(groups, groups[labels >= 0]))
        is_test = deal(groups[eligible], labels[eligible], shares, purpose=purpose, seed=seed) == number
        test, rest = eligible[is_test], eligible[~is_test]
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
        + ", ".join(f"{len(np.unique(groups[side == name]))} in {name}" for name in SIDES)
    ]
    unlabeled = (labels < 0) & (side != "train")
    if unlabeled.any():
        notes.append(f"{unlabeled.sum()} images without a label left out: their groups are in validation or test")
        side[unlabeled] = ""
    enlarge = ("add images" if fold else "raise dataset.{side}_fraction or add images").format
    return _finish(side, pool, notes + _contradictions(side, pool), enlarge, test_drawn=True)


def _fitting_heads(groups: dict[int, list[int]], order: list[int], capacity: int) -> list[int]:
    """Chooses groups in order while they fit into `capacity`: at least one, but never all if there are several."""
    heads: list[int] = []
    count = 0
    for head in order:
        if len(order) - len(heads) > 1 and count + len(groups[head]) <= capacity:
            heads.append(head)
            count += len(groups[head])
    if not heads and len(order) > 1:
        heads = [min(order, key=lambda head: len(groups[head]))]
    return heads


def reuse(path: str, pool: Pool) -> Assignment:
    """Splits as a JSON file {"train": [names], "validation": [names], "test": [names]} says, such as `splits.json`.

    Examples that the file does not name are left out, and so are names whose image was skipped as unreadable; notes
    count both.

    Raises:
        InputError: the file is unreadable, a name is unknown or listed twice, a split is empty, a held-out example has
            no label, or a class has no training example.
    """
    field = "dataset.splits"
    labels, names = np.asarray(pool.labels), pool.names
    file = pathlib.Path(os.path.expanduser(path))
    try:
        if file.exists() and not file.is_file():  # reading a pipe would wait for ever
            raise InputError(f"{field}: {path} is not a regular file")
        document = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{field}: {path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{field}: {path} is not JSON: {one_line(error)}") from error
    if not isinstance(document, dict):
        raise InputError(f'{field}: {path} must hold {{"train": [names], "validation": [names], "test": [names]}}')
    index_of = {unicodedata.normalize("NFC", name): i for i, name in enumerate(names)}
    side, notes = np.array([""] * len(names), dtype="<U10"), []
    for key in SIDES:
        side_names = document.get(key)
        if not isinstance(side_names, list) or not side_names or not all(isinstance(name, str) for name in side_names):
            raise InputError(f'{field}: {path} needs a list of names under "{key}", not empty')
        side_names = [unicodedata.normalize("NFC", name) for name in side_names]  # the data set's names are NFC
        skipped = [name for name in side_names if name in pool.skipped]
        if skipped:
            notes.append(
                f'{len(skipped)} images that {path} names under "{key}" cannot be read: {first_few(skipped, 3)}'
            )
            side_names = [name for name in side_names if name not in pool.skipped]
        unknown = [name for name in side_names if name not in index_of]
        if unknown:
            raise InputError(
                f'{field}: {path} names {len(unknown)} images under "{key}" that the data set does not have: '
                f"{first_few(unknown, 3)}"
            )
        for name in side_names:
            if side[index_of[name]]:
                raise InputError(f"{field}: {path} lists {name} twice (in {side[index_of[name]]} and {key})")
            side[index_of[name]] = key
    missing = [name for name, s in zip(names, side, strict=True) if not s]
    if missing:
        notes.append(f"{len(missing)} images that {path} does not list left out: {first_few(missing, 3)}")
    unlabeled = (labels < 0) & ((side == "validation") | (side == "test"))
    if unlabeled.any():
        raise InputError(
            f"{field}: {path} puts {names[int(np.flatnonzero(unlabeled)[0])]} in a held-out split, but it has no label"
        )
    contradictions = _contradictions(side, pool)
    notes += _drop_shared(side, pool.digests)
    enlarge = lambda side: f'name images under "{side}" in {path} that are on no other side'
    return _finish(side, pool, notes + contradictions, enlarge, test_drawn=False)


def hide_labels(purpose: str, names: Sequence[str], labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Chooses the labels that stay when only a fraction is used: stratified by class, at least one per class.

    The choices are nested: with the same seed, a smaller fraction keeps a subset of what a larger one keeps.

    Args:
        purpose: 'train' or 'validation', which are ordered independently.
        names: N names.
        labels: int (N,), -1 = already unlabeled.
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
    """Drops images from train, then from validation, that a held-out split also has; changes `side` in place."""
    notes = []
    for loser, winners in (("train", ("test", "validation")), ("validation", ("test",))):
        winner_digests = {digests[i] for i in np.flatnonzero(np.isin(side, winners)).tolist()}
        shared = [i for i in np.flatnonzero(side == loser).tolist() if digests[i] in winner_digests]
        if shared:
            side[shared] = ""
            notes.append(f"{len(shared)} images dropped from {loser}: pixel-identical to one in {' or '.join(winners)}")
    return notes


def _describe_groups(groups: dict[str, list[int]]) -> list[str]:
    identical = [members for members in groups.values() if len(members) > 1]
    if not identical:
        return []
    return [f"{sum(map(len, identical))} images in {len(identical)} pixel-identical groups, each kept on one side"]


def _contradictions(side: np.ndarray, pool: Pool) -> list[str]:
    """Warns of identical images with different labels: no network can classify all of them correctly."""
    first: dict[str, int] = {}
    conflicting: dict[str, int] = {}
    for i in np.flatnonzero((side != "") & (pool.labels >= 0)).tolist():
        if pool.labels[first.setdefault(pool.digests[i], i)] != pool.labels[i]:
            conflicting.setdefault(pool.digests[i], i)
    if not conflicting:
        return []
    first_name, other_name = sorted(pool.names[index_of[next(iter(conflicting))]] for index_of in (first, conflicting))
    return [
        f"warning: {len(conflicting)} pixel-identical groups carry different labels, as {first_name} and {other_name}: "
        "keep one of each"
    ]


def _finish(
    side: np.ndarray, pool: Pool, notes: list[str], enlarge: Callable[..., str], *, test_drawn: bool
) -> Assignment:
    """Makes the assignment, after checking that no side is empty and every class has a training example.

    `enlarge(side=...)` tells the user how to get images into an empty side.
    """
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
