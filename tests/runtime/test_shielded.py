"""Steps that no signal comes between."""

import os
import signal

import pytest

from kdjax.runtime import preemption


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_waits_for_the_end_of_the_steps(number):
    heard, steps = [], []
    before = signal.signal(number, lambda number, frame: heard.append((number, list(steps))))
    try:
        with preemption.shielded():
            os.kill(os.getpid(), number)
            steps.extend("ab")
            assert not heard
        assert heard == [(number, ["a", "b"])]
        os.kill(os.getpid(), number)
        assert len(heard) == 2
    finally:
        signal.signal(number, before)
