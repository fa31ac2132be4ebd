"""Bands by name: which ones a data set has, and where a file holds them.

A file is asked for its band descriptions. One that has none holds its bands in an order that has to be known: that of a
sensor, or what the user says.
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
"""Sees high clouds alone: over clear ground it is the darkest of all bands, which tells orders apart."""
_CLEARLY = 0.1
"""It has to lie below the next band by this share of what it lies below the middle one. EuroSAT's land has more than
0.2; clear water, which is as dark in the short-wave infrared, has as little as 0.03."""


@dataclasses.dataclass(frozen=True)
class Sensor:
    """What is known of the files of a sensor.

    Attributes:
        orders: in which its bands may lie; the first is the usual one.
        value_range: the values that reflectance 0 and 1 have.
    """

    orders: tuple[tuple[str, ...], ...]
    value_range: tuple[float, float]


def _both(names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """With B8A in its place by wavelength, and behind all others, as EuroSAT has it."""
    return tuple(names), (*(name for name in names if name != "B8A"), "B8A")


_COLORS = (("red", "r", "b04"), ("green", "g", "b03"), ("blue", "b", "b02"))
"""Canonical names of red, green and blue."""

OFFSET = 1000.0
_L1C, _L2A = _both(_SENTINEL2), _both([name for name in _SENTINEL2 if name != _CIRRUS])
SENSORS = {
    "sentinel2_l1c": Sensor(_L1C, (0.0, 10_000.0)),
    "sentinel2_l1c_offset": Sensor(_L1C, (OFFSET, 10_000.0 + OFFSET)),
    "sentinel2_l2a": Sensor(_L2A, (0.0, 10_000.0)),
    "sentinel2_l2a_offset": Sensor(_L2A, (OFFSET, 10_000.0 + OFFSET)),
}
"""Sentinel-2 stores reflectance × 10 000. Since processing baseline 04.00 (25 January 2022) 1000 is added to it, unless
who hands the data out has taken that off again."""


class OrderError(DecodeError):
    """The values of an image do not tell in which of several orders it holds its bands."""


class Chosen(NamedTuple):
    """Where an image holds the bands: a place for each name, and the order of all, () = the image describes them."""

    places: tuple[int, ...]
    order: tuple[str, ...]

    @property
    def fact(self) -> str:
        """What was done, for the log."""
        return f"bands taken in the order {' '.join(self.order)}" if self.order else "bands taken by their descriptions"


@dataclasses.dataclass(frozen=True)
class Bands:
    """The bands that images are to give.

    Attributes:
        names: in the order of the channels.
        orders: in which a file without descriptions may hold its bands.
        order: that of them which the files of the data set have; () = not known, so that each file has to show it.
    """

    names: tuple[str, ...]
    orders: tuple[tuple[str, ...], ...] = ()
    order: tuple[str, ...] = ()

    def choose(self, image: np.ndarray, descriptions: Sequence[str], alpha: int | None = None) -> Chosen:
        """Where an image holds the bands.

        Args:
            image: (H, W, n), as its file has it.
            descriptions: of its bands, '' where there is none; () = of none.
            alpha: the place of the band that the file calls alpha, which may be a mask, or any fourth band; None = of
                none.

        Raises:
            DecodeError: a band is missing, nothing says which band is which (`OrderError`: not this image's values), or
                the image has another order than the data set, or a mask where a band is expected.
        """
        wanted = [canonical(name) for name in self.names]
        said = [_meant(text) for text in descriptions] or [""] * image.shape[-1]
        bands = [k for k in range(len(said)) if k != alpha or said[k]]
        if bands and all(said[k] for k in bands):
            for name, key in zip(self.names, wanted, strict=True):
                if said.count(key) > 1:
                    raise DecodeError(f"{said.count(key)} bands are called {name}")
            if missing := [name for name, key in zip(self.names, wanted, strict=True) if key not in said]:
                raise DecodeError(f"no band {', '.join(missing)} among {', '.join(descriptions[k] for k in bands)}")
            return Chosen(tuple(said.index(key) for key in wanted), ())
        if all(len(order) != len(said) for order in self.orders) and alpha is not None:
            places = [k for k in range(len(said)) if k != alpha]  # as gdalwarp -dstalpha writes it behind the bands
        else:
            places = list(range(len(said)))
        order = self._order(image[..., places])
        held = dict(zip(map(canonical, order), places, strict=True))
        names = dict(zip(places, order, strict=True))
        colors_held = {_color(key) for key in held}
        for key, place in held.items():
            if said[place] and _color(said[place]) != _color(key) and _color(said[place]) in colors_held:
                raise DecodeError(
                    f"its band {place + 1} is called {descriptions[place]}, where {names[place]} is expected: describe "
                    "all of its bands"
                )
        chosen = tuple(held[key] for key in wanted)
        if alpha in chosen and not said[alpha] and pixels.is_full_mask(image[..., alpha]):
            raise DecodeError(
                f"its band {alpha + 1} is a mask by its values, but {names[alpha]} is expected there: give an image "
                "that has this band"
            )
        return Chosen(chosen, order)

    def _order(self, image: np.ndarray) -> tuple[str, ...]:
        count = image.shape[-1]
        possible = [order for order in self.orders if len(order) == count]
        if not possible:
            lengths = sorted({len(order) for order in self.orders})
            orders = f"{' or '.join(map(str, lengths))} are expected where it does not describe them all"
            why = orders if lengths else "the file names none of them"
            raise DecodeError(f"{count} band{'s' * (count > 1)}, and {why}")
        if len(possible) == 1:
            return possible[0]
        shown = [order for order in possible if _CIRRUS in order and _is_darkest(image, order.index(_CIRRUS))]
        if self.order and shown and self.order not in shown:
            raise DecodeError(
                f"by its values its bands are in the order {' '.join(shown[0])}, but the data set's are in "
                f"{' '.join(self.order)}: describe its bands"
            )
        if self.order:
            return self.order
        if len(shown) != 1:
            raise OrderError(
                f"{count} bands without names, in the order {' '.join(possible[0])} or {' '.join(possible[1])}: say "
                "which in dataset.file_bands"
            )
        return shown[0]

    def metadata(self) -> dict[str, str]:
        """As texts for a file's metadata."""
        order = {"band_order": json.dumps(self.order)} if self.order else {}
        return {"bands": json.dumps(self.names), "band_orders": json.dumps(self.orders), **order}

    @classmethod
    def from_metadata(cls, facts: Mapping[str, str]) -> Bands | None:
        """Reads what `metadata` wrote; None where a file says nothing of bands: red, green and blue.

        Raises:
            ValueError: it is of another type.
        """
        if "bands" not in facts:
            return None
        names, orders = json.loads(facts["bands"]), json.loads(facts["band_orders"])
        order = json.loads(facts.get("band_order", "[]"))
        lists = (names, order, *orders)
        if not all(isinstance(one, list) and all(isinstance(name, str) for name in one) for one in lists):
            raise ValueError(f"bands {facts['bands']}")
        return cls(tuple(names), tuple(map(tuple, orders)), tuple(order))


def _is_darkest(image: np.ndarray, place: int) -> bool:
    """Whether a band of an image (H, W, n) is clearly the darkest."""
    data = image[image.min(-1) < image.max(-1)]  # where there is none, all bands have one value
    if not len(data):
        return False
    medians = np.median(data, axis=0)
    others = np.delete(medians, place)
    return bool(others.min() - medians[place] > _CLEARLY * abs(np.median(others) - medians[place]))


def canonical(name: str) -> str:
    """A band's name as it is compared: 'b4', 'B04' and 'B4, central wavelength 665 nm' are one."""
    name = name.split(",")[0].strip().casefold()
    found = re.fullmatch(r"b0*(\d{1,2}a?)", name)
    return f"b{found[1]:0>2}" if found else name


def _meant(description: str) -> str:
    """The canonical name in a band's description; '' where it only counts, as 'Band 1' does."""
    name = canonical(description)
    return "" if re.fullmatch(r"(band|layer)?[ _]*\d+", name) else name


def described(descriptions: Sequence[str], roles: Sequence[str]) -> list[str]:
    """Descriptions of bands, and the role of one that has none or only counts."""
    return [text if _meant(text) else role for text, role in zip(descriptions, roles, strict=True)]


def is_unnamed(place: int, descriptions: Sequence[str], order: Sequence[str]) -> bool:
    """Whether a band that its file calls alpha has no other name: none in the order of `Chosen`, and no description."""
    return len(order) < len(descriptions) and _meant(descriptions[place]) in ("", "alpha")


def colors(names: Sequence[str]) -> tuple[int | None, ...]:
    """The places of red, green and blue among bands, None for one that is not there."""
    keys = [canonical(name) for name in names]
    return tuple(next((keys.index(one) for one in of if one in keys), None) for of in _COLORS)


def _color(key: str) -> str:
    """Red, green or blue, if a canonical name is another one of these; else itself."""
    return next((of[0] for of in _COLORS if key in of), key)


def described_elsewhere(descriptions: Sequence[str], chosen: Sequence[int]) -> tuple[int, ...] | None:
    """Places of red, green and blue by the descriptions of bands, if `chosen` are others; None = they do not differ."""
    places = colors(descriptions)
    described = tuple(place for place in places if place is not None)
    return described if len(chosen) == len(described) == 3 and described != tuple(chosen) else None


def called_otherwise(descriptions: Sequence[str], chosen: Sequence[int]) -> str:
    """What the bands that are taken as red, green and blue are called, in words; '' = nothing, or just these.

    Raises:
        DecodeError: some are called red, green or blue, those are others, and the rest has no names.
    """
    taken = [(descriptions[place], color) for color, place in enumerate(chosen) if _meant(descriptions[place])]
    if len(chosen) != 3 or all(colors([text])[color] is not None for text, color in taken):
        return ""
    if all(any(place is not None for place in colors([text])) for text, _ in taken):
        listed = ", ".join(f"{text} where {RGB[color]} is taken from" for text, color in taken)
        raise DecodeError(f"by its descriptions it has {listed}: describe all three of its colors, or none")
    return ", ".join(descriptions[place] or "unnamed" for place in chosen)


def named(section: Mapping[str, Any]) -> Bands | None:
    """The bands that config.dataset asks for; None = its images are red, green and blue.

    Args:
        section: reads `sensor`, `file_bands` and `bands`, which `check` has found right.
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
    known = list(section["file_bands"])
    if sensor:
        orders = SENSORS[sensor].orders
        if known and sorted(map(canonical, known)) != sorted(map(canonical, orders[0])):
            raise InputError(f"dataset.file_bands: give the bands of {sensor}, {' '.join(orders[0])}, in their order")
        known = known or list(orders[0])
    for name in section["bands"] if known else ():
        if canonical(name) not in map(canonical, known):
            raise InputError(f"dataset.bands: there is no band {name!r} among {', '.join(known)}")


def check_names(field: str, value: Any) -> None:
    """Checks a list of names of bands.

    Raises:
        InputError: it is no list of texts, or one is empty, holds a comma or repeats.
    """
    if not is_list(value) or not all(isinstance(one, str) and canonical(one) for one in value):
        raise InputError(f"{field} is {value!r}: give names of bands, as ('B04', 'B03', 'B02')")
    for one in value:  # B04,B03 without quotes is one text to the command's flags; a comma ends a description's name
        if "," in one:
            listed = ", ".join(repr(part.strip()) for part in one.split(","))
            raise InputError(f"{field} holds {one!r}, but band names have no commas: give ({listed})")
    keys = [canonical(one) for one in value]
    for one, key in zip(value, keys, strict=True):
        if keys.count(key) > 1:
            raise InputError(f"{field} is {tuple(value)}: {one} repeats")
