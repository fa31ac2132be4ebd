"""The map of one raster: opened, checked, and written where it is not there yet."""

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
from kdjax.deploy.landuse_map.outputs import Wanted
from kdjax.deploy.landuse_map.raster import Raster, check_name
from kdjax.deploy.landuse_map.writer import write_map
from kdjax.errors import InputError, reason
from kdjax.results.text import printable

CACHE_BYTES = 64 * 2**20

STAMP = "made_of"
"""The tag of a map that says what it was made of."""

_GDAL_SAYS = (rasterio.errors.RasterioError, rasterio.errors.CRSError, CPLE_BaseError)

_SQUARE = 1.5  # the most that sides of a pixel differ on the ground without a word

_MAKER = 7
"""Counts the changes of this package that give other maps of the same raster."""


@dataclasses.dataclass(frozen=True)
class Options:
    """How rasters are mapped.

    Attributes:
        bands: red, green and blue, or one gray band, or one for each of the model; None = what the raster says.
        value_range: the values that become black and white; None = as in training.
        tile, stride: see `Wanted`; None = by the training tiles, and half of the window.
        batch, answer_all, probabilities, polygons: see `Wanted`.
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
    """The classifier of an exported file; see `Classifier`.

    Raises:
        InputError: it is none, or it has more classes than a map can hold.
    """
    logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # it logs what it then also raises
    classifier = Classifier(artifact, threads)
    if len(classifier.classes) > UNKNOWN:
        raise InputError(f"artifact {artifact}: a map holds {UNKNOWN} classes, not {len(classifier.classes)}")
    return classifier


def check_stride(stride: int, tile: int) -> None:
    """Refuses windows with gaps between them.

    Raises:
        InputError: `stride` is more than `tile`.
    """
    if stride > tile:
        raise InputError(f"--stride is {stride}, more than the window of {tile} px: it would leave gaps")


def map_raster(
    classifier: Classifier, text: str, out: Path, options: Options, note: Callable[[str], None], *, resume: bool = False
) -> list[int] | None:
    """Maps a raster.

    Args:
        classifier: what classifies.
        text: an input; see `inputs`.
        out: the GeoTIFF to write.
        options: how.
        note: is told what the raster and the training tiles decided, and of cells with data that have no class.
        resume: whether a map that is there already, of the same model, options and raster, is left as it is. A map
            that is to be known again so has a stamp of them.

    Returns:
        The number of cells of each of `legend.entries`; None where the map was there.

    Raises:
        InputError: something about the raster, the options or `out` that a person can correct. Nothing was written.
    """
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        raster = Raster(inputs.place(text), options.bands, options.value_range, classifier.meaning)
        with contextlib.closing(raster):
            try:
                check_name(out, "OUT")
                height, width = raster.shape
                grid = Grid(height, width, raster.crs, raster.transform)
                layers.check(raster.path, grid)
                areas.check(raster.path, grid)
                wanted = _wanted(classifier, raster, options, note)
                tags = {outputs.MADE_BY: printable(Path(classifier.path).name)}
                tags |= {"tile": str(wanted.tile), "stride": str(wanted.stride)}
                if resume:
                    tags[STAMP] = _stamp(classifier, raster, options, wanted)
                    if _is_there(out, wanted, tags[STAMP]):
                        return None
                outputs.check(out, raster.files)
                return write_map(classifier, raster, out, wanted, tags, note)
            except BlockingIOError as error:
                raise InputError(f"OUT {out}: another command writes this map; wait for it") from error
            except OSError as error:
                raise InputError(f"OUT {out}: cannot be written ({reason(error)})") from error
            except _GDAL_SAYS as error:
                raise InputError(f"raster {text}: GDAL cannot map it ({reason(error.__cause__ or error)})") from error


def _wanted(classifier: Classifier, raster: Raster, options: Options, note: Callable[[str], None]) -> Wanted:
    """The options with the window settled."""
    tile, why = options.tile, None
    if tile is None:
        tile, why = _window(classifier, raster) or (classifier.size, None)
    stride = options.stride or max(tile // 2, 1)
    check_stride(stride, tile)
    if options.polygons:
        polygons.check(raster.crs)
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
    if raster.scaled:
        note("values: as the file has them, as in training; its scale and offset are not used")
    if not 1 / _SQUARE <= raster.aspect <= _SQUARE:
        note(
            f"pixels: {raster.aspect:.2g} times as high as wide on the ground, so windows are not square there: "
            "gdalwarp -t_srs … -tr … makes them square"
        )
    if raster.pixel_size_m is None:
        note("areas: none, as the raster's coordinates do not say how much ground a pixel covers; area_ha stays empty")
    if why:
        note(f"window: {tile} px, the {why} of the training tiles (median)")
    return Wanted(tile, stride, options.batch, options.answer_all, options.probabilities, options.polygons)


def _window(classifier: Classifier, raster: Raster) -> tuple[int, str] | None:
    """Side of the window, raster px, that shows as much ground as a training tile, and why; None = not known.

    Raises:
        InputError: the raster is so coarse that the model would see less than half of what it saw in training.
    """
    meaning = classifier.meaning
    if meaning.ground_size_m and raster.pixel_size_m:
        tile, seen = meaning.ground_size_m / raster.pixel_size_m, min(meaning.tile_px or math.inf, classifier.size)
        if 2 * tile < seen:
            raise InputError(
                f"raster {raster.path}: its pixels are {raster.pixel_size_m:.3g} m: {tile:.2g} of them show the "
                f"{meaning.ground_size_m:.4g} m of a training tile, of which the model sees {seen:.4g} px; "
                "give a finer raster, or --tile to map it all the same"
            )
        return max(1, round(tile)), f"{meaning.ground_size_m:.4g} m"
    if meaning.tile_px:
        return max(1, round(meaning.tile_px)), f"{meaning.tile_px:.4g} px"
    return None


def _stamp(classifier: Classifier, raster: Raster, options: Options, wanted: Wanted) -> str:
    """SHA-256 of all that decides a map: content, not names and dates."""
    made_of = {
        "maker": _MAKER,
        "model": hashlib.sha256(Path(classifier.path).read_bytes()).hexdigest(),
        "raster": raster.digest(),
        "value_range": options.value_range,
        **dataclasses.asdict(wanted),
    }
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def _is_there(out: Path, wanted: Wanted, stamp: str) -> bool:
    """Whether the map of that stamp is there with all its files."""
    try:
        return outputs.tags(out).get(STAMP) == stamp and outputs.are_whole(out, wanted)
    except rasterio.errors.RasterioError:
        return False
