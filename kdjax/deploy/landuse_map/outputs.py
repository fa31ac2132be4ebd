"""The files of a map: their names, checks before they are written, and how they are put in place together."""

import dataclasses
import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image

from kdjax.deploy.landuse_map import areas, layers, legend, polygons
from kdjax.errors import InputError
from kdjax.runtime import preemption

MODEL_TAG = "artifact"
"""The tag with the name of the model, which every raster of a map has."""

OLD_MODEL_TAG = "artefact"
"""Its name in earlier versions, whose maps are replaced like others."""

_SIDECARS = (".ovr", ".msk", ".msk.ovr", ".aux.xml")
"""Suffixes of the files that GDAL writes beside a raster or a picture: overviews, masks and statistics."""

_COG_MARK = b"GDAL_STRUCTURAL_METADATA_SIZE="
"""Appears near the start of every Cloud Optimized GeoTIFF that GDAL writes."""


@dataclasses.dataclass(frozen=True)
class MapSettings:
    """How to make a map, and which files.

    Attributes:
        tile: side of the window, px.
        stride: side of a cell and step of the window, px.
        batch: number of windows that are read and classified together.
        answer_all: whether cells get a class even if the answer should be "unknown".
        probabilities: whether to write the probability of every class too.
        polygons: whether to write the map as polygons too.
    """

    tile: int
    stride: int
    batch: int
    answer_all: bool = False
    probabilities: bool = False
    polygons: bool = False


@dataclasses.dataclass(frozen=True)
class Output:
    """One of the files of a map.

    Attributes:
        ending: part of its name after the stem of OUT; `{suffix}` stands for the suffix of OUT.
        raster: whether it is a GeoTIFF of the cells.
        option: the field of `MapSettings` that requests it; None = every map has it.
        text_start, text_end: how its text starts and ends; "" = it is not text.
    """

    ending: str
    raster: bool = False
    option: str | None = None
    text_start: str = ""
    text_end: str = ""

    def name(self, out: Path) -> str:
        """The name of this file for the map `out`."""
        return out.stem + self.ending.format(suffix=out.suffix)

    def is_requested(self, settings: MapSettings) -> bool:
        """Whether a map with these settings has this file."""
        return self.option is None or getattr(settings, self.option)


MAP = Output("{suffix}", raster=True)
CONFIDENCE = Output("_confidence{suffix}", raster=True)
PROBABILITIES = Output("_probabilities{suffix}", raster=True, option="probabilities")
LEGEND = Output("_legend.png")
AREAS = Output("_areas.csv", text_start=areas.TEXT_START, text_end="\n")
ATTRIBUTES = Output("{suffix}.aux.xml", text_start=legend.TEXT_START, text_end=legend.TEXT_END)
POLYGONS = Output("_polygons.geojson", option="polygons", text_start=polygons.TEXT_START, text_end=polygons.TEXT_END)

OUTPUTS = (MAP, CONFIDENCE, PROBABILITIES, LEGEND, AREAS, ATTRIBUTES, POLYGONS)


def raster_names(out: Path, settings: MapSettings) -> list[str]:
    """Names of the rasters of a map, in the order of `OUTPUTS`."""
    return [output.name(out) for output in OUTPUTS if output.raster and output.is_requested(settings)]


def check(out: Path, sources: Iterable[str]) -> None:
    """Refuses to overwrite files that do not belong to an older map.

    An older map is replaced completely, even if it has more files than the new one.

    Args:
        out: the map.
        sources: the files from which it is made.

    Raises:
        InputError: OUT cannot be a map, or one of its files exists and does not belong to an older map.
    """
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(f"OUT {out}: the map is a GeoTIFF; give it the suffix .tif")
    if not out.parent.is_dir():
        raise InputError(f"OUT {out}: there is no folder {out.parent}")
    has_older_map = is_map(out) or starts_with(out.with_name(AREAS.name(out)), AREAS.text_start)
    for output in OUTPUTS:
        path = out.with_name(output.name(out))
        if path.exists():
            _check_replaceable(out, path, sources)
            _check_belongs_to_map(output, out, path, has_older_map)
        for sidecar in filter(Path.exists, _sidecars(path)):
            _check_replaceable(out, sidecar, sources)
            # GDAL and QGIS write sidecars beside a map, and rewrite its attribute table.
            if not has_older_map and not starts_with(sidecar, ATTRIBUTES.text_start):
                raise _foreign_file_error(out, sidecar)


def _sidecars(path: Path) -> list[Path]:
    return [path.with_name(path.name + suffix) for suffix in _SIDECARS]


