"""The networks' operations on (b, H, W, C), as convolutions: for accelerators and for export.

`examples_last` computes the same values and gradients in another layout; a layer uses the operations of either module.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

from kdjax.networks.forms.activations import hard_swish
from kdjax.networks.padding import Padding

CHANNEL_AXIS = 3
SPATIAL_AXES = (1, 2)
LAYOUT = ("NHWC", "HWIO", "NHWC")


def arrange(images: jax.Array) -> jax.Array:
    """Returns images (b, H, W, C) unchanged: they have the layout of the activations."""
    return images


def convolution(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: Padding = ((1, 1), (1, 1))) -> jax.Array:
    """Convolution with kernel (k, k, I, O)."""
    return lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=LAYOUT)


def pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """1 x 1 convolution with kernel (I, O)."""
    return jnp.matmul(x, kernel)


def depthwise(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding = ((1, 1), (1, 1))) -> jax.Array:
    """Depthwise convolution with kernel (k, k, C), one filter per channel."""
    kernel = kernel[:, :, None, :]
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=LAYOUT, feature_group_count=x.shape[-1]
    )


def moments(x: jax.Array, near: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns mean and (biased) variance of every channel, (C,) each in the dtype of x, computed in one pass.

    The mean should be close to `near` (C,), which is subtracted first, so that a mean far from zero costs no precision.
    `near` must not depend on x, so that XLA can compute the sums in the pass that writes x.
    """
    near = lax.stop_gradient(near)
    x = x - _per_channel(near)
    mean = x.mean((0, 1, 2))
    return mean + near, jnp.maximum(jnp.square(x).mean((0, 1, 2)) - jnp.square(mean), 0)


def affine(x: jax.Array, factor: jax.Array, offset: jax.Array, ceiling: float | None = None) -> jax.Array:
    """x * factor + offset, channel by channel, then `rectified` unless `ceiling` is None."""
    x = x * _per_channel(factor) + _per_channel(offset)
    return x if ceiling is None else rectified(x, ceiling)


def affine_hard_swish(x: jax.Array, factor: jax.Array, offset: jax.Array) -> jax.Array:
    """hard_swish(x * factor + offset), channel by channel."""
    return hard_swish(affine(x, factor, offset))


def scaled(x: jax.Array, gate: jax.Array) -> jax.Array:
    """x with every channel of every example multiplied by its value in gate (b, C)."""
    return x * gate[:, None, None, :]


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x + bias, channel by channel."""
    return x + _per_channel(bias)


def bias_relu(x: jax.Array, bias: jax.Array) -> jax.Array:
    """relu(x + bias), channel by channel."""
    return rectified(x + _per_channel(bias), math.inf)


def rectified(x: jax.Array, ceiling: float) -> jax.Array:
    """min(max(x, 0), ceiling): ReLU6, or ReLU if the ceiling is infinite.

    The derivative is 0 at both corners, as in PyTorch. That of jnp.clip is one half there.
    """
    inside = (x > 0) & (x < ceiling)
    return jnp.where(inside, x, lax.stop_gradient(jnp.clip(x, 0, ceiling)))


def max_pool(x: jax.Array, size: int = 2, stride: int = 2, padding: int = 0) -> jax.Array:
    """Maximum over windows of size x size cells, one every `stride` cells, with `padding` cells of -inf on every side.

    Cells left over at the bottom and right are dropped. Of equal maxima, the first one gets the gradient.
    """
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)), constant_values=-math.inf)
    for axis in (2, 1):
        end = (x.shape[axis] - size) // stride * stride + 1
        cells = [lax.slice_in_dim(x, start, start + end, stride, axis) for start in range(size)]
        x = functools.reduce(lambda first, later: jnp.where(first >= later, first, later), cells)
    return x


def average(x: jax.Array) -> jax.Array:
    """Mean over the image, (b, C)."""
    return x.mean((1, 2))


def examples_first(x: jax.Array) -> jax.Array:
    """Returns the activations as (b, H, W, C)."""
    return x


def _per_channel(values: jax.Array) -> jax.Array:
    return values[None, None, None, :]
