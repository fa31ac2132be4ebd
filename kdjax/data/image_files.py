"""Lists and reads the image files of a directory or a zip archive, for training, unlabeled tiles and `predict`.

Hidden files, thumbnails and the folders of operating systems are ignored and counted; files whose names are not those
of images are listed. GDAL's sidecar files (NAME.msk, NAME.aux.xml) are read with their image. An archive is read in
memory; nothing is extracted.
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
from kdjax.errors import InputError, first_few

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")

# Names, in lower case, that Synology, macOS, Windows, QNAP, Linux and file managers leave among the images.
_SYSTEM = frozenset(
    "@eadir __macosx $recycle.bin #recycle @recycle #snapshot lost+found thumbs thumbnails thumbs.db ehthumbs.db "
    "desktop.ini".split()
) | {"system volume information"}
_SIDECARS = (".msk", ".aux.xml")
_METHODS = {9: "Deflate64, as Windows Explorer writes large archives", 93: "Zstandard", 95: "XZ"}


class Files(Protocol):
    """A directory or an archive.

    Attributes:
        paths: paths of the images, with '/', ascending.
        others: files whose names are not those of images, ascending.
        folders: all folders that were searched, ascending.
        ignored: name or kind of what was ignored -> number of files.
        stamps: one string per image that changes when its content does.
        identity: a string that distinguishes this directory or archive from others with the same stamps.
    """

    paths: tuple[str, ...]
    others: tuple[str, ...]
    folders: tuple[str, ...]
    ignored: dict[str, int]
    stamps: tuple[str, ...]
    identity: str

    def read(self, index: int) -> bytes:
        """The bytes of an image, by its index in `paths`, with its sidecar files; raises as `read_file`."""


def read_file(path: pathlib.Path) -> bytes:
    """The bytes of one image file, with its sidecar files.

    Raises:
        ReadError: the file or a sidecar file does not exist, cannot be read, or is not a regular file.
        DecodeError: the file or a sidecar file is too large.
    """
    sidecar_paths = {suffix: path.with_name(path.name + suffix) for suffix in _SIDECARS}
    # A broken link counts, so that it raises below: an image without its mask would count as data everywhere.
    sidecars = {
        suffix: sidecar
        for suffix, sidecar in sidecar_paths.items()
        if os.path.lexists(sidecar) and not os.path.isdir(sidecar)
    }
    return _with(_bytes_of(path), sidecars, _bytes_of)


def _with(data: bytes, sidecars: Mapping[str, Any], bytes_of: Callable[[Any], bytes]) -> bytes:
    contents = {}
    for suffix, sidecar in sidecars.items():
        try:
            contents[suffix] = bytes_of(sidecar)
        except decode.DecodeError as error:
            raise type(error)(f"its sidecar file {suffix}: {error}") from error
    return decode.WithSidecars(data, contents.get(".msk"), contents.get(".aux.xml")) if contents else data


def _bytes_of(path: pathlib.Path) -> bytes:
    """The bytes of a file.

    Raises:
        ReadError: the file does not exist, cannot be read, or is not a regular file.
        DecodeError: the file is too large.
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
    """A string that changes when a file's content does or another file replaces it; times alone may be copied."""
    return f"{info.st_ino} {info.st_size} {info.st_mtime_ns} {info.st_ctime_ns}"


def _stamp_of(path: pathlib.Path) -> tuple[str, bool]:
    """The stamp of a file, and whether it is regular; a broken link counts as regular, so that reading it fails."""
    try:
        info = path.stat()
    except OSError:
        return "0 0", True
    return stamp(info), stat.S_ISREG(info.st_mode)


def _is_system(name: str) -> bool:
    return name.startswith((".", "SYNOPHOTO_THUMB_")) or name.lower() in _SYSTEM


