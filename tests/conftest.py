"""Tests run on eight virtual CPU devices, so that the mapped axis is real."""

import gc
import importlib.util
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from helpers import compiler

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {compiler.flags(8)}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
gc.set_threshold(50_000)  # tracing makes many objects that stay: to look at all of them again and again takes long


COMPARED = ("torch", "onnx", "onnxruntime", "rasterio")
"""Packages that tests compare with, and skip without."""


def pytest_configure():
    """Where CI is set nothing may be skipped for want of a package."""
    missing = [name for name in COMPARED if importlib.util.find_spec(name) is None]
    if os.environ.get("CI") and missing:
        raise pytest.UsageError(f"CI is set, but tests would be skipped: install {', '.join(missing)}")


def pytest_collection_modifyitems(items):
    """Files of slow tests alone come first, then those with some: last, they would keep one process, and one wait."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    quick = {item.path for item in items if not item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path in quick, item.path not in slow))


@pytest.fixture(scope="session", autouse=True)
def compiled(programs):
    """What one test has compiled another need not: many trace the same step anew."""
    import jax

    settings = {
        "jax_compilation_cache_dir": str(programs),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        jax.config.update(name, value)


@pytest.fixture
def colors():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 37).astype(np.int32)
    images = (rng.integers(0, 90, (37, 8, 8, 3)) + 120 * np.eye(3)[labels][:, None, None]).astype(np.uint8)
    return images, labels


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """Where tests and the commands they start keep compiled programs, the same place for all processes of pytest."""
    folder = Path(os.environ.get("KDJAX_TEST_PROGRAMS") or shared(tmp_path_factory) / "programs")  # mutants have theirs
    folder.mkdir(exist_ok=True)
    return folder


def shared(tmp_path_factory):
    """The temporary folder of all processes of pytest."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture
def cache(tmp_path, programs):
    """An empty cache folder for the command; only the compiled programs are those of all tests."""
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "programs").symlink_to(programs)
    return folder


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory, programs):
    """A run that has learned, made once for all processes of pytest; it has minutes of networks to compile."""
    from helpers.finished_run import made_once

    return made_once(shared(tmp_path_factory) / "finished_run", programs)


@pytest.fixture
def finished(finished_once, monkeypatch):
    """The same, with the networks as small as it has them."""
    import learned
    from helpers.finished_run import unchanged_networks

    unchanged_networks(monkeypatch)
    learned.get_config()
    return finished_once


@pytest.fixture
def every_epoch_saved(monkeypatch):
    """A checkpoint after each validation, however short an epoch is beside it."""
    from kdjax.training import loop

    monkeypatch.setattr(loop, "SAVING_SHARE", 1.0)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """An exported file that names the color of a window."""
    pytest.importorskip("onnx")
    pytest.importorskip("rasterio")
    from helpers.color_model import write_model
    from helpers.maps import CLASSES, SIDE

    return write_model(tmp_path_factory.mktemp("export") / "student.onnx", SIDE, CLASSES)


@pytest.fixture
def handlers():
    """The signals are pytest's again after the test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
