"""Mean and spread of each band over the training images, which networks of such bands are normalized by."""

from __future__ import annotations

import math

import numpy as np

from kdjax.data.dataset import Statistics
from kdjax.data.meaning import Meaning
from kdjax.data.rows import Images

_AT_ONCE = 2**21  # values: 16 MB as integers of eight bytes


def of(images: Images) -> Statistics:
    """Mean and standard deviation of each band of (N, S, S, bands) uint8 or uint16, in [0, 1].

    Pixels of which all bands are 0 hold no data and do not count. A band that has one value everywhere says nothing;
    its deviation is taken for 1, so that it becomes 0. Sums are of integers, so they do not depend on how many images
    are read at a time.
    """
    most, bands = int(np.iinfo(images.dtype).max), images.shape[-1]
    at_once = max(1, _AT_ONCE // math.prod(images.shape[1:]))
    count, sums, squares = 0, [0] * bands, [0] * bands
    for start in range(0, len(images), at_once):
        values = images[start : start + at_once].astype(np.uint64)
        count += int(values.any(-1).sum())
        sums = [total + int(one) for total, one in zip(sums, values.sum((0, 1, 2)), strict=True)]
        squares = [total + int(one) for total, one in zip(squares, np.square(values).sum((0, 1, 2)), strict=True)]
    total_values = max(count, 1) * most
    mean = np.array(sums) / total_values
    # Of integers too: a band that hardly varies would lose its deviation in the difference of two means.
    varied = [count * square - total * total for total, square in zip(sums, squares, strict=True)]
    std = np.array([math.sqrt(one) / total_values for one in varied])
    return Statistics(tuple(mean.tolist()), tuple(np.where(std > 1e-6, std, 1.0).tolist()))


def notes(statistics: Statistics, meaning: Meaning) -> tuple[str, ...]:
    """What the log says of them, in the numbers of the files."""
    low, high = meaning.value_range or (0.0, 255.0)
    width = high - low
    listed = ", ".join(
        f"{name} {low + width * mean:.4g} ± {width * std:.3g}" if std < 1 else f"{name} {low + width * mean:.4g} always"
        for name, mean, std in zip(meaning.names, statistics.mean, statistics.std, strict=True)
    )
    return (f"bands, mean ± standard deviation over the training images: {listed}",)
