"""The size of a pixel on the ground by the GeoTIFF keys of a tile, as far as they are conclusive.

Maps get it from GDAL. Tiles are read without GDAL, because what a model learns must not depend on an optional package.
This module therefore knows the common cases that need no EPSG database, and returns None for all others.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

METERS_A_DEGREE = 111_320.0
"""Length of a degree of the equator, m. Maps use it too, so that tiles and rasters in degrees are measured alike."""
_DEGREES, _METER, _USER_DEFINED = (9102, 9122), 9001, 32767  # EPSG codes of units; "defined in the file"
_UNITS = {
    _METER: 1.0, 9036: 1000.0, 9002: 0.3048, 9003: 1200 / 3937, 9005: 0.3047972654, 9031: 1.0000135965,
    9037: 0.9143917962, 9040: 0.914398414616, 9041: 0.304799471539, 9084: 0.914398530744, 9094: 0.304799710182,
    9096: 0.9144, 9098: 0.201168, 9301: 20.116756,
}  # fmt: skip
"""EPSG code of a unit of length -> its length in m."""

_GRADS = frozenset((4807, 4810, 4811, 4816, 4819, 4821, 4901, 4902))
"""EPSG codes of geographic systems in other units than degrees."""

_WEB_MERCATOR, _EQUATOR_M = (3785, 3857), 6_378_137.0  # EPSG codes, and the radius of the sphere

_DISTORTED = frozenset(
    map(
        int,
        """
2003 2065 2083 2136 2164 2170 2218 2221 2296 2297 2298 2299 2300 2301 2302 2303 2304 2305 2306 2307 2308 2550 2737
2933 2934 2963 2964 2985 2986 3000 3031 3032 3033 3034 3052 3053 3061 3066 3112 3144 3145 3173 3294 3302 3347 3348
3349 3388 3394 3395 3411 3412 3413 3580 3581 3752 3786 3787 3797 3798 3799 3832 3836 3841 3851 3907 3911 3912 3976
3978 3979 3994 3995 3996 4087 4088 4462 5017 5041 5042 5221 5513 5514 5530 5629 5632 5634 5637 5639 5880 5890 5936
5937 5938 5939 5940 6204 6362 6372 7082 7755 7845 8677 8686 8857 8858 8859 8951 9040 9150 9155 9354 9377 9945 20049
21148 21150 21418 21458 21478 21817 21893 21898 22236 22300 22700 22770 23853 23886 26740 27039 27200 27701 27702
27703 27704 27705 27706 27707 28232 29100 29101 29118 29119 29120 29121 29177 29178 29179 29180 29221 29635 29636
31275 31461 32600 32662 32663 32661 32700 32761
""".split(),
    )
)
"""EPSG codes of projected systems whose areas are off by more than 2 % somewhere in their area of use, as in world and
polar maps, or for which this is unknown. tests/data/test_geokeys.py recomputes some of them; once all were checked."""

_LAST_EPSG = 32766  # higher codes are not EPSG's

_METRIC_SYSTEMS = (
    *((32601, 32660), (32701, 32760), (25828, 25838), (26901, 26923)),  # UTM: WGS 84, ETRS89, NAD83
    *((code, code) for code in (2056, 2154, 3035, 27700, 28992, *_WEB_MERCATOR)),
)
"""First and last EPSG codes of systems in meters, for files without a unit, such as those with a vertical system."""

_UTM_ZONES = ((16001, 16060), (16101, 16160))  # GeoTIFF codes of the projections without a datum, north and south
_TRANSVERSE_MERCATOR, _EQUAL_AREA = 1, (10, 11)  # GeoTIFF codes of methods; Lambert azimuthal and Albers equal-area
# At this distance from its central meridian, a transverse Mercator projection stretches lengths by 0.3 %.
_MOST_DISTANCE_M, _MOST_SCALE_ERROR = 500_000.0, 0.005


def pixel_size(tags: Mapping[str, Any]) -> float | None:
    """Side of a pixel on the ground, m; None if the keys are not conclusive.

    Args:
        tags: GeoTIFF keys and their values, as `tifffile` gives them.

    Raises:
        KeyError, TypeError, ValueError: keys are missing or malformed.
    """
    if "ModelTransformation" in tags:
        (a, b, _, x), (d, e, _, y) = np.reshape(tags["ModelTransformation"], (4, 4))[:2]
    else:
        (a, e), (b, d) = tags["ModelPixelScale"][:2], (0, 0)
        x, y = tags["ModelTiepoint"][3:5]
    kind = int(tags["GTModelTypeGeoKey"])
    unit = _degree(tags, y) if kind == 2 else _length(tags, x, y) if kind == 1 else None
    if unit is None:
        return None
    side = math.sqrt(abs(a * e - b * d)) * unit
    return side if math.isfinite(side) and side > 0 else None


def _degree(tags: Mapping[str, Any], latitude: float) -> float | None:
    """Meters in a degree: the geometric mean of both directions; None if the keys are not conclusive."""
    unit, code = (int(tags.get(key, 0)) for key in ("GeogAngularUnitsGeoKey", "GeographicTypeGeoKey"))
    if unit not in (0, *_DEGREES) or code in _GRADS or not abs(latitude) <= 90:
        return None
    return METERS_A_DEGREE * math.sqrt(math.cos(math.radians(latitude)))


def _length(tags: Mapping[str, Any], x: float, y: float) -> float | None:
    """Meters on the ground in a unit of a projected system; None if the keys are not conclusive."""
    code = int(tags.get("ProjectedCSTypeGeoKey", _USER_DEFINED))
    unit = _unit(tags, code)
    if unit is None or code in _DISTORTED or _LAST_EPSG < code != _USER_DEFINED:
        return None
    if code in _WEB_MERCATOR:  # its scale grows towards the poles
        return unit / math.cosh(y * unit / _EQUATOR_M)
    return unit if code != _USER_DEFINED or _keeps_areas(tags, x, unit) else None


def _unit(tags: Mapping[str, Any], code: int) -> float | None:
    """Length of a unit of a projected system, m; None = not known."""
    if "ProjLinearUnitsGeoKey" not in tags:
        return 1.0 if _in_any(code, _METRIC_SYSTEMS) else None
    unit = int(tags["ProjLinearUnitsGeoKey"])
    return float(tags["ProjLinearUnitSizeGeoKey"]) if unit == _USER_DEFINED else _UNITS.get(unit)


def _keeps_areas(tags: Mapping[str, Any], x: float, unit: float) -> bool:
    """Whether a system that the file itself defines is true to scale at the easting `x`."""
    if _in_any(int(tags.get("ProjectionGeoKey", _USER_DEFINED)), _UTM_ZONES):
        return abs(x * unit - 500_000.0) <= _MOST_DISTANCE_M
    method = int(tags.get("ProjCoordTransGeoKey", 0))
    if method == _TRANSVERSE_MERCATOR:
        scale = float(tags["ProjScaleAtNatOriginGeoKey"])
        return (
            abs(scale - 1) <= _MOST_SCALE_ERROR
            and abs(x - float(tags["ProjFalseEastingGeoKey"])) * unit <= _MOST_DISTANCE_M
        )
    return method in _EQUAL_AREA


def _in_any(code: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= code <= last for first, last in ranges)
