"""The charts of the report as SVG. Colors are CSS classes, so they suit dark mode and print like the rest of the page.

The `style` of a series names its color and marker: "t" for the teacher; "s0", "s1", … for students.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

from kdjax.report.findings import Bin
from kdjax.report.markup import Markup, element, joined

LABEL_LETTERS = 20
_MARKERS = ("circle", "square", "triangle", "diamond")
_COLORS = 8
STYLES = _COLORS * len(_MARKERS)
"""Number of student styles that differ in color or marker; `style.css` defines the colors."""


@dataclasses.dataclass(frozen=True)
class Series:
    """The curves of one arm, drawn faintly below their mean: (n, 2) arrays of x and y, one per seed.

    Seeds that `failed` do not count in the mean, unless all failed.
    """

    name: str
    style: str
    lines: tuple[np.ndarray, ...]
    failed: tuple[np.ndarray, ...] = ()

    @property
    def mean(self) -> np.ndarray:
        """The mean of the lines that reach the end; lines that end early do not count."""
        lines = self.lines or self.failed
        length = max(map(len, lines))
        return np.mean([line for line in lines if len(line) == length], axis=0)


@dataclasses.dataclass(frozen=True)
class Point:
    """A network in a scatter plot. `interval` is the interval of y, or None."""

    name: str
    style: str
    x: float
    y: float
    interval: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True)
class Axis:
    """An axis that maps values from `low` to `high` to pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        """Returns the position of a value, px."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def ticks(self, count: int) -> list[float]:
        """Returns about `count` round values within the axis."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for steps in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10))):
                inside = [s * 10.0**d for d in decades for s in steps if self.low <= s * 10.0**d <= self.high]
                if len(inside) >= min(count, 3):
                    return inside[:: -(-len(inside) // (2 * count))]
        rough = (self.high - self.low) / count
        size = 10.0 ** math.floor(math.log10(rough))
        step = next(size * s for s in (1, 2, 2.5, 5, 10) if size * s >= rough * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(k * step, 12) for k in range(first, last + 1)]


def legend(entries: Sequence[tuple[str, str]], line: bool = True) -> Markup:
    """Draws a legend of (name, style) entries; `line` draws each marker on a piece of line."""
    return element("ul", *(element("li", _swatch(style, line), name) for name, style in entries), class_="legend")


def _swatch(style: str, line: bool) -> Markup:
    line_marks = [element("line", x1=1, y1=6, x2=25, y2=6, class_="curve")] if line else []
    attributes = {"viewBox": "0 0 26 12", "class_": f"swatch {style}", "aria_hidden": "true"}
    return element("svg", *line_marks, marker(style, 13, 6), **attributes)


def curves(series: Sequence[Series], *, alt: str, unit: str = "", log: bool = False, x_label: str = "epoch") -> Markup:
    """Draws curves over epochs or another quantity; `log` is ignored unless all values are positive."""
    values = np.concatenate([line for curve in series for line in (*curve.lines, *curve.failed)])
    log = log and values[:, 1].min() > 0
    low, high = _percents(values[:, 1]) if unit == "%" else _range(values[:, 1], log)
    x = Axis(0, float(values[:, 0].max()) * 1.02, 46, 334)
    y = Axis(low, high, 186, 22, log)
    groups = []
    for curve in series:
        lines = [element("path", d=_path(line, x, y), class_="curve") for line in (*curve.lines, *curve.failed)]
        if len(lines) > 1:
            faint = element("g", *lines, class_="faint")
            lines = [faint, element("path", element("title", curve.name), d=_path(curve.mean, x, y), class_="curve")]
        lines.append(marker(curve.style, x.place(curve.mean[-1, 0]), y.place(curve.mean[-1, 1]), 4))
        groups.append(element("g", *lines, class_=curve.style))
    return _svg(344, 222, alt, _frame(x, y, x_label, "log scale" if log else unit), *groups)


def scatter(points: Sequence[Point], *, alt: str, x_label: str, y_label: str) -> Markup:
    """Draws a scatter plot of networks with their names, as tall as the names need; x is logarithmic, y in percent."""
    xs = [point.x for point in points]
    ys = [value for point in points for value in (point.y, *(point.interval or ()))]
    margin = max(max(xs) / min(xs), 2) ** 0.12
    x = Axis(min(xs) / margin, max(xs) * margin, 46, 334, log=True)
    middle = math.sqrt(x.low * x.high)
    names = labels([point.name for point in points])
    bottom = max(186, 24 + 13 * (len(points) - 1))
    y = Axis(*_percents(np.array(ys)), bottom, 22)
    groups = []
    # Names would overlap, also those on the left with those on the right, so all are spread out from the top down.
    text_y = y.end
    for number, (point, name) in enumerate(sorted(zip(points, names, strict=True), key=lambda pair: -pair[0].y)):
        marker_y, marker_x, on_left = y.place(point.y), x.place(point.x), point.x <= middle
        text_y = min(max(marker_y, text_y), bottom - 2 - 13 * (len(points) - 1 - number))
        if point.interval:
            low, high = (y.place(bound) for bound in point.interval)
            groups.append(element("line", x1=marker_x, x2=marker_x, y1=low, y2=high, class_=f"bar {point.style}"))
        text_x = marker_x + (14 if on_left else -14)
        groups.append(
            element(
                "g",
                element("line", x1=marker_x, y1=marker_y, x2=text_x, y2=text_y, class_="leader"),
                marker(point.style, marker_x, marker_y),
                element("text", name, x=text_x, y=text_y + 4, class_=None if on_left else "end"),
                element("title", f"{point.name}: {point.y:.2f}"),
                class_=point.style,
            )
        )
        text_y += 13
    return _svg(344, bottom + 36, alt, _frame(x, y, x_label, y_label), *groups)


def recalls(classes: Sequence[str], rows: Sequence[tuple[str, str, Sequence[float | None]]], *, alt: str) -> Markup:
    """Draws one line per class with a marker for each network; rows are (name, style, percent for each class)."""
    present = [v for _, _, values in rows for v in values if v is not None]
    lowest = 10 * math.floor(min(present, default=0) / 10)
    x = Axis(min(lowest, 90), 100, 150, 404)
    height = 22 * len(classes)
    parts = [
        joined(
            element("line", x1=x.place(t), x2=x.place(t), y1=4, y2=height + 8, class_="grid"),
            element("text", f"{t:g}", x=x.place(t), y=height + 24, class_="middle"),
        )
        for t in x.ticks(5)
    ]
    for number, (name, label) in enumerate(zip(classes, labels(classes), strict=True)):
        center = 16 + 22 * number
        parts.append(element("text", label, element("title", name), x=142, y=center + 4, class_="end"))
        parts.append(element("line", x1=150, x2=404, y1=center, y2=center, class_="grid"))
        for row, (network, style, values) in enumerate(rows):
            if (value := values[number]) is not None:
                lane = center + 5.5 * (row - (len(rows) - 1) / 2)
                tooltip = element("title", f"{name}, {network}: {value:.1f} %")
                parts.append(element("g", marker(style, x.place(value), lane, 4), tooltip, class_=style))
    parts.append(element("text", "recall on test images, %", x=277, y=height + 42, class_="middle axis"))
    return _svg(420, height + 50, alt, *parts)


def places(sides: Sequence[tuple[str, str, np.ndarray]], *, alt: str) -> Markup:
    """Draws a map without projection; both axes are true to scale at its middle latitude.

    Args:
        sides: (name, style, points (n, 2) of longitude and latitude in degrees), the last one drawn on top. Points of a
            side that would cover each other are drawn once.
        alt: the alternative text.
    """
    all_points = np.concatenate([points for _, _, points in sides])
    center_longitude = np.angle(np.exp(1j * np.radians(all_points[:, 0])).mean(), deg=True)
    unwrapped = lambda points: points - np.round((points[:, :1] - center_longitude) / 360) * [360, 0]
    if np.ptp(unwrapped(all_points)[:, 0]) < np.ptp(all_points[:, 0]):  # the points straddle the 180th meridian
        all_points, sides = unwrapped(all_points), [(name, style, unwrapped(points)) for name, style, points in sides]
    low, high = all_points.min(0), all_points.max(0)
    middle = (low + high) / 2
    squeeze = max(math.cos(math.radians(middle[1])), 0.05)
    wide, tall = np.maximum(1.08 * (high - low) * (squeeze, 1), 0.01)  # degrees of latitude
    scale = min(352 / wide, 340 / tall)  # px
    bottom = 22 + max(110, tall * scale)
    reach = np.array([352 / squeeze, bottom - 22]) / (2 * scale)
    (west, south), (east, north) = middle - reach, middle + reach
    x, y = Axis(west, east, 52, 404), Axis(south, north, bottom, 22)
    groups = []
    for name, style, points in sides:
        pixels = np.array([(x.place(longitude), y.place(latitude)) for longitude, latitude in points])
        _, first = np.unique(np.round(pixels / 2), axis=0, return_index=True)
        marks = (marker(style, x_pixel, y_pixel, 3.5) for x_pixel, y_pixel in pixels[np.sort(first)])
        groups.append(element("g", element("title", f"{len(points)} {name}"), *marks, class_=style))
    return _svg(420, bottom + 36, alt, _frame(x, y, "longitude", "latitude", meridians=True), *groups)


def reliability(bins: Sequence[Bin], style: str, *, alt: str) -> Markup:
    """Draws accuracy over confidence; dot areas are numbers of predictions, the diagonal is perfect calibration."""
    x, y = Axis(0, 100, 44, 214), Axis(0, 100, 186, 22)
    total = sum(bin_.count for bin_ in bins)
    diagonal = element("line", x1=x.start, y1=y.start, x2=x.end, y2=y.end, class_="diagonal")
    dots = []
    for bin_ in bins:
        confidence, accuracy = 100 * bin_.confidence, 100 * bin_.accuracy
        tooltip = f"confidence {confidence:.1f} %, right {accuracy:.1f} %, {bin_.count} predictions"
        x_pixel, y_pixel = x.place(confidence), y.place(accuracy)
        dots.append(element("line", x1=x_pixel, x2=x_pixel, y1=y_pixel, y2=y.place(confidence), class_="gap"))
        radius = max(2.5, 15 * math.sqrt(bin_.count / total))
        dots.append(element("circle", element("title", tooltip), cx=x_pixel, cy=y_pixel, r=radius, class_="dot"))
    return _svg(
        236, 222, alt, _frame(x, y, "confidence, %", "right, %", 5), diagonal, element("g", *dots, class_=style)
    )


def confusion(classes: Sequence[str], counts: np.ndarray, *, alt: str) -> Markup:
    """Draws a confusion matrix (C, C) whose rows are true classes; color shows the share of the row."""
    cell, left, top = 24, 150, 118
    side = cell * len(classes)
    parts = [element("rect", x=left, y=top, width=side, height=side, class_="empty")]
    for number, (name, label) in enumerate(zip(classes, labels(classes), strict=True)):
        center = cell * number + cell / 2
        parts.append(element("text", label, element("title", name), x=left - 8, y=top + center + 4, class_="end"))
        transform = f"translate({left + center + 4:g} {top - 8}) rotate(-55)"
        parts.append(element("text", label, element("title", name), transform=transform))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    for row, column in zip(*counts.nonzero(), strict=True):
        share = float(shares[row, column])
        x, y = float(left + cell * column), float(top + cell * row)
        tooltip = element("title", f"{classes[row]} taken for {classes[column]}: {counts[row, column]}")
        kind = "right" if row == column else "wrong"
        parts.append(
            element(
                "g",
                tooltip,
                element("rect", x=x, y=y, width=cell, height=cell, fill_opacity=0.18 + 0.82 * share),
                element("text", counts[row, column], x=x + cell / 2, y=y + 16, class_="middle"),
                class_=f"{kind} full" if share > 0.45 else kind,
            )
        )
    for number in range(len(classes) + 1):
        offset = cell * number
        parts.append(element("line", x1=left, x2=left + side, y1=top + offset, y2=top + offset, class_="grid"))
        parts.append(element("line", y1=top, y2=top + side, x1=left + offset, x2=left + offset, class_="grid"))
    parts.append(element("text", "true ↓ predicted →", x=left - 8, y=top - 8, class_="end axis"))
    # The slanted names extend to the right of the last column.
    return _svg(left + side + 70, top + side + 6, alt, *parts, class_="matrix")


def marker(style: str, x: float, y: float, radius: float = 5) -> Markup:
    """Draws the marker of a style; the teacher's is a cross, so it can be told apart without color."""
    if style == "t":
        arm = radius * 0.9
        ends = ((-arm, -arm, arm, arm), (-arm, arm, arm, -arm))
        strokes = (f"M{x + a:.1f} {y + b:.1f}L{x + c:.1f} {y + d:.1f}" for a, b, c, d in ends)
        return element("path", d="".join(strokes), class_="cross")
    corners: dict[str, list[tuple[float, float]]] = {
        "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
        "triangle": [(0, -1.1), (1, 0.8), (-1, 0.8)],
        "diamond": [(0, -1.2), (1.2, 0), (0, 1.2), (-1.2, 0)],
    }
    cycle, color = divmod(int(style[1:]), _COLORS)  # the second student of a color has the next marker
    kind = _MARKERS[(color + cycle) % len(_MARKERS)]
    if kind == "circle":
        return element("circle", cx=float(x), cy=float(y), r=float(radius), class_="mark")
    points = " ".join(f"{x + radius * dx:.1f},{y + radius * dy:.1f}" for dx, dy in corners[kind])
    return element("polygon", points=points, class_="mark")


def _frame(x: Axis, y: Axis, x_label: str, y_label: str, count: int = 5, *, meridians: bool = False) -> Markup:
    """Draws grid, ticks and labels of two axes; with `meridians`, the labels of x are wrapped to ±180 degrees."""
    shown_value = lambda value: round(180 - (180 - value) % 360, 9) if meridians else value
    x_ticks = [
        joined(
            element("line", x1=x.place(value), x2=x.place(value), y1=y.start, y2=y.start + 4, class_="tick"),
            element("text", _number(shown_value(value)), x=x.place(value), y=y.start + 17, class_="middle"),
        )
        for value in x.ticks(count)
    ]
    y_ticks = [
        joined(
            element("line", x1=x.start, x2=x.end, y1=y.place(value), y2=y.place(value), class_="grid"),
            element("text", _number(value), x=x.start - 6, y=y.place(value) + 4, class_="end"),
        )
        for value in y.ticks(count)
    ]
    base = element("line", x1=x.start, x2=x.end, y1=y.start, y2=y.start, class_="tick")
    middle = (x.start + x.end) / 2
    labels = (
        element("text", x_label, x=middle, y=y.start + 33, class_="middle axis"),
        element("text", y_label, x=4, y=9, class_="axis"),
    )
    return joined(*y_ticks, *x_ticks, base, *labels)


def _svg(width: float, height: float, alt: str, *parts: Markup, class_: str = "chart") -> Markup:
    return element(
        "svg", *parts, viewBox=f"0 0 {width:g} {height:g}", width=width, height=height, role="img", aria_label=alt,
        class_=class_,
    )  # fmt: skip


def _path(line: np.ndarray, x: Axis, y: Axis) -> str:
    return "M" + "L".join(f"{x.place(a):.1f} {y.place(b):.1f}" for a, b in line)


def _range(values: np.ndarray, log: bool) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if log:
        factor = max(high / low, 1.5) ** 0.06
        return low / factor, high * factor
    room = max(0.08 * (high - low), 1e-3 * abs(high)) or 0.5
    return low - room, high + room


def _percents(values: np.ndarray) -> tuple[float, float]:
    """Returns a range around percentages, within 0 to 100 and at least 1 wide, or rounding would look like a gain."""
    low, high = float(values.min()), float(values.max())
    room = max(0.08 * (high - low), (1 - (high - low)) / 2)
    low, high = max(low - room, 0.0), min(high + room, 100.0)
    return min(low, max(high - 1, 0.0)), max(high, min(low + 1, 100.0))


def _number(value: float) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):g} {unit}"
    return f"{value:g}"


def labels(names: Sequence[str]) -> list[str]:
    """Shortens names to fit a chart. Different names stay different: both ends or more letters are kept if needed."""
    candidates = (
        [_cut(name, letters, end) for name in names]
        for letters in itertools.count(LABEL_LETTERS)
        for end in (0, *sorted(range(1, letters - 1), key=lambda end: abs(end - letters // 2)))
    )
    return next(cut_names for cut_names in candidates if len(set(cut_names)) == len(set(names)))


def _cut(name: str, letters: int, end: int) -> str:
    """Cuts a name to `letters` characters with an ellipsis, keeping the last `end` characters."""
    return name if len(name) <= letters else f"{name[: letters - 1 - end]}…{name[len(name) - end :]}"
