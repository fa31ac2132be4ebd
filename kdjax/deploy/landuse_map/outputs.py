"""The files of a map: which there are, whether they may be written, and how they come to their place together."""

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

MADE_BY = "artifact"
"""The tag that every raster of a map has: the name of the model."""

MADE_BY_BEFORE = "artefact"
"""What earlier versions called it: their maps are replaced like others."""

_SIDECARS = (".ovr", ".msk", ".msk.ovr", ".aux.xml")
"""What GDAL puts beside a raster or a picture: overviews, masks and statistics."""

_LAID_OUT = b"GDAL_STRUCTURAL_METADATA_SIZE="
"""Stands near the beginning of every Cloud Optimized GeoTIFF of GDAL's."""


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


@dataclasses.dataclass(frozen=True)
class Output:
    """A file of a map.

    Attributes:
        ending: what its name has after the stem of OUT; `{suffix}` is the suffix of OUT.
        raster: whether it is a GeoTIFF of the cells.
        option: the flag of `Wanted` that asks for it; None = every map has it.
        begins, ends: what its text begins and ends with; "" = it is not text.
    """

    ending: str
    raster: bool = False
    option: str | None = None
    begins: str = ""
    ends: str = ""

    def name(self, out: Path) -> str:
        """Its name beside the map `out`."""
        return out.stem + self.ending.format(suffix=out.suffix)

    def wanted(self, wanted: Wanted) -> bool:
        """Whether a map that is made so has it."""
        return self.option is None or getattr(wanted, self.option)


MAP = Output("{suffix}", raster=True)
CONFIDENCE = Output("_confidence{suffix}", raster=True)
PROBABILITIES = Output("_probabilities{suffix}", raster=True, option="probabilities")
LEGEND = Output("_legend.png")
AREAS = Output("_areas.csv", begins=areas.BEGINS, ends="\n")
ATTRIBUTES = Output("{suffix}.aux.xml", begins=legend.BEGINS, ends=legend.ENDS)
POLYGONS = Output("_polygons.geojson", option="polygons", begins=polygons.BEGINS, ends=polygons.ENDS)

OUTPUTS = (MAP, CONFIDENCE, PROBABILITIES, LEGEND, AREAS, ATTRIBUTES, POLYGONS)


def rasters(out: Path, wanted: Wanted) -> list[str]:
    """Names of the rasters of a map, in the order of `OUTPUTS`."""
    return [one.name(out) for one in OUTPUTS if one.raster and one.wanted(wanted)]


def check(out: Path, sources: Iterable[str]) -> None:
    """Refuses to write a map over what is none: an older map is replaced, also where it had more files.

    Args:
        out: the map.
        sources: the files that it is made of.

    Raises:
        InputError: OUT cannot be a map, or one of its files is there and is none of an older map.
    """
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(f"OUT {out}: the map is a GeoTIFF; give it the suffix .tif")
    if not out.parent.is_dir():
        raise InputError(f"OUT {out}: there is no folder {out.parent}")
    older = is_map(out) or begins(out.with_name(AREAS.name(out)), AREAS.begins)
    for output in OUTPUTS:
        place = out.with_name(output.name(out))
        if place.exists():
            _check_place(out, place, sources)
            _check_ours(output, out, place, older)
        for sidecar in filter(Path.exists, _sidecars(place)):
            _check_place(out, sidecar, sources)
            # GDAL and QGIS put sidecars beside a map, and write its attribute table anew.
            if not older and not begins(sidecar, ATTRIBUTES.begins):
                raise _foreign(out, sidecar)


def _sidecars(place: Path) -> list[Path]:
    return [place.with_name(place.name + suffix) for suffix in _SIDECARS]


def _check_place(out: Path, place: Path, sources: Iterable[str]) -> None:
    if not place.is_file():
        raise InputError(f"OUT {out}: {place} exists and is not a file; choose another name")
    if any(place.samefile(source) for source in sources):
        raise InputError(f"OUT {out}: {place.name} is the raster itself; choose another name")


