"""Which class and which split the folders of a data set mean.

    <class>/<name>.jpg              or inside wrapping folders: uc_merced/<class>/<name>.jpg
    train/<class>/<name>.jpg        the folder's own split is kept: train, val or validation, test

A name in the data set is the path below the wrapping folders, with '/', in Unicode's form NFC: macOS and Linux spell
the same letters differently. Where folders may be splits as well as classes, that is a question to the user.
"""

from __future__ import annotations

import collections
import dataclasses
import re
import unicodedata
from collections.abc import Sequence

from kdjax.data.image_files import Files
from kdjax.errors import InputError, listed, unseen

SIDE_OF = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
"""What splits may be called, in lower case -> the side that they are."""

_PART = re.compile(
    r"(?:.*[-_. ])?"
    r"(?:train|training|trn|trainval|val|valid|validation|dev|test|testing|tst|eval|evaluation|pred|prediction|predict"
    r"|holdout|fold|split|part|partition|subset)s?"
    r"(?:[-_. ]?(?:set|data|dataset|images?|imgs?|split|\d+))*"
)
_VEHICLES = ("train", "trains")  # a class may be called so
_CONTAINERS = frozenset(
    "images image imgs img pictures previews preview rgb masks mask labels annotations jpg jpeg png tif tiff data "
    "original originals raw resized small large sample samples unlabeled unlabelled".split()
)


@dataclasses.dataclass(frozen=True)
class Layout:
    """The examples among the files.

    Attributes:
        classes: class names, ascending.
        chosen: index of each example's file.
        names: name of each example.
        labels: index into the classes of each example.
        sides: 'train', 'validation', 'test' or '' of each example.
        notes: facts worth logging.
    """

    classes: tuple[str, ...]
    chosen: tuple[int, ...]
    names: tuple[str, ...]
    labels: tuple[int, ...]
    sides: tuple[str, ...]
    notes: tuple[str, ...]


def names_of(paths: Sequence[str]) -> list[str]:
    """The name in the data set of every image."""
    return ["/".join(_normal(parts)) for parts in _strip_wrappers(paths)]


def find(files: Files, where: str) -> Layout:
    """Takes the folders for classes, or for splits and classes.

    Args:
        files: there is one image at least.
        where: the config field and the path, for messages.

    Raises:
        InputError: no class folders, one class only, folders that may be splits as well as classes, names that are
            equal, not UTF-8 or not printable.
    """
    check_names(files.paths, where)
    raw = _strip_wrappers(files.paths)
    split = [_normal(parts) for parts in raw]
    notes = []
    wrapper = _wrapper(files.paths, raw)
    if wrapper:
        notes.append(f"{'/'.join(_normal(wrapper))} holds every folder, so it is not taken for a class")
    stray = [path for path, parts in zip(files.paths, split, strict=True) if len(parts) < 2]
    if stray:
        notes.append(f"{len(stray)} images outside class folders left out: {listed(stray)}")
    sides = _sides(split, where)
    below = 1 if sides else 0
    chosen = [i for i, parts in enumerate(split) if len(parts) >= 2 + below]
    classes = tuple(sorted({split[i][below] for i in chosen}))
    if not classes:
        raise InputError(f"{where} has no class folders: put the images of each class into a folder of its own")
    if len(classes) < 2:
        raise InputError(f"{where} has only one class ({classes[0]}): give at least two class folders")
    _check_classes(classes, [raw[i][: below + 1] for i in chosen], where)
    notes += _empty_folders(files, wrapper, below, {split[i][: below + 1] for i in chosen})
    notes += _folders_within(split, chosen, below)
    names = ["/".join(split[i]) for i in chosen]
    # Two spellings of one letter could make two files one name.
    name, count = collections.Counter(names).most_common(1)[0]
    if count > 1:
        raise InputError(f"{where} holds {name} twice: rename one of them")
    number = {name: k for k, name in enumerate(classes)}
    return Layout(
        classes,
        tuple(chosen),
        tuple(names),
        tuple(number[split[i][below]] for i in chosen),
        tuple(sides.get(split[i][0].lower(), "") for i in chosen),
        tuple(notes),
    )


def check_names(paths: Sequence[str], where: str) -> None:
    """Refuses names that could not be written to a file, or would do something to a terminal.

    Raises:
        InputError: names the first that is not UTF-8, or holds control characters.
    """
    for path in paths:
        if path.isascii() and path.isprintable():
            continue
        try:
            path.encode()
        except UnicodeEncodeError:
            raise InputError(f"{where}: the name of {ascii(path)} is not UTF-8: rename it") from None
        if any(map(unseen, path)):
            raise InputError(f"{where}: the name of {ascii(path)} holds control characters: rename it")


def _normal(parts: Sequence[str]) -> tuple[str, ...]:
    return tuple(part if part.isascii() else unicodedata.normalize("NFC", part) for part in parts)


def _strip_wrappers(paths: Sequence[str]) -> list[tuple[str, ...]]:
    """Splits paths and removes leading folders that hold all folders, as long as class folders remain below."""
    split = [tuple(path.split("/")) for path in paths]
    while len({parts[0] for parts in split if len(parts) > 1}) == 1 and any(len(parts) >= 3 for parts in split):
        split = [parts[1:] if len(parts) > 1 else parts for parts in split]
    return split


