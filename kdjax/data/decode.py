"""One image file -> RGB pixels; value ranges of deep images; resizing.

Every failure is a `DecodeError` with a short reason; the caller knows the file's name and adds it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import logging
import warnings
from collections.abc import Iterator

import imagecodecs
import numpy as np
import tifffile
from PIL import BmpImagePlugin, Image, ImageOps, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

# Raise this number whenever the same file would give other pixels: cached arrays of older versions are then ignored.
VERSION = 1

# A tile is at most some thousand pixels wide. The limits keep a decompression bomb from filling the memory.
MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 512 * 2**20

# The formats are named: Pillow would otherwise try every plugin it has (EPS starts an outside program).
# MPO, which many drones and phones write under the name .jpg, is opened as JPEG: its first picture counts.
_FORMATS = tuple(
    plugin.format
    for plugin in (
        BmpImagePlugin.BmpImageFile,
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        TiffImagePlugin.TiffImageFile,
    )
)
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_START = b"\x89PNG\r\n\x1a\n"

# tifffile logs what it then also raises.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


class DecodeError(Exception):
    """Why a file could not become an RGB image (without its name)."""


@dataclasses.dataclass(frozen=True)
class Decoded:
    """Pixels (H, W, 3), RGB: uint8, or a deeper dtype that still needs a value range; facts: conversions made."""

    pixels: np.ndarray
    facts: tuple[str, ...]

    @property
    def deep(self) -> bool:
        return self.pixels.dtype != np.uint8


@contextlib.contextmanager
def warnings_settled() -> Iterator[None]:
    """Decoding belongs inside: no warnings about odd metadata, and one about a very large image is a DecodeError.

    The filters are process-wide, so they are set around threads, not inside.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Pillow warns before our own limit is checked.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode(data: bytes) -> Decoded:
    """Decodes JPEG, PNG, BMP or TIFF bytes.

    Grey becomes RGB, alpha (or any fourth channel) is dropped, CMYK and palettes are converted, the EXIF
    orientation is applied. 16-bit and float images keep their dtype.

    Returns:
      Decoded.

    Raises:
      DecodeError: not an image, truncated, too large, or a number of channels that is no colour image (2, > 4).
    """
    if not data:
        raise DecodeError("the file is empty")
    if len(data) > MAX_FILE_BYTES:
        raise DecodeError(f"the file is larger than {MAX_FILE_BYTES // 2**20} MiB")
    try:
        if data[:4] in _TIFF_STARTS:
            return _decode_tiff(data)
        if data[:8] == _PNG_START and len(data) > 25 and data[24] == 16:
            return _decode_png16(data)
        return _decode_pillow(data)
    except DecodeError:
        raise
    except MemoryError:
        raise DecodeError("not enough memory to decode it") from None
    # Decoders of damaged files raise whatever they meet (struct.error, KeyError, SyntaxError, ...): for the user
    # all of it is an unreadable image.
    except Exception as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "not a JPEG, PNG, TIFF or BMP image"
        raise DecodeError(reason) from error


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise DecodeError("the image has no pixels")
    if width * height > MAX_PIXELS:
        raise DecodeError(f"{width} x {height} pixels is more than {MAX_PIXELS // 10**6} million")


def _decode_pillow(data: bytes) -> Decoded:
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        _check_size(*image.size)
        image.load()
        mode = image.mode
        image = ImageOps.exif_transpose(image)
    facts = ()
    if mode in ("1", "L", "LA", "La"):
        facts += ("grey made RGB",)
    if mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        facts += ("alpha or fourth channel dropped",)
    if mode in ("CMYK", "YCbCr", "LAB"):
        facts += (f"{mode} converted to RGB",)
    if mode in ("P", "PA"):
        facts += ("palette converted to RGB",)
    if mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        return _from_array(np.asarray(image))
    return Decoded(np.asarray(image.convert("RGB")), facts)


