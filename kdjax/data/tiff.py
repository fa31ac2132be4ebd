"""The first image of a TIFF file, with what its tags say of it: bands, nodata, masks, palette, place."""

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
from kdjax.data.bands import Bands, called_otherwise, described_elsewhere, is_unnamed, with_roles
from kdjax.data.pixels import Decoded, DecodeError, Sidecars

# tifffile logs what it then also raises.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

_WHITE_IS_ZERO, _GRAY, _RGB, _PALETTE = 0, 1, 2, 3

OtherColors = Callable[[bytes, int], Decoded]
"""Bytes of the file and number of the page -> the image, oriented: for CMYK, YCbCr and less than eight bits."""


def read(data: bytes, check_size: Callable[[int, int], None], other_colors: OtherColors, beside: Sidecars) -> Decoded:
    """Decodes a TIFF file.

    Args:
        data: the file.
        check_size: is given width and height before the pixels are made; raises where they are too many.
        other_colors: decodes what is neither gray nor RGB nor a palette.
        beside: what the sidecar files say.

    Raises:
        DecodeError: damaged, several images, or bands that are no colors or described as others.
    """
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = _main_page(tiff)
        check_size(*_largest(tiff, page))
        _check_whole(tiff, page, data)
        bands = pixels.choose_bands(_roles(page, beside))
        otherwise = called(_descriptions(page, beside), bands.color)
        masks = _masks(tiff, page, beside)
        facts = bands.facts + (f"bands called {otherwise} taken as red, green and blue",) * bool(otherwise)
        if page.photometric not in (_WHITE_IS_ZERO, _GRAY, _RGB, _PALETTE) or (
            page.photometric != _PALETTE and (page.bitspersample < 8 or page.dtype == bool)
        ):
            other = other_colors(data, page.index)
            array, facts = _as_stored(page, other.pixels), other.facts
            # GDAL, whose value of no data it is, shows CMYK and the like as RGB, and fewer bits as they are stored.
            if beside.nodata or _nodata(page) is not None:
                few_bits = page.photometric in (_WHITE_IS_ZERO, _GRAY, _RGB)
                masks += _data(_samples(page) if few_bits else array, page, beside)
        elif page.photometric == _PALETTE:
            index = page.asarray(maxworkers=1).reshape(page.imagelength, page.imagewidth)
            masks += _data(index[..., None], page, beside)
            array, facts = _palette(page)[index], ("palette converted to RGB",)
        else:
            array = _samples(page)
            if bands.alpha is not None:
                masks.append(pixels.alpha_mask(array[..., bands.alpha]))
            array = _colors(array, bands.color)
            masks += _data(array, page, beside, bands.color)
            if page.photometric == _WHITE_IS_ZERO:
                array = pixels.inverted(array, page.bitspersample)
        valid = pixels.is_data(array[..., :1], None, masks)
        array, valid = _oriented(page, array, valid)
        return Decoded(array, facts, valid, _pixel_size(page), called=otherwise)


