"""The meaning of pixels: which bands are red, green and blue, which pixels are data, which values are black and white.

Training tiles, `predict` and the map all use these functions. Bands other than red, green and blue are chosen in
`bands`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

_STRIP_VALUES = 2**20  # values converted at once; as float64, temporaries take eight times as many bytes
_PARTIAL_SHARE = 0.25  # a band with a larger share of values strictly between 0 and full is not a mask


class DecodeError(Exception):
    """A file cannot be decoded; the message gives the reason without the file's name."""


class ReadError(DecodeError):
    """The file may be sound but could not be read this time: the disk, a mount, permissions or memory failed."""


@dataclasses.dataclass(frozen=True)
class Decoded:
    """An image as its file stores it.

    Attributes:
        pixels: (H, W, 3), RGB, or (H, W, bands): uint8, or a deeper dtype that still needs a value range.
        facts: conversions made.
        valid: bool (H, W), where there is data; None = everywhere.
        pixel_size_m: side of a pixel on the ground, m; None = not known.
        order: the order of the file's bands, if its descriptions do not name the requested ones; () = they do.
        other_names: other names by which the file describes the bands taken as red, green and blue; '' = none.
    """

    pixels: np.ndarray
    facts: tuple[str, ...]
    valid: np.ndarray | None = None
    pixel_size_m: float | None = None
    order: tuple[str, ...] = ()
    other_names: str = ""

    @property
    def deep(self) -> bool:
        """Whether the values need a value range to become bytes."""
        return self.pixels.dtype != np.uint8


@dataclasses.dataclass(frozen=True)
class Sidecars:
    """What the sidecar files of an image say about the samples as stored in its file, neither converted nor rotated.

    Attributes:
        nodata: band, counted from 0 -> its nodata value.
        descriptions, roles: band, counted from 0 -> its description or role, which override those in the file itself.
        mask: function of the image's height and width, px, that returns where there is data, bool (H, W); None =
            everywhere.
    """

    nodata: Mapping[int, float] = dataclasses.field(default_factory=dict)
    descriptions: Mapping[int, str] = dataclasses.field(default_factory=dict)
    roles: Mapping[int, str] = dataclasses.field(default_factory=dict)
    mask: Callable[[int, int], np.ndarray | None] = lambda height, width: None

    def nodata_of(self, places: Sequence[int]) -> list[float] | None:
        """The nodata value of each band at `places`; one without takes the first listed. None = no band has any."""
        return [self.nodata.get(k, next(iter(self.nodata.values()))) for k in places] if self.nodata else None


@dataclasses.dataclass(frozen=True)
class ColorBands:
    """The role of each band, counted from 0.

    Attributes:
        color: one gray band, or red, green and blue.
        alpha: the alpha band; None = none.
        facts: conversions made.
    """

    color: tuple[int, ...]
    alpha: int | None
    facts: tuple[str, ...]


def choose_bands(roles: Sequence[str]) -> ColorBands:
    """Chooses the color bands by the roles that the file gives, whatever their order.

    Args:
        roles: role of each band, in GDAL's terms in lower case ("red", "green", "blue", "alpha", "nir", "gray",
            "undefined", ...).

    Raises:
        DecodeError: the roles leave open which bands are red, green and blue.
    """
    roles = list(roles)
    colors = ("red", "green", "blue")
    alpha = roles.index("alpha") if roles.count("alpha") == 1 else None
    others = [k for k in range(len(roles)) if k != alpha]
    if all(roles.count(color) == 1 for color in colors):
        chosen = tuple(roles.index(color) for color in colors)
    elif len(others) in (1, 3):
        chosen = tuple(others)
    elif len(roles) == 4:
        raise DecodeError(
            "4 channels, and nothing says which are red, green and blue: write it with gdal_translate -b and "
            "-colorinterp red,green,blue"
        )
    elif len(roles) == 2:
        raise DecodeError("2 channels: gray (1), RGB (3) or RGB with a fourth channel expected")
    else:
        raise DecodeError(f"{len(roles)} channels: make it an RGB image of three bands first")
    facts = []
    if len(chosen) == 1:
        facts.append("gray made RGB")
    elif chosen != tuple(sorted(chosen)):
        facts.append(f"bands {', '.join(str(k + 1) for k in chosen)} are red, green and blue")
    elif any(roles[k] not in (*colors, "gray", "grey", "undefined", "") for k in chosen):
        facts.append(f"bands {', '.join(roles[k] for k in chosen)} taken as red, green and blue")
    if len(roles) > len(chosen):
        facts.append("alpha or fourth channel dropped")
    return ColorBands(chosen, alpha, tuple(facts))


