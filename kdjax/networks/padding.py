"""How many zeros a convolution sees beyond each edge of its input, and which cells an adaptive average joins."""

from collections.abc import Callable, Sequence

Padding = tuple[tuple[int, int], tuple[int, int]]
"""((top, bottom), (left, right))."""


def around(sides: Sequence[int], size: int, stride: int) -> Padding:
    """Half the kernel's side all around, whatever the input: torchvision's."""
    return (size // 2, size // 2), (size // 2, size // 2)


def same(sides: Sequence[int], size: int, stride: int) -> Padding:
    """As many as ceil(side / stride) outputs need, the odd one at the bottom and right: TensorFlow's 'SAME'.

    With stride 2 an even side gets one less than an odd one, and nothing at the top for a kernel of 3.
    """

    def along(side: int) -> tuple[int, int]:
        needed = max((-(-side // stride) - 1) * stride + size - side, 0)
        return needed // 2, needed - needed // 2

    height, width = sides
    return along(height), along(width)


PADDINGS: dict[str, Callable[[Sequence[int], int, int], Padding]] = {"around": around, "same": same}
"""By name: from the sides (H, W) of the input, the side of the kernel and the stride."""


def bins(length: int, size: int) -> list[tuple[int, int]]:
    """First cell and end of each of the `size` bins of PyTorch's AdaptiveAvgPool2d along an axis of `length` cells."""
    return [(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
