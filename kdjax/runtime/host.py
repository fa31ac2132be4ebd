"""This process before JAX starts: settings that XLA's CPU backend runs faster with, and the other hosts of a run."""

import ctypes
import os
import platform

from kdjax.errors import InputError

FAST_SUMS = "--xla_cpu_enable_fast_math=true"

# mallopt's parameters, from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def prepare() -> None:
    """Call once, before anything uses a JAX device.

    - XLA may add up a sum in any order, and so in vector registers: on CPU a third less time for a student's training
      step (measured). Infinities and NaNs keep their meaning, and the same program gives the same bits each time. An
      XLA_FLAGS of the user that names the flag is left as it is.
    - Memory that is freed stays with the process (glibc only). XLA's CPU client allocates the working memory of a
      program anew in each call, hundreds of MB for a training step; handed back and fetched again, it costs a page
      fault every 4 KB, as much time as the arithmetic of the step (measured). There is no limit to what is kept: 2 GB
      are less than a student's step at 128 px and batch 64 works with, and it then took twice as long.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_enable_fast_math" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {FAST_SUMS}".strip()
    if platform.libc_ver()[0] == "glibc":
        # One arena: the others cannot grow beyond 64 MB and then map memory all the same.
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1)):
            mallopt(parameter, value)


HEARTBEAT_SECONDS = 40
"""JAX aborts this process when another is silent for so long; `watch` comes before."""


def connect(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Joins the other processes of a run, where it has any.

    Args:
        coordinator: HOST:PORT of the first process, or None to find the others by the environment: a Slurm step of
            several tasks, a TPU slice of several hosts, an indexed Kubernetes job.
        processes, process: their number, and which of them this one is; with `coordinator` only.

    Raises:
        InputError: the coordinator was not reached.
    """
    environment = os.environ
    found = (
        int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1
        or "," in environment.get("TPU_WORKER_HOSTNAMES", "")
        or {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= environment.keys()
    )
    if coordinator is None and not found:
        return
    # In a Slurm step JAX gives a process one GPU, by its place among those of the node. Alone there it takes all: [].
    alone = environment.get("SLURM_STEP_NUM_TASKS", "") == environment.get("SLURM_STEP_NUM_NODES")
    devices: list[int] | None = [] if alone and "JAX_LOCAL_DEVICE_IDS" not in environment else None
    import jax

    try:
        jax.distributed.initialize(
            coordinator, processes, process, devices, heartbeat_timeout_seconds=HEARTBEAT_SECONDS
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(f"the processes of this run did not find each other: {' '.join(str(error).split())}") from None
