"""The map and the files beside it."""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window

from kdjax.data import decode
from kdjax.deploy.landuse_map.legend import attribute_table, colours, legend
from kdjax.deploy.landuse_map.raster import Raster
from kdjax.deploy.landuse_map.windows import probabilities
from kdjax.deploy.predict import Classifier
from kdjax.results.metrics import log_softmax

NODATA, NO_CONFIDENCE = 255, -1.0


def write_map(
    classifier: Classifier, raster: Raster, out: Path, *, tile: int, stride: int, batch: int, tags: dict[str, Any]
) -> list[int]:
    """Writes OUT.tif and the files beside it when all are complete; returns the number of cells of each class.

    Args:
      classifier, raster: what to map.
      out: the GeoTIFF to write.
      tile, stride, batch: see `probabilities`.
      tags: what to note in the file.
    """
    height, width = (-(-length // stride) for length in raster.shape)
    a, b, c, d, e, f = raster.transform[:6]  # pixels `stride` times as large, from the same corner
    transform = rasterio.Affine(a * stride, b * stride, c, d * stride, e * stride, f)
    profile = {
        "driver": "GTiff", "width": width, "height": height, "count": 1, "crs": raster.crs, "transform": transform,
        "compress": "deflate", "BIGTIFF": "IF_SAFER",
    }  # fmt: skip

    def classify(images: np.ndarray) -> np.ndarray:
        resized = np.stack([decode.resize(image, classifier.size) for image in images])
        return np.exp(log_softmax(classifier.logits(resized).astype(np.float64)))

    counts = np.zeros(len(classifier.classes), int)
    named = {"confidence": f"{out.stem}_confidence{out.suffix}", "legend": f"{out.stem}_legend.png"}
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as beside:
        with (
            rasterio.open(Path(beside) / out.name, "w", dtype="uint8", nodata=NODATA, **profile) as indices,
            rasterio.open(
                Path(beside) / named["confidence"], "w", dtype="float32", nodata=NO_CONFIDENCE, **profile
            ) as confidences,
        ):
            indices.write_colormap(1, dict(enumerate(colours(len(classifier.classes)))))
            indices.set_band_description(1, "land-use class")
            indices.update_tags(**tags)
            indices.update_tags(1, **{f"class_{k}": name for k, name in enumerate(classifier.classes)})
            confidences.set_band_description(1, "probability of the land-use class")
            confidences.update_tags(**tags)
            rows = probabilities(
                raster.read, classify, raster.shape, classes=len(counts), tile=tile, stride=stride, batch=batch
            )
            for number, row in enumerate(rows):
                known = ~np.isnan(row[:, 0])
                best = np.where(known, row.argmax(1), NODATA).astype(np.uint8)
                confidence = np.where(known, row.max(1), NO_CONFIDENCE).astype(np.float32)
                window = Window(0, number, width, 1)
                indices.write(best[None, None], window=window)
                confidences.write(confidence[None, None], window=window)
                counts += np.bincount(best[known], minlength=len(counts))
                _progress(number + 1, height)
        (Path(beside) / f"{out.name}.aux.xml").write_text(attribute_table(classifier.classes, counts))
        legend(classifier.classes, counts / max(counts.sum(), 1)).save(Path(beside) / named["legend"])
        # The map goes last: where it is, the rest is.
        for name in (f"{out.name}.aux.xml", *named.values(), out.name):
            (Path(beside) / name).replace(out.with_name(name))
    return counts.tolist()


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty():
        # An error message, which ends the command, is printed over it.
        print(f"map: row {done} of {total}", end="\n" if done == total else "\r", file=sys.stderr, flush=True)
