"""One image file -> RGB pixels, or other bands; resizing.

Every failure is a `DecodeError` with a short reason; the caller knows the file's name and adds it. What the pixels mean
is in `pixels`.
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
from kdjax.data.pixels import Beside, Decoded, DecodeError, ReadError
from kdjax.errors import reason

__all__ = ["DecodeError", "Decoded", "ReadError", "decode", "digest", "opened", "resize", "warnings_settled"]

# Raise this number whenever the same file would give other pixels: cached arrays of older versions are then ignored.
VERSION = 10

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

    def beside(self) -> Beside:
        """What the sidecar files say."""
        nodata = {}
        for band, text in self._told("NoDataValue").items():
            with contextlib.suppress(ValueError):
                nodata[band] = float(text)
        roles = {band: text.lower() for band, text in self._told("ColorInterp").items()}
        return Beside(nodata, self._told("Description"), roles, self._read_mask)

    def _told(self, tag: str) -> dict[int, str]:
        """What the metadata say of bands, counted from 0."""
        text, found = (self.metadata or b"").decode(errors="replace"), {}
        for band, inside in re.findall(r"""(?s)<PAMRasterBand\s+band=["'](\d+)["']\s*>(.*?)</PAMRasterBand>""", text):
            if one := re.search(rf"<{tag}(?:\s[^>]*)?>([^<]+)<", inside):
                found[int(band) - 1] = html.unescape(one[1]).strip()
        return found

    def _read_mask(self, height: int, width: int) -> np.ndarray | None:
        if self.mask is None:
            return None
        try:
            mask = tiff.read_mask(self.mask, _check_size, (height, width))
        except MemoryError:
            raise
        except Exception as error:
            raise DecodeError(f"its mask, the sidecar file .msk, cannot be read: {reason(error, 60)}") from error
        if mask is None:
            raise DecodeError("its mask, the sidecar file .msk, is of another size")
        return mask


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

    Gray becomes RGB, a fourth band is dropped after an alpha band has said where there is data, CMYK and palettes are
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
            yield _decode(data, held, bands)
        except MemoryError:
            raise ReadError("not enough memory to decode it") from None


def _decode(data: bytes | np.ndarray, held: contextlib.ExitStack, bands: Bands | None) -> Decoded:
    if isinstance(data, np.ndarray):
        return _from_samples(data, held, bands)
    if not data:
        raise DecodeError("the file is empty")
    if len(data) > MAX_FILE_BYTES:
        raise DecodeError(f"the file is larger than {MAX_FILE_BYTES // 2**20} MiB")
    check_size = functools.partial(_take_room, held=held)
    beside = data.beside() if isinstance(data, WithSidecars) else Beside()
    try:
        if data[:4] in _TIFF_STARTS and bands:
            return tiff.read_bands(data, check_size, bands, beside)
        if data[:4] in _TIFF_STARTS:
            return tiff.read(data, check_size, _tiff_colors, beside)
        bits = data[24] if data[:8] == _PNG_START and len(data) > 25 else 8
        decoded = (_decode_png16 if bits == 16 else _from_pillow)(data, check_size, beside)
        # Of fewer bands that are described, these are gray or numbers of colors.
        said = [beside.descriptions.get(k, "") * (len(beside.descriptions) >= 3) for k in range(3)]
        if bands:
            chosen = bands.choose(decoded.pixels, said if bands.orders else with_roles(said, RGB))
            array = decoded.pixels[..., list(chosen.places)]
            decoded = dataclasses.replace(decoded, pixels=array, facts=(chosen.fact,), order=chosen.order)
        elif called := tiff.called(said, (0, 1, 2)):
            facts = (*decoded.facts, f"bands called {called} taken as red, green and blue")
            decoded = dataclasses.replace(decoded, facts=facts, called=called)
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
    _take_room(width, height * -(-count // 3), held)
    if bands:
        chosen = bands.choose(array, ())
        array = array[..., list(chosen.places)]
        return Decoded(array, (chosen.fact,), pixels.is_data(array, None), order=chosen.order)
    if count not in (1, 3):
        raise DecodeError(f"{count} bands, and nothing says which are red, green and blue")
    return _from_array(array)


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise DecodeError("the image has no pixels")
    if width * height > MAX_PIXELS:
        raise DecodeError(f"{width} x {height} pixels is more than {MAX_PIXELS // 10**6} million")


def _take_room(width: int, height: int, held: contextlib.ExitStack) -> None:
    _check_size(width, height)
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


def _from_pillow(data: bytes, check_size: Callable[[int, int], None], beside: Beside) -> Decoded:
    with Image.open(io.BytesIO(data), formats=_FORMATS) as file:
        check_size(*file.size)
        file.load()
        decoded, orientation = _converted(file), file.getexif().get(ExifTags.Base.Orientation, 1)
        stored = _stored(file, data, decoded.pixels) if beside.nodata else decoded.pixels
    return _with_sidecars(decoded, stored, beside, orientation)


def _decode_png16(data: bytes, check_size: Callable[[int, int], None], beside: Beside) -> Decoded:
    # Pillow silently cuts 16-bit color PNG to 8 bits, which would make value_range meaningless.
    check_size(int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"))
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        image.verify()  # libpng accepts a file whose end is missing
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:  # the one that is verified cannot be used
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    decoded = _from_array(imagecodecs.png_decode(data))
    return _with_sidecars(decoded, decoded.pixels, beside, orientation)


def _with_sidecars(decoded: Decoded, stored: np.ndarray, beside: Beside, orientation: int) -> Decoded:
    """An image with the masks of its sidecar files, both oriented; `stored` are its samples (H, W, n) in the file."""
    nodata = beside.nodata_of(range(stored.shape[-1]))
    masks = [decoded.valid, beside.mask(*stored.shape[:2]), pixels.is_data(stored, nodata)]
    valid = pixels.is_data(decoded.pixels[..., :1], None, masks)
    return dataclasses.replace(
        decoded,
        pixels=pixels.oriented(decoded.pixels, orientation),
        valid=None if valid is None else pixels.oriented(valid, orientation),
    )


def _tiff_colors(data: bytes, page: int) -> Decoded:
    """A page of a TIFF file, oriented: Pillow does that when it loads it."""
    with Image.open(io.BytesIO(data), formats=("TIFF",)) as file:
        file.seek(page)
        file.load()
        return _converted(file)


def _converted(image: Image.Image) -> Decoded:
    mode, transparent = image.mode, "transparency" in image.info
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
    if transparent or mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        # Of BMP files with 32 bits a pixel, some writers leave those of alpha 0.
        alpha = None if image.format == "BMP" and not alpha.any() else pixels.shown(alpha)
    return Decoded(array, facts, pixels.is_data(array, None, [alpha]))


def _stored(image: Image.Image, data: bytes, colors: np.ndarray) -> np.ndarray:
    """Samples (H, W, n) as the file stores them: numbers of colors, and gray that is not spread over a byte."""
    if image.mode in ("P", "PA"):
        return np.asarray(image).reshape(*colors.shape[:2], -1)[..., :1]
    bits = 1 if image.mode == "1" else data[24] if image.mode == "L" and data[:8] == _PNG_START else 8
    return colors // np.uint8(255 // (2**bits - 1))


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

    Squeezing keeps the whole tile in view, which a center crop does not; tiles are square or nearly so.

    Args:
        image: uint8 or uint16; the result is of the same dtype.
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
    """In two passes, of which each rounds: rows first in tall images, as Pillow from 13 on; earlier it never did."""
    height, width = image.shape[:2]
    rows_first = height - size > max(2 * (width - size), 0)
    resized = Image.fromarray(image)
    for shape in ((width, size) if rows_first else (size, height), (size, size)):
        resized = resized.resize(shape, Image.Resampling.LANCZOS)
    return np.asarray(resized)


def digest(image: np.ndarray, valid: np.ndarray | None = None) -> str:
    """sha256 (hex) of the size and the values of an image (H, W, channels): equal for identical pixels only.

    Deeper ones than bytes may come as another type, and with or without the word that their zeros are no data: they are
    the same image.

    Args:
        image: any pixels.
        valid: bool (H, W), where they are data; None = everywhere, or the pixels show it.
    """
    kind = "" if image.dtype == np.uint8 and image.shape[-1] == 3 else f"{image.shape[-1]};"
    total = hashlib.sha256(f"{image.shape[0]}x{image.shape[1]};{kind}".encode())
    for rows in pixels.strips(image):
        part = pixels.blackened(image[rows], None if valid is None else valid[rows])
        total.update(np.ascontiguousarray(part if part.dtype == np.uint8 else _as_floats(part)).data)
    return total.hexdigest()


def _as_floats(values: np.ndarray) -> np.ndarray:
    """Values in float32, or in float64 where that does not hold them all; there is no negative zero."""
    exact = values.astype(np.float64) + 0.0
    with np.errstate(over="ignore"):
        narrow = exact.astype(np.float32)
    return narrow if (narrow == exact).all() else exact