def _refuse_unreadable_folder(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be listed: {error.strerror}")


class _Directory:
    def __init__(self, root: pathlib.Path):
        self._root = root
        self.identity = f"directory {root.resolve()}"
        images, others, folders = [], [], []
        ignored: collections.Counter[str] = collections.Counter()
        parents_of: dict[str, tuple[str, ...]] = {}
        for folder, subfolders, files in os.walk(root, onerror=_refuse_unreadable_folder, followlinks=True):
            real_path, parents = os.path.realpath(folder), parents_of.get(os.path.dirname(folder), ())
            if real_path in parents:  # a link to a folder above, which would recur forever
                subfolders.clear()
                continue
            parents_of[folder] = (*parents, real_path)
            for name in filter(_is_system, subfolders):
                ignored[name] += sum(len(names) for _, _, names in os.walk(os.path.join(folder, name)))
            subfolders[:] = sorted(name for name in subfolders if not _is_system(name))
            if folder != str(root):
                folders.append(pathlib.Path(folder).relative_to(root).as_posix())
            for file in files:
                path = pathlib.Path(folder, file)
                relative = path.relative_to(root).as_posix()
                if _is_system(file):
                    ignored[file if file.lower() in _SYSTEM else "hidden files and thumbnails"] += 1
                    continue
                if not file.lower().endswith(SUFFIXES):
                    others.append(relative)
                    continue
                image_stamp, is_regular = _stamp_of(path)
                if is_regular:
                    images.append((relative, image_stamp))
                else:
                    ignored["pipes and devices"] += 1
        images.sort()
        self.ignored = dict(sorted(ignored.items()))
        self.folders = tuple(sorted(folders))
        self.paths = tuple(path for path, _ in images)
        sidecars, self.others = _sidecars(self.paths, others)
        self.stamps = tuple(
            " ".join(
                (path, image_stamp, *(_stamp_of(root / sidecar)[0] for sidecar in sidecars.get(path, {}).values()))
            )
            for path, image_stamp in images
        )

    def read(self, index: int) -> bytes:
        return read_file(self._root / self.paths[index])


def _sidecars(paths: Iterable[str], others: Iterable[str]) -> tuple[dict[str, dict[str, str]], tuple[str, ...]]:
    """The sidecar files as image -> suffix -> file, and the remaining files of `others`, ascending."""
    others, sidecars_of = set(others), {}
    for path in paths:
        sidecars = {suffix: path + suffix for suffix in _SIDECARS if path + suffix in others}
        if sidecars:
            sidecars_of[path] = sidecars
            others.difference_update(sidecars.values())
    return sidecars_of, tuple(sorted(others))


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
            folder_parts = [part for part in parts[:-1] if part not in (".", "")]
            ignored_as = next(filter(_is_system, folder_parts), None)
            if ignored_as is None:
                folders.update("/".join(folder_parts[:depth]) for depth in range(1, len(folder_parts) + 1))
            if parts[-1] == "":  # a folder
                continue
            if ignored_as is None and _is_system(parts[-1]):
                ignored_as = parts[-1] if parts[-1].lower() in _SYSTEM else "hidden files and thumbnails"
            name = "/".join((*folder_parts, parts[-1]))
            if ignored_as is not None:
                ignored[ignored_as] += 1
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
                (name, *(f"{file.file_size} {file.CRC:08x}" for file in map(members.__getitem__, self._files_of(name))))
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
        # zipfile never unpacks more than the declared size.
        if member.file_size > decode.MAX_FILE_BYTES:
            raise decode.DecodeError(f"would unpack to more than {decode.MAX_FILE_BYTES // 2**20} MiB")
        try:
            return self._archive.read(member)
        except OSError as error:
            if error.errno is None:  # not a failure of the disk, but a stream that bzip2 cannot read
                raise decode.DecodeError(f"damaged in the archive: {error}") from error
            raise decode.ReadError(error.strerror or str(error)) from error
        except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError) as error:
            raise decode.DecodeError(f"damaged in the archive: {error}") from error


def _parts(member: zipfile.ZipInfo) -> list[str]:
    """The parts of a member's path; the last one is '' for a folder."""
    name = member.filename
    if not member.flag_bits & 0x800:
        # Without the UTF-8 flag, zipfile assumes IBM's code page 437, but macOS writes UTF-8 without setting the flag.
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    # Archives made on Windows may contain backslashes.
    return name.replace("\\", "/").split("/")


def _check_methods(members: Iterable[zipfile.ZipInfo], origin: str) -> None:
    supported = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
    for member in members:
        if member.compress_type not in supported:
            method = _METHODS.get(member.compress_type, f"number {member.compress_type}")
            raise InputError(
                f"{origin} is packed with a method that Python cannot unpack ({method}): unpack it and give the folder"
            )


@contextlib.contextmanager
def open_files(path: str, field: str) -> Iterator[Files]:
    """Opens the image files below a directory or in a zip archive, in the order of their paths.

    Args:
        path: the directory or archive.
        field: the config field or argument that names it, for messages.

    Raises:
        InputError: the path does not exist, cannot be read or is not a zip archive; or the archive holds a name twice,
            a path outside itself, or a compression method unknown to Python.
    """
    root = pathlib.Path(os.path.expanduser(path))
    try:
        mode = root.stat().st_mode
    except FileNotFoundError:
        raise InputError(f"{field}: {root.absolute()} does not exist: correct the path") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{field}: {root} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if stat.S_ISDIR(mode):
        yield _Directory(root)
        return
    if not stat.S_ISREG(mode):
        raise InputError(f"{field}: {root} is neither a directory nor a zip archive")
    try:
        archive = zipfile.ZipFile(root)
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise InputError(f"{field}: {root} is neither a directory nor a readable zip archive ({error})") from error
    except OSError as error:
        raise InputError(f"{field}: {root} cannot be read: {error.strerror or error}") from error
    with archive:
        yield _Archive(archive, field, root)


def no_images(path: str, field: str) -> InputError:
    """The error to raise if `open_files` found no images."""
    return InputError(f"{field}: {path} holds no image files ({', '.join(SUFFIXES)})")


def notes_on(files: Files) -> list[str]:
    """Notes on the files that were left out, because a whole class may be among them."""
    notes = []
    if files.others:
        suffixes = collections.Counter(pathlib.PurePosixPath(path).suffix or "without suffix" for path in files.others)
        summary = first_few([f"{count} {kind}" for kind, count in suffixes.most_common()])
        notes.append(
            f"{len(files.others)} files left out that are not {', '.join(SUFFIXES)}: {summary}, such as "
            f"{files.others[0]}"
        )
    if files.ignored:
        summary = first_few([f"{count} in {name}" if count != 1 else name for name, count in files.ignored.items()])
        notes.append(f"{sum(files.ignored.values())} hidden files, thumbnails and system files left out: {summary}")
    return notes