def _decode_png16(data: bytes) -> Decoded:
    # Pillow silently cuts 16-bit colour PNG to 8 bits, which would make value_range meaningless.
    _check_size(int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"))
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        image.verify()  # libpng accepts a file whose end is missing
    array = imagecodecs.png_decode(data)
    return _from_array(array, alpha=array.ndim == 3 and array.shape[-1] in (2, 4))


def _decode_tiff(data: bytes) -> Decoded:
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = tiff.pages[0]
        # Overviews are levels of the first series; a second series is another image (or a mask): the first counts.
        series = tiff.series[0]
        axes, shape = series.axes, series.shape
        sizes = dict(zip(axes, shape, strict=True))
        _check_size(sizes.get("X", 0), sizes.get("Y", 0))
        others = {axis: size for axis, size in sizes.items() if axis not in "XYS" and size > 1}
        if others:
            raise DecodeError(f"{int(np.prod(list(others.values())))} pages or bands: one RGB or grey image expected")
        ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if not ends or max(ends) > len(data):
            raise DecodeError("image file is truncated")
        samples = sizes.get("S", 1)
        _check_channels(samples, alpha=bool(page.extrasamples) and page.extrasamples[0] in (1, 2))
        plain = page.photometric in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
        if not plain or page.bitspersample < 8 or series.dtype == bool:
            return _decode_pillow(data)  # palette, CMYK, YCbCr, bilevel: Pillow knows the colours
        array = series.asarray(maxworkers=1)
        order = [axes.index(axis) for axis in "YXS" if axis in axes]
        array = np.transpose(array, order + [i for i in range(array.ndim) if i not in order])
        array = array.reshape(array.shape[: len(order)])
        orientation = page.tags.get(274)
        if orientation is not None:
            array = _orient(array, int(orientation.value))
    alpha = array.ndim == 3 and array.shape[-1] in (2, 4)
    return _from_array(array, alpha=alpha)


def _check_channels(channels: int, alpha: bool) -> None:
    if channels == 2 and not alpha:
        raise DecodeError("2 channels: grey (1), RGB (3) or RGB with a fourth channel expected")
    if channels > 4:
        raise DecodeError(f"{channels} channels: make it an RGB image of three bands first")


def _orient(array: np.ndarray, orientation: int) -> np.ndarray:
    """Applies the TIFF/EXIF orientation 1..8 to (H, W, ...)."""
    if orientation in (5, 6, 7, 8):
        array = np.swapaxes(array, 0, 1)
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}.get(orientation, ())
    return np.flip(array, flips) if flips else array


def _from_array(array: np.ndarray, alpha: bool = False) -> Decoded:
    """(H, W), (H, W, 1..4) of any real dtype -> Decoded."""
    if array.dtype.kind not in "uif" or (array.dtype.kind == "f" and array.dtype.itemsize > 8):
        raise DecodeError(f"pixels of type {array.dtype} are not supported")
    if array.ndim == 2:
        array = array[..., None]
    _check_channels(array.shape[-1], alpha)
    facts = ()
    if array.shape[-1] in (1, 2):
        facts += ("grey made RGB",)
    if array.shape[-1] in (2, 4):
        facts += ("alpha or fourth channel dropped",)
    array = np.repeat(array[..., :1], 3, axis=-1) if array.shape[-1] <= 2 else array[..., :3]
    array = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.kind == "f" and not np.isfinite(array).any():
        raise DecodeError("no finite pixel value")
    return Decoded(array, facts)


def sample(pixels: np.ndarray, count: int = 4096) -> np.ndarray:
    """About `count` finite values of a deep image plus its extremes, evenly spread, for `choose_range`."""
    values = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels.reshape(-1)
    # An odd stride that is no multiple of 3 visits all three channels.
    stride = max(1, values.size // count)
    while stride > 1 and stride % 3 == 0:
        stride += 1
    return np.concatenate([values[::stride], [values.min(), values.max()]]).astype(pixels.dtype)


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
        raise DecodeError("16-bit and float images are mixed, no one value range fits both")
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


def to_uint8(pixels: np.ndarray, low: float, high: float) -> np.ndarray:
    """Maps low..high linearly to 0..255, clipped and rounded; NaN becomes 0."""
    scaled = (pixels.astype(np.float64) - low) * (255.0 / (high - low))
    return np.rint(np.clip(np.nan_to_num(scaled, nan=0.0), 0.0, 255.0)).astype(np.uint8)


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """uint8 (H, W, 3) -> uint8 (size, size, 3): Lanczos with antialiasing; a non-square image is squeezed.

    Squeezing keeps the whole tile in view, which a centre crop does not; tiles are square or nearly so.
    """
    if pixels.shape[:2] == (size, size):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS))


def digest(pixels: np.ndarray) -> str:
    """sha256 (hex) of the size and the values of a uint8 (H, W, 3) image: equal for identical pixels only."""
    total = hashlib.sha256(f"{pixels.shape[0]}x{pixels.shape[1]};".encode())
    total.update(np.ascontiguousarray(pixels))
    return total.hexdigest()
