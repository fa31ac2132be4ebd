"""Announces compilation, which may take a minute, and makes it cheaper for programs that run only once."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.runtime import files

SECONDS = "seconds.json"
"""File in the folder of compiled programs with how many seconds the first call of each program took last time."""


def for_once() -> dict[str, bool | int] | None:
    """Returns compiler options for `jax.jit` that halve the compile time on CPU, for a program that runs once.

    Results may differ in the last bit from those of the optimized program.
    """
    if jax.default_backend() != "cpu" or isinstance(jnp.zeros(()), jax.core.Tracer):
        return None  # other compilers may not know these options, and a traced program is compiled with its caller's
    return {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def announce_first_call(
    program: Callable[..., Any], description: str, log: Callable[[str], None]
) -> Callable[..., Any]:
    """Wraps a program so that its first call, which compiles it or loads it compiled, is announced.

    Args:
        program: the function that JAX compiles.
        description: text for the log, such as "distill: step of 12 MobileNetV2 at 64 px"; times are stored under it.
        log: takes the line of text.
    """
    called = False

    def call(*args: Any) -> Any:
        nonlocal called
        if called:
            return program(*args)
        called, seconds = True, _seconds().get(description)
        expected = "the first time may take minutes" if seconds is None else f"last time this took {seconds:.0f} s"
        log(f"{description}: compiling; {expected}")
        start = time.monotonic()
        result = program(*args)
        _store_seconds(description, time.monotonic() - start)
        return result

    return call


def _file() -> Path | None:
    folder: str | None = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    return Path(folder) / SECONDS if folder else None


def _seconds() -> dict[str, float]:
    """Reads the stored times; {} if the file is absent or damaged, since only a line of the log depends on it."""
    try:
        stored = json.loads(file.read_text(encoding="utf-8")) if (file := _file()) else {}
        return {str(name): float(seconds) for name, seconds in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _store_seconds(description: str, seconds: float) -> None:
    if (file := _file()) and jax.process_index() == 0:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            files.write_json(file, {**_seconds(), description: round(seconds, 1)})
        except OSError:  # a full disk must not end a run for a line of the log
            pass
