"""Writes a map and the files that belong to it."""

import contextlib
import math
import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from kdjax.data import decode
from kdjax.deploy.classifier import Classifier
from kdjax.deploy.landuse_map import outputs, polygons
from kdjax.deploy.landuse_map.areas import Areas, hectares
from kdjax.deploy.landuse_map.layers import NO_CONFIDENCE, Grid, Layers
from kdjax.deploy.landuse_map.legend import NODATA, UNKNOWN, attribute_table, legend
from kdjax.deploy.landuse_map.outputs import MapSettings
from kdjax.deploy.landuse_map.raster import Raster
from kdjax.deploy.landuse_map.windows import probabilities
from kdjax.deploy.trust import Trust
from kdjax.errors import InputError
from kdjax.runtime import temporary


def write_map(
    classifier: Classifier,
    raster: Raster,
    out: Path,
    settings: MapSettings,
    tags: dict[str, Any],
    note: Callable[[str], None],
) -> list[int]:
    """Classifies a raster, and puts OUT.tif and the files that belong to it in place once all are complete.

    Args:
        classifier: classifies the windows.
        raster: the raster to map.
        out: the GeoTIFF to write.
        settings: how to map it.
        tags: GeoTIFF tags for the rasters of the map.
        note: called with a line on cells with data that have no class, if there are some.

    Returns:
        The number of cells of each of `legend.entries`.

    Raises:
        InputError: the raster is damaged, its values are of another kind than in training, or no cell would have a
            class. Nothing is written in that case.
        BlockingIOError: another process writes this map.
    """
    stride, classes = settings.stride, classifier.classes
    # In cells. The last cells may extend beyond the raster.
    height, width = (length / stride for length in raster.shape)
    grid = _grid(raster, stride)
    areas, trust = Areas(classes), None if settings.answer_all else classifier.trust
    left_out = not_shown = 0  # cells

    def classify(images: np.ndarray) -> np.ndarray:
        """Probabilities, and a last column that is 1 for windows unlike the validation images."""
        resized = np.stack([decode.resize(image, classifier.size) for image in images])
        return np.column_stack(classifier.answers(resized))

    # The lock is on the stem, which all files of a map share, so two commands cannot mix the files of two maps.
    with temporary.exclusive(out.parent, out.stem), temporary.folder(out.parent, out.name) as build_dir:
        layers = Layers(build_dir, outputs.raster_names(out, settings), grid, classes, tags)
        with contextlib.closing(layers):
            rows = probabilities(
                raster.read,
                classify,
                raster.shape,
                classes=len(classes) + 1,
                tile=settings.tile,
                stride=stride,
                batch=settings.batch,
            )
            for number, (row, without_window) in enumerate(rows):
                left_out += without_window
                best, confidence = _cell_values(row, trust)
                layers.write(number, best, confidence, row[:, :-1])
                areas.add(best, confidence, hectares(grid, number, (height, width)))
                _progress(number + 1, grid.height)
            raster.check_samples()
            if not areas.counts.any():
                cause = (
                    "less than half of every window is data; a smaller --tile may help"
                    if left_out
                    else "it has no data"
                )
                raise InputError(f"raster {raster.path}: no cell of the map would have a class: {cause}")
            layers.finish()
        counts = areas.counts.tolist()
        paths = {output: build_dir / output.name(out) for output in outputs.OUTPUTS}
        paths[outputs.ATTRIBUTES].write_text(attribute_table(classes, counts), encoding="utf-8")
        paths[outputs.AREAS].write_text(areas.table(), encoding="utf-8")
        legend(classes, areas.counts / areas.counts.sum()).save(paths[outputs.LEGEND])
        if settings.polygons:
            shown = polygons.write(paths[outputs.POLYGONS], paths[outputs.MAP], classes, (height, width))
            not_shown = sum(counts) - shown
        outputs.install(build_dir, out, settings)
    if left_out:
        note(f"cells: {left_out} with data have no class, as less than half of every window over them is data")
    if not_shown:
        note(f"polygons: {not_shown} cells are in none, as they reach off the earth")
    return counts


def _grid(raster: Raster, stride: int) -> Grid:
    """The cells of the map: each is `stride` pixels wide, and the first ones start at the raster's corner."""
    height, width = (math.ceil(length / stride) for length in raster.shape)
    a, b, c, d, e, f = raster.transform[:6]
    transform = rasterio.Affine(a * stride, b * stride, c, d * stride, e * stride, f)
    return Grid(height, width, raster.crs, transform)


def _cell_values(row: np.ndarray, trust: Trust | None) -> tuple[np.ndarray, np.ndarray]:
    """The values (n,) uint8 and confidences (n,) float32 of a row of cells.

    Args:
        row: (n, classes + 1): probabilities, and the share of windows unlike the validation images; NaN without a
            class.
        trust: marks cells as unknown; None = none is.
    """
    means, unlike = row[:, :-1], row[:, -1]
    has_class = ~np.isnan(means[:, 0])
    best = np.where(has_class, means.argmax(1), NODATA).astype(np.uint8)
    if trust is not None:  # cells of NaN keep NODATA, as comparisons with NaN are false
        best[trust.doubtful(means) | (unlike > 0.5)] = UNKNOWN
    return best, np.where(has_class, means.max(1), NO_CONFIDENCE).astype(np.float32)


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() and multiprocessing.parent_process() is None:  # workers would overwrite each other's line
        # The carriage return lets the next line, or an error message, overwrite this one.
        print(f"map: row {done} of {total}", end="\n" if done == total else "\r", file=sys.stderr, flush=True)
