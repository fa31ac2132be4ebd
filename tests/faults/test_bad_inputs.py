"""Bad input ends in one line, by the script that makes the table; `fault_table.py` is run by hand, as it takes long."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def last_line(script, *arguments):
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments], capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_bad_inputs_end_in_one_line():
    good, _, count, *_ = last_line("bad_inputs.py").split()
    assert good == count and int(count) >= 430
