"""Tests of the ends of a run and of bad input, by the scripts that make the tables."""

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
def test_signals_end_the_longest_stage_in_one_line_and_nothing_is_lost():
    """The script does all faults in all stages; by hand, as it takes long."""
    said = last_line("fault_table.py", "--stages=distill", "--faults=SIGINT,SIGTERM,SIGTERM at the last save")
    assert said == "3 of 3 clean, 3 of 3 whole"


@pytest.mark.slow
def test_bad_inputs_end_in_one_line():
    good, _, count, *_ = last_line("bad_inputs.py").split()
    assert good == count and int(count) >= 200
