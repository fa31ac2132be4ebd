"""Finds the classes and the splits in the folders of a data set.

    <class>/<name>.jpg              or inside wrapping folders: uc_merced/<class>/<name>.jpg
    train/<class>/<name>.jpg        the folder's own split is kept: train, val or validation, test

The name of an example is its path below the wrapping folders, with '/', in Unicode's form NFC, because macOS and Linux
spell the same letters differently. Folders that could be splits as well as classes are refused, and the user decides.
"""

from __future__ import annotations

import collections
import dataclasses
import re
import unicodedata
from collections.abc import Sequence

from kdjax.data.image_files import Files
from kdjax.errors import InputError, first_few, is_unsafe

SIDE_OF = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
"""Lower-case name of a split folder -> the side that it holds."""

_PART = re.compile(
    r"(?:.*[-_. ])?"
    r"(?:train|training|trn|trainval|val|valid|validation|dev|test|testing|tst|eval|evaluation|pred|prediction|predict"
    r"|holdout|fold|split|part|partition|subset)s?"
    r"(?:[-_. ]?(?:set|data|dataset|images?|imgs?|split|\d+))*"
)
_VEHICLES = ("train", "trains")  # also possible names of a class
_CONTAINERS = frozenset(
    "images image imgs img pictures previews preview rgb masks mask labels annotations jpg jpeg png tif tiff data "
    "original originals raw resized small large sample samples unlabeled unlabelled".split()
)


@dataclasses.dataclass(frozen=True)
class Layout:
    """The examples among the files.

    Attributes:
        classes: class names, ascending.
        file_indices: index of each example's file.
        names: name of each example.
        labels: class of each example, as an index into `classes`.
        sides: side of each example: 'train', 'validation', 'test' or ''.
        notes: facts worth logging.
    """

    classes: tuple[str, ...]
    file_indices: tuple[int, ...]
    names: tuple[str, ...]
    labels: tuple[int, ...]
    sides: tuple[str, ...]
    notes: tuple[str, ...]


def names_of(paths: Sequence[str]) -> list[str]:
    """The name of each image in the data set."""
    return ["/".join(_to_nfc(parts)) for parts in _strip_wrappers(paths)]


def find(files: Files, origin: str) -> Layout:
    """Interprets the folders as classes, or as splits that hold classes.

    Args:
        files: the files, at least one of them an image.
        origin: the config field and the path, for messages.

    Raises:
        InputError: there are no class folders or only one class, folders could be splits as well as classes, or names
            are equal, not UTF-8 or not printable.
    """
    check_names(files.paths, origin)
    raw_parts = _strip_wrappers(files.paths)
    parts_of = [_to_nfc(parts) for parts in raw_parts]
    notes = []
    wrapper = _wrapper(files.paths, raw_parts)
    if wrapper:
        notes.append(f"{'/'.join(_to_nfc(wrapper))} holds every folder, so it is not taken for a class")
    stray = [path for path, parts in zip(files.paths, parts_of, strict=True) if len(parts) < 2]
    if stray:
        notes.append(f"{len(stray)} images outside class folders left out: {first_few(stray)}")
    sides = _sides(parts_of, origin)
    class_depth = 1 if sides else 0
    file_indices = [i for i, parts in enumerate(parts_of) if len(parts) >= 2 + class_depth]
    classes = tuple(sorted({parts_of[i][class_depth] for i in file_indices}))
    if not classes:
        raise InputError(f"{origin} has no class folders: put the images of each class into a folder of its own")
    if len(classes) < 2:
        raise InputError(f"{origin} has only one class ({classes[0]}): give at least two class folders")
    _check_classes(classes, [raw_parts[i][: class_depth + 1] for i in file_indices], origin)
    notes += _empty_folders(files, wrapper, class_depth, {parts_of[i][: class_depth + 1] for i in file_indices})
    notes += _folders_within(parts_of, file_indices, class_depth)
    names = ["/".join(parts_of[i]) for i in file_indices]
    # Two files whose names spell a letter differently in Unicode would get the same name.
    name, count = collections.Counter(names).most_common(1)[0]
    if count > 1:
        raise InputError(f"{origin} holds {name} twice: rename one of them")
    label_of = {name: k for k, name in enumerate(classes)}
    return Layout(
        classes,
        tuple(file_indices),
        tuple(names),
        tuple(label_of[parts_of[i][class_depth]] for i in file_indices),
        tuple(sides.get(parts_of[i][0].lower(), "") for i in file_indices),
        tuple(notes),
    )


