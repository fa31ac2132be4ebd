"""The box around the tiles of a data set, also across 180 degrees of longitude."""

import numpy as np
import pytest

from kdjax.data.places import Places


@pytest.mark.parametrize(
    ("longitudes", "west", "east"),
    [
        ([178.5, -179.0, -178.0, 179.5], 178.5, -178.0),  # Fiji
        ([-10.0, 30.0, 5.0], -10.0, 30.0),
        ([-100.0, 100.0, 150.0], 100.0, -100.0),
        ([-180.0, -90.0, 0.0, 90.0], -180.0, 90.0),  # all gaps alike
        ([12.0], 12.0, 12.0),
        ([180.0, 179.0], 179.0, 180.0),
        ([-179.0, -180.0, float("nan")], -180.0, -179.0),
    ],
)
def test_bounds_are_the_shortest_way_around(longitudes, west, east):
    """Beyond 180 degrees they go on: west of all of them is then more than east."""
    latitudes = np.where(np.isnan(longitudes), np.nan, np.linspace(-18, -16, len(longitudes)))
    centers = np.column_stack([longitudes, latitudes])
    known = centers[~np.isnan(centers[:, 0]), 1]
    assert Places(tuple(map(str, longitudes)), centers).bounds == (west, known.min(), east, known.max())
