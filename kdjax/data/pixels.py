"""What the pixels of a file mean: which bands are red, green and blue, which pixels are data, which values are black
and white. Training tiles, `predict` and the map all ask here. Images of other bands are chosen from by `bands`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

_STRIP = 2**20  # values that are converted together: temporaries are eight times as large in bytes
_PARTLY = 0.25  # share of values between 0 and the highest from which on a band is no mask, whatever it is called


class DecodeError(Exception):
    """Why a file could not become an RGB image (without its name)."""


class ReadError(DecodeError):
    """The file may be sound, but it was not read this time: a disk, a mount, rights, memory."""


@dataclasses.dataclass(frozen=True)
class Decoded:
    """An image as its file stores it.

    Attributes:
        pixels: (H, W, 3), RGB, or (H, W, bands): uint8, or a deeper dtype that still needs a value range.
        facts: conversions made.
        valid: bool (H, W), where there is data; None = everywhere.
        pixel_size_m: side of a pixel on the ground, m; None = not known.
        order: that the file's bands have, where it does not describe those that were asked for; () = it does.
        called: names of other bands by which the file describes what is taken as red, green and blue; '' = none.
    """

    pixels: np.ndarray
    facts: tuple[str, ...]
    valid: np.ndarray | None = None
    pixel_size_m: float | None = None
    order: tuple[str, ...] = ()
    called: str = ""

    @property
    def deep(self) -> bool:
        """Whether the values need a range to become bytes."""
        return self.pixels.dtype != np.uint8


@dataclasses.dataclass(frozen=True)
class Beside:
    """What the sidecar files of an image say of the samples as its file stores them, neither converted nor turned.

    Attributes:
        nodata: the value of no data of bands, counted from 0.
        descriptions, roles: of bands, as in the file: they count more than its own.
        mask: height and width of the image, px -> where it is data, (H, W) bool; None = everywhere.
    """

    nodata: Mapping[int, float] = dataclasses.field(default_factory=dict)
    descriptions: Mapping[int, str] = dataclasses.field(default_factory=dict)
    roles: Mapping[int, str] = dataclasses.field(default_factory=dict)
    mask: Callable[[int, int], np.ndarray | None] = lambda height, width: None

    def nodata_of(self, places: Sequence[int]) -> list[float] | None:
        """The values of no data of these bands, where there is none that of the first with one; None = of no band."""
        return [self.nodata.get(k, next(iter(self.nodata.values()))) for k in places] if self.nodata else None


@dataclasses.dataclass(frozen=True)
class ColorBands:
    """Which bands, counted from 0, are what: `color` is one gray band or red, green and blue."""

    color: tuple[int, ...]
    alpha: int | None
    facts: tuple[str, ...]


def choose_bands(roles: Sequence[str]) -> ColorBands:
    """Takes bands by what the file says of them, whatever their order.

    Args:
        roles: of each band in GDAL's words in lower case ("red", "green", "blue", "alpha", "nir", "gray",
            "undefined", ...).

    Raises:
        DecodeError: nothing says which bands are red, green and blue.
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
    """Whether the values of an alpha band are those of a mask: nearly all 0 or full, or all of them 0 or 2ⁿ - 1, n > 7.

    GDAL calls the fourth band of any 8-bit file alpha, near infrared too.
    """
    return bool(np.count_nonzero((alpha != 0) & (alpha != _highest(alpha))) <= _PARTLY * alpha.size)


def is_full_mask(alpha: np.ndarray) -> bool:
    """Whether it is a mask that shows something: all 0, as deep water is in near infrared, is none."""
    return is_mask(alpha) and bool((alpha == _highest(alpha)).any()) and bool(alpha.any())


def shown(alpha: np.ndarray) -> np.ndarray | None:
    """Where an alpha band (H, W) says that there is data; None = everywhere, or it is no mask."""
    return None if alpha.all() or not is_mask(alpha) else alpha != 0


def _highest(alpha: np.ndarray) -> float:
    most = alpha.max(initial=0)
    if alpha.dtype.kind == "f":
        return 1.0 if most <= 1 else float(most)
    # Many write 255 into 16 bits, or 4095 as of 12. Deep water may be 0 and 1 in near infrared.
    is_full = most >= 255 and int(most).bit_count() == int(most).bit_length()
    if is_full and not np.any((alpha != 0) & (alpha != most)):
        return int(most)
    return np.iinfo(alpha.dtype).max


