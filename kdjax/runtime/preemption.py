"""Handles Ctrl-C and SIGTERM: a run that a scheduler stops saves a checkpoint and asks to be started again.

A training loop defers SIGTERM to the end of its chunk of steps, once the first has been compiled. Everywhere else the
run ends at once, because the files on disk are complete and the same command continues from there. Several processes
have to end together, so they end only where they call `requested`: before each chunk of steps, and before each shard of
teacher logits.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from kdjax.errors import Preempted

CALL_SECONDS = 2.0
"""How long SIGTERM waits for a call that runs no Python code, before the run ends inside it."""


class _Signal:
    deferrable = False
    deferred = False
    received = False
    interrupted = False
    questions = 0


def install() -> None:
    """Installs the handlers of SIGTERM and Ctrl-C. Does not import JAX, which takes seconds.

    Once several processes have connected, JAX's own service handles SIGTERM, so that all of them end at the same step.
    """
    signal.signal(signal.SIGTERM, _handle)
    signal.signal(signal.SIGINT, _interrupt)


@contextlib.contextmanager
def watched(end: Callable[[], None]) -> Iterator[None]:
    """A context in which SIGTERM ends the run even while the main thread is inside a call that runs no Python code.

    Python calls a handler only between two steps of Python code, and the compiler alone may take minutes. Where the
    handler of `install` has run, is replaced or deferred, nothing is ended here.

    Args:
        end: ends this process, from another thread.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_end_in_call, args=(reader, end), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        os.close(writer)


def _end_in_call(reader: int, end: Callable[[], None]) -> None:
    with open(reader, "rb", buffering=0) as signals:
        while number := signals.read(1):  # nothing at the end of the context
            time.sleep(CALL_SECONDS)
            if number[0] == signal.SIGTERM and signal.getsignal(signal.SIGTERM) is _handle and not _Signal.deferred:
                end()


def ignore_sigterm() -> None:
    """Ignores SIGTERM from now on, because the run has ended and its exit status is decided.

    An interpreter that has imported JAX takes seconds to shut down. A signal that it does not ignore would kill it
    meanwhile, and the scheduler would see a failure.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _handle(number: int, frame: FrameType | None) -> None:
    _Signal.received = True
    ignore_sigterm()  # some schedulers send the signal several times
    if not _Signal.deferred:
        raise Preempted("ended by SIGTERM")


def _interrupt(number: int, frame: FrameType | None) -> None:
    _Signal.interrupted = True
    raise KeyboardInterrupt


def check_lost() -> None:
    """Raises again for a signal whose exception was lost, as when it is raised inside a library's callback.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed earlier.
        Preempted: SIGTERM came earlier.
    """
    if _Signal.interrupted:
        raise KeyboardInterrupt
    if _Signal.received:
        raise Preempted("ended by SIGTERM")


def signaled() -> bool:
    """Whether Ctrl-C or SIGTERM has come."""
    return _Signal.interrupted or _Signal.received


@contextlib.contextmanager
def deferrable() -> Iterator[None]:
    """A context in which SIGTERM makes `requested` return True from `defer` on, and does not end the run at once.

    Raises:
        Preempted: the signal came, and the context ended without an exception, for example at the end of a schedule.
    """
    _Signal.deferrable = True
    try:
        yield
    finally:
        _Signal.deferrable = _Signal.deferred = False
    if _Signal.received:
        raise Preempted("ended by SIGTERM")


def defer() -> None:
    """Defers SIGTERM from now on, because there is work to save. Outside of `deferrable` it does nothing."""
    _Signal.deferred = _Signal.deferrable


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """A context in which neither SIGTERM nor Ctrl-C ends the process, for a few operations that belong together.

    The first signal that came takes effect at the end. Only the main thread may use this: no other can set handlers.
    """
    received: list[int] = []
    numbers = signal.SIGTERM, signal.SIGINT
    handlers = {number: signal.signal(number, lambda number, frame: received.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if received:
        signal.raise_signal(received[0])


def requested() -> bool:
    """Whether to save and end now. All processes must call this at the same points, and all get the same answer."""
    import jax

    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        # JAX answers yes for only one number: the one after the highest with which any process had asked when the
        # signal came. So the calls are counted. Step numbers would skip that number, and start again in each stage.
        _Signal.questions += 1
        return multihost_utils.reached_preemption_sync_point(_Signal.questions)
    return _Signal.received
