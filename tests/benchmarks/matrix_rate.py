"""The rate of large matrix products on the device at hand, which steps on a GPU are measured against."""

import time

import jax
import jax.numpy as jnp


def matrix_product_flops() -> float:
    """Floating-point operations a second of a bfloat16 product of two 8192 x 8192 matrices."""
    side, repeats = 8192, 20
    a = jax.random.normal(jax.random.key(0), (side, side), jnp.bfloat16)
    product = jax.jit(lambda a: a @ a)
    jax.block_until_ready(product(a))
    start = time.perf_counter()
    for _ in range(repeats):
        out = product(a)
    jax.block_until_ready(out)
    return 2 * side**3 * repeats / (time.perf_counter() - start)
