"""Sliding windows over images (C, H, W, b), and the gradient at the inputs that they read; for `examples_last`."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from kdjax.networks.padding import Padding


def padded(x: jax.Array, padding: Padding) -> jax.Array:
    """Returns the images with zeros around them."""
    return jnp.pad(x, ((0, 0), *padding, (0, 0)))


def taps(image: jax.Array, size: int, stride: int) -> list[jax.Array]:
    """Returns the views of a padded image that the taps of a size x size kernel read, row by row."""
    channels, *sides, examples = image.shape
    height, width = ((side - size) // stride * stride + 1 for side in sides)
    return [
        lax.slice(image, (0, i, j, 0), (channels, i + height, j + width, examples), (1, stride, stride, 1))
        for i in range(size)
        for j in range(size)
    ]


def readers(size: int, stride: int, before: int) -> list[list[tuple[int, int]]]:
    """Returns, for each remainder r of an input's index modulo `stride`, the (tap, output offset) pairs that read it.

    Along one axis, output o reads the inputs stride · o + tap - before. So input stride · m + r is read by output
    m + (r + before - tap) / stride, with every tap for which this is a whole number.
    """
    return [
        [(tap, (r + before - tap) // stride) for tap in reversed(range(size)) if (r + before - tap) % stride == 0]
        for r in range(stride)
    ]


def input_gradient(
    gradient: Callable[[list[jax.Array], list[tuple[int, int]]], jax.Array],
    g: jax.Array,
    size: int,
    stride: int,
    padding: Padding,
    sides: Sequence[int],
) -> jax.Array:
    """Returns the gradient at the inputs (C, H, W, b) of a convolution, given that at its outputs.

    Different taps of the kernel read the inputs with different remainders modulo `stride`. The gradient is computed for
    each combination of remainders, and the results are interleaved.

    Args:
        gradient: function from views of `g` and the taps (row, column) with which these outputs read the inputs, to the
            gradient at these inputs.
        g: gradient at the outputs, (O, h, w, b).
        size: side of the kernel.
        stride, padding: those of the convolution.
        sides: sides (H, W) of the inputs.
    """
    rows, columns = (readers(size, stride, before) for before, _ in padding)
    cells = [-(-side // stride) for side in sides]
    offsets = [[offset for pairs in by_remainder for _, offset in pairs] for by_remainder in (rows, columns)]
    before = [max(0, -min(along)) for along in offsets]
    after = [max(0, cell + max(along) - side) for cell, along, side in zip(cells, offsets, g.shape[1:3], strict=True)]
    g = padded(g, ((before[0], after[0]), (before[1], after[1])))

    def with_remainders(down, right):
        starts = [(before[0] + row, before[1] + column) for _, row in down for _, column in right]
        views = [g[:, top : top + cells[0], left : left + cells[1]] for top, left in starts]
        return gradient(views, [(i, j) for i, _ in down for j, _ in right])

    lines = [jnp.stack([with_remainders(down, right) for right in columns], 3) for down in rows]
    x = jnp.stack(lines, 2)
    return x.reshape(x.shape[0], stride * cells[0], stride * cells[1], -1)[:, : sides[0], : sides[1]]
