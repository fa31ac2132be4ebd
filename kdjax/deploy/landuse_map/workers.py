"""Worker processes that share a list of jobs.

If a worker dies, only its current job is lost. If this process ends, all workers end.
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
"""Time for a worker to end after SIGTERM, because calls of GDAL and onnxruntime finish first."""


def share(
    make_worker: Callable[[], Callable[[Job], Result]],
    jobs: Sequence[Job],
    count: int,
    report: Callable[[Job, Result | None], None],
) -> None:
    """Does all jobs in `count` new processes, each of which takes the next job when it has done one.

    Args:
        make_worker: called once in each process; returns the function that does a job. It must be possible to pickle
            `make_worker`, the jobs and the results.
        jobs: the jobs to do.
        count: number of processes.
        report: called in this process with each job and its result, or with None if the worker died first.
    """
    pending = deque(jobs)
    busy: dict[Connection, tuple[SpawnProcess, Job]] = {}
    processes: list[SpawnProcess] = []
    try:
        while pending or busy:
            while pending and len(busy) < count:
                connection, process = _start(make_worker)
                processes.append(process)
                busy[connection] = process, pending.popleft()
                _send(connection, busy[connection][1])
            for connection in cast(list[Connection], wait(list(busy))):
                process, job = busy.pop(connection)
                try:
                    result = connection.recv()
                except (EOFError, ConnectionResetError):
                    connection.close()
                    report(job, None)
                    continue
                if pending:
                    busy[connection] = process, pending.popleft()
                    _send(connection, busy[connection][1])
                else:
                    connection.close()  # tells the worker to end
                report(job, result)
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


def _start(make_worker: Callable[[], Callable[[Job], Result]]) -> tuple[Connection, SpawnProcess]:
    context = multiprocessing.get_context("spawn")  # a fork would lose the threads of GDAL and onnxruntime
    parent_end, worker_end = context.Pipe()
    process = context.Process(target=_serve, args=(worker_end, make_worker), daemon=True)
    # Ctrl-C in a terminal reaches all processes of the command. They start with it ignored: this process ends them.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, handler)
    worker_end.close()
    return parent_end, process


def _send(connection: Connection, job: Job) -> None:
    with contextlib.suppress(BrokenPipeError):  # it has died, which `recv` will report
        connection.send(job)


def _serve(connection: Connection, make_worker: Callable[[], Callable[[Job], Result]]) -> None:
    preemption.install()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(Preempted, EOFError, BrokenPipeError, ConnectionResetError):
        work = make_worker()
        while True:
            connection.send(work(connection.recv()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
