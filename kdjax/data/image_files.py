"""The image files of a directory or a zip archive: for training, tiles without labels and `predict` alike.

Hidden files, thumbnails and the folders of operating systems are passed over and counted; files whose names are of no
image are listed. GDAL's sidecar files (NAME.msk, NAME.aux.xml) are read with their image. An archive is read in
memory: nothing is extracted.
"""

from __future__ import annotations

import collections
import contextlib
import lzma
import os
import pathlib
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

from kdjax.data import decode
from kdjax.errors import InputError, listed

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")

# In lower case. Synology, macOS, Windows, QNAP, Linux and file managers leave these among the images.
_SYSTEM = frozenset(
    "@eadir __macosx $recycle.bin #recycle @recycle #snapshot lost+found thumbs thumbnails thumbs.db ehthumbs.db "
    "desktop.ini".split()
) | {"system volume information"}
_SIDECARS = (".msk", ".aux.xml")
_METHODS = {9: "Deflate64, as Windows Explorer writes large archives", 93: "Zstandard", 95: "XZ"}


class Files(Protocol):
    """A directory or an archive.

    Attributes:
        paths: the images, with '/', ascending.
        others: files that are no images by their names, ascending.
        folders: all folders that were looked into, ascending.
        ignored: what was passed over -> number of files.
        stamps: one text an image that changes when its content does.
        identity: what tells it from others with the same stamps.
    """

    paths: tuple[str, ...]
    others: tuple[str, ...]
    folders: tuple[str, ...]
    ignored: dict[str, int]
    stamps: tuple[str, ...]
    identity: str

    def read(self, index: int) -> bytes: ...


def read_file(path: pathlib.Path) -> bytes:
    """The bytes of one image file, with its sidecar files.

    Raises:
        ReadError: it or a sidecar file is not there, cannot be read, or is not a regular file.
        DecodeError: one is too large.
    """
    beside = {suffix: path.with_name(path.name + suffix) for suffix in _SIDECARS}
    # A broken link counts: without its mask the image would be read as if it were data everywhere.
    sidecars = {
        suffix: place for suffix, place in beside.items() if os.path.lexists(place) and not os.path.isdir(place)
    }
    return _with(_bytes_of(path), sidecars, _bytes_of)


def _with(data: bytes, sidecars: Mapping[str, Any], bytes_of: Callable[[Any], bytes]) -> bytes:
    read = {}
    for suffix, place in sidecars.items():
        try:
            read[suffix] = bytes_of(place)
        except decode.DecodeError as error:
            raise type(error)(f"its sidecar file {suffix}: {error}") from error
    return decode.WithSidecars(data, read.get(".msk"), read.get(".aux.xml")) if read else data


