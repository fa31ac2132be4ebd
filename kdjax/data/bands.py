"""Bands by name: which ones a data set has, and where a file holds them.

A file is asked for its band descriptions. One that has none holds its bands in an order that has to be known: that of a
sensor, or what the user says.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdjax.data.pixels import DecodeError
from kdjax.errors import InputError

RGB = ("red", "green", "blue")

_SENTINEL2 = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
_CIRRUS = "B10"
"""Sees high clouds alone: over clear ground it is the darkest of all bands, which tells orders apart."""


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


@dataclasses.dataclass(frozen=True)
class Bands:
    """The bands that images are to give.

    Attributes:
        names: in the order of the channels.
        orders: in which a file without descriptions may hold its bands.
    """

    names: tuple[str, ...]
    orders: tuple[tuple[str, ...], ...] = ()

    def choose(self, image: np.ndarray, descriptions: Sequence[str]) -> tuple[tuple[int, ...], str]:
        """Where an image holds the bands.

        Args:
            image: (H, W, n), as its file has it.
            descriptions: of its bands, '' where there is none.

        Returns:
            A place among the n for each name, and how that was found.

        Raises:
            DecodeError: a band is missing, or nothing says which band is which.
        """
        wanted = [canonical(name) for name in self.names]
        said = [canonical(text) for text in descriptions]
        if said and all(said):
            if set(wanted) <= set(said):
                for name, key in zip(self.names, wanted, strict=True):
                    if said.count(key) > 1:
                        raise DecodeError(f"{said.count(key)} bands are called {name}")
                return tuple(said.index(key) for key in wanted), "by their descriptions"
            if not all(re.fullmatch(r"(band|layer)?[ _]*\d+", text) for text in said):  # those say nothing
                missing = [name for name, key in zip(self.names, wanted, strict=True) if key not in said]
                raise DecodeError(f"no band {', '.join(missing)} among {', '.join(descriptions)}")
        order = self._order(image)
        held = [canonical(name) for name in order]
        return tuple(held.index(key) for key in wanted), f"in the order {' '.join(order)}"

    def _order(self, image: np.ndarray) -> tuple[str, ...]:
        count = image.shape[-1]
        possible = [order for order in self.orders if len(order) == count]
        if not possible:
            lengths = sorted({len(order) for order in self.orders})
            expected = f"{' or '.join(map(str, lengths))} are expected" if lengths else "the file names none of them"
            raise DecodeError(f"{count} band{'s' * (count > 1)}, and {expected}")
        if len(possible) == 1:
            return possible[0]
        medians = np.median(image.reshape(-1, count), axis=0)
        fitting = [order for order in possible if _CIRRUS in order and _is_darkest(medians, order.index(_CIRRUS))]
        if len(fitting) != 1:
            raise DecodeError(
                f"{count} bands without names, in the order {' '.join(possible[0])} or {' '.join(possible[1])}: say "
                "which in dataset.file_bands"
            )
        return fitting[0]

    def metadata(self) -> dict[str, str]:
        """As texts for a file's metadata."""
        return {"bands": json.dumps(self.names), "band_orders": json.dumps(self.orders)}

    @classmethod
    def from_metadata(cls, facts: Mapping[str, str]) -> Bands | None:
        """Reads what `metadata` wrote; None where a file says nothing of bands: red, green and blue.

        Raises:
            ValueError: it is of another type.
        """
        if "bands" not in facts:
            return None
        names, orders = json.loads(facts["bands"]), json.loads(facts["band_orders"])
        if not all(isinstance(one, list) and all(isinstance(name, str) for name in one) for one in (names, *orders)):
            raise ValueError(f"bands {facts['bands']}")
        return cls(tuple(names), tuple(map(tuple, orders)))


def _is_darkest(medians: np.ndarray, place: int) -> bool:
    return bool((medians[place] < np.delete(medians, place)).all())


def canonical(name: str) -> str:
    """A band's name as it is compared: 'b4', 'B04' and 'B4, central wavelength 665 nm' are one."""
    name = name.split(",")[0].strip().casefold()
    found = re.fullmatch(r"b0*(\d{1,2}a?)", name)
    return f"b{found[1]:0>2}" if found else name


def colors(names: Sequence[str]) -> tuple[int | None, ...]:
    """The places of red, green and blue among bands, None for one that is not there."""
    keys = [canonical(name) for name in names]
    known = (("red", "r", "b04"), ("green", "g", "b03"), ("blue", "b", "b02"))
    return tuple(next((keys.index(one) for one in of if one in keys), None) for of in known)


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
    if sensor and sensor not in SENSORS:
        raise InputError(f"dataset.sensor: {sensor!r} is unknown, choose from {', '.join(SENSORS)}")
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
        InputError: it is no list of texts, or one is empty or repeats.
    """
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    if not is_list or not all(isinstance(one, str) and canonical(one) for one in value):
        raise InputError(f"{field} is {value!r}: give names of bands, as ('B04', 'B03', 'B02')")
    keys = [canonical(one) for one in value]
    for one, key in zip(value, keys, strict=True):
        if keys.count(key) > 1:
            raise InputError(f"{field} is {tuple(value)}: {one} repeats")
