"""Two processes over loopback save and restore, and compute what one process computes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).with_name("two_processes.py")


def start(address, processes, process, devices, directory):
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    environment["PYTHONPATH"] = str(SCRIPT.parent.parent)
    command = [sys.executable, SCRIPT, address, *map(str, (processes, process, devices)), directory]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def results(processes):
    found = []
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err[-3000:]
        found.append(json.loads(out.splitlines()[-1]))
    return found


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    """Two processes with four devices each, and one with eight: five steps, a checkpoint after the second."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = [start(address, 2, rank, 4, tmp_path / "pair") for rank in range(2)]
    *pair, alone = results([*started, start("", 1, 0, 8, tmp_path / "alone")])
    assert np.shape(alone["losses"]) == (5, 1, 2)
    for one in pair:
        for name in ("losses", "params", "logits"):
            np.testing.assert_allclose(one[name], alone[name], rtol=1e-9, atol=1e-9)
