"""Mean and spread of each band over the training images, which networks of such bands are normalized by."""

from __future__ import annotations

import math

import numpy as np

from kdjax.data.dataset import Statistics
from kdjax.data.meaning import Meaning
from kdjax.data.rows import Images

_AT_ONCE = 256  # images


def of(images: Images) -> Statistics:
    """Mean and standard deviation of each band of (N, S, S, bands) uint8 or uint16, in [0, 1].

    A band that has one value everywhere says nothing; its deviation is taken for 1, so that it becomes 0.
    """
    most, count = float(np.iinfo(images.dtype).max), math.prod(images.shape[:3])
    sums = np.zeros((2, images.shape[-1]))
    for start in range(0, len(images), _AT_ONCE):
        values = images[start : start + _AT_ONCE].astype(np.float64) / most
        sums += [values.sum((0, 1, 2)), np.square(values).sum((0, 1, 2))]
    mean, square = sums / count
    std = np.sqrt(np.maximum(square - np.square(mean), 0))
    return Statistics(tuple(mean.tolist()), tuple(np.where(std > 1e-6, std, 1.0).tolist()))


def notes(statistics: Statistics, meaning: Meaning) -> tuple[str, ...]:
    """What the log says of them, in the numbers of the files."""
    low, high = meaning.value_range or (0.0, 255.0)
    width = high - low
    listed = ", ".join(
        f"{name} {low + width * mean:.4g} ± {width * std:.3g}" if std < 1 else f"{name} {low + width * mean:.4g} always"
        for name, mean, std in zip(meaning.names, statistics.mean, statistics.std, strict=True)
    )
    return (f"bands, mean ± deviation over the training images: {listed}",)
