"""Maps one raster: opens and checks it, and writes its map unless that is finished already."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path

import rasterio
from rasterio._err import CPLE_BaseError  # rasterio.errors has no name for it

from kdjax.deploy.classifier import Classifier
from kdjax.deploy.landuse_map import areas, inputs, layers, outputs, polygons
from kdjax.deploy.landuse_map.layers import Grid
from kdjax.deploy.landuse_map.legend import UNKNOWN
from kdjax.deploy.landuse_map.outputs import MapSettings
from kdjax.deploy.landuse_map.raster import Raster
from kdjax.deploy.landuse_map.writer import write_map
from kdjax.errors import InputError, one_line
from kdjax.results.text import printable

CACHE_BYTES = 64 * 2**20

STAMP = "made_of"
"""The tag of a map that identifies everything it was made from; see `_stamp`."""

_GDAL_ERRORS = (rasterio.errors.RasterioError, rasterio.errors.CRSError, CPLE_BaseError)

_SQUARE = 1.5  # largest ratio of the sides of a pixel on the ground that causes no warning

_MAPPER_VERSION = 8
"""To be raised by every change of this package that changes the maps of a raster."""


@dataclasses.dataclass(frozen=True)
class Options:
    """The user's options for mapping rasters.

    Attributes:
        bands: numbers of red, green and blue, of one gray band, or of each of the model's bands; None = chosen by the
            raster's descriptions and color interpretation.
        value_range: the values that become black and white; None = as in training.
        tile, stride: see `MapSettings`; None = the ground of a training tile, and half of the window.
        batch, answer_all, probabilities, polygons: see `MapSettings`.
    """

    bands: tuple[int, ...] | None = None
    value_range: tuple[float, float] | None = None
    tile: int | None = None
    stride: int | None = None
    batch: int = 32
    answer_all: bool = False
    probabilities: bool = False
    polygons: bool = False


def load(artifact: str, threads: int | None = None) -> Classifier:
    """Opens the classifier of an exported file; see `Classifier` for the arguments.

    Raises:
        InputError: the file is not a classifier, or it has more classes than a map can hold.
    """
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # rasterio logs errors that it also raises
    classifier = Classifier(artifact, threads)
    if len(classifier.classes) > UNKNOWN:
        raise InputError(f"artifact {artifact}: a map holds {UNKNOWN} classes, not {len(classifier.classes)}")
    return classifier


def check_stride(stride: int, tile: int) -> None:
    """Refuses a step that would leave gaps between windows.

    Raises:
        InputError: `stride` is larger than `tile`.
    """
    if stride > tile:
        raise InputError(f"--stride is {stride}, more than the window of {tile} px: it would leave gaps")


def map_raster(
    classifier: Classifier, text: str, out: Path, options: Options, note: Callable[[str], None], *, resume: bool = False
) -> list[int] | None:
    """Maps a raster.

    Args:
        classifier: classifies the windows.
        text: an input; see `inputs`.
        out: the GeoTIFF to write.
        options: how to map it.
        note: called with lines on what was decided by the raster and the training tiles, and on cells with data that
            have no class.
        resume: whether to keep a finished map of the same model, options and raster. To be recognized, a map then gets
            a stamp of these.

    Returns:
        The number of cells of each of `legend.entries`; None if a finished map was kept.

    Raises:
        InputError: the user can correct the raster, the options or `out`. Nothing is written in that case.
    """
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        raster = Raster(inputs.gdal_path(text), options.bands, options.value_range, classifier.meaning)
        with contextlib.closing(raster):
            try:
                inputs.check_name(out, "OUT")
                height, width = raster.shape
                grid = Grid(height, width, raster.crs, raster.transform)
                layers.check(raster.path, grid)
                areas.check(raster.path, grid)
                if options.polygons:
                    polygons.check(grid)
                settings = _settings(classifier, raster, options, note)
                tags = {outputs.MODEL_TAG: printable(Path(classifier.path).name)}
                tags |= {"tile": str(settings.tile), "stride": str(settings.stride)}
                if resume:
                    tags[STAMP] = _stamp(classifier, raster, options, settings)
                    if _is_finished(out, settings, tags[STAMP]):
                        return None
                outputs.check(out, raster.files)
                return write_map(classifier, raster, out, settings, tags, note)
            except BlockingIOError as error:
                raise InputError(f"OUT {out}: another command writes this map; wait for it") from error
            except OSError as error:
                raise InputError(f"OUT {out}: cannot be written ({one_line(error)})") from error
            except _GDAL_ERRORS as error:
                raise InputError(f"raster {text}: GDAL cannot map it ({one_line(error.__cause__ or error)})") from error


def _settings(classifier: Classifier, raster: Raster, options: Options, note: Callable[[str], None]) -> MapSettings:
    """Chooses the window, checks it against the raster, and notes what else was decided."""
    tile, extent = options.tile, None
    if tile is None:
        tile, extent = _window(classifier, raster) or (classifier.size, None)
    stride = options.stride or max(tile // 2, 1)
    check_stride(stride, tile)
    if min(raster.shape) < tile:
        height, width = raster.shape
        raise InputError(
            f"raster {raster.path}: {width} x {height} px is less than the window of {tile} px; give a smaller --tile"
        )
    if raster.bands not in ((1, 2, 3), (1,)):
        note(f"bands: {', '.join(map(str, raster.bands))}")
    if raster.other_names:
        note(f"colors: the bands called {raster.other_names} are taken as red, green and blue, as if in training")
    if raster.unused_alpha:
        note(f"alpha: band {raster.unused_alpha} is no mask by its values and is not used: where it is 0, pixels count")
    if raster.zero_share:
        note(
            f"warning: about {100 * raster.zero_share:.3g} % of the pixels are 0 in all bands and count as data: if "
            "they hold none, mark them with gdal_edit.py -a_nodata 0"
        )
    if raster.scaled:
        note("values: as the file has them, as in training; its scale and offset are not used")
    if not 1 / _SQUARE <= raster.aspect <= _SQUARE:
        note(
            f"pixels: {raster.aspect:.2g} times as high as wide on the ground, so windows are not square there: "
            "gdalwarp -t_srs … -tr … makes them square"
        )
    if raster.pixel_size_m is None:
        note("areas: none, as the raster's coordinates do not say how much ground a pixel covers; area_ha stays empty")
    if extent:
        note(f"window: {tile} px, the {extent} of the training tiles (median)")
    return MapSettings(tile, stride, options.batch, options.answer_all, options.probabilities, options.polygons)


def _window(classifier: Classifier, raster: Raster) -> tuple[int, str] | None:
    """The side, raster px, of a window that shows as much as a training tile, and that tile's side; None = not known.

    Raises:
        InputError: the raster is so coarse that a window would have less than half as many pixels along a side as the
            model saw in training.
    """
    meaning = classifier.meaning
    if meaning.ground_size_m and raster.pixel_size_m:
        tile, trained_px = (
            meaning.ground_size_m / raster.pixel_size_m,
            min(meaning.tile_px or math.inf, classifier.size),
        )
        if 2 * tile < trained_px:
            raise InputError(
                f"raster {raster.path}: its pixels are {raster.pixel_size_m:.3g} m: {tile:.2g} of them show the "
                f"{meaning.ground_size_m:.4g} m of a training tile, of which the model sees {trained_px:.4g} px; "
                "give a finer raster, or --tile to map it all the same"
            )
        return max(1, round(tile)), f"{meaning.ground_size_m:.4g} m"
    if meaning.tile_px:
        return max(1, round(meaning.tile_px)), f"{meaning.tile_px:.4g} px"
    return None


def _stamp(classifier: Classifier, raster: Raster, options: Options, settings: MapSettings) -> str:
    """SHA-256 of everything that decides a map: contents, not names and dates, nor how many windows go together."""
    decisive = dataclasses.asdict(settings)
    del decisive["batch"]
    parts = {
        "maker": _MAPPER_VERSION,
        "model": hashlib.sha256(Path(classifier.path).read_bytes()).hexdigest(),
        "raster": raster.digest(),
        "value_range": options.value_range,
        **decisive,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _is_finished(out: Path, settings: MapSettings, stamp: str) -> bool:
    """Whether the map with this stamp exists with all its files."""
    try:
        return outputs.tags(out).get(STAMP) == stamp and outputs.are_complete(out, settings)
    except rasterio.errors.RasterioError:
        return False
