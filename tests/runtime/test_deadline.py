"""A process in which no Python runs any more is ended all the same."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the C library has no such timers")
SCRIPT = """
import ctypes, time
from kdjax.runtime.deadline import Deadline

deadline = Deadline(1, 75, "error: it is over")
for _ in range(4):
    deadline.renew()
    time.sleep(0.5)
print("in time", flush=True)
{then}
"""


def run(then):
    command = [sys.executable, "-c", SCRIPT.format(then=then)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_a_call_that_holds_the_lock_of_python_ends_in_a_line_and_the_status():
    done = run("ctypes.PyDLL(None).sleep(3600)")  # longer than `run` waits
    assert done.stdout == "in time\n" and done.returncode == os.EX_TEMPFAIL
    assert done.stderr.endswith("error: it is over\n") and done.stderr.count("\n") == 1


def test_a_deadline_that_is_renewed_or_cancelled_ends_nothing():
    done = run("deadline.cancel(); time.sleep(2.5)")
    assert done.returncode == 0 and done.stderr == ""
