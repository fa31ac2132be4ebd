"""What can be checked of config.dataset without data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kdjax import config
from kdjax.data import bands, class_weights
from kdjax.data.meaning import is_range
from kdjax.data.sources import SOURCES
from kdjax.errors import InputError

SIZES = (32, 4096)  # px

_DEMO = ("demo_classes", "demo_train", "demo_validation", "demo_test")

# Fields that a source does not read, and a source that does.
_UNREAD = {
    "demo": {
        **dict.fromkeys(("path", "sensor", "file_bands", "test_fraction", "validation_fraction"), "folder"),
        **dict.fromkeys(("builder", "tfds_splits"), "tfds"),
    },
    "folder": {**dict.fromkeys(("builder", "tfds_splits"), "tfds"), **dict.fromkeys(_DEMO, "demo")},
    "tfds": dict.fromkeys(_DEMO, "demo"),
}


def check(section: Mapping[str, Any]) -> None:
    """Checks every field of config.dataset.

    Args:
        section: config.dataset, complete.

    Raises:
        InputError: names the first field that is wrong.
    """
    _choice(section, "source", tuple(SOURCES))
    defaults = config.base().dataset
    for field, reader in _UNREAD.get(section["source"], {}).items():
        if section[field] and section[field] != defaults[field]:
            raise InputError(
                f"dataset.{field} is {section[field]}, but dataset.source is {section['source']!r} and does not read "
                f"it: set dataset.source={reader}, or leave it out; configs/folder.py is a config for your own tiles"
            )
    for field in ("path", "builder", "splits", "places", "unlabeled_dir"):
        if not isinstance(section[field], (str, type(None))):
            raise InputError(f"dataset.{field}: {section[field]!r} is not text")
    for field in ("image_size", "storage_size"):
        _whole(section, field, *SIZES, "pixels")
    for field in _DEMO:
        _whole(section, field, 1, 10**6, "")
    for field in ("test_fraction", "validation_fraction"):
        if not (_is_number(section[field]) and 0 < section[field] < 1):
            raise InputError(f"dataset.{field}: {_shown(section[field])} is out of range, it must lie between 0 and 1")
    fraction = section["label_fraction"]
    if not (_is_number(fraction) and 0 < fraction <= 1):
        raise InputError(f"dataset.label_fraction: {_shown(fraction)} is out of range, it must be above 0, at most 1")
    _choice(section, "unlabeled", ("keep", "drop"))
    if section["unlabeled"] == "drop" and section["unlabeled_dir"]:
        raise InputError("dataset.unlabeled is 'drop', but dataset.unlabeled_dir adds such images: choose one of them")
    class_weights.check("dataset.class_weights", section["class_weights"])
    _choice(section, "sampling", ("uniform", "balanced"))
    check_both("dataset.class_weights", section["class_weights"], section["sampling"])
    _choice(section, "on_error", ("refuse", "skip"))
    bands.check(section)
    _check_split(section)
    _check_unread(section, defaults)
    splits = section["tfds_splits"]
    if not _is_list(splits) or len(splits) not in (0, 3) or not all(isinstance(one, str) for one in splits):
        raise InputError(
            f"dataset.tfds_splits: give none or three split strings (train, validation, test), not {splits!r}"
        )
    value_range = section["value_range"]
    if not _is_list(value_range) or (len(value_range) and not is_range(value_range)):
        raise InputError(f"dataset.value_range: {value_range!r} must be () or (low, high) with low < high")


def check_both(field: str, weights: Any, sampling: str) -> None:
    """Whether class weights and the way of drawing go together.

    Raises:
        InputError: both even out the classes.
    """
    if sampling == "balanced" and class_weights.is_balanced(weights):
        raise InputError(
            f"{field} and dataset.sampling are both 'balanced': a rare class would count twice over; choose one of them"
        )


def _check_split(section: Mapping[str, Any]) -> None:
    _choice(section, "split_by", ("image", "place"))
    if not (_is_number(section["block_km"]) and 0.001 <= section["block_km"] <= 1000):
        raise InputError(
            f"dataset.block_km: {_shown(section['block_km'])} is out of range, it must be 0.001 (a meter) to 1000"
        )
    fold = section["fold"]
    whole = _is_list(fold) and all(isinstance(one, int) and not isinstance(one, bool) for one in fold)
    if not whole or (len(fold) and not (len(fold) == 2 and 0 <= fold[0] < fold[1] and fold[1] >= 2)):
        raise InputError(f"dataset.fold: {fold!r} must be () or (number, folds) with number from 0 to folds − 1")
    if section["places"] and section["split_by"] != "place":
        raise InputError("dataset.places is given, but dataset.split_by is 'image': set it to 'place'")
    if section["split_by"] == "place" and section["source"] == "demo":
        raise InputError("dataset.split_by is 'place', but rendered scenes have no location: set it to 'image'")
    if section["split_by"] == "place" and section["source"] != "folder" and not section["places"]:
        raise InputError(
            "dataset.split_by is 'place': only the files of source 'folder' have locations; give dataset.places"
        )
    grouped = {"split_by": section["split_by"] == "place", "group_near_duplicates": section["group_near_duplicates"]}
    for field in (*(name for name in grouped if grouped[name]), *(("fold",) if fold else ())):
        if section["splits"]:
            raise InputError(
                f"dataset.splits names the images of each side, so dataset.{field} does nothing: leave one out"
            )


def _check_unread(section: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuses what would change nothing of the split, where it is not at its default."""
    reasons = {
        ("block_km",): section["split_by"] != "place"
        and "only dataset.split_by='place' reads it: set that too, or leave this out",
        ("test_fraction", "validation_fraction"): section["splits"]
        and "dataset.splits names the images of each side: leave one of them out",
        ("test_fraction",): section["fold"]
        and "dataset.fold decides how large the test split is: leave one of them out",
    }
    for fields, reason in reasons.items():
        for field in fields:
            if reason and section[field] != defaults[field]:
                raise InputError(f"dataset.{field} is {_shown(section[field])}, but {reason}")


def _choice(section: Mapping[str, Any], field: str, choices: Sequence[str]) -> None:
    if section[field] not in choices:
        raise InputError(f"dataset.{field}: {section[field]!r} is unknown, choose from {', '.join(choices)}")


def _whole(section: Mapping[str, Any], field: str, least: int, most: int, unit: str) -> None:
    value = section[field]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InputError(f"dataset.{field}: {value!r} is out of range, it must be {least} to {most} {unit}".rstrip())


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else repr(value)
