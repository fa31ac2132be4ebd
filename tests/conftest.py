"""Tests run on eight virtual CPU devices, so that the mapped axis is real."""

import os

import numpy as np
import pytest

FLAGS = (
    "--xla_force_host_platform_device_count=8",
    # Tests compile much and compute little.
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
)
os.environ["XLA_FLAGS"] = " ".join((os.environ.get("XLA_FLAGS", ""), *FLAGS))
os.environ.setdefault("JAX_PLATFORMS", "cpu")


@pytest.fixture
def colors():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 37).astype(np.int32)
    images = (rng.integers(0, 90, (37, 8, 8, 3)) + 120 * np.eye(3)[labels][:, None, None]).astype(np.uint8)
    return images, labels


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    return tmp_path_factory.mktemp("programs")


@pytest.fixture
def cache(tmp_path, programs):
    """An empty cache folder for the command; only the compiled programs are those of all tests."""
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "programs").symlink_to(programs)
    return folder
