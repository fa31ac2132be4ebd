"""Decodes one image file into RGB pixels or other bands, and resizes it.

Every failure is a `DecodeError` with a short reason, to which the caller adds the file's name. What the pixels mean is
decided in `pixels`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import html
import io
import re
import threading
import warnings
from collections.abc import Callable, Iterator

import imagecodecs
import numpy as np
from PIL import BmpImagePlugin, ExifTags, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from kdjax.data import pixels, tiff
from kdjax.data.bands import RGB, Bands, with_roles
from kdjax.data.pixels import Decoded, DecodeError, ReadError, Sidecars
from kdjax.errors import one_line

__all__ = ["DecodeError", "Decoded", "ReadError", "decode", "decoding_warnings", "digest", "open_image", "resize"]

# To be raised whenever the same file would give other pixels or an error; cached arrays of older versions are ignored.
VERSION = 11

# A tile is at most a few thousand pixels wide. The limits keep a decompression bomb from filling the memory.
MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 512 * 2**20

_open_pixels = 0  # pixels of all images that are open in any thread; at most MAX_PIXELS
_pixels_freed = threading.Condition()

# The formats are listed because Pillow would otherwise try every plugin (EPS starts an external program).
# MPO, which many drones and phones write as .jpg, is opened as JPEG, which gives its first picture.
_FORMATS = tuple(
    plugin.format
    for plugin in (
        BmpImagePlugin.BmpImageFile,
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        TiffImagePlugin.TiffImageFile,
    )
)
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class WithSidecars(bytes):
    """The bytes of an image file, with those of GDAL's sidecar files as attributes."""

    mask: bytes | None  # NAME.msk, a TIFF file that is 0 where there is no data
    metadata: bytes | None  # NAME.aux.xml

    def __new__(cls, data: bytes, mask: bytes | None, metadata: bytes | None) -> WithSidecars:
        """Copies `data`."""
        self = super().__new__(cls, data)
        self.mask, self.metadata = mask, metadata
        return self

    def sidecars(self) -> Sidecars:
        """The content of the sidecar files."""
        nodata = {}
        for band, text in self._band_texts("NoDataValue").items():
            with contextlib.suppress(ValueError):
                nodata[band] = float(text)
        roles = {band: text.lower() for band, text in self._band_texts("ColorInterp").items()}
        return Sidecars(nodata, self._band_texts("Description"), roles, self._read_mask)

    def _band_texts(self, tag: str) -> dict[int, str]:
        """Band, counted from 0 -> the text of the XML element `tag` in its metadata."""
        text, texts = (self.metadata or b"").decode(errors="replace"), {}
        for band, body in re.findall(r"""(?s)<PAMRasterBand\s+band=["'](\d+)["']\s*>(.*?)</PAMRasterBand>""", text):
            if match := re.search(rf"<{tag}(?:\s[^>]*)?>([^<]+)<", body):
                texts[int(band) - 1] = html.unescape(match[1]).strip()
        return texts

    def _read_mask(self, height: int, width: int) -> np.ndarray | None:
        if self.mask is None:
            return None
        try:
            mask = tiff.read_mask(self.mask, _check_size, (height, width))
        except MemoryError:
            raise
        except Exception as error:
            raise DecodeError(f"its mask, the sidecar file .msk, cannot be read: {one_line(error, 60)}") from error
        if mask is None:
            raise DecodeError("its mask, the sidecar file .msk, is of another size")
        return mask


