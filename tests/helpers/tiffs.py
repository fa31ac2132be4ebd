"""TIFF files with the tags that a test asks for."""

import io

import tifffile

GDAL_METADATA, GDAL_NODATA = 42112, 42113


def text_tag(code, text):
    return code, "s", 0, text, True


def tiff(array, *tags, **options):
    out = io.BytesIO()
    tifffile.imwrite(out, array, extratags=tags, **options)
    return out.getvalue()