def read_bands(data: bytes, check_size: Callable[[int, int], None], bands: Bands, beside: Sidecars) -> Decoded:
    """Decodes a TIFF file of any number of bands.

    Args:
        data: the file.
        check_size: as for `read`; three bands count as one pixel.
        bands: those to take.
        beside: what the sidecar files say.

    Raises:
        DecodeError: damaged, several images, a palette or other colors than RGB, or without these bands.
    """
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = _main_page(tiff)
        check_size(*_largest(tiff, page, -(-page.samplesperpixel // 3)))
        _check_whole(tiff, page, data)
        if page.photometric not in (_WHITE_IS_ZERO, _GRAY, _RGB) or page.bitspersample < 8 or page.dtype == bool:
            raise DecodeError("no bands of 8 bits or more: convert it")
        array = _samples(page)
        descriptions = _descriptions(page, beside)
        if not bands.orders:  # an order that is known counts more: false color is often stored as if it were RGB
            roles = ["" if role in ("undefined", "gray", "grey", "alpha") else role for role in _roles(page, beside)]
            descriptions = with_roles(descriptions, roles)
        alpha = [k for k, role in enumerate(_roles(page, beside)) if role == "alpha"]
        chosen = bands.choose(array, descriptions, alpha[0] if len(alpha) == 1 else None)
        masks = _masks(tiff, page, beside)
        if len(alpha) == 1 and alpha[0] not in chosen.places and is_unnamed(alpha[0], descriptions, chosen.order):
            masks.append(pixels.alpha_mask(array[..., alpha[0]]))
        array = array[..., list(chosen.places)]
        valid = pixels.is_data(array[..., :1], None, [*masks, *_data(array, page, beside, chosen.places)])
        if page.photometric == _WHITE_IS_ZERO:
            array = pixels.inverted(array, page.bitspersample)
        array, valid = _oriented(page, array, valid)
        return Decoded(array, (chosen.fact,), valid, _pixel_size(page), chosen.order)


def read_mask(data: bytes, check_size: Callable[[int, int], None], shape: tuple[int, int]) -> np.ndarray | None:
    """bool (H, W) of a mask file: where a band is not 0; None = it has another size.

    Args:
        data: the file.
        check_size: as for `read_bands`.
        shape: (H, W) of the image, which is compared before pixels are made.
    """
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page = _main_page(tiff)
        if (page.imagelength, page.imagewidth) != shape:
            return None
        check_size(*_largest(tiff, page, -(-page.samplesperpixel // 3)))
        return (_samples(page) != 0).any(-1)


def _main_page(tiff: Any) -> Any:
    for page in tiff.pages:
        if not _is_aside(page):
            return page
    raise DecodeError("no image of full resolution")


def _largest(tiff: Any, page: Any, times: int = 1) -> tuple[int, int]:
    """Width, and height times so many, of what is decoded at once: the image, or a tile of it or its mask."""
    tiled = [one for one in (page, *tiff.pages) if one is page or one.subfiletype & 4]
    sizes = [(page.imagewidth, page.imagelength), *((one.tilewidth, one.tilelength) for one in tiled)]
    width, height = max(sizes, key=math.prod)
    return width, height * times


def _is_aside(page: Any) -> bool:
    """Whether it is a reduced copy or a mask of another page."""
    old = page.tags.get(255)
    return bool(page.subfiletype & 5) or (old is not None and old.value == 2)


def _check_whole(tiff: Any, page: Any, data: bytes) -> None:
    _check_pages(tiff, page)
    ends = [offset + count for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)]
    if not ends or max(ends) > len(data):
        raise DecodeError("image file is truncated")
    if page.dtype is None:
        raise DecodeError(f"{page.bitspersample} bits a sample are not supported")


def _check_pages(tiff: Any, page: Any) -> None:
    """Refuses stacks. A second image of another shape is passed over, as GDAL does: the first counts."""
    for series in tiff.series:
        within = [one for one in series.pages if one is not None]
        if all(one.index != page.index for one in within):
            continue
        others = [size for axis, size in zip(series.axes, series.shape, strict=True) if axis not in "XYS" and size > 1]
        count = math.prod(others) - sum(map(_is_aside, within)) if others else 1
        if count > 1:
            raise DecodeError(f"{count} pages or bands: one RGB or gray image expected")


def _roles(page: Any, beside: Sidecars) -> list[str]:
    """What each band is, in GDAL's words: by its sidecar file, its own tag, or the photometric interpretation."""
    count = page.samplesperpixel
    if page.photometric not in (_WHITE_IS_ZERO, _GRAY, _RGB):
        return ["undefined"]  # one picture of its own colors
    roles = ["undefined"] * count
    if page.photometric == _RGB:
        roles[:3] = ("red", "green", "blue")[:count]
    extra = tuple(page.extrasamples)
    for k, kind in enumerate(extra, count - len(extra)):
        if kind in (1, 2):
            roles[k] = "alpha"
    with contextlib.suppress(Exception):  # metadata that are no XML say nothing
        for sample, role in re.findall(
            r'<Item\s+name="COLORINTERP"\s+sample="(\d+)"\s+role="colorinterp"\s*>\s*(\w+)\s*</Item>',
            str(page.tags[42112].value),
        ):
            roles[int(sample)] = role.lower()
    return [beside.roles.get(k, role) for k, role in enumerate(roles)]


def _descriptions(page: Any, beside: Sidecars) -> list[str]:
    """GDAL's description of each band, '' where there is none."""
    found = [""] * page.samplesperpixel
    with contextlib.suppress(Exception):  # metadata that are no XML say nothing
        for sample, text in re.findall(
            r'<Item\s+name="DESCRIPTION"\s+sample="(\d+)"\s+role="description"\s*>([^<]*)</Item>',
            str(page.tags[42112].value),
        ):
            found[int(sample)] = html.unescape(text).strip()
    return [beside.descriptions.get(k, text) for k, text in enumerate(found)]


def called(descriptions: Sequence[str], chosen: tuple[int, ...]) -> str:
    """What bands are called that are no colors, by the descriptions of all, '' = nothing.

    Raises:
        DecodeError: `chosen` would be taken for other colors than they name.
    """
    if places := described_elsewhere(descriptions, chosen):
        found, taken = (",".join(str(place + 1) for place in one) for one in (places, chosen))
        raise DecodeError(
            f"red, green and blue are its bands {found} by their descriptions, and {taken} by their colors: put them "
            "in the right order, or name them in dataset.bands"
        )
    return called_otherwise(descriptions, chosen)


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
    if array.dtype == bool:  # of one bit
        array = array.view(np.uint8)
    if array.dtype.kind not in "uif" or (array.dtype.kind == "f" and array.dtype.itemsize > 8):
        raise DecodeError(f"pixels of type {array.dtype} are not supported")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _colors(array: np.ndarray, bands: tuple[int, ...]) -> np.ndarray:
    """(H, W, 3) of (H, W, bands), without a copy where the bands lie so."""
    if len(bands) == 1:
        return np.broadcast_to(array[..., bands[0]][..., None], (*array.shape[:2], 3))
    if bands == tuple(range(bands[0], bands[0] + 3)):
        return array[..., bands[0] : bands[0] + 3]
    return array[..., list(bands)]


def _palette(page: Any) -> np.ndarray:
    """(entries, 3) uint8."""
    colors = np.moveaxis(np.asarray(page.colormap), 0, -1)
    # The standard says 16 bits; some writers put bytes.
    return (colors if colors.max() < 256 else colors >> 8).astype(np.uint8)


def _masks(tiff: Any, page: Any, beside: Sidecars) -> list[np.ndarray | None]:
    """Of the file and of its sidecar file."""
    return [_mask_page(tiff, page), beside.mask(page.imagelength, page.imagewidth)]


def _data(array: np.ndarray, page: Any, beside: Sidecars, places: Sequence[int] = ()) -> list[np.ndarray | None]:
    """Where bands are data by the values of no data of the file and of its sidecar file; `places`, () = all bands."""
    nodata = [_nodata(page), beside.nodata_of(places or range(array.shape[-1]))]
    return [pixels.is_data(array, value) for value in nodata if value is not None] or [pixels.is_data(array, None)]


def _mask_page(tiff: Any, page: Any) -> np.ndarray | None:
    for other in tiff.pages:
        if other.subfiletype & 4 and (other.imagelength, other.imagewidth) == (page.imagelength, page.imagewidth):
            if not other.subfiletype & 1:
                return other.asarray(maxworkers=1).reshape(page.imagelength, page.imagewidth) != 0
    return None


def _orientation(page: Any) -> int:
    tag = page.tags.get(274)
    return 1 if tag is None else int(tag.value)


def _oriented(page: Any, array: np.ndarray, valid: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    orientation = _orientation(page)
    return pixels.oriented(array, orientation), None if valid is None else pixels.oriented(valid, orientation)


def _as_stored(page: Any, array: np.ndarray) -> np.ndarray:
    """An oriented image as it lies in the file, as its masks do: a quarter turn goes back by the other one."""
    orientation = _orientation(page)
    return pixels.oriented(array, {6: 8, 8: 6}.get(orientation, orientation))


def _pixel_size(page: Any) -> float | None:
    """Side of a pixel on the ground, m, by the GeoTIFF tags; None where they do not say."""
    with contextlib.suppress(Exception):  # whatever is wrong there, the image is none the worse
        return geokeys.pixel_size(page.geotiff_tags)
    return None
