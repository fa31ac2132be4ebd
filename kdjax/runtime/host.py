"""Prepares this process before JAX starts: faster settings for XLA's CPU backend, and the connection to other hosts."""

import os
import re
import signal
import sys
import threading
from pathlib import Path

from kdjax.errors import InputError
from kdjax.runtime import cgroups, heap, preemption

FAST_SUMS = "--xla_cpu_enable_fast_math=true"


def prepare() -> None:
    """Applies settings that make XLA faster on CPU. Call it once, before anything uses a JAX device.

    XLA may then add numbers in any order, and so in vector registers: a third less time for a student's training step
    (measured). Infinities and NaNs keep their meaning, and the same program gives the same bits each time. If the
    user's XLA_FLAGS name the flag, they stay as they are.

    The process keeps memory that is freed, see `heap.keep`.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_enable_fast_math" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {FAST_SUMS}".strip()
    heap.keep()


def cores() -> int:
    """Returns how many cores this process may use: those it may run on, or fewer if a control group limits it."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    groups = Path("/proc/self/cgroup")
    shares = cgroups.cores(groups.read_text(encoding="utf-8"), cgroups.MOUNT) if groups.is_file() else ()
    return max(1, min([available, *map(round, shares)]))


HEARTBEAT_SECONDS = 70
"""JAX aborts this process if another one is silent for this long; `watch` ends it before that."""

WAIT_VARIABLE, WAIT_SECONDS = "KDJAX_CONNECT_SECONDS", 50
"""Environment variable for how long the processes of a run wait for each other at the start, and its default."""


def connect(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Connects this process to the other processes of a run, if there are any.

    If they do not connect in time, this process ends with status 2 and one line of text, because JAX's client cannot
    be interrupted and would abort with a C++ stack trace.

    Args:
        coordinator: HOST:PORT of the first process, or None to find the others through the environment: a Slurm step
            of several tasks, a TPU slice of several hosts, or an indexed Kubernetes job.
        processes: number of processes; only with `coordinator`.
        process: index of this process, from 0; only with `coordinator`.

    Raises:
        InputError: `coordinator` is not HOST:PORT, or that address cannot be used.
    """
    environment = os.environ
    has_others = (
        int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1
        or "," in environment.get("TPU_WORKER_HOSTNAMES", "")
        or {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= environment.keys()
    )
    if coordinator is None and not has_others:
        return
    if coordinator is not None:
        check_address(coordinator)
    seconds = _wait_seconds()
    # In a Slurm step, JAX gives each process of a node one of its GPUs. One that is alone on its node takes all: [].
    alone_on_node = environment.get("SLURM_STEP_NUM_TASKS", "") == environment.get("SLURM_STEP_NUM_NODES")
    devices: list[int] | None = [] if alone_on_node and "JAX_LOCAL_DEVICE_IDS" not in environment else None
    import jax

    address = coordinator or "the address that the environment gives"
    print(f"waiting for the other processes at {address}", flush=True)
    timer = threading.Timer(seconds, _give_up, (address, seconds))
    timer.daemon = True
    timer.start()
    # A Python handler would run only once the client has returned.
    previous_handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process,
            devices,
            initialization_timeout=seconds + 60,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        message = " ".join(str(error).split())
        raise InputError(
            f"the processes of this run did not meet at {address}: {message}; is its port free, and is it the first "
            "host?"
        ) from None
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, previous_handler)
    if jax.process_count() == 1:
        preemption.install()  # JAX's service took SIGTERM over, but a single process does not ask it


def check_address(coordinator: str) -> None:
    """Checks that the address of the first process is HOST:PORT.

    Raises:
        InputError: it is not.
    """
    match = re.fullmatch(r"(?:[\w.-]+|\[[0-9A-Fa-f:.%\w]+\]):([0-9]{1,5})", coordinator, re.ASCII)
    if not match or not 1 <= int(match[1]) <= 65535:
        raise InputError(f"--coordinator is {coordinator!r}: give HOST:PORT with a port of 1 to 65535, as node1:8476")


def _wait_seconds() -> int:
    text = os.environ.get(WAIT_VARIABLE, str(WAIT_SECONDS))
    if not re.fullmatch("[0-9]{1,6}", text) or int(text) == 0:
        raise InputError(f"{WAIT_VARIABLE} is {text!r}: give a whole number of seconds")
    return int(text)


def _give_up(address: str, seconds: int) -> None:
    print(
        f"error: the processes of this run did not meet at {address} within {seconds} s: start all of them at about "
        f"the same time, with the same --coordinator and --processes, or give {WAIT_VARIABLE}",
        file=sys.stderr,
        flush=True,
    )
    os._exit(2)