def is_data(pixels: np.ndarray, nodata: ArrayLike | None, also: Sequence[np.ndarray | None] = ()) -> np.ndarray | None:
    """Where pixels are data.

    A pixel is none where a band is NaN or infinite, or where all bands are `nodata`: of a dark pixel one band alone may
    have that value.

    Args:
        pixels: (H, W, bands).
        nodata: the value of no data, or one of each band; None = there is none.
        also: masks (H, W) bool that hold as well; None among them says "everywhere".

    Returns:
        bool (H, W), None = everywhere.

    Raises:
        DecodeError: nowhere.
    """
    masks = [mask for mask in also if mask is not None]
    stored = None if nodata is None else _as_stored(nodata, pixels.dtype)
    if stored is not None or pixels.dtype.kind == "f":
        valid = np.ones(pixels.shape[:2], bool)
        for rows in strips(pixels):
            if pixels.dtype.kind == "f":
                valid[rows] &= np.isfinite(pixels[rows]).all(-1)
            if stored is not None:
                valid[rows] &= (pixels[rows] != stored).any(-1)
        masks.append(valid)
    if not masks:
        return None
    valid = np.logical_and.reduce(masks) if len(masks) > 1 else masks[0]
    if valid.all():
        return None
    if not valid.any():
        finite = pixels.dtype.kind != "f" or np.isfinite(pixels).any()
        raise DecodeError("no pixel holds data" if finite else "no finite pixel value")
    return valid


def _as_stored(nodata: ArrayLike, dtype: np.dtype) -> np.ndarray | None:
    """`nodata` in the type of the pixels; None where no pixel can have such values."""
    values = np.asarray(nodata, np.float64)
    possible = np.isfinite(values)
    if dtype.kind != "f":
        possible &= (values >= np.iinfo(dtype).min) & (values <= np.iinfo(dtype).max) & (values == np.trunc(values))
    return values.astype(dtype) if possible.all() else None


def oriented(array: np.ndarray, orientation: int) -> np.ndarray:
    """An array (H, W, ...) as the TIFF/EXIF orientation 1..8 says to show it; others change nothing."""
    if orientation in (5, 6, 7, 8):
        array = np.swapaxes(array, 0, 1)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    return np.flip(array, flips) if flips else array


def inverted(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Pixels of a file in which white is 0.

    Raises:
        DecodeError: signed or float pixels, for which that means nothing.
    """
    if pixels.dtype.kind != "u":
        raise DecodeError(f"white is 0 in pixels of type {pixels.dtype}: convert it")
    return pixels.dtype.type(2**bits - 1) - pixels


def sample(decoded: Decoded, count: int = 4096) -> np.ndarray:
    """About `count` values of an image's data plus its extremes, evenly spread, for `choose_range` and for checks."""
    pixels, valid = decoded.pixels, decoded.valid
    # A stride that has no divisor in common with the number of channels visits all of them.
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
    """One value range for all deep images of a data set.

    Floats within 0..1 keep 0..1. Unsigned integers that fill more than half of their type keep the type's range.
    Everything else (reflectances times 10 000, digital numbers of 11 or 12 bits) takes the 0.5 and 99.5 percentiles
    over all images: single bright roofs would else darken the rest.

    Args:
        samples: one 1-d array of values per image, as `sample` gives them.

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
    """Maps (low, high) linearly to all values of an unsigned type, clipped and rounded; NaN counts as `low`.

    In 16 bits a pixel of which all bands (last axis) clip to 0 becomes 1, unless all are 0: that means no data.
    """
    (low, high), result = value_range, np.empty(pixels.shape, dtype)
    most = float(np.iinfo(result.dtype).max)
    for rows in strips(pixels):
        scaled = (pixels[rows].astype(np.float64) - low) * (most / (high - low))
        result[rows] = np.rint(np.clip(np.nan_to_num(scaled, nan=0.0), 0.0, most))
        if most > 255:
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
    """Rows that are converted together: a whole image in float64 would take eight times its bytes."""
    height = max(1, _STRIP // max(1, pixels[:1].size))
    return (slice(top, top + height) for top in range(0, len(pixels), height))