def _sides(split: Sequence[tuple[str, ...]], where: str) -> dict[str, str]:
    """The folder's own split: lower-case name of a top folder -> side; {} where the top folders are classes."""
    tops = {parts[0] for parts in split if len(parts) >= 2}
    # A class may be called "train" (the railway kind): its images lie directly in it.
    sides = {
        top.lower()
        for top in tops
        if top.lower() in SIDE_OF and all(len(parts) >= 3 for parts in split if parts[0] == top and len(parts) >= 2)
    }
    if not sides & {"train", "training"}:
        _refuse_parts(tops, split, where)
        return {}
    others = sorted(top for top in tops if top.lower() not in sides)
    flat = [top for top in others if top.lower() in SIDE_OF]
    if flat:
        raise InputError(
            f"{where} has class folders in {', '.join(sorted(sides))}, but the images of {flat[0]} lie in none: move "
            "that folder elsewhere; without labels its images can be dataset.unlabeled_dir"
        )
    if others:
        raise InputError(
            f"{where} has both split folders ({', '.join(sorted(sides))}) and other folders "
            f"({', '.join(others[:5])}): keep either"
        )
    return {top: SIDE_OF[top] for top in sides}


def _refuse_parts(tops: set[str], split: Sequence[tuple[str, ...]], where: str) -> None:
    """Asks where the top folders may be parts of a data set (seg_train, fold0, previews) rather than classes."""
    parts = {top for top in tops if _PART.fullmatch(top.lower())}
    folders: dict[str, set[str]] = {top: set() for top in tops}
    for path in split:
        if len(path) >= 3:
            folders[path[0]].add(path[1])
    suspects = parts | {top for top in tops if top.lower() in _CONTAINERS}
    alike = {top for top in suspects if any(folders[top] & inside for other, inside in folders.items() if other != top)}
    # Images/forest and Images/river beside figures: the classes lie in the container.
    alike |= {top for top in suspects - parts if len(folders[top]) > 1}
    nested = {top for top in tops if len(folders[top]) > 1}
    if len(nested) == 1:  # eurosat_rgb/forest and eurosat_rgb/river beside figures
        alike |= {top for top in nested if re.split("[-_. ]", top.lower())[-1] in _CONTAINERS}
    # Beside forest and river: extra/forest.
    names = {top.casefold(): top for top in tops}
    alike |= {top for top in tops for name in folders[top] if names.get(name.casefold(), top) != top}
    if alike or len(parts) > 1 or any(top.lower() not in _VEHICLES for top in parts):
        raise InputError(
            f"{where} holds {listed(sorted(alike or parts))}: are these parts of a data set, not classes? Name the "
            "folders train, val and test, give the folder that holds the class folders, or rename a class of such a "
            "name"
        )
    held = {top: {name for name in folders[top] if SIDE_OF.get(name.lower(), "train") != "train"} for top in tops}
    inside = sorted(top for top in tops if held[top])
    if inside:
        one = f"{inside[0]}/{min(held[inside[0]])}"
        raise InputError(
            f"{where} has split folders inside classes, as {one}: put the classes into them, as "
            f"{'/'.join(reversed(one.split('/')))}, or merge them"
        )


def _check_classes(classes: Sequence[str], folders: Sequence[tuple[str, ...]], where: str) -> None:
    """Refuses class names that are equal to the eye.

    Args:
        classes: class names.
        folders: the folder of each example as it is spelled, with its split where there is one.
        where: for messages.
    """
    spelled: dict[tuple[str, ...], set[tuple[str, ...]]] = collections.defaultdict(set)
    for folder in set(folders):
        spelled[_normal(folder)].add(folder)
    for parts, spellings in spelled.items():
        if len(spellings) > 1:
            raise InputError(
                f"{where} has two folders called {'/'.join(parts)}, spelled differently in Unicode: merge them"
            )
    alike: dict[str, str] = {}
    for name in classes:
        key = unicodedata.normalize("NFKC", name).casefold().strip()
        if key in alike:
            raise InputError(f"{where} has the classes {alike[key]!r} and {name!r}: merge them, or rename one")
        alike[key] = name


def _wrapper(paths: Sequence[str], raw: Sequence[tuple[str, ...]]) -> list[str]:
    """The folders that `_strip_wrappers` removed."""
    deepest = max(range(len(raw)), key=lambda i: len(raw[i]))
    whole = paths[deepest].split("/")
    return whole[: len(whole) - len(raw[deepest])]


def _empty_folders(files: Files, prefix: list[str], below: int, full: set[tuple[str, ...]]) -> list[str]:
    """A note on folders where classes are expected, inside the folders `prefix`, without an image that counts."""
    level = len(prefix) + below + 1
    empty = []
    for folder in files.folders:
        parts = folder.split("/")
        if len(parts) == level and parts[: len(prefix)] == prefix and _normal(parts[len(prefix) :]) not in full:
            empty.append("/".join(parts[len(prefix) :]))
    return [f"{len(empty)} folders without an image are not classes: {listed(empty)}"] if empty else []


def _folders_within(split: Sequence[tuple[str, ...]], chosen: Sequence[int], below: int) -> list[str]:
    """A note on classes whose images lie in several folders.

    A person may take these for the classes, or for what has been put aside. A folder around all images of a class is
    neither.
    """
    within: dict[str, set[str]] = collections.defaultdict(set)
    for i in chosen:
        within[split[i][below]].add(split[i][below + 1] if len(split[i]) > below + 2 else "")
    several = sorted(name for name, folders in within.items() if len(folders) > 1)
    if not several:
        return []
    example = f"{several[0]} ({listed(sorted(within[several[0]] - {''}))})"
    have = "class has" if len(several) == 1 else "classes have"
    return [f"{len(several)} {have} subfolders, whose names are ignored: {example}"]
