"""Mean and standard deviation of each band over the training images, by which networks normalize their inputs."""

from __future__ import annotations

import math

import numpy as np

from kdjax.data.dataset import Statistics
from kdjax.data.meaning import Meaning
from kdjax.data.rows import Images

_VALUES_AT_ONCE = 2**21  # 16 MB as integers of eight bytes


def compute(images: Images) -> Statistics:
    """Computes the mean and standard deviation of each band of (N, S, S, bands) uint8 or uint16, scaled to [0, 1].

    Pixels that are 0 in all bands hold no data and do not count. A band with the same value everywhere carries no
    information: its deviation is set to 1, so that normalization turns it into 0. The sums are exact integers, so they
    do not depend on how many images are read at a time.
    """
    highest, bands = int(np.iinfo(images.dtype).max), images.shape[-1]
    images_at_once = max(1, _VALUES_AT_ONCE // math.prod(images.shape[1:]))
    count, sums, squares = 0, [0] * bands, [0] * bands
    for start in range(0, len(images), images_at_once):
        values = images[start : start + images_at_once].astype(np.uint64)
        count += int(values.any(-1).sum())
        sums = [total + int(value) for total, value in zip(sums, values.sum((0, 1, 2)), strict=True)]
        squares = [total + int(value) for total, value in zip(squares, np.square(values).sum((0, 1, 2)), strict=True)]
    scale = max(count, 1) * highest
    mean = np.array(sums) / scale
    # In integers as well: for a band that hardly varies, the difference of two float means would lose the variance.
    scaled_variances = [count * square - total * total for total, square in zip(sums, squares, strict=True)]
    std = np.array([math.sqrt(variance) / scale for variance in scaled_variances])
    return Statistics(tuple(mean.tolist()), tuple(np.where(std > 1e-6, std, 1.0).tolist()))


def notes(statistics: Statistics, meaning: Meaning) -> tuple[str, ...]:
    """The log's note on the statistics, in the units of the files."""
    low, high = meaning.value_range or (0.0, 255.0)
    width = high - low
    listed = ", ".join(
        f"{name} {low + width * mean:.4g} ± {width * std:.3g}" if std < 1 else f"{name} {low + width * mean:.4g} always"
        for name, mean, std in zip(meaning.names, statistics.mean, statistics.std, strict=True)
    )
    return (f"bands, mean ± standard deviation over the training images: {listed}",)
