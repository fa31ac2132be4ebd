"""Colors and names of classes: as a picture, and as GDAL and QGIS read them."""

import colorsys
import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from PIL import Image, ImageDraw, ImageFont

from kdjax.results.text import printable


def colors(count: int) -> list[tuple[int, int, int]]:
    """A color for each class, (red, green, blue) from 0 to 255: hues far apart, neighbours also in lightness."""
    shades = ((0.45, 0.65), (0.62, 0.55), (0.33, 0.6))
    golden = (math.sqrt(5) - 1) / 2
    found = (colorsys.hls_to_rgb((0.58 + k * golden) % 1, *shades[k % len(shades)]) for k in range(count))
    return [(round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in found]


def legend(classes: Sequence[str], shares: Sequence[float]) -> Image.Image:
    """Color, name and share (0 to 1) of each class, as a picture."""
    font = ImageFont.load_default(16)
    texts = [f"{printable(name)}  {100 * share:.1f} %" for name, share in zip(classes, shares, strict=True)]
    width = 52 + math.ceil(max(font.getlength(text) for text in texts))
    picture = Image.new("RGB", (width, 26 * len(texts) + 14), "white")
    draw = ImageDraw.Draw(picture)
    for k, (text, color) in enumerate(zip(texts, colors(len(classes)), strict=True)):
        draw.rectangle((10, 12 + 26 * k, 28, 27 + 26 * k), fill=color, outline="black")
        draw.text((38, 10 + 26 * k), text, fill="black", font=font)
    return picture


def attribute_table(classes: Sequence[str], counts: Sequence[int]) -> str:
    """Category names and GDAL's raster attribute table, as GDAL reads them from OUT.tif.aux.xml."""
    classes = [printable(name) for name in classes]  # XML has no way to write most control characters
    columns = (("Value", 0, 5), ("Count", 0, 1), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8))
    fields = "".join(
        f'<FieldDefn index="{k}"><Name>{name}</Name><Type>{kind}</Type><Usage>{usage}</Usage></FieldDefn>'
        for k, (name, kind, usage) in enumerate(columns)
    )
    rows = "".join(
        f'<Row index="{k}">'
        + "".join(f"<F>{escape(printable(str(v)))}</F>" for v in (k, counts[k], name, *color))
        + "</Row>\n"
        for k, (name, color) in enumerate(zip(classes, colors(len(classes)), strict=True))
    )
    categories = "".join(f"<Category>{escape(name)}</Category>" for name in classes)
    return (
        f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{categories}</CategoryNames>\n'
        f'<GDALRasterAttributeTable tableType="thematic">{fields}\n{rows}</GDALRasterAttributeTable>'
        "</PAMRasterBand></PAMDataset>\n"
    )
