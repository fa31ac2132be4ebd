"""Formats numbers for the tables, the notes, the report and the model card."""

from kdjax.results.intervals import ROUNDING


def percent(fraction: float | None, missing: str = "-") -> str:
    """0.12345 → 12.35; the caller adds the percent sign."""
    return missing if fraction is None else f"{100 * fraction:.2f}"


def percent_and_spread(mean: float | None, std: float | None) -> str:
    """80.00 ± 2.65, or 80.00 where there is no spread."""
    return percent(mean) + (f" ± {percent(std)}" if std is not None else "")


def interval(bounds: tuple[float, float] | list[float] | None) -> str:
    """73.43 to 86.57; empty if there is no interval."""
    return f"{percent(bounds[0])} to {percent(bounds[1])}" if bounds else ""


def points(fraction: float) -> str:
    """0.0025 → 0.25; a third decimal below 0.05."""
    return f"{100 * fraction:.{2 if abs(fraction) >= 5e-4 else 3}f}"


def signed_points(fraction: float) -> str:
    """0.0123 → +1.23; +0.00 if the difference is only rounding error."""
    return f"{100 * (fraction if abs(fraction) > ROUNDING else 0.0):+.2f}"


def number(value: float | None) -> str:
    """Three decimals."""
    return "-" if value is None else f"{value:.3f}"


def weight(value: float | None) -> str:
    """1.0 → 1, 0.5 → 0.5."""
    return "-" if value is None else f"{value:g}"


def p_value(value: float | None) -> str:
    """0.0123 → 0.012; <0.001 below that; empty if there is no test."""
    return "" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def short(count: float | None) -> str:
    """1234567 → 1.23 M."""
    if count is None:
        return "-"
    rounded = float(f"{count:.3g}")  # 999 600 is 1 M
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if rounded >= size:
            return f"{rounded / size:.3g} {unit}"
    return f"{count:g}"


def grouped(count: int) -> str:
    """5940 → 5 940."""
    return f"{count:,}".replace(",", " ")


def ratio(value: float) -> str:
    """9.134 → 9.13; 2475.8 → 2 476."""
    return f"{value:.3g}" if value < 999.5 else grouped(round(value))
