"""Images that are nearly the same: one place twice, or crops that overlap.

Two images are near-duplicates where their colors at 16 × 16 px correlate by `LEAST` or more in one of the eight
rotations and reflections. That finds the same scene under other light and slight shifts; whether a pair really is one
place is for a person to see.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from kdjax.data.rows import Images

SIDE = 16
LEAST = 0.95
VERSION = 1  # raised when thumbnails or their comparison change: what was counted before is counted again
_ROWS = 256  # images compared at once


def thumbnails(images: Images) -> np.ndarray:
    """(n, SIDE, SIDE, bands) float32, each of mean 0, each image of norm 1, from images (n, S, S, bands).

    Without the mean, plain surfaces of like color would be near-duplicates.
    """
    small = np.empty((len(images), SIDE, SIDE, images.shape[-1]), np.float32)
    for start in range(0, len(images), _ROWS):
        block = small[start : start + _ROWS]
        for place in range(len(block)):
            block[place] = _reduced(images[start + place])
        block -= block.mean((1, 2), keepdims=True)
        block /= np.maximum(np.sqrt(np.square(block).sum((1, 2, 3), keepdims=True)), 1e-6)
    return small


def _reduced(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8 and image.shape[-1] == 3:
        return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX))
    bands = (Image.fromarray(image[..., band].astype(np.float32)) for band in range(image.shape[-1]))
    return np.stack([np.asarray(band.resize((SIDE, SIDE), Image.Resampling.BOX)) for band in bands], axis=-1)


def closest(held: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each thumbnail its largest correlation with another in any symmetry, and that other.

    Args:
        held: (n, SIDE, SIDE, bands), from `thumbnails`.
        others: (m, SIDE, SIDE, bands), at least one.

    Returns:
        Correlations (n,) float32 and places in `others` (n,) int.
    """
    best, place = np.full(len(held), -1.0, np.float32), np.zeros(len(held), int)
    for start in range(0, len(held), _ROWS):
        rows = slice(start, start + _ROWS)
        for correlation in _correlations(held[rows], others):
            highest = correlation.max(1)
            better = highest > best[rows]
            place[rows][better] = correlation.argmax(1)[better]
            best[rows] = np.maximum(best[rows], highest)
    return best, place


def pairs(small: np.ndarray) -> list[tuple[int, int]]:
    """The near-duplicates among thumbnails (n, SIDE, SIDE, bands), as pairs of places, ascending."""
    found: set[tuple[int, int]] = set()
    for start in range(0, len(small), _ROWS):
        for correlation in _correlations(small[start : start + _ROWS], small[start:]):
            rows, columns = np.nonzero(correlation >= LEAST)
            found.update((start + r, start + c) for r, c in zip(rows.tolist(), columns.tolist(), strict=True) if c > r)
    return sorted(found)


def _correlations(some: np.ndarray, others: np.ndarray) -> Iterator[np.ndarray]:
    """Of every pair, in each of the eight symmetries of `some`."""
    flat = others.reshape(len(others), -1).T
    for reflected in (some, some[:, :, ::-1]):
        for turns in range(4):
            yield np.rot90(reflected, turns, (1, 2)).reshape(len(some), -1) @ flat
