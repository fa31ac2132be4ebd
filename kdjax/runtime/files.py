"""Files that are either the old ones or the whole new ones, and files held against other processes."""

import contextlib
import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kdjax.errors import InputError, reason

TEMPORARY = ".kdjax.tmp"
"""How the names of what is not complete yet end. Nobody else's do, so that what the killed left can be removed."""


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes a file whole or not at all, also where another process writes the same one.

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
        with contextlib.suppress(FileNotFoundError):  # a signal may come when the file has its name already
            os.unlink(temporary)
        raise


def write_text(path: str | Path, text: str) -> None:
    """`write_bytes` of text, in UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, document: Mapping[str, Any]) -> None:
    """`write_bytes` of a JSON document, made to be read.

    Raises:
        ValueError: it holds NaN or infinity.
        OSError: see `write_bytes`.
    """
    text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False)
    # Lists of plain values (rows of a confusion matrix) on one line. JSON strings hold no raw line break, so only the
    # breaks between values are touched.
    write_text(path, re.sub(r"\[\n[^\[\]{}]*\]", _on_one_line, text) + "\n")


def read_json(path: str | Path, fix: str) -> Any:
    """The content of a JSON file of ours.

    Args:
        path: the file.
        fix: how to get a good one, for the message.

    Raises:
        InputError: it is not there, cannot be read, or is not JSON.
    """
    return _json(_text(path, fix), str(path), fix)


def read_json_lines(path: str | Path, fix: str) -> list[Any]:
    """The values of a file of ours with one JSON value a line. A last line without its end is left out: its writer was
    interrupted, or is still at it.

    Args:
        path: the file.
        fix: how to get a good one, for the message.

    Raises:
        InputError: it is not there, cannot be read, or a line is not JSON; names the line.
    """
    lines = _text(path, fix).split("\n")[:-1]
    return [_json(line, f"{path}, line {number},", fix) for number, line in enumerate(lines, 1)]


def _text(path: str | Path, fix: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({reason(error)}): {fix}") from error


def _json(text: str, where: str, fix: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not readable JSON ({error}): {fix}") from error


def _on_one_line(found: re.Match[str]) -> str:
    opened = re.sub(r"\[\n\s*", "[", found[0])
    return re.sub(r"\n\s*", " ", re.sub(r"\n\s*\]", "]", opened))


def sweep(directory: Path, own: Iterable[str]) -> None:
    """Removes what killed calls of `write_bytes` left in a directory that this process alone writes to.

    Args:
        directory: it exists. Of what lies deeper only folders of kdjax's are looked through.
        own: their names; they need not be there, and are left alone where they are links to elsewhere.
    """
    folders = (directory / name for name in own)
    deeper = (left for folder in folders if not folder.is_symlink() for left in folder.rglob(f"*{TEMPORARY}"))
    for left in [*directory.glob(f"*{TEMPORARY}"), *deeper]:
        if left.is_file():
            left.unlink(missing_ok=True)


def lock(path: Path) -> int:
    """Holds a file against other processes, by the kernel's own lock: it goes when this process does, however it ends.

    Returns:
        The descriptor that holds it; closing it lets go.

    Raises:
        BlockingIOError: another process holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor
