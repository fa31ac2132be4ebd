"""3 x 3 convolution of (C, H, W, b) as matrix products of transformed tiles, for CPUs.

Winograd's minimal filtering F(m x m, 3 x 3) computes m x m outputs from one tile of n x n inputs, n = m + 2, with n²
products per channel pair instead of 9 m²: a fourth of them for m = 4, 4/9 for m = 2. Each of the n² positions in a tile
is one matrix product over channels. In float32 with m = 4, errors are at most a few 1e-6 of the largest output.

Sources: Lavin and Gray, "Fast algorithms for convolutional neural networks", arXiv 1509.09308; Barabasz et al., arXiv
1803.10986, for points of interpolation with little cancellation.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Finite points of interpolation by m; infinity is one more. They and their sums are short binary fractions.
POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, 0.625, -0.625, 1.5, -1.5)}


def _cook_toom(m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns matrices (input n x n, kernel n x 3, output m x n) with which tiles are transformed.

    output @ ((kernel @ k) * (input @ x)) is x filtered by k. This is the transpose of the Cook-Toom algorithm, which
    multiplies polynomials by their values at n points."""
    points = np.array(POINTS[m])
    n = m + 2
    inputs, kernel, output = np.zeros((n, n)), np.zeros((n, 3)), np.zeros((m, n))
    for row, point in enumerate(points):
        other_points = np.delete(points, row)
        inputs[row, : n - 1] = np.poly(other_points)[::-1]
        kernel[row] = point ** np.arange(3) / np.prod(point - other_points)
        output[:, row] = point ** np.arange(m)
    inputs[-1] = np.poly(points)[::-1]
    kernel[-1, -1] = output[-1, -1] = 1
    return inputs, kernel, output


MATRICES = {m: _cook_toom(m) for m in POINTS}


@jax.custom_vjp
def convolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3 x 3 convolution with padding 1 of (I, H, W, b) with kernel (3, 3, I, O), to (O, H, W, b).

    It is computed in at least float32; the result has the dtype of x."""
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    m = _tile(x.shape)
    kernels, tiles = _kernel_transform(kernel.astype(dtype), m), _input_transform(x.astype(dtype), m)
    product = lax.dot_general(kernels, tiles, (((2,), (1,)), ((0,), (0,))))
    _, height, width, examples = x.shape
    return _output_transform(product, m, (height, width, examples)).astype(x.dtype)


def _forward(x, kernel):
    return convolution(x, kernel), (x, kernel)


def _backward(residuals, g):
    x, kernel = residuals
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    m = _tile(x.shape)
    # Each position in the tile is a separate matrix product, so its gradients are separate matrix products too.
    tiles, outputs = _input_transform(x.astype(dtype), m), _output_transform_transposed(g.astype(dtype), m)
    product = lax.dot_general(outputs, tiles, (((2,), (2,)), ((0,), (0,))))
    dkernel = _kernel_transform_transposed(product, m).astype(kernel.dtype)
    return convolution(g, kernel[::-1, ::-1].swapaxes(2, 3)), dkernel


convolution.defvjp(_forward, _backward)


def _tile(shape: tuple[int, ...]) -> int:
    """Returns the m with the least work: n² products a tile, and n² transformed kernels that cost as 100 tiles do."""
    tiles = lambda m: -(-shape[1] // m) * -(-shape[2] // m) * shape[3]
    return min(MATRICES, key=lambda m: (m + 2) ** 2 * (tiles(m) + 100))


def _combine(weights: np.ndarray, terms: list[jax.Array]) -> jax.Array:
    """Returns the weighted sum of the terms whose weight is not zero."""
    return functools.reduce(
        jnp.add,
        [
            term if weight == 1 else term * weight.astype(term.dtype)
            for weight, term in zip(weights, terms, strict=True)
            if weight != 0
        ],
    )


def _stacked(matrix: np.ndarray, terms: list[jax.Array], axis: int = 0) -> jax.Array:
    return jnp.stack([_combine(weights, terms) for weights in matrix], axis)


def _kernel_transform(kernel: jax.Array, m: int) -> jax.Array:
    """Transforms (3, 3, I, O) to (n², O, I); the positions in the tile are ordered column by column."""
    both = jnp.asarray(np.kron(MATRICES[m][1], MATRICES[m][1]), kernel.dtype)
    kernel = kernel.transpose(1, 0, 3, 2)
    return jnp.matmul(both, kernel.reshape(9, -1)).reshape(-1, *kernel.shape[2:])


def _kernel_transform_transposed(product: jax.Array, m: int) -> jax.Array:
    """Transforms (n², O, I) to (3, 3, I, O): the transpose of `_kernel_transform`."""
    both = jnp.asarray(np.kron(MATRICES[m][1], MATRICES[m][1]).T, product.dtype)
    kernel = jnp.matmul(both, product.reshape(len(product), -1)).reshape(3, 3, *product.shape[1:])
    return kernel.transpose(1, 0, 3, 2)


# Every transform combines rows of pixels, then columns. The barrier between the two keeps XLA from fusing them into one
# loop, which would compute the first step again for each result of the second.


def _input_transform(x: jax.Array, m: int) -> jax.Array:
    """Transforms (C, H, W, b) to (n², C, tiles · b); tiles of the padded image have n x n pixels and are m apart."""
    channels, height, width, examples = x.shape
    n, down, across = m + 2, -(-height // m), -(-width // m)
    x = jnp.pad(x, ((0, 0), (1, down * m - height + 1), (1, across * m - width + 1), (0, 0)))
    lines = [lax.slice_in_dim(x, i, i + (down - 1) * m + 1, m, axis=1) for i in range(n)]
    x = lax.optimization_barrier(_stacked(MATRICES[m][0], lines))
    lines = [lax.slice_in_dim(x, i, i + (across - 1) * m + 1, m, axis=3) for i in range(n)]
    return _stacked(MATRICES[m][0], lines).reshape(n * n, channels, -1)


def _output_transform(product: jax.Array, m: int, shape: tuple[int, int, int]) -> jax.Array:
    """Transforms (n², C, tiles · b) to (C, H, W, b)."""
    height, width, examples = shape
    n, down, across, channels = m + 2, -(-height // m), -(-width // m), product.shape[1]
    product = product.reshape(n, n, channels, down, across, examples)
    lines = [_stacked(MATRICES[m][2], list(product[:, row]), 3) for row in range(n)]
    lines = lax.optimization_barrier(lines)
    x = _stacked(MATRICES[m][2], lines, 2).reshape(channels, down * m, across * m, examples)
    return x[:, :height, :width]


def _output_transform_transposed(g: jax.Array, m: int) -> jax.Array:
    """Transforms (C, H, W, b) to (n², C, tiles · b): the transpose of `_output_transform`, for its gradient."""
    channels, height, width, examples = g.shape
    n, down, across = m + 2, -(-height // m), -(-width // m)
    g = jnp.pad(g, ((0, 0), (0, down * m - height), (0, across * m - width), (0, 0)))
    g = g.reshape(channels, down, m, across, m, examples)
    g = lax.optimization_barrier(_stacked(MATRICES[m][2].T, [g[:, :, i] for i in range(m)]))
    g = _stacked(MATRICES[m][2].T, [g[:, :, :, :, i] for i in range(m)])
    return g.reshape(n * n, channels, -1)
