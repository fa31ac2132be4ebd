"""A georeferenced raster as the classifier sees it."""

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
from kdjax.data.bands import Bands, called_otherwise, described_elsewhere, is_unnamed
from kdjax.data.meaning import BYTES, Meaning
from kdjax.data.pixels import DecodeError
from kdjax.deploy.landuse_map import inputs
from kdjax.deploy.landuse_map.areas import pixel
from kdjax.deploy.landuse_map.layers import Grid
from kdjax.errors import InputError, reason

_LOOKS, _LOOK = 8, 128  # windows along an axis, and their side in px, that show the kind of numbers
_SEEN = 2**20  # values that are kept to check the kind of numbers: at most twice as many


def check_name(path: Path | str, what: str) -> None:
    """Refuses a path that GDAL cannot be given.

    Raises:
        InputError: it is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InputError(f"{what}: the name of {ascii(str(path))} is not UTF-8: rename it") from None


class Raster:
    """A georeferenced raster as the classifier sees it.

    Attributes:
        path: the file, or what else GDAL opens.
        shape: height and width, px.
        crs: rasterio's coordinate reference system.
        transform: rasterio's geotransform.
        pixel_size_m: side of a pixel on the ground in the middle of the raster, m; None = not known.
        aspect: height over width of a pixel there.
        bands: numbers of the bands taken, from 1: red, green and blue, or one gray band, or the bands of the training.
        called: names of other bands by which the file describes what is taken as red, green and blue; '' = none.
    """

    def __init__(
        self, path: Path | str, bands: Sequence[int] | None, value_range: Sequence[float] | None, trained: Meaning
    ):
        """Opens it.

        Args:
            path: any raster that GDAL reads: a file, a URL or a path that begins with /vsi.
            bands: three band numbers from 1, or one of a gray band, or one for each band of the training; None takes
                what the file says of its bands.
            value_range: (low, high) to become 0 and 255; None takes 8-bit values as they are, others as in training.
            trained: what the training tiles were.

        Raises:
            InputError: unreadable, not georeferenced, a color table, or bands and values that do not fit.
        """
        self.path = path
        if not inputs.is_remote(str(path)) and not os.path.isfile(path):
            raise InputError(f"raster: no file {path}: give a GeoTIFF, another raster that GDAL reads, or a URL")
        check_name(path, "raster")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # refused below
                self._file = rasterio.open(path)
        except rasterio.errors.RasterioError as error:
            raise InputError(f"raster {path}: GDAL cannot read it ({reason(error)})") from error
        try:
            self._check_place()
            self._shown, self.called = trained.bands, ""
            self.bands = self._choose(bands)
            self._check_bands()
            self._check_values(value_range, trained)
        except InputError:
            self._file.close()
            raise

    def _check_place(self) -> None:
        file = self._file
        self.shape, self.crs, self.transform = file.shape, file.crs, file.transform
        a, b, _, d, e, _ = file.transform[:6]
        if (flat := abs(a * e - b * d) <= 1e-12 * math.hypot(a, d) * math.hypot(b, e)) or file.transform.is_identity:
            lacks = "geotransform" + flat * " under which a pixel has an area"
        elif file.crs is None:
            lacks = "coordinate reference system"
        else:
            self.pixel_size_m, self.aspect = pixel(Grid(file.height, file.width, file.crs, file.transform))
            return
        raise InputError(f"raster {self.path}: it has no {lacks}; gdal_translate -a_srs … -a_ullr … gives it one")

    def _choose(self, bands: Sequence[int] | None) -> tuple[int, ...]:
        file = self._file
        wanted = len(self._shown.names) if self._shown else 3
        if bands is not None and len(bands) not in ((wanted,) if self._shown else (1, 3)):
            needed = " ".join(self._shown.names) if self._shown else "red, green and blue, or one gray band"
            raise InputError(f"--bands: {len(bands)} given, but the model takes {needed}")
        roles = [role.name.lower() for role in file.colorinterp]
        self._alpha = roles.index("alpha") + 1 if roles.count("alpha") == 1 else None
        # GDAL calls the fourth band of any 8-bit file alpha.
        self._alpha_is_mask = self._alpha is None or pixels.is_mask(
            np.concatenate([self._values([self._alpha], window).ravel() for window in self._looks()])
        )
        if bands is not None:
            if max(bands) > file.count:
                raise InputError(f"--bands: raster {self.path} has {file.count} bands, so no band {max(bands)}")
            return tuple(bands)
        if self._shown:
            return self._by_name(self._shown)
        try:
            if not self._alpha_is_mask:
                raise DecodeError("alpha is no mask")
            chosen = tuple(k + 1 for k in pixels.choose_bands(roles).color)
        except DecodeError:
            raise InputError(
                f"raster {self.path}: it has {file.count} bands ({', '.join(roles[:6])}{', …' * (len(roles) > 6)}); "
                "name red, green and blue, as --bands=1,2,3"
            ) from None
        self._check_described(chosen)
        return chosen

    def _check_described(self, chosen: tuple[int, ...]) -> None:
        """Refuses bands that would be taken for other colors than their descriptions name."""
        descriptions = [text or "" for text in self._file.descriptions]
        if places := described_elsewhere(descriptions, [band - 1 for band in chosen]):
            found, taken = ",".join(str(place + 1) for place in places), ",".join(map(str, chosen))
            raise InputError(
                f"raster {self.path}: red, green and blue are its bands {found} by their descriptions, and {taken} by "
                f"their place or colors: give --bands={found}, or, if the training tiles have them so, --bands={taken}"
            )
        try:
            self.called = called_otherwise(descriptions, [band - 1 for band in chosen])
        except DecodeError as error:
            raise InputError(f"raster {self.path}: {error}, or give --bands") from None

    def _by_name(self, wanted: Bands) -> tuple[int, ...]:
        every = list(range(1, self._file.count + 1))
        seen = np.concatenate([self._values(every, window).reshape(-1, 1, len(every)) for window in self._looks()])
        try:
            alpha = None if self._alpha is None else self._alpha - 1
            places, order = wanted.choose(seen, said := [text or "" for text in self._file.descriptions], alpha)
            self._alpha_is_mask &= alpha is None or is_unnamed(alpha, said, order)
        except DecodeError as error:
            raise InputError(
                f"raster {self.path}: {error}; describe its bands, or give the numbers of {' '.join(wanted.names)} in "
                "--bands"
            ) from None
        return tuple(place + 1 for place in places)

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

    def _check_values(self, value_range: Sequence[float] | None, trained: Meaning) -> None:
        dtype = np.dtype(self._file.dtypes[self.bands[0] - 1])
        structure = self._file.tags(ns="IMAGE_STRUCTURE")
        self._white_is_zero = structure.get("MINISWHITE") == "YES"
        self._bits = int(self._file.tags(self.bands[0], ns="IMAGE_STRUCTURE").get("NBITS", 8 * dtype.itemsize))
        if value_range is None and dtype != np.uint8 and not trained.value_range:
            raise InputError(
                f"raster {self.path}: its values are {dtype} and training had only 8-bit images; "
                "say which values are black and white, as --value-range=0,10000"
            )
        most = 2**self._bits - 1
        if value_range is not None and dtype == np.uint8 and not 0 <= value_range[0] < value_range[1] <= most:
            given = ",".join(f"{value:g}" for value in value_range)
            kind = "bytes" if self._bits == 8 else f"numbers of {self._bits} bit{'s' * (self._bits > 1)}"
            raise InputError(
                f"--value-range is {given}, but the values of {self.path} are {kind}, from 0 to {most}: leave it out, "
                "or give a range among them"
            )
        # A tile of one, two or four bits is decoded so; a range is one of the file's own numbers.
        self._spread = 255 // most if self._bits < 8 and value_range is None else 1
        self._meaning = trained
        if value_range is not None:
            self._meaning = Meaning(tuple(value_range), (BYTES,), bands=trained.bands)
        self._dtype = trained.dtype
        self._stretched = value_range is not None or dtype != np.uint8
        self._hint = "say which values are black and white, as --value-range=0,10000"
        if value_range is not None:
            self._hint = "--value-range says so"
        self._seen, self._thinned = [np.empty(0, dtype)], 1
        expected = sentinel2_offset.Seen.by(trained) if value_range is None else None
        shown = []
        for window in self._looks():
            values, valid = self._data(window)
            self._see(values[valid][::7].ravel())
            shown.append(values[valid])
        if expected is not None:  # a raster is one image: where it is dark once, nothing was added anywhere
            expected.see(np.concatenate(shown))
        self.check_seen()
        if value_range is None and dtype != np.uint8:
            self._check_wider()
        if expected is not None and expected.shown:
            other, kept = (
                f"--value-range={low:g},{high:g}" for low, high in (expected.other_range, trained.value_range)
            )
            raise InputError(
                f"raster {self.path}: {expected.shown}, and not as in training: give {other}, or, if the values are "
                f"right, {kept}"
            )

    def _check_wider(self) -> None:
        """Refuses bytes in a wider type, which the value range of the training would all make black."""
        values, (low, high) = np.concatenate(self._seen), self._meaning.value_range
        if self._meaning.are_bytes(float(values.max(initial=0))):
            raise InputError(
                f"raster {self.path}: its values are {values.dtype}, but no more than bytes, up to {values.max():g}, "
                f"where {low:g}..{high:g} are expected: give --value-range=0,255, or, if the raster is so dark, "
                f"--value-range={low:g},{high:g}"
            )

    def _see(self, values: np.ndarray) -> None:
        """Keeps values for `check_seen`: every second one, every fourth and so on of a large raster."""
        self._seen.append(values[:: self._thinned])
        if sum(map(len, self._seen)) > _SEEN:
            self._seen, self._thinned = [np.concatenate(self._seen)[::2]], 2 * self._thinned

    def check_seen(self) -> None:
        """Refuses values of another kind than in training among all that was read so far.

        Raises:
            InputError: says which, and how to map them all the same.
        """
        values = np.concatenate(self._seen)
        if self._stretched and values.dtype == np.uint8:  # bytes that --value-range stretches are numbers like others
            values = values.astype(np.int16)
        try:
            self._meaning.check(values)
        except DecodeError as error:
            raise InputError(f"raster {self.path}: {error}; {self._hint}") from error

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels (height, width, bands) as in training, 0 where there is no data; where there is, (height, width) bool.

        Raises:
            InputError: the file is damaged there.
        """
        values, valid = self._data(Window(column, row, width, height))
        self._see(values[::31, ::31][valid[::31, ::31]].ravel())
        result = pixels.to_levels(values, self._meaning.value_range, self._dtype) if self._stretched else values
        return np.where(valid[..., None], result, 0), valid

    @property
    def unused_alpha(self) -> int | None:
        """The number of a band that the file calls alpha and that is neither taken nor a mask; None = there is none."""
        if self._alpha is None or self._alpha_is_mask or self._alpha in self.bands:
            return None
        said = [text or "" for text in self._file.descriptions]
        return self._alpha if is_unnamed(self._alpha - 1, said, ()) else None

    @property
    def scaled(self) -> bool:
        """Whether the file says that its values mean others, by a scale or an offset of a band taken."""
        told = zip(self._file.scales, self._file.offsets, strict=True)
        return any(one != (1.0, 0.0) for number, one in enumerate(told, 1) if number in self.bands)

    @property
    def files(self) -> list[str]:
        """Those on this machine that it is read from, such as the sources of a VRT."""
        return [name for name in self._file.files if os.path.isfile(name)]

    def digest(self) -> str:
        """SHA-256 of what a map is made of: the place, the values of the bands taken, and where there is data.

        All of the raster is read, about a million pixels at a time.

        Raises:
            InputError: the file is damaged.
        """
        result = hashlib.sha256(f"{self.crs.to_wkt()} {self.transform[:6]} {self.shape}".encode())
        (height, width), (block_height, block_width) = self.shape, self._file.block_shapes[self.bands[0] - 1]
        columns = min(width, block_width * max(1, 1024 // block_width))
        rows = block_height * max(1, 2**20 // columns // block_height)
        for top in range(0, height, rows):
            for left in range(0, width, columns):
                values, valid = self._data(Window(left, top, min(columns, width - left), min(rows, height - top)))
                # Of all that has no data, nothing is shown to the classifier.
                for part in (valid, np.where(valid[..., None], values, 0)):
                    result.update(f"{part.shape} {part.dtype} ".encode() + np.ascontiguousarray(part).tobytes())
        return result.hexdigest()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _looks(self) -> Iterator[Window]:
        """A few windows all over the raster."""
        tops, lefts = (
            sorted({int(at) for at in np.linspace(0, max(length - _LOOK, 0), _LOOKS)}) for length in self.shape
        )
        for top in tops:
            for left in lefts:
                yield Window(left, top, min(_LOOK, self.shape[1]), min(_LOOK, self.shape[0]))

    def _data(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Values (height, width, bands), white the highest, and where they are data (height, width) bool."""
        bands = self.bands * 3 if len(self.bands) == 1 and not self._shown else self.bands
        values = self._values(bands, window)
        valid = np.isfinite(values).all(-1)
        if self._alpha_is_mask or MaskFlags.alpha not in self._file.mask_flag_enums[bands[0] - 1]:
            # A dark pixel may have one band equal to the nodata value: it is data as long as another is not.
            valid &= self._read(self._file.read_masks, bands, window).any(0)
        if self._alpha is not None and self._alpha_is_mask and self._alpha not in bands:
            # GDAL's mask has it in files of two or four bands only, of some types, and not beside a nodata value.
            valid &= self._values([self._alpha], window)[..., 0] != 0
        if self._white_is_zero:
            try:
                values = pixels.inverted(values, self._bits)
            except DecodeError as error:
                raise InputError(f"raster {self.path}: {error}") from error
        return values * np.uint8(self._spread) if self._spread > 1 else values, valid

    def _values(self, bands: Sequence[int], window: Window) -> np.ndarray:
        return np.moveaxis(self._read(self._file.read, bands, window), 0, -1)

    def _read(self, function: Callable[..., np.ndarray], bands: Sequence[int], window: Window) -> np.ndarray:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", rasterio.errors.NodataShadowWarning)  # both count, see `_data`
                return function(list(bands), window=window)
        except rasterio.errors.RasterioError as error:
            why = reason(error.__cause__ or error)  # it says "see previous exception" itself
            where = f"raster {self.path}: it cannot be read at row {window.row_off} ({why})"
            raise InputError(f"{where}: put back what is missing, or make it again") from error
