"""The command `python -m kdjax.deploy.landuse_map`."""

import argparse
import dataclasses
import importlib.util
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kdjax.deploy.predict import NAMES_SHOWN
from kdjax.errors import InputError
from kdjax.results.text import printable
from kdjax.runtime.command import Parser, positive, run_command, say


def _bands(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of band numbers from 1, as 1,2,3")
    return tuple(map(int, parts))


def _range(text: str) -> tuple[float, float]:
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise argparse.ArgumentTypeError(f"{text!r} is not LOW,HIGH with LOW below HIGH, as 0,10000")
    return low, high


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("'' is not a path")
    return Path(text)


def _parser() -> Parser:
    parser = Parser(prog="python -m kdjax.deploy.landuse_map", description="Land-use maps of georeferenced rasters.")
    parser.usage = "%(prog)s ARTIFACT RASTER OUT.tif | %(prog)s ARTIFACT INPUT... --output FOLDER"
    parser.add_argument("artifact", metavar="ARTIFACT", help="student.onnx, student.int8.onnx or a .tflite")
    parser.add_argument(
        "inputs",
        metavar="INPUT",
        nargs="+",
        help="georeferenced rasters: files, folders, what GDAL opens by URL, or ITEM.json#ASSET of a STAC item; "
        "without --output one of them and OUT.tif, the map to write",
    )
    parser.add_argument(
        "--output", metavar="FOLDER", type=_folder, help="folder for a map of each INPUT; finished ones stay"
    )
    parser.add_argument("--workers", type=positive, default=1, help="processes that share the rasters of --output")
    parser.add_argument(
        "--tile", type=positive, help="side of the window, raster px; default: the ground that a training tile shows"
    )
    parser.add_argument(
        "--stride", type=positive, help="side of a cell of the map, raster px; default: half the window"
    )
    parser.add_argument(
        "--bands", type=_bands, help="red, green and blue, as 1,2,3; one number: a gray band; or each of the model's"
    )
    parser.add_argument("--value-range", type=_range, help="LOW,HIGH: the values that become black and white")
    parser.add_argument("--answer-all", action="store_true", help="call no cell unknown")
    parser.add_argument("--probabilities", action="store_true", help="also write the probability of every class")
    parser.add_argument("--polygons", action="store_true", help="also write the map as polygons, GeoJSON")
    parser.add_argument("--batch", type=positive, default=32, help="windows that go through the network together")
    return parser


def main(argv: Sequence[str]) -> None:
    """Writes the maps that `argv` requests.

    Raises:
        InputError: the user can correct `argv`, the model file or the raster. Nothing is written in that case.
        SystemExit: with status 1, after all others were mapped: some rasters of `--output` could not be.
    """
    arguments = _parser().parse_intermixed_args(argv)
    _check(arguments)
    if importlib.util.find_spec("rasterio") is None:
        raise InputError("landuse_map needs rasterio: pip install 'kdjax[geo]'")
    from kdjax.deploy.landuse_map import many, mapping

    options = mapping.Options(
        **{field.name: getattr(arguments, field.name) for field in dataclasses.fields(mapping.Options)}
    )
    if options.tile and options.stride:
        mapping.check_stride(options.stride, options.tile)
    classifier = mapping.load(arguments.artifact)
    failed: list[str] = []
    if arguments.output is None:
        raster, out = arguments.inputs
        counts = mapping.map_raster(classifier, raster, Path(out), options, _note) or []
    else:
        jobs = many.plan(arguments.inputs, arguments.output)
        areas, failed = many.map_all(classifier, jobs, options, arguments.workers)
        counts = areas.counts.tolist()
    _say_shares(counts, classifier.classes)
    if classifier.trust and (warning := classifier.trust.warning):
        _note(f"warning: {arguments.artifact}: {warning}")
    if failed:
        rest = f"; and {len(failed) - NAMES_SHOWN} more" if len(failed) > NAMES_SHOWN else ""
        listed = printable("; ".join(failed[:NAMES_SHOWN]))
        print(f"error: {len(failed)} of {len(jobs)} rasters were not mapped: {listed}{rest}", file=sys.stderr)
        sys.exit(1)


def _check(arguments: argparse.Namespace) -> None:
    if arguments.output is None and len(arguments.inputs) != 2:
        raise InputError(
            f"arguments: {len(arguments.inputs)} after ARTIFACT; give RASTER and OUT.tif, or rasters and "
            "--output=FOLDER"
        )
    if arguments.output is None and arguments.workers > 1:
        raise InputError(
            "--workers: processes share the rasters of --output=FOLDER, but there is only one raster: leave it out"
        )
    for text in arguments.inputs:
        if not text:
            raise InputError("INPUT: '' is not a path")


def _note(text: str) -> None:
    print(text, file=sys.stderr)


def _say_shares(counts: Sequence[int], classes: Sequence[str]) -> None:
    from kdjax.deploy.landuse_map.legend import entries

    for k in np.argsort([-count for count in counts], kind="stable"):
        if counts[k]:
            say(f"{100 * counts[k] / sum(counts):5.1f} %  {entries(classes)[k][1]}")


if __name__ == "__main__":
    run_command(main, resumable=True, less_memory="use a smaller --batch, or fewer --workers")
