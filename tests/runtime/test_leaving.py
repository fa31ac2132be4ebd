"""How a run that has ended goes down: SIGTERM changes nothing then, and one that a signal has ended goes at once."""

import os
import signal
import subprocess
import sys
import time

import pytest

SCRIPT = """
import atexit, os, signal, sys
from kdjax import errors, main

def ends(argv):
    if argv[1].startswith("SIG"):
        os.kill(os.getpid(), signal.Signals[argv[1]])
    if argv[1] == "error":
        raise errors.InputError("wrong")

def shuts_down():
    print("shuts down", flush=True)
    sys.stdin.read()

atexit.register(shuts_down)
main.main = ends
main.run()
"""


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        ("", 0, ""),
        ("error", 2, "error: wrong\n"),
    ],
)
def test_it_changes_nothing(how, status, said):
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", SCRIPT, how], text=True, **pipes) as run:
        assert run.stdout.readline() == "shuts down\n"
        run.send_signal(signal.SIGTERM)
        assert run.returncode is None  # it was sent: `send_signal` looks first whether there is a process
        run.stdin.close()  # until here it waits
        while run.poll() is None:  # also after the functions of atexit, where Python takes its handlers away
            run.send_signal(signal.SIGTERM)
            time.sleep(0.001)
        assert (run.returncode, run.stderr.read()) == (status, said)


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("SIGTERM", os.EX_TEMPFAIL, "ended by SIGTERM; repeat the command to continue\n"),
        ("SIGINT", 130, "interrupted; repeat the command to continue\n"),
    ],
)
def test_a_run_that_a_signal_has_ended_does_not_shut_down(name, status, said):
    """Below threads that still compile, that ends in a segmentation fault."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, name], capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", said)
