"""The map of the tiles: marks lie where tiles do, and distances are those along the earth."""

import dataclasses
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.report_material import material

from kdjax.config import base
from kdjax.report import charts, page, stage
from kdjax.report.geography import geography, nearest_km
from kdjax.report.material import TileLocations

SIDES = {
    "training": np.array([[9.0, 48.0], [11.0, 48.0], [10.0, 49.0]]),
    "validation": np.array([[10.0, 48.0]]),
    "test": np.array([[9.0, 49.0], [9.01, 48.0]]),
}


def located(**changes):
    return TileLocations(**{"sides": SIDES, "unknown": 0, "by_place": True, "block_km": 2.0} | changes)


def test_distances_are_those_of_the_haversine_formula():
    rng = np.random.default_rng(0)
    points, others = (np.stack([rng.uniform(-180, 180, n), rng.uniform(-89, 89, n)], 1) for n in (20, 30))

    def haversine(one, other):
        (lon1, lat1), (lon2, lat2) = np.radians(one), np.radians(other)
        part = math.sin((lat2 - lat1) / 2) ** 2
        part += math.cos(lat1) * math.cos(lat2) * math.sin((lon2 - lon1) / 2) ** 2
        return 2 * 6371 * math.asin(math.sqrt(part))

    expected = [min(haversine(one, other) for other in others) for one in points]
    np.testing.assert_allclose(nearest_km(points, others), expected, rtol=1e-9)
    assert nearest_km(np.array([[179.99, 0.0]]), np.array([[-179.99, 0.0]])) < 3  # over the date line


def test_a_degree_is_as_long_to_the_north_as_to_the_east():
    text = str(charts.places([(name, f"s{k}", points) for k, (name, points) in enumerate(SIDES.items())], alt="map"))
    at = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', text)]
    assert len(at) == 3
    (west, below), (east, also), (middle, above) = at
    assert below == also and above < below and middle == pytest.approx((west + east) / 2, abs=0.01)
    assert (east - west) / 2 == pytest.approx((below - above) * math.cos(math.radians(48.5)), rel=1e-3)
    inside = [52 <= x <= 404 for x, _ in at] + [22 <= y for _, y in at]
    assert all(inside)


@pytest.mark.parametrize("points", [[[7.0, 47.0]], [[7.0, 47.0], [7.0, 49.0]], [[-179.0, 0.0], [179.0, 89.0]]])
def test_any_points_can_be_drawn(points):
    text = str(charts.places([("training", "s0", np.array(points))], alt="map"))
    assert text.count("<circle") == len(points) and "nan" not in text


def test_a_map_goes_on_at_the_180th_meridian():
    points = np.array([[179.95, -17.0], [179.9, -17.1], [-179.95, -17.0]])
    text = str(charts.places([("training", "s0", points)], alt="map"))
    at = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', text)]
    assert (at[2] - at[0]) / (at[0] - at[1]) == pytest.approx(2, rel=1e-3)  # 0.1 degrees apart, and 0.05
    names = [float(name) for name in re.findall(r'class="middle">(-?[\d.]+)<', text)]
    assert any(name > 179.8 for name in names) and any(-180 < name < -179.8 for name in names)
    assert all(180 >= abs(name) > 179 for name in names)


def test_points_upon_each_other_are_drawn_once():
    points = np.repeat([[7.0, 47.0], [8.0, 47.0]], 5000, axis=0)
    assert str(charts.places([("training", "s0", points)], alt="map")).count("<circle") == 2


def test_the_section_says_how_far_the_test_is_from_the_training():
    said = "".join(map(str, geography(located())))
    assert "a cell of 2 km or a group" in said and "3 training, 1 validation, 2 test" in said
    # 9.01 is 0.01 degrees of longitude from 9: 0.744 km; the other, 0.987 degrees or 73 km away.
    assert "36.8 km in the median; for 1 of 2 test tiles it is less than 2 km" in said
    far = {**SIDES, "test": SIDES["test"][:1]}
    said = "".join(map(str, geography(located(sides=far, unknown=4, by_place=False))))
    assert (
        "The split is not by place" in said and "for 0 of 1 test tiles" in said and "Neighbors look alike" not in said
    )
    assert "Of 4 tiles it is not known where they lie" in said
    assert geography(located(sides={**SIDES, "test": np.zeros((0, 2))}))


@pytest.mark.parametrize(
    ("split_by", "overlap", "said"),
    [
        ("place", 0.25, "The split is by place: "),
        ("image", 0.25, "The split is not by place: neighbors may lie on two sides."),
        ("image", None, "The split came with the data, which do not say whether it is by place."),
    ],
)
def test_the_section_says_how_the_split_was_drawn_as_far_as_that_is_known(monkeypatch, split_by, overlap, said):
    """A split of the data's own, or of a file, has no overlap with another that might be drawn."""
    monkeypatch.setattr(stage, "locations", lambda section, names: np.zeros((len(names), 2)))
    section = base().dataset
    section.split_by = split_by
    sides = {side: SimpleNamespace(names=[f"{side}.tif"]) for side in ("train", "validation", "test")}
    run = SimpleNamespace(
        config=SimpleNamespace(dataset=section), dataset=SimpleNamespace(members={}, overlap=overlap, **sides)
    )
    text = "".join(map(str, geography(stage._tile_locations(run))))
    assert said in text and text.count("The split") == 1


def test_the_page_has_a_map_where_places_are_known():
    given = material()
    assert 'id="places"' not in page.render(given)
    assert 'id="places"' in page.render(dataclasses.replace(given, locations=located()))
