"""The networks' operations on (C, H, W, b), as shifted multiply-adds and matrix products: for CPUs.

XLA's CPU backend runs a depthwise convolution many times slower than nine shifted multiply-adds. With the channels
first and the examples last, every sum of a training step (BatchNorm's moments, the gradients of its scale and bias, of
the depthwise kernels) runs over contiguous memory and is split over the cores by channel, every shift moves whole
vectors of examples, and no matrix product needs a transposed copy. The derivatives are written out, because those of a
padded slice are padded slices, summed one by one, and because one pass over memory can take several sums at once.

`examples_first` computes the same values and gradients on (b, H, W, C). Sums are taken in at least float32.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from kdjax.networks.forms import winograd
from kdjax.networks.forms.activations import hard_swish, hard_swish_slope

CHANNEL_AXIS = 0
FEW_CHANNELS = 16  # below this a 3 x 3 convolution is one matrix product with all nine pixels of a patch


def arrange(images: jax.Array) -> jax.Array:
    """Images (b, H, W, C) as (C, H, W, b)."""
    return jnp.transpose(images, (3, 1, 2, 0))


def convolution(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """3 x 3 convolution of (I, H, W, b) with padding 1 on every side and kernel (3, 3, I, O), to (O, h, w, b).

    The patches of an image do not depend on the kernel: mapped over students that share images they are cut once.
    """
    if stride == 1 and x.shape[0] >= FEW_CHANNELS:
        return winograd.convolution(x, kernel)
    _, height, width, _ = x.shape
    patches = jnp.concatenate(_taps(_padded(x), stride, (height, width)))
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
    # The operand with many more rows first: a third of the time where the other has 16 or 24 (measured). Else the
    # gradient: students that share the images of their stem have one each, and only the first operand is not copied.
    if x_rows.shape[0] >= 2 * g_rows.shape[0]:
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
    dx = _gradient_stride_1(kernel, g) if stride == 1 else _gradient_stride_2(kernel, g)[:, : shape[0], : shape[1]]
    return dx, dkernel.astype(kernel.dtype).reshape(kernel.shape)


def _gradient_stride_1(kernel, g):
    return _filtered(_taps(_padded(g), 1, g.shape[1:3]), kernel.reshape(9, -1)[::-1])


def _gradient_stride_2(kernel, g):
    """The gradient on (C, 2h, 2w, b), the four parities of the pixel apart, then interleaved.

    Output o reads the inputs 2o - 1, 2o, 2o + 1 with the weights 0, 1, 2: an even input 2o is read by output o with
    weight 1, an odd input 2o + 1 by output o with weight 2 and by output o + 1 with weight 0.
    """
    channels, height, width, examples = g.shape
    g = jnp.pad(g, ((0, 0), (0, 1), (0, 1), (0, 0)))
    readers = (((1, 0),), ((2, 0), (0, 1)))  # by parity: (weight, offset of the output)

    def part(rows, columns):
        views = [g[:, down : down + height, right : right + width] for _, down in rows for _, right in columns]
        return _filtered(views, [kernel[i, j] for i, _ in rows for j, _ in columns])

    lines = [jnp.stack([part(rows, columns) for columns in readers], 3) for rows in readers]
    return jnp.stack(lines, 2).reshape(channels, 2 * height, 2 * width, examples)


depthwise.defvjp(_depthwise_forward, _depthwise_backward)


@jax.custom_vjp
def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and (biased) variance of every channel, (C,) each in the dtype of x, taken in one pass.

    The values are counted from one of them, so that no digits are lost to a mean far from zero.
    """
    row, column = x.shape[1] // 2, x.shape[2] // 2
    origin = lax.slice(x, (0, row, column, 0), (x.shape[0], row + 1, column + 1, 1))
    x = x - origin
    first, second = (total / (x.size // x.shape[0]) for total in _sums(x, x * x))
    return first + origin.reshape(-1), jnp.maximum(second - first * first, 0)


def _moments_forward(x):
    mean, variance = moments(x)
    return (mean, variance), (x, mean)


def _moments_backward(residuals, g):
    x, mean = residuals
    count = x.size // x.shape[0]
    return (_each(g[0] / count) + _each(2 * g[1] / count) * (x - _each(mean)),)


moments.defvjp(_moments_forward, _moments_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def affine(x: jax.Array, factor: jax.Array, offset: jax.Array, ceiling: float | None = None) -> jax.Array:
    """x * factor + offset, channel by channel, then min(max(·, 0), ceiling) unless `ceiling` is None.

    The derivative is 0 at both corners, as in PyTorch.
    """
    x = x * _each(factor) + _each(offset)
    return x if ceiling is None else jnp.clip(x, 0, ceiling)


def _affine_forward(x, factor, offset, ceiling):
    return affine(x, factor, offset, ceiling), (x, factor, offset)


def _affine_backward(ceiling, residuals, g):
    x, factor, offset = residuals
    if ceiling is not None:
        y = x * _each(factor) + _each(offset)
        g = jnp.where((y > 0) & (y < ceiling), g, 0)
    return (g * _each(factor), *_sums(g * x, g))


affine.defvjp(_affine_forward, _affine_backward)


@jax.custom_vjp
def affine_hard_swish(x: jax.Array, factor: jax.Array, offset: jax.Array) -> jax.Array:
    """hard_swish(x * factor + offset), channel by channel. What lies between the two is not kept for the gradient."""
    return hard_swish(x * _each(factor) + _each(offset))


def _affine_hard_swish_forward(x, factor, offset):
    return affine_hard_swish(x, factor, offset), (x, factor, offset)


def _affine_hard_swish_backward(residuals, g):
    x, factor, offset = residuals
    return _affine_backward(None, residuals, g * hard_swish_slope(x * _each(factor) + _each(offset)))


affine_hard_swish.defvjp(_affine_hard_swish_forward, _affine_hard_swish_backward)


def scaled(x: jax.Array, gate: jax.Array) -> jax.Array:
    """x with every channel of every example multiplied by its number in gate (b, C)."""
    return x * gate.T[:, None, None, :]


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x + bias, channel by channel."""
    return x + _each(bias)


@jax.custom_vjp
def bias_relu(x: jax.Array, bias: jax.Array) -> jax.Array:
    """relu(x + bias), channel by channel. Its gradient reads the result alone, which the next layer keeps anyway."""
    return jnp.maximum(x + _each(bias), 0)


def _bias_relu_forward(x, bias):
    y = bias_relu(x, bias)
    return y, y


def _bias_relu_backward(y, g):
    g = jnp.where(y > 0, g, 0)
    return g, _sums(g)[0].astype(y.dtype)


bias_relu.defvjp(_bias_relu_forward, _bias_relu_backward)


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """2 x 2 maximum with stride 2; an odd last row or column is dropped and the first of equals takes the gradient."""
    return _max_pool_forward(x)[0]


def _max_pool_forward(x):
    shape = x.shape
    x = x[:, : shape[1] // 2 * 2, : shape[2] // 2 * 2]
    left, right = (lax.slice_in_dim(x, start, None, 2, 2) for start in (0, 1))
    first_column, x = left >= right, jnp.maximum(left, right)
    upper, lower = (lax.slice_in_dim(x, start, None, 2, 1) for start in (0, 1))
    return jnp.maximum(upper, lower), (first_column, upper >= lower, shape)


def _max_pool_backward(residuals, g):
    first_column, first_row, shape = residuals
    g = _parted(g, first_row, 1)
    g = _parted(g, first_column, 2)
    return (jnp.pad(g, [(0, full - part) for full, part in zip(shape, g.shape, strict=True)]),)


def _parted(g, first, axis):
    """Interleaves g where `first` holds with g where it does not."""
    parts = jnp.stack([jnp.where(first, g, 0), jnp.where(first, 0, g)], axis + 1)
    return parts.reshape(*g.shape[:axis], -1, *g.shape[axis + 1 :])


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def average(x: jax.Array) -> jax.Array:
    """Mean over the image, (b, C)."""
    return x.mean((1, 2)).T


def examples_first(x: jax.Array) -> jax.Array:
    """The activations as (b, H, W, C)."""
    return jnp.transpose(x, (3, 1, 2, 0))


def _each(channel: jax.Array) -> jax.Array:
    return channel[:, None, None, None]


def _padded(x: jax.Array) -> jax.Array:
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _taps(padded: jax.Array, stride: int, shape: tuple[int, int]) -> list[jax.Array]:
    """The nine views of a padded image of this shape that a 3 x 3 kernel reads, row by row."""
    height, width = ((-(-side // stride) - 1) * stride + 1 for side in shape)
    channels, examples = padded.shape[0], padded.shape[3]
    return [
        lax.slice(padded, (0, i, j, 0), (channels, i + height, j + width, examples), (1, stride, stride, 1))
        for i in range(3)
        for j in range(3)
    ]


def _filtered(views: Sequence[jax.Array], weights: Sequence[jax.Array]) -> jax.Array:
    """The sum of views weighted channel by channel."""
    dtype = jnp.promote_types(views[0].dtype, jnp.float32)
    parts = [view.astype(dtype) * _each(weight.astype(dtype)) for view, weight in zip(views, weights, strict=True)]
    return functools.reduce(jnp.add, parts).astype(views[0].dtype)


def _sums(*terms: jax.Array) -> tuple[jax.Array, ...]:
    """The sum of every channel of each term, all taken in one pass over memory."""
    dtype = jnp.promote_types(terms[0].dtype, jnp.float32)
    zero = jnp.zeros((), dtype)
    add = lambda sums, values: tuple(a + b for a, b in zip(sums, values, strict=True))
    return tuple(lax.reduce([term.astype(dtype) for term in terms], [zero] * len(terms), add, (1, 2, 3)))