def _check_replaceable(out: Path, path: Path, sources: Iterable[str]) -> None:
    if not path.is_file():
        raise InputError(f"OUT {out}: {path} exists and is not a file; choose another name")
    if any(path.samefile(source) for source in sources):
        raise InputError(f"OUT {out}: {path.name} is the raster itself; choose another name")


def _check_belongs_to_map(output: Output, out: Path, path: Path, has_older_map: bool) -> None:
    if output.raster:
        if _is_foreign_raster(path, has_older_map):
            raise InputError(
                f"OUT {out}: {path.name} exists and is not a kdjax map; choose another name, or remove it "
                "(several rasters are mapped with --output FOLDER)"
            )
    elif output is LEGEND:  # put in place after the areas, so these exist even if the process was killed in between
        if not out.with_name(AREAS.name(out)).exists():
            raise _foreign_file_error(out, path)
    elif output is not ATTRIBUTES:  # the attribute table is checked as a sidecar of the map
        # A file of an older map may be cut off if the machine stopped.
        expected = output.text_start[: path.stat().st_size] if has_older_map else output.text_start
        if not starts_with(path, expected):
            raise _foreign_file_error(out, path)


def _foreign_file_error(out: Path, path: Path) -> InputError:
    return InputError(
        f"OUT {out}: {path.name} exists and does not belong to a kdjax map; choose another name, or remove it"
    )


def starts_with(path: Path, text: str) -> bool:
    """Whether `path` is a file whose content starts with `text`."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(text.encode())) == text.encode()


def are_complete(out: Path, settings: MapSettings) -> bool:
    """Whether all files of a map are complete, and its table of areas counts the cells of the map.

    A machine that stops may leave file names without content.

    Args:
        out: the map.
        settings: how it was made.

    Raises:
        RasterioError: a file that should be a raster is not, or is damaged.
    """
    paths = {output: out.with_name(output.name(out)) for output in OUTPUTS if output.is_requested(settings)}
    counts = np.zeros(256, int)
    try:
        for output, path in paths.items():
            if output.raster:
                for values in layers.blocks(path):
                    if output is MAP:
                        counts += np.bincount(values.ravel(), minlength=256)
            elif not path.read_bytes().endswith(output.text_end.encode()):
                return False
        with Image.open(paths[LEGEND]) as picture:
            picture.load()
        table_counts = {value: cells for value, cells, *_ in areas.rows(paths[AREAS].read_text(encoding="utf-8"))}
    except (OSError, ValueError):
        return False
    return table_counts == {
        value: cells for value, cells in enumerate(counts.tolist()) if cells and value != legend.NODATA
    }


def is_map(path: Path) -> bool:
    """Whether `path` is a raster of a kdjax map."""
    try:
        return _has_model_tag(path)
    except rasterio.errors.RasterioError:
        return False


def tags(path: Path) -> dict[str, str]:
    """The tags of any raster.

    Raises:
        RasterioError: GDAL cannot open it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # then it is no map
        with rasterio.open(path) as file:
            return dict(file.tags())


def _has_model_tag(path: Path) -> bool:
    return not tags(path).keys().isdisjoint((MODEL_TAG, OLD_MODEL_TAG))


def _is_foreign_raster(path: Path, has_older_map: bool) -> bool:
    """Whether a file is neither a raster of a map, nor a damaged or empty raster of an older map."""
    try:
        return not _has_model_tag(path)
    except rasterio.errors.RasterioError:  # damaged, or a TIFF that this GDAL cannot read
        with path.open("rb") as file:
            head = file.read(64)
        return bool(head) and not (has_older_map and _COG_MARK in head)


def install(build_dir: Path, out: Path, settings: MapSettings) -> None:
    """Moves the files of a map from the folder `build_dir` to their final paths. Signals wait until all are moved.

    The old map is removed first and the new one is moved last. If the map exists, all other files therefore belong to
    it, whatever ended the process. All contents are flushed to the disk before: after a loss of power, a name may exist
    whose content was not written yet.
    """
    for output in OUTPUTS:
        if output.is_requested(settings):
            descriptor = os.open(build_dir / output.name(out), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    with preemption.shielded():
        out.unlink(missing_ok=True)
        for output in OUTPUTS:
            path = out.with_name(output.name(out))
            if not output.is_requested(settings):
                path.unlink(missing_ok=True)
            # GDAL would take overviews, masks and statistics of an older file for those of the new one.
            for sidecar in _sidecars(path):
                sidecar.unlink(missing_ok=True)
        for output in reversed(OUTPUTS):
            if output.is_requested(settings):
                (build_dir / output.name(out)).replace(out.with_name(output.name(out)))
