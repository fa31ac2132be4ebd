"""The folders of a run: its cache, and its directory, which one run at a time writes and all of its processes see."""

import secrets
import tempfile
import time
from pathlib import Path

import jax

from kdjax.errors import InputError
from kdjax.runtime import devices, files

APPEARS_SECONDS = 60.0
"""So long a network disk may keep from one host what another has written: NFS looks again after a minute."""


def make_cache(cache_dir: Path) -> None:
    """Makes the cache.

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


def lock(workdir: Path) -> None:
    """Makes the working directory, and holds its lock in the first process until that ends.

    Raises:
        InputError: another run holds it, it cannot be written, or another process of this run does not see it.
    """
    first = jax.process_index() == 0
    if not devices.first_process_says(first and _locked(workdir)):
        raise InputError(
            f"workdir {workdir} is in use: another run writes to it; wait for it or choose another workdir"
        )
    if jax.process_count() == 1:
        return
    mark = workdir / f"seen-{devices.first_process_says(secrets.randbits(31))}{files.TEMPORARY}"
    if first:
        mark.touch()
    devices.barrier("the mark of the workdir is there")
    seen = devices.least(_appears(mark))
    if first:
        mark.unlink()
    if not seen:
        raise InputError(
            f"workdir {workdir} is not the same folder for all processes of this run: give one on a disk they share"
        )


def _locked(workdir: Path) -> bool:
    """Whether this process got the lock of the working directory, until it ends."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        files.lock(workdir / ".lock")
    except BlockingIOError:
        return False
    except OSError as error:
        raise InputError(f"workdir {workdir} cannot be written ({error.strerror}): choose another workdir") from None
    return True


def _appears(path: Path) -> bool:
    """Whether a file is there, or comes in time."""
    end = time.monotonic() + APPEARS_SECONDS
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(1.0)
    return True
