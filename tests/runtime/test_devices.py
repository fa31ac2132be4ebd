"""A CPU as one device for each core, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ASK = """
import json, jax
from kdjax.runtime import devices
devices.split_cpu(4)
shapes = lambda seeds, arms: [mapping.shape for mapping in devices.for_population(seeds, arms)]
row = devices.for_population(4, 2)[-2:][0]
print(json.dumps([
    jax.device_count(), len(devices.Mapping().devices), devices.Mapping().axis_name, shapes(4, 2), shapes(3, 2),
    shapes(5, 3), shapes(1, 1), len(row.devices), row.rows_a_device(4, 2),
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
