"""Folders that are built under a temporary name. A lock says that their process lives; what the dead left is swept."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kdjax.runtime import files

_LOCK = f"{files.TEMPORARY}.lock"


@contextlib.contextmanager
def folder(parent: Path, name: str) -> Iterator[Path]:
    """A new folder `.NAME-….kdjax.tmp` in `parent`, and its lock. It is gone at the end, unless it was renamed.

    Folders of that name whose processes are gone, killed while they built, are removed first.

    Args:
        parent: where; it exists.
        name: what is built.

    Raises:
        OSError: the folder cannot be made.
    """
    sweep(parent, f".{name}-")
    place, held = _hold(parent, f".{name}-")
    try:
        place.mkdir()
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        _lock_of(place).unlink(missing_ok=True)
        os.close(held)


@contextlib.contextmanager
def alone(parent: Path, name: str) -> Iterator[None]:
    """Holds NAME in `parent` against other processes, by a lock that is gone at the end.

    Args:
        parent: where; it exists.
        name: of what is written.

    Raises:
        BlockingIOError: another process holds it.
        OSError: the lock cannot be made.
    """
    path = parent / f".{name}{_LOCK}"
    held = _lock(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(held)


def sweep(parent: Path, prefix: str = ".") -> None:
    """Removes the folders in `parent` that `folder` made and whose processes are gone.

    Args:
        parent: where; it need not exist.
        prefix: how their names begin.
    """
    with contextlib.suppress(OSError):
        for lock in sorted(
            path for path in parent.iterdir() if path.name.startswith(prefix) and path.name.endswith(_LOCK)
        ):
            with contextlib.suppress(OSError):  # BlockingIOError: its process lives
                held = files.lock(lock)
                try:
                    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                    lock.unlink()
                finally:
                    os.close(held)


def _hold(parent: Path, prefix: str) -> tuple[Path, int]:
    """A name that begins with `prefix`, and the descriptor that holds its lock."""
    while True:
        place = Path(tempfile.mktemp(prefix=prefix, suffix=files.TEMPORARY, dir=parent))
        with contextlib.suppress(BlockingIOError):
            return place, _lock(_lock_of(place))


def _lock(path: Path) -> int:
    """`files.lock` of a file that whoever holds it removes at the end."""
    while True:
        held = files.lock(path)
        with contextlib.suppress(FileNotFoundError):  # it was removed just now
            if os.path.samestat(os.fstat(held), path.stat()):
                return held
        os.close(held)


def _lock_of(place: Path) -> Path:
    return place.with_name(f"{place.name}.lock")
