"""A data set from config.dataset: read, split, labels hidden, tiles without labels added."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kdjax import config
from kdjax.data import band_statistics, cache, near_duplicates, places, sentinel2_offset
from kdjax.data import splits as split_rules
from kdjax.data.checks import check
from kdjax.data.dataset import UNLABELED, Context, Dataset, Pool, Split, Statistics, fingerprint
from kdjax.data.groups import connected
from kdjax.data.meaning import Meaning
from kdjax.data.rows import Rows
from kdjax.data.sources import SOURCES
from kdjax.data.sources.folder import load_unlabeled, read_named
from kdjax.errors import InputError
from kdjax.runtime import files

_MOST_COMPARED = {"training": 50_000, "test": 1000}
"""Images that are looked at for near-duplicates: some seconds' work."""

_ASKED = 50
"""Tiles that are asked at first where they lie."""

_FEW = {"training": 10, "validation": 5}


def load(
    section: Mapping[str, Any] | None = None,
    *,
    data_seed: int,
    cache_dir: pathlib.Path | None,
    log: Callable[[str], None] = print,
    **fields: Any,
) -> Dataset:
    """Loads a data set, splits it and hides labels as asked.

    Args:
        section: config.dataset; None = its defaults.
        data_seed: decides the split, the labels kept and the demo's scenes.
        cache_dir: folder for decoded images; None keeps none.
        log: takes lines of progress.
        **fields: fields of the section in place of its own.

    Returns:
        The data set. `kdjax.config` describes every field that shapes it.

    Raises:
        InputError: any field unknown or out of range, missing or unreadable data, a split that cannot be used.
    """
    section = _complete(section, fields)
    check(section)
    if data_seed < 0:
        raise InputError(f"data_seed: {data_seed} must not be negative")
    context = Context(data_seed, cache_dir, log)
    pool = SOURCES[section["source"]](section, context)
    bounds: tuple[float, ...] = ()
    if section["splits"]:
        assigned = split_rules.reuse(section["splits"], pool)
    elif section["split_by"] == "place" or section["group_near_duplicates"] or section["fold"]:
        assigned, more, bounds = _assign_groups(pool, section, data_seed)
        pool = dataclasses.replace(pool, notes=pool.notes + more)
    else:
        assigned = split_rules.assign(
            pool,
            test_fraction=section["test_fraction"],
            validation_fraction=section["validation_fraction"],
            seed=data_seed,
        )
        pool = dataclasses.replace(pool, notes=pool.notes + _unused(pool, assigned, section))
    members = {side: tuple(pool.names[i] for i in getattr(assigned, side)) for side in split_rules.SIDES}
    train, validation, test, members["label_hidden"], more = _build(
        pool, assigned, section["label_fraction"], data_seed
    )
    notes = pool.notes + assigned.notes + more
    if section["unlabeled"] == "drop":
        members["train"] = tuple(pool.names[i] for i in assigned.train if pool.labels[i] >= 0)
        notes += (f"{(train.labels < 0).sum()} training images without a label are left out",)
        train = train.labeled()
    digests = dict(zip(pool.names, pool.digests, strict=True))
    members["unlabeled"] = ()
    if section["unlabeled_dir"]:
        held = np.concatenate([assigned.validation, assigned.test])
        train, added, more = _with_unlabeled(train, held, pool, section, context)
        members["unlabeled"], digests, notes = tuple(added), digests | added, notes + more
    splits = {"train": train, "validation": validation, "test": test}
    total = fingerprint(pool.classes, splits, pool.meaning.bands)
    statistics, more = _band_statistics(section, splits, pool.meaning)
    notes += more
    advise = assigned.test_drawn and not section["group_near_duplicates"]
    notes += _near_duplicates(train, test, cache_dir, total, advise)
    overlap = 0.0 if pool.redrawn else None
    if assigned.test_drawn:
        overlap = len(test) / int((train.labels >= 0).sum())
    return Dataset(
        pool.name,
        pool.classes,
        **splits,
        fingerprint=total,
        notes=notes + _counts(pool.classes, train, validation, test),
        members=members,
        overlap=overlap,
        meaning=pool.meaning,
        statistics=statistics,
        bounds=bounds,
        digests={name: digests[name] for names in members.values() for name in names},
    )


def _band_statistics(
    section: Mapping[str, Any], splits: Mapping[str, Split], meaning: Meaning
) -> tuple[Statistics | None, tuple[str, ...]]:
    """Mean and deviation of the bands in training, and notes; None where they are simply red, green and blue."""
    if meaning.bands is None:
        return None, ()
    train = splits["train"]
    found = band_statistics.of(train.images)
    unlabeled = Rows.of(train.images).select(train.labels < 0)
    notes = sentinel2_offset.check(
        section,
        {
            "the training images": train.labeled().images,
            "the unlabeled images": unlabeled,
            **{f"the {name} images": splits[name].images for name in ("validation", "test")},
        },
        meaning,
    )
    return found, (*band_statistics.notes(found, meaning), *notes)