def is_mask(alpha: np.ndarray) -> bool:
    """Whether an alpha band looks like a mask: nearly all values are 0 or full, or all are 0 or 2ⁿ - 1 with n > 7.

    GDAL calls the fourth band of any 8-bit file alpha, even if it is near infrared.
    """
    return bool(np.count_nonzero((alpha != 0) & (alpha != _full_value(alpha))) <= _PARTIAL_SHARE * alpha.size)


def is_full_mask(alpha: np.ndarray) -> bool:
    """Whether a band is a mask with some data; all 0, as near infrared is over deep water, does not count as a mask."""
    return is_mask(alpha) and bool((alpha == _full_value(alpha)).any()) and bool(alpha.any())


def alpha_mask(alpha: np.ndarray) -> np.ndarray | None:
    """Returns where an alpha band (H, W) marks data, bool (H, W); None = everywhere, or the band is not a mask."""
    return None if alpha.all() or not is_mask(alpha) else alpha != 0


def _full_value(alpha: np.ndarray) -> float:
    """The value by which an alpha band marks data."""
    highest = alpha.max(initial=0)
    if alpha.dtype.kind == "f":
        return 1.0 if highest <= 1 else float(highest)
    # Many files mark data by 255 in 16 bits, or by 4095 (12 bits). Lower values may be near infrared over deep water.
    is_full = highest >= 255 and int(highest).bit_count() == int(highest).bit_length()
    if is_full and not np.any((alpha != 0) & (alpha != highest)):
        return int(highest)
    return np.iinfo(alpha.dtype).max


def is_data(pixels: np.ndarray, nodata: ArrayLike | None, masks: Sequence[np.ndarray | None] = ()) -> np.ndarray | None:
    """Finds which pixels hold data.

    A pixel holds no data if any band is NaN or infinite, or if all bands are `nodata`; a dark pixel may have that value
    in a single band.

    Args:
        pixels: (H, W, bands).
        nodata: the nodata value, or one for each band; None = there is none.
        masks: further masks, bool (H, W), that must hold as well; None among them means "everywhere".

    Returns:
        bool (H, W), True where there is data; None = everywhere.

    Raises:
        DecodeError: no pixel holds data.
    """
    all_masks = [mask for mask in masks if mask is not None]
    nodata_values = None if nodata is None else _nodata_in(nodata, pixels.dtype)
    if nodata_values is not None or pixels.dtype.kind == "f":
        valid = np.ones(pixels.shape[:2], bool)
        for rows in strips(pixels):
            if pixels.dtype.kind == "f":
                valid[rows] &= np.isfinite(pixels[rows]).all(-1)
            if nodata_values is not None:
                valid[rows] &= (pixels[rows] != nodata_values).any(-1)
        all_masks.append(valid)
    if not all_masks:
        return None
    valid = np.logical_and.reduce(all_masks) if len(all_masks) > 1 else all_masks[0]
    if valid.all():
        return None
    if not valid.any():
        finite = pixels.dtype.kind != "f" or np.isfinite(pixels).any()
        raise DecodeError("no pixel holds data" if finite else "no finite pixel value")
    return valid


def _nodata_in(nodata: ArrayLike, dtype: np.dtype) -> np.ndarray | None:
    """`nodata` in the dtype of the pixels; None if the dtype cannot hold such a value."""
    values = np.asarray(nodata, np.float64)
    possible = np.isfinite(values)
    if dtype.kind != "f":
        possible &= (values >= np.iinfo(dtype).min) & (values <= np.iinfo(dtype).max) & (values == np.trunc(values))
    return values.astype(dtype) if possible.all() else None


