"""Watches the other processes of a run, and ends this one if one of them is gone.

A collective waits without limit for a process that is gone. Eventually JAX's service aborts the processes that wait,
with a C++ stack trace. The watch acts before that: each process writes beats to the service's key-value store and reads
those of the others. If a waiting call holds Python's global lock, the watch cannot run, and a deadline ends the
process.
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
"""A process without a beat for this long is taken to be gone: far longer than a busy machine delays a beat."""

STUCK_SECONDS = 30
"""A process whose watch has not run for this long ends.

The watch may stop just before it would find another process silent. So both times together are less than
`host.HEARTBEAT_SECONDS`, after which JAX's service aborts the process.
"""

FOLDER = "kdjax/beats"


def start(on_loss: Callable[[str], None], deadline: Deadline) -> None:
    """Starts to send beats and to watch those of the others, if there are several processes.

    Args:
        on_loss: called once, from another thread, with a message about the process that is gone; ends this process.
        deadline: ends this process if no Python code runs in it any more.
    """
    if jax.process_count() == 1:
        return
    from jax._src.distributed import global_state  # JAX has no public access to its key-value store

    shutting_down, shut_down = threading.Event(), threading.Event()
    client, own, count = global_state.client, jax.process_index(), jax.process_count()
    arguments = (client, own, count, shutting_down, shut_down, on_loss, deadline)
    thread = threading.Thread(target=_watch, args=arguments, daemon=True)

    def leave() -> None:
        shutting_down.set()
        try:
            jax.distributed.shutdown()  # waits, still beating, until the others end too; then all shut down together
        finally:
            shut_down.set()
            # A thread that is inside the client while the interpreter shuts down would abort the process.
            thread.join(SILENT_SECONDS)

    atexit.register(leave)
    deadline.renew()  # a call may take Python's lock for good before the thread does this
    thread.start()


def _watch(
    client: Any,
    own: int,
    count: int,
    shutting_down: threading.Event,
    shut_down: threading.Event,
    on_loss: Callable[[str], None],
    deadline: Deadline,
) -> None:
    last_beats = dict.fromkeys(range(count), ("", time.monotonic()))
    for beat in itertools.count():
        if shut_down.is_set():
            deadline.cancel()
            return
        deadline.renew()
        try:
            client.key_value_set(f"{FOLDER}/{own}", str(beat), allow_overwrite=True)
            beats = dict(client.key_value_dir_get(FOLDER))
        except jax.errors.JaxRuntimeError:  # the first process, which holds the store, cannot be reached
            beats = {}
        now = time.monotonic()
        for process in range(count):
            latest = beats.get(f"{FOLDER}/{process}", "")
            if latest not in ("", last_beats[process][0]):
                last_beats[process] = (latest, now)
        silent = [process for process, (_, since) in last_beats.items() if now - since > SILENT_SECONDS]
        if silent and not shutting_down.is_set():
            which = "0" if own in silent else ", ".join(map(str, silent))
            on_loss(f"process {which} was silent for {SILENT_SECONDS:.0f} s")
            return
        shut_down.wait(BEAT_SECONDS)
