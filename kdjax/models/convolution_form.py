"""The student's operations on (b, H, W, C) as convolutions: for accelerators and for export.

`shift_form` computes the same values and gradients another way; a layer takes its operations from either module.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

CHANNEL_AXIS = 3
LAYOUT = ('NHWC', 'HWIO', 'NHWC')
PADDING = ((1, 1), (1, 1))


def stem(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """3 x 3 convolution of (b, H, W, 3) images with stride 2, padding 1 and kernel (3, 3, 3, O)."""
    return lax.conv_general_dilated(images, kernel, (2, 2), PADDING, dimension_numbers=LAYOUT)


def pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """1 x 1 convolution with kernel (I, O)."""
    return jnp.matmul(x, kernel)


def depthwise(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """3 x 3 convolution of every channel on its own, padding 1 on every side, kernel (3, 3, C)."""
    return lax.conv_general_dilated(x, kernel[:, :, None, :], (stride, stride), PADDING, dimension_numbers=LAYOUT,
                                    feature_group_count=x.shape[-1])


def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and (biased) variance of every channel, (C,) each in the dtype of x, taken in one pass.

    The values are counted from one of them, so that no digits are lost to a mean far from zero."""
    row, column = x.shape[1] // 2, x.shape[2] // 2
    origin = lax.stop_gradient(lax.slice(x, (0, row, column, 0), (1, row + 1, column + 1, x.shape[3])))
    x = x - origin
    mean = x.mean((0, 1, 2))
    return mean + origin.reshape(-1), jnp.maximum(jnp.square(x).mean((0, 1, 2)) - jnp.square(mean), 0)


def affine(x: jax.Array, factor: jax.Array, offset: jax.Array) -> jax.Array:
    """x * factor + offset, channel by channel."""
    return x * factor.reshape(1, 1, 1, -1) + offset.reshape(1, 1, 1, -1)


@jax.custom_jvp
def relu6(x: jax.Array) -> jax.Array:
    """min(max(x, 0), 6); the derivative is 0 at both corners, as in PyTorch (jnp.clip gives one half there)."""
    return jnp.clip(x, 0, 6)


@relu6.defjvp
def _relu6_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    return relu6(x), jnp.where((x > 0) & (x < 6), dx, jnp.zeros_like(dx))


def affine_relu6(x: jax.Array, factor: jax.Array, offset: jax.Array) -> jax.Array:
    """relu6(x * factor + offset), channel by channel."""
    return relu6(affine(x, factor, offset))


def average(x: jax.Array) -> jax.Array:
    """Mean over the image, (b, C)."""
    return x.mean((1, 2))
