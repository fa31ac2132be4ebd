"""The map and the files that go with it."""

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
from kdjax.deploy.landuse_map.outputs import Wanted
from kdjax.deploy.landuse_map.raster import Raster
from kdjax.deploy.landuse_map.windows import probabilities
from kdjax.deploy.trust import Trust
from kdjax.errors import InputError
from kdjax.runtime import temporary


def write_map(
    classifier: Classifier, raster: Raster, out: Path, wanted: Wanted, tags: dict[str, Any], note: Callable[[str], None]
) -> list[int]:
    """Writes OUT.tif and the files that go with it when all are complete.

    Args:
        classifier: what classifies.
        raster: what to map.
        out: the GeoTIFF to write.
        wanted: how.
        tags: what to note in the files.
        note: is told how many cells with data have no class.

    Returns:
        The number of cells of each of `legend.entries`.

    Raises:
        InputError: the raster is damaged, or its values are of another kind than in training. Nothing was written then.
        BlockingIOError: another process writes this map.
    """
    stride, classes = wanted.stride, classifier.classes
    height, width = (length / stride for length in raster.shape)  # in cells: the last ones may reach beyond the raster
    a, b, c, d, e, f = raster.transform[:6]  # pixels `stride` times as large, from the same corner
    grid = Grid(
        math.ceil(height),
        math.ceil(width),
        raster.crs,
        rasterio.Affine(a * stride, b * stride, c, d * stride, e * stride, f),
    )
    areas, trust, left_out = Areas(classes), None if wanted.answer_all else classifier.trust, 0

    def classify(images: np.ndarray) -> np.ndarray:
        """Probabilities, and in a last column 1 where a window is unlike the images of validation."""
        resized = np.stack([decode.resize(image, classifier.size) for image in images])
        return np.column_stack(classifier.answers(resized))

    # By the stem, which all files of a map share: two maps would leave files of both.
    with temporary.alone(out.parent, out.stem), temporary.folder(out.parent, out.name) as building:
        layers = Layers(building, outputs.rasters(out, wanted), grid, classes, tags)
        with contextlib.closing(layers):
            rows = probabilities(
                raster.read,
                classify,
                raster.shape,
                classes=len(classes) + 1,
                tile=wanted.tile,
                stride=stride,
                batch=wanted.batch,
            )
            for number, (row, unseen) in enumerate(rows):
                left_out += unseen
                best, confidence = _cells(row, trust)
                layers.write(number, best, confidence, row[:, :-1])
                areas.add(best, confidence, hectares(grid, number, (height, width)))
                _progress(number + 1, grid.height)
            raster.check_samples()
            if not areas.counts.any():
                why = (
                    "less than half of every window is data; a smaller --tile may help"
                    if left_out
                    else "it has no data"
                )
                raise InputError(f"raster {raster.path}: no cell of the map would have a class: {why}")
            layers.finish()
        counts = areas.counts.tolist()
        places = {one: building / one.name(out) for one in outputs.OUTPUTS}
        places[outputs.ATTRIBUTES].write_text(attribute_table(classes, counts), encoding="utf-8")
        places[outputs.AREAS].write_text(areas.table(), encoding="utf-8")
        legend(classes, areas.counts / areas.counts.sum()).save(places[outputs.LEGEND])
        if wanted.polygons:
            found = polygons.features(places[outputs.MAP], classes, (height, width))
            polygons.write(places[outputs.POLYGONS], found)
        outputs.put(building, out, wanted)
    if left_out:
        note(f"cells: {left_out} with data have no class, as less than half of every window over them is data")
    return counts


def _cells(row: np.ndarray, trust: Trust | None) -> tuple[np.ndarray, np.ndarray]:
    """Values and confidences of a row of cells (n, classes + 1): probabilities, and the share of windows unlike others.

    Cells without data are NaN.
    """
    row, unlike = row[:, :-1], row[:, -1]
    known = ~np.isnan(row[:, 0])
    best = np.where(known, row.argmax(1), NODATA).astype(np.uint8)
    if trust is not None:  # comparisons with NaN are false
        best[trust.doubtful(row) | (unlike > 0.5)] = UNKNOWN
    return best, np.where(known, row.max(1), NO_CONFIDENCE).astype(np.float32)


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() and multiprocessing.parent_process() is None:  # several would write over each other
        # An error message, which ends the command, is printed over it.
        print(f"map: row {done} of {total}", end="\n" if done == total else "\r", file=sys.stderr, flush=True)
