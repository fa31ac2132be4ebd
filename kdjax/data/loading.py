"""Loads the data set that config.dataset describes: reads, splits, hides labels and adds unlabeled tiles."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from kdjax import config
from kdjax.data import band_statistics, near_duplicates, places, sentinel2_offset
from kdjax.data import splits as split_rules
from kdjax.data.checks import check
from kdjax.data.dataset import UNLABELED, Context, Dataset, Pool, Split, Statistics, fingerprint
from kdjax.data.groups import connected_groups
from kdjax.data.meaning import Meaning
from kdjax.data.rows import Rows
from kdjax.data.sources import SOURCES
from kdjax.data.sources.folder import load_unlabeled, read_named
from kdjax.errors import InputError

_PROBED_TILES = 50
"""About how many tiles are probed for a location before all are read."""

_FEW_LABELS = {"training": 10, "validation": 5}
"""A class with fewer labeled images than this gets a warning."""


def load(
    section: Mapping[str, Any] | None = None,
    *,
    data_seed: int,
    cache_dir: pathlib.Path | None,
    log: Callable[[str], None] = print,
    **fields: Any,
) -> Dataset:
    """Loads a data set, splits it and hides labels as configured.

    Args:
        section: config.dataset; None = its defaults.
        data_seed: decides the split, which labels are kept and the demo's scenes.
        cache_dir: folder for decoded images; None = they are not cached.
        log: receives progress messages.
        **fields: fields that override those of the section.

    Returns:
        The data set. `kdjax.config` describes every field that shapes it.

    Raises:
        InputError: a field is unknown or out of range, the data are missing or unreadable, or the split cannot be used.
    """
    section = _complete(section, fields)
    check(section)
    if data_seed < 0:
        raise InputError(f"data_seed: {data_seed} must not be negative")
    context = Context(data_seed, cache_dir, log)
    pool = SOURCES[section["source"]](section, context)
    bounds: tuple[float, ...] = ()
    if section["splits"]:
        assignment = split_rules.reuse(section["splits"], pool)
    elif section["split_by"] == "place" or section["group_near_duplicates"] or section["fold"]:
        assignment, group_notes, bounds = _assign_groups(pool, section, data_seed)
        pool = dataclasses.replace(pool, notes=pool.notes + group_notes)
    else:
        assignment = split_rules.assign(
            pool,
            test_fraction=section["test_fraction"],
            validation_fraction=section["validation_fraction"],
            seed=data_seed,
        )
        pool = dataclasses.replace(pool, notes=pool.notes + _unused(pool, assignment, section))
    members = {side: tuple(pool.names[i] for i in getattr(assignment, side)) for side in split_rules.SIDES}
    train, validation, test, members["label_hidden"], label_notes = _build(
        pool, assignment, section["label_fraction"], data_seed
    )
    notes = pool.notes + assignment.notes + label_notes
    if section["unlabeled"] == "drop":
        members["train"] = tuple(pool.names[i] for i in assignment.train if pool.labels[i] >= 0)
        notes += (f"{(train.labels < 0).sum()} training images without a label are left out",)
        train = train.labeled()
    digests = dict(zip(pool.names, pool.digests, strict=True))
    members["unlabeled"] = ()
    if section["unlabeled_dir"]:
        held_out = np.concatenate([assignment.validation, assignment.test])
        train, added_digests, unlabeled_notes = _with_unlabeled(train, held_out, pool, section, context)
        members["unlabeled"], digests, notes = tuple(added_digests), digests | added_digests, notes + unlabeled_notes
    splits = {"train": train, "validation": validation, "test": test}
    data_fingerprint = fingerprint(pool.classes, splits, pool.meaning.bands)
    statistics, band_notes = _band_statistics(section, splits, pool.meaning)
    notes += band_notes
    suggest_grouping = assignment.test_drawn and not section["group_near_duplicates"]
    notes += near_duplicates.notes(train, test, cache_dir, data_fingerprint, suggest_grouping)
    # Hidden labels make test splits overlap no more, and tiles of unlabeled_dir are in no test split.
    labeled = int((pool.labels[assignment.train] >= 0).sum())
    overlap = len(test) / labeled if assignment.test_drawn else 0.0 if pool.redrawn else None
    return Dataset(
        pool.name,
        pool.classes,
        **splits,
        fingerprint=data_fingerprint,
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
    """Statistics of the bands over the training images, and notes; None for plain red, green and blue."""
    if meaning.bands is None:
        return None, ()
    train = splits["train"]
    statistics = band_statistics.compute(train.images)
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
    return statistics, (*band_statistics.notes(statistics, meaning), *notes)


def _unused(pool: Pool, assignment: split_rules.Assignment, section: Mapping[str, Any]) -> tuple[str, ...]:
    """Warns of configured fractions that have no effect because the source already has that split."""
    return tuple(
        f"warning: dataset.{side}_fraction {section[f'{side}_fraction']:g} is not used: {pool.name} has a {side} split "
        "of its own"
        for side in ("test", "validation")
        if section[f"{side}_fraction"] != config.base().dataset[f"{side}_fraction"]
        and pool.sides[getattr(assignment, side)[0]] == side
    )


def _complete(section: Mapping[str, Any] | None, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The section with every field: the defaults, overridden by `section` and then by `fields`."""
    defaults = config.base().dataset
    unknown = set(fields) - set(defaults)
    if unknown:
        raise InputError(f"dataset.{min(unknown)}: there is no such field, choose from {', '.join(sorted(defaults))}")
    explicit = {} if section is None else {name: section[name] for name in section}
    return {**{name: defaults[name] for name in defaults}, **explicit, **fields}