def check_names(paths: Sequence[str], origin: str) -> None:
    """Refuses file names that cannot be encoded as UTF-8 or that could control a terminal.

    Raises:
        InputError: names the first path that is not UTF-8 or holds control characters.
    """
    for path in paths:
        if path.isascii() and path.isprintable():
            continue
        try:
            path.encode()
        except UnicodeEncodeError:
            raise InputError(f"{origin}: the name of {ascii(path)} is not UTF-8: rename it") from None
        if any(map(is_unsafe, path)):
            raise InputError(f"{origin}: the name of {ascii(path)} holds control characters: rename it")


def _to_nfc(parts: Sequence[str]) -> tuple[str, ...]:
    return tuple(part if part.isascii() else unicodedata.normalize("NFC", part) for part in parts)


def _strip_wrappers(paths: Sequence[str]) -> list[tuple[str, ...]]:
    """Splits paths into parts and removes leading folders that hold all others, as long as class folders remain."""
    parts_of = [tuple(path.split("/")) for path in paths]
    while len({parts[0] for parts in parts_of if len(parts) > 1}) == 1 and any(len(parts) >= 3 for parts in parts_of):
        parts_of = [parts[1:] if len(parts) > 1 else parts for parts in parts_of]
    return parts_of


def _sides(parts_of: Sequence[tuple[str, ...]], origin: str) -> dict[str, str]:
    """The data set's own splits: lower-case name of a top folder -> side; {} if the top folders are classes."""
    tops = {parts[0] for parts in parts_of if len(parts) >= 2}
    # A class may be called "train" (the railway kind), but its images lie directly in it.
    sides = {
        top.lower()
        for top in tops
        if top.lower() in SIDE_OF and all(len(parts) >= 3 for parts in parts_of if parts[0] == top and len(parts) >= 2)
    }
    if not sides & {"train", "training"}:
        _refuse_parts(tops, parts_of, origin)
        return {}
    others = sorted(top for top in tops if top.lower() not in sides)
    flat = [top for top in others if top.lower() in SIDE_OF]
    if flat:
        raise InputError(
            f"{origin} has class folders in {', '.join(sorted(sides))}, but the images of {flat[0]} lie in none: move "
            "that folder elsewhere; without labels its images can be dataset.unlabeled_dir"
        )
    if others:
        raise InputError(
            f"{origin} has both split folders ({', '.join(sorted(sides))}) and other folders "
            f"({', '.join(others[:5])}): keep either"
        )
    return {top: SIDE_OF[top] for top in sides}