def _bytes_of(path: pathlib.Path) -> bytes:
    """The bytes of a file.

    Raises:
        ReadError: it is not there, cannot be read, or is not a regular file.
        DecodeError: it is too large.
    """
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):  # reading a pipe would wait for ever
            raise decode.ReadError("not a regular file")
        if info.st_size > decode.MAX_FILE_BYTES:
            raise decode.DecodeError(f"the file is larger than {decode.MAX_FILE_BYTES // 2**20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise decode.ReadError(error.strerror or str(error)) from error


def stamp(info: os.stat_result) -> str:
    """A text that changes when a file's content does, or another file takes its place: dates alone may be copied."""
    return f"{info.st_ino} {info.st_size} {info.st_mtime_ns} {info.st_ctime_ns}"


def _look_at(path: pathlib.Path) -> tuple[str, bool]:
    """The stamp of a file, and whether it is regular; a broken link counts as that, so that reading it names it."""
    try:
        info = path.stat()
    except OSError:
        return "0 0", True
    return stamp(info), stat.S_ISREG(info.st_mode)


def _system(name: str) -> bool:
    return name.startswith((".", "SYNOPHOTO_THUMB_")) or name.lower() in _SYSTEM


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be listed: {error.strerror}")


class _Directory:
    def __init__(self, root: pathlib.Path):
        self._root = root
        self.identity = f"directory {root.resolve()}"
        found, others, folders = [], [], []
        ignored: collections.Counter[str] = collections.Counter()
        above: dict[str, tuple[str, ...]] = {}
        for folder, subfolders, files in os.walk(root, onerror=_refuse, followlinks=True):
            real, parents = os.path.realpath(folder), above.get(os.path.dirname(folder), ())
            if real in parents:  # a link back to a folder above
                subfolders.clear()
                continue
            above[folder] = (*parents, real)
            for name in filter(_system, subfolders):
                ignored[name] += sum(len(inside) for _, _, inside in os.walk(os.path.join(folder, name)))
            subfolders[:] = sorted(name for name in subfolders if not _system(name))
            if folder != str(root):
                folders.append(pathlib.Path(folder).relative_to(root).as_posix())
            for file in files:
                path = pathlib.Path(folder, file)
                relative = path.relative_to(root).as_posix()
                if _system(file):
                    ignored[file if file.lower() in _SYSTEM else "hidden files and thumbnails"] += 1
                    continue
                if not file.lower().endswith(SUFFIXES):
                    others.append(relative)
                    continue
                text, regular = _look_at(path)
                if regular:
                    found.append((relative, text))
                else:
                    ignored["pipes and devices"] += 1
        found.sort()
        self.ignored = dict(sorted(ignored.items()))
        self.folders = tuple(sorted(folders))
        self.paths = tuple(path for path, _ in found)
        sidecars, self.others = _sidecars(self.paths, others)
        self.stamps = tuple(
            " ".join((path, text, *(_look_at(root / other)[0] for other in sidecars.get(path, {}).values())))
            for path, text in found
        )

    def read(self, index: int) -> bytes:
        return read_file(self._root / self.paths[index])


def _sidecars(paths: Iterable[str], others: Iterable[str]) -> tuple[dict[str, dict[str, str]], tuple[str, ...]]:
    """Sidecar files, as image -> suffix -> file; and the other files that do not."""
    others, found = set(others), {}
    for path in paths:
        sidecars = {suffix: path + suffix for suffix in _SIDECARS if path + suffix in others}
        if sidecars:
            found[path] = sidecars
            others.difference_update(sidecars.values())
    return found, tuple(sorted(others))


class _Archive:
    def __init__(self, archive: zipfile.ZipFile, field: str, path: pathlib.Path):
        self._archive = archive
        self.identity = "zip"
        members: dict[str, zipfile.ZipInfo] = {}
        folders: set[str] = set()
        ignored: collections.Counter[str] = collections.Counter()
        for member in archive.infolist():
            parts = _parts(member)
            if ".." in parts or parts[0] == "" or re.fullmatch("[A-Za-z]:", parts[0]):
                raise InputError(
                    f"{field}: {path} holds the member {member.filename!r}, which points outside the "
                    "archive; pack the archive again"
                )
            within = [part for part in parts[:-1] if part not in (".", "")]
            passed_over = next(filter(_system, within), None)
            if passed_over is None:
                folders.update("/".join(within[:depth]) for depth in range(1, len(within) + 1))
            if parts[-1] == "":  # a folder
                continue
            if passed_over is None and _system(parts[-1]):
                passed_over = parts[-1] if parts[-1].lower() in _SYSTEM else "hidden files and thumbnails"
            name = "/".join((*within, parts[-1]))
            if passed_over is not None:
                ignored[passed_over] += 1
            elif name in members:
                raise InputError(f"{field}: {path} holds {name} twice: pack the archive again, with each file once")
            else:
                members[name] = member
        self.ignored = dict(sorted(ignored.items()))
        self.folders = tuple(sorted(folders))
        self.paths = tuple(sorted(name for name in members if name.lower().endswith(SUFFIXES)))
        self._sidecars, self.others = _sidecars(self.paths, members.keys() - set(self.paths))
        self._members = members
        self.stamps = tuple(
            " ".join(
                (name, *(f"{one.file_size} {one.CRC:08x}" for one in (members[each] for each in self._files_of(name))))
            )
            for name in self.paths
        )
        _check_methods([members[name] for name in self.paths], f"{field}: {path}")

    def _files_of(self, name: str) -> tuple[str, ...]:
        return (name, *self._sidecars.get(name, {}).values())

    def read(self, index: int) -> bytes:
        name = self.paths[index]
        return _with(self._bytes_of(name), self._sidecars.get(name, {}), self._bytes_of)

    def _bytes_of(self, name: str) -> bytes:
        member = self._members[name]
        if member.flag_bits & 1:
            raise decode.DecodeError("is encrypted")
        # The declared size bounds what zipfile unpacks.
        if member.file_size > decode.MAX_FILE_BYTES:
            raise decode.DecodeError(f"would unpack to more than {decode.MAX_FILE_BYTES // 2**20} MiB")
        try:
            return self._archive.read(member)
        except OSError as error:
            if error.errno is None:  # not the disk: a stream that bzip2 cannot read
                raise decode.DecodeError(f"damaged in the archive: {error}") from error
            raise decode.ReadError(error.strerror or str(error)) from error
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError) as error:
            raise decode.DecodeError(f"damaged in the archive: {error}") from error


