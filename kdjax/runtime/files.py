"""Writes files atomically, reads JSON files, and locks files against other processes."""

import contextlib
import errno
import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kdjax.errors import InputError, one_line

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}

TEMPORARY = ".kdjax.tmp"
"""Suffix of incomplete files and folders. No other program uses it, so those of killed processes can be removed."""


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes a file completely or not at all, even if another process writes the same one.

    Raises:
        OSError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".", suffix=TEMPORARY)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):  # a signal may come after the file was renamed
            os.unlink(temporary)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Writes text in UTF-8, see `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, document: Mapping[str, Any]) -> None:
    """Writes a JSON document that is laid out to be readable, see `write_bytes`.

    Raises:
        ValueError: the document contains NaN or infinity.
        OSError: see `write_bytes`.
    """
    text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False)
    # Put lists of plain values, such as rows of a confusion matrix, on one line. JSON strings contain no raw line
    # breaks, so only the breaks between values change.
    write_text(path, re.sub(r"\[\n[^\[\]{}]*\]", _on_one_line, text) + "\n")


def read_json(path: str | Path, fix: str) -> Any:
    """Reads a JSON file that kdjax wrote.

    Args:
        path: the file.
        fix: what the user can do if it is damaged, for the message.

    Raises:
        InputError: the file is missing, cannot be read, or is not JSON.
    """
    return _json(_text(path, fix), str(path), fix)


def read_json_lines(path: str | Path, fix: str) -> list[Any]:
    """Reads a file that kdjax wrote with one JSON value per line.

    A last line without a line break is left out, because its writer was interrupted or is still writing.

    Args:
        path: the file.
        fix: what the user can do if it is damaged, for the message.

    Raises:
        InputError: the file is missing or cannot be read, or a line is not JSON; names the line.
    """
    lines = _text(path, fix).split("\n")[:-1]
    return [_json(line, f"{path}, line {number},", fix) for number, line in enumerate(lines, 1)]


def _text(path: str | Path, fix: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({one_line(error)}): {fix}") from error


def _json(text: str, source: str, fix: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source} is not readable JSON ({error}): {fix}") from error


def _on_one_line(match: re.Match[str]) -> str:
    text = re.sub(r"\[\n\s*", "[", match[0])
    return re.sub(r"\n\s*", " ", re.sub(r"\n\s*\]", "]", text))


def sweep(directory: Path, own: Iterable[str]) -> None:
    """Removes what killed calls of `write_bytes` left in a directory that only this process writes to.

    Args:
        directory: existing directory. Of its subfolders, only those in `own` are searched.
        own: names of the subfolders that kdjax creates. They need not exist, and are skipped if they are links.
    """
    folders = (directory / name for name in own)
    nested = (path for folder in folders if not folder.is_symlink() for path in folder.rglob(f"*{TEMPORARY}"))
    for path in [*directory.glob(f"*{TEMPORARY}"), *nested]:
        if path.is_file():
            path.unlink(missing_ok=True)


def lock(path: Path) -> int:
    """Locks a file against other processes, with a lock of the kernel that ends with this process, however that ends.

    Returns:
        The descriptor that holds the lock; closing it releases the lock.

    Raises:
        BlockingIOError: another process holds the lock.
        InputError: the disk has no file locks.
        OSError: the file cannot be written.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno not in _NO_LOCKS:
            raise
        raise InputError(
            f"{path.parent} is on a disk without file locks ({error.strerror}): mount it with them, on Lustre by the "
            "option flock, or choose a folder on another disk"
        ) from error
    return descriptor
