"""The section on places: where the tiles of each side of the split lie, and how far apart the sides are."""

import numpy as np
from scipy.spatial import cKDTree

from kdjax.report import charts
from kdjax.report.markup import Markup, element
from kdjax.report.material import TileLocations
from kdjax.report.parts import figure

STYLES = {"training": "s0", "validation": "s2", "test": "s1"}
_EARTH_KM = 6371.0


def geography(locations: TileLocations) -> list[Markup]:
    """Draws a map of the tiles by side, and explains what it means for the test."""
    sides = [(name, STYLES[name], points) for name, points in locations.sides.items() if len(points)]
    counts = ", ".join(f"{len(points)} {name}" for name, _, points in sides)
    chart = charts.places(sides, alt=f"Map of the tiles: {counts}")
    caption = f"Middles of the tiles ({counts}), longitude and latitude in degrees."
    if locations.unknown:
        caption += f" Of {locations.unknown} tiles it is not known where they lie."
    return [
        element("p", _explanation(locations)),
        charts.legend([(name, style) for name, style, _ in sides], line=False),
        figure(chart, caption),
    ]


def _explanation(locations: TileLocations) -> str:
    train, test = locations.sides["training"], locations.sides["test"]
    rule = {
        True: f"The split is by place: the tiles of one place, a cell of {locations.block_km:g} km or a group that a "
        "table names, stay on one side.",
        False: "The split is not by place: neighbors may lie on two sides.",
        None: "The split came with the data, which do not say whether it is by place.",
    }[locations.by_place]
    if not (len(train) and len(test)):
        return rule
    distances = nearest_km(test, train)
    close_count = int((distances < locations.block_km).sum())
    text = f"{rule} From a test tile to the nearest training tile it is {np.median(distances):.3g} km in the median"
    text += f"; for {close_count} of {len(test)} test tiles it is less than {locations.block_km:g} km."
    if close_count:
        text += " Neighbors look alike, so the accuracies here may be better than on a map of another region."
    return text


def nearest_km(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the great-circle distance from each point to the nearest of the others, km.

    Args:
        points: (n, 2) longitude and latitude in degrees.
        others: (m, 2), the same.
    """
    chord = cKDTree(_on_sphere(others)).query(_on_sphere(points))[0]
    return 2 * _EARTH_KM * np.arcsin(np.minimum(chord / 2, 1))


def _on_sphere(points: np.ndarray) -> np.ndarray:
    longitude, latitude = np.radians(points).T
    return np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], 1)
