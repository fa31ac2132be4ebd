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
def test_signals_end_each_stage_in_one_line_and_nothing_is_lost():
    assert last_line("fault_table.py", "--faults=SIGINT,SIGTERM") == "10 of 10 clean, 10 of 10 whole"


@pytest.mark.slow
def test_a_signal_during_the_last_save_is_not_swallowed():
    faults = "SIGTERM at the last save,SIGINT at the last save"
    said = last_line("fault_table.py", f"--faults={faults}", "--stages=teacher,distill")
    assert said == "4 of 4 clean, 4 of 4 whole"


@pytest.mark.slow
def test_bad_inputs_end_in_one_line():
    good, _, count, *_ = last_line("bad_inputs.py").split()
    assert good == count and int(count) >= 200
