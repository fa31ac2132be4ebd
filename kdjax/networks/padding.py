"""The padding of convolutions, and the bins of an adaptive average."""

from collections.abc import Callable, Sequence

Padding = tuple[tuple[int, int], tuple[int, int]]
"""((top, bottom), (left, right)): zeros beyond each edge of the input."""


def around(sides: Sequence[int], size: int, stride: int) -> Padding:
    """torchvision's padding: half the kernel's side on every side, whatever the input."""
    return (size // 2, size // 2), (size // 2, size // 2)


def same(sides: Sequence[int], size: int, stride: int) -> Padding:
    """TensorFlow's 'SAME' padding: just enough for ceil(side / stride) outputs, an odd cell at the bottom and right.

    With stride 2, an even side gets one cell less than an odd one, and for a kernel of 3 none at the top and left.
    """

    def edges(side: int) -> tuple[int, int]:
        needed = max((-(-side // stride) - 1) * stride + size - side, 0)
        return needed // 2, needed - needed // 2

    height, width = sides
    return edges(height), edges(width)


PADDINGS: dict[str, Callable[[Sequence[int], int, int], Padding]] = {"around": around, "same": same}
"""Padding functions by name, with the arguments: sides (H, W) of the input, side of the kernel, stride."""


def bins(length: int, size: int) -> list[tuple[int, int]]:
    """Returns (first cell, end) of each of the `size` bins of PyTorch's AdaptiveAvgPool2d over `length` cells."""
    return [(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
