"""This process before JAX starts: settings that XLA's CPU backend runs faster with, and the other hosts of a run."""

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
    """Call once, before anything uses a JAX device.

    XLA may add up a sum in any order, and so in vector registers: on CPU a third less time for a student's training
    step (measured). Infinities and NaNs keep their meaning, and the same program gives the same bits each time. An
    XLA_FLAGS of the user that names the flag is left as it is.

    Memory that is freed stays with the process, see `heap.keep`.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_enable_fast_math" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {FAST_SUMS}".strip()
    heap.keep()


def cores() -> int:
    """Cores that this process may use: those it may run on, or fewer where its control group has a share of them."""
    those = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    groups = Path("/proc/self/cgroup")
    shares = cgroups.cores(groups.read_text(encoding="utf-8"), cgroups.MOUNT) if groups.is_file() else ()
    return max(1, min([those, *map(round, shares)]))


HEARTBEAT_SECONDS = 70
"""JAX aborts this process when another is silent for so long; `watch` comes before."""

WAIT_VARIABLE, WAIT_SECONDS = "KDJAX_CONNECT_SECONDS", 50
"""How long the processes of a run wait for each other as they start, and the variable that says otherwise."""


def connect(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Joins the other processes of a run, where it has any.

    Ends this process with status 2 and one line where they have not met in time: JAX's client cannot be interrupted,
    and would abort with a stack trace of C++.

    Args:
        coordinator: HOST:PORT of the first process, or None to find the others by the environment: a Slurm step of
            several tasks, a TPU slice of several hosts, an indexed Kubernetes job.
        processes: how many there are; with `coordinator` only.
        process: which of them this one is, from 0; with `coordinator` only.

    Raises:
        InputError: `coordinator` is no HOST:PORT, or what it names cannot be used.
    """
    environment = os.environ
    found = (
        int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1
        or "," in environment.get("TPU_WORKER_HOSTNAMES", "")
        or {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= environment.keys()
    )
    if coordinator is None and not found:
        return
    if coordinator is not None:
        check_address(coordinator)
    seconds = _wait_seconds()
    # In a Slurm step JAX gives a process one GPU, by its place among those of the node. Alone there it takes all: [].
    alone = environment.get("SLURM_STEP_NUM_TASKS", "") == environment.get("SLURM_STEP_NUM_NODES")
    devices: list[int] | None = [] if alone and "JAX_LOCAL_DEVICE_IDS" not in environment else None
    import jax

    where = coordinator or "the address that the environment gives"
    print(f"waiting for the other processes at {where}", flush=True)
    patience = threading.Timer(seconds, _give_up, (where, seconds))
    patience.daemon = True
    patience.start()
    interrupted = signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own handler runs after the client is back
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
        said = " ".join(str(error).split())
        raise InputError(
            f"the processes of this run did not meet at {where}: {said}; is its port free, and is it the first host?"
        ) from None
    finally:
        patience.cancel()
        signal.signal(signal.SIGINT, interrupted)
    if jax.process_count() == 1:
        preemption.install()  # JAX's service took SIGTERM, for a run of several that asks it


def check_address(coordinator: str) -> None:
    """Checks that the address of the first process is HOST:PORT.

    Raises:
        InputError: it is not.
    """
    found = re.fullmatch(r"(?:[\w.-]+|\[[0-9A-Fa-f:.%\w]+\]):([0-9]{1,5})", coordinator, re.ASCII)
    if not found or not 1 <= int(found[1]) <= 65535:
        raise InputError(f"--coordinator is {coordinator!r}: give HOST:PORT with a port of 1 to 65535, as node1:8476")


def _wait_seconds() -> int:
    given = os.environ.get(WAIT_VARIABLE, str(WAIT_SECONDS))
    if not re.fullmatch("[0-9]{1,6}", given) or int(given) == 0:
        raise InputError(f"{WAIT_VARIABLE} is {given!r}: give a whole number of seconds")
    return int(given)


def _give_up(where: str, seconds: int) -> None:
    print(
        f"error: the processes of this run did not meet at {where} within {seconds} s: start all of them at about the "
        f"same time, with the same --coordinator and --processes, or give {WAIT_VARIABLE}",
        file=sys.stderr,
        flush=True,
    )
    os._exit(2)
