"""Converts the first kernel of a network for red, green and blue to other bands."""

from collections.abc import Sequence

import numpy as np

Colors = Sequence[int | None]
"""Indices of red, green and blue among the bands, None for a color that is missing."""


def widened(kernel: np.ndarray, bands: int, colors: Colors) -> np.ndarray:
    """Converts a first kernel (height, width, 3, outputs) for red, green and blue to (height, width, bands, outputs).

    A color that is among the bands keeps its kernel. Every other band gets the mean of the three kernels, scaled so
    that all of these together weigh as much as the missing colors, or as one color if none is missing. This keeps the
    responses near those that BatchNorm's statistics were computed for, whatever the number of bands: to an image whose
    bands are all equal, the network responds as to a gray image, or a third more strongly if no color is missing. If no
    color is missing and the other bands are blank, which is 0 after normalization, it responds as the network for red,
    green and blue.

    Args:
        kernel: the kernel in the file.
        bands: number of bands.
        colors: indices of red, green and blue among the bands, None for a color that is missing.
    """
    present = [place for place in colors if place is not None]
    other_count = bands - len(present)
    share = max(3 - len(present), 1) / max(other_count, 1)
    result = np.repeat(share * kernel.astype(np.float64).mean(2, keepdims=True), bands, axis=2)
    for color, place in enumerate(colors):
        if place is not None:
            result[:, :, place] = kernel[:, :, color]
    return result
