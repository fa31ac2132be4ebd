"""The map and the files that go with it."""

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from kdjax.data import decode
from kdjax.deploy.classifier import Classifier
from kdjax.deploy.landuse_map import polygons
from kdjax.deploy.landuse_map.areas import Areas
from kdjax.deploy.landuse_map.layers import NO_CONFIDENCE, Grid, Layers
from kdjax.deploy.landuse_map.legend import NODATA, UNKNOWN, attribute_table, legend
from kdjax.deploy.landuse_map.raster import Raster
from kdjax.deploy.landuse_map.windows import probabilities
from kdjax.deploy.trust import Trust
from kdjax.errors import InputError
from kdjax.runtime import temporary

_SIDECARS = (".ovr", ".msk", ".msk.ovr", ".aux.xml")


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What is asked of a map.

    Attributes:
        tile: side of the window, px.
        stride: side of a cell and step of the window, px.
        batch: windows that are read and classified together.
        answer_all: whether a cell that the model does not know is given a class all the same.
        probabilities: whether every class's probability is written as well.
        polygons: whether the map is written as polygons as well.
    """

    tile: int
    stride: int
    batch: int
    answer_all: bool = False
    probabilities: bool = False
    polygons: bool = False


def written(out: Path, wanted: Wanted) -> tuple[str, ...]:
    """Names of the files: the map and its confidence, probabilities, legend, areas, attribute table and polygons."""
    return (
        *rasters(out, wanted),
        f"{out.stem}_legend.png",
        f"{out.stem}_areas.csv",
        f"{out.name}.aux.xml",
        *((f"{out.stem}_polygons.geojson",) if wanted.polygons else ()),
    )


def owned(out: Path) -> tuple[str, ...]:
    """Names of all files that any map of that name has: older ones are replaced or removed."""
    return written(out, Wanted(tile=1, stride=1, batch=1, probabilities=True, polygons=True))


def rasters(out: Path, wanted: Wanted) -> tuple[str, ...]:
    """Names of the files that are rasters."""
    names = out.name, f"{out.stem}_confidence{out.suffix}", f"{out.stem}_probabilities{out.suffix}"
    return names if wanted.probabilities else names[:2]


def write_map(classifier: Classifier, raster: Raster, out: Path, wanted: Wanted, tags: dict[str, Any]) -> list[int]:
    """Writes OUT.tif and the files that go with it when all are complete.

    Args:
        classifier: what classifies.
        raster: what to map.
        out: the GeoTIFF to write.
        wanted: how.
        tags: what to note in the files.

    Returns:
        The number of cells of each of `legend.entries`.

    Raises:
        InputError: the raster is damaged, or its values are of another kind than in training. Nothing was written then.
    """
    stride, classes = wanted.stride, classifier.classes
    height, width = (-(-length // stride) for length in raster.shape)
    a, b, c, d, e, f = raster.transform[:6]  # pixels `stride` times as large, from the same corner
    grid = Grid(height, width, raster.crs, rasterio.Affine(a * stride, b * stride, c, d * stride, e * stride, f))
    areas, trust = Areas(grid, classes), None if wanted.answer_all else classifier.trust

    def classify(images: np.ndarray) -> np.ndarray:
        """Probabilities, and in a last column 1 where a window is unlike the images of validation."""
        resized = np.stack([decode.resize(image, classifier.size) for image in images])
        return np.column_stack(classifier.answers(resized))

    with temporary.folder(out.parent, out.name) as building:
        layers = Layers(building, rasters(out, wanted), grid, classes, tags)
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
            for number, row in enumerate(rows):
                best, confidence = _cells(row, trust)
                layers.write(number, best, confidence, row[:, :-1])
                areas.add(number, best, confidence)
                _progress(number + 1, height)
            raster.check_seen()
            if not areas.counts.any():
                raise InputError(f"raster {raster.path}: no cell of the map would hold data; a smaller --tile may help")
            layers.finish()
        counts = areas.counts.tolist()
        (building / f"{out.name}.aux.xml").write_text(attribute_table(classes, counts), encoding="utf-8")
        (building / f"{out.stem}_areas.csv").write_text(areas.table(), encoding="utf-8")
        legend(classes, areas.counts / areas.counts.sum()).save(building / f"{out.stem}_legend.png")
        if wanted.polygons:
            polygons.write(building / f"{out.stem}_polygons.geojson", polygons.features(building / out.name, classes))
        # What belongs to an older map of that name would be taken for this one's: overviews, masks and statistics, and
        # files that are not asked for now.
        for name in owned(out):
            for suffix in _SIDECARS:
                out.with_name(name + suffix).unlink(missing_ok=True)
        for name in set(owned(out)) - set(written(out, wanted)):
            out.with_name(name).unlink(missing_ok=True)
        # The map goes last: where it is, the rest is.
        for name in reversed(written(out, wanted)):
            (building / name).replace(out.with_name(name))
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
    if sys.stderr.isatty():
        # An error message, which ends the command, is printed over it.
        print(f"map: row {done} of {total}", end="\n" if done == total else "\r", file=sys.stderr, flush=True)
