"""This process before JAX starts: settings that XLA's CPU backend runs faster with, and the other hosts of a run."""

import ctypes
import os
import platform
import re
import resource
import signal
import sys
import threading
from pathlib import Path

from kdjax.errors import InputError

FAST_SUMS = "--xla_cpu_enable_fast_math=true"

# mallopt's parameters, from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8

MADV_HUGEPAGE, HUGE_PAGE = 14, 1 << 21  # of Linux's mman.h; bytes on x86 and, with pages of 4 KB, on ARM

HUGE_SHARE = 0.8
"""Of the machine's memory, what is reserved for huge pages: as much as the memory plan lets a step have."""


def prepare() -> None:
    """Call once, before anything uses a JAX device.

    - XLA may add up a sum in any order, and so in vector registers: on CPU a third less time for a student's training
      step (measured). Infinities and NaNs keep their meaning, and the same program gives the same bits each time. An
      XLA_FLAGS of the user that names the flag is left as it is.
    - Memory that is freed stays with the process (glibc only). XLA's CPU client allocates the working memory of a
      program for each call, hundreds of MB for a training step; handed back and fetched again, it costs a page fault
      every 4 KB, as much time as the arithmetic of the step (measured). There is no limit to what is kept: 2 GB are
      less than a student's step at 128 px and batch 64 works with, and it then took twice as long. The XLA of jax 0.12
      frees that memory from another thread, at times after the next call has allocated its own: the heap then grows a
      few times before a call finds all it needs (192 MB: 1 to 6 of the first 20 calls paid in full, none of the next
      20; unset, all of them did).
    - That memory lies in pages of 2 MB where Linux has them for those who ask: 7 to 23 % less time for a training
      step (measured).
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_enable_fast_math" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {FAST_SUMS}".strip()
    if platform.libc_ver()[0] == "glibc":
        # One arena: the others cannot grow beyond 64 MB and then map memory all the same.
        libc = ctypes.CDLL(None)
        for parameter, value in ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1)):
            libc.mallopt(parameter, value)
        _reserve_huge_pages(libc)


def _reserve_huge_pages(libc: ctypes.CDLL) -> None:
    """Asks for huge pages for the memory that the heap will grow into.

    glibc would ask itself, but only where the environment says so before the process starts. Reserved are addresses:
    memory is taken when it is written to. Where they are counted as if they were memory, nothing is done.
    """
    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS))
    limited = any(limit != resource.RLIM_INFINITY for limit in limits)
    overcommit = Path("/proc/sys/vm/overcommit_memory")
    if limited or not overcommit.exists() or overcommit.read_text(encoding="ascii").strip() == "2":
        return
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    size = int(HUGE_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    start = libc.malloc(size)
    if start:
        first = -(-start // HUGE_PAGE) * HUGE_PAGE
        libc.madvise(first, start + size - first, MADV_HUGEPAGE)  # a kernel without them refuses, and all is as before
        libc.free(start)  # the heap keeps the addresses


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
            f"the processes of this run did not meet at {where}: {said}; is its port free, and the host the first?"
        ) from None
    finally:
        patience.cancel()
        signal.signal(signal.SIGINT, interrupted)


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
