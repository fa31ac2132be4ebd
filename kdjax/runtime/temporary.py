"""Folders that are built under a temporary name; a lock shows whether the process that builds one is still running."""

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
    """Creates and locks a folder `.NAME-….kdjax.tmp` in `parent`, and removes it at the end unless it was renamed.

    Folders for the same name that killed processes left are removed first.

    Args:
        parent: existing folder in which to create it.
        name: name of what is built.

    Raises:
        OSError: the folder cannot be created.
    """
    sweep(parent, f".{name}-")
    path, lock = _new_locked_path(parent, f".{name}-")
    try:
        path.mkdir()
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        _lock_path(path).unlink(missing_ok=True)
        os.close(lock)


@contextlib.contextmanager
def exclusive(parent: Path, name: str) -> Iterator[None]:
    """Locks NAME in `parent` against other processes, and removes the lock at the end.

    Args:
        parent: existing folder.
        name: name of what is written.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the lock cannot be created.
    """
    path = parent / f".{name}{_LOCK}"
    lock = _lock(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


def sweep(parent: Path, prefix: str = ".") -> None:
    """Removes the folders in `parent` that `folder` created and whose processes have ended.

    Args:
        parent: the folder to search; it need not exist.
        prefix: beginning of the names of the folders to remove.
    """
    with contextlib.suppress(OSError):
        for path in sorted(
            path for path in parent.iterdir() if path.name.startswith(prefix) and path.name.endswith(_LOCK)
        ):
            with contextlib.suppress(OSError):  # BlockingIOError: its process is still running
                lock = files.lock(path)
                try:
                    shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                    path.unlink()
                finally:
                    os.close(lock)


def _new_locked_path(parent: Path, prefix: str) -> tuple[Path, int]:
    """Returns an unused path whose name begins with `prefix`, and the descriptor that holds its lock."""
    while True:
        path = Path(tempfile.mktemp(prefix=prefix, suffix=files.TEMPORARY, dir=parent))
        with contextlib.suppress(BlockingIOError):
            return path, _lock(_lock_path(path))


def _lock(path: Path) -> int:
    """Locks a file as `files.lock` does, even if the process that held it before removes the file meanwhile."""
    while True:
        lock = files.lock(path)
        with contextlib.suppress(FileNotFoundError):  # the file was just removed
            if os.path.samestat(os.fstat(lock), path.stat()):
                return lock
        os.close(lock)


def _lock_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")
