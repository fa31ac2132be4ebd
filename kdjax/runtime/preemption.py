"""SIGTERM, as schedulers send it: a checkpoint, and an exit status that asks to be started again. And Ctrl-C.

A training loop defers the signal to the end of its chunk of steps. Everywhere else the run ends at once: what is on
disk is whole, and the same command goes on from there. Several processes end together, so they end where they ask:
before each chunk of steps, and before each shard of teacher logits.
"""

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

from kdjax.errors import Preempted


class _Signal:
    deferred = False
    received = False
    interrupted = False
    asked = 0


def install() -> None:
    """Takes SIGTERM and Ctrl-C from now on. Needs no JAX, whose import takes seconds.

    When several processes have met, JAX's own service takes SIGTERM over, so that all end at one step.
    """
    signal.signal(signal.SIGTERM, _handle)
    signal.signal(signal.SIGINT, _interrupt)


def leaving() -> None:
    """Ignores SIGTERM from now on: the run has ended, and how is decided.

    An interpreter with JAX in it takes seconds to shut down, and dies of any signal that it does not ignore: a
    scheduler would be told of a failure.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _handle(number: int, frame: FrameType | None) -> None:
    _Signal.received = True
    leaving()  # some schedulers send it several times, and once is enough
    if not _Signal.deferred:
        raise Preempted("ended by SIGTERM")


def _interrupt(number: int, frame: FrameType | None) -> None:
    _Signal.interrupted = True
    raise KeyboardInterrupt


def check_lost() -> None:
    """Ends a run whose signal was lost: what is raised inside a callback of a library goes no further.

    Raises:
        KeyboardInterrupt: Ctrl-C came earlier.
        Preempted: SIGTERM did.
    """
    if _Signal.interrupted:
        raise KeyboardInterrupt
    if _Signal.received:
        raise Preempted("ended by SIGTERM")


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Within this context the signal only makes `requested` true. One that nobody asked for ends the run at its end.

    Raises:
        Preempted: the signal came, and the context ended for another reason, such as the end of a schedule.
    """
    _Signal.deferred = True
    try:
        yield
    finally:
        _Signal.deferred = False
    if _Signal.received:
        raise Preempted("ended by SIGTERM")


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Within this context neither SIGTERM nor Ctrl-C ends the process: for a few steps that belong together.

    One that came takes effect at the end. Only for the main thread, which alone may handle signals.
    """
    came: list[int] = []
    numbers = signal.SIGTERM, signal.SIGINT
    handlers = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in numbers}
    try:
        yield
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
    for number in came[:1]:
        signal.raise_signal(number)


def requested() -> bool:
    """Whether to save and end now: asked by all processes at the same places, and answered alike in each."""
    import jax

    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        # JAX answers yes to one number only, the one after the highest that a process has asked with when the signal
        # comes. Steps would leave that number out, and begin anew with each stage.
        _Signal.asked += 1
        return multihost_utils.reached_preemption_sync_point(_Signal.asked)
    return _Signal.received
