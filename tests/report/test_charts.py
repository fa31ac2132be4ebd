"""How the report draws."""

import re
from pathlib import Path

import numpy as np
import pytest

from kdjax.report import charts
from kdjax.report.findings import Bin


@pytest.mark.parametrize(
    ("low", "high", "log"),
    [
        (0, 15, False),
        (56, 98.2, False),
        (0.98, 0.981, False),
        (0.0053, 41.2, True),
        (1.1, 1.7, True),
        (2.2e6, 1.5e7, True),
    ],
)
def test_ticks_are_few_round_values_inside(low, high, log):
    ticks = charts.Axis(low, high, 0, 100, log).ticks(5)
    assert 2 <= len(ticks) <= 10 and ticks == sorted(set(ticks))
    assert all(low <= one <= high and float(f"{one:.4g}") == pytest.approx(one) for one in ticks)


def test_a_curve_is_the_mean_of_the_seeds_that_came_to_the_end():
    lines = (np.array([[1, 2.0], [2, 1.0]]), np.array([[1, 4.0], [2, 3.0]]), np.array([[1, 90.0]]))
    one = charts.Series("kl", "s0", lines)
    np.testing.assert_array_equal(one.mean, [[1, 3], [2, 2]])
    drawn = charts.curves([one], alt="losses", log=True)
    assert drawn.count("<path") == 4 and "log scale" in drawn
    assert "log scale" not in charts.curves([charts.Series("kl", "s0", (lines[0] - 1,))], alt="", log=True)


def test_places_on_an_axis():
    assert charts.Axis(0, 10, 40, 240).place(2.5) == pytest.approx(90)
    assert charts.Axis(1, 100, 200, 0, log=True).place(10) == pytest.approx(100)


def attributes(tag, text):
    """Attributes of the elements of this name, in order."""
    return [dict(re.findall(r'([\w-]+)="(.*?)"', one)) for one in re.findall(f"<{tag} (.*?)>", text)]


def test_a_confusion_matrix_has_true_classes_down_and_right_ones_on_the_diagonal():
    counts = np.array([[8, 2, 0], [0, 5, 5], [0, 0, 1]])
    text = str(charts.confusion(("a", "b", "c"), counts, alt="matrix"))
    cells = re.findall(r'<g class="(.*?)"><title>(.*?)</title><rect (.*?)>', text)
    assert len(cells) == 5
    corner = attributes("rect", text)[0]
    for kind, title, rect in cells:
        row, column, count = re.fullmatch(r"(.) taken for (.): (\d+)", title).groups()
        row, column = "abc".index(row), "abc".index(column)
        assert counts[row, column] == int(count) and kind.split()[0] == ("right" if row == column else "wrong")
        place = dict(re.findall(r'([\w-]+)="(.*?)"', rect))
        assert float(place["x"]) - float(corner["x"]) == 24 * column
        assert float(place["y"]) - float(corner["y"]) == 24 * row
        share = counts[row, column] / counts[row].sum()
        assert float(place["fill-opacity"]) == pytest.approx(0.18 + 0.82 * share, abs=0.006)


def test_points_lie_at_their_values_with_their_intervals():
    points = [
        charts.Point("big", "t", 1e7, 99.0),
        charts.Point("small", "s0", 1e5, 90.0, (85.0, 95.0)),
        charts.Point("middle", "s1", 1e6, 80.0, (75.0, 85.0)),
    ]
    text = str(charts.scatter(points, alt="cost", x_label="parameters", y_label="top-1"))
    (circle,) = attributes("circle", text)
    x = charts.Axis(1e5 / 100**0.12, 1e7 * 100**0.12, 46, 334, log=True)
    low, high = 75 - 0.08 * 24, 100  # nothing is above
    y = charts.Axis(low, high, 186, 22)
    assert float(circle["cx"]) == pytest.approx(x.place(1e5), abs=0.01)
    assert float(circle["cy"]) == pytest.approx(y.place(90), abs=0.01)
    bars = {one["class"]: one for one in attributes("line", text) if one.get("class", "").startswith("bar ")}
    assert set(bars) == {"bar s0", "bar s1"}  # the teacher has no interval
    for style, (least, most) in (("s0", (85, 95)), ("s1", (75, 85))):
        bar = bars[f"bar {style}"]
        assert float(bar["y1"]) == pytest.approx(y.place(least), abs=0.01)
        assert float(bar["y2"]) == pytest.approx(y.place(most), abs=0.01)
    assert [re.search(f"<title>{p.name}: {p.y:.2f}</title>", text) is not None for p in points] == [True] * 3


