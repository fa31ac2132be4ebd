"""The student's operations on (C, H, W, b) as shifted multiply-adds and matrix products: for CPUs.

XLA's CPU backend runs a depthwise convolution many times slower than nine shifted multiply-adds. With the channels
first and the examples last, every sum of a training step (BatchNorm's moments, the gradients of its scale and bias, of
the depthwise kernels) runs over contiguous memory and is split over cores by channel, every shift moves whole vectors
of examples, and no matrix product needs a transposed copy. The derivatives are written out, because those of a padded
slice are padded slices, summed one by one, and because one pass over memory can take several sums at once.

`convolution_form` computes the same values and gradients on (b, H, W, C). Sums are taken in at least float32.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

CHANNEL_AXIS = 0


def stem(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """3 x 3 convolution of (b, H, W, 3) images with stride 2, padding 1 and kernel (3, 3, 3, O), to (O, h, w, b).

    The patches do not depend on the kernel: mapped over students that share their images they are cut once."""
    patches = jnp.concatenate(_taps(_padded(jnp.transpose(images, (3, 1, 2, 0))), 2, images.shape[1:3]))
    return pointwise(patches, kernel.reshape(-1, kernel.shape[-1]))


@jax.custom_vjp
def pointwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """1 x 1 convolution of (I, H, W, b) with kernel (I, O), to (O, H, W, b)."""
    return _product(kernel, x.reshape(x.shape[0], -1), 0, 0).reshape(-1, *x.shape[1:])


def _product(a: jax.Array, b: jax.Array, axis_a: int, axis_b: int) -> jax.Array:
    return lax.dot_general(a, b, (((axis_a,), (axis_b,)), ((), ())))


def _pointwise_forward(x, kernel):
    return pointwise(x, kernel), (x, kernel)


def _pointwise_backward(residuals, g):
    x, kernel = residuals
    x_rows, g_rows = x.reshape(x.shape[0], -1), g.reshape(g.shape[0], -1)
    # The operand with more rows first: a third of the time where the other has 16 or 24 (measured).
    if x_rows.shape[0] >= g_rows.shape[0]:
        dkernel = _product(x_rows, g_rows, 1, 1)
    else:
        dkernel = _product(g_rows, x_rows, 1, 1).T
    return _product(kernel, g_rows, 1, 0).reshape(x.shape), dkernel


pointwise.defvjp(_pointwise_forward, _pointwise_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """3 x 3 convolution of every channel of (C, H, W, b) on its own, padding 1 on every side, kernel (3, 3, C)."""
    return _depthwise_forward(x, kernel, stride)[0]


def _depthwise_forward(x, kernel, stride):
    padded = _padded(x)
    return _filtered(_taps(padded, stride, x.shape[1:3]), kernel.reshape(9, -1)), (padded, kernel)


def _depthwise_backward(stride, residuals, g):
    padded, kernel = residuals
    shape = padded.shape[1] - 2, padded.shape[2] - 2
    dkernel = jnp.stack(_sums(*(tap * g for tap in _taps(padded, stride, shape))))
    dx = _gradient_stride_1(kernel, g) if stride == 1 else _gradient_stride_2(kernel, g)[:, :shape[0], :shape[1]]
    return dx, dkernel.astype(kernel.dtype).reshape(kernel.shape)


def _gradient_stride_1(kernel, g):
    return _filtered(_taps(_padded(g), 1, g.shape[1:3]), kernel.reshape(9, -1)[::-1])


def _gradient_stride_2(kernel, g):
    """The gradient on (C, 2h, 2w, b), the four parities of the pixel apart, then interleaved.

    Output o reads the inputs 2o - 1, 2o, 2o + 1 with the weights 0, 1, 2: an even input 2o is read by output o with
    weight 1, an odd input 2o + 1 by output o with weight 2 and by output o + 1 with weight 0."""
    channels, height, width, examples = g.shape
    g = jnp.pad(g, ((0, 0), (0, 1), (0, 1), (0, 0)))
    readers = (((1, 0),), ((2, 0), (0, 1)))  # by parity: (weight, offset of the output)

    def part(rows, columns):
        return _filtered([g[:, down:down + height, right:right + width] for _, down in rows for _, right in columns],
                         [kernel[i, j] for i, _ in rows for j, _ in columns])

    lines = [jnp.stack([part(rows, columns) for columns in readers], 3) for rows in readers]
    return jnp.stack(lines, 2).reshape(channels, 2 * height, 2 * width, examples)


depthwise.defvjp(_depthwise_forward, _depthwise_backward)


@jax.custom_vjp
def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and (biased) variance of every channel, (C,) each in the dtype of x, taken in one pass.

    The values are counted from one of them, so that no digits are lost to a mean far from zero."""
    row, column = x.shape[1] // 2, x.shape[2] // 2
    origin = lax.slice(x, (0, row, column, 0), (x.shape[0], row + 1, column + 1, 1))
    x = x - origin
    count = x.size // x.shape[0]
    first, second = (total / count for total in _sums(x, x * x))
    return first + origin.reshape(-1), jnp.maximum(second - first * first, 0)


