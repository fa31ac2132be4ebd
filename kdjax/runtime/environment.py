"""Describes the software and hardware of a run, for its results."""

import importlib.metadata
import os
import platform
from collections import Counter
from typing import Any

import jax

_PACKAGES = {
    "kdjax": "kdjax",
    "jax": "jax",
    "jaxlib": "jaxlib",
    "flax": "flax",
    "optax": "optax",
    "orbax": "orbax-checkpoint",
    "numpy": "numpy",
}


def environment() -> dict[str, Any]:
    """Returns versions, devices of all processes, platform, CPU count and XLA_FLAGS. Starts the JAX backend."""
    kinds = Counter(device.device_kind for device in jax.devices())
    return {
        "python": platform.python_version(),
        **{name: _version(distribution) for name, distribution in _PACKAGES.items()},
        "backend": jax.default_backend(),
        "devices": [{"kind": kind, "count": count} for kind, count in sorted(kinds.items())],
        "processes": jax.process_count(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
