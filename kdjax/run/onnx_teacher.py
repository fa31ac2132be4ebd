"""What the configuration declares about an ONNX teacher, and the check against the file's own metadata."""

from collections.abc import Sequence

import ml_collections

from kdjax.data.bands import canonical, colors
from kdjax.data.dataset import Dataset
from kdjax.data.meaning import ranges_differ
from kdjax.errors import InputError
from kdjax.networks.layers import IMAGENET_MEAN, IMAGENET_STD
from kdjax.run.network_bands import bands_of
from kdjax.teacher.onnx import OnnxDeclaration, OnnxFile


def declared_facts(section: ml_collections.ConfigDict, dataset: Dataset) -> OnnxDeclaration:
    """Returns what the teacher's configuration declares about an ONNX file, for these data.

    Raises:
        InputError: it names a band that the data lack, or a form of pixels that does not fit the bands.
    """
    bands = bands_of("teacher", section.bands, dataset)
    if bands is not None:
        _check_bands(section, bands.names)
    statistics = {"mean": tuple(section.onnx_mean), "std": tuple(section.onnx_std)} if section.onnx_mean else {}
    pixels = section.onnx_input
    if pixels == "imagenet" and bands is not None and (order := colors(bands.names)) != (0, 1, 2):
        pixels = "normalized"  # by ImageNet's statistics of each channel's color
        statistics = {
            "mean": tuple(IMAGENET_MEAN[order.index(channel)] for channel in range(3)),
            "std": tuple(IMAGENET_STD[order.index(channel)] for channel in range(3)),
        }
    return OnnxDeclaration(
        section.onnx_layout,
        pixels,
        tuple(section.classes),
        section.onnx_output,
        section.onnx_gives,
        bands=bands.input.chosen if bands else (),
        **statistics,
    )


def check_metadata(file: OnnxFile, section: ml_collections.ConfigDict, dataset: Dataset) -> None:
    """Compares the data with the metadata of an ONNX file; students that kdjax exported have such metadata.

    Raises:
        InputError: the file takes other bands than it is given, or was made for another range of values.
    """
    bands = bands_of("teacher", section.bands, dataset)
    names = bands.names if bands else ("red", "green", "blue")
    if file.bands is not None and list(map(canonical, file.bands)) != list(map(canonical, names)):
        raise InputError(
            f"teacher.onnx: {file.path} takes the bands {' '.join(file.bands)}, and is given {' '.join(names)}: name "
            "its bands in teacher.bands"
        )
    theirs, ours = file.value_range, list(dataset.value_range)
    if ranges_differ(theirs, ours, named=bool(file.bands)):
        raise InputError(
            f"teacher.onnx: {file.path} was made for the values {theirs}, not {ours}: set dataset.value_range to the "
            "first"
        )


def _check_bands(section: ml_collections.ConfigDict, names: Sequence[str]) -> None:
    count = len(names)
    if section.onnx_input == "uint8" or (section.onnx_input == "imagenet" and (count != 3 or None in colors(names))):
        raise InputError(
            f"teacher.onnx_input is {section.onnx_input!r}, but the file is shown the bands {' '.join(names)} in "
            "[0, 1]: set it to 'unit' or 'normalized', or choose its bands in teacher.bands"
        )
    for field in ("onnx_mean", "onnx_std"):
        if section[field] and len(section[field]) != count:
            raise InputError(f"teacher.{field} has {len(section[field])} numbers: give one for each of {count} bands")