@contextlib.contextmanager
def decoding_warnings() -> Iterator[None]:
    """Sets the warning filters for decoding: odd metadata are ignored, and a very large image raises a DecodeError.

    The filters are process-wide, so they have to be set around the decoding threads, not inside them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Pillow warns before the limit here is checked.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode(data: bytes | np.ndarray, bands: Bands | None = None) -> Decoded:
    """Decodes JPEG, PNG, BMP or TIFF bytes, or takes an array as the content of a file.

    Gray becomes RGB, an alpha band marks where there is data, a fourth band is dropped, CMYK and palettes are
    converted, and the EXIF orientation is applied. 16-bit and float images keep their dtype.

    Args:
        data: the file, or samples (H, W, n): gray or RGB (no fourth band is dropped), or bands in a known order.
        bands: the bands to take; None = red, green and blue.

    Raises:
        DecodeError: the file is not an image, is truncated or too large, or lacks data or the requested bands.
        ReadError: there is not enough memory.
    """
    with open_image(data, bands) as decoded:
        return decoded


@contextlib.contextmanager
def open_image(data: bytes | np.ndarray, bands: Bands | None = None) -> Iterator[Decoded]:
    """`decode` for as long as the pixels are needed. Threads wait while too many pixels are open, to bound memory."""
    with contextlib.ExitStack() as stack:
        try:
            decoded = _decode(data, stack, bands)
            if bands and (nodata := bands.undeclared_nodata(decoded.pixels.dtype)) is not None:
                decoded = dataclasses.replace(decoded, valid=pixels.is_data(decoded.pixels, nodata, [decoded.valid]))
            yield decoded
        except MemoryError:
            raise ReadError("not enough memory to decode it") from None


def _decode(data: bytes | np.ndarray, stack: contextlib.ExitStack, bands: Bands | None) -> Decoded:
    if isinstance(data, np.ndarray):
        return _from_samples(data, stack, bands)
    if not data:
        raise DecodeError("the file is empty")
    if len(data) > MAX_FILE_BYTES:
        raise DecodeError(f"the file is larger than {MAX_FILE_BYTES // 2**20} MiB")
    check_size = functools.partial(_reserve_for, stack=stack)
    sidecars = data.sidecars() if isinstance(data, WithSidecars) else Sidecars()
    try:
        if data[:4] in _TIFF_SIGNATURES and bands:
            return tiff.read_bands(data, check_size, bands, sidecars)
        if data[:4] in _TIFF_SIGNATURES:
            return tiff.read(data, check_size, _tiff_colors, sidecars)
        bits = data[24] if data[:8] == _PNG_SIGNATURE and len(data) > 25 else 8
        decoded = (_decode_png16 if bits == 16 else _from_pillow)(data, check_size, sidecars)
        # Descriptions of fewer than three bands belong to gray images or palette indices, not to these colors.
        descriptions = [sidecars.descriptions.get(k, "") * (len(sidecars.descriptions) >= 3) for k in range(3)]
        if bands:
            choice = bands.choose(decoded.pixels, descriptions if bands.orders else with_roles(descriptions, RGB))
            array = decoded.pixels[..., list(choice.places)]
            decoded = dataclasses.replace(decoded, pixels=array, facts=(choice.fact,), order=choice.order)
        elif other_names := tiff.other_names(descriptions, (0, 1, 2)):
            facts = (*decoded.facts, f"bands called {other_names} taken as red, green and blue")
            decoded = dataclasses.replace(decoded, facts=facts, other_names=other_names)
        return decoded
    except (DecodeError, MemoryError):
        raise
    # On a damaged file decoders raise all kinds of exceptions (struct.error, KeyError, SyntaxError, ...); to the user
    # they all mean an unreadable image.
    except Exception as error:
        unknown = isinstance(error, Image.UnidentifiedImageError)
        raise DecodeError("not a JPEG, PNG, TIFF or BMP image" if unknown else one_line(error, 100)) from error


def _from_samples(array: np.ndarray, stack: contextlib.ExitStack, bands: Bands | None) -> Decoded:
    if array.ndim != 3 or array.dtype.kind not in "uif":
        raise DecodeError(f"{array.dtype} values of shape {array.shape}, and (height, width, bands) is expected")
    height, width, count = array.shape
    _reserve_for(width, height * -(-count // 3), stack)
    if bands:
        choice = bands.choose(array, ())
        array = array[..., list(choice.places)]
        return Decoded(array, (choice.fact,), pixels.is_data(array, None), order=choice.order)
    if count not in (1, 3):
        raise DecodeError(f"{count} bands, and nothing says which are red, green and blue")
    return _from_array(array)


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise DecodeError("the image has no pixels")
    if width * height > MAX_PIXELS:
        raise DecodeError(f"{width} x {height} pixels is more than {MAX_PIXELS // 10**6} million")


def _reserve_for(width: int, height: int, stack: contextlib.ExitStack) -> None:
    _check_size(width, height)
    stack.enter_context(_reserved(width * height))


@contextlib.contextmanager
def _reserved(count: int) -> Iterator[None]:
    """Waits until `count` more pixels may be open, and reserves them. A thread must not reserve a second time."""
    global _open_pixels
    with _pixels_freed:
        _pixels_freed.wait_for(lambda: _open_pixels == 0 or _open_pixels + count <= MAX_PIXELS)
        _open_pixels += count
    try:
        yield
    finally:
        with _pixels_freed:
            _open_pixels -= count
            _pixels_freed.notify_all()


def _from_pillow(data: bytes, check_size: Callable[[int, int], None], sidecars: Sidecars) -> Decoded:
    with Image.open(io.BytesIO(data), formats=_FORMATS) as file:
        check_size(*file.size)
        file.load()
        decoded, orientation = _from_pillow_image(file), file.getexif().get(ExifTags.Base.Orientation, 1)
        stored = _stored_samples(file, data, decoded.pixels) if sidecars.nodata else decoded.pixels
    return _with_sidecars(decoded, stored, sidecars, orientation)


def _decode_png16(data: bytes, check_size: Callable[[int, int], None], sidecars: Sidecars) -> Decoded:
    # Pillow silently reduces 16-bit color PNG to 8 bits, which would make value_range meaningless.
    check_size(int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"))
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        image.verify()  # libpng accepts a truncated file
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:  # opened again: `verify` leaves an image unusable
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    decoded = _from_array(imagecodecs.png_decode(data))
    return _with_sidecars(decoded, decoded.pixels, sidecars, orientation)


def _with_sidecars(decoded: Decoded, stored: np.ndarray, sidecars: Sidecars, orientation: int) -> Decoded:
    """Applies the masks of the sidecar files, then the orientation; `stored` are the file's samples (H, W, n)."""
    nodata = sidecars.nodata_of(range(stored.shape[-1]))
    masks = [decoded.valid, sidecars.mask(*stored.shape[:2]), pixels.is_data(stored, nodata)]
    valid = pixels.is_data(decoded.pixels[..., :1], None, masks)
    return dataclasses.replace(
        decoded,
        pixels=pixels.oriented(decoded.pixels, orientation),
        valid=None if valid is None else pixels.oriented(valid, orientation),
    )


