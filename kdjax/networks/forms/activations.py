"""The hard activations of MobileNetV3, which are elementwise and so independent of the layout.

Their derivatives at the corners are those of PyTorch. Source: Howard et al., arXiv 1905.02244, section 5.2.
"""

import jax
import jax.numpy as jnp


def hard_sigmoid(x: jax.Array) -> jax.Array:
    """min(max(x + 3, 0), 6) / 6. The derivative is 0 at both corners."""
    return _piecewise(x, 0, x / 6 + 0.5, 1)


@jax.custom_jvp
def hard_swish(x: jax.Array) -> jax.Array:
    """x * hard_sigmoid(x). The derivative is 0 at -3 and 1 at 3."""
    return _piecewise(x, 0, x * (x / 6 + 0.5), x)


def hard_swish_slope(x: jax.Array) -> jax.Array:
    """The derivative of `hard_swish`. JAX's automatic one would store terms of all its pieces for the backward pass."""
    return _piecewise(x, 0, x / 3 + 0.5, 1)


hard_swish.defjvps(lambda tangent, _, x: tangent * hard_swish_slope(x))


def _piecewise(x: jax.Array, below: float, between: jax.Array, above: jax.Array | float) -> jax.Array:
    return jnp.where(x <= -3, below, jnp.where(x < 3, between, above))
