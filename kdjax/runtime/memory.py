"""The memory that a program needs on a device, and the memory that there is, before anything runs."""

import math
import os
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from kdjax.runtime import cgroups, heap

WORKING_MEMORIES = 2
"""Number of working memories that a program needs on a CPU: a call takes its own when it is sent, and the previous call
may not have freed its own by then.

An accelerator runs its programs in order, and each uses the working memory of the previous one."""


def program_bytes(lowered: jax.stages.Lowered) -> float | None:
    """Compiles a program and returns the bytes that it needs on a device, or None if the backend does not say.

    The compiler reports the sizes of the arguments, of the results that do not reuse the memory of arguments, and of
    the working memory, which counts twice on a CPU. The result is infinite if the compiler refuses the program because
    no device of this kind has enough memory, as the compiler for TPUs does.
    """
    try:
        sizes = lowered.compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return math.inf
    if sizes is None:
        return None
    results = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    number = WORKING_MEMORIES if jax.default_backend() == "cpu" else 1
    return sizes.argument_size_in_bytes + results + number * sizes.temp_size_in_bytes


def capacity(devices: Sequence[jax.Device]) -> int:
    """Returns the bytes that each of these devices of a process may use in total. Devices of a CPU share the host's."""
    stats = devices[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return min(limit for limit, _ in _host_limits()) // len(devices)


def free_bytes(devices: Sequence[jax.Device], room: float) -> int:
    """Returns the bytes that each of these devices of a process may still take, out of a share `room` of its memory.

    Devices of a CPU share the host's memory and the limits of the process. Each limit is compared with the memory that
    counts against it, and the tightest one decides. Memory that the heap kept from earlier calls is returned to the
    system first: after the views of a VGG16 this was 8 GB, without which the students got one device instead of two.
    """
    stats = devices[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(room * stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))
    heap.hand_back()
    remaining = min(int(room * limit) - used for limit, used in _host_limits())
    return remaining // len(devices)


def _host_limits() -> Iterator[tuple[int, int]]:
    """Yields each limit on the memory of this process, and the memory that counts against it, in bytes.

    Pages of mapped files do not count, because the kernel drops them if memory runs short.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    counts = Path("/proc/self/statm").read_text(encoding="utf-8").split()
    size, resident, shared, data = (page * int(counts[column]) for column in (0, 1, 2, 5))
    private = resident - shared
    yield os.sysconf("SC_PHYS_PAGES") * page, private
    groups = Path("/proc/self/cgroup")
    if groups.is_file():
        for limit in cgroups.memory(groups.read_text(encoding="utf-8"), cgroups.MOUNT):
            yield limit, private
    for kind, used in ((resource.RLIMIT_DATA, data), (resource.RLIMIT_AS, size)):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            yield limit, used


def tree_bytes(tree: Any) -> int:
    """Returns the total bytes of a tree's arrays; its leaves may be shapes and dtypes."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
