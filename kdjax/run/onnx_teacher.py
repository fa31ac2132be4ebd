"""What the configuration says of an ONNX file that is the teacher."""

import ml_collections

from kdjax.data.dataset import Dataset
from kdjax.errors import InputError
from kdjax.run.taken_bands import taken
from kdjax.teacher.onnx import Declared


def declared(section: ml_collections.ConfigDict, dataset: Dataset) -> Declared:
    """What the configuration of the teacher says of an ONNX file, for these data.

    Raises:
        InputError: it names a band that they do not have, or pixels that do not go with its bands.
    """
    bands = taken("teacher", section.bands, dataset)
    if bands is not None:
        _check_bands(section, len(bands.names))
    normalized = {"mean": tuple(section.onnx_mean), "std": tuple(section.onnx_std)} if section.onnx_mean else {}
    return Declared(
        section.onnx_layout,
        section.onnx_input,
        tuple(section.classes),
        section.onnx_output,
        section.onnx_gives,
        bands=bands.input.chosen if bands else (),
        **normalized,
    )


def _check_bands(section: ml_collections.ConfigDict, count: int) -> None:
    if section.onnx_input == "uint8" or (section.onnx_input == "imagenet" and count != 3):
        raise InputError(
            f"teacher.onnx_input is {section.onnx_input!r}, but the file is shown {count} bands in [0, 1]: set it to "
            "'unit' or 'normalized', or choose its bands in teacher.bands"
        )
    for field in ("onnx_mean", "onnx_std"):
        if section[field] and len(section[field]) != count:
            raise InputError(f"teacher.{field} has {len(section[field])} numbers: give one for each of {count} bands")
