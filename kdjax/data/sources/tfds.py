"""Reads image classification sets of TensorFlow Datasets, prepared as array_record, without TensorFlow."""

from __future__ import annotations

import dataclasses
import difflib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder

from kdjax.data import decode
from kdjax.data.bands import requested_bands
from kdjax.data.dataset import Context, Pool
from kdjax.data.decode_all import Encoded, Raw
from kdjax.data.image_files import stamp
from kdjax.data.ingest import ingest
from kdjax.data.layout import SIDE_OF
from kdjax.errors import InputError, one_line

_DEFAULT_DIR = "~/tensorflow_datasets"


def load(section: Mapping[str, Any], context: Context) -> Pool:
    """Reads a prepared builder from its files; the builder's code is not run.

    Args:
        section: reads `builder` (name, such as 'eurosat/rgb', 'uc_merced' or 'my_set/my_config:1.0.0'), `path` (where
            it was prepared; None = ~/tensorflow_datasets), `tfds_splits` (() or the split strings of train, validation
            and test, such as 'train[:80%]'), and what `ingest` reads. Images that are a Tensor feature, such as those
            of 'eurosat/all', may have any bands, which `sensor` or `file_bands` name.
        context: seed, cache and log.

    Returns:
        The examples. Without `tfds_splits` their sides are the builder's own train, validation and test splits; a
        single split, or splits with other names, are pooled.

    Raises:
        InputError: the builder is unknown, or not prepared as array_record; it is not an image classification set; its
            bands are unknown; or a split is invalid.
    """
    builder = section["builder"]
    if not builder:
        raise InputError("dataset.builder: source 'tfds' needs the name of a builder, such as 'eurosat/rgb'")
    data_dir = os.path.expanduser(section["path"] or _DEFAULT_DIR)
    field = f"dataset.builder {builder}"
    reader = _open(builder, data_dir, field)
    image_key, label_key, name_key = _features(reader.info, field)
    is_tensor = not isinstance(reader.info.features[image_key], tfds.features.Image)
    if is_tensor:
        _check_tensor(reader.info.features[image_key], section, f"{field}: its images, {image_key!r},")
    classes = tuple(
        reader.info.features[label_key].names or [str(k) for k in range(reader.info.features[label_key].num_classes)]
    )
    if len(classes) < 2:
        raise InputError(f"{field}: it has only one class: at least two are needed")
    selection, notes = _choose(reader.info.splits, section["tfds_splits"], field)
    try:
        sources = {
            split: reader.as_data_source(split, decoders={} if is_tensor else {image_key: tfds.decode.SkipDecoding()})
            for split in {split for split, _, _ in selection}
        }
    except (NotImplementedError, ValueError) as error:
        raise InputError(
            f"{field}: under {data_dir} it is not prepared as array_record; remove it or take another "
            f"dataset.path, then {_prepare(builder, data_dir)}"
        ) from error
    titles = [f"{split}/{index:06d}" for split, index, _ in selection]

    def read(k: int) -> Raw:
        split, index, _ = selection[k]
        try:
            record = sources[split][index]
        except ImportError as error:
            raise InputError(
                f"{field}: a feature of this set cannot be read without TensorFlow ({error}): "
                "pip install 'kdjax[tensorflow]'"
            ) from error
        except (ValueError, RuntimeError, IndexError) as error:
            raise decode.DecodeError(f"unreadable record: {error}") from error
        name = record[name_key].decode("utf-8", "replace") if name_key else titles[k]
        image = record[image_key]
        return Raw(name, int(record[label_key]), image if is_tensor else bytes(image))

    ingested = ingest(
        Encoded(field, titles, titles, read, identity=["tfds", _files(reader), classes]),
        section,
        context,
    )
    if len(set(ingested.names)) != len(ingested.names):  # file names may repeat across classes or splits; places do not
        ingested = dataclasses.replace(ingested, names=tuple(titles[row] for row in ingested.rows))
    return ingested.pool(builder, classes, sides=[selection[row][2] for row in ingested.rows], notes=notes)


def _open(builder: str, data_dir: str, field: str) -> Any:
    """Opens the builder that is prepared under `data_dir`."""
    try:
        return read_only_builder.builder_from_files(builder, data_dir=data_dir)
    except (tfds.core.DatasetNotFoundError, FileNotFoundError):
        pass
    except (ValueError, KeyError, AttributeError, OSError) as error:
        raise InputError(f"{field}: its files under {data_dir} cannot be read: {one_line(error)}") from error
    name = builder.split("/")[0].split(":")[0]
    builders = tfds.list_builders(with_community_datasets=False)
    if name not in builders:
        similar = difflib.get_close_matches(name, builders, 3)
        hint = f"; did you mean {', '.join(similar)}?" if similar else ""
        raise InputError(
            f"{field}: nothing of that name is prepared under {data_dir}, and TensorFlow Datasets knows no "
            f"such builder{hint}"
        )
    raise InputError(f"{field}: not prepared under {data_dir}; {_prepare(builder, data_dir)}")


