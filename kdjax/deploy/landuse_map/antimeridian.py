"""Cuts polygons that cross 180 degrees of longitude or contain a pole, as GeoJSON requires (RFC 7946, section 3.1.9).

GDAL cuts only rings whose longitudes jump. Neither GDAL nor the package antimeridian (0.4.9) knows which pole a polygon
of cells contains: the package drew 7 of the 36 maps of the tests wrongly.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

_NEAR = 1e-9  # degrees, a tenth of a millimeter; a point this close to the antimeridian or a pole is on it
_FINE = 2.0**43  # steps in a degree; turns can be added to multiples of a step and subtracted without rounding

Ring = np.ndarray
"""(n, 2) longitudes and latitudes of the corners; the last corner repeats the first."""


def geometry(rings: Sequence[Ring], has_pole: Callable[[float], bool]) -> dict[str, Any]:
    """The GeoJSON geometry: a Polygon, or a MultiPolygon of the parts on both sides of the antimeridian.

    Args:
        rings: the outline and the holes of a polygon. From corner to corner, a side takes the shorter way around.
        has_pole: whether the pole of a latitude, 90 or -90, lies within the polygon; called only if one of them must.
    """
    unwrapped = [_unwrap(ring) for ring in _split_at_pole(rings)]
    uncut = [ring - [360.0 * sheet, 0] for ring in unwrapped if (sheet := _sheet(ring)) is not None]
    if len(uncut) == len(unwrapped):
        return _polygon(uncut)
    cut_rings = _join(_cut_sides(_orient(unwrapped, has_pole)))
    outlines, holes = ([ring for ring in cut_rings if (_area(ring) > 0) == outer] for outer in (True, False))
    if len(outlines) == 1:
        return _polygon([*outlines, *holes])
    parts = [[outline, *(hole for hole in holes if contains([outline], hole[:2].mean(0)))] for outline in outlines]
    return {"type": "MultiPolygon", "coordinates": [_polygon(part)["coordinates"] for part in parts]}


def _polygon(rings: Sequence[Ring]) -> dict[str, Any]:
    """A Polygon with a counterclockwise outline and clockwise holes, as RFC 7946 requires in section 3.1.6."""
    oriented = [ring if (_area(ring) > 0) == (k == 0) else ring[::-1] for k, ring in enumerate(rings)]
    return {"type": "Polygon", "coordinates": [ring.tolist() for ring in oriented]}


def _split_at_pole(rings: Sequence[Ring]) -> list[Ring]:
    """Replaces each corner on a pole, where PROJ chooses an arbitrary longitude, by a side along the pole.

    The side leads through the polygon, from the meridian on which a ring reaches the pole to that on which it leaves.
    Rings that meet at the pole become one, so that their sides there do not overlap.
    """
    polar_rings = [k for k, ring in enumerate(rings) if _pole_corners(ring[:-1]).size]
    if not polar_rings:
        return list(rings)
    parts = []
    for k in polar_rings:
        ring = rings[k]
        radii, angles = 90 - np.abs(ring[:, 1]), np.radians(ring[:, 0])  # polar coordinates around the pole
        counterclockwise = _area(np.column_stack([radii * np.cos(angles), radii * np.sin(angles)])) > 0
        corners = ring[:-1] if counterclockwise == (k == 0) else ring[:0:-1]
        parts.append(np.roll(corners, -_pole_corners(corners)[0], 0))
    corners = np.concatenate(parts)
    at_pole = _pole_corners(corners)
    arrivals, departures = corners[at_pole - 1, 0], corners[(at_pole + 1) % len(corners), 0]
    turns = (arrivals - departures) % 360  # the polygon lies to the left
    merged = np.repeat(corners, 1 + 2 * np.isin(np.arange(len(corners)), at_pole), 0)
    first = at_pole + 2 * np.arange(len(at_pole))
    # With a corner in the middle, so that each side spans less than 180 degrees.
    for k, longitudes in enumerate((arrivals, arrivals - turns / 2, departures)):
        merged[first + k] = np.column_stack([longitudes, np.copysign(np.full(len(at_pole), 90.0), corners[at_pole, 1])])
    others = [ring for k, ring in enumerate(rings) if k not in polar_rings]
    # The merged ring may come first: it is the outline, or it will be cut, and so will the outline around it.
    return [np.concatenate([merged, merged[:1]]), *others]


def _pole_corners(corners: np.ndarray) -> np.ndarray:
    """Indices of single corners on a pole.

    Consecutive corners on it are left out: in a raster in degrees, a ring follows the pole with true longitudes.
    """
    polar = np.abs(corners[:, 1]) > 90 - _NEAR
    return np.flatnonzero(polar & ~np.roll(polar, 1) & ~np.roll(polar, -1))


def _unwrap(ring: Ring) -> Ring:
    """The ring with longitudes that do not jump, and may therefore lie outside of -180 to 180."""
    # `np.unwrap` rounds its sums, so it only gives the number of turns.
    turns = np.rint((np.unwrap(ring[:, 0], period=360.0) - ring[:, 0]) / 360.0)
    longitudes = np.rint(ring[:, 0] * _FINE) / _FINE + 360.0 * turns
    antimeridians = 180.0 + 360.0 * np.rint((longitudes - 180.0) / 360.0)
    is_on = np.abs(longitudes - antimeridians) < _NEAR
    return np.column_stack([np.where(is_on, antimeridians, longitudes), ring[:, 1]])


def _sheet(ring: Ring) -> int | None:
    """How many turns to subtract from an unwrapped ring to get -180 to 180; None = it crosses the antimeridian."""
    if abs(ring[-1, 0] - ring[0, 0]) > 180:  # the ring goes around a pole
        return None
    sheet = int(np.floor((ring[:, 0].min() + 180) / 360))
    return sheet if ring[:, 0].max() <= 180 + 360 * sheet else None


def _orient(rings: Sequence[Ring], has_pole: Callable[[float], bool]) -> list[Ring]:
    """Turns unwrapped rings so that the polygon lies to their left."""
    turns = [ring[-1, 0] - ring[0, 0] for ring in rings]
    around_pole = [k for k, turn in enumerate(turns) if abs(turn) > 180]
    goes_east = dict.fromkeys(around_pole, True)
    if len(around_pole) == 1:
        latitudes = np.concatenate(rings)[:, 1]
        nearest = 90.0 if latitudes.max() > -latitudes.min() else -90.0
        pole = next(filter(has_pole, (nearest, -nearest)), nearest)  # neither is inside if it lies on the border
        goes_east[around_pole[0]] = pole > 0
    elif around_pole:  # a strip around the earth: the polygon lies to the south of the northernmost of these rings
        goes_east[max(around_pole, key=lambda k: _antimeridian_latitudes(rings[k]))] = False
    oriented = []
    for k, ring in enumerate(rings):
        correct = (turns[k] > 0) == goes_east[k] if k in goes_east else (_area(ring) > 0) == (k == 0)
        oriented.append(ring if correct else ring[::-1])
    return oriented


def _antimeridian_latitudes(ring: Ring) -> tuple[float, float]:
    """The highest and the lowest latitude at which an unwrapped ring is on the antimeridian."""
    ends = _sides(ring).reshape(-1, 2)
    latitudes = ends[np.abs(ends[:, 0]) == 180, 1]
    return float(latitudes.max()), float(latitudes.min())


def _sides(ring: Ring) -> np.ndarray:
    """The sides (n, 2, 2) of an unwrapped ring, cut at the antimeridian, with longitudes from -180 to 180.

    A side along the antimeridian gets the longitude, 180 or -180, on whose side of it the polygon lies, to the left.
    """
    (x0, y0), (x1, y1) = ring[:-1].T, ring[1:].T
    lines = 180.0 + 360.0 * np.floor((np.minimum(x0, x1) + 180.0) / 360.0)  # the next antimeridian to the east
    crossing = np.flatnonzero(np.maximum(x0, x1) > lines)
    x0, y0, x1, y1, lines = (values[crossing] for values in (x0, y0, x1, y1, lines))
    latitudes = y0 + (lines - x0) / (x1 - x0) * (y1 - y0)
    ring = np.insert(ring, crossing + 1, np.column_stack([lines, latitudes]), 0)
    starts, ends = ring[:-1], ring[1:]
    sheets = np.floor(((starts[:, 0] + ends[:, 0]) / 2 + 180.0) / 360.0)
    along = (starts[:, 0] == ends[:, 0]) & ((starts[:, 0] - 180.0) % 360.0 == 0)
    sheets -= along & (ends[:, 1] > starts[:, 1])
    sides = np.stack([starts, ends], 1)
    sides[..., 0] -= 360.0 * sheets[:, None]
    return sides[(starts != ends).any(1)]


def _cut_sides(rings: Sequence[Ring]) -> np.ndarray:
    """Cuts the polygon to the left of unwrapped rings at the antimeridian; returns the sides (n, 2, 2) of its parts.

    Going north along the antimeridian, each side that arrives at 180 degrees and each that departs from there is where
    the polygon starts or stops crossing it. In between, both parts get a side along it.
    """
    sides = np.concatenate([_sides(ring) for ring in rings])
    change: dict[float, int] = {}  # by latitude: sides that arrive at 180 degrees, minus those that depart
    for starts_or_ends, sign in ((sides[:, 0], -1), (sides[:, 1], 1)):
        for longitude, latitude in starts_or_ends.tolist():
            if abs(longitude) == 180:
                change[latitude] = change.get(latitude, 0) + sign * (longitude == 180)
    added = []
    if turns := sum(change.values()):  # 1 = the rings go east around the north pole, -1 = west around the south pole
        pole = 90.0 * turns
        change[pole] = change.get(pole, 0) - turns
        added.append([[2 * pole, pole], [-2 * pole, pole]])
    latitudes, crossings = sorted(change), 0
    for low, high in zip(latitudes, latitudes[1:], strict=False):
        crossings += change[low]
        if crossings:
            added += [[[180.0, low], [180.0, high]], [[-180.0, high], [-180.0, low]]]
    return np.concatenate([sides, np.reshape(added, (-1, 2, 2))])


def _join(sides: np.ndarray) -> list[Ring]:
    """Joins sides to rings, none of which passes through a point twice or crosses another ring."""
    leaving: dict[tuple[float, ...], list[tuple[float, ...]]] = {}
    for start, end in (map(tuple, side) for side in sides.tolist()):
        if start in leaving.get(
            end, ()
        ):  # opposite sides cancel: the edges of a raster around the earth, across which the polygon continues
            leaving[end].remove(start)
        else:
            leaving.setdefault(start, []).append(end)
    leaving = {start: ends for start, ends in leaving.items() if ends}
    rings = []
    while leaving:
        start = next(iter(leaving))
        path, index = [start], {start: 0}  # points visited, and the index of each in `path`
        while path:
            current = path[-1]
            candidates = leaving[current]
            previous = path[-2] if len(path) > 1 else None
            point = min(candidates, key=functools.partial(_turn, previous, current)) if previous else candidates[0]
            candidates.remove(point)
            if not candidates:
                del leaving[current]
            if point in index:  # this completes a ring; the path that led to it continues
                first = index[point]
                rings.append(np.array([*path[first:], point]))
                for visited in path[first + 1 :]:
                    del index[visited]
                del path[first + 1 :]
                if first == 0 and point not in leaving:
                    break
            else:
                index[point] = len(path)
                path.append(point)
    return rings


def _turn(previous: Sequence[float], current: Sequence[float], following: Sequence[float]) -> float:
    """The angle by which the way back lies to the left of the way on.

    The smallest angle leads around that part of the polygon that lies to the left of the path.
    """
    back, on = (math.atan2(point[1] - current[1], point[0] - current[0]) for point in (previous, following))
    return (back - on) % math.tau


def contains(rings: Sequence[Ring], point: Sequence[float] | np.ndarray) -> bool:
    """Whether a polygon of an outline and holes contains a point, in any plane coordinates."""
    crossings = 0
    for ring in rings:
        (x0, y0), (x1, y1) = ring[:-1].T, ring[1:].T
        spans_y = (y0 > point[1]) != (y1 > point[1])
        x0, y0, x1, y1 = x0[spans_y], y0[spans_y], x1[spans_y], y1[spans_y]
        crossings += int(np.count_nonzero(x0 + (point[1] - y0) / (y1 - y0) * (x1 - x0) > point[0]))
    return bool(crossings % 2)


def _area(ring: Ring) -> float:
    """The signed area of a ring, positive if it runs counterclockwise."""
    x, y = (ring - ring[0]).T
    return float(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2