@pytest.mark.parametrize(
    "names",
    [
        ("industrial_buildings_north", "industrial_buildings_south", "sea"),
        ("mobilenet_v2 64 px from efficientnet_lite0", "mobilenet_v2 64 px from efficientnet_lite2",
         "mobilenet_v2 64 px alone", "mobilenet_v2 32 px from efficientnet_lite0", "mobilenet_v2 32 px alone"),
        ("x" * 25 + "a" + "y" * 25, "x" * 25 + "b" + "y" * 25),  # as many letters as it takes
        ("a" * 21, "a" * 22, "a" * 19 + "…"),
        (HALF := "permanent crops, irrigated", HALF),
    ],
)  # fmt: skip
def test_names_that_differ_have_labels_that_differ(names):
    found = charts.labels(names)
    assert len(set(found)) == len(set(names))
    if len(set(names)) == len(names):
        drawn = str(charts.confusion(names, np.eye(len(names), dtype=int), alt=""))
        drawn += str(charts.recalls(names, [("teacher", "t", [90.0] * len(names))], alt=""))
        points = [charts.Point(name, "t", 1.0 + k, 90.0) for k, name in enumerate(names)]
        drawn += str(charts.scatter(points, alt="", x_label="parameters", y_label="top-1"))
        drawn = re.sub("<title>.*?</title>", "", drawn)
        for label in found:
            assert len(re.findall(rf">{re.escape(label)}[<]", drawn)) == 4  # twice in the matrix


def test_labels_are_no_longer_than_they_need_to_be():
    assert charts.labels(["sea", "n" * 20, "forest of broad-leaved trees"]) == ["sea", "n" * 20, "forest of broad-lea…"]
    north, south = charts.labels(["industrial_buildings_north", "industrial_buildings_south"])
    assert len(north) == len(south) == 20 and north.endswith("north") and south.endswith("south")


def colors():
    """Custom property that gives a style its color."""
    css = (Path(charts.__file__).parent / "style.css").read_text(encoding="utf-8")
    rules = re.findall(r"((?:\.s\d+(?:, )?)+) \{ --c: var\((--s\d)\); \}", css)
    return {style: color for names, color in rules for style in re.findall(r"s\d+", names)}


def test_no_two_styles_look_alike():
    styles = [f"s{number}" for number in range(charts.STYLES)]
    shape = lambda style: str(charts.marker(style, 9, 9))
    assert set(colors()) == set(styles) and charts.STYLES >= 32
    assert len({(colors()[style], shape(style)) for style in styles}) == charts.STYLES
    # The first are what they were: one color each.
    assert len({colors()[style] for style in styles[:8]}) == 8


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        ([100, 100], 99, 100), ([0, 0], 0, 1), ([80, 100], 78.4, 100), ([0, 50], 0, 54), ([60, 60], 59.5, 60.5),
        ([99.9, 99.9], 99, 100), ([40, 60], 38.4, 61.6),
    ],
)  # fmt: skip
def test_an_axis_of_percent_ends_with_them_and_is_never_narrow(values, low, high):
    line = np.array([[1, values[0]], [2, values[1]]], float)
    text = str(charts.curves([charts.Series("kl", "s0", (line,))], alt="", unit="%"))
    y = charts.Axis(low, high, 186, 22)
    (path,) = re.findall('<path d="(.*?)" class="curve">', text)
    heights = [float(one.split()[1]) for one in path[1:].split("L")]
    assert heights == pytest.approx([y.place(value) for value in values], abs=0.06)
    ticks = [float(one) for one in re.findall(r'class="end">([-\d.e]+)<', text)]
    assert len(ticks) >= 2 and all(0 <= one <= 100 for one in ticks)


