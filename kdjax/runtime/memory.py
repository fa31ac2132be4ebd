"""What a training step needs of a device's memory, estimated before anything runs."""

import math
import os
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

ROOM = 0.8
"""Share of the memory that a run plans with; the rest is for the compiler's temporaries and fragmentation."""


def capacity(device: jax.Device) -> int:
    """Bytes a device may use. Devices of a CPU share the host's memory, or what the control group leaves of it."""
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    allowed = limit.read_text(encoding="utf-8").strip() if limit.is_file() else ""
    if allowed.isdigit():
        total = min(total, int(allowed))
    return total // len(jax.local_devices())


def tree_bytes(tree: Any) -> int:
    """Bytes of the arrays of a tree; shapes and dtypes suffice."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def activation_bytes(model: nn.Module, size: int, batch: int) -> int:
    """Bytes that one student keeps between the forward and the backward pass of a training step.

    Counted from the traced program: what the forward pass hands to the backward pass. Nothing is compiled or run.

    Args:
        model: the network, without a device axis.
        size: side of its input, px.
        batch: images of a device's share.
    """
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)

    def residuals(params: Any, rest: Any, images: jax.Array) -> Any:
        apply = lambda params: model.apply({"params": params, **rest}, images, train=True, mutable=["batch_stats"])
        return jax.vjp(apply, params, has_aux=True)[1]

    rest = {name: value for name, value in variables.items() if name != "params"}
    return tree_bytes(jax.eval_shape(residuals, variables["params"], rest, images)) - tree_bytes(variables["params"])


def arms_at_once(free: int, student: int, seeds: int, arms: int) -> int | None:
    """How many students a step computes side by side, as `steps.train_step` takes it.

    Args:
        free: bytes beside the state and the data.
        student: bytes that one student needs during a step.
        seeds, arms: the population's axes.

    Returns:
        None where all fit; else the largest divisor of `arms` that fits, at least 1.
    """
    if seeds * arms * student <= free:
        return None
    return max(count for count in range(1, arms + 1) if arms % count == 0 and (count == 1 or count * student <= free))
