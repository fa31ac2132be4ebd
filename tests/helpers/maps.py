"""Rasters to map, a model that names their colors, and the map by a sum over pixels."""

import csv
import hashlib
import warnings
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
rasterio = pytest.importorskip("rasterio")

from helpers.color_model import color_logits  # noqa: E402

from kdjax.deploy.landuse_map import __main__ as command  # noqa: E402

CLASSES = ("field", "forest <&>", "water")
ROOT = Path(__file__).parents[2]
SIDE = 8
UTM = rasterio.CRS.from_epsg(32631)
NORTH_UP = rasterio.Affine(0.5, 0, 500_000, 0, -0.5, 4_600_000)


def softmax(logits):
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def scene(height, width, seed=0):
    """(height, width, 3) uint8: patches of three colors, with noise."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 3, (-(-height // 16), -(-width // 16))).repeat(16, 0).repeat(16, 1)[:height, :width]
    return (rng.integers(0, 100, (height, width, 3)) + 150 * np.eye(3, dtype=int)[patches]).astype(np.uint8)


def write(path, pixels, crs=UTM, transform=NORTH_UP, **options):
    pixels = np.moveaxis(pixels, -1, 0)
    options = {"driver": "GTiff"} | options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # such files are made on purpose
        with rasterio.open(
            path, "w", height=pixels.shape[1], width=pixels.shape[2], count=len(pixels), dtype=pixels.dtype,
            crs=crs, transform=transform, **options,
        ) as file:  # fmt: skip
            file.write(pixels)
    return path


def run(*arguments):
    command.main([str(argument) for argument in arguments])


def digests(folder):
    """SHA-256 of each file."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def areas(path):
    """The rows of a table of areas by class."""
    with path.open(encoding="utf-8") as file:
        return {row["class"]: row for row in csv.DictReader(file)}


def by_pixels(pixels, tile, stride, valid=None):
    """Probabilities of each cell: every window adds its own to each of its pixels, cell by cell the mean of those.

    NaN where less than half of the cell is valid, or of every window over it.
    """
    height, width = pixels.shape[:2]
    valid = np.ones((height, width), bool) if valid is None else valid
    sums, counts = np.zeros((height, width, 3)), np.zeros((height, width))
    for top in sorted({*range(0, height - tile + 1, stride), height - tile}):
        for left in sorted({*range(0, width - tile + 1, stride), width - tile}):
            place = np.s_[top : top + tile, left : left + tile]
            if valid[place].mean() >= 0.5:
                seen = np.where(valid[place][..., None], pixels[place], 0)
                sums[place] += softmax(color_logits(seen[None]))[0]
                counts[place] += 1
    rows, columns = -(-height // stride), -(-width // stride)
    result = np.full((rows, columns, 3), np.nan)
    for row, column in np.ndindex(rows, columns):
        cell = np.s_[row * stride : (row + 1) * stride, column * stride : (column + 1) * stride]
        if counts[cell].sum() and valid[cell].mean() >= 0.5:
            result[row, column] = sums[cell].sum((0, 1)) / counts[cell].sum()
    return result


def mixed_vrt(path, *sources):
    """A virtual raster with the first band of each source."""
    bands = ""
    for number, source in enumerate(sources, 1):
        with rasterio.open(source) as file:
            height, width = file.shape
            kind, transform = {"uint8": "Byte", "uint16": "UInt16"}[file.dtypes[0]], file.transform.to_gdal()
        bands += (
            f'<VRTRasterBand dataType="{kind}" band="{number}"><SimpleSource><SourceFilename>{source}</SourceFilename>'
            "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        )
    bands += bands.split("</VRTRasterBand>")[0].replace('band="1"', 'band="3"') + "</VRTRasterBand>"
    path.write_text(
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><SRS>EPSG:32631</SRS>'
        f"<GeoTransform>{', '.join(map(str, transform))}</GeoTransform>{bands}</VRTDataset>"
    )
    return path
