"""Image data sets as uint8 arrays with splits: `load`."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from kdjax.data import splits as split_rules
from kdjax.data.dataset import UNLABELLED, Dataset, Pool, Split, fingerprint
from kdjax.data.sources import demo
from kdjax.data.sources.folder import load_folder, load_unlabelled
from kdjax.errors import InputError

__all__ = ["Dataset", "Split", "load"]

_SOURCES = ("demo", "folder", "tfds")
_MIN_SIZE = 8
_MAX_SIZE = 4096


def load(
    *,
    source: str,
    path: str | None = None,
    builder: str | None = None,
    image_size: int,
    storage_size: int,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.1,
    tfds_splits: Sequence[str] = (),
    splits: str | None = None,
    unlabelled_dir: str | None = None,
    label_fraction: float = 1.0,
    unlabelled: str = "keep",
    on_error: str = "refuse",
    value_range: Sequence[float] = (),
    demo_classes: int = 10,
    demo_train: int = 600,
    demo_validation: int = 200,
    demo_test: int = 400,
    data_seed: int,
    cache_dir: pathlib.Path | None,
    log: Callable[[str], None] = print,
) -> Dataset:
    """Loads a data set, splits it and hides labels as asked. The keyword arguments are the fields of config.dataset.

    Args:
      source: 'demo' (rendered scenes), 'folder' (directory or zip of class folders) or 'tfds'.
      path: folder: the directory or zip; tfds: the data_dir (None = ~/tensorflow_datasets).
      builder: tfds: name of a registered builder, such as 'eurosat/rgb'.
      image_size: side in pixels of the images the student sees; only checked here.
      storage_size: side in pixels of the stored square images.
      test_fraction: of each class, where the source has no test split.
      validation_fraction: of what is not test, where the source has no validation split.
      tfds_splits: () or three split strings (train, validation, test).
      splits: path of a splits.json to use again.
      unlabelled_dir: directory or zip of tiles to add to train without labels.
      label_fraction: share of the labels kept in train and validation, in (0, 1].
      unlabelled: 'keep' or 'drop' the training images that have no label.
      on_error: 'refuse' or 'skip' unreadable images.
      value_range: () or (low, high), the values of 16-bit and float images that become 0 and 255.
      demo_classes, demo_train, demo_validation, demo_test: the numbers of classes and images of the demo.
      data_seed: decides the split, the labels kept and the demo's scenes.
      cache_dir: folder for decoded images; None keeps none.
      log: takes lines of progress.

    Returns:
      Dataset.

    Raises:
      InputError: any field out of range, missing or unreadable data, a split that cannot be used.
    """
    _check(
        source,
        image_size,
        storage_size,
        test_fraction,
        validation_fraction,
        tfds_splits,
        label_fraction,
        unlabelled,
        unlabelled_dir,
        on_error,
        value_range,
    )
    used_range: tuple[float, ...] = ()
    if source == "demo":
        pool = demo.load_demo(
            classes=demo_classes,
            train=demo_train,
            validation=demo_validation,
            test=demo_test,
            storage_size=storage_size,
            data_seed=data_seed,
        )
    elif source == "folder":
        pool, used_range = load_folder(
            path, storage_size=storage_size, value_range=value_range, on_error=on_error, cache_dir=cache_dir, log=log
        )
    else:
        # tfds takes seconds to import: only those who use it pay.
        from kdjax.data.sources.tfds import load_tfds

        pool, used_range = load_tfds(
            builder,
            path,
            tfds_splits=tfds_splits,
            storage_size=storage_size,
            value_range=value_range,
            on_error=on_error,
            cache_dir=cache_dir,
            log=log,
        )
    if splits:
        assigned = split_rules.reuse(splits, pool.names, pool.labels, pool.digests, pool.classes)
    else:
        assigned = split_rules.assign(
            pool.names,
            pool.labels,
            pool.digests,
            pool.sides,
            pool.classes,
            test_fraction=test_fraction,
            validation_fraction=validation_fraction,
            seed=data_seed,
        )
    notes = pool.notes + assigned.notes
    members = {side: tuple(pool.names[i] for i in getattr(assigned, side)) for side in split_rules.SIDES}
    train, validation, test, hidden = _build(pool, assigned, label_fraction, data_seed)
    members["label_hidden"] = hidden
    if hidden:
        notes += (
            f"label_fraction {label_fraction:g}: {(train.labels >= 0).sum()} of {len(train)} training labels "
            f"and {len(validation)} of {len(assigned.validation)} validation examples are kept",
        )
    if unlabelled == "drop":
        notes += (f"{(train.labels < 0).sum()} training images without a label are left out",)
        train = train.labelled()
    members["unlabelled"] = ()
    if unlabelled_dir:
        held = {pool.digests[i] for i in (*assigned.validation, *assigned.test)}
        train, added, more = _with_unlabelled(
            train,
            unlabelled_dir,
            held,
            storage_size=storage_size,
            value_range=used_range or value_range,
            on_error=on_error,
            cache_dir=cache_dir,
            log=log,
        )
        members["unlabelled"] = added
        notes += more
    mark = fingerprint(pool.classes, {"train": train, "validation": validation, "test": test})
    overlap = 0.0 if source == "demo" else None
    if assigned.test_drawn:
        overlap = len(test) / int((pool.labels[np.concatenate([assigned.train, assigned.validation])] >= 0).sum())
    return Dataset(pool.name, pool.classes, train, validation, test, mark, notes, members, overlap, used_range)


def _check(
    source: str,
    image_size: int,
    storage_size: int,
    test_fraction: float,
    validation_fraction: float,
    tfds_splits: Sequence[str],
    label_fraction: float,
    unlabelled: str,
    unlabelled_dir: str | None,
    on_error: str,
    value_range: Sequence[float],
) -> None:
    if source not in _SOURCES:
        raise InputError(f"dataset.source: {source!r} is unknown, choose from {', '.join(_SOURCES)}")
    for field, size in (("image_size", image_size), ("storage_size", storage_size)):
        if not _MIN_SIZE <= size <= _MAX_SIZE:
            raise InputError(f"dataset.{field}: {size} is out of range, it must be {_MIN_SIZE} to {_MAX_SIZE} pixels")
    for field, fraction in (("test_fraction", test_fraction), ("validation_fraction", validation_fraction)):
        if not 0 < fraction < 1:
            raise InputError(f"dataset.{field}: {fraction:g} is out of range, it must lie between 0 and 1")
    if not 0 < label_fraction <= 1:
        raise InputError(f"dataset.label_fraction: {label_fraction:g} is out of range, it must be above 0, at most 1")
    if unlabelled not in ("keep", "drop"):
        raise InputError(f"dataset.unlabelled: {unlabelled!r} is unknown, choose 'keep' or 'drop'")
    if unlabelled == "drop" and unlabelled_dir:
        raise InputError(
            "dataset.unlabelled is 'drop', but dataset.unlabelled_dir adds such images: choose one of them"
        )
    if on_error not in ("refuse", "skip"):
        raise InputError(f"dataset.on_error: {on_error!r} is unknown, choose 'refuse' or 'skip'")
    if len(tfds_splits) not in (0, 3):
        raise InputError(
            f"dataset.tfds_splits: give none or three split strings (train, validation, test), not {len(tfds_splits)}"
        )
    if len(value_range) not in (0, 2) or (
        len(value_range) == 2
        and not (
            all(isinstance(value, (int, float)) for value in value_range)
            and np.isfinite(value_range).all()
            and value_range[0] < value_range[1]
        )
    ):
        raise InputError(f"dataset.value_range: {tuple(value_range)} must be () or (low, high) with low < high")


def _build(
    pool: Pool, assigned: split_rules.Assignment, label_fraction: float, seed: int
) -> tuple[Split, Split, Split, tuple[str, ...]]:
    """The three splits with labels hidden in train, dropped in validation; and the names of those examples."""
    labels = pool.labels
    train, validation = assigned.train, assigned.validation
    train_labels = labels[train]
    hidden: tuple[str, ...] = ()
    if label_fraction < 1:
        stays = split_rules.hide_labels("train", [pool.names[i] for i in train], train_labels, label_fraction, seed)
        hidden += tuple(pool.names[i] for i in train[~stays & (train_labels >= 0)])
        train_labels = np.where(stays, train_labels, UNLABELLED)
        # An unlabelled validation example measures nothing, so it goes.
        stays = split_rules.hide_labels(
            "validation", [pool.names[i] for i in validation], labels[validation], label_fraction, seed
        )
        hidden += tuple(pool.names[i] for i in validation[~stays])
        validation = validation[stays]
    return (
        pool.take(train, train_labels),
        pool.take(validation, labels[validation]),
        pool.take(assigned.test, labels[assigned.test]),
        hidden,
    )


def _with_unlabelled(
    train: Split, path: str, held: set[str], **options: object
) -> tuple[Split, tuple[str, ...], tuple[str, ...]]:
    """Train with the tiles below `path` added, the names added, and notes; tiles in `held` (digests) are dropped."""
    tiles = load_unlabelled(path, **options)
    keep = np.array([digest not in held for digest in tiles.digests])
    notes = tuple(f"unlabelled tiles: {note}" for note in tiles.notes)
    if not keep.all():
        notes += (f"{(~keep).sum()} unlabelled tiles dropped: pixel-identical to a validation or test image",)
    names = tuple(name for name, kept in zip(tiles.names, keep, strict=True) if kept)
    if not names:
        raise InputError(f"dataset.unlabelled_dir: every tile of {path} is a validation or test image")
    notes += (f"{len(names)} unlabelled tiles added to train",)
    merged = Split(
        np.concatenate([train.images, tiles.images[tiles.rows[keep]]]),
        np.concatenate([train.labels, np.full(len(names), UNLABELLED, np.int32)]),
        train.names + names,
    )
    return merged, names, notes
