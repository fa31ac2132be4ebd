"""Checks a run's folders: the cache must be writable; the workdir must be unlocked and shared by all its processes."""

import os
import secrets
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax

from kdjax.errors import InputError
from kdjax.run import record
from kdjax.runtime import devices, files

APPEARS_SECONDS = 60.0
"""How long one host may not see what another has written to a network disk: NFS refreshes within a minute."""


def make_cache(cache_dir: Path) -> None:
    """Creates the cache folder.

    Raises:
        InputError: it cannot be written.
    """
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=cache_dir).close()
    except OSError as error:
        raise InputError(
            f"run.cache_dir: {cache_dir} cannot be written ({error.strerror}): set it to a folder that can"
        ) from None


def holds_run(workdir: Path) -> bool:
    """Whether a run in the working directory has checkpoints, as the first process sees it.

    The other processes wait until they see it too, because they read the files of that run next.

    Raises:
        InputError: not every process of this run sees the same directory.
    """
    if not devices.first_process_says(record.has_begun(workdir)):
        return False
    _check_shared(workdir, _wait_for(lambda: record.has_begun(workdir)))
    return True


def try_out(workdir: Path) -> None:
    """Makes sure that the working directory can be written and locked, before images are decoded for hours.

    Nothing is left there: a directory that does not exist yet is not made, and its closest parent is tried instead.

    Raises:
        InputError: it cannot be written, or its disk has no file locks.
    """
    if jax.process_index() > 0:
        return
    try:
        folder = next(path for path in (workdir, *workdir.parents) if path.exists())
        with tempfile.NamedTemporaryFile(dir=folder, suffix=files.TEMPORARY) as file:
            os.close(files.lock(Path(file.name)))
    except OSError as error:
        raise _unwritable(workdir, error) from None


def lock(workdir: Path) -> None:
    """Creates the working directory and locks it; the first process holds the lock until it ends.

    Raises:
        InputError: another run holds the lock, the directory cannot be written or its disk has no file locks, or not
            every process of this run sees the same directory.
    """
    first = jax.process_index() == 0
    if not devices.first_process_says(first and _acquire_lock(workdir)):
        raise InputError(
            f"workdir {workdir} is in use: another run writes to it; wait for it or choose another workdir"
        )
    if jax.process_count() == 1:
        return
    marker = workdir / f"seen-{devices.first_process_says(secrets.randbits(31))}{files.TEMPORARY}"
    if first:
        marker.touch()
    devices.barrier("the mark of the workdir is there")
    try:
        _check_shared(workdir, _wait_for(marker.exists))
    finally:
        if first:
            marker.unlink()


def _acquire_lock(workdir: Path) -> bool:
    """Tries to lock the working directory until this process ends, and returns whether that succeeded."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        files.lock(workdir / ".lock")
    except BlockingIOError:
        return False
    except OSError as error:
        raise _unwritable(workdir, error) from None
    return True


def _unwritable(workdir: Path, error: OSError) -> InputError:
    return InputError(f"workdir {workdir} cannot be written ({error.strerror}): choose another workdir")


def _check_shared(workdir: Path, visible: bool) -> None:
    """Raises InputError if any process did not see what the first one sees in the working directory."""
    if not devices.smallest(visible):
        raise InputError(
            f"workdir {workdir} is not the same folder for all processes of this run: give one on a disk they share"
        )


def _wait_for(is_visible: Callable[[], bool]) -> bool:
    """Waits up to `APPEARS_SECONDS` until something is visible, and returns whether it is."""
    end = time.monotonic() + APPEARS_SECONDS
    while not is_visible():
        if time.monotonic() > end:
            return False
        time.sleep(1.0)
    return True
