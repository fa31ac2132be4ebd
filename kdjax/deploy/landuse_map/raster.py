"""Reads a georeferenced raster in the form that the classifier takes."""

import hashlib
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from kdjax.data import pixels, sentinel2_offset
from kdjax.data.bands import Bands, contradicting_names, described_color_places, is_unnamed
from kdjax.data.meaning import BYTES, Meaning
from kdjax.data.pixels import DecodeError
from kdjax.deploy.landuse_map import inputs
from kdjax.deploy.landuse_map.areas import middle_pixel
from kdjax.deploy.landuse_map.layers import Grid
from kdjax.errors import InputError, one_line

_SAMPLE_WINDOWS, _SAMPLE_SIDE = 8, 128  # windows along each axis, and their side in px, that are read when opening
_MAX_SAMPLES = 2**20  # above this number, every second value kept to check the kind of numbers is dropped


class Raster:
    """An open georeferenced raster whose pixels are read in the form that the classifier takes.

    Attributes:
        path: a file, a URL or a path that begins with /vsi.
        shape: height and width, px.
        crs: rasterio's coordinate reference system.
        transform: rasterio's geotransform.
        pixel_size_m: side of a pixel on the ground in the middle of the raster, m; None = not known.
        aspect: ratio of height to width of that pixel.
        bands: numbers, from 1, of the bands to read: red, green and blue, one gray band, or the model's bands.
        zero_share: share of the sampled pixels with data that are 0 in all bands; 0 for 8 bits, where that is a color.
        other_names: descriptions of the bands read as red, green and blue, if they name other bands; '' otherwise.
    """

    def __init__(
        self, path: Path | str, bands: Sequence[int] | None, value_range: Sequence[float] | None, meaning: Meaning
    ):
        """Opens a raster and checks that the model can classify it.

        Args:
            path: a file, a URL or a path that begins with /vsi.
            bands: numbers, from 1, of three bands, of one gray band, or of each of the model's bands; None chooses
                them by the file's descriptions and color interpretation.
            value_range: (low, high), which become 0 and 255; None keeps 8-bit values, and maps others as in training.
            meaning: what the numbers and the size of the training tiles were.

        Raises:
            InputError: the raster cannot be read or is not georeferenced, or its bands or values do not fit the model.
        """
        self.path = path
        if not inputs.is_remote(str(path)) and not os.path.isfile(path):
            raise InputError(f"raster: no file {path}: give a GeoTIFF, another raster that GDAL reads, or a URL")
        inputs.check_name(path, "raster")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # refused below
                self._file = rasterio.open(path)
        except rasterio.errors.RasterioError as error:
            raise InputError(f"raster {path}: GDAL cannot read it ({one_line(error)})") from error
        try:
            self._check_georeference()
            self._model_bands, self.other_names = meaning.bands, ""
            self._descriptions = [text or "" for text in self._file.descriptions]
            self.bands = self._choose_bands(bands)
            self._check_bands()
            self._check_values(value_range, meaning)
        except InputError:
            self._file.close()
            raise

    def _check_georeference(self) -> None:
        file = self._file
        self.shape, self.crs, self.transform = file.shape, file.crs, file.transform
        a, b, _, d, e, _ = file.transform[:6]
        if (flat := abs(a * e - b * d) <= 1e-12 * math.hypot(a, d) * math.hypot(b, e)) or file.transform.is_identity:
            missing = "geotransform" + flat * " under which a pixel has an area"
        elif file.crs is None:
            missing = "coordinate reference system"
        else:
            self.pixel_size_m, self.aspect = middle_pixel(Grid(file.height, file.width, file.crs, file.transform))
            return
        raise InputError(f"raster {self.path}: it has no {missing}; gdal_translate -a_srs … -a_ullr … gives it one")

    def _choose_bands(self, bands: Sequence[int] | None) -> tuple[int, ...]:
        file = self._file
        allowed_counts = (len(self._model_bands.names),) if self._model_bands else (1, 3)
        if bands is not None and len(bands) not in allowed_counts:
            names = " ".join(self._model_bands.names) if self._model_bands else "red, green and blue, or one gray band"
            raise InputError(f"--bands: {len(bands)} given, but the model takes {names}")
        roles = [role.name.lower() for role in file.colorinterp]
        self._alpha = roles.index("alpha") + 1 if roles.count("alpha") == 1 else None
        # GDAL takes the fourth band of any 8-bit file for alpha, so its values decide whether it is a mask.
        self._alpha_is_mask = self._alpha is None or pixels.is_mask(
            np.concatenate([self._values([self._alpha], window).ravel() for window in self._sample_windows()])
        )
        if bands is not None:
            if max(bands) > file.count:
                raise InputError(f"--bands: raster {self.path} has {file.count} bands, so no band {max(bands)}")
            return tuple(bands)
        if self._model_bands:
            return self._bands_by_name(self._model_bands)
        try:
            if not self._alpha_is_mask:
                raise DecodeError("alpha is no mask")
            chosen = tuple(k + 1 for k in pixels.choose_bands(roles).color)
        except DecodeError:
            raise InputError(
                f"raster {self.path}: it has {file.count} bands ({', '.join(roles[:6])}{', …' * (len(roles) > 6)}); "
                "name red, green and blue, as --bands=1,2,3"
            ) from None
        self._check_descriptions(chosen)
        return chosen

    def _check_descriptions(self, chosen: tuple[int, ...]) -> None:
        """Refuses bands whose descriptions name other colors than those that they would be read as."""
        if indices := described_color_places(self._descriptions, [band - 1 for band in chosen]):
            described, default = ",".join(str(index + 1) for index in indices), ",".join(map(str, chosen))
            raise InputError(
                f"raster {self.path}: red, green and blue are its bands {described} by their descriptions, and "
                f"{default} by their place or colors: give --bands={described}, or, if the training tiles have them "
                f"so, --bands={default}"
            )
        try:
            self.other_names = contradicting_names(self._descriptions, [band - 1 for band in chosen])
        except DecodeError as error:
            raise InputError(f"raster {self.path}: {error}, or give --bands") from None

    def _bands_by_name(self, model_bands: Bands) -> tuple[int, ...]:
        count, descriptions = self._file.count, self._descriptions
        windows = [self._values(range(1, count + 1), window) for window in self._sample_windows()]
        sample = np.concatenate([values.reshape(-1, 1, count) for values in windows])
        try:
            alpha = None if self._alpha is None else self._alpha - 1
            indices, order = model_bands.choose(sample, descriptions, alpha)
            self._alpha_is_mask &= alpha is None or is_unnamed(alpha, descriptions, order)
        except DecodeError as error:
            raise InputError(
                f"raster {self.path}: {error}; describe its bands, or give the numbers of "
                f"{' '.join(model_bands.names)} in --bands"
            ) from None
        return tuple(index + 1 for index in indices)

    def _check_bands(self) -> None:
        file, path = self._file, self.path
        if any(file.colorinterp[band - 1] == ColorInterp.palette for band in self.bands):
            raise InputError(f"raster {path}: it has a color table; make it RGB with gdal_translate -expand rgb")
        if file.tags(ns="IMAGE_STRUCTURE").get("SOURCE_COLOR_SPACE") == "CIELAB":
            raise InputError(
                f"raster {path}: its colors are CIELAB, which GDAL and training make RGB differently; make it RGB "
                "with gdal_translate -b 1 -b 2 -b 3"
            )
        types = sorted({file.dtypes[band - 1] for band in self.bands})
        if any(name.startswith("c") for name in types):
            raise InputError(f"raster {path}: its values are complex numbers; give a raster of real ones")
        if len(types) > 1:
            raise InputError(
                f"raster {path}: its bands have different types ({', '.join(types)}); "
                "make them one with gdal_translate -ot"
            )

    def _check_values(self, value_range: Sequence[float] | None, meaning: Meaning) -> None:
        dtype = np.dtype(self._file.dtypes[self.bands[0] - 1])
        structure = self._file.tags(ns="IMAGE_STRUCTURE")
        self._white_is_zero = structure.get("MINISWHITE") == "YES"
        self._bits = int(self._file.tags(self.bands[0], ns="IMAGE_STRUCTURE").get("NBITS", 8 * dtype.itemsize))
        if value_range is None and dtype != np.uint8 and not meaning.value_range:
            raise InputError(
                f"raster {self.path}: its values are {dtype} and training had only 8-bit images; "
                "say which values are black and white, as --value-range=0,10000"
            )
        largest = 2**self._bits - 1
        if value_range is not None and dtype == np.uint8 and not 0 <= value_range[0] < value_range[1] <= largest:
            text = ",".join(f"{value:g}" for value in value_range)
            kind = "bytes" if self._bits == 8 else f"numbers of {self._bits} bit{'s' * (self._bits > 1)}"
            raise InputError(
                f"--value-range is {text}, but the values of {self.path} are {kind}, from 0 to {largest}: leave it "
                "out, or give a range among them"
            )
        # Training tiles of 1, 2 or 4 bits are decoded to 0..255 too; --value-range is in the file's own numbers.
        self._bit_scale = 255 // largest if self._bits < 8 and value_range is None else 1
        self._meaning = meaning
        if value_range is not None:
            self._meaning = Meaning(tuple(value_range), (BYTES,), bands=meaning.bands)
        self._dtype = meaning.dtype
        self._stretched = value_range is not None or dtype != np.uint8
        advice = "say which values are black and white, as --value-range=0,10000"
        self._hint = advice if value_range is None else "--value-range says so"
        self._samples, self._sample_step = [np.empty(0, dtype)], 1
        offset_check = sentinel2_offset.OffsetEvidence.for_training(meaning) if value_range is None else None
        window_values = []
        for window in self._sample_windows():
            values, valid = self._data(window)
            self._keep_samples(values[valid][::7].ravel())
            window_values.append(values[valid])
        sampled = np.concatenate(window_values)
        self.zero_share = float(np.mean(~sampled.any(-1))) if dtype != np.uint8 and len(sampled) else 0.0
        if offset_check is not None:  # a raster is one image: a dark value anywhere shows that nothing was added
            offset_check.add(sampled)
        self.check_samples()
        if value_range is None and dtype != np.uint8:
            self._check_bytes_in_wider_type()
        if offset_check is not None and offset_check.contradiction:
            other, same = (f"{low:g},{high:g}" for low, high in (offset_check.other_range, meaning.value_range))
            raise InputError(
                f"raster {self.path}: {offset_check.contradiction}, and not as in training: give "
                f"--value-range={other}, or, if the values are right, --value-range={same}"
            )

    def _check_bytes_in_wider_type(self) -> None:
        """Refuses bytes stored in a wider type, which the training's value range would all make black."""
        values, (low, high) = np.concatenate(self._samples), self._meaning.value_range
        if self._meaning.are_bytes(float(values.max(initial=0))):
            raise InputError(
                f"raster {self.path}: its values are {values.dtype}, but no more than bytes, up to {values.max():g}, "
                f"where {low:g}..{high:g} are expected: give --value-range=0,255, or, if the raster is so dark, "
                f"--value-range={low:g},{high:g}"
            )

    def _keep_samples(self, values: np.ndarray) -> None:
        """Keeps values for `check_samples`; of a large raster only every second, every fourth and so on."""
        self._samples.append(values[:: self._sample_step])
        if sum(map(len, self._samples)) > _MAX_SAMPLES:
            self._samples, self._sample_step = [np.concatenate(self._samples)[::2]], 2 * self._sample_step

    def check_samples(self) -> None:
        """Refuses the raster if the values read so far are of another kind than in training.

        Raises:
            InputError: they are; the message says which, and how to map the raster anyway.
        """
        values = np.concatenate(self._samples)
        if self._stretched and values.dtype == np.uint8:  # --value-range applies to bytes as to any other numbers
            values = values.astype(np.int16)
        try:
            self._meaning.check(values)
        except DecodeError as error:
            raise InputError(f"raster {self.path}: {error}; {self._hint}") from error

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads pixels (height, width, bands) as in training, 0 without data; and which are data, (height, width) bool.

        Raises:
            InputError: the file is damaged there.
        """
        values, valid = self._data(Window(column, row, width, height))
        self._keep_samples(values[::31, ::31][valid[::31, ::31]].ravel())
        levels = pixels.to_levels(values, self._meaning.value_range, self._dtype) if self._stretched else values
        return np.where(valid[..., None], levels, 0), valid

    @property
    def unused_alpha(self) -> int | None:
        """The number of a band that the file calls alpha and that is neither read nor a mask; None = there is none."""
        if self._alpha is None or self._alpha_is_mask or self._alpha in self.bands:
            return None
        return self._alpha if is_unnamed(self._alpha - 1, self._descriptions, ()) else None

    @property
    def scaled(self) -> bool:
        """Whether the file gives a scale or an offset for the values of a band that is read."""
        scalings = zip(self._file.scales, self._file.offsets, strict=True)
        return any(scaling != (1.0, 0.0) for band, scaling in enumerate(scalings, 1) if band in self.bands)

    @property
    def files(self) -> list[str]:
        """The local files from which the raster is read, such as the sources of a VRT."""
        return [name for name in self._file.files if os.path.isfile(name)]

    def digest(self) -> str:
        """SHA-256 of everything in the raster that decides a map: its georeference, its values, and which are data.

        Reads the values of the chosen bands of the whole raster, about a million pixels at a time.

        Raises:
            InputError: the file is damaged.
        """
        digest = hashlib.sha256(f"{self.crs.to_wkt()} {self.transform[:6]} {self.shape}".encode())
        (height, width), (block_height, block_width) = self.shape, self._file.block_shapes[self.bands[0] - 1]
        columns = min(width, block_width * max(1, 1024 // block_width))
        rows = block_height * max(1, 2**20 // columns // block_height)
        for top in range(0, height, rows):
            for left in range(0, width, columns):
                values, valid = self._data(Window(left, top, min(columns, width - left), min(rows, height - top)))
                # The classifier gets 0 for pixels without data, so their values do not count.
                for array in (valid, np.where(valid[..., None], values, 0)):
                    digest.update(f"{array.shape} {array.dtype} ".encode() + np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _sample_windows(self) -> Iterator[Window]:
        """Yields small windows spread over the raster."""
        height, width = (min(_SAMPLE_SIDE, length) for length in self.shape)
        last = (self.shape[0] - height, self.shape[1] - width)
        tops, lefts = (sorted(set(np.linspace(0, end, _SAMPLE_WINDOWS).astype(int).tolist())) for end in last)
        yield from (Window(left, top, width, height) for top in tops for left in lefts)

    def _data(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Values (height, width, bands), white being the highest, and which pixels are data, (height, width) bool."""
        bands = self.bands * 3 if len(self.bands) == 1 and not self._model_bands else self.bands
        values = self._values(bands, window)
        valid = np.isfinite(values).all(-1)
        if self._alpha_is_mask or MaskFlags.alpha not in self._file.mask_flag_enums[bands[0] - 1]:
            # One band of a dark pixel may equal the nodata value, so a pixel is data if any band differs from it.
            valid &= self._read(self._file.read_masks, bands, window).any(0)
        if self._alpha is not None and self._alpha_is_mask and self._alpha not in bands:
            # GDAL's mask includes alpha only in files of two or four bands of some types without a nodata value.
            valid &= self._values([self._alpha], window)[..., 0] != 0
        if self._white_is_zero:
            try:
                values = pixels.inverted(values, self._bits)
            except DecodeError as error:
                raise InputError(f"raster {self.path}: {error}") from error
        if self._model_bands and (nodata := self._model_bands.undeclared_nodata(values.dtype)) is not None:
            valid &= (values != nodata).any(-1)
        return values * np.uint8(self._bit_scale) if self._bit_scale > 1 else values, valid

    def _values(self, bands: Sequence[int], window: Window) -> np.ndarray:
        return np.moveaxis(self._read(self._file.read, bands, window), 0, -1)

    def _read(self, function: Callable[..., np.ndarray], bands: Sequence[int], window: Window) -> np.ndarray:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", rasterio.errors.NodataShadowWarning)  # `_data` uses both masks
                return function(list(bands), window=window)
        except rasterio.errors.RasterioError as error:
            cause = one_line(error.__cause__ or error)  # the error itself only says "see previous exception"
            problem = f"raster {self.path}: it cannot be read at row {window.row_off} ({cause})"
            raise InputError(f"{problem}: put back what is missing, or make it again") from error
