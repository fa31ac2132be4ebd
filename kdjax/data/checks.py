"""Checks of config.dataset that need no data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kdjax import config
from kdjax.data import bands, class_weights
from kdjax.data.meaning import is_range
from kdjax.data.sources import SOURCES
from kdjax.errors import InputError
from kdjax.fields import check_choice, check_number, check_whole, is_list, is_whole

SIZES = (32, 4096)  # px

_DEMO = ("demo_classes", "demo_train", "demo_validation", "demo_test")

# Source -> fields that it does not read, each with a source that does.
_UNREAD_FIELDS = {
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
        section: config.dataset with all its fields.

    Raises:
        InputError: names the first field that is wrong.
    """
    check_choice("dataset.source", section["source"], tuple(SOURCES))
    defaults = config.base().dataset
    for field, reader in _UNREAD_FIELDS.get(section["source"], {}).items():
        if section[field] and section[field] != defaults[field]:
            raise InputError(
                f"dataset.{field} is {section[field]}, but dataset.source is {section['source']!r} and does not read "
                f"it: set dataset.source={reader}, or leave it out; configs/folder.py is a config for your own tiles"
            )
    for field in ("path", "builder", "splits", "places", "unlabeled_dir"):
        if not isinstance(section[field], (str, type(None))):
            raise InputError(f"dataset.{field}: {section[field]!r} is not text")
    for field in ("image_size", "storage_size"):
        check_whole(f"dataset.{field}", section[field], *SIZES)
    for field in _DEMO:
        check_whole(f"dataset.{field}", section[field], 1, 10**6)
    for field in ("test_fraction", "validation_fraction"):
        check_number(f"dataset.{field}", section[field], above=0, below=1)
    check_number("dataset.label_fraction", section["label_fraction"], above=0, most=1)
    check_choice("dataset.unlabeled", section["unlabeled"], ("keep", "drop"))
    if section["unlabeled"] == "drop" and section["unlabeled_dir"]:
        raise InputError("dataset.unlabeled is 'drop', but dataset.unlabeled_dir adds such images: choose one of them")
    class_weights.check("dataset.class_weights", section["class_weights"])
    check_choice("dataset.sampling", section["sampling"], ("uniform", "balanced"))
    check_both("dataset.class_weights", section["class_weights"], section["sampling"])
    check_choice("dataset.on_error", section["on_error"], ("refuse", "skip"))
    bands.check(section)
    _check_split(section)
    _check_unread(section, defaults)
    splits = section["tfds_splits"]
    if not is_list(splits) or len(splits) not in (0, 3) or not all(isinstance(split, str) for split in splits):
        raise InputError(
            f"dataset.tfds_splits: give none or three split strings (train, validation, test), not {splits!r}"
        )
    value_range = section["value_range"]
    if not is_list(value_range) or (len(value_range) and not is_range(value_range)):
        raise InputError(f"dataset.value_range: {value_range!r} must be () or (low, high) with low < high")


def check_both(field: str, weights: Any, sampling: str) -> None:
    """Checks that class weights and the sampling of an epoch do not both balance the classes.

    Raises:
        InputError: they do.
    """
    if sampling == "balanced" and class_weights.is_balanced(weights):
        raise InputError(
            f"{field} and dataset.sampling are both 'balanced': a rare class would count twice over; choose one of them"
        )


def _check_split(section: Mapping[str, Any]) -> None:
    check_choice("dataset.split_by", section["split_by"], ("image", "place"))
    check_number("dataset.block_km", section["block_km"], least=0.001, most=1000)
    fold = section["fold"]
    is_integers = is_list(fold) and all(map(is_whole, fold))
    if not is_integers or (len(fold) and not (len(fold) == 2 and 0 <= fold[0] < fold[1] and fold[1] >= 2)):
        raise InputError(f"dataset.fold: {fold!r} must be () or (number, folds) with number from 0 to folds − 1")
    if section["places"] and section["split_by"] != "place":
        raise InputError("dataset.places is given, but dataset.split_by is 'image': set it to 'place'")
    if section["split_by"] == "place" and section["source"] == "demo":
        raise InputError("dataset.split_by is 'place', but rendered scenes have no location: set it to 'image'")
    if section["split_by"] == "place" and section["source"] != "folder" and not section["places"]:
        raise InputError(
            "dataset.split_by is 'place': only the files of source 'folder' have locations; give dataset.places"
        )
    grouping = {"split_by": section["split_by"] == "place", "group_near_duplicates": section["group_near_duplicates"]}
    for field in (*(name for name in grouping if grouping[name]), *(("fold",) if fold else ())):
        if section["splits"]:
            raise InputError(
                f"dataset.splits names the images of each side, so dataset.{field} does nothing: leave one out"
            )


def _check_unread(section: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Refuses fields with another value than the default that would not affect the split."""
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
                raise InputError(f"dataset.{field} is {section[field]:g}, but {reason}")
