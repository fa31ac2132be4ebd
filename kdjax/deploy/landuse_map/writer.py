"""The map and the files that go with it."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window

from kdjax.data import decode
from kdjax.deploy.landuse_map.legend import NODATA, UNKNOWN, attribute_table, entries, legend
from kdjax.deploy.landuse_map.raster import Raster
from kdjax.deploy.landuse_map.windows import probabilities
from kdjax.deploy.predict import Classifier
from kdjax.deploy.trust import Trust
from kdjax.errors import InputError
from kdjax.runtime import temporary

NO_CONFIDENCE = -1.0
_SIDECARS = (".ovr", ".msk", ".msk.ovr", ".aux.xml")


def written(out: Path) -> tuple[str, str, str]:
    """Names of the map, of its confidence and of its legend."""
    return out.name, f"{out.stem}_confidence{out.suffix}", f"{out.stem}_legend.png"


def write_map(
    classifier: Classifier,
    raster: Raster,
    out: Path,
    *,
    tile: int,
    stride: int,
    batch: int,
    tags: dict[str, Any],
    answer_all: bool = False,
) -> list[int]:
    """Writes OUT.tif and the files that go with it when all are complete.

    Args:
        classifier: what classifies.
        raster: what to map.
        out: the GeoTIFF to write.
        tile: side of the window, px.
        stride: side of a cell and step of the window, px.
        batch: windows that are read and classified together.
        tags: what to note in the file.
        answer_all: whether a cell that the model does not know is given a class all the same.

    Returns:
        The number of cells of each of `legend.entries`.

    Raises:
        InputError: the raster is damaged, or its values are of another kind than in training. Nothing was written then.
    """
    height, width = (-(-length // stride) for length in raster.shape)
    a, b, c, d, e, f = raster.transform[:6]  # pixels `stride` times as large, from the same corner
    transform = rasterio.Affine(a * stride, b * stride, c, d * stride, e * stride, f)
    profile = {
        "driver": "GTiff", "width": width, "height": height, "count": 1, "crs": raster.crs, "transform": transform,
        "compress": "deflate", "BIGTIFF": "IF_SAFER",
    }  # fmt: skip

    def classify(images: np.ndarray) -> np.ndarray:
        """Probabilities, and in a last column 1 where a window is unlike the images of validation."""
        resized = np.stack([decode.resize(image, classifier.size) for image in images])
        return np.column_stack(classifier.answers(resized))

    trust = None if answer_all else classifier.trust
    counts = np.zeros(len(classifier.classes) + 1, int)
    _, confidence_name, legend_name = written(out)
    with temporary.folder(out.parent, out.name) as building:
        with (
            rasterio.open(building / out.name, "w", dtype="uint8", nodata=NODATA, **profile) as indices,
            rasterio.open(
                building / confidence_name, "w", dtype="float32", nodata=NO_CONFIDENCE, **profile
            ) as confidences,
        ):
            indices.write_colormap(1, {value: color for value, _, color in entries(classifier.classes)})
            indices.set_band_description(1, "land-use class")
            indices.update_tags(**tags)
            indices.update_tags(1, **{f"class_{value}": name for value, name, _ in entries(classifier.classes)})
            confidences.set_band_description(1, "probability of the land-use class")
            confidences.update_tags(**tags)
            rows = probabilities(
                raster.read, classify, raster.shape, classes=len(counts), tile=tile, stride=stride, batch=batch
            )
            for number, row in enumerate(rows):
                best, confidence = _cells(row, trust)
                window = Window(0, number, width, 1)
                indices.write(best[None, None], window=window)
                confidences.write(confidence[None, None], window=window)
                counts += np.bincount(np.minimum(best[best != NODATA], len(counts) - 1), minlength=len(counts))
                _progress(number + 1, height)
        raster.check_seen()
        if not counts.any():
            raise InputError(f"raster {raster.path}: no cell of the map would hold data")
        table = f"{out.name}.aux.xml"
        (building / table).write_text(attribute_table(classifier.classes, counts.tolist()), encoding="utf-8")
        legend(classifier.classes, counts / max(counts.sum(), 1)).save(building / legend_name)
        # Overviews, masks and statistics of an older file of that name would be taken for those of this one.
        for name in written(out):
            for suffix in _SIDECARS:
                out.with_name(name + suffix).unlink(missing_ok=True)
        # The map goes last: where it is, the rest is.
        for name in (table, confidence_name, legend_name, out.name):
            (building / name).replace(out.with_name(name))
    return counts.tolist()


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