def test_losses_of_nothing_have_no_ticks_of_nothing():
    line = np.array([[1, 0.0], [2, 0.0]])
    text = str(charts.curves([charts.Series("kl", "s0", (line,))], alt="", log=True))
    ticks = [float(one) for one in re.findall(r'class="end">([-\d.e]+)<', text)]
    assert len(ticks) >= 2 and max(map(abs, ticks)) > 0.1


@pytest.mark.parametrize("count", [1, 13, 16, 40])
def test_every_name_of_a_plane_is_in_the_picture_and_apart(count):
    points = [charts.Point(f"student {k}", "s0", 2.2e6 * (1 + k % 2), 90 + k / 10) for k in range(count)]
    text = str(charts.scatter(points, alt="", x_label="parameters", y_label="top-1"))
    height = float(re.search(r'viewBox="0 0 \d+ ([\d.]+)"', text).group(1))
    at = sorted(float(y) for y in re.findall(r'<text x="[\d.]+" y="(-?[\d.]+)"[^>]*>student', text))
    assert len(at) == count and at[0] >= 22 and at[-1] <= height - 33
    assert all(below - above >= 12.9 for above, below in zip(at, at[1:], strict=False))
    assert height == 222 or count > 13


def test_recalls_lie_on_the_line_of_their_class():
    text = str(charts.recalls(("a", "b"), [("teacher", "s0", [95.0, None]), ("kl", "s4", [92.0, 98.0])], alt="recall"))
    circles = attributes("circle", text)
    x = charts.Axis(90, 100, 150, 404)
    assert [float(one["cx"]) for one in circles] == pytest.approx([x.place(v) for v in (95, 92, 98)], abs=0.01)
    assert [float(one["cy"]) for one in circles] == pytest.approx([16 - 2.75, 16 + 2.75, 38 + 2.75], abs=0.01)
    assert re.findall("<title>(.*?)</title>", text) == [
        "a",
        "a, teacher: 95.0 %",
        "a, kl: 92.0 %",
        "b",
        "b, kl: 98.0 %",
    ]


def test_a_reliability_diagram_has_accuracy_over_confidence():
    bins = [Bin(30, 0.9, 0.8), Bin(10, 0.5, 0.6)]
    text = str(charts.reliability(bins, "s0", alt="calibration"))
    x, y = charts.Axis(0, 100, 44, 214), charts.Axis(0, 100, 186, 22)
    for one, dot in zip(bins, attributes("circle", text), strict=True):
        assert float(dot["cx"]) == pytest.approx(x.place(100 * one.confidence), abs=0.01)
        assert float(dot["cy"]) == pytest.approx(y.place(100 * one.accuracy), abs=0.01)
        assert float(dot["r"]) == pytest.approx(15 * np.sqrt(one.count / 40), abs=0.01)


def test_a_curve_goes_through_its_points():
    line = np.array([[1, 2.0], [3, 1.0]])
    text = str(charts.curves([charts.Series("kl", "s0", (line,))], alt="losses"))
    x, y = charts.Axis(0, 3.06, 46, 334), charts.Axis(1 - 0.08, 2 + 0.08, 186, 22)
    (path,) = re.findall('<path d="(.*?)" class="curve">', text)
    assert path == "M" + "L".join(f"{x.place(a):.1f} {y.place(b):.1f}" for a, b in line)
    (end,) = attributes("circle", text)
    assert (float(end["cx"]), float(end["cy"])) == pytest.approx((x.place(3), y.place(1)), abs=0.01)
