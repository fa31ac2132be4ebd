"""SIGTERM while the main thread is inside a call that runs no Python code, such as a compilation."""

import hashlib
import os
import signal
import subprocess
import sys
import time

import pytest

from kdjax.runtime.preemption import CALL_SECONDS

SCRIPT = """
import contextlib, hashlib, signal
from kdjax import main
from kdjax.runtime import preemption

def called(argv):
    with {context}:
        preemption.defer()
        print("calls", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", {rounds})
        print("returned", preemption.requested(), flush=True)

main.main = called
main.run()
"""
LINE = "ended by SIGTERM; repeat the command to continue\n"


def ended(context, rounds):
    """The status of a command, what it says, and how long it lasts after the signal."""
    code = SCRIPT.format(context=context, rounds=rounds)
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as run:
        assert run.stdout.readline() == "calls\n"
        time.sleep(0.2)  # it is inside the call
        run.send_signal(signal.SIGTERM)
        start = time.monotonic()
        out, err = run.communicate(timeout=200)
    return run.returncode, out, err, time.monotonic() - start


def test_it_ends_the_run_where_nothing_is_to_be_saved():
    status, out, err, seconds = ended("contextlib.nullcontext()", 2**31 - 1)  # about ten minutes
    assert (status, out, err) == (os.EX_TEMPFAIL, "", LINE) and seconds < 60


@pytest.mark.parametrize(
    ("context", "requested"), [("preemption.deferrable()", True), ("preemption.shielded()", False)]
)
def test_it_waits_for_the_call_where_it_is_deferred_or_shielded(context, requested):
    status, out, err, seconds = ended(context, rounds_of(3 * CALL_SECONDS))
    assert (status, out, err) == (os.EX_TEMPFAIL, f"returned {requested}\n", LINE) and seconds > CALL_SECONDS


def rounds_of(seconds):
    """How many rounds take about so long here."""
    start = time.monotonic()
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**6)
    return int(seconds / (time.monotonic() - start) * 10**6)
