"""Polygons that cross 180 degrees of longitude or hold a pole, cut there, as GeoJSON asks (RFC 7946, section 3.1.9).

GDAL cuts rings that merely jump, and neither it nor the package antimeridian (0.4.9) knows which pole a polygon of
cells holds: that one drew 7 of the 36 maps of the tests wrongly.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_NEAR = 1e-9  # degrees, a tenth of a millimeter: so close to the antimeridian is on it
_FINE = 2.0**43  # parts of a degree: turns can be added to them and taken off without rounding

Ring = np.ndarray
"""(n, 2) longitudes and latitudes of corners, the first again as the last."""


def geometry(rings: Sequence[Ring], has_pole: Callable[[float], bool]) -> dict[str, Any]:
    """A Polygon, or a MultiPolygon of its parts on both sides of the antimeridian.

    Args:
        rings: the outline and the holes of a polygon. A step from corner to corner goes the shorter way around.
        has_pole: whether the pole of that latitude, 90 or -90, lies within the polygon; asked where one must.
    """
    unwrapped = [_unwrapped(ring) for ring in _parted(rings)]
    whole = [ring - [360.0 * sheet, 0] for ring in unwrapped if (sheet := _sheet(ring)) is not None]
    if len(whole) == len(unwrapped):
        return _polygon(whole)
    joined = _joined(_cut(_turned(unwrapped, has_pole)))
    outlines, holes = ([ring for ring in joined if (_area(ring) > 0) == outer] for outer in (True, False))
    if len(outlines) == 1:
        return _polygon([*outlines, *holes])
    parts = [[one, *(hole for hole in holes if holds([one], hole[:2].mean(0)))] for one in outlines]
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
    longitudes = np.rint(ring[:, 0] * _FINE) / _FINE + 360.0 * turns
    lines = 180.0 + 360.0 * np.rint((longitudes - 180.0) / 360.0)
    return np.column_stack([np.where(np.abs(longitudes - lines) < _NEAR, lines, longitudes), ring[:, 1]])


def _sheet(ring: Ring) -> int | None:
    """How often 360 degrees have to be taken off an unwrapped ring; None = it crosses the antimeridian."""
    if abs(ring[-1, 0] - ring[0, 0]) > 180:  # it goes around a pole
        return None
    sheet = int(np.floor((ring[:, 0].min() + 180) / 360))
    return sheet if ring[:, 0].max() <= 180 + 360 * sheet else None


def _turned(rings: Sequence[Ring], has_pole: Callable[[float], bool]) -> list[Ring]:
    """Unwrapped rings with the polygon to their left."""
    turns = [ring[-1, 0] - ring[0, 0] for ring in rings]
    around = [number for number, turn in enumerate(turns) if abs(turn) > 180]
    to_east = dict.fromkeys(around, True)
    if len(around) == 1:
        every = np.concatenate(rings)[:, 1]
        nearest = 90.0 if every.max() > -every.min() else -90.0
        pole = next(filter(has_pole, (nearest, -nearest)), nearest)  # on a border it is held by neither
        to_east[around[0]] = pole > 0
    elif around:  # a strip: the polygon is to the south of the ring that comes first from the north
        to_east[max(around, key=lambda number: _on_line(rings[number]))] = False
    result = []
    for number, ring in enumerate(rings):
        right = (turns[number] > 0) == to_east[number] if number in to_east else (_area(ring) > 0) == (number == 0)
        result.append(ring if right else ring[::-1])
    return result


def _on_line(ring: Ring) -> tuple[float, float]:
    """The highest and the lowest latitude at which an unwrapped ring is on the antimeridian."""
    ends = _sides(ring).reshape(-1, 2)
    latitudes = ends[np.abs(ends[:, 0]) == 180, 1]
    return float(latitudes.max()), float(latitudes.min())


def _sides(ring: Ring) -> np.ndarray:
    """The sides (n, 2, 2) of an unwrapped ring, cut at the antimeridian, from -180 to 180.

    One along the antimeridian is on that side of it on which the polygon lies, to the left.
    """
    (x0, y0), (x1, y1) = ring[:-1].T, ring[1:].T
    lines = 180.0 + 360.0 * np.floor((np.minimum(x0, x1) + 180.0) / 360.0)
    at = np.flatnonzero(np.maximum(x0, x1) > lines)
    latitudes = y0[at] + (lines[at] - x0[at]) / (x1[at] - x0[at]) * (y1[at] - y0[at])
    ring = np.insert(ring, at + 1, np.column_stack([lines[at], latitudes]), 0)
    starts, ends = ring[:-1], ring[1:]
    sheets = np.floor(((starts[:, 0] + ends[:, 0]) / 2 + 180.0) / 360.0)
    along = (starts[:, 0] == ends[:, 0]) & ((starts[:, 0] - 180.0) % 360.0 == 0)
    sheets -= along & (ends[:, 1] > starts[:, 1])
    sides = np.stack([starts, ends], 1)
    sides[..., 0] -= 360.0 * sheets[:, None]
    return sides[(starts != ends).any(1)]


def _cut(rings: Sequence[Ring]) -> np.ndarray:
    """The sides (n, 2, 2) of what the antimeridian makes of a polygon to the left of unwrapped rings.

    Where more sides come to it at 180 degrees than leave it, the polygon goes on beyond it, up to where one leaves.
    """
    sides = np.concatenate([_sides(ring) for ring in rings])
    change: dict[float, int] = {}
    for starts_or_ends, sign in ((sides[:, 0], -1), (sides[:, 1], 1)):
        for longitude, latitude in starts_or_ends.tolist():
            if abs(longitude) == 180:
                change[latitude] = change.get(latitude, 0) + sign * (longitude == 180)
    added = []
    if turns := sum(change.values()):  # to the east around the north pole, or to the west around the south pole
        pole = 90.0 * turns
        change[pole] = change.get(pole, 0) - turns
        added.append([[2 * pole, pole], [-2 * pole, pole]])
    latitudes, through = sorted(change), 0
    for low, high in zip(latitudes, latitudes[1:], strict=False):
        through += change[low]
        if through:
            added += [[[180.0, low], [180.0, high]], [[-180.0, high], [-180.0, low]]]
    return np.concatenate([sides, np.reshape(added, (-1, 2, 2))])


def _joined(sides: np.ndarray) -> list[Ring]:
    """The rings that sides make: none passes a point twice, or crosses another."""
    leaving: dict[tuple[float, ...], list[tuple[float, ...]]] = {}
    for start, end in (map(tuple, side) for side in sides.tolist()):
        if start in leaving.get(end, ()):  # both ways: the edges of a raster around the earth, with the polygon beyond
            leaving[end].remove(start)
        else:
            leaving.setdefault(start, []).append(end)
    leaving = {start: ends for start, ends in leaving.items() if ends}
    found = []
    while leaving:
        start = next(iter(leaving))
        path, place = [start], {start: 0}
        while path:
            here = path[-1]
            following = leaving[here]
            before = path[-2] if len(path) > 1 else None
            point = min(following, key=functools.partial(_turn, before, here)) if before else following[0]
            following.remove(point)
            if not following:
                del leaving[here]
            if point in place:  # a ring is complete; what leads to it goes on
                first = place[point]
                found.append(np.array([*path[first:], point]))
                for one in path[first + 1 :]:
                    del place[one]
                del path[first + 1 :]
                if first == 0 and point not in leaving:
                    break
            else:
                place[point] = len(path)
                path.append(point)
    return found


def _turn(before: Sequence[float], here: Sequence[float], then: Sequence[float]) -> float:
    """By how much the way back lies to the left of the way on: the least is around the part of the polygon there."""
    back, on = (math.atan2(other[1] - here[1], other[0] - here[0]) for other in (before, then))
    return (back - on) % math.tau


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
