"""Finds near-duplicates: images of the same place, or crops that overlap.

Two images are near-duplicates if their colors at 16 × 16 px have a correlation of at least `LEAST` in one of the eight
rotations and reflections. Only the cells in which both have data count; pixels that are 0 in all bands hold no data.
This finds the same scene in other light and slightly shifted. Whether a pair really shows one place, only a person can
tell.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageFilter

from kdjax.data import cache
from kdjax.data.dataset import Split
from kdjax.data.rows import Images, Rows
from kdjax.errors import InputError
from kdjax.runtime import files

SIDE = 16
LEAST = 0.95
VERSION = 2  # to be raised when thumbnails or their comparison change, so that cached counts are not used any more
_COMPARED_IMAGES = {"training": 50_000, "test": 1000}
"""The most images in which near-duplicates are counted, which takes some seconds."""
_IMAGES_AT_ONCE = 256  # images compared at once
_FILTER_REACH = 6  # px that the Lanczos filter reaches, on both sides of an edge together
_FEWEST_COMMON_CELLS = SIDE * SIDE // 4  # fewest cells in which both images must have data
# If the common cells hold at most this share of an image's variance, they are a plain surface, similar to any other.
_PLAIN_VARIANCE = 1e-3


def thumbnails(images: Images) -> np.ndarray:
    """Reduces images (n, S, S, bands) to thumbnails (n, SIDE, SIDE, bands) float32 for comparison.

    Each band has mean 0 and each image norm 1. The mean is subtracted because plain surfaces of similar color would
    otherwise be near-duplicates. Cells without data and those around them are NaN.
    """
    small = np.empty((len(images), SIDE, SIDE, images.shape[-1]), np.float32)
    for start in range(0, len(images), _IMAGES_AT_ONCE):
        block = small[start : start + _IMAGES_AT_ONCE]
        for offset in range(len(block)):
            block[offset] = _reduced(images[start + offset])
        count = np.maximum(np.sum(~np.isnan(block), (1, 2), keepdims=True), 1)
        block -= np.nansum(block, (1, 2), keepdims=True) / count.astype(np.float32)
        block /= np.maximum(np.sqrt(np.nansum(np.square(block), (1, 2, 3), keepdims=True)), 1e-6)
    return small


def _reduced(image: np.ndarray) -> np.ndarray:
    """One image (S, S, bands) averaged to (SIDE, SIDE, bands); cells without data and those around them are NaN."""
    data = np.asarray(image.any(-1))
    if image.dtype == np.uint8 and image.shape[-1] == 3:
        small = _box_average(image)
    else:
        small = np.stack(
            [_box_average(image[..., band].astype(np.float32)) for band in range(image.shape[-1])], axis=-1
        )
    if data.all():
        return small
    # Images were resized together with their black areas, so the pixels at the edge of the data are too dark.
    share, edge = _box_average(data.astype(np.float32)), -(-_FILTER_REACH * SIDE // min(data.shape))
    inner = Image.fromarray((share >= 0.5).astype(np.uint8)).filter(ImageFilter.MinFilter(2 * edge + 1))
    return np.where(np.asarray(inner)[..., None] > 0, small / np.maximum(share[..., None], 0.5), np.nan)


def _box_average(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX))


def closest(queries: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds for each thumbnail the most similar of the others, in any of the eight symmetries.

    Args:
        queries: (n, SIDE, SIDE, bands), from `thumbnails`.
        others: (m, SIDE, SIDE, bands), at least one.

    Returns:
        The largest correlations, (n,) float32, and their indices in `others`, (n,) int.
    """
    best, best_index = np.full(len(queries), -1.0, np.float32), np.zeros(len(queries), int)
    for start in range(0, len(queries), _IMAGES_AT_ONCE):
        rows = slice(start, start + _IMAGES_AT_ONCE)
        for correlation in _correlations(queries[rows], others):
            highest = correlation.max(1)
            better = highest > best[rows]
            best_index[rows][better] = correlation.argmax(1)[better]
            best[rows] = np.maximum(best[rows], highest)
    return best, best_index


def pairs(small: np.ndarray) -> list[tuple[int, int]]:
    """The near-duplicates among thumbnails (n, SIDE, SIDE, bands), as pairs of indices in ascending order."""
    duplicates: set[tuple[int, int]] = set()
    for start in range(0, len(small), _IMAGES_AT_ONCE):
        for correlation in _correlations(small[start : start + _IMAGES_AT_ONCE], small[start:]):
            rows, columns = np.nonzero(correlation >= LEAST)
            duplicates.update(
                (start + r, start + c) for r, c in zip(rows.tolist(), columns.tolist(), strict=True) if c > r
            )
    return sorted(duplicates)


