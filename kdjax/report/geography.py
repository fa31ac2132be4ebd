"""The section of places: where the tiles of each side of the split lie, and how far apart the sides are."""

import numpy as np
from scipy.spatial import cKDTree

from kdjax.report import charts
from kdjax.report.markup import Markup, element
from kdjax.report.material import Located
from kdjax.report.parts import figure

STYLES = {"training": "s0", "validation": "s2", "test": "s1"}
_EARTH_KM = 6371.0


def geography(located: Located) -> list[Markup]:
    """A map of the tiles by their side, and what it says of the test."""
    sides = [(name, STYLES[name], points) for name, points in located.sides.items() if len(points)]
    counts = ", ".join(f"{len(points)} {name}" for name, _, points in sides)
    drawn = charts.places(sides, alt=f"Map of the tiles: {counts}")
    caption = f"Middles of the tiles ({counts}), longitude and latitude in degrees."
    if located.unknown:
        caption += f" Of {located.unknown} tiles it is not known where they lie."
    return [
        element("p", _said(located)),
        charts.legend([(name, style) for name, style, _ in sides], line=False),
        figure(drawn, caption),
    ]


def _said(located: Located) -> str:
    train, test = located.sides["training"], located.sides["test"]
    rule = {
        True: f"The split is by place: the tiles of one place, a cell of {located.block_km:g} km or a group that a "
        "table names, stay on one side.",
        False: "The split is not by place: neighbors may lie on two sides.",
        None: "The split came with the data, which do not say whether it is by place.",
    }[located.by_place]
    if not (len(train) and len(test)):
        return rule
    apart = nearest_km(test, train)
    near = int((apart < located.block_km).sum())
    said = f"{rule} From a test tile to the nearest training tile it is {np.median(apart):.3g} km in the median"
    said += f"; for {near} of {len(test)} test tiles it is less than {located.block_km:g} km."
    if near:
        said += " Neighbors look alike, so the accuracies here may be better than on a map of another region."
    return said


def nearest_km(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Distance along the earth from each point (n, 2), degrees of longitude and latitude, to the nearest of others."""
    chord = cKDTree(_on_sphere(others)).query(_on_sphere(points))[0]
    return 2 * _EARTH_KM * np.arcsin(np.minimum(chord / 2, 1))


def _on_sphere(points: np.ndarray) -> np.ndarray:
    longitude, latitude = np.radians(points).T
    return np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], 1)
