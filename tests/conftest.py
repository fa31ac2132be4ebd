"""Tests run on eight virtual CPU devices, so that the mapped axis is real."""

import os

FLAGS = (
    "--xla_force_host_platform_device_count=8",
    # Tests compile much and compute little.
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
)
os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *FLAGS))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
