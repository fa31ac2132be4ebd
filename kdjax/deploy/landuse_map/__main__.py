"""The command."""

import argparse
import importlib.util
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kdjax.data.meaning import Meaning
from kdjax.deploy.classifier import Classifier
from kdjax.deploy.predict import positive, say
from kdjax.errors import InputError, Parser, in_one_line, reason
from kdjax.results.text import printable

CACHE_BYTES = 64 * 2**20


def _bands(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if len(parts) not in (1, 3) or not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is neither three band numbers from 1, as 1,2,3, nor one")
    return tuple(map(int, parts))


def _range(text: str) -> tuple[float, float]:
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise argparse.ArgumentTypeError(f"{text!r} is not LOW,HIGH with LOW below HIGH, as 0,10000")
    return low, high


def _check_out(out: Path, raster: Path, names: Sequence[str]) -> None:
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(f"OUT {out}: the map is a GeoTIFF; give it the suffix .tif")
    if not out.parent.is_dir():
        raise InputError(f"OUT {out}: there is no folder {out.parent}")
    for name in names:
        place = out.with_name(name)
        if place.exists() and not place.is_file():
            raise InputError(f"OUT {out}: {place} is there and is no file; choose another name")
        if place.exists() and place.samefile(raster):
            raise InputError(f"OUT {out}: {name} is the raster itself; choose another name")


def _window(meaning: Meaning, pixel_size_m: float | None) -> tuple[int, str] | None:
    """Side of the window, raster px, that shows as much ground as a training tile, and why; None = not known."""
    if meaning.ground_size_m and pixel_size_m:
        return max(1, round(meaning.ground_size_m / pixel_size_m)), f"{meaning.ground_size_m:.4g} m"
    if meaning.tile_px:
        return max(1, round(meaning.tile_px)), f"{meaning.tile_px:.4g} px"
    return None


def _parser() -> Parser:
    parser = Parser(prog="python -m kdjax.deploy.landuse_map", description="A land-use map of a georeferenced raster.")
    parser.add_argument("artefact", metavar="ARTEFACT", help="student.onnx, student.int8.onnx or a .tflite")
    parser.add_argument("raster", metavar="RASTER", type=Path, help="a georeferenced raster")
    parser.add_argument("out", metavar="OUT", type=Path, help="the GeoTIFF to write")
    parser.add_argument(
        "--tile", type=positive, help="side of the window, raster px; default: the ground that a training tile shows"
    )
    parser.add_argument(
        "--stride", type=positive, help="side of a cell of the map, raster px; default: half the window"
    )
    parser.add_argument("--bands", type=_bands, help="red, green and blue, as 1,2,3; one number: a gray band")
    parser.add_argument("--value-range", type=_range, help="LOW,HIGH: the values that become black and white")
    parser.add_argument("--answer-all", action="store_true", help="call no cell unknown")
    parser.add_argument("--probabilities", action="store_true", help="also write the probability of every class")
    parser.add_argument("--polygons", action="store_true", help="also write the map as polygons, GeoJSON")
    parser.add_argument("--batch", type=positive, default=32, help="windows that go through the network together")
    return parser


def main(argv: Sequence[str]) -> None:
    """Writes the map that `argv` asks for.

    Raises:
        InputError: anything in `argv`, the model file or the raster that a person can correct. Nothing was written
            then.
    """
    options = _parser().parse_args(argv)
    if importlib.util.find_spec("rasterio") is None:
        raise InputError("landuse_map needs rasterio: pip install 'kdjax[geo]'")
    import rasterio

    from kdjax.deploy.landuse_map.legend import UNKNOWN, entries
    from kdjax.deploy.landuse_map.raster import Raster, check_name
    from kdjax.deploy.landuse_map.writer import Wanted, owned, write_map

    logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # it logs what it then also raises
    classifier = Classifier(options.artefact)
    if len(classifier.classes) > UNKNOWN:
        raise InputError(f"artefact {options.artefact}: a map holds {UNKNOWN} classes, not {len(classifier.classes)}")
    with rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES):
        raster = Raster(options.raster, options.bands, options.value_range, classifier.meaning)
        try:
            check_name(options.out, "OUT")
            tile, why = options.tile, None
            if tile is None:
                tile, why = _window(classifier.meaning, raster.pixel_size_m) or (classifier.size, None)
            stride = options.stride or max(tile // 2, 1)
            if stride > tile:
                raise InputError(f"--stride is {stride}, more than the window of {tile} px: it would leave gaps")
            wanted = Wanted(tile, stride, options.batch, options.answer_all, options.probabilities, options.polygons)
            _check_out(options.out, options.raster, owned(options.out))
            height, width = raster.shape
            if min(raster.shape) < tile:
                raise InputError(
                    f"raster {options.raster}: {width} x {height} px is less than the window of {tile} px; "
                    "give a smaller --tile"
                )
            if raster.bands not in ((1, 2, 3), (1,)):
                print(f"bands: {', '.join(map(str, raster.bands))}", file=sys.stderr)
            if why:
                print(f"window: {tile} px, the {why} of the training tiles (median)", file=sys.stderr)
            tags = {"artefact": printable(Path(options.artefact).name), "tile": tile, "stride": stride}
            counts = write_map(classifier, raster, options.out, wanted, tags)
        except OSError as error:
            raise InputError(f"OUT {options.out}: cannot be written ({reason(error)})") from error
        finally:
            raster.close()
    total = sum(counts)
    for k in np.argsort([-count for count in counts], kind="stable"):
        if counts[k]:
            say(f"{100 * counts[k] / total:5.1f} %  {entries(classifier.classes)[k][1]}")


if __name__ == "__main__":
    in_one_line(main)
