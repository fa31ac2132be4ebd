"""A georeferenced raster as the classifier sees it."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from kdjax.data import decode
from kdjax.errors import InputError


class Raster:
    """A georeferenced raster as the classifier sees it.

    Attributes:
      shape: height and width, px.
      crs, transform: rasterio's.
    """

    def __init__(
        self, path: Path, bands: Sequence[int] | None, value_range: Sequence[float] | None, trained: Sequence[float]
    ):
        """Opens it.

        Args:
          path: any raster that GDAL reads.
          bands: three band numbers from 1, or one of a grey band; None where it has one band or three.
          value_range: (low, high) to become 0 and 255; None takes 8-bit values as they are.
          trained: the value range of training, () where there was none; the default of 16-bit and float rasters.

        Raises:
          InputError: unreadable, not georeferenced, a colour table, or bands and value range that do not fit.
        """
        self._path = path
        if not path.is_file():
            raise InputError(f"raster: no file {path}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # refused below
                self._file = rasterio.open(path)
        except rasterio.errors.RasterioError as error:
            raise InputError(f"raster {path}: GDAL cannot read it ({_line(error)})") from error
        try:
            self._check(bands, value_range, trained)
        except InputError:
            self._file.close()
            raise

    def _check(
        self, bands: Sequence[int] | None, value_range: Sequence[float] | None, trained: Sequence[float]
    ) -> None:
        file, path = self._file, self._path
        self.shape, self.crs, self.transform = file.shape, file.crs, file.transform
        if file.crs is None or file.transform.is_identity:
            what = "coordinate reference system" if file.crs is None else "geotransform"
            raise InputError(f"raster {path}: it has no {what}; give it one with gdal_translate -a_srs … -a_ullr …")
        if bands is None:
            if file.count not in (1, 3):
                raise InputError(
                    f"raster {path}: it has {file.count} bands; name red, green and blue, as --bands=1,2,3"
                )
            bands = file.indexes
        if max(bands) > file.count:
            raise InputError(f"--bands: raster {path} has {file.count} bands, so no band {max(bands)}")
        if any(file.colorinterp[band - 1] == ColorInterp.palette for band in bands):
            raise InputError(f"raster {path}: it has a colour table; make it RGB with gdal_translate -expand rgb")
        if any(file.dtypes[band - 1].startswith("c") for band in bands):
            raise InputError(f"raster {path}: its values are complex numbers; give a raster of real ones")
        deep = any(file.dtypes[band - 1] != "uint8" for band in bands)
        if value_range is None and deep:
            if not trained:
                raise InputError(
                    f"raster {path}: its values are {file.dtypes[bands[0] - 1]} and training had only 8-bit images; "
                    "say which values are black and white, as --value-range=0,10000"
                )
            value_range = trained
        self._bands = list(bands) if len(bands) == 3 else list(bands) * 3
        self._value_range = value_range

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (height, width, 3) uint8, 0 where there is no data, and where there is (height, width) bool.

        Raises:
          InputError: the file is damaged there.
        """
        window = Window(column, row, width, height)
        try:
            values = np.moveaxis(self._file.read(self._bands, window=window), 0, -1)
            # A dark pixel may have one band equal to the nodata value: it is data as long as another is not.
            valid = self._file.read_masks(self._bands, window=window).any(0)
        except rasterio.errors.RasterioError as error:
            raise InputError(f"raster {self._path}: it cannot be read at row {row} ({_line(error)})") from error
        valid &= np.isfinite(values).all(-1)
        pixels = values if self._value_range is None else decode.to_uint8(values, *self._value_range)
        return np.where(valid[..., None], pixels, 0), valid

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
