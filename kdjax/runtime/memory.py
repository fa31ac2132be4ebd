"""What a training step needs of a device's memory, and what there is, before anything runs."""

import math
import os
import resource
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

DISPATCHES = 2
"""Steps in flight: the next is sent while one runs, and its working memory is taken when it is sent."""


def needs(lowered: jax.stages.Lowered) -> int | None:
    """Bytes that a program needs on a device, by the compiler's own count; None where the backend does not say.

    Its arguments, its results without those that take the memory of arguments, and its working memory, once for each
    step in flight. The program is compiled for it.
    """
    found = lowered.compile().memory_analysis()
    if found is None:
        return None
    results = found.output_size_in_bytes - found.alias_size_in_bytes
    return found.argument_size_in_bytes + results + DISPATCHES * found.temp_size_in_bytes


def capacity(device: jax.Device) -> int:
    """Bytes a device may use. Devices of a CPU share the host's memory, or what the process is allowed of it."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    group = Path("/sys/fs/cgroup/memory.max")
    allowed = group.read_text(encoding="utf-8").strip() if group.is_file() else ""
    limits = [int(allowed)] if allowed.isdigit() else []
    limits += [limit for limit, _ in map(resource.getrlimit, (resource.RLIMIT_DATA, resource.RLIMIT_AS)) if limit > 0]
    return min([total, *limits]) // len(jax.local_devices())


def held(device: jax.Device) -> int:
    """Bytes that are taken already: of the device, or of a CPU device's share of this process."""
    stats = device.memory_stats()
    if stats and "bytes_in_use" in stats:
        return int(stats["bytes_in_use"])
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // len(jax.local_devices())


def tree_bytes(tree: Any) -> int:
    """Bytes of the arrays of a tree; shapes and dtypes suffice."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def activation_bytes(network: nn.Module, size: int, batch: int) -> int:
    """Bytes that one student keeps between the forward and the backward pass of a training step.

    Counted from the traced program: what the forward pass hands to the backward pass. Nothing is compiled or run.

    Args:
        network: the network, without a device axis.
        size: side of its input, px.
        batch: images of a device's share.
    """
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: network.init(jax.random.key(0), x), images)

    def residuals(params: Any, rest: Any, images: jax.Array) -> Any:
        apply = lambda params: network.apply({"params": params, **rest}, images, train=True, mutable=["batch_stats"])
        return jax.vjp(apply, params, has_aux=True)[1]

    rest = {name: value for name, value in variables.items() if name != "params"}
    return tree_bytes(jax.eval_shape(residuals, variables["params"], rest, images)) - tree_bytes(variables["params"])
