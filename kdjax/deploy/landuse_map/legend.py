"""Colors and names of the classes, as a picture and as an attribute table for GDAL and QGIS."""

import colorsys
import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from PIL import Image, ImageDraw, ImageFont

from kdjax.results.text import printable

UNKNOWN, NODATA = 254, 255
"""Values of the map that are not classes: unknown answers, and cells without data or without a classified window."""

GRAY = (170, 170, 170)

TEXT_START = '<PAMDataset><PAMRasterBand band="1"><CategoryNames>'
"""How our attribute tables start; GDAL itself would start each element on a new line."""
TEXT_END = "</PAMDataset>\n"
"""How attribute tables end, including those that GDAL has rewritten."""


def colors(count: int) -> list[tuple[int, int, int]]:
    """A color (red, green, blue), 0 to 255, for each class.

    Hues are far apart; consecutive classes also differ in lightness.
    """
    shades = ((0.45, 0.65), (0.62, 0.55), (0.33, 0.6))
    golden = (math.sqrt(5) - 1) / 2
    rgb = (colorsys.hls_to_rgb((0.58 + k * golden) % 1, *shades[k % len(shades)]) for k in range(count))
    return [(round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in rgb]


def entries(classes: Sequence[str]) -> list[tuple[int, str, tuple[int, int, int]]]:
    """Value, name and color of each value that a cell with data can have: the classes, and then "unknown"."""
    class_entries = [
        (k, printable(name), color) for k, (name, color) in enumerate(zip(classes, colors(len(classes)), strict=True))
    ]
    return [*class_entries, (UNKNOWN, "unknown", GRAY)]


def legend(classes: Sequence[str], shares: Sequence[float]) -> Image.Image:
    """Draws color, name and share (0 to 1) of each of `entries`; "unknown" only if its share is not 0."""
    font = ImageFont.load_default(16)
    visible = [
        (name, color, share)
        for (value, name, color), share in zip(entries(classes), shares, strict=True)
        if share or value != UNKNOWN
    ]
    texts = [f"{name}  {100 * share:.1f} %" for name, _, share in visible]
    width = 52 + math.ceil(max(font.getlength(text) for text in texts))
    picture = Image.new("RGB", (width, 26 * len(texts) + 14), "white")
    draw = ImageDraw.Draw(picture)
    for k, (text, (_, color, _)) in enumerate(zip(texts, visible, strict=True)):
        draw.rectangle((10, 12 + 26 * k, 28, 27 + 26 * k), fill=color, outline="black")
        draw.text((38, 10 + 26 * k), text, fill="black", font=font)
    return picture


def attribute_table(classes: Sequence[str], counts: Sequence[int]) -> str:
    """The content of OUT.tif.aux.xml, from which GDAL reads category names and its raster attribute table.

    Args:
        classes: class names.
        counts: number of cells of each of `entries`.
    """
    columns = (("Value", 0, 5), ("Count", 0, 1), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8))
    fields = "".join(
        f'<FieldDefn index="{k}"><Name>{name}</Name><Type>{kind}</Type><Usage>{usage}</Usage></FieldDefn>'
        for k, (name, kind, usage) in enumerate(columns)
    )
    rows = "".join(
        f'<Row index="{k}">'
        + "".join(f"<F>{escape(str(v))}</F>" for v in (value, counts[k], name, *color))
        + "</Row>\n"
        for k, (value, name, color) in enumerate(entries(classes))
        if value != UNKNOWN or counts[k]
    )
    # XML cannot represent most control characters, so names must be printable.
    categories = "".join(f"<Category>{escape(printable(name))}</Category>" for name in classes)
    return (
        f"{TEXT_START}{categories}</CategoryNames>\n"
        f'<GDALRasterAttributeTable tableType="thematic">{fields}\n{rows}</GDALRasterAttributeTable>'
        f"</PAMRasterBand>{TEXT_END}"
    )