def _unused(pool: Pool, assigned: split_rules.Assignment, section: Mapping[str, Any]) -> tuple[str, ...]:
    """Notes on fractions that were asked for, where the source has that split already."""
    return tuple(
        f"warning: dataset.{side}_fraction {section[f'{side}_fraction']:g} is not used: {pool.name} has a {side} split "
        "of its own"
        for side in ("test", "validation")
        if section[f"{side}_fraction"] != config.base().dataset[f"{side}_fraction"]
        and pool.sides[getattr(assigned, side)[0]] == side
    )


def _complete(section: Mapping[str, Any] | None, fields: Mapping[str, Any]) -> dict[str, Any]:
    defaults = config.base().dataset
    unknown = set(fields) - set(defaults)
    if unknown:
        raise InputError(f"dataset.{min(unknown)}: there is no such field, choose from {', '.join(sorted(defaults))}")
    given = {} if section is None else {name: section[name] for name in section}
    return {**{name: defaults[name] for name in defaults}, **given, **fields}


def _assign_groups(
    pool: Pool, section: Mapping[str, Any], seed: int
) -> tuple[split_rules.Assignment, tuple[str, ...], tuple[float, ...]]:
    """A split that keeps together what belongs together, notes on what that is, and the bounds of the tiles."""
    keys: list[Sequence[Any]] = [pool.digests]
    notes: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    if section["split_by"] == "place":
        found = _places(pool, section)
        keys.append(found.names)
        bounds = found.bounds
        notes += (f"split by place: {len(set(found.names))} places{_extent(bounds)}",)
        if section["unlabeled_dir"]:
            notes += ("warning: where the tiles of unlabeled_dir lie is unknown; some may be next to a test tile",)
    pairs: list[tuple[int, int]] = []
    if section["group_near_duplicates"]:
        pairs = near_duplicates.pairs(near_duplicates.thumbnails(pool.images))
        notes += (f"{len(pairs)} pairs of near-duplicates are kept together",)
    assigned = split_rules.assign_groups(
        pool,
        connected(*keys, pairs=pairs),
        test_fraction=section["test_fraction"],
        validation_fraction=section["validation_fraction"],
        fold=section["fold"],
        seed=seed,
    )
    return assigned, notes, bounds


def _places(pool: Pool, section: Mapping[str, Any]) -> places.Places:
    if section["places"]:
        return places.from_table(section["places"], pool.names, section["block_km"])
    return places.from_tiles(pool.names, read_named(section["path"], pool.names), section["block_km"])


