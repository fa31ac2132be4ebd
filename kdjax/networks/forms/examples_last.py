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

from kdjax.networks.forms import windows, winograd
from kdjax.networks.forms.activations import hard_swish, hard_swish_slope
from kdjax.networks.padding import Padding

CHANNEL_AXIS = 0
SPATIAL_AXES = (1, 2)
FEW_CHANNELS = 16  # below this a 3 x 3 convolution is one matrix product with all nine pixels of a patch
ONE = ((1, 1), (1, 1))


def arrange(images: jax.Array) -> jax.Array:
    """Images (b, H, W, C) as (C, H, W, b)."""
    return jnp.transpose(images, (3, 1, 2, 0))


def convolution(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: Padding = ONE) -> jax.Array:
    """Convolution of (I, H, W, b) with kernel (k, k, I, O), to (O, h, w, b)."""
    if stride == 1 and kernel.shape[0] == 3 and padding == ONE and x.shape[0] >= FEW_CHANNELS:
        return winograd.convolution(x, kernel)
    return _patched(x, kernel, stride, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _patched(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """`convolution` as one matrix product with all k x k pixels of a patch.

    The patches of an image do not depend on the kernel: mapped over students that share images they are cut once.
    """
    return pointwise(_patches(x, kernel.shape[0], stride, padding), kernel.reshape(-1, kernel.shape[-1]))


def _patches(x: jax.Array, size: int, stride: int, padding: Padding) -> jax.Array:
    return jnp.concatenate(windows.taps(windows.padded(x, padding), size, stride))


def _patched_forward(x, kernel, stride, padding):
    return _patched(x, kernel, stride, padding), (x, kernel)


def _patched_backward(stride, padding, residuals, g):
    x, kernel = residuals
    size = kernel.shape[0]

    def part(views, taps):
        kernels = [kernel[i, j].T for i, j in taps]  # (O, I) each
        return pointwise(jnp.concatenate(views), jnp.concatenate(kernels))

    dx = windows.at_inputs(part, g, size, stride, padding, x.shape[1:3])
    dkernel = _kernel_gradient(_patches(x, size, stride, padding), g)
    return dx, dkernel.reshape(kernel.shape)


_patched.defvjp(_patched_forward, _patched_backward)


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
    return _product(kernel, g.reshape(g.shape[0], -1), 1, 0).reshape(x.shape), _kernel_gradient(x, g)


def _kernel_gradient(x, g):
    """(I, O), the gradient of the kernel of `pointwise`."""
    x_rows, g_rows = x.reshape(x.shape[0], -1), g.reshape(g.shape[0], -1)
    # The operand with many more rows first: a third of the time where the other has 16 or 24 (measured). Else the
    # gradient: students that share the images of their stem have one each, and only the first operand is not copied.
    if x_rows.shape[0] >= 2 * g_rows.shape[0]:
        return _product(x_rows, g_rows, 1, 1)
    return _product(g_rows, x_rows, 1, 1).T


pointwise.defvjp(_pointwise_forward, _pointwise_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding = ONE) -> jax.Array:
    """Convolution of every channel of (C, H, W, b) on its own with kernel (k, k, C)."""
    return _depthwise_forward(x, kernel, stride, padding)[0]


def _depthwise_forward(x, kernel, stride, padding):
    padded = windows.padded(x, padding)
    views = windows.taps(padded, kernel.shape[0], stride)
    return _filtered(views, kernel.reshape(len(views), -1)), (padded, kernel)


def _depthwise_backward(stride, padding, residuals, g):
    padded, kernel = residuals
    size = kernel.shape[0]
    dkernel = jnp.stack(_sums(*(tap * g for tap in windows.taps(padded, size, stride))))
    sides = [side - sum(edges) for side, edges in zip(padded.shape[1:3], padding, strict=True)]
    part = lambda views, taps: _filtered(views, [kernel[i, j] for i, j in taps])
    dx = windows.at_inputs(part, g, size, stride, padding, sides)
    return dx, dkernel.astype(kernel.dtype).reshape(kernel.shape)


depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def moments(x: jax.Array, near: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and (biased) variance of every channel, (C,) each in the dtype of x, taken in one pass.

    The values are counted from one of them, so that no digits are lost to a mean far from zero, wherever `near` is:
    here x is in memory by then.
    """
    return _moments(x)


@jax.custom_vjp
def _moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    row, column = x.shape[1] // 2, x.shape[2] // 2
    origin = lax.slice(x, (0, row, column, 0), (x.shape[0], row + 1, column + 1, 1))
    x = x - origin
    first, second = (total / (x.size // x.shape[0]) for total in _sums(x, x * x))
    return first + origin.reshape(-1), jnp.maximum(second - first * first, 0)


def _moments_forward(x):
    mean, variance = _moments(x)
    return (mean, variance), (x, mean)


def _moments_backward(residuals, g):
    x, mean = residuals
    count = x.size // x.shape[0]
    return (_each(g[0] / count) + _each(2 * g[1] / count) * (x - _each(mean)),)


_moments.defvjp(_moments_forward, _moments_backward)


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def max_pool(x: jax.Array, size: int = 2, stride: int = 2, padding: int = 0) -> jax.Array:
    """Maximum over size x size cells, every `stride` of them, with `padding` cells of -inf all around.

    What is left over at the bottom and right is dropped, and the first of equals takes the gradient.
    """
    return _max_pool_forward(x, size, stride, padding)[0]


def _max_pool_forward(x, size, stride, padding):
    shape, firsts = x.shape, []
    read = [(side + 2 * padding - size) // stride * stride + size - padding for side in shape[1:3]]
    x = x[:, : read[0], : read[1]]
    for axis, side in ((2, read[1]), (1, read[0])):
        x = _extended(x, axis, padding, side - x.shape[axis], -jnp.inf)
        end = side + padding - size + 1
        x, *others = (lax.slice_in_dim(x, start, start + end, stride, axis) for start in range(size))
        first = jnp.zeros(x.shape, jnp.int8)
        for place, other in enumerate(others, 1):
            first = jnp.where(other > x, jnp.int8(place), first)
            x = jnp.maximum(x, other)
        firsts.append(first)
    return x, (firsts, shape)


def _max_pool_backward(size, stride, padding, residuals, g):
    (first_column, first_row), shape = residuals
    readers = windows.readers(size, stride, padding)
    g = _unpooled(g, first_row, 1, readers, first_column.shape[1])
    g = _unpooled(g, first_column, 2, readers, min(shape[2], g.shape[2] * stride + size - stride - padding))
    return (jnp.pad(g, [(0, full - part) for full, part in zip(shape, g.shape, strict=True)]),)


def _unpooled(g, first, axis, readers, side):
    """The gradient at the `side` inputs along an axis: each output's goes to the place where its maximum was first."""
    cells = -(-side // len(readers))

    def kind(taps):
        returned = [(jnp.where(first == tap, g, 0), offset) for tap, offset in taps]
        moved = [_extended(part, axis, -offset, cells + offset - part.shape[axis], 0) for part, offset in returned]
        return functools.reduce(jnp.add, moved)

    parts = jnp.stack([kind(taps) for taps in readers], axis + 1)
    x = parts.reshape(*g.shape[:axis], -1, *g.shape[axis + 1 :])
    return lax.slice_in_dim(x, 0, side, axis=axis)


def _extended(x, axis, before, after, value):
    """x with so many more cells of that value along an axis, or fewer."""
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (before, after, 0)
    return lax.pad(x, jnp.asarray(value, x.dtype), edges)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def average(x: jax.Array) -> jax.Array:
    """Mean over the image, (b, C)."""
    return x.mean((1, 2)).T


def examples_first(x: jax.Array) -> jax.Array:
    """The activations as (b, H, W, C)."""
    return jnp.transpose(x, (3, 1, 2, 0))


def _each(channel: jax.Array) -> jax.Array:
    return channel[:, None, None, None]


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
