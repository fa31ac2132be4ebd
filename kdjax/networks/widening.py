"""The first kernel of a network for red, green and blue, made one for other bands."""

from collections.abc import Sequence

import numpy as np

Colors = Sequence[int | None]
"""Places of red, green and blue among bands, None for one that is missing."""


def widened(kernel: np.ndarray, bands: int, colors: Colors) -> np.ndarray:
    """A first kernel for red, green and blue, (height, width, 3, outputs), as one for other bands, (…, bands, outputs).

    Kernels of colors that are among the bands stay at their places. Every other band has the mean of the three, so
    scaled that together they weigh as much as the colors that are missing, or as one color where none is. An image of
    bands that agree is then answered as its gray picture, or by a third more, whatever their number, so that BatchNorm
    goes on from statistics that fit; and an image whose other bands are blank, which is 0 once they are normalized, is
    answered as by the network for red, green and blue.

    Args:
        kernel: of the file.
        bands: how many there are.
        colors: places of red, green and blue among them, None for one that is missing.
    """
    present = [place for place in colors if place is not None]
    others = bands - len(present)
    share = max(3 - len(present), 1) / max(others, 1)
    result = np.repeat(share * kernel.astype(np.float64).mean(2, keepdims=True), bands, axis=2)
    for color, place in enumerate(colors):
        if place is not None:
            result[:, :, place] = kernel[:, :, color]
    return result
