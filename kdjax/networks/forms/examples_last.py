"""The networks' operations on (C, H, W, b), as shifted multiply-adds and matrix products: for CPUs.

XLA's CPU backend runs a depthwise convolution many times slower than nine shifted multiply-adds. With channels first
and examples last, every sum of a training step (BatchNorm's moments, the gradients of its scale and bias and of
depthwise kernels) runs over contiguous memory and is split over the cores by channel; every shift moves whole vectors
of examples; and no matrix product needs a transposed copy. The derivatives are written by hand for two reasons. JAX
would differentiate each padded slice to another padded slice and sum these one by one, and one pass over memory can
compute several sums at once.

`examples_first` computes the same values and gradients on (b, H, W, C). Sums are computed in at least float32.
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
FEW_CHANNELS = 16  # with fewer channels, a 3 x 3 convolution is one matrix product with all nine pixels of a patch
ONE_AROUND = ((1, 1), (1, 1))


def arrange(images: jax.Array) -> jax.Array:
    """Returns images (b, H, W, C) as (C, H, W, b)."""
    return jnp.transpose(images, (3, 1, 2, 0))


def convolution(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: Padding = ONE_AROUND) -> jax.Array:
    """Convolution of (I, H, W, b) with kernel (k, k, I, O), to (O, h, w, b)."""
    if stride == 1 and kernel.shape[0] == 3 and padding == ONE_AROUND and x.shape[0] >= FEW_CHANNELS:
        return winograd.convolution(x, kernel)
    return _patched(x, kernel, stride, padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _patched(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding) -> jax.Array:
    """`convolution` as one matrix product with all k x k pixels of a patch.

    The patches of an image do not depend on the kernel, so under `vmap` over students that share images they are made
    only once.
    """
    return pointwise(_patches(x, kernel.shape[0], stride, padding), kernel.reshape(-1, kernel.shape[-1]))


def _patches(x: jax.Array, size: int, stride: int, padding: Padding) -> jax.Array:
    return jnp.concatenate(windows.taps(windows.padded(x, padding), size, stride))


def _patched_forward(x, kernel, stride, padding):
    return _patched(x, kernel, stride, padding), (x, kernel)


def _patched_backward(stride, padding, residuals, g):
    x, kernel = residuals
    size = kernel.shape[0]

    def gradient(views, taps):
        kernels = [kernel[i, j].T for i, j in taps]  # (O, I) each
        return pointwise(jnp.concatenate(views), jnp.concatenate(kernels))

    dx = windows.input_gradient(gradient, g, size, stride, padding, x.shape[1:3])
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
    """Returns the gradient (I, O) of the kernel of `pointwise`."""
    x_rows, g_rows = x.reshape(x.shape[0], -1), g.reshape(g.shape[0], -1)
    # An operand with many more rows comes first: a third of the time if the other has 16 or 24 (measured). Otherwise
    # the gradient does, because XLA does not copy the first operand: students that share the images of their stem have
    # one gradient each.
    if x_rows.shape[0] >= 2 * g_rows.shape[0]:
        return _product(x_rows, g_rows, 1, 1)
    return _product(g_rows, x_rows, 1, 1).T


pointwise.defvjp(_pointwise_forward, _pointwise_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def depthwise(x: jax.Array, kernel: jax.Array, stride: int, padding: Padding = ONE_AROUND) -> jax.Array:
    """Depthwise convolution of (C, H, W, b) with kernel (k, k, C), one filter per channel."""
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
    gradient = lambda views, taps: _filtered(views, [kernel[i, j] for i, j in taps])
    dx = windows.input_gradient(gradient, g, size, stride, padding, sides)
    return dx, dkernel.astype(kernel.dtype).reshape(kernel.shape)


depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def moments(x: jax.Array, near: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns mean and (biased) variance of every channel, (C,) each in the dtype of x, computed in one pass.

    One value of each channel is subtracted first, so that a mean far from zero costs no precision. `near` is not
    needed, because in this form x is in memory already.
    """
    return _moments(x)