def _refuse_parts(tops: set[str], parts_of: Sequence[tuple[str, ...]], origin: str) -> None:
    """Refuses top folders that may be parts of a data set (seg_train, fold0, previews) rather than classes."""
    parts = {top for top in tops if _PART.fullmatch(top.lower())}
    folders: dict[str, set[str]] = {top: set() for top in tops}
    for path in parts_of:
        if len(path) >= 3:
            folders[path[0]].add(path[1])
    suspects = parts | {top for top in tops if top.lower() in _CONTAINERS}
    alike = {
        top
        for top in suspects
        if any(folders[top] & classes_with_splits for other, classes_with_splits in folders.items() if other != top)
    }
    # Images/forest and Images/river next to figures: the classes lie in the container.
    alike |= {top for top in suspects - parts if len(folders[top]) > 1}
    nested = {top for top in tops if len(folders[top]) > 1}
    if len(nested) == 1:  # eurosat_rgb/forest and eurosat_rgb/river next to figures
        alike |= {top for top in nested if re.split("[-_. ]", top.lower())[-1] in _CONTAINERS}
    # extra/forest next to forest and river.
    names = {top.casefold(): top for top in tops}
    alike |= {top for top in tops for name in folders[top] if names.get(name.casefold(), top) != top}
    if alike or len(parts) > 1 or any(top.lower() not in _VEHICLES for top in parts):
        raise InputError(
            f"{origin} holds {first_few(sorted(alike or parts))}: are these parts of a data set, not classes? Name the "
            "folders train, val and test, give the folder that holds the class folders, or rename a class of such a "
            "name"
        )
    split_folders = {
        top: {name for name in folders[top] if SIDE_OF.get(name.lower(), "train") != "train"} for top in tops
    }
    classes_with_splits = sorted(top for top in tops if split_folders[top])
    if classes_with_splits:
        example = f"{classes_with_splits[0]}/{min(split_folders[classes_with_splits[0]])}"
        raise InputError(
            f"{origin} has split folders inside classes, as {example}: put the classes into them, as "
            f"{'/'.join(reversed(example.split('/')))}, or merge them"
        )


def _check_classes(classes: Sequence[str], folders: Sequence[tuple[str, ...]], origin: str) -> None:
    """Refuses class names that look the same.

    Args:
        classes: class names.
        folders: the folder of each example as spelled on disk, preceded by its split folder if there is one.
        origin: the config field and the path, for messages.
    """
    spelled: dict[tuple[str, ...], set[tuple[str, ...]]] = collections.defaultdict(set)
    for folder in set(folders):
        spelled[_to_nfc(folder)].add(folder)
    for parts, spellings in spelled.items():
        if len(spellings) > 1:
            raise InputError(
                f"{origin} has two folders called {'/'.join(parts)}, spelled differently in Unicode: merge them"
            )
    alike: dict[str, str] = {}
    for name in classes:
        key = unicodedata.normalize("NFKC", name).casefold().strip()
        if key in alike:
            raise InputError(f"{origin} has the classes {alike[key]!r} and {name!r}: merge them, or rename one")
        alike[key] = name


def _wrapper(paths: Sequence[str], raw_parts: Sequence[tuple[str, ...]]) -> list[str]:
    """The folders that `_strip_wrappers` removed."""
    deepest = max(range(len(raw_parts)), key=lambda i: len(raw_parts[i]))
    components = paths[deepest].split("/")
    return components[: len(components) - len(raw_parts[deepest])]


def _empty_folders(files: Files, prefix: list[str], class_depth: int, class_folders: set[tuple[str, ...]]) -> list[str]:
    """A note on folders at the level of the classes, below the folders `prefix`, that hold no example."""
    level = len(prefix) + class_depth + 1
    empty = []
    for folder in files.folders:
        parts = folder.split("/")
        if (
            len(parts) == level
            and parts[: len(prefix)] == prefix
            and _to_nfc(parts[len(prefix) :]) not in class_folders
        ):
            empty.append("/".join(parts[len(prefix) :]))
    return [f"{len(empty)} folders without an image are not classes: {first_few(empty)}"] if empty else []


def _folders_within(parts_of: Sequence[tuple[str, ...]], file_indices: Sequence[int], class_depth: int) -> list[str]:
    """A note on classes whose images lie in several folders.

    The user may have meant these as the classes, or as images put aside. A single folder around all images of a class
    is no cause for a note.
    """
    within: dict[str, set[str]] = collections.defaultdict(set)
    for i in file_indices:
        within[parts_of[i][class_depth]].add(parts_of[i][class_depth + 1] if len(parts_of[i]) > class_depth + 2 else "")
    several = sorted(name for name, folders in within.items() if len(folders) > 1)
    if not several:
        return []
    example = f"{several[0]} ({first_few(sorted(within[several[0]] - {''}))})"
    have = "class has" if len(several) == 1 else "classes have"
    return [f"{len(several)} {have} subfolders, whose names are ignored: {example}"]