def _assign_groups(
    pool: Pool, section: Mapping[str, Any], seed: int
) -> tuple[split_rules.Assignment, tuple[str, ...], tuple[float, ...]]:
    """Splits by whole groups (places, near-duplicates, folds); also returns notes and the bounds of the tiles."""
    keys: list[Sequence[Any]] = [pool.digests]
    notes: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    if section["split_by"] == "place":
        tile_places = _places(pool, section)
        keys.append(tile_places.names)
        bounds = tile_places.bounds
        notes += (f"split by place: {len(set(tile_places.names))} places{_extent(bounds)}",)
        if section["unlabeled_dir"]:
            notes += ("warning: where the tiles of unlabeled_dir lie is unknown; some may be next to a test tile",)
    pairs: list[tuple[int, int]] = []
    if section["group_near_duplicates"]:
        pairs = near_duplicates.pairs(near_duplicates.thumbnails(pool.images))
        notes += (f"{len(pairs)} pairs of near-duplicates are kept together",)
    assignment = split_rules.assign_groups(
        pool,
        connected_groups(*keys, pairs=pairs),
        test_fraction=section["test_fraction"],
        validation_fraction=section["validation_fraction"],
        fold=section["fold"],
        seed=seed,
    )
    return assignment, notes, bounds


def _places(pool: Pool, section: Mapping[str, Any]) -> places.Places:
    if section["places"]:
        return places.from_table(section["places"], pool.names, section["block_km"])
    return places.from_tiles(pool.names, read_named(section["path"], pool.names), section["block_km"])