def _prepare(builder: str, data_dir: str) -> str:
    """Advice on how to prepare a builder, for messages."""
    # Not `tfds build`, because in tfds 4.9.10 that command does not start without Apache Beam.
    return (
        "prepare it once, which needs TensorFlow: pip install 'kdjax[tensorflow]' && python -c \"import "
        f"tensorflow_datasets as tfds; tfds.builder('{builder}', data_dir='{data_dir}', "
        "file_format='array_record').download_and_prepare()\""
    )


def _features(info: Any, field: str) -> tuple[str, str, str | None]:
    """The keys of the image, the label and the file name, or None if there is no file name."""
    features = info.features
    if not isinstance(features, tfds.features.FeaturesDict):
        raise InputError(f"{field}: not an image classification set (its examples are no dictionaries)")
    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    images = images or [key for key, feature in features.items() if _is_picture(feature)]
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    supervised = info.supervised_keys
    if supervised and len(supervised) == 2 and supervised[0] in images and supervised[1] in labels:
        image, label = supervised
    elif len(images) == 1 and len(labels) == 1:
        image, label = images[0], labels[0]
    else:
        raise InputError(
            f"{field}: one image and one class label expected, but it has {len(images)} images and "
            f"{len(labels)} class labels among its features ({', '.join(features)})"
        )
    dtype = np.dtype(features[image].np_dtype)
    if isinstance(features[image], tfds.features.Image) and dtype not in (np.uint8, np.uint16):
        raise InputError(f"{field}: its images are {dtype}; uint8 or uint16 expected")
    name = next(
        (
            key
            for key in ("filename", "file_name", "image/filename")
            if key in features and isinstance(features[key], tfds.features.Text)
        ),
        None,
    )
    return image, label, name


def _is_picture(feature: Any) -> bool:
    """Whether a feature is a numeric tensor (height, width, bands)."""
    is_array = isinstance(feature, tfds.features.Tensor) and len(feature.shape) == 3
    return is_array and np.dtype(feature.np_dtype).kind in "uif"


def _check_tensor(feature: Any, section: Mapping[str, Any], subject: str) -> None:
    """Refuses a tensor whose bands the config does not name: unlike a file, a tensor has no band descriptions."""
    count, bands = feature.shape[-1], requested_bands(section)
    if bands is None and count not in (1, 3):
        raise InputError(f"{subject} have {count} bands: say which in dataset.sensor or dataset.file_bands")
    if bands is not None and all(len(order) != count for order in bands.orders):
        lengths = " or ".join(str(length) for length in sorted({len(order) for order in bands.orders}))
        expectation = f"dataset.sensor or file_bands name {lengths}" if lengths else "nothing names them"
        raise InputError(f"{subject} have {count} bands, and {expectation}: give all of them in dataset.file_bands")


def _choose(splits: Any, wanted: Sequence[str], field: str) -> tuple[list[tuple[str, int, str]], list[str]]:
    """Chooses the examples to read, as (split, index, side); also returns notes."""
    selection: list[tuple[str, int, str]] = []
    notes: list[str] = []
    if not wanted:
        side_of = {split: SIDE_OF.get(split.lower(), "") for split in splits}
        if "train" not in side_of.values() or len(side_of) == 1:
            side_of = {split: "" for split in splits}
            if len(side_of) > 1:
                notes.append(
                    f"splits pooled, and drawn anew: {', '.join(side_of)} (name them in dataset.tfds_splits to keep "
                    "them)"
                )
        left_out = [split for split, side in side_of.items() if not side] if any(side_of.values()) else []
        if left_out:
            notes.append(f"splits left out: {', '.join(left_out)} (name them in dataset.tfds_splits to use them)")
        for split, side in side_of.items():
            if split not in left_out:
                selection += [(split, index, side) for index in range(splits[split].num_examples)]
        return selection, notes
    side_by_example: dict[tuple[str, int], str] = {}
    for side, text in zip(("train", "validation", "test"), wanted, strict=True):
        try:
            parts = tfds.core.ReadInstruction.from_spec(text).to_absolute(splits)
        except (ValueError, AssertionError, KeyError, TypeError) as error:
            raise InputError(
                f"dataset.tfds_splits: {text!r} is not a split of {field.split()[-1]}, which has "
                f"{', '.join(splits)} ({one_line(error, 100)})"
            ) from error
        for part in parts:
            count = splits[part.splitname].num_examples
            for index in range(part.from_ or 0, count if part.to is None else part.to):
                if (part.splitname, index) in side_by_example:
                    raise InputError(
                        f"dataset.tfds_splits: {text!r} ({side}) overlaps with {side_by_example[part.splitname, index]}"
                    )
                selection.append((part.splitname, index, side))
                side_by_example[part.splitname, index] = side
        if not any(other == side for _, _, other in selection):
            raise InputError(f"dataset.tfds_splits: {text!r} ({side}) has no examples")
    return selection, notes


def _files(reader: Any) -> list[list[str]]:
    """JSON data that identify a preparation of a builder: its folder, and the names and stamps of its files."""
    folder = pathlib.Path(os.fspath(reader.data_dir))
    return [[str(folder), ""], *([path.name, stamp(path.stat())] for path in sorted(folder.iterdir()))]
