"""What a training step needs of a device's memory, and what there is, before anything runs."""

import contextlib
import math
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax

from kdjax.runtime.keys import key

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


def capacity(device: jax.Device) -> int:
    """Bytes a device may use at all. Devices of a CPU share what the process may."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return min(limit for limit, _ in _host_limits()) // len(jax.local_devices())


def free(device: jax.Device, room: float) -> int:
    """Bytes a device may still take, of the share `room` of what it has at all.

    Devices of a CPU share the host's memory, and what the process is allowed of it. Each limit is compared with what
    counts against it, and the closest one decides.
    """
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return int(room * stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))
    left = min(int(room * limit) - taken for limit, taken in _host_limits())
    return left // len(jax.local_devices())


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
        for allowed in cgroup_limits(groups.read_text(encoding="utf-8"), Path("/sys/fs/cgroup")):
            yield allowed, held
    for kind, taken in ((resource.RLIMIT_DATA, data), (resource.RLIMIT_AS, size)):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            yield limit, taken


def cgroup_limits(membership: str, mount: Path) -> Iterator[int]:
    """Limits in bytes of the control groups that a process is in, and of those these are in: a job of Slurm has one.

    Args:
        membership: of /proc/PID/cgroup, lines `NUMBER:CONTROLLERS:PATH`; that of version 2 names no controller.
        mount: where the groups are, /sys/fs/cgroup.
    """
    for line in membership.splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers:
            root, name = mount, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = mount / "memory", "memory.limit_in_bytes"
        else:
            continue
        place = root / group.lstrip("/")
        for folder in (place, *place.parents):
            with contextlib.suppress(OSError):
                allowed = (folder / name).read_text(encoding="utf-8").strip()
                if allowed.isdigit() and int(allowed) < 2**60:  # version 1 writes a number near 2**63 for none
                    yield int(allowed)
            if folder == root:
                break


def tree_bytes(tree: Any) -> int:
    """Bytes of the arrays of a tree; shapes and dtypes suffice."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def activation_bytes(network: nn.Module, images: jax.ShapeDtypeStruct) -> int:
    """Bytes that one student keeps between the forward and the backward pass of a training step.

    Counted from the traced program: what the forward pass hands to the backward pass. Nothing is compiled or run.

    Args:
        network: the network, without a device axis.
        images: shape of a device's share of a batch, (batch, size, size, bands) float32.
    """
    variables = jax.eval_shape(lambda x: network.init(key(0), x), images)

    def residuals(params: Any, rest: Any, images: jax.Array) -> Any:
        apply = lambda params: network.apply({"params": params, **rest}, images, train=True, mutable=["batch_stats"])
        return jax.vjp(apply, params, has_aux=True)[1]

    rest = {name: value for name, value in variables.items() if name != "params"}
    return tree_bytes(jax.eval_shape(residuals, variables["params"], rest, images)) - tree_bytes(variables["params"])