@jax.custom_vjp
def _moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    row, column = x.shape[1] // 2, x.shape[2] // 2
    origin = lax.slice(x, (0, row, column, 0), (x.shape[0], row + 1, column + 1, 1))
    x = x - origin
    mean, mean_square = (channel_sum / (x.size // x.shape[0]) for channel_sum in _sums(x, x * x))
    return mean + origin.reshape(-1), jnp.maximum(mean_square - mean * mean, 0)


def _moments_forward(x):
    mean, variance = _moments(x)
    return (mean, variance), (x, mean)


def _moments_backward(residuals, g):
    x, mean = residuals
    count = x.size // x.shape[0]
    return (_per_channel(g[0] / count) + _per_channel(2 * g[1] / count) * (x - _per_channel(mean)),)


_moments.defvjp(_moments_forward, _moments_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def affine(x: jax.Array, factor: jax.Array, offset: jax.Array, ceiling: float | None = None) -> jax.Array:
    """x * factor + offset, channel by channel, then min(max(·, 0), ceiling) unless `ceiling` is None.

    The derivative is 0 at both corners, as in PyTorch.
    """
    x = x * _per_channel(factor) + _per_channel(offset)
    return x if ceiling is None else jnp.clip(x, 0, ceiling)


def _affine_forward(x, factor, offset, ceiling):
    return affine(x, factor, offset, ceiling), (x, factor, offset)


def _affine_backward(ceiling, residuals, g):
    x, factor, offset = residuals
    if ceiling is not None:
        y = x * _per_channel(factor) + _per_channel(offset)
        g = jnp.where((y > 0) & (y < ceiling), g, 0)
    return (g * _per_channel(factor), *_sums(g * x, g))


affine.defvjp(_affine_forward, _affine_backward)


@jax.custom_vjp
def affine_hard_swish(x: jax.Array, factor: jax.Array, offset: jax.Array) -> jax.Array:
    """hard_swish(x * factor + offset), channel by channel. The backward pass recomputes the argument of hard_swish."""
    return hard_swish(x * _per_channel(factor) + _per_channel(offset))


def _affine_hard_swish_forward(x, factor, offset):
    return affine_hard_swish(x, factor, offset), (x, factor, offset)


def _affine_hard_swish_backward(residuals, g):
    x, factor, offset = residuals
    return _affine_backward(None, residuals, g * hard_swish_slope(x * _per_channel(factor) + _per_channel(offset)))


affine_hard_swish.defvjp(_affine_hard_swish_forward, _affine_hard_swish_backward)


def scaled(x: jax.Array, gate: jax.Array) -> jax.Array:
    """x with every channel of every example multiplied by its value in gate (b, C)."""
    return x * gate.T[:, None, None, :]


def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x + bias, channel by channel."""
    return x + _per_channel(bias)


@jax.custom_vjp
def bias_relu(x: jax.Array, bias: jax.Array) -> jax.Array:
    """relu(x + bias), channel by channel. Its gradient reads only the result, which the next layer stores anyway."""
    return jnp.maximum(x + _per_channel(bias), 0)


def _bias_relu_forward(x, bias):
    y = bias_relu(x, bias)
    return y, y


def _bias_relu_backward(y, g):
    g = jnp.where(y > 0, g, 0)
    return g, _sums(g)[0].astype(y.dtype)


bias_relu.defvjp(_bias_relu_forward, _bias_relu_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def max_pool(x: jax.Array, size: int = 2, stride: int = 2, padding: int = 0) -> jax.Array:
    """Maximum over windows of size x size cells, one every `stride` cells, with `padding` cells of -inf on every side.

    Cells left over at the bottom and right are dropped. Of equal maxima, the first one gets the gradient.
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
        for tap, other in enumerate(others, 1):
            first = jnp.where(other > x, jnp.int8(tap), first)
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
    """Returns the gradient at the `side` inputs along an axis; that of each output goes to its first maximum."""
    cells = -(-side // len(readers))

    def gradient(taps):
        routed = [(jnp.where(first == tap, g, 0), offset) for tap, offset in taps]
        shifted = [_extended(part, axis, -offset, cells + offset - part.shape[axis], 0) for part, offset in routed]
        return functools.reduce(jnp.add, shifted)

    by_remainder = jnp.stack([gradient(taps) for taps in readers], axis + 1)
    x = by_remainder.reshape(*g.shape[:axis], -1, *g.shape[axis + 1 :])
    return lax.slice_in_dim(x, 0, side, axis=axis)


def _extended(x, axis, before, after, value):
    """Returns x with cells of `value` added along an axis, or cells removed if `before` or `after` is negative."""
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (before, after, 0)
    return lax.pad(x, jnp.asarray(value, x.dtype), edges)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def average(x: jax.Array) -> jax.Array:
    """Mean over the image, (b, C)."""
    return x.mean((1, 2)).T


def examples_first(x: jax.Array) -> jax.Array:
    """Returns the activations as (b, H, W, C)."""
    return jnp.transpose(x, (3, 1, 2, 0))


def _per_channel(values: jax.Array) -> jax.Array:
    return values[:, None, None, None]


def _filtered(views: Sequence[jax.Array], weights: Sequence[jax.Array]) -> jax.Array:
    """Returns the sum of the views, each weighted channel by channel."""
    dtype = jnp.promote_types(views[0].dtype, jnp.float32)
    parts = [
        view.astype(dtype) * _per_channel(weight.astype(dtype)) for view, weight in zip(views, weights, strict=True)
    ]
    return functools.reduce(jnp.add, parts).astype(views[0].dtype)


def _sums(*terms: jax.Array) -> tuple[jax.Array, ...]:
    """Returns the sums over every channel of each term, all computed in one pass over memory."""
    dtype = jnp.promote_types(terms[0].dtype, jnp.float32)
    zero = jnp.zeros((), dtype)
    add = lambda sums, values: tuple(a + b for a, b in zip(sums, values, strict=True))
    return tuple(lax.reduce([term.astype(dtype) for term in terms], [zero] * len(terms), add, (1, 2, 3)))
