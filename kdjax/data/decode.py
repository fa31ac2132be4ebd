"""One image file -> RGB pixels, or other bands; resizing.

Every failure is a `DecodeError` with a short reason; the caller knows the file's name and adds it. What the pixels mean
is in `pixels`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import re
import threading
import warnings
from collections.abc import Callable, Iterator

import imagecodecs
import numpy as np
from PIL import BmpImagePlugin, Image, ImageOps, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from kdjax.data import pixels, tiff
from kdjax.data.bands import RGB, Bands
from kdjax.data.pixels import Decoded, DecodeError, ReadError
from kdjax.errors import reason

__all__ = ["DecodeError", "Decoded", "ReadError", "decode", "digest", "opened", "resize", "warnings_settled"]

# Raise this number whenever the same file would give other pixels: cached arrays of older versions are then ignored.
VERSION = 2

# A tile is at most some thousand pixels wide. The limits keep a decompression bomb from filling the memory.
MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 512 * 2**20

_in_flight = 0  # px of all images that are open, whatever the number of threads; at most MAX_PIXELS
_changed = threading.Condition()

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


class WithSidecars(bytes):
    """The bytes of an image file with those of GDAL's sidecar files."""

    mask: bytes | None  # NAME.msk, a TIFF file: 0 where there is no data
    metadata: bytes | None  # NAME.aux.xml

    def __new__(cls, data: bytes, mask: bytes | None, metadata: bytes | None) -> WithSidecars:
        """Copies `data`."""
        self = super().__new__(cls, data)
        self.mask, self.metadata = mask, metadata
        return self

    @property
    def nodata(self) -> float | None:
        """The value of no data that the metadata name."""
        found = re.search(rb"<NoDataValue[^>]*>\s*([^<\s]+)\s*<", self.metadata or b"")
        try:
            return None if found is None else float(found[1])
        except ValueError:
            return None


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


def decode(data: bytes | np.ndarray, bands: Bands | None = None) -> Decoded:
    """Decodes JPEG, PNG, BMP or TIFF bytes, or takes an array as what a file would hold.

    Grey becomes RGB, a fourth band is dropped after an alpha band has said where there is data, CMYK and palettes are
    converted, the EXIF orientation is applied. 16-bit and float images keep their dtype.

    Args:
        data: the file, or (H, W, n) samples. Of an array nothing is dropped: it is gray or RGB, or has bands that are
            taken by an order that is known.
        bands: those to take, None = red, green and blue.

    Raises:
        DecodeError: not an image, truncated, too large, without data, or without these bands.
        ReadError: not enough memory.
    """
    with opened(data, bands) as decoded:
        return decoded


@contextlib.contextmanager
def opened(data: bytes | np.ndarray, bands: Bands | None = None) -> Iterator[Decoded]:
    """`decode` for as long as the pixels are needed. Threads wait while too many are open: that bounds memory."""
    with contextlib.ExitStack() as held:
        try:
            decoded = _decode(data, held, bands)
            yield _with_sidecars(decoded, data) if isinstance(data, WithSidecars) else decoded
        except MemoryError:
            raise ReadError("not enough memory to decode it") from None


def _decode(data: bytes | np.ndarray, held: contextlib.ExitStack, bands: Bands | None) -> Decoded:
    if isinstance(data, np.ndarray):
        return _from_samples(data, held, bands)
    if not data:
        raise DecodeError("the file is empty")
    if len(data) > MAX_FILE_BYTES:
        raise DecodeError(f"the file is larger than {MAX_FILE_BYTES // 2**20} MiB")
    check_size = functools.partial(_check_size, held=held)
    try:
        if data[:4] in _TIFF_STARTS and bands:
            return tiff.read_bands(data, check_size, bands)
        if data[:4] in _TIFF_STARTS:
            return tiff.read(data, check_size, lambda data, page: _from_pillow(data, page, lambda width, height: None))
        deep_png = data[:8] == _PNG_START and len(data) > 25 and data[24] == 16
        decoded = _decode_png16(data, check_size) if deep_png else _from_pillow(data, None, check_size)
        if bands:
            places, how = bands.choose(decoded.pixels, () if bands.orders else RGB)
            decoded = dataclasses.replace(
                decoded, pixels=decoded.pixels[..., list(places)], facts=(f"bands taken {how}",)
            )
        return decoded
    except (DecodeError, MemoryError):
        raise
    # Decoders of damaged files raise whatever they meet (struct.error, KeyError, SyntaxError, ...): for the user
    # all of it is an unreadable image.
    except Exception as error:
        unknown = isinstance(error, Image.UnidentifiedImageError)
        raise DecodeError("not a JPEG, PNG, TIFF or BMP image" if unknown else reason(error, 100)) from error