def notes(
    train: Split, test: Split, cache_dir: pathlib.Path | None, data_fingerprint: str, suggest_grouping: bool
) -> tuple[str, ...]:
    """A note on how many test images are near-duplicates of a training image.

    The count is kept in the cache under `data_fingerprint`. With `suggest_grouping` the note names the field that keeps
    such images on one side.
    """
    key = cache.key_of([data_fingerprint, VERSION, SIDE, LEAST, _COMPARED_IMAGES["test"]])
    count_file = cache_dir / "near_duplicates" / f"{key}.json" if cache_dir else None
    if len(train) > _COMPARED_IMAGES["training"]:
        return (
            f"near-duplicates were not counted: there are more than {_COMPARED_IMAGES['training']} training images",
        )
    # Evenly spaced, so that all classes are among them.
    compared = np.linspace(0, len(test) - 1, min(len(test), _COMPARED_IMAGES["test"])).astype(int)
    count = None
    with contextlib.suppress(InputError, TypeError, KeyError):  # the cached count is absent or damaged
        count = files.read_json(count_file, "it is counted again")["count"] if count_file else None
    if type(count) is not int or not 0 <= count <= len(compared):
        train_thumbnails = thumbnails(train.images)
        correlations, _ = closest(thumbnails(Rows.of(test.images).select(compared)), train_thumbnails)
        count = int((correlations >= LEAST).sum())
        if count_file:
            count_file.parent.mkdir(parents=True, exist_ok=True)
            files.write_json(count_file, {"count": count})
    if not count:
        return ()
    advice = "; dataset.group_near_duplicates=True keeps such images on one side" if suggest_grouping else ""
    return (f"{count} of {len(compared)} test images are nearly the same as a training image{advice}",)


def _correlations(queries: np.ndarray, others: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the correlations (n, m) of `queries` with `others`, once for each of the eight symmetries of `queries`."""
    flat = np.nan_to_num(others).reshape(len(others), -1).T
    masked, other_masked = (np.flatnonzero(np.isnan(thumbnail).any((1, 2, 3))) for thumbnail in (queries, others))
    for reflected in (queries, queries[:, :, ::-1]):
        for turns in range(4):
            turned = np.rot90(reflected, turns, (1, 2))
            correlation = np.nan_to_num(turned).reshape(len(queries), -1) @ flat
            for rows, columns in ((masked, np.arange(len(others))), (np.arange(len(queries)), other_masked)):
                for start in range(0, len(columns) * bool(len(rows)), 8 * _IMAGES_AT_ONCE):
                    block = columns[start : start + 8 * _IMAGES_AT_ONCE]
                    correlation[np.ix_(rows, block)] = _masked_correlations(turned[rows], others[block])
            yield correlation


def _masked_correlations(queries: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Correlations (n, m) over the cells in which both have data; 0 if these are few, or plain in one of the two."""
    valid, other_valid = (~np.isnan(thumbnail[..., 0]).reshape(len(thumbnail), -1) for thumbnail in (queries, others))
    mask, other_mask = valid.astype(np.float32), other_valid.astype(np.float32).T
    x, y = (np.nan_to_num(thumbnail).reshape(len(thumbnail), SIDE * SIDE, -1) for thumbnail in (queries, others))
    count = mask @ other_mask
    root = np.sqrt(np.maximum(count, 1))
    covariance = x.reshape(len(x), -1) @ y.reshape(len(y), -1).T
    variance, other_variance = np.square(x).sum(-1) @ other_mask, mask @ np.square(y).sum(-1).T
    for band in range(x.shape[-1]):  # subtract each band's mean over the common cells
        x_mean, y_mean = x[..., band] @ other_mask / root, mask @ y[..., band].T / root
        covariance -= x_mean * y_mean
        variance -= np.square(x_mean)
        other_variance -= np.square(y_mean)
    comparable = (count >= _FEWEST_COMMON_CELLS) & (variance > _PLAIN_VARIANCE) & (other_variance > _PLAIN_VARIANCE)
    return np.where(comparable, covariance / np.sqrt(np.where(comparable, variance * other_variance, 1)), 0)
