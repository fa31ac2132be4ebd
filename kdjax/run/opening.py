"""Opens a run for a command: sets the process up, finds the cache, and says what happens."""

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
    """Prints a line with the time."""
    print(time.strftime("%H:%M:%S ") + line, flush=True)


def _user_cache() -> Path:
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    except RuntimeError:  # a container's user may have no home
        raise InputError("run.cache_dir: this user has no home directory to keep a cache in: name a folder") from None


def opened(config: ConfigDict, workdir: Path, **options: bool) -> Run:
    """The run of a configuration in a directory, with the options of `run.open_run`.

    Compiled programs are kept in the cache, so that a second start is quick. Of several processes the first one speaks.

    Raises:
        InputError: see `run.open_run`.
    """
    check_fields(config)
    expand_paths(config)
    cache = Path(config.run.cache_dir or _user_cache() / "kdjax")
    # Resolved, as JAX makes the name of the folder a part of what a program is found by.
    jax.config.update("jax_compilation_cache_dir", str((cache / "programs").resolve()))
    # One that cannot be written (a full disk) or read (a run was killed as it wrote) is compiled again.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)  # many small ones add up to seconds
    say = log if jax.process_index() == 0 else lambda line: None
    return open_run(config, workdir, cache, say, **options)
