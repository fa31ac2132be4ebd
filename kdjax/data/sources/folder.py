"""Class folders, in a directory or a zip archive, as land-use data sets are distributed.

    <class>/<name>.jpg              or inside wrapping folders: uc_merced/<class>/<name>.jpg
    train/<class>/<name>.jpg        the folder's own split is kept: train, val or validation, test

A name in the data set is the path below the wrapping folders, with '/'. Hidden files and `__MACOSX` are not looked at;
files that are no jpg, jpeg, png, tif, tiff or bmp are counted in a note. An archive is read in memory: nothing is
extracted.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import pathlib
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from kdjax.data import decode
from kdjax.data.dataset import UNLABELLED, Pool
from kdjax.data.ingest import Ingested, Raw, ingest
from kdjax.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")
_SIDES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


class Files(Protocol):
    """A directory or an archive: paths of its images with '/', something that changes with the content, the bytes.

    `others` are the paths of the files that are no images by their names.
    """

    paths: tuple[str, ...]
    others: tuple[str, ...]
    stamps: tuple[str, ...]
    identity: str

    def read(self, index: int) -> bytes: ...


def read_file(path: pathlib.Path) -> bytes:
    """The bytes of one image file.

    Raises:
      DecodeError: it cannot be read, or is too large.
    """
    try:
        if path.stat().st_size > decode.MAX_FILE_BYTES:
            raise decode.DecodeError(f"the file is larger than {decode.MAX_FILE_BYTES // 2**20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise decode.DecodeError(error.strerror or str(error)) from error


def _hidden(parts: Sequence[str]) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be listed: {error.strerror}")


class _Directory:
    def __init__(self, root: pathlib.Path):
        self._root = root
        # mtimes may agree in two copies of one archive, so the place counts as well.
        self.identity = f"directory {root.resolve()}"
        found = []
        others = []
        seen = set()
        for folder, subfolders, files in os.walk(root, onerror=_refuse, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen:  # a link back to a folder above
                subfolders.clear()
                continue
            seen.add(real)
            subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name != "__MACOSX")
            for file in files:
                path = pathlib.Path(folder, file)
                relative = path.relative_to(root)
                if _hidden(relative.parts):
                    continue
                if not file.lower().endswith(SUFFIXES):
                    others.append(relative.as_posix())
                    continue
                try:
                    info = path.stat()
                except OSError:  # a broken link: listed, so that reading it names it
                    found.append((relative.as_posix(), "0 0"))
                    continue
                if stat.S_ISREG(info.st_mode):  # reading a pipe would wait for ever
                    found.append((relative.as_posix(), f"{info.st_size} {info.st_mtime_ns}"))
        found.sort()
        self.others = tuple(sorted(others))
        self.paths = tuple(path for path, _ in found)
        self.stamps = tuple(f"{path} {text}" for path, text in found)

    def read(self, index: int) -> bytes:
        return read_file(self._root / self.paths[index])


class _Archive:
    def __init__(self, archive: zipfile.ZipFile, field: str, path: pathlib.Path):
        self._archive = archive
        self.identity = "zip"
        members: dict[str, zipfile.ZipInfo] = {}
        others = []
        for member in archive.infolist():
            # Archives made on Windows may hold backslashes.
            parts = member.filename.replace("\\", "/").split("/")
            if member.is_dir() or parts[-1] == "":
                continue
            if ".." in parts or parts[0] == "" or re.fullmatch("[A-Za-z]:", parts[0]):
                raise InputError(
                    f"{field}: {path} holds the member {member.filename!r}, which points outside the "
                    "archive; make the archive anew"
                )
            parts = [part for part in parts if part != "."]
            if not _hidden(parts):
                if parts[-1].lower().endswith(SUFFIXES):
                    members["/".join(parts)] = member
                else:
                    others.append("/".join(parts))
        self.others = tuple(sorted(others))
        self.paths = tuple(sorted(members))
        self._members = tuple(members[name] for name in self.paths)
        self.stamps = tuple(
            f"{name} {member.file_size} {member.CRC:08x}"
            for name, member in zip(self.paths, self._members, strict=True)
        )

    def read(self, index: int) -> bytes:
        member = self._members[index]
        if member.flag_bits & 1:
            raise decode.DecodeError("is encrypted")
        # The declared size bounds what zipfile unpacks.
        if member.file_size > decode.MAX_FILE_BYTES:
            raise decode.DecodeError(f"would unpack to more than {decode.MAX_FILE_BYTES // 2**20} MiB")
        try:
            return self._archive.read(member)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise decode.DecodeError(f"damaged in the archive: {error}") from error


@contextlib.contextmanager
def open_files(path: str, field: str) -> Iterator[Files]:
    """The image files below a directory or in a zip archive, in the order of their paths.

    Args:
      path: the directory or archive.
      field: what named it, for messages.

    Raises:
      InputError: it does not exist or cannot be read, is no zip archive, or an image's name is not UTF-8.
    """
    place = pathlib.Path(path).expanduser()
    if place.is_dir():
        files = _Directory(place)
        for name in files.paths:
            try:
                name.encode()
            except UnicodeEncodeError:
                raise InputError(f"{field}: the name of {ascii(name)} in {place} is not UTF-8: rename it") from None
        yield files
        return
    if not place.exists():
        raise InputError(f"{field}: {place} does not exist")
    try:
        archive = zipfile.ZipFile(place)
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise InputError(f"{field}: {place} is neither a directory nor a readable zip archive ({error})") from error
    except OSError as error:
        raise InputError(f"{field}: {place} cannot be read: {error.strerror or error}") from error
    with archive:
        yield _Archive(archive, field, place)


def _strip_wrappers(paths: Sequence[str]) -> list[tuple[str, ...]]:
    """Splits paths and removes leading folders that hold all folders, as long as class folders remain below."""
    split = [tuple(path.split("/")) for path in paths]
    while len({parts[0] for parts in split if len(parts) > 1}) == 1 and any(len(parts) >= 3 for parts in split):
        split = [parts[1:] if len(parts) > 1 else parts for parts in split]
    return split


def _note_others(paths: Sequence[str]) -> list[str]:
    """A note on the files that are no images by their names, as a class may have vanished with them."""
    if not paths:
        return []
    kinds = collections.Counter(pathlib.PurePosixPath(path).suffix or "without suffix" for path in paths)
    told = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5))
    return [f"{len(paths)} files left out that are no {', '.join(SUFFIXES)}: {told}, such as {paths[0]}"]


def read_named(path: str, names: Sequence[str]) -> Iterator[bytes]:
    """The encoded bytes of examples of `load_folder`, by their names, one after the other.

    Raises:
      InputError: as `open_files`, or a name is not there any more.
      DecodeError: a file cannot be read.
    """
    with open_files(path, "dataset.path") as files:
        places = {"/".join(parts): index for index, parts in enumerate(_strip_wrappers(files.paths))}
        for name in names:
            if name not in places:
                raise InputError(f"dataset.path: {path} holds no {name} any more")
            yield files.read(places[name])


def load_folder(
    path: str | None,
    *,
    storage_size: int,
    value_range: Sequence[float],
    on_error: str,
    cache_dir: pathlib.Path | None,
    log: Callable[[str], None],
) -> tuple[Pool, tuple[float, ...]]:
    """Reads a directory or zip of class folders.

    Returns:
      The examples with the folder's own split where it has one, and the value range used for deep images (() = none).

    Raises:
      InputError: missing or not a zip; no images; one class only; unreadable images unless skipped; unclear splits.
    """
    field = "dataset.path"
    if not path:
        raise InputError("dataset.path: source 'folder' needs the path of a directory or zip of class folders")
    with open_files(path, field) as files:
        if not files.paths:
            raise InputError(f"{field}: {path} holds no image files ({', '.join(SUFFIXES)})")
        split = _strip_wrappers(files.paths)
        notes = _note_others(files.others)
        stray = [files.paths[i] for i, parts in enumerate(split) if len(parts) < 2]
        if stray:
            shown = ", ".join(stray[:3]) + (", ..." if len(stray) > 3 else "")
            notes.append(f"{len(stray)} images outside class folders left out: {shown}")
        sides = _sides_of(split, f"{field}: {path}")
        below = 1 if sides else 0
        chosen = [i for i, parts in enumerate(split) if len(parts) >= 2 + below]
        classes = tuple(sorted({split[i][below] for i in chosen}))
        if not classes:
            raise InputError(
                f"{field}: {path} has no class folders: put the images of each class into a folder of its own"
            )
        if len(classes) < 2:
            raise InputError(f"{field}: {path} has one class only ({classes[0]}): give two class folders at least")
        names = ["/".join(split[i]) for i in chosen]
        labels = [classes.index(split[i][below]) for i in chosen]
        # Links and doubled separators in an archive could make two members one name.
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"{field}: {path} holds {twice} twice")

        def read(k: int) -> Raw:
            return Raw(names[k], labels[k], files.read(chosen[k]))

        taken = ingest(
            field,
            names,
            [files.stamps[i] for i in chosen],
            read,
            identity=[files.identity, classes],
            storage_size=storage_size,
            value_range=value_range,
            on_error=on_error,
            cache_dir=cache_dir,
            log=log,
        )
    kept_sides = tuple(sides.get(split[chosen[row]][0].lower(), "") for row in taken.rows)
    empty = set(range(len(classes))) - set(taken.labels.tolist())
    if empty:
        raise InputError(f"{field}: class {classes[min(empty)]!r} has no readable image")
    place = pathlib.Path(path).expanduser().resolve()
    pool = Pool(
        place.name if place.is_dir() else place.stem,
        classes,
        taken.images,
        taken.rows,
        taken.labels,
        taken.names,
        taken.digests,
        kept_sides,
        tuple(notes) + taken.notes,
    )
    return pool, taken.value_range


def _sides_of(split: Sequence[tuple[str, ...]], where: str) -> dict[str, str]:
    """The folder's own split: lower-case name of a top folder -> side; {} where the top folders are classes."""
    tops = {parts[0] for parts in split if len(parts) >= 2}
    # A class may be called "train" (the railway kind): its images lie directly in it.
    sides = {
        top.lower()
        for top in tops
        if top.lower() in _SIDES and all(len(parts) >= 3 for parts in split if parts[0] == top and len(parts) >= 2)
    }
    if not sides & {"train", "training"}:
        return {}
    others = sorted(top for top in tops if top.lower() not in sides)
    flat = [top for top in others if top.lower() in _SIDES]
    if flat:
        raise InputError(
            f"{where} has class folders in {', '.join(sorted(sides))}, but the images of {flat[0]} lie in none: move "
            "that folder elsewhere; without labels its images can be dataset.unlabelled_dir"
        )
    if others:
        raise InputError(
            f"{where} has both split folders ({', '.join(sorted(sides))}) and other folders "
            f"({', '.join(others[:5])}): keep either"
        )
    return {top: _SIDES[top] for top in sides}


def load_unlabelled(
    path: str,
    *,
    storage_size: int,
    value_range: Sequence[float],
    on_error: str,
    cache_dir: pathlib.Path | None,
    log: Callable[[str], None],
) -> Ingested:
    """Reads all images below a directory or zip, whatever its folders are called; names start with 'unlabelled:'.

    Raises:
      InputError: missing or not a zip; no images; unreadable images unless skipped.
    """
    field = "dataset.unlabelled_dir"
    with open_files(path, field) as files:
        if not files.paths:
            raise InputError(f"{field}: {path} holds no image files ({', '.join(SUFFIXES)})")
        names = [f"unlabelled:{name}" for name in files.paths]
        taken = ingest(
            field,
            names,
            files.stamps,
            lambda k: Raw(names[k], UNLABELLED, files.read(k)),
            identity=[files.identity, "unlabelled"],
            storage_size=storage_size,
            value_range=value_range,
            on_error=on_error,
            cache_dir=cache_dir,
            log=log,
        )
    return dataclasses.replace(taken, notes=tuple(_note_others(files.others)) + taken.notes)
