"""The random keys of a seed, the same in every process: whatever JAX was told to draw with as it started."""

from typing import Any

import jax

from kdjax.errors import InputError

GENERATOR = "threefry2x32"
"""Bits of a key that do not depend on what else is drawn beside it (Salmon et al., SC 2011)."""


def key(seed: jax.Array | int) -> jax.Array:
    """The key of a seed; what is folded into it draws alike on every backend and machine.

    Args:
        seed: () int.

    Raises:
        InputError: the environment has JAX draw other bits of the same key.
    """
    config: Any = jax.config  # its fields are made as JAX is imported
    if not config.jax_threefry_partitionable:
        raise InputError(
            "JAX_THREEFRY_PARTITIONABLE is off: an example's view would then depend on its batch; leave it out"
        )
    if offset := config.jax_random_seed_offset:
        raise InputError(f"JAX_RANDOM_SEED_OFFSET is {offset}: seeds would differ from those recorded; leave it out")
    return jax.random.key(seed, impl=GENERATOR)