def _parts(member: zipfile.ZipInfo) -> list[str]:
    """The path of a member; the last part is '' for a folder."""
    name = member.filename
    if not member.flag_bits & 0x800:
        # No flag says UTF-8, so zipfile takes IBM's code page 437. macOS writes UTF-8 without that flag.
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    # Archives made on Windows may hold backslashes.
    return name.replace("\\", "/").split("/")


def _check_methods(members: Iterable[zipfile.ZipInfo], where: str) -> None:
    known = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
    for member in members:
        if member.compress_type not in known:
            method = _METHODS.get(member.compress_type, f"number {member.compress_type}")
            raise InputError(
                f"{where} is packed with a method that Python cannot unpack ({method}): unpack it and give the folder"
            )


@contextlib.contextmanager
def open_files(path: str, field: str) -> Iterator[Files]:
    """The image files below a directory or in a zip archive, in the order of their paths.

    Args:
        path: the directory or archive.
        field: what named it, for messages.

    Raises:
        InputError: it does not exist or cannot be read, is no zip archive, holds one name twice or is packed with a
            method that Python does not know.
    """
    place = pathlib.Path(os.path.expanduser(path))
    try:
        mode = place.stat().st_mode
    except FileNotFoundError:
        raise InputError(f"{field}: {place.absolute()} does not exist: correct the path") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{field}: {place} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(mode):
        yield _Directory(place)
        return
    if not stat.S_ISREG(mode):
        raise InputError(f"{field}: {place} is neither a directory nor a zip archive")
    try:
        archive = zipfile.ZipFile(place)
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise InputError(f"{field}: {place} is neither a directory nor a readable zip archive ({error})") from error
    except OSError as error:
        raise InputError(f"{field}: {place} cannot be read: {error.strerror or error}") from error
    with archive:
        yield _Archive(archive, field, place)


def no_images(path: str, field: str) -> InputError:
    """What to raise where `open_files` found none."""
    return InputError(f"{field}: {path} holds no image files ({', '.join(SUFFIXES)})")


def notes_on(files: Files) -> list[str]:
    """Notes on what was left out, as a class may have vanished with it."""
    notes = []
    if files.others:
        kinds = collections.Counter(pathlib.PurePosixPath(path).suffix or "without suffix" for path in files.others)
        named = listed([f"{count} {kind}" for kind, count in kinds.most_common()])
        notes.append(
            f"{len(files.others)} files left out that are not {', '.join(SUFFIXES)}: {named}, such as {files.others[0]}"
        )
    if files.ignored:
        named = listed([f"{count} in {name}" if count != 1 else name for name, count in files.ignored.items()])
        notes.append(f"{sum(files.ignored.values())} hidden files, thumbnails and system files left out: {named}")
    return notes
