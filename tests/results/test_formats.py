"""How numbers are written."""

import pytest

from kdjax.results import formats


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (formats.percent(0.12345), "12.35"),
        (formats.percent(1.0), "100.00"),
        (formats.percent(None), "-"),
        (formats.percent(None, "–"), "–"),
        (formats.percent_and_spread(0.8, 0.02646), "80.00 ± 2.65"),
        (formats.percent_and_spread(0.8, None), "80.00"),
        (formats.percent_and_spread(None, None), "-"),
        (formats.interval([0.73431, 0.86567]), "73.43 to 86.57"),
        (formats.interval(None), ""),
        (formats.points(0.0025), "0.25"),
        (formats.points(1 / 2700), "0.037"),
        (formats.points(0.0005), "0.05"),
        (formats.signed_points(0.01234), "+1.23"),
        (formats.signed_points(-0.00012), "-0.01"),
        (formats.signed_points(0.1 + 0.2 - 0.3), "+0.00"),
        (formats.signed_points(0.3 - (0.1 + 0.2)), "+0.00"),
        (formats.number(1.23456), "1.235"),
        (formats.number(None), "-"),
        (formats.weight(4.0), "4"),
        (formats.weight(0.25), "0.25"),
        (formats.weight(None), "-"),
        (formats.p_value(0.0123), "0.012"),
        (formats.p_value(0.001), "0.001"),
        (formats.p_value(0.00099), "<0.001"),
        (formats.p_value(None), ""),
        (formats.short(999), "999"),
        (formats.short(1000), "1 k"),
        (formats.short(404_000), "404 k"),
        (formats.short(1_234_567), "1.23 M"),
        (formats.short(15_470_000_000), "15.5 G"),
        (formats.short(999_499), "999 k"),
        (formats.short(999_600), "1 M"),
        (formats.short(999_600_000), "1 G"),
        (formats.short(999_600_000_000), "1 T"),
        (formats.short(1_234_000_000_000), "1.23 T"),
        (formats.short(None), "-"),
        (formats.grouped(600), "600"),
        (formats.grouped(5940), "5 940"),
        (formats.grouped(1_234_567), "1 234 567"),
        (formats.ratio(9.1337), "9.13"),
        (formats.ratio(999.4), "999"),
        (formats.ratio(999.6), "1 000"),
        (formats.ratio(2475.8), "2 476"),
    ],
)
def test_numbers(written, expected):
    assert written == expected
