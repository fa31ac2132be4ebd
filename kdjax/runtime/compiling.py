"""What compiling costs: it is told, as a first start would be silent for a minute, and saved where it does not pay."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from kdjax.runtime import files

SECONDS = "seconds.json"
"""In the folder of compiled programs: the seconds of the last first call of each program, by what it is."""


def for_once() -> dict[str, bool | int] | None:
    """Compiler options, as `jax.jit` takes them, for a program that runs once: on CPU it is compiled in half the time.

    Its results may differ in the last bit from those of a program that is optimized.
    """
    if jax.default_backend() != "cpu" or isinstance(jnp.zeros(()), jax.core.Tracer):
        return None  # other compilers may not know these, and what is traced belongs to a program that has its own
    return {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def told(program: Callable[..., Any], what: str, log: Callable[[str], None]) -> Callable[..., Any]:
    """A program whose first call, which compiles it or finds it compiled, is announced.

    Args:
        program: the function that JAX compiles.
        what: a name for people, such as "distill: step of 12 MobileNetV2 at 64 px"; times are kept by it.
        log: takes the line.
    """
    called = False

    def call(*args: Any) -> Any:
        nonlocal called
        if called:
            return program(*args)
        called, before = True, _seconds().get(what)
        last = "the first time may take minutes" if before is None else f"last time this took {before:.0f} s"
        log(f"{what}: compiling; {last}")
        began = time.monotonic()
        result = program(*args)
        _keep(what, time.monotonic() - began)
        return result

    return call


def _file() -> Path | None:
    folder: str | None = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    return Path(folder) / SECONDS if folder else None


def _seconds() -> dict[str, float]:
    """What is known; nothing where the file is absent or damaged: it serves a line of the log alone."""
    try:
        known = json.loads(file.read_text(encoding="utf-8")) if (file := _file()) else {}
        return {str(name): float(seconds) for name, seconds in known.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _keep(what: str, seconds: float) -> None:
    if (file := _file()) and jax.process_index() == 0:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            files.write_json(file, {**_seconds(), what: round(seconds, 1)})
        except OSError:  # a full disk must not end a run for a line of the log
            pass
