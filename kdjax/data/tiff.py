"""Reads the first image of a TIFF file and its tags: bands, nodata, masks, palette and pixel size."""

from __future__ import annotations

import contextlib
import html
import io
import logging
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tifffile

from kdjax.data import geokeys, pixels
from kdjax.data.bands import Bands, contradicting_names, described_color_places, is_unnamed, with_roles
from kdjax.data.pixels import Decoded, DecodeError, Sidecars

# tifffile logs errors that it raises as well.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

_WHITE_IS_ZERO, _GRAY, _RGB, _PALETTE = 0, 1, 2, 3

OtherColors = Callable[[bytes, int], Decoded]
"""(bytes of the file, index of the page) -> the oriented image, for CMYK, YCbCr and fewer than eight bits."""


def read(data: bytes, check_size: Callable[[int, int], None], other_colors: OtherColors, sidecars: Sidecars) -> Decoded:
    """Decodes a TIFF file.

    Args:
        data: the file.
        check_size: called with width and height before pixels are decoded; raises if there are too many.
        other_colors: decodes images that are neither gray nor RGB nor a palette.
        sidecars: the content of the sidecar files.

    Raises:
        DecodeError: the file is damaged or holds several images, or its bands are not colors or are described as other
            colors.
    """
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = _main_page(tiff)
        check_size(*_largest(tiff, page))
        _check_complete(tiff, page, data)
        bands = pixels.choose_bands(_roles(page, sidecars))
        described_names = other_names(_descriptions(page, sidecars), bands.color)
        masks = _masks(tiff, page, sidecars)
        facts = bands.facts + (f"bands called {described_names} taken as red, green and blue",) * bool(described_names)
        if page.photometric not in (_WHITE_IS_ZERO, _GRAY, _RGB, _PALETTE) or (
            page.photometric != _PALETTE and (page.bitspersample < 8 or page.dtype == bool)
        ):
            picture = other_colors(data, page.index)
            array, facts = _to_stored(page, picture.pixels), picture.facts
            # Nodata values follow GDAL, which reads CMYK and the like as RGB, but fewer than eight bits as stored.
            if sidecars.nodata or _nodata(page) is not None:
                few_bits = page.photometric in (_WHITE_IS_ZERO, _GRAY, _RGB)
                masks += _nodata_masks(_samples(page) if few_bits else array, page, sidecars)
        elif page.photometric == _PALETTE:
            index = page.asarray(maxworkers=1).reshape(page.imagelength, page.imagewidth)
            masks += _nodata_masks(index[..., None], page, sidecars)
            array, facts = _palette(page)[index], ("palette converted to RGB",)
        else:
            array = _samples(page)
            if bands.alpha is not None:
                masks.append(pixels.alpha_mask(array[..., bands.alpha]))
            array = _colors(array, bands.color)
            masks += _nodata_masks(array, page, sidecars, bands.color)
            if page.photometric == _WHITE_IS_ZERO:
                array = pixels.inverted(array, page.bitspersample)
        valid = pixels.is_data(array[..., :1], None, masks)
        array, valid = _to_display(page, array, valid)
        return Decoded(array, facts, valid, _pixel_size(page), other_names=described_names)