def oriented(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turns an array (H, W, ...) as the TIFF/EXIF orientation 1..8 says; any other value changes nothing."""
    if orientation in (5, 6, 7, 8):
        array = np.swapaxes(array, 0, 1)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    return np.flip(array, flips) if flips else array


def inverted(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Inverts the pixels of a file in which white is 0.

    Raises:
        DecodeError: the pixels are signed or floats, for which this is undefined.
    """
    if pixels.dtype.kind != "u":
        raise DecodeError(f"white is 0 in pixels of type {pixels.dtype}: convert it")
    return pixels.dtype.type(2**bits - 1) - pixels


def sample(decoded: Decoded, count: int = 4096) -> np.ndarray:
    """About `count` evenly spread values of an image's data and its extremes, for `choose_range` and for checks."""
    pixels, valid = decoded.pixels, decoded.valid
    # A stride that shares no divisor with the number of channels visits all of them.
    stride = max(1, pixels.size // count)
    while math.gcd(stride, pixels.shape[-1]) > 1:
        stride += 1
    row, column, band = np.unravel_index(np.arange(0, pixels.size, stride), pixels.shape)
    values = pixels[row, column, band]
    if valid is not None:
        values = values[valid[row, column]]
    extremes = []
    for rows in strips(pixels):
        part = pixels[rows] if valid is None else pixels[rows][valid[rows]]
        if part.size:
            extremes += [part.min(), part.max()]
    return np.concatenate([values, [min(extremes), max(extremes)]]).astype(pixels.dtype)


def choose_range(samples: list[np.ndarray]) -> tuple[float, float, str]:
    """Chooses one value range for all deep images of a data set.

    Floats within 0..1 keep 0..1. Unsigned integers that fill more than half of their type keep the type's range.
    Everything else (reflectance × 10 000, digital numbers of 11 or 12 bits) gets the 0.5 and 99.5 percentiles over all
    images, because otherwise a few bright roofs would darken the rest.

    Args:
        samples: one 1-d array of values per image, from `sample`.

    Returns:
        low, high, and how they were found.

    Raises:
        DecodeError: float and integer images are mixed, so no single range can fit.
    """
    kinds = {"float" if values.dtype.kind == "f" else "integer" for values in samples}
    if len(kinds) > 1:
        raise DecodeError("16-bit and float images are mixed, and no single value range fits both")
    pooled = np.concatenate([values.astype(np.float64) for values in samples])
    low, high = (float(value) for value in np.percentile(pooled, [0.5, 99.5]))
    if kinds == {"float"} and pooled.min() >= 0 and pooled.max() <= 1:
        return 0.0, 1.0, "floats within 0..1"
    dtypes = {values.dtype for values in samples}
    if len(dtypes) == 1 and (dtype := dtypes.pop()).kind == "u" and high > np.iinfo(dtype).max / 2:
        return 0.0, float(np.iinfo(dtype).max), f"the range of {dtype}"
    if not high > low:
        low, high = float(pooled.min()), max(float(pooled.max()), float(pooled.min()) + 1.0)
    return low, high, "percentiles 0.5 and 99.5 over all such images"


def to_levels(pixels: np.ndarray, value_range: Sequence[float], dtype: DTypeLike) -> np.ndarray:
    """Maps (low, high) linearly to the full range of an unsigned dtype, clipped and rounded; NaN counts as `low`.

    In 16 bits, 0 in all bands (last axis) means no data. A pixel whose bands all clip to 0 therefore becomes 1, unless
    they were all 0 before.
    """
    (low, high), result = value_range, np.empty(pixels.shape, dtype)
    highest = float(np.iinfo(result.dtype).max)
    for rows in strips(pixels):
        scaled = (pixels[rows].astype(np.float64) - low) * (highest / (high - low))
        result[rows] = np.rint(np.clip(np.nan_to_num(scaled, nan=0.0), 0.0, highest))
        if highest > 255:
            result[rows][pixels[rows].any(-1) & ~result[rows].any(-1)] = 1
    return result


def blackened(pixels: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    """Pixels (H, W, bands) with 0 where there is no data."""
    if valid is None:
        return pixels
    result = pixels.copy()
    result[~valid] = 0
    return result


def strips(pixels: np.ndarray) -> Iterator[slice]:
    """Slices of rows to convert one after the other: a whole image in float64 would take eight times its bytes."""
    height = max(1, _STRIP_VALUES // max(1, pixels[:1].size))
    return (slice(top, top + height) for top in range(0, len(pixels), height))
