"""What a window that moves over images (C, H, W, b) reads, and what the gradient of that is: for `examples_last`."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from kdjax.networks.padding import Padding


def padded(x: jax.Array, padding: Padding) -> jax.Array:
    """The images with zeros around them."""
    return jnp.pad(x, ((0, 0), *padding, (0, 0)))


def taps(image: jax.Array, size: int, stride: int) -> list[jax.Array]:
    """The views of a padded image that a kernel of size x size reads, row by row."""
    channels, *sides, examples = image.shape
    height, width = ((side - size) // stride * stride + 1 for side in sides)
    return [
        lax.slice(image, (0, i, j, 0), (channels, i + height, j + width, examples), (1, stride, stride, 1))
        for i in range(size)
        for j in range(size)
    ]


def readers(size: int, stride: int, before: int) -> list[list[tuple[int, int]]]:
    """Which outputs read an input along one axis, by the input's remainder after `stride`: (tap, offset of the output).

    Output o reads the inputs stride · o + tap - before. So input stride · m + r is read by output
    m + (r + before - tap) / stride, with every tap for which this is whole.
    """
    return [
        [(tap, (r + before - tap) // stride) for tap in reversed(range(size)) if (r + before - tap) % stride == 0]
        for r in range(stride)
    ]


def at_inputs(
    part: Callable[[list[jax.Array], list[tuple[int, int]]], jax.Array],
    g: jax.Array,
    size: int,
    stride: int,
    padding: Padding,
    sides: Sequence[int],
) -> jax.Array:
    """The gradient at the inputs (C, H, W, b) of a convolution from that at its outputs, (O, h, w, b).

    Inputs with different remainders after `stride` are read with different taps of the kernel: each kind is computed
    on its own, then they are interleaved.

    Args:
        part: from views of `g` and the taps (row, column) with which these outputs read the inputs, to the gradient.
        g: at the outputs.
        size: side of the kernel.
        stride, padding: of the convolution.
        sides: (H, W).
    """
    rows, columns = (readers(size, stride, before) for before, _ in padding)
    cells = [-(-side // stride) for side in sides]
    offsets = [[offset for kind in kinds for _, offset in kind] for kinds in (rows, columns)]
    before = [max(0, -min(each)) for each in offsets]
    after = [max(0, cell + max(each) - side) for cell, each, side in zip(cells, offsets, g.shape[1:3], strict=True)]
    g = padded(g, ((before[0], after[0]), (before[1], after[1])))

    def kind(down, right):
        starts = [(before[0] + row, before[1] + column) for _, row in down for _, column in right]
        views = [g[:, top : top + cells[0], left : left + cells[1]] for top, left in starts]
        return part(views, [(i, j) for i, _ in down for j, _ in right])

    lines = [jnp.stack([kind(down, right) for right in columns], 3) for down in rows]
    x = jnp.stack(lines, 2)
    return x.reshape(x.shape[0], stride * cells[0], stride * cells[1], -1)[:, : sides[0], : sides[1]]
