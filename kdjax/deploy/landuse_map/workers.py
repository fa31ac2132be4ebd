"""Worker processes that share a list of jobs. What ends one of them costs the job at hand; what ends this process
ends all of them.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TypeVar, cast

from kdjax.errors import Preempted
from kdjax.runtime import preemption

Job = TypeVar("Job")
Result = TypeVar("Result")

_SECONDS_TO_END = 20.0
"""For a worker that was asked to: calls of GDAL and onnxruntime end first."""


def share(
    begin: Callable[[], Callable[[Job], Result]],
    jobs: Sequence[Job],
    count: int,
    done: Callable[[Job, Result | None], None],
) -> None:
    """Does all jobs in `count` new processes, each of which takes the next job when it has done one.

    Args:
        begin: called once in each process; gives what does a job. It, the jobs and the results can be pickled.
        jobs: what is to be done.
        count: of processes.
        done: told in this process of each job with its result, or None where the process ended before.
    """
    waiting = deque(jobs)
    busy: dict[Connection, tuple[SpawnProcess, Job]] = {}
    processes: list[SpawnProcess] = []
    try:
        while waiting or busy:
            while waiting and len(busy) < count:
                connection, process = _start(begin)
                processes.append(process)
                busy[connection] = process, waiting.popleft()
                _send(connection, busy[connection][1])
            for connection in cast(list[Connection], wait(list(busy))):
                process, job = busy.pop(connection)
                try:
                    result = connection.recv()
                except (EOFError, ConnectionResetError):
                    connection.close()
                    done(job, None)
                    continue
                if waiting:
                    busy[connection] = process, waiting.popleft()
                    _send(connection, busy[connection][1])
                else:
                    connection.close()  # which the worker takes for the end
                done(job, result)
    except BaseException:
        for process in processes:
            process.terminate()
        raise
    finally:
        for process in processes:
            process.join(_SECONDS_TO_END)
            if process.is_alive():
                process.kill()
                process.join()


def _start(begin: Callable[[], Callable[[Job], Result]]) -> tuple[Connection, SpawnProcess]:
    context = multiprocessing.get_context("spawn")  # GDAL and onnxruntime have threads, which a fork would lose
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, begin), daemon=True)
    # Ctrl-C in a terminal reaches all processes of the command. This one ends the others: they are born deaf to it.
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, heard)
    theirs.close()
    return ours, process


def _send(connection: Connection, job: Job) -> None:
    with contextlib.suppress(BrokenPipeError):  # it has ended: `recv` will say so
        connection.send(job)


def _serve(connection: Connection, begin: Callable[[], Callable[[Job], Result]]) -> None:
    preemption.install()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(Preempted, EOFError, BrokenPipeError, ConnectionResetError):
        work = begin()
        while True:
            connection.send(work(connection.recv()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
