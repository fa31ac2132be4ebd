"""Colors of things on the ground, with their levels in infrared.

Plants are bright in near infrared and dark at 2.2 µm, where their water absorbs; soil, stone and roofs are brightest in
short-wave infrared; water is black in both, whatever its color. The levels roughly follow the reflectances of such
surfaces in spectral libraries, at half the gain of the colors, because plants would be overexposed otherwise.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from kdjax.data.bands import RGB

BANDS = (*RGB, "nir", "swir16", "swir22")
"""The channels of a `Color`: near infrared, and short-wave infrared at 1.6 and 2.2 µm, as STAC names them."""

VISIBLE = 3

Color = tuple[float, ...]  # a level of 0..255 for each of BANDS

# Near infrared, 1.6 µm, 2.2 µm.
LEAF = (200, 112, 56)
CROWN = (165, 72, 34)
STRAW = (145, 170, 130)
EARTH = (112, 165, 140)
DUNE = (190, 215, 200)
STONE = (140, 165, 155)
TAR = (72, 92, 88)
TILE = (140, 178, 165)
PAINT = (190, 180, 165)
CELL = (48, 84, 70)
DEEP = (14, 6, 4)
FOAM = (150, 40, 20)
SHADE = (28, 20, 16)

# Ground colors, each the middle of a range; see `Canvas.tint`.
GRASS = (104, 126, 70, *LEAF)
MEADOW = (130, 146, 84, *LEAF)
DRY = (166, 150, 108, *STRAW)
SOIL = (134, 106, 80, *EARTH)
WOOD = (56, 80, 48, *CROWN)
SAND = (212, 194, 154, *DUNE)
CONCRETE = (160, 157, 150, *STONE)
ASPHALT = (92, 92, 95, *TAR)
WATERS = ((46, 78, 104, *DEEP), (62, 92, 84, *DEEP), (34, 60, 72, *DEEP), (84, 116, 128, *DEEP))
CARS = (
    (225, 225, 225, *PAINT),
    (40, 42, 46, *TAR),
    (150, 30, 30, *PAINT),
    (40, 60, 120, *PAINT),
    (130, 132, 136, *PAINT),
    (200, 196, 180, *PAINT),
)
HULLS = ((232, 232, 230, *PAINT), (214, 216, 218, *PAINT), (60, 70, 96, *PAINT), (150, 60, 50, *PAINT))
ROOFS = (
    (158, 88, 66, *TILE),
    (128, 78, 62, *TILE),
    (120, 116, 112, *STONE),
    (170, 160, 146, *STONE),
    (92, 84, 80, *TAR),
    (188, 120, 88, *TILE),
)


def lighter(color: Color, factor: float) -> Color:
    """The color with every level multiplied by the factor."""
    return tuple(level * factor for level in color)


def brighter(color: Color, light: float) -> Color:
    """The color with `light` added to the visible levels, and infrared scaled by `gain`."""
    return (*(level + light for level in color[:VISIBLE]), *(level * gain(light) for level in color[VISIBLE:]))


Light = TypeVar("Light", float, np.ndarray)


def gain(light: Light) -> Light:
    """The factor by which infrared levels grow if `light` is added to the visible ones; it leaves water black."""
    return 1 + light / 128