def locations(section: Mapping[str, Any], names: Sequence[str]) -> np.ndarray | None:
    """Where examples lie, whether the split is by place or not.

    Args:
        section: config.dataset.
        names: of the examples, without those of `unlabeled_dir`.

    Returns:
        (N, 2) float64, longitude and latitude in degrees, NaN where it is not known; None where nothing is.

    Raises:
        InputError: the table or a file cannot be read any more.
    """
    if section["places"]:
        found = places.from_table(section["places"], names, section["block_km"]).centers
        return None if np.isnan(found).all() else found
    if section["source"] != "folder":
        return None
    few = names[:: 1 + len(names) // _ASKED]  # of all classes; where none of them says it, the others are left alone
    if places.centers_of(few, read_named(section["path"], few)) is None:
        return None
    return places.centers_of(names, read_named(section["path"], names))


def _extent(bounds: tuple[float, ...]) -> str:
    """Where on the earth tiles are, for the reader to check."""
    if not bounds:
        return ""
    west, south, east, north = bounds
    return f" between {west:.2f} and {east:.2f} degrees of longitude, {south:.2f} and {north:.2f} of latitude"


def _build(
    pool: Pool, assigned: split_rules.Assignment, label_fraction: float, seed: int
) -> tuple[Split, Split, Split, tuple[str, ...], tuple[str, ...]]:
    """The three splits with labels hidden in train, dropped in validation; the names of those examples; and notes."""
    labels = pool.labels
    train, validation = assigned.train, assigned.validation
    train_labels = labels[train]
    hidden: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    if label_fraction < 1:
        stays = split_rules.hide_labels("train", [pool.names[i] for i in train], train_labels, label_fraction, seed)
        hidden += tuple(pool.names[i] for i in train[~stays & (train_labels >= 0)])
        train_labels = np.where(stays, train_labels, UNLABELED)
        # An unlabeled validation example measures nothing, so it goes.
        stays = split_rules.hide_labels(
            "validation", [pool.names[i] for i in validation], labels[validation], label_fraction, seed
        )
        hidden += tuple(pool.names[i] for i in validation[~stays])
        validation = validation[stays]
    if hidden:
        notes = (
            f"label_fraction {label_fraction:g}: {(train_labels >= 0).sum()} of {(labels[train] >= 0).sum()} training "
            f"labels and {len(validation)} of {len(assigned.validation)} validation examples are kept",
        )
    return (
        pool.take(train, train_labels),
        pool.take(validation, labels[validation]),
        pool.take(assigned.test, labels[assigned.test]),
        hidden,
        notes,
    )


def _with_unlabeled(
    train: Split, held: np.ndarray, pool: Pool, section: Mapping[str, Any], context: Context
) -> tuple[Split, dict[str, str], tuple[str, ...]]:
    """Train with the tiles of unlabeled_dir added, their digests by name, and notes; tiles that show a held example go.

    `held` (n,) are the places in the pool of those in validation and test. Identical tiles always go, those that are
    nearly the same with `group_near_duplicates`.
    """
    tiles = load_unlabeled(section, context, pool.meaning)
    known = {pool.digests[i] for i in held}
    keep = np.array([digest not in known for digest in tiles.digests])
    notes = tuple(f"unlabeled tiles: {note}" for note in tiles.notes)
    if not keep.all():
        notes += (f"{(~keep).sum()} unlabeled tiles dropped: pixel-identical to a validation or test image",)
    if section["group_near_duplicates"]:
        small = near_duplicates.thumbnails(Rows.of(pool.images).select(held))
        best, _ = near_duplicates.closest(near_duplicates.thumbnails(tiles.images), small)
        near = keep & (best >= near_duplicates.LEAST)
        if near.any():
            notes += (f"{near.sum()} unlabeled tiles dropped: nearly the same as a validation or test image",)
        keep &= ~near
    added = {name: one for name, one, kept in zip(tiles.names, tiles.digests, keep, strict=True) if kept}
    if not added:
        nearly = ", or nearly one" * section["group_near_duplicates"]
        raise InputError(
            f"dataset.unlabeled_dir: every tile of {section['unlabeled_dir']} is a validation or test image{nearly}"
        )
    notes += (f"{len(added)} unlabeled tiles added to train",)
    merged = Split(
        Rows.of(train.images).followed_by(tiles.images.select(keep)),
        np.concatenate([train.labels, np.full(len(added), UNLABELED, np.int32)]),
        train.names + tuple(added),
        np.concatenate([train.hashed(), tiles.hashes[keep]]),
    )
    return merged, added, notes


def _near_duplicates(
    train: Split, test: Split, cache_dir: pathlib.Path | None, total: str, advise: bool
) -> tuple[str, ...]:
    """A note on test images that are nearly the same as a training image; counted once, and kept in the cache.

    `total` is the fingerprint of the data; `advise` adds what would keep such images apart.
    """
    key = cache.key_of(
        [total, near_duplicates.VERSION, near_duplicates.SIDE, near_duplicates.LEAST, _MOST_COMPARED["test"]]
    )
    place = cache_dir / "near_duplicates" / f"{key}.json" if cache_dir else None
    if len(train) > _MOST_COMPARED["training"]:
        return (f"near-duplicates were not counted: there are more than {_MOST_COMPARED['training']} training images",)
    shown = np.linspace(0, len(test) - 1, min(len(test), _MOST_COMPARED["test"])).astype(int)  # of all classes
    found = None
    with contextlib.suppress(InputError, TypeError, KeyError):  # not there, or damaged
        found = files.read_json(place, "it is counted again")["count"] if place else None
    if type(found) is not int or not 0 <= found <= len(shown):
        small = near_duplicates.thumbnails(train.images)
        best, _ = near_duplicates.closest(near_duplicates.thumbnails(Rows.of(test.images).select(shown)), small)
        found = int((best >= near_duplicates.LEAST).sum())
        if place:
            place.parent.mkdir(parents=True, exist_ok=True)
            files.write_json(place, {"count": found})
    if not found:
        return ()
    advice = "; dataset.group_near_duplicates=True keeps such images on one side" if advise else ""
    return (f"{found} of {len(shown)} test images are nearly the same as a training image{advice}",)


def _counts(classes: tuple[str, ...], train: Split, validation: Split, test: Split) -> tuple[str, ...]:
    """Notes: the classes with their counts, and which of them are small."""
    counts = np.stack(
        [np.bincount(split.labels[split.labels >= 0], minlength=len(classes)) for split in (train, validation, test)]
    )
    listed = ", ".join(f"{name} {'/'.join(map(str, counts[:, k]))}" for k, name in enumerate(classes))
    without = int((train.labels < 0).sum())
    notes: tuple[str, ...] = (
        f"{len(classes)} classes with training/validation/test images: {listed}"
        + (f"; {without} training images without a label" if without else ""),
    )
    for side, row in zip(("training", "validation"), counts, strict=False):
        small = [f"{name} ({count})" for name, count in zip(classes, row, strict=True) if count < _FEW[side]]
        if small:
            notes += (f"warning: fewer than {_FEW[side]} labeled {side} images of {', '.join(small)}",)
    return notes