def _tiff_colors(data: bytes, page: int) -> Decoded:
    """Decodes a page of a TIFF file; Pillow applies its orientation on loading."""
    with Image.open(io.BytesIO(data), formats=("TIFF",)) as file:
        file.seek(page)
        file.load()
        return _from_pillow_image(file)


def _from_pillow_image(image: Image.Image) -> Decoded:
    """Converts an image of any mode, not oriented, to RGB, or to its own dtype if it is deeper than 8 bits."""
    mode, has_transparency = image.mode, "transparency" in image.info
    facts: tuple[str, ...] = ()
    if mode in ("1", "L", "LA", "La"):
        facts += ("gray made RGB",)
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
    if has_transparency or mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        # Some writers of BMP files with 32 bits per pixel leave the alpha bits 0.
        alpha = None if image.format == "BMP" and not alpha.any() else pixels.alpha_mask(alpha)
    return Decoded(array, facts, pixels.is_data(array, None, [alpha]))


def _stored_samples(image: Image.Image, data: bytes, colors: np.ndarray) -> np.ndarray:
    """Samples (H, W, n) as the file stores them: palette indices, and gray values not scaled up to a byte."""
    if image.mode in ("P", "PA"):
        return np.asarray(image).reshape(*colors.shape[:2], -1)[..., :1]
    bits = 1 if image.mode == "1" else data[24] if image.mode == "L" and data[:8] == _PNG_SIGNATURE else 8
    return colors // np.uint8(255 // (2**bits - 1))


def _from_array(array: np.ndarray) -> Decoded:
    """Interprets samples (H, W) or (H, W, 1..4) as gray or RGB; the last of two or four is alpha."""
    array = array if array.ndim == 3 else array[..., None]
    roles = {1: ["gray"], 2: ["gray", "alpha"], 3: ["red", "green", "blue"], 4: ["red", "green", "blue", "alpha"]}
    bands = pixels.choose_bands(roles[array.shape[-1]])
    alpha = None if bands.alpha is None else pixels.alpha_mask(array[..., bands.alpha])
    colors = array[..., :3] if len(bands.color) == 3 else np.broadcast_to(array[..., :1], (*array.shape[:2], 3))
    return Decoded(colors, bands.facts, pixels.is_data(colors, None, [alpha]))


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes (H, W, channels) to (size, size, channels), by Lanczos with antialiasing; squeezes a non-square image.

    Unlike a center crop, squeezing keeps the whole tile in view; tiles are square or nearly so.

    Args:
        image: uint8 or uint16; the result has the same dtype.
        size: side of the result, px.
    """
    if image.shape[:2] == (size, size):
        return image
    if image.dtype != np.uint8 or image.shape[-1] != 3:  # Pillow has no mode for these, but one for a band of floats
        resized = [_lanczos(image[..., band].astype(np.float32), size) for band in range(image.shape[-1])]
        return np.clip(np.rint(np.stack(resized, axis=-1)), 0, np.iinfo(image.dtype).max).astype(image.dtype)
    return _lanczos(image, size)


def _lanczos(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes in two passes that each round; tall images lose rows first, as in Pillow from 13 on but never before."""
    height, width = image.shape[:2]
    rows_first = height - size > max(2 * (width - size), 0)
    resized = Image.fromarray(image)
    for shape in ((width, size) if rows_first else (size, height), (size, size)):
        resized = resized.resize(shape, Image.Resampling.LANCZOS)
    return np.asarray(resized)


def digest(image: np.ndarray, valid: np.ndarray | None = None) -> str:
    """sha256 (hex) of the size and the values of an image (H, W, channels); equal for identical pixels only.

    For images deeper than 8 bits, neither the dtype matters nor whether zeros without data are marked as such: the same
    values are the same image.

    Args:
        image: pixels of any dtype.
        valid: bool (H, W), where there is data; None = everywhere, or pixels without data are 0 already.
    """
    channels = "" if image.dtype == np.uint8 and image.shape[-1] == 3 else f"{image.shape[-1]};"
    hasher = hashlib.sha256(f"{image.shape[0]}x{image.shape[1]};{channels}".encode())
    for rows in pixels.strips(image):
        strip = pixels.blackened(image[rows], None if valid is None else valid[rows])
        hasher.update(np.ascontiguousarray(strip if strip.dtype == np.uint8 else _as_floats(strip)).data)
    return hasher.hexdigest()


def _as_floats(values: np.ndarray) -> np.ndarray:
    """The values as float32, or as float64 if float32 cannot hold them all exactly; without negative zeros."""
    exact = values.astype(np.float64) + 0.0
    with np.errstate(over="ignore"):
        single = exact.astype(np.float32)
    return single if (single == exact).all() else exact
