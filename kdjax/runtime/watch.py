"""Watches the other processes of a run, and tells when one of them is gone.

A collective waits for a process that is gone for as long as it likes. In the end JAX's service aborts those that wait,
with a stack trace of C++. This comes before: each process leaves beats in the service's key-value store and reads those
of the others. Where it cannot come, because a call that waits holds Python's lock, a deadline does.
"""

import atexit
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import jax

from kdjax.runtime.deadline import Deadline

BEAT_SECONDS = 2.0
SILENT_SECONDS = 20.0
"""Without a beat for so long a process is gone: far more than a busy machine delays one."""

STUCK_SECONDS = 30
"""A process that has not looked for so long ends.

Python's lock may be lost just before another process would be called silent: both times together are less than
`host.HEARTBEAT_SECONDS`, after which JAX's service aborts the process.
"""

FOLDER = "kdjax/beats"


def start(gone: Callable[[str], None], stuck: Deadline) -> None:
    """Begins to beat and to listen, where there are several processes.

    Args:
        gone: called once, from another thread, with what is known; ends this process.
        stuck: ends this process where no Python runs any more.
    """
    if jax.process_count() == 1:
        return
    from jax._src.distributed import global_state  # JAX has no public way to its key-value store

    leaving, left = threading.Event(), threading.Event()
    arguments = (global_state.client, jax.process_index(), jax.process_count(), leaving, left, gone, stuck)
    thread = threading.Thread(target=_watch, args=arguments, daemon=True)

    def leave() -> None:
        leaving.set()
        try:
            jax.distributed.shutdown()  # who ends first waits here for the others, still beating, then all go at once
        finally:
            left.set()
            # A thread that is inside the client when the interpreter ends would abort the process.
            thread.join(SILENT_SECONDS)

    atexit.register(leave)
    stuck.renew()  # the thread may not come to it before Python's lock is gone for good
    thread.start()


def _watch(
    client: Any,
    own: int,
    count: int,
    leaving: threading.Event,
    left: threading.Event,
    gone: Callable[[str], None],
    stuck: Deadline,
) -> None:
    heard = dict.fromkeys(range(count), ("", time.monotonic()))
    for beat in itertools.count():
        if left.is_set():
            stuck.cancel()
            return
        stuck.renew()
        try:
            client.key_value_set(f"{FOLDER}/{own}", str(beat), allow_overwrite=True)
            beats = dict(client.key_value_dir_get(FOLDER))
        except jax.errors.JaxRuntimeError:  # the first process, which holds the store, is not reached
            beats = {}
        now = time.monotonic()
        for process in range(count):
            latest = beats.get(f"{FOLDER}/{process}", "")
            if latest not in ("", heard[process][0]):
                heard[process] = (latest, now)
        silent = [process for process, (_, since) in heard.items() if now - since > SILENT_SECONDS]
        if silent and not leaving.is_set():
            which = "0" if own in silent else ", ".join(map(str, silent))
            gone(f"process {which} was silent for {SILENT_SECONDS:.0f} s")
            return
        left.wait(BEAT_SECONDS)