def _moments_forward(x):
    mean, variance = moments(x)
    return (mean, variance), (x, mean)


def _moments_backward(residuals, g):
    x, mean = residuals
    count = x.size // x.shape[0]
    return (_each(g[0] / count) + _each(2 * g[1] / count) * (x - _each(mean)),)


moments.defvjp(_moments_forward, _moments_backward)


@jax.custom_vjp
def affine(x: jax.Array, factor: jax.Array, offset: jax.Array) -> jax.Array:
    """x * factor + offset, channel by channel."""
    return x * _each(factor) + _each(offset)


def _affine_forward(x, factor, offset):
    return affine(x, factor, offset), (x, factor)


def _affine_backward(residuals, g):
    x, factor = residuals
    return (g * _each(factor), *_sums(g * x, g))


affine.defvjp(_affine_forward, _affine_backward)


@jax.custom_vjp
def affine_relu6(x: jax.Array, factor: jax.Array, offset: jax.Array) -> jax.Array:
    """relu6(x * factor + offset), channel by channel; the derivative is 0 at both corners, as in PyTorch."""
    return jnp.clip(x * _each(factor) + _each(offset), 0, 6)


def _affine_relu6_forward(x, factor, offset):
    return affine_relu6(x, factor, offset), (x, factor, offset)


def _affine_relu6_backward(residuals, g):
    x, factor, offset = residuals
    inside = x * _each(factor) + _each(offset)
    return _affine_backward((x, factor), jnp.where((inside > 0) & (inside < 6), g, jnp.zeros_like(g)))


affine_relu6.defvjp(_affine_relu6_forward, _affine_relu6_backward)


def average(x: jax.Array) -> jax.Array:
    """Mean over the image, (b, C)."""
    return x.mean((1, 2)).T


def _each(channel: jax.Array) -> jax.Array:
    return channel[:, None, None, None]


def _padded(x: jax.Array) -> jax.Array:
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _taps(padded: jax.Array, stride: int, shape: tuple[int, int]) -> list[jax.Array]:
    """The nine views of a padded image of this shape that a 3 x 3 kernel reads, row by row."""
    height, width = (-(-side // stride) for side in shape)
    channels, examples = padded.shape[0], padded.shape[3]
    return [lax.slice(padded, (0, i, j, 0), (channels, i + (height - 1) * stride + 1,
                                             j + (width - 1) * stride + 1, examples), (1, stride, stride, 1))
            for i in range(3) for j in range(3)]


def _filtered(views: list[jax.Array], weights: Sequence[jax.Array]) -> jax.Array:
    """The sum of views weighted channel by channel."""
    dtype = jnp.promote_types(views[0].dtype, jnp.float32)
    total = sum(view.astype(dtype) * _each(weight.astype(dtype)) for view, weight in zip(views, weights))
    return total.astype(views[0].dtype)


def _sums(*terms: jax.Array) -> tuple[jax.Array, ...]:
    """The sum of every channel of each term, all taken in one pass over memory."""
    dtype = jnp.promote_types(terms[0].dtype, jnp.float32)
    terms, zero = [term.astype(dtype) for term in terms], jnp.zeros((), dtype)
    add = lambda sums, values: tuple(a + b for a, b in zip(sums, values))
    return lax.reduce(terms, [zero] * len(terms), add, (1, 2, 3))
