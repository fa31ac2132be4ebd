"""How the report draws."""

import numpy as np
import pytest

from kdjax.report import charts


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
