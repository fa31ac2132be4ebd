"""The rasters of a map, written a row at a time, and then laid out as Cloud Optimized GeoTIFF.

That layout has tiles and overviews inside, so that GIS and web maps read only what they show. GDAL writes it in one go
from a whole file, so each raster is first an ordinary one.
"""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError  # rasterio.errors has no name for it
from rasterio.errors import RasterioError
from rasterio.windows import Window

from kdjax.deploy.landuse_map.legend import NODATA, entries
from kdjax.errors import reason
from kdjax.results.text import printable

NO_CONFIDENCE = -1.0
STEPS = 250
"""Probabilities are bytes: so many steps from 0 to 1, and `NODATA`. The file's scale says so to those who read it."""


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
                rasterio.shutil.copy(
                    whole,
                    self._folder / name,
                    driver="COG",
                    COMPRESS="DEFLATE",
                    BIGTIFF="IF_SAFER",
                    OVERVIEW_RESAMPLING="AVERAGE" if place else "MODE",
                )
                _read_back(self._folder / name)
            except (RasterioError, CPLE_BaseError) as error:
                raise OSError(f"{name}: {reason(error)}") from error
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


def _read_back(path: Path) -> None:
    """Reads all of a raster, a tile at a time: GDAL does not say that the last bytes of a file found no place."""
    with rasterio.open(path) as file:
        for _, window in file.block_windows(1):
            file.read(window=window)
