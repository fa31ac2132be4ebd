"""A round of tests/faults/kill_loop.py."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("kill_loop.py")


@pytest.mark.slow
def test_killed_at_random_instants_a_run_ends_as_if_it_had_not_been(tmp_path, programs):
    (tmp_path / "programs").symlink_to(programs)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills=1", f"--directory={tmp_path}"],
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "1 of 1 kills ended bit-identical"