def locations(section: Mapping[str, Any], names: Sequence[str]) -> np.ndarray | None:
    """Returns the location of each example, whether or not the split is by place.

    Args:
        section: config.dataset.
        names: names of the examples, without those of `unlabeled_dir`.

    Returns:
        (N, 2) float64, longitude and latitude in degrees, NaN where an example's is unknown; None if all are unknown.

    Raises:
        InputError: the table or a file can no longer be read.
    """
    if section["places"]:
        centers = places.from_table(section["places"], names, section["block_km"]).centers
        return None if np.isnan(centers).all() else centers
    if section["source"] != "folder":
        return None
    # A sample over all classes comes first: if no tile in it has a location, the others are not read.
    sample_names = names[:: 1 + len(names) // _PROBED_TILES]
    if places.centers_of(sample_names, read_named(section["path"], sample_names)) is None:
        return None
    return places.centers_of(names, read_named(section["path"], names))


def _extent(bounds: tuple[float, ...]) -> str:
    """The bounds of the tiles in words, so that the user can check them."""
    if not bounds:
        return ""
    west, south, east, north = bounds
    return f" between {west:.2f} and {east:.2f} degrees of longitude, {south:.2f} and {north:.2f} of latitude"


def _build(
    pool: Pool, assignment: split_rules.Assignment, label_fraction: float, seed: int
) -> tuple[Split, Split, Split, tuple[str, ...], tuple[str, ...]]:
    """Builds the three splits and applies `label_fraction`.

    Where a label is hidden, a training example stays as an unlabeled one, and a validation example is dropped.

    Returns:
        Train, validation and test; the names of the examples whose label is hidden; and notes.
    """
    labels = pool.labels
    train, validation = assignment.train, assignment.validation
    train_labels = labels[train]
    hidden_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    if label_fraction < 1:
        keeps_label = split_rules.hide_labels(
            "train", [pool.names[i] for i in train], train_labels, label_fraction, seed
        )
        hidden_names += tuple(pool.names[i] for i in train[~keeps_label & (train_labels >= 0)])
        train_labels = np.where(keeps_label, train_labels, UNLABELED)
        # An unlabeled validation example measures nothing, so it is dropped.
        keeps_label = split_rules.hide_labels(
            "validation", [pool.names[i] for i in validation], labels[validation], label_fraction, seed
        )
        hidden_names += tuple(pool.names[i] for i in validation[~keeps_label])
        validation = validation[keeps_label]
    if hidden_names:
        notes = (
            f"label_fraction {label_fraction:g}: {(train_labels >= 0).sum()} of {(labels[train] >= 0).sum()} training "
            f"labels and {len(validation)} of {len(assignment.validation)} validation examples are kept",
        )
    return (
        pool.take(train, train_labels),
        pool.take(validation, labels[validation]),
        pool.take(assignment.test, labels[assignment.test]),
        hidden_names,
        notes,
    )


def _with_unlabeled(
    train: Split, held_out: np.ndarray, pool: Pool, section: Mapping[str, Any], context: Context
) -> tuple[Split, dict[str, str], tuple[str, ...]]:
    """Adds the tiles of unlabeled_dir to train, but for those that show a validation or test image.

    Pixel-identical tiles are always dropped, near-duplicates only with `group_near_duplicates`.

    Args:
        train: the training split.
        held_out: (n,) int, indices in the pool of the validation and test examples.
        pool: all examples of the source.
        section: config.dataset.
        context: seed, cache and log.

    Returns:
        The larger training split, the digests of the added tiles by name, and notes.

    Raises:
        InputError: every tile was dropped, or the tiles cannot be read.
    """
    tiles = load_unlabeled(section, context, pool.meaning)
    held_out_digests = {pool.digests[i] for i in held_out}
    keep = np.array([digest not in held_out_digests for digest in tiles.digests])
    notes = tuple(f"unlabeled tiles: {note}" for note in tiles.notes)
    if not keep.all():
        notes += (f"{(~keep).sum()} unlabeled tiles dropped: pixel-identical to a validation or test image",)
    if section["group_near_duplicates"]:
        held_out_thumbnails = near_duplicates.thumbnails(Rows.of(pool.images).select(held_out))
        correlations, _ = near_duplicates.closest(near_duplicates.thumbnails(tiles.images), held_out_thumbnails)
        is_near = keep & (correlations >= near_duplicates.LEAST)
        if is_near.any():
            notes += (f"{is_near.sum()} unlabeled tiles dropped: nearly the same as a validation or test image",)
        keep &= ~is_near
    added = {name: digest for name, digest, is_kept in zip(tiles.names, tiles.digests, keep, strict=True) if is_kept}
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
        np.concatenate([train.image_hashes(), tiles.hashes[keep]]),
    )
    return merged, added, notes


def _counts(classes: tuple[str, ...], train: Split, validation: Split, test: Split) -> tuple[str, ...]:
    """Notes on the image counts of each class, with a warning where a class has few labeled images."""
    counts = np.stack(
        [np.bincount(split.labels[split.labels >= 0], minlength=len(classes)) for split in (train, validation, test)]
    )
    counts_by_class = ", ".join(f"{name} {'/'.join(map(str, counts[:, k]))}" for k, name in enumerate(classes))
    unlabeled = int((train.labels < 0).sum())
    notes: tuple[str, ...] = (
        f"{len(classes)} classes with training/validation/test images: {counts_by_class}"
        + (f"; {unlabeled} training images without a label" if unlabeled else ""),
    )
    for side, side_counts in zip(("training", "validation"), counts, strict=False):
        small = [
            f"{name} ({count})" for name, count in zip(classes, side_counts, strict=True) if count < _FEW_LABELS[side]
        ]
        if small:
            notes += (f"warning: fewer than {_FEW_LABELS[side]} labeled {side} images of {', '.join(small)}",)
    return notes
