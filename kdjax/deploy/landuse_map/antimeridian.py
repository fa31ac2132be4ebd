"""Polygons that cross 180 degrees of longitude or hold a pole, cut there, as GeoJSON asks (RFC 7946, section 3.1.9).

GDAL cuts rings that merely jump, and neither it nor the package antimeridian (0.4.9) knows which pole a polygon of
cells holds: that one drew 7 of the 36 maps of the tests wrongly.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_NEAR = 1e-9  # degrees, a tenth of a millimeter: so close to the antimeridian is on it

Ring = np.ndarray
"""(n, 2) longitudes and latitudes of corners, the first again as the last."""


@dataclasses.dataclass(frozen=True)
class _Arc:
    """A part of a ring between two crossings of the antimeridian.

    Attributes:
        points: (n, 2), longitudes from -180 to 180.
        ends: of its first and its last point: the number of the crossing, and whether it is in the east, at 180.
    """

    points: np.ndarray
    ends: tuple[tuple[int, bool], tuple[int, bool]]


def geometry(rings: Sequence[Ring], has_pole: Callable[[float], bool]) -> dict[str, Any]:
    """A Polygon, or a MultiPolygon of its parts on both sides of the antimeridian.

    Args:
        rings: the outline and the holes of a polygon. A step from corner to corner goes the shorter way around.
        has_pole: whether the pole of that latitude, 90 or -90, lies within the polygon; asked where one must.
    """
    unwrapped = [_unwrapped(ring) for ring in _parted(rings)]
    whole: list[Ring] = []
    arcs: list[_Arc] = []
    latitudes: list[float] = []
    for ring in unwrapped:
        sheet = _sheet(ring)
        if sheet is None:
            arcs += _arcs(ring, latitudes)
        else:
            whole.append(ring - [360.0 * sheet, 0])
    if not arcs:
        return _polygon(whole)
    if len(latitudes) % 2:
        every = np.concatenate(unwrapped)[:, 1]
        nearest = 90.0 if every.max() > -every.min() else -90.0
        pole = next(filter(has_pole, (nearest, -nearest)), nearest)  # on a border it is held by neither
        number = len(latitudes)
        latitudes.append(pole)
        arcs.append(_Arc(np.array([[-180.0, pole], [180.0, pole]]), ((number, False), (number, True))))
    outlines = _joined(arcs, latitudes)
    parts = [[one, *(hole for hole in whole if holds([one], hole[:2].mean(0)))] for one in outlines]
    if len(parts) == 1:
        return _polygon(parts[0])
    return {"type": "MultiPolygon", "coordinates": [_polygon(part)["coordinates"] for part in parts]}


def _polygon(rings: Sequence[Ring]) -> dict[str, Any]:
    """The outline goes to the left around it and the holes to the right, as RFC 7946 asks in section 3.1.6."""
    turned = [ring if (_area(ring) > 0) == (place == 0) else ring[::-1] for place, ring in enumerate(rings)]
    return {"type": "Polygon", "coordinates": [ring.tolist() for ring in turned]}


def _parted(rings: Sequence[Ring]) -> list[Ring]:
    """The rings with a side along the pole in place of a corner on it, whose longitude PROJ chooses.

    The side goes from the meridian on which a ring comes to that on which it leaves, through the polygon. Rings that
    meet at the pole become one, so that their sides there do not overlap.
    """
    touching = [number for number, ring in enumerate(rings) if _on_pole(ring[:-1]).size]
    if not touching:
        return list(rings)
    parts = []
    for number in touching:
        ring = rings[number]
        radii, angles = 90 - np.abs(ring[:, 1]), np.radians(ring[:, 0])  # seen from the pole
        to_the_left = _area(np.column_stack([radii * np.cos(angles), radii * np.sin(angles)])) > 0
        corners = ring[:-1] if to_the_left == (number == 0) else ring[:0:-1]
        parts.append(np.roll(corners, -_on_pole(corners)[0], 0))
    corners = np.concatenate(parts)
    at = _on_pole(corners)
    comes, leaves = corners[at - 1, 0], corners[(at + 1) % len(corners), 0]
    turns = (comes - leaves) % 360  # the polygon lies to the left
    joined = np.repeat(corners, 1 + 2 * np.isin(np.arange(len(corners)), at), 0)
    first = at + 2 * np.arange(len(at))
    # By way of the middle, as half of a turn is less than 180 degrees.
    for place, longitudes in enumerate((comes, comes - turns / 2, leaves)):
        joined[first + place] = np.column_stack([longitudes, np.copysign(np.full(len(at), 90.0), corners[at, 1])])
    others = [ring for number, ring in enumerate(rings) if number not in touching]
    return [np.concatenate([joined, joined[:1]]), *others]  # the outline, or a ring that is cut, as that around it is


def _on_pole(corners: np.ndarray) -> np.ndarray:
    """Which corners are on a pole. In degrees a ring goes along it, by several with longitudes of their own."""
    polar = np.abs(corners[:, 1]) > 90 - _NEAR
    return np.flatnonzero(polar & ~np.roll(polar, 1) & ~np.roll(polar, -1))


def _unwrapped(ring: Ring) -> Ring:
    """The ring with longitudes that do not jump; they may leave -180 to 180."""
    turns = np.rint((np.unwrap(ring[:, 0], period=360.0) - ring[:, 0]) / 360.0)  # its sums are rounded
    longitudes = ring[:, 0] + 360.0 * turns
    lines = 180.0 + 360.0 * np.rint((longitudes - 180.0) / 360.0)
    return np.column_stack([np.where(np.abs(longitudes - lines) < _NEAR, lines, longitudes), ring[:, 1]])


def _sheet(ring: Ring) -> int | None:
    """How often 360 degrees have to be taken off an unwrapped ring; None = it crosses the antimeridian."""
    if abs(ring[-1, 0] - ring[0, 0]) > 180:  # it goes around a pole
        return None
    sheet = int(np.floor((ring[:, 0].min() + 180) / 360))
    return sheet if ring[:, 0].max() <= 180 + 360 * sheet else None


def _arcs(ring: Ring, latitudes: list[float]) -> list[_Arc]:
    """The arcs of an unwrapped ring; the latitudes of its crossings are added to those of the others."""
    sheets = np.floor((ring[:, 0] + 180) / 360).astype(int)
    steps = np.flatnonzero(np.diff(sheets))
    first = len(latitudes)
    arcs = []
    for place, step in enumerate(steps):
        line = 180.0 + 360.0 * min(sheets[step], sheets[step + 1])
        (x0, y0), (x1, y1) = ring[step], ring[step + 1]
        latitudes.append(float(y0 + (line - x0) / (x1 - x0) * (y1 - y0)))
        following = steps[(place + 1) % len(steps)]
        inner = ring[step + 1 : following + 1]
        if place == len(steps) - 1:  # over the end of the ring, which is its beginning
            start = ring[1 : following + 1] + [ring[-1, 0] - ring[0, 0], 0]
            inner = np.concatenate([ring[step + 1 :], start])
        arcs.append(inner - [360.0 * sheets[step + 1], 0])
    result = []
    for place, inner in enumerate(arcs):
        begin, end = first + place, first + (place + 1) % len(arcs)
        step, following = steps[place], steps[(place + 1) % len(arcs)]
        from_east = bool(sheets[step] > sheets[step + 1])  # it went to the west, and comes in at 180
        to_east = bool(sheets[following] < sheets[following + 1])
        points = np.array(
            [[180.0 if from_east else -180.0, latitudes[begin]], *inner, [180.0 if to_east else -180.0, latitudes[end]]]
        )
        result.append(_Arc(points, ((begin, from_east), (end, to_east))))
    return result


def _joined(arcs: Sequence[_Arc], latitudes: Sequence[float]) -> list[Ring]:
    """The outlines that arcs make with the parts of the antimeridian within the polygon.

    Crossings in the order of their latitudes are, in turn, where it goes in and out of the polygon.
    """
    order = np.argsort(latitudes, kind="stable").tolist()
    partner = {one: other for k in range(0, len(order), 2) for one, other in (order[k : k + 2], order[k : k + 2][::-1])}
    at = {end: (arc, side) for arc in arcs for side, end in enumerate(arc.ends)}
    found = []
    while at:
        end = start = next(iter(at))
        points: list[np.ndarray] = []
        while True:
            arc, side = at.pop(end)
            points.append(arc.points[::-1] if side else arc.points)
            number, east = arc.ends[1 - side]
            at.pop((number, east), None)
            end = (partner[number], east)
            if end == start:
                break
        ring = np.concatenate([*points, points[0][:1]])
        ring = ring[np.append(True, (np.diff(ring, axis=0) != 0).any(1))]
        if np.ptp(ring[:, 0]) and np.ptp(ring[:, 1]):  # else it is a part of the antimeridian
            found.append(ring)
    return found


def holds(rings: Sequence[Ring], point: Sequence[float] | np.ndarray) -> bool:
    """Whether a point lies within a polygon of an outline and holes, in any flat coordinates."""
    crossed = 0
    for ring in rings:
        (x0, y0), (x1, y1) = ring[:-1].T, ring[1:].T
        across = (y0 > point[1]) != (y1 > point[1])
        x0, y0, x1, y1 = x0[across], y0[across], x1[across], y1[across]
        crossed += int(np.count_nonzero(x0 + (point[1] - y0) / (y1 - y0) * (x1 - x0) > point[0]))
    return bool(crossed % 2)


def _area(ring: Ring) -> float:
    """Positive where it goes to the left."""
    x, y = (ring - ring[0]).T
    return float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2