def _from_samples(array: np.ndarray, held: contextlib.ExitStack, bands: Bands | None) -> Decoded:
    if array.ndim != 3 or array.dtype.kind not in "uif":
        raise DecodeError(f"{array.dtype} values of shape {array.shape}, and (height, width, bands) is expected")
    height, width, count = array.shape
    _check_size(width, height * -(-count // 3), held)
    if bands:
        places, how = bands.choose(array, ())
        array = array[..., list(places)]
        return Decoded(array, (f"bands taken {how}",), pixels.is_data(array, None))
    if count not in (1, 3):
        raise DecodeError(f"{count} bands, and nothing says which are red, green and blue")
    return _from_array(array)


def _with_sidecars(decoded: Decoded, data: WithSidecars) -> Decoded:
    """The image with the mask and the nodata value of its sidecar files."""
    masks = [decoded.valid]
    if data.mask is not None:
        try:
            mask = tiff.read_mask(bytes(data.mask))
        except (MemoryError, DecodeError):
            raise
        except Exception as error:
            raise DecodeError(f"its mask, the sidecar file .msk, cannot be read: {reason(error, 60)}") from error
        if mask.shape != decoded.pixels.shape[:2]:
            raise DecodeError("its mask, the sidecar file .msk, is of another size")
        masks.append(mask)
    return dataclasses.replace(decoded, valid=pixels.is_data(decoded.pixels, data.nodata, masks))


def _check_size(width: int, height: int, held: contextlib.ExitStack) -> None:
    if width < 1 or height < 1:
        raise DecodeError("the image has no pixels")
    if width * height > MAX_PIXELS:
        raise DecodeError(f"{width} x {height} pixels is more than {MAX_PIXELS // 10**6} million")
    held.enter_context(_room(width * height))


@contextlib.contextmanager
def _room(count: int) -> Iterator[None]:
    """Waits until `count` more pixels may be open. A thread that has room must not ask for more."""
    global _in_flight
    with _changed:
        _changed.wait_for(lambda: _in_flight == 0 or _in_flight + count <= MAX_PIXELS)
        _in_flight += count
    try:
        yield
    finally:
        with _changed:
            _in_flight -= count
            _changed.notify_all()


def _from_pillow(data: bytes, page: int | None, check_size: Callable[[int, int], None]) -> Decoded:
    """Decodes by Pillow: a page of a TIFF file as it lies there, or another file with its orientation applied."""
    with Image.open(io.BytesIO(data), formats=_FORMATS) as file:
        if page is not None:
            file.seek(page)
        check_size(*file.size)
        file.load()
        mode, transparent = file.mode, "transparency" in file.info
        image = file if page is not None else ImageOps.exif_transpose(file)
    facts: tuple[str, ...] = ()
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
    array = np.asarray(image.convert("RGB"))
    alpha = None
    if transparent or mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        alpha = pixels.shown(np.asarray(image.convert("RGBA").getchannel("A")))
    return Decoded(array, facts, pixels.is_data(array, None, [alpha]))


def _decode_png16(data: bytes, check_size: Callable[[int, int], None]) -> Decoded:
    # Pillow silently cuts 16-bit colour PNG to 8 bits, which would make value_range meaningless.
    check_size(int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"))
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        image.verify()  # libpng accepts a file whose end is missing
    return _from_array(imagecodecs.png_decode(data))


def _from_array(array: np.ndarray) -> Decoded:
    """(H, W) or (H, W, 1..4), the last of two or four samples alpha."""
    array = array if array.ndim == 3 else array[..., None]
    roles = {1: ["gray"], 2: ["gray", "alpha"], 3: ["red", "green", "blue"], 4: ["red", "green", "blue", "alpha"]}
    bands = pixels.choose_bands(roles[array.shape[-1]])
    alpha = None if bands.alpha is None else pixels.shown(array[..., bands.alpha])
    colors = array[..., :3] if len(bands.color) == 3 else np.broadcast_to(array[..., :1], (*array.shape[:2], 3))
    return Decoded(colors, bands.facts, pixels.is_data(colors, None, [alpha]))


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """(H, W, channels) -> (size, size, channels): Lanczos with antialiasing; a non-square image is squeezed.

    Squeezing keeps the whole tile in view, which a centre crop does not; tiles are square or nearly so.

    Args:
        image: uint8, of any number of channels in uint16.
        size: px.
    """
    if image.shape[:2] == (size, size):
        return image
    if image.dtype != np.uint8 or image.shape[-1] != 3:  # Pillow has no such mode, but one of floats
        resized = [_resized(image[..., band].astype(np.float32), size) for band in range(image.shape[-1])]
        most = np.iinfo(image.dtype).max
        return np.clip(np.rint(np.stack(resized, axis=-1)), 0, most).astype(image.dtype)
    return _resized(image, size)


def _resized(image: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS))


def digest(image: np.ndarray) -> str:
    """sha256 (hex) of the size and the values of an image (H, W, channels): equal for identical pixels only."""
    kind = "" if image.dtype == np.uint8 and image.shape[-1] == 3 else f"{image.shape[-1]} {image.dtype};"
    total = hashlib.sha256(f"{image.shape[0]}x{image.shape[1]};{kind}".encode())
    total.update(np.ascontiguousarray(image).data)
    return total.hexdigest()
