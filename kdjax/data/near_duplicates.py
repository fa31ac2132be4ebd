"""Images that are nearly the same: one place twice, or crops that overlap.

Two images are near-duplicates where their colors at 16 × 16 px correlate by `LEAST` or more in one of the eight
rotations and reflections, over the cells in which both have data: pixels that are 0 in all bands have none. That finds
the same scene under other light and slight shifts; whether a pair really is one place is for a person to see.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageFilter

from kdjax.data.rows import Images

SIDE = 16
LEAST = 0.95
VERSION = 2  # raised when thumbnails or their comparison change: what was counted before is counted again
_ROWS = 256  # images compared at once
_EDGE = 6  # px that Lanczos' filter reaches, on both sides of an edge together
_COMMON = SIDE * SIDE // 4  # cells of which both have to have data
_PLAIN = 1e-3  # share of an image's variance up to which the common cells are a plain surface, like to any other


def thumbnails(images: Images) -> np.ndarray:
    """(n, SIDE, SIDE, bands) float32, each of mean 0, each image of norm 1, from images (n, S, S, bands).

    Cells without data and those around them are NaN. Without the mean, plain surfaces of like color would be
    near-duplicates.
    """
    small = np.empty((len(images), SIDE, SIDE, images.shape[-1]), np.float32)
    for start in range(0, len(images), _ROWS):
        block = small[start : start + _ROWS]
        for place in range(len(block)):
            block[place] = _reduced(images[start + place])
        count = np.maximum(np.sum(~np.isnan(block), (1, 2), keepdims=True), 1)
        block -= np.nansum(block, (1, 2), keepdims=True) / count.astype(np.float32)
        block /= np.maximum(np.sqrt(np.nansum(np.square(block), (1, 2, 3), keepdims=True)), 1e-6)
    return small


def _reduced(image: np.ndarray) -> np.ndarray:
    data = np.asarray(image.any(-1))
    if image.dtype == np.uint8 and image.shape[-1] == 3:
        small = _boxes(image)
    else:
        small = np.stack([_boxes(image[..., band].astype(np.float32)) for band in range(image.shape[-1])], axis=-1)
    if data.all():
        return small
    # Images are resized with their black: for some pixels at the edge of the data they are darker than the ground.
    share, edge = _boxes(data.astype(np.float32)), -(-_EDGE * SIDE // min(data.shape))
    inner = Image.fromarray((share >= 0.5).astype(np.uint8)).filter(ImageFilter.MinFilter(2 * edge + 1))
    return np.where(np.asarray(inner)[..., None] > 0, small / np.maximum(share[..., None], 0.5), np.nan)


def _boxes(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX))


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
    flat = np.nan_to_num(others).reshape(len(others), -1).T
    partial, other_partial = (np.flatnonzero(np.isnan(one).any((1, 2, 3))) for one in (some, others))
    for reflected in (some, some[:, :, ::-1]):
        for turns in range(4):
            turned = np.rot90(reflected, turns, (1, 2))
            found = np.nan_to_num(turned).reshape(len(some), -1) @ flat
            for rows, columns in ((partial, np.arange(len(others))), (np.arange(len(some)), other_partial)):
                for start in range(0, len(columns) * bool(len(rows)), 8 * _ROWS):
                    part = columns[start : start + 8 * _ROWS]
                    found[np.ix_(rows, part)] = _where_both(turned[rows], others[part])
            yield found


def _where_both(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Correlations (n, m) over the cells in which both have data; 0 where these are few, or plain in one of the two."""
    known, their_known = (~np.isnan(one[..., 0]).reshape(len(one), -1) for one in (some, others))
    ours, theirs = known.astype(np.float32), their_known.astype(np.float32).T
    x, y = (np.nan_to_num(one).reshape(len(one), SIDE * SIDE, -1) for one in (some, others))
    count = ours @ theirs
    root = np.sqrt(np.maximum(count, 1))
    both = x.reshape(len(x), -1) @ y.reshape(len(y), -1).T
    here, there = np.square(x).sum(-1) @ theirs, ours @ np.square(y).sum(-1).T
    for band in range(x.shape[-1]):  # each about its mean over these cells
        x_mean, y_mean = x[..., band] @ theirs / root, ours @ y[..., band].T / root
        both -= x_mean * y_mean
        here -= np.square(x_mean)
        there -= np.square(y_mean)
    like = (count >= _COMMON) & (here > _PLAIN) & (there > _PLAIN)
    return np.where(like, both / np.sqrt(np.where(like, here * there, 1)), 0)
