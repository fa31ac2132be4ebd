"""Bands by name: which ones a data set uses, and where a file holds them.

A file's band descriptions tell which band is which. If it has none, the order of its bands must be known: that of a
sensor, or one that the user gives.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kdjax.data import pixels
from kdjax.data.pixels import DecodeError
from kdjax.errors import InputError
from kdjax.fields import check_choice, is_list

RGB = ("red", "green", "blue")

_SENTINEL2 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
_CIRRUS = "B10"
"""This band sees only high clouds: over clear ground it is the darkest of all, which tells band orders apart."""
_DARKEST_MARGIN = 0.1
"""The darkest band's distance to the next darkest, as a share of its distance to the median band, must exceed this.
EuroSAT's land has more than 0.2; clear water, which is as dark in the short-wave infrared, has as little as 0.03."""


@dataclasses.dataclass(frozen=True)
class Sensor:
    """The file conventions of a sensor.

    Attributes:
        orders: the orders in which files may hold its bands; the first is the usual one.
        value_range: the values that stand for reflectance 0 and 1.
    """

    orders: tuple[tuple[str, ...], ...]
    value_range: tuple[float, float]


def _both_orders(names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Two orders: with B8A in its place by wavelength, and with B8A last, as in EuroSAT."""
    return tuple(names), (*(name for name in names if name != "B8A"), "B8A")


_COLORS = (("red", "r", "b04"), ("green", "g", "b03"), ("blue", "b", "b02"))
"""Canonical names of red, green and blue."""

OFFSET = 1000.0
_L1C, _L2A = _both_orders(_SENTINEL2), _both_orders([name for name in _SENTINEL2 if name != _CIRRUS])
SENSORS = {
    "sentinel2_l1c": Sensor(_L1C, (0.0, 10_000.0)),
    "sentinel2_l1c_offset": Sensor(_L1C, (OFFSET, 10_000.0 + OFFSET)),
    "sentinel2_l2a": Sensor(_L2A, (0.0, 10_000.0)),
    "sentinel2_l2a_offset": Sensor(_L2A, (OFFSET, 10_000.0 + OFFSET)),
}
"""Sentinel-2 stores reflectance × 10 000. Since processing baseline 04.00 (25 January 2022) an offset of 1000 is added,
which some distributors subtract again."""


class OrderError(DecodeError):
    """The values of an image do not tell which of several band orders it has."""


class MissingBandsError(DecodeError):
    """The descriptions of an image name all of its bands, and not all of those that are requested.

    Attributes:
        present: the requested bands that it has.
    """

    def __init__(self, message: str, present: tuple[str, ...]):
        super().__init__(message)
        self.present = present


class BandChoice(NamedTuple):
    """Where an image holds the requested bands.

    Attributes:
        places: the index in the image of each requested band.
        order: names of all bands of the image in their order; () = its descriptions name them.
    """

    places: tuple[int, ...]
    order: tuple[str, ...]

    @property
    def fact(self) -> str:
        """How the bands were chosen, for the log."""
        return f"bands taken in the order {' '.join(self.order)}" if self.order else "bands taken by their descriptions"


@dataclasses.dataclass(frozen=True)
class Bands:
    """The bands that are read from images.

    Attributes:
        names: names of the bands, in the order of the channels.
        orders: the orders in which a file without descriptions may hold its bands.
        order: the one of `orders` that the data set's files have; () = unknown, so each file's values must show it.
    """

    names: tuple[str, ...]
    orders: tuple[tuple[str, ...], ...] = ()
    order: tuple[str, ...] = ()

    @property
    def of_sensor(self) -> bool:
        """Whether the files hold the bands of a known sensor."""
        sensor_bands = {frozenset(map(canonical, sensor.orders[0])) for sensor in SENSORS.values()}
        return any(frozenset(map(canonical, order)) in sensor_bands for order in self.orders)

    def undeclared_nodata(self, dtype: np.dtype) -> float | None:
        """The value that means no data in all bands even if a file with pixels of `dtype` does not say so; None = none.

        Sentinel-2 reserves 0 for it, and its products have no nodata tag.
        """
        return 0.0 if self.of_sensor and dtype != np.uint8 else None

    def choose(self, image: np.ndarray, descriptions: Sequence[str], alpha: int | None = None) -> BandChoice:
        """Finds where an image holds the bands.

        Args:
            image: (H, W, n), as stored in its file.
            descriptions: descriptions of its bands, '' where a band has none; () = there are none.
            alpha: index of the band that the file calls alpha, which may be a mask or just any fourth band; None =
                there is no such band.

        Raises:
            DecodeError: a band is missing or described twice, the band order is unknown (`OrderError` if only this
                image's values leave it open), or the image has another order than the data set, or a mask where a band
                is expected.
        """
        wanted = [canonical(name) for name in self.names]
        keys = [_described_name(text) for text in descriptions] or [""] * image.shape[-1]
        bands = [k for k in range(len(keys)) if k != alpha or keys[k]]
        if bands and all(keys[k] for k in bands):
            for name, key in zip(self.names, wanted, strict=True):
                if keys.count(key) > 1:
                    raise DecodeError(f"{keys.count(key)} bands are called {name}")
            if missing := [name for name, key in zip(self.names, wanted, strict=True) if key not in keys]:
                raise MissingBandsError(
                    f"no band {', '.join(missing)} among {', '.join(descriptions[k] for k in bands)}",
                    tuple(name for name in self.names if name not in missing),
                )
            return BandChoice(tuple(keys.index(key) for key in wanted), ())
        if all(len(order) != len(keys) for order in self.orders) and alpha is not None:
            places = [k for k in range(len(keys)) if k != alpha]  # gdalwarp -dstalpha appends such a band
        else:
            places = list(range(len(keys)))
        order = self._order(image[..., places])
        place_of = dict(zip(map(canonical, order), places, strict=True))
        name_at = dict(zip(places, order, strict=True))
        colors_present = {_color(key) for key in place_of}
        for key, place in place_of.items():
            if keys[place] and _color(keys[place]) != _color(key) and _color(keys[place]) in colors_present:
                raise DecodeError(
                    f"its band {place + 1} is called {descriptions[place]}, where {name_at[place]} is expected: "
                    "describe all of its bands"
                )
        chosen = tuple(place_of[key] for key in wanted)
        if alpha in chosen and not keys[alpha] and pixels.is_full_mask(image[..., alpha]):
            raise DecodeError(
                f"its band {alpha + 1} is a mask by its values, but {name_at[alpha]} is expected there: give an image "
                "that has this band"
            )
        return BandChoice(chosen, order)

    def _order(self, image: np.ndarray) -> tuple[str, ...]:
        """The order of the bands of an image (H, W, n) without descriptions; raises as `choose`."""
        count = image.shape[-1]
        orders = [order for order in self.orders if len(order) == count]
        if not orders:
            lengths = sorted({len(order) for order in self.orders})
            counts = f"{' or '.join(map(str, lengths))} are expected where it does not describe them all"
            expectation = counts if lengths else "the file names none of them"
            raise DecodeError(f"{count} band{'s' * (count > 1)}, and {expectation}")
        if len(orders) == 1:
            return orders[0]
        matching = [order for order in orders if _CIRRUS in order and _is_darkest(image, order.index(_CIRRUS))]
        if self.order and matching and self.order not in matching:
            raise DecodeError(
                f"by its values its bands are in the order {' '.join(matching[0])}, but the data set's are in "
                f"{' '.join(self.order)}: describe its bands"
            )
        if self.order:
            return self.order
        if len(matching) != 1:
            raise OrderError(
                f"{count} bands without names, in the order {' '.join(orders[0])} or {' '.join(orders[1])}: say which "
                "in dataset.file_bands"
            )
        return matching[0]

    def metadata(self) -> dict[str, str]:
        """The attributes as strings for a file's metadata."""
        order = {"band_order": json.dumps(self.order)} if self.order else {}
        return {"bands": json.dumps(self.names), "band_orders": json.dumps(self.orders), **order}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Bands | None:
        """Reads what `metadata` wrote; None if there is no such entry: the bands are then red, green and blue.

        Raises:
            ValueError: an entry is not JSON or of another type.
        """
        if "bands" not in metadata:
            return None
        names, orders = json.loads(metadata["bands"]), json.loads(metadata["band_orders"])
        order = json.loads(metadata.get("band_order", "[]"))
        lists = (names, order, *orders)
        if not all(isinstance(item, list) and all(isinstance(name, str) for name in item) for item in lists):
            raise ValueError(f"bands {metadata['bands']}")
        return cls(tuple(names), tuple(map(tuple, orders)), tuple(order))


def _is_darkest(image: np.ndarray, place: int) -> bool:
    """Whether the band at index `place` of an image (H, W, n) is clearly the darkest."""
    data_pixels = image[image.min(-1) < image.max(-1)]  # pixels without data have the same value in all bands
    if not len(data_pixels):
        return False
    medians = np.median(data_pixels, axis=0)
    others = np.delete(medians, place)
    return bool(others.min() - medians[place] > _DARKEST_MARGIN * abs(np.median(others) - medians[place]))


def canonical(name: str) -> str:
    """A band's name in the form in which names are compared: 'b4', 'B04' and 'B4, central wavelength 665 nm' agree."""
    name = name.split(",")[0].strip().casefold()
    match = re.fullmatch(r"b0*(\d{1,2}a?)", name)
    return f"b{match[1]:0>2}" if match else name


def _described_name(description: str) -> str:
    """The canonical name in a band's description; '' if the description only numbers the band, such as 'Band 1'."""
    name = canonical(description)
    return "" if re.fullmatch(r"(band|layer)?[ _]*\d+", name) else name


def with_roles(descriptions: Sequence[str], roles: Sequence[str]) -> list[str]:
    """The descriptions of bands; a band without one, or with a mere number, gets its role instead."""
    return [text if _described_name(text) else role for text, role in zip(descriptions, roles, strict=True)]


def is_unnamed(place: int, descriptions: Sequence[str], order: Sequence[str]) -> bool:
    """Whether a band that its file calls alpha has no name, neither in the `order` taken nor in its description."""
    return len(order) < len(descriptions) and _described_name(descriptions[place]) in ("", "alpha")


def colors(names: Sequence[str]) -> tuple[int | None, ...]:
    """The indices of red, green and blue among bands; None for a color that is absent."""
    keys = [canonical(name) for name in names]
    return tuple(next((keys.index(synonym) for synonym in synonyms if synonym in keys), None) for synonyms in _COLORS)


def _color(key: str) -> str:
    """Red, green or blue if the canonical name `key` is a synonym of one; otherwise `key` itself."""
    return next((synonyms[0] for synonyms in _COLORS if key in synonyms), key)


def described_color_places(descriptions: Sequence[str], chosen: Sequence[int]) -> tuple[int, ...] | None:
    """The indices of red, green and blue by the bands' descriptions, if they differ from `chosen`; otherwise None."""
    places = colors(descriptions)
    color_places = tuple(place for place in places if place is not None)
    return color_places if len(chosen) == len(color_places) == 3 and color_places != tuple(chosen) else None


def contradicting_names(descriptions: Sequence[str], chosen: Sequence[int]) -> str:
    """Lists the descriptions of the bands taken as red, green and blue; '' if none contradicts its color.

    Args:
        descriptions: descriptions of all bands of the file.
        chosen: indices of the bands that are taken as red, green and blue.

    Raises:
        DecodeError: every description among them names a color, but not always the one that the band is taken for.
    """
    described = [
        (descriptions[place], color) for color, place in enumerate(chosen) if _described_name(descriptions[place])
    ]
    if len(chosen) != 3 or all(colors([text])[color] is not None for text, color in described):
        return ""
    if all(any(place is not None for place in colors([text])) for text, _ in described):
        listed = ", ".join(f"{text} where {RGB[color]} is taken from" for text, color in described)
        raise DecodeError(f"by its descriptions it has {listed}: describe all three of its colors, or none")
    return ", ".join(descriptions[place] or "unnamed" for place in chosen)


def requested_bands(section: Mapping[str, Any]) -> Bands | None:
    """The bands that config.dataset requests; None = red, green and blue.

    Args:
        section: reads `sensor`, `file_bands` and `bands`, which must have passed `check`.
    """
    orders: tuple[tuple[str, ...], ...] = ()
    if section["sensor"]:
        orders = SENSORS[section["sensor"]].orders
    if section["file_bands"]:
        orders = (tuple(section["file_bands"]),)
    names = tuple(section["bands"]) or (orders[0] if orders else ())
    return Bands(names, orders) if names else None


def check(section: Mapping[str, Any]) -> None:
    """Checks `sensor`, `file_bands` and `bands` of config.dataset.

    Raises:
        InputError: names the field that is wrong.
    """
    sensor = section["sensor"]
    if sensor:
        check_choice("dataset.sensor", sensor, SENSORS)
    for field in ("file_bands", "bands"):
        check_names(f"dataset.{field}", section[field])
    if not (sensor or section["file_bands"] or section["bands"]):
        return
    available = list(section["file_bands"])
    if sensor:
        orders = SENSORS[sensor].orders
        if available and sorted(map(canonical, available)) != sorted(map(canonical, orders[0])):
            raise InputError(f"dataset.file_bands: give the bands of {sensor}, {' '.join(orders[0])}, in their order")
        available = available or list(orders[0])
    for name in section["bands"] if available else ():
        if canonical(name) not in map(canonical, available):
            raise InputError(f"dataset.bands: there is no band {name!r} among {', '.join(available)}")


def check_names(field: str, value: Any) -> None:
    """Checks a list of band names.

    Raises:
        InputError: the value is not a list of strings, or a name is empty, holds a comma or repeats.
    """
    if not is_list(value) or not all(isinstance(name, str) and canonical(name) for name in value):
        raise InputError(f"{field} is {value!r}: give names of bands, as ('B04', 'B03', 'B02')")
    for name in value:  # the flags read B04,B03 without quotes as one text; in a description a comma ends the name
        if "," in name:
            listed = ", ".join(repr(part.strip()) for part in name.split(","))
            raise InputError(f"{field} holds {name!r}, but band names have no commas: give ({listed})")
    canonical_names = [canonical(name) for name in value]
    for name, key in zip(value, canonical_names, strict=True):
        if canonical_names.count(key) > 1:
            raise InputError(f"{field} is {tuple(value)}: {name} repeats")
