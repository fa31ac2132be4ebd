"""The networks' operations on (b, H, W, C), as convolutions: for accelerators and for export.

`examples_last` computes the same values and gradients another way; a layer takes its operations from either module.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from kdjax.networks.forms.activations import hard_swish

CHANNEL_AXIS = 3
LAYOUT = ("NHWC", "HWIO", "NHWC")
PADDING = ((1, 1), (1, 1))


def arrange(images: jax.Array) -> jax.Array:
    """Images (b, H, W, C) as they are."""
    return images


def convolution(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """3 x 3 convolution with padding 1 on every side and kernel (3, 3, I, O)."""
    return lax.conv_general_dilated(x, kernel, (stride, stride), PADDING, dimension_numbers=LAYOUT)


def pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """1 x 1 convolution with kernel (I, O)."""
    return jnp.matmul(x, kernel)


def depthwise(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """3 x 3 convolution of every channel on its own, padding 1 on every side, kernel (3, 3, C)."""
    kernel = kernel[:, :, None, :]
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), PADDING, dimension_numbers=LAYOUT, feature_group_count=x.shape[-1]
    )


def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and (biased) variance of every channel, (C,) each in the dtype of x, taken in one pass.

    The values are counted from one of them, so that no digits are lost to a mean far from zero.
    """
    row, column = x.shape[1] // 2, x.shape[2] // 2
    origin = lax.stop_gradient(lax.slice(x, (0, row, column, 0), (1, row + 1, column + 1, x.shape[3])))
    x = x - origin
    mean = x.mean((0, 1, 2))
    return mean + origin.reshape(-1), jnp.maximum(jnp.square(x).mean((0, 1, 2)) - jnp.square(mean), 0)


def affine(x: jax.Array, factor: jax.Array, offset: jax.Array, ceiling: float | None = None) -> jax.Array:
    """x * factor + offset, channel by channel, then `rectified` unless `ceiling` is None."""
    x = x * _each(factor) + _each(offset)
    return x if ceiling is None else rectified(x, ceiling)


def affine_hard_swish(x: jax.Array, factor: jax.Array, offset: jax.Array) -> jax.Array:
    """hard_swish(x * factor + offset), channel by channel."""
    return hard_swish(affine(x, factor, offset))


def scaled(x: jax.Array, gate: jax.Array) -> jax.Array:
    """x with every channel of every example multiplied by its number in gate (b, C)."""
    return x * gate[:, None, None, :]


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x + bias, channel by channel."""
    return x + _each(bias)


def bias_relu(x: jax.Array, bias: jax.Array) -> jax.Array:
    """relu(x + bias), channel by channel."""
    return rectified(x + _each(bias), math.inf)


def rectified(x: jax.Array, ceiling: float) -> jax.Array:
    """min(max(x, 0), ceiling): ReLU6, or ReLU where the ceiling is infinite.

    The derivative is 0 at both corners, as in PyTorch; that of jnp.clip is one half there.
    """
    inside = (x > 0) & (x < ceiling)
    return jnp.where(inside, x, lax.stop_gradient(jnp.clip(x, 0, ceiling)))


def max_pool(x: jax.Array) -> jax.Array:
    """2 x 2 maximum with stride 2; an odd last row or column is dropped and the first of equals takes the gradient."""
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    for axis in (2, 1):
        even, odd = (lax.slice_in_dim(x[:, :height, :width], start, None, 2, axis) for start in (0, 1))
        x = jnp.where(even >= odd, even, odd)
    return x


def average(x: jax.Array) -> jax.Array:
    """Mean over the image, (b, C)."""
    return x.mean((1, 2))


def examples_first(x: jax.Array) -> jax.Array:
    """The activations as (b, H, W, C)."""
    return x


def _each(channel: jax.Array) -> jax.Array:
    return channel[None, None, None, :]
