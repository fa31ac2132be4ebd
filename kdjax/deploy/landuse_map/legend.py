"""Colors and names of classes: as a picture, and as GDAL and QGIS read them."""

import colorsys
import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from PIL import Image, ImageDraw, ImageFont

from kdjax.results.text import printable

UNKNOWN, NODATA = 254, 255
"""Values of the map that are no class: the model does not know, and there are no data."""

GRAY = (170, 170, 170)

BEGINS = '<PAMDataset><PAMRasterBand band="1"><CategoryNames>'
"""What an attribute table begins with; GDAL itself would begin each element on a line of its own."""
ENDS = "</PAMDataset>\n"
"""What it ends with, also where GDAL has written it anew."""


def colors(count: int) -> list[tuple[int, int, int]]:
    """A color for each class, (red, green, blue) from 0 to 255: hues far apart, neighbors also in lightness."""
    shades = ((0.45, 0.65), (0.62, 0.55), (0.33, 0.6))
    golden = (math.sqrt(5) - 1) / 2
    found = (colorsys.hls_to_rgb((0.58 + k * golden) % 1, *shades[k % len(shades)]) for k in range(count))
    return [(round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in found]


def entries(classes: Sequence[str]) -> list[tuple[int, str, tuple[int, int, int]]]:
    """Value, name and color of everything that a cell of the map may say: the classes, and "unknown" last."""
    named = [
        (k, printable(name), color) for k, (name, color) in enumerate(zip(classes, colors(len(classes)), strict=True))
    ]
    return [*named, (UNKNOWN, "unknown", GRAY)]


def legend(classes: Sequence[str], shares: Sequence[float]) -> Image.Image:
    """Color, name and share (0 to 1) of each of `entries`, as a picture; "unknown" where there is some."""
    font = ImageFont.load_default(16)
    shown = [one for one in zip(entries(classes), shares, strict=True) if one[1] or one[0][0] != UNKNOWN]
    texts = [f"{name}  {100 * share:.1f} %" for (_, name, _), share in shown]
    width = 52 + math.ceil(max(font.getlength(text) for text in texts))
    picture = Image.new("RGB", (width, 26 * len(texts) + 14), "white")
    draw = ImageDraw.Draw(picture)
    for k, (text, ((_, _, color), _)) in enumerate(zip(texts, shown, strict=True)):
        draw.rectangle((10, 12 + 26 * k, 28, 27 + 26 * k), fill=color, outline="black")
        draw.text((38, 10 + 26 * k), text, fill="black", font=font)
    return picture


def attribute_table(classes: Sequence[str], counts: Sequence[int]) -> str:
    """Category names and GDAL's raster attribute table, as GDAL reads them from OUT.tif.aux.xml.

    Args:
        classes: their names.
        counts: cells of each of `entries`.
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
    # XML has no way to write most control characters.
    categories = "".join(f"<Category>{escape(printable(name))}</Category>" for name in classes)
    return (
        f"{BEGINS}{categories}</CategoryNames>\n"
        f'<GDALRasterAttributeTable tableType="thematic">{fields}\n{rows}</GDALRasterAttributeTable>'
        f"</PAMRasterBand>{ENDS}"
    )
