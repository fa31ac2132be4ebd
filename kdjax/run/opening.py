"""Opens a run for a command: chooses the cache, sets up JAX's cache of compiled programs, and logs to the screen."""

import os
import time
import warnings
from pathlib import Path

import jax
from ml_collections import ConfigDict

from kdjax.config import check_fields
from kdjax.errors import InputError
from kdjax.run.checks import expand_paths
from kdjax.run.run import Run, open_run


def log(line: str) -> None:
    """Prints a line with the time of day."""
    print(time.strftime("%H:%M:%S ") + line, flush=True)


def _user_cache() -> Path:
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:  # a user in a container may have no home
        raise InputError("run.cache_dir: this user has no home directory to keep a cache in: name a folder") from None


def open_for_command(config: ConfigDict, workdir: Path, **options: bool) -> Run:
    """Opens the run of a configuration in a directory, with the options of `run.open_run`.

    Compiled programs are kept in the cache, so a second start is quick. Of several processes only the first one logs.

    Raises:
        InputError: see `run.open_run`.
    """
    check_fields(config)
    expand_paths(config)
    cache = Path(config.run.cache_dir or _user_cache() / "kdjax")
    # Resolved, because the name of the folder is part of the key under which JAX finds a program.
    jax.config.update("jax_compilation_cache_dir", str((cache / "programs").resolve()))
    # A program is compiled again if it cannot be written (full disk) or read (a run was killed while it wrote).
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)  # many small programs add up to seconds
    say = log if jax.process_index() == 0 else lambda line: None
    return open_run(config, workdir, cache, say, **options)