def read_bands(data: bytes, check_size: Callable[[int, int], None], bands: Bands, sidecars: Sidecars) -> Decoded:
    """Decodes a TIFF file of any number of bands.

    Args:
        data: the file.
        check_size: as for `read`; three bands count as one pixel.
        bands: the bands to take.
        sidecars: the content of the sidecar files.

    Raises:
        DecodeError: the file is damaged, holds several images, a palette or other colors than RGB, or lacks a band.
    """
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = _main_page(tiff)
        check_size(*_largest(tiff, page, -(-page.samplesperpixel // 3)))
        _check_complete(tiff, page, data)
        if page.photometric not in (_WHITE_IS_ZERO, _GRAY, _RGB) or page.bitspersample < 8 or page.dtype == bool:
            raise DecodeError("no bands of 8 bits or more: convert it")
        array = _samples(page)
        descriptions = _descriptions(page, sidecars)
        if not bands.orders:  # a known order takes precedence over roles: false color is often stored as if it were RGB
            roles = ["" if role in ("undefined", "gray", "grey", "alpha") else role for role in _roles(page, sidecars)]
            descriptions = with_roles(descriptions, roles)
        alpha = [k for k, role in enumerate(_roles(page, sidecars)) if role == "alpha"]
        choice = bands.choose(array, descriptions, alpha[0] if len(alpha) == 1 else None)
        masks = _masks(tiff, page, sidecars)
        if len(alpha) == 1 and alpha[0] not in choice.places and is_unnamed(alpha[0], descriptions, choice.order):
            masks.append(pixels.alpha_mask(array[..., alpha[0]]))
        array = array[..., list(choice.places)]
        valid = pixels.is_data(array[..., :1], None, [*masks, *_nodata_masks(array, page, sidecars, choice.places)])
        if page.photometric == _WHITE_IS_ZERO:
            array = pixels.inverted(array, page.bitspersample)
        array, valid = _to_display(page, array, valid)
        return Decoded(array, (choice.fact,), valid, _pixel_size(page), choice.order)


def read_mask(data: bytes, check_size: Callable[[int, int], None], shape: tuple[int, int]) -> np.ndarray | None:
    """Reads a mask file: bool (H, W), True where any band is not 0; None = the mask has another size than the image.

    Args:
        data: the file.
        check_size: as for `read_bands`.
        shape: (H, W) of the image, compared before pixels are decoded.
    """
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = _main_page(tiff)
        if (page.imagelength, page.imagewidth) != shape:
            return None
        check_size(*_largest(tiff, page, -(-page.samplesperpixel // 3)))
        return (_samples(page) != 0).any(-1)


def _main_page(tiff: Any) -> Any:
    """The first page that is an image of full resolution."""
    for page in tiff.pages:
        if not _is_secondary(page):
            return page
    raise DecodeError("no image of full resolution")


def _largest(tiff: Any, page: Any, factor: int = 1) -> tuple[int, int]:
    """Width, and height × `factor`, of the largest array decoded at once: the image, or a tile of it or its mask."""
    pages = [item for item in (page, *tiff.pages) if item is page or item.subfiletype & 4]
    sizes = [(page.imagewidth, page.imagelength), *((item.tilewidth, item.tilelength) for item in pages)]
    width, height = max(sizes, key=math.prod)
    return width, height * factor


def _is_secondary(page: Any) -> bool:
    """Whether a page is a reduced copy or a mask of another page."""
    old_type = page.tags.get(255)
    return bool(page.subfiletype & 5) or (old_type is not None and old_type.value == 2)


def _check_complete(tiff: Any, page: Any, data: bytes) -> None:
    _check_pages(tiff, page)
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if not ends or max(ends) > len(data):
        raise DecodeError("image file is truncated")
    if page.dtype is None:
        raise DecodeError(f"{page.bitspersample} bits a sample are not supported")


def _check_pages(tiff: Any, page: Any) -> None:
    """Refuses stacks of images. A second image of another shape is ignored, as in GDAL."""
    for series in tiff.series:
        pages = [item for item in series.pages if item is not None]
        if all(item.index != page.index for item in pages):
            continue
        others = [size for axis, size in zip(series.axes, series.shape, strict=True) if axis not in "XYS" and size > 1]
        count = math.prod(others) - sum(map(_is_secondary, pages)) if others else 1
        if count > 1:
            raise DecodeError(f"{count} pages or bands: one RGB or gray image expected")


def _roles(page: Any, sidecars: Sidecars) -> list[str]:
    """The role of each band in GDAL's terms: by the sidecar file, else GDAL's tag or the photometric interpretation."""
    count = page.samplesperpixel
    if page.photometric not in (_WHITE_IS_ZERO, _GRAY, _RGB):
        return ["undefined"]  # other colors, which are decoded as a whole
    roles = ["undefined"] * count
    if page.photometric == _RGB:
        roles[:3] = ("red", "green", "blue")[:count]
    extra = tuple(page.extrasamples)
    for k, kind in enumerate(extra, count - len(extra)):
        if kind in (1, 2):
            roles[k] = "alpha"
    with contextlib.suppress(Exception):  # metadata that are not XML are ignored
        for sample, role in re.findall(
            r'<Item\s+name="COLORINTERP"\s+sample="(\d+)"\s+role="colorinterp"\s*>\s*(\w+)\s*</Item>',
            str(page.tags[42112].value),
        ):
            roles[int(sample)] = role.lower()
    return [sidecars.roles.get(k, role) for k, role in enumerate(roles)]


def _descriptions(page: Any, sidecars: Sidecars) -> list[str]:
    """GDAL's description of each band, '' if it has none."""
    descriptions = [""] * page.samplesperpixel
    with contextlib.suppress(Exception):  # metadata that are not XML are ignored
        for sample, text in re.findall(
            r'<Item\s+name="DESCRIPTION"\s+sample="(\d+)"\s+role="description"\s*>([^<]*)</Item>',
            str(page.tags[42112].value),
        ):
            descriptions[int(sample)] = html.unescape(text).strip()
    return [sidecars.descriptions.get(k, text) for k, text in enumerate(descriptions)]


def other_names(descriptions: Sequence[str], chosen: tuple[int, ...]) -> str:
    """Returns the names of the bands `chosen` as red, green and blue if their descriptions differ from that; '' if not.

    Raises:
        DecodeError: the descriptions name red, green and blue, but the bands would be taken as other colors.
    """
    if places := described_color_places(descriptions, chosen):
        described_order, chosen_order = (",".join(str(place + 1) for place in order) for order in (places, chosen))
        raise DecodeError(
            f"red, green and blue are its bands {described_order} by their descriptions, and {chosen_order} by their "
            "colors: put them in the right order, or name them in dataset.bands"
        )
    return contradicting_names(descriptions, chosen)


def _nodata(page: Any) -> float | None:
    tag = page.tags.get(42113)
    try:
        return None if tag is None else float(str(tag.value).strip("\0 "))
    except ValueError:
        return None


def _samples(page: Any) -> np.ndarray:
    """(H, W, samples) in the machine's byte order."""
    array = page.asarray(maxworkers=1)
    if page.planarconfig == 2 and page.samplesperpixel > 1:
        array = np.moveaxis(array.reshape(page.samplesperpixel, page.imagelength, page.imagewidth), 0, -1)
    array = array.reshape(page.imagelength, page.imagewidth, page.samplesperpixel)
    if array.dtype == bool:  # one bit per sample
        array = array.view(np.uint8)
    if array.dtype.kind not in "uif" or (array.dtype.kind == "f" and array.dtype.itemsize > 8):
        raise DecodeError(f"pixels of type {array.dtype} are not supported")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _colors(array: np.ndarray, bands: tuple[int, ...]) -> np.ndarray:
    """Takes (H, W, 3) from (H, W, bands), without a copy if the bands are one or adjacent."""
    if len(bands) == 1:
        return np.broadcast_to(array[..., bands[0]][..., None], (*array.shape[:2], 3))
    if bands == tuple(range(bands[0], bands[0] + 3)):
        return array[..., bands[0] : bands[0] + 3]
    return array[..., list(bands)]


def _palette(page: Any) -> np.ndarray:
    """The page's palette, (entries, 3) uint8."""
    colors = np.moveaxis(np.asarray(page.colormap), 0, -1)
    # The standard demands 16 bits, but some writers store bytes.
    return (colors if colors.max() < 256 else colors >> 8).astype(np.uint8)


def _masks(tiff: Any, page: Any, sidecars: Sidecars) -> list[np.ndarray | None]:
    """The masks of the file and of its sidecar file; None = everywhere."""
    return [_mask_page(tiff, page), sidecars.mask(page.imagelength, page.imagewidth)]


def _nodata_masks(
    array: np.ndarray, page: Any, sidecars: Sidecars, places: Sequence[int] = ()
) -> list[np.ndarray | None]:
    """Where bands hold data by the nodata values of the file and of its sidecar file.

    `places` are the indices in the file of the bands in `array`; () = all bands.
    """
    nodata = [_nodata(page), sidecars.nodata_of(places or range(array.shape[-1]))]
    return [pixels.is_data(array, value) for value in nodata if value is not None] or [pixels.is_data(array, None)]


def _mask_page(tiff: Any, page: Any) -> np.ndarray | None:
    """The file's own mask of a page, bool (H, W); None = it has none."""
    size = (page.imagelength, page.imagewidth)
    for mask in tiff.pages:
        if mask.subfiletype & 4 and not mask.subfiletype & 1 and (mask.imagelength, mask.imagewidth) == size:
            return mask.asarray(maxworkers=1).reshape(size) != 0
    return None


def _orientation(page: Any) -> int:
    tag = page.tags.get(274)
    return 1 if tag is None else int(tag.value)


def _to_display(page: Any, array: np.ndarray, valid: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    orientation = _orientation(page)
    return pixels.oriented(array, orientation), None if valid is None else pixels.oriented(valid, orientation)


def _to_stored(page: Any, array: np.ndarray) -> np.ndarray:
    """Turns an oriented image back to how it, like its masks, lies in the file: a quarter turn by the opposite one."""
    orientation = _orientation(page)
    return pixels.oriented(array, {6: 8, 8: 6}.get(orientation, orientation))


def _pixel_size(page: Any) -> float | None:
    """Side of a pixel on the ground, m, by the GeoTIFF tags; None if they do not tell."""
    with contextlib.suppress(Exception):  # damaged georeferencing does not spoil the image
        return geokeys.pixel_size(page.geotiff_tags)
    return None
