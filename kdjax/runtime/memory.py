"""What a program needs of a device's memory, and what there is, before anything runs."""

import math
import os
import resource
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from kdjax.runtime import cgroups, heap

WORKING_MEMORIES = 2
"""Of a program on a CPU: a call takes its own when it is sent, and that of the one before may not be back by then.

An accelerator runs its programs in order, and lends each the working memory of the one before."""


def needs(lowered: jax.stages.Lowered) -> float | None:
    """Bytes that a program needs on a device, by the compiler's own count; None where the backend does not say.

    Infinitely many where the compiler refuses the program because no device of the kind has its memory, as that of TPUs
    does.

    Its arguments, its results without those that take the memory of arguments, and its working memory, twice on a
    CPU. The program is compiled for it.
    """
    try:
        found = lowered.compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return math.inf
    if found is None:
        return None
    results = found.output_size_in_bytes - found.alias_size_in_bytes
    number = WORKING_MEMORIES if jax.default_backend() == "cpu" else 1
    return found.argument_size_in_bytes + results + number * found.temp_size_in_bytes


def capacity(devices: Sequence[jax.Device]) -> int:
    """Bytes that each of these devices of a process may use at all. Those of a CPU share what the process may."""
    stats = devices[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return min(limit for limit, _ in _host_limits()) // len(devices)


def free(devices: Sequence[jax.Device], room: float) -> int:
    """Bytes that each of these devices of a process may still take, of the share `room` of what it has at all.

    Devices of a CPU share the host's memory, and what the process is allowed of it. Each limit is compared with what
    counts against it, and the closest one decides. What the heap has kept of calls that have ended is handed back
    first: after the views of a VGG16 it was 8 GB, and the students got one device of two.
    """
    stats = devices[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(room * stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))
    heap.hand_back()
    left = min(int(room * limit) - taken for limit, taken in _host_limits())
    return left // len(devices)


def _host_limits() -> Iterator[tuple[int, int]]:
    """Each limit on the memory of this process, in bytes, with what it has taken of it.

    Pages of mapped files do not count: the kernel drops them where memory runs short.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    counts = Path("/proc/self/statm").read_text(encoding="utf-8").split()
    size, resident, shared, data = (page * int(counts[place]) for place in (0, 1, 2, 5))
    held = resident - shared
    yield os.sysconf("SC_PHYS_PAGES") * page, held
    groups = Path("/proc/self/cgroup")
    if groups.is_file():
        for allowed in cgroups.memory(groups.read_text(encoding="utf-8"), cgroups.MOUNT):
            yield allowed, held
    for kind, taken in ((resource.RLIMIT_DATA, data), (resource.RLIMIT_AS, size)):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            yield limit, taken


def tree_bytes(tree: Any) -> int:
    """Bytes of the arrays of a tree; shapes and dtypes suffice."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
