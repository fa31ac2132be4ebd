"""A CPU as one device for each core, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import compiler

ROOT = Path(__file__).resolve().parents[2]
QUICK = compiler.flags(devices=1).split(" ", 1)[1]  # how many devices there are is not said
ASK = """
import json, jax
from kdjax.runtime import devices
devices.split_cpu(4)
shapes = lambda seeds, arms: [mapping.shape for mapping in devices.for_population(seeds, arms)]
row = devices.for_population(4, 2)[-2:][0]
print(json.dumps([
    jax.device_count(), len(devices.DeviceMapping().devices), devices.DeviceMapping().axis_name, shapes(4, 2),
    shapes(3, 2), shapes(5, 3), shapes(1, 1), len(row.devices), row.rows_a_device(4, 2),
]))
"""


def asked(ask=ASK, **environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "", **environment}
    done = subprocess.run([sys.executable, "-c", ask], env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def test_students_share_the_cores_and_all_else_has_one_device():
    assert asked() == [
        4, 1, None, [[4, 1], [2, 1], None], [[3, 1], [1, 2], None], [[1, 3], None], [None], 2, [2, 2],
    ]  # fmt: skip


def test_devices_that_there_are_stay_as_they_are():
    assert asked(ASK.replace("devices.split_cpu(4)", "jax.devices(); devices.split_cpu(4)"))[:4] == [1, 1, None, [None]]


@pytest.mark.parametrize(
    "said", [{"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}, {"JAX_NUM_CPU_DEVICES": "2"}]
)
def test_devices_that_the_user_asks_for_share_batches_too(said):
    assert asked(**said)[:5] == [2, 2, "devices", [[2, 1]], [[1, 2]]]


def run(folder, cache, cores):
    """Trains teacher and students of the tiny configuration, and measures them; returns what the folder says."""
    code = f"from kdjax.runtime import host; host.cores = lambda: {cores}; from kdjax.main import run; run()"
    flags = (
        f"--config={ROOT / 'tests' / 'tiny.py'}", "--config.dataset.source=demo", "--config.dataset.demo_classes=3",
        "--config.dataset.demo_train=48", "--config.dataset.demo_validation=12", "--config.dataset.demo_test=12",
        f"--workdir={folder}", f"--config.run.cache_dir={cache}", "--stages=teacher,distill,evaluate",
    )  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": QUICK}
    done = subprocess.run([sys.executable, "-c", code, *flags], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    records = {
        stage: [json.loads(line) for line in (folder / stage / "metrics.jsonl").read_text().splitlines()]
        for stage in ("teacher", "distill")
    }
    return json.loads((folder / "distill" / "program.json").read_text())["devices"], records


@pytest.mark.slow
def test_students_on_a_device_for_each_core_train_as_on_one(tmp_path, cache):
    """Up to rounding, which has hardly grown in the first steps. The teacher has one device anyway: the same bits."""
    devices, cores = run(tmp_path / "cores", cache, cores=2)
    alone, one = run(tmp_path / "one", cache, cores=1)
    assert (devices, alone) == ([2, 1], None)
    assert cores["teacher"] == one["teacher"]
    first, alike = (records["distill"][0]["students"].values() for records in (cores, one))
    for here, there in zip(first, alike, strict=True):
        assert here.keys() == there.keys() and "loss" in here
        np.testing.assert_allclose(list(here.values()), list(there.values()), rtol=1e-3)
