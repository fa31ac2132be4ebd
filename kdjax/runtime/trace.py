"""Profiles some steps of training, for TensorBoard or Perfetto."""

from pathlib import Path
from typing import Any

import jax


class Trace:
    """Runs `jax.profiler` from the beginning of step `first` to the end of step `last`.

    Args:
        first, last: step numbers, counted from 0.
        directory: directory for the trace; created if absent.
    """

    def __init__(self, first: int, last: int, directory: Path):
        self._first, self._end, self._directory = first, last + 1, directory
        self._running = False

    def before(self, step: int, count: int, state: Any) -> int:
        """Called before `count` steps from `step` on; returns how many of them to send.

        The number is such that the trace begins and ends between two chunks of steps.
        """
        if step < self._first < step + count:
            return self._first - step
        if step == self._first:
            jax.block_until_ready(state)
            jax.profiler.start_trace(self._directory)
            self._running = True
        return min(count, self._end - step) if step < self._end else count

    def after(self, step: int, state: Any) -> None:
        """Called when the steps before `step` have been sent to the devices."""
        if self._running and step >= self._end:
            jax.block_until_ready(state)
            self.close()

    def close(self) -> None:
        """Ends a trace that is running."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
