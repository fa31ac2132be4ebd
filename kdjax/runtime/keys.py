"""The random key of a seed, which does not depend on the generator that JAX is configured to use."""

from typing import Any

import jax

from kdjax.errors import InputError

GENERATOR = "threefry2x32"
"""A generator whose bits for a key do not depend on what else is drawn beside it (Salmon et al., SC 2011)."""


def key(seed: jax.Array | int) -> jax.Array:
    """Returns the key of a seed. It and keys folded from it give the same numbers on every backend and machine.

    Args:
        seed: () int.

    Raises:
        InputError: environment variables would make JAX draw other bits from the same key.
    """
    config: Any = jax.config  # its fields are created when JAX is imported
    if not config.jax_threefry_partitionable:
        raise InputError(
            "JAX_THREEFRY_PARTITIONABLE is off: an example's view would then depend on its batch; leave it out"
        )
    if offset := config.jax_random_seed_offset:
        raise InputError(f"JAX_RANDOM_SEED_OFFSET is {offset}: seeds would differ from those recorded; leave it out")
    return jax.random.key(seed, impl=GENERATOR)