def _check_ours(output: Output, out: Path, place: Path, older: bool) -> None:
    if output.raster:
        if _precious(place, older):
            raise InputError(
                f"OUT {out}: {place.name} exists and is not a kdjax map; choose another name, or remove it "
                "(several rasters are mapped with --output FOLDER)"
            )
    elif output is LEGEND:  # it comes after its areas, also where a process was killed between them
        if not out.with_name(AREAS.name(out)).exists():
            raise _foreign(out, place)
    elif output is not ATTRIBUTES:  # which is a sidecar of the map
        # Of an older map there may be less, where the machine stopped.
        expected = output.begins[: place.stat().st_size] if older else output.begins
        if not begins(place, expected):
            raise _foreign(out, place)


def _foreign(out: Path, place: Path) -> InputError:
    return InputError(
        f"OUT {out}: {place.name} exists and does not belong to a kdjax map; choose another name, or remove it"
    )


def begins(path: Path, text: str) -> bool:
    """Whether it is a file that begins with `text`."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(text.encode())) == text.encode()


def are_whole(out: Path, wanted: Wanted) -> bool:
    """Whether all files of a map are there to their end: a machine that stops may leave names of files without content.

    The table of areas is that of the map's cells.

    Args:
        out: the map.
        wanted: how it was made.

    Raises:
        RasterioError: a raster is none, or damaged.
    """
    places = {one: out.with_name(one.name(out)) for one in OUTPUTS if one.wanted(wanted)}
    counts = np.zeros(256, int)
    try:
        for output, place in places.items():
            if output.raster:
                for values in layers.blocks(place):
                    if output is MAP:
                        counts += np.bincount(values.ravel(), minlength=256)
            elif not place.read_bytes().endswith(output.ends.encode()):
                return False
        with Image.open(places[LEGEND]) as picture:
            picture.load()
        noted = {value: cells for value, cells, *_ in areas.rows(places[AREAS].read_text(encoding="utf-8"))}
    except (OSError, ValueError):
        return False
    return noted == {value: cells for value, cells in enumerate(counts.tolist()) if cells and value != legend.NODATA}


def is_map(path: Path) -> bool:
    """Whether a map of kdjax is there."""
    try:
        return _is_marked(path)
    except rasterio.errors.RasterioError:
        return False


def tags(path: Path) -> dict[str, str]:
    """What is noted in a raster, a map or none.

    Raises:
        RasterioError: GDAL cannot open it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # then it is none
        with rasterio.open(path) as file:
            return dict(file.tags())


def _is_marked(path: Path) -> bool:
    return not tags(path).keys().isdisjoint((MADE_BY, MADE_BY_BEFORE))


def _precious(path: Path, older: bool) -> bool:
    """Whether it is no raster of a map, nor one of an older map that is damaged."""
    try:
        return not _is_marked(path)
    except rasterio.errors.RasterioError:  # damaged, or a TIFF that this GDAL cannot read
        with path.open("rb") as file:
            head = file.read(64)
        return bool(head) and not (older and _LAID_OUT in head)


def put(building: Path, out: Path, wanted: Wanted) -> None:
    """Moves the files of a map from the folder `building` to their place. No signal comes between them.

    The map is removed first and comes last: where it is, the rest is of the same map, whatever ends the process. All of
    it is on the disk before: a name may outlive a loss of power, and the content that was not yet written does not.
    """
    for output in OUTPUTS:
        if output.wanted(wanted):
            descriptor = os.open(building / output.name(out), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    with preemption.shielded():
        out.unlink(missing_ok=True)
        for output in OUTPUTS:
            place = out.with_name(output.name(out))
            if not output.wanted(wanted):
                place.unlink(missing_ok=True)
            # Overviews, masks and statistics of an older file would be taken for this one's.
            for sidecar in _sidecars(place):
                sidecar.unlink(missing_ok=True)
        for output in reversed(OUTPUTS):
            if output.wanted(wanted):
                (building / output.name(out)).replace(out.with_name(output.name(out)))
