"""Writes the rasters of a map row by row, and then converts them to Cloud Optimized GeoTIFF.

That format has internal tiles and overviews, so that GIS and web maps read only what they show. GDAL can write it only
from a complete file, so each raster is written as an ordinary GeoTIFF first.
"""

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError  # rasterio.errors has no name for it
from rasterio.enums import Resampling
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.warp import transform
from rasterio.windows import Window

from kdjax.deploy.landuse_map.legend import NODATA, entries
from kdjax.errors import InputError, one_line
from kdjax.results.text import printable

NO_CONFIDENCE = -1.0
STEPS = 250
"""Number of steps from 0 to 1 in which probabilities are stored, as bytes; the file's scale tells readers."""

_TILE = 512
"""Side of the tiles of a Cloud Optimized GeoTIFF."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """The cells of a map.

    Attributes:
        height, width: number of cells.
        crs, transform: rasterio's coordinate reference system and geotransform.
    """

    height: int
    width: int
    crs: Any
    transform: Any


def check(path: Path | str, grid: Grid) -> None:
    """Refuses a coordinate reference system that a GeoTIFF cannot hold.

    GDAL would write it to a second file, which a map does not have.

    Args:
        path: the raster, for the message.
        grid: its pixels.

    Raises:
        InputError: a GeoTIFF of one pixel, written with this system and read back, lies elsewhere.
    """
    options = {"driver": "GTiff", "height": 1, "width": 1, "count": 1, "dtype": "uint8"}
    with rasterio.MemoryFile() as memory_file:
        with memory_file.open(**options, crs=grid.crs, transform=grid.transform):
            pass
        content = memory_file.read()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # refused below
        # A new memory file, without the sidecar that GDAL may have written beside the first.
        with rasterio.MemoryFile(content) as copy, copy.open() as file:
            same_transform = file.transform.almost_equals(grid.transform, 1e-9 * max(map(abs, grid.transform[:6])))
            if same_transform and _same_location(file.crs, grid):
                return
    raise InputError(
        f"raster {path}: a map is a GeoTIFF, which cannot hold the raster's coordinate reference system "
        f"({_abbreviated(grid.crs)}): reproject it, as with gdalwarp -t_srs EPSG:4326"
    )


def _same_location(crs: Any, grid: Grid) -> bool:
    """Whether `crs` places the corners of a grid where the grid's own system does; the names may differ."""
    if crs is None or crs == grid.crs:
        return crs is not None
    columns, rows = np.array([0, grid.width, grid.width, 0]), np.array([0, 0, grid.height, grid.height])
    a, b, c, d, e, f = grid.transform[:6]
    corners = np.array([a * columns + b * rows + c, d * columns + e * rows + f])
    try:
        transformed = np.array(transform(grid.crs, crs, *corners))
    except CPLE_BaseError:
        return False
    return bool(np.abs(transformed - corners).max() < 0.1 * math.sqrt(abs(grid.transform.determinant)))


def _abbreviated(crs: Any) -> str:
    try:
        text = crs.to_proj4()
    except (CRSError, CPLE_BaseError):
        text = ""
    return " ".join((text or crs.to_wkt()).split())[:120]


