"""The rasters of a map, written a row at a time, and then laid out as Cloud Optimized GeoTIFF.

That layout has tiles and overviews inside, so that GIS and web maps read only what they show. GDAL writes it in one go
from a whole file, so each raster is first an ordinary one.
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
from kdjax.errors import InputError, reason
from kdjax.results.text import printable

NO_CONFIDENCE = -1.0
STEPS = 250
"""Probabilities are bytes: so many steps from 0 to 1, and `NODATA`. The file's scale says so to those who read it."""

_TILE = 512
"""Side of the tiles of a Cloud Optimized GeoTIFF."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """The cells of a map.

    Attributes:
        height, width: number of cells.
        crs, transform: where they lie, as rasterio has them.
    """

    height: int
    width: int
    crs: Any
    transform: Any


def check(path: Path | str, grid: Grid) -> None:
    """Refuses coordinates that a GeoTIFF cannot hold: GDAL would put them into another file, which a map has not.

    Args:
        path: the raster, for the message.
        grid: its pixels.

    Raises:
        InputError: a GeoTIFF of one pixel is not read back as lying there.
    """
    options = {"driver": "GTiff", "height": 1, "width": 1, "count": 1, "dtype": "uint8"}
    with rasterio.MemoryFile() as held:
        with held.open(**options, crs=grid.crs, transform=grid.transform):
            pass
        content = held.read()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # refused below
        with rasterio.MemoryFile(content) as alone, alone.open() as file:  # without what GDAL put beside it
            same = file.transform.almost_equals(grid.transform, 1e-9 * max(map(abs, grid.transform[:6])))
            if same and _same_place(file.crs, grid):
                return
    raise InputError(
        f"raster {path}: a map is a GeoTIFF, which cannot hold the raster's coordinate reference system "
        f"({_short(grid.crs)}): reproject it, as with gdalwarp -t_srs EPSG:4326"
    )


def _same_place(crs: Any, grid: Grid) -> bool:
    """Whether a system puts the corners of a grid where its own does; names may differ."""
    if crs is None or crs == grid.crs:
        return crs is not None
    columns, rows = np.array([0, grid.width, grid.width, 0]), np.array([0, 0, grid.height, grid.height])
    a, b, c, d, e, f = grid.transform[:6]
    corners = np.array([a * columns + b * rows + c, d * columns + e * rows + f])
    try:
        found = np.array(transform(grid.crs, crs, *corners))
    except CPLE_BaseError:
        return False
    return bool(np.abs(found - corners).max() < 0.1 * math.sqrt(abs(grid.transform.determinant)))


def _short(crs: Any) -> str:
    try:
        said = crs.to_proj4()
    except (CRSError, CPLE_BaseError):
        said = ""
    return " ".join((said or crs.to_wkt()).split())[:120]


class Layers:
    """The rasters of a map in a folder: classes, their confidence and, where asked for, every class's probability.

    Args:
        folder: where they are written.
        names: of the files, in that order; two or three.
        grid: the cells.
        classes: class names.
        tags: what to note in every file.
    """

    def __init__(self, folder: Path, names: Sequence[str], grid: Grid, classes: Sequence[str], tags: dict[str, Any]):
        self._folder, self._names, self._grid, self._classes = folder, names, grid, classes
        self._open = contextlib.ExitStack()
        self._indices = self._new(names[0], tags, dtype="uint8", nodata=NODATA)
        self._indices.write_colormap(1, {value: color for value, _, color in entries(classes)})
        self._indices.set_band_description(1, "land-use class")
        self._indices.update_tags(1, **{f"class_{value}": name for value, name, _ in entries(classes)})
        self._confidences = self._new(names[1], tags, dtype="float32", nodata=NO_CONFIDENCE)
        self._confidences.set_band_description(1, "probability of the land-use class")
        self._probabilities = None
        if len(names) > 2:
            self._probabilities = self._new(
                names[2], tags, dtype="uint8", nodata=NODATA, count=len(classes), interleave="pixel"
            )
            self._probabilities.scales = (1 / STEPS,) * len(classes)
            for band, name in enumerate(classes, 1):
                self._probabilities.set_band_description(band, printable(name))

    def write(self, number: int, best: np.ndarray, confidence: np.ndarray, probabilities: np.ndarray) -> None:
        """Writes a row of cells.

        Args:
            number: of the row.
            best: values (n,) uint8.
            confidence: (n,) float32.
            probabilities: (n, classes), NaN where there are no data.
        """
        window = Window(0, number, self._grid.width, 1)
        self._indices.write(best[None, None], window=window)
        self._confidences.write(confidence[None, None], window=window)
        if self._probabilities is not None:
            steps = np.where(np.isnan(probabilities), NODATA, np.rint(STEPS * np.nan_to_num(probabilities)))
            self._probabilities.write(steps.T[:, None].astype(np.uint8), window=window)

    def finish(self) -> None:
        """Closes the files and lays them out; afterwards they have their names.

        Raises:
            OSError: one cannot be written, as where the disk is full.
        """
        self._open.close()
        for place, name in enumerate(self._names):
            whole = self._folder / f"{name}.rows"
            try:
                levels = _add_overviews(whole, Resampling.average if place else Resampling.mode)
                rasterio.shutil.copy(
                    whole,
                    self._folder / name,
                    driver="COG",
                    COMPRESS="DEFLATE",
                    BIGTIFF="IF_SAFER",
                    BLOCKSIZE=_TILE,
                    OVERVIEWS="FORCE_USE_EXISTING",
                )
                # GDAL does not say that an overview, or the last bytes, found no place.
                with rasterio.open(self._folder / name) as file:
                    if len(file.overviews(1)) != levels:
                        raise OSError(f"{name}: an overview cannot be written")
                for _ in blocks(self._folder / name):
                    pass
            except (RasterioError, CPLE_BaseError) as error:
                raise OSError(f"{name}: {reason(error.__cause__ or error)}") from error
            whole.unlink()

    def close(self) -> None:
        """Closes the files."""
        self._open.close()

    def _new(self, name: str, tags: dict[str, Any], *, count: int = 1, **options: Any) -> Any:
        grid = self._grid
        file = self._open.enter_context(
            rasterio.open(
                self._folder / f"{name}.rows", "w", driver="GTiff", height=grid.height, width=grid.width, count=count,
                crs=grid.crs, transform=grid.transform, compress="deflate", BIGTIFF="IF_SAFER", **options,
            )
        )  # fmt: skip
        file.update_tags(**tags)
        return file


def _add_overviews(path: Path, resampling: Resampling) -> int:
    """Adds overviews of a half, a quarter and so on, down to one tile. Returns their number."""
    with rasterio.open(path, "r+") as file:
        levels = max(0, math.ceil(math.log2(max(file.shape) / _TILE)))
        for level in range(levels):
            # A call for each: of several GDAL makes one from another, and the mode of modes is not that of the cells,
            # nor is the mean of means where some have no data.
            file.build_overviews([2 ** (level + 1)], resampling)
    return levels


def blocks(path: Path) -> Iterator[np.ndarray]:
    """All values of a raster, a tile (bands, height, width) at a time.

    Raises:
        RasterioError: it is damaged.
    """
    with rasterio.open(path) as file:
        for _, window in file.block_windows(1):
            yield file.read(window=window)