class Layers:
    """The rasters of a map while they are written: classes, confidence and, if requested, all probabilities.

    Args:
        folder: the folder to write to.
        names: of the two or three files, in that order.
        grid: the cells.
        classes: class names.
        tags: GeoTIFF tags for every file.
    """

    def __init__(self, folder: Path, names: Sequence[str], grid: Grid, classes: Sequence[str], tags: dict[str, Any]):
        self._folder, self._names, self._grid, self._classes = folder, names, grid, classes
        self._open_files = contextlib.ExitStack()
        self._classes_file = self._create(names[0], tags, dtype="uint8", nodata=NODATA)
        self._classes_file.write_colormap(1, {value: color for value, _, color in entries(classes)})
        self._classes_file.set_band_description(1, "land-use class")
        self._classes_file.update_tags(1, **{f"class_{value}": name for value, name, _ in entries(classes)})
        self._confidence_file = self._create(names[1], tags, dtype="float32", nodata=NO_CONFIDENCE)
        self._confidence_file.set_band_description(1, "probability of the land-use class")
        self._probabilities_file = None
        if len(names) > 2:
            self._probabilities_file = self._create(
                names[2], tags, dtype="uint8", nodata=NODATA, count=len(classes), interleave="pixel"
            )
            self._probabilities_file.scales = (1 / STEPS,) * len(classes)
            for band, name in enumerate(classes, 1):
                self._probabilities_file.set_band_description(band, printable(name))

    def write(self, number: int, best: np.ndarray, confidence: np.ndarray, probabilities: np.ndarray) -> None:
        """Writes a row of cells.

        Args:
            number: index of the row.
            best: values (n,) uint8.
            confidence: (n,) float32.
            probabilities: (n, classes), NaN for cells without a class.
        """
        window = Window(0, number, self._grid.width, 1)
        self._classes_file.write(best[None, None], window=window)
        self._confidence_file.write(confidence[None, None], window=window)
        if self._probabilities_file is not None:
            steps = np.where(np.isnan(probabilities), NODATA, np.rint(STEPS * np.nan_to_num(probabilities)))
            self._probabilities_file.write(steps.T[:, None].astype(np.uint8), window=window)

    def finish(self) -> None:
        """Closes the files and converts them to Cloud Optimized GeoTIFFs under their final names.

        Raises:
            OSError: a file cannot be written, for example because the disk is full.
        """
        self._open_files.close()
        for k, name in enumerate(self._names):
            plain = self._folder / f"{name}.rows"
            try:
                levels = _add_overviews(plain, Resampling.average if k else Resampling.mode)
                rasterio.shutil.copy(
                    plain,
                    self._folder / name,
                    driver="COG",
                    COMPRESS="DEFLATE",
                    BIGTIFF="IF_SAFER",
                    BLOCKSIZE=_TILE,
                    OVERVIEWS="FORCE_USE_EXISTING",
                )
                # GDAL reports no error if the disk has no room for an overview or for the last bytes.
                with rasterio.open(self._folder / name) as file:
                    if len(file.overviews(1)) != levels:
                        raise OSError(f"{name}: an overview cannot be written")
                for _ in blocks(self._folder / name):
                    pass
            except (RasterioError, CPLE_BaseError) as error:
                raise OSError(f"{name}: {one_line(error.__cause__ or error)}") from error
            plain.unlink()

    def close(self) -> None:
        """Closes the files without converting them."""
        self._open_files.close()

    def _create(self, name: str, tags: dict[str, Any], *, count: int = 1, **options: Any) -> Any:
        grid = self._grid
        file = self._open_files.enter_context(
            rasterio.open(
                self._folder / f"{name}.rows", "w", driver="GTiff", height=grid.height, width=grid.width, count=count,
                crs=grid.crs, transform=grid.transform, compress="deflate", BIGTIFF="IF_SAFER", **options,
            )
        )  # fmt: skip
        file.update_tags(**tags)
        return file


def _add_overviews(path: Path, resampling: Resampling) -> int:
    """Adds overviews of a half, a quarter and so on, down to one tile, and returns their number."""
    with rasterio.open(path, "r+") as file:
        levels = max(0, math.ceil(math.log2(max(file.shape) / _TILE)))
        for level in range(levels):
            # One call for each overview. In a single call, GDAL would make each from the previous one; but the mode of
            # modes is not the mode of the cells, nor is a mean of means their mean if some have no data.
            file.build_overviews([2 ** (level + 1)], resampling)
    return levels


def blocks(path: Path) -> Iterator[np.ndarray]:
    """Yields all values of a raster, one tile (bands, height, width) at a time.

    Raises:
        RasterioError: the raster is damaged.
    """
    with rasterio.open(path) as file:
        for _, window in file.block_windows(1):
            yield file.read(window=window)
