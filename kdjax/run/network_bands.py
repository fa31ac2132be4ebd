"""Which bands of the images a network takes, and the statistics that normalize them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdjax.data.bands import canonical
from kdjax.data.dataset import Dataset, Statistics
from kdjax.data.meaning import ranges_differ
from kdjax.errors import InputError
from kdjax.networks import pretrained, weights_metadata
from kdjax.networks.layers import InputBands
from kdjax.run.other_run import OtherRun
from kdjax.run.record import FIX
from kdjax.runtime import files
from kdjax.training.checkpoint import has_begun
from kdjax.training.learner import WEIGHTS

NAME = "bands.json"
"""File in a run's directory with the bands and statistics of its images, unless these are plain red, green and blue."""


@dataclasses.dataclass(frozen=True)
class NetworkBands:
    """The bands that a network takes.

    Attributes:
        names: their names, in the order of the network's channels.
        input: their indices among the data's bands, and their statistics.
    """

    names: tuple[str, ...]
    input: InputBands


def document(dataset: Dataset) -> dict[str, Any] | None:
    """Returns the content of `NAME`; None for plain red, green and blue."""
    if dataset.statistics is None:
        return None
    return {
        "names": list(dataset.meaning.names),
        "value_range": list(dataset.meaning.value_range),
        "mean": list(dataset.statistics.mean),
        "std": list(dataset.statistics.std),
    }


def with_recorded_statistics(workdir: Path, dataset: Dataset) -> Dataset:
    """Returns the data of a run that has begun, with the statistics that its networks were trained with.

    The statistics of the current images differ if an image, or a library that decodes it, has changed.

    Raises:
        InputError: the recorded statistics cannot be read, or are of other bands.
    """
    current, path = document(dataset), workdir / NAME
    if current is None or not path.is_file():  # earlier versions did not write the file
        return dataset
    recorded = files.read_json(path, FIX)
    if not isinstance(recorded, dict) or recorded.keys() != current.keys() or recorded["names"] != current["names"]:
        raise InputError(f"{path} is not of the bands of this run: {FIX}")
    return dataclasses.replace(dataset, statistics=Statistics(tuple(recorded["mean"]), tuple(recorded["std"])))


def bands_of(
    section_name: str, names: Sequence[str], dataset: Dataset, other: OtherRun | None = None
) -> NetworkBands | None:
    """Returns the bands of the images that a network takes; None = red, green and blue, as its weights were trained.

    Args:
        section_name: the network's section of the configuration, for messages.
        names: names of the bands; () = all.
        dataset: the data.
        other: the run that trained the network, whose statistics it keeps; None = this run.

    Raises:
        InputError: the data or the other run lack a band, or the other run maps other values to black and white.
    """
    ours = document(dataset)
    theirs = ours if other is None else _document_of(other)
    if other is not None and (ours is None) != (theirs is None):
        description = "has bands of its own" if ours is None else "was trained on plain red, green and blue"
        raise InputError(f"{other.field}: {other.workdir} {description}: give a run on data of the same kind")
    if ours is None or theirs is None:
        if names:
            raise InputError(
                f"{section_name}.bands is {tuple(names)}, but the images are plain red, green and blue: set "
                "dataset.sensor or dataset.bands"
            )
        return None
    keys, their_keys = ([canonical(name) for name in record["names"]] for record in (ours, theirs))
    names = tuple(names) or tuple(theirs["names"])
    for name in names:
        if canonical(name) not in keys or canonical(name) not in their_keys:
            raise InputError(f"{section_name}.bands: there is no band {name!r} among {', '.join(ours['names'])}")
    if other is not None and ranges_differ(theirs["value_range"], ours["value_range"], named=True):
        raise InputError(
            f"{other.field}: {other.workdir} maps the values {theirs['value_range']}, this run {ours['value_range']}: "
            "set dataset.value_range to the first"
        )
    places = tuple(keys.index(canonical(name)) for name in names)
    their_places = [their_keys.index(canonical(name)) for name in names]
    mean, std = (tuple(theirs[kind][place] for place in their_places) for kind in ("mean", "std"))
    return NetworkBands(tuple(ours["names"][place] for place in places), InputBands(mean, std, places))


def with_file_statistics(
    section: Any, folder: Path, bands: NetworkBands | None, dataset: Dataset
) -> NetworkBands | None:
    """Returns a network's bands; if its weights stay frozen, with the statistics that the weights file declares.

    Args:
        section: the network's section of the configuration. For a network that is trained, `bands` is returned.
        folder: the network's folder. Once it has a checkpoint, its record of the weights file is read in place of the
            file, which may no longer exist.
        bands: the bands from `bands_of`.
        dataset: the data.

    Raises:
        InputError: the file names bands but not their statistics, or was made for another range of values.
    """
    plain = bands is None and not dataset.value_range  # nothing to read from the file, which may be on the hub
    if section.get("fit", "all") == "all" or not section.weights or plain:
        return bands
    if has_begun(folder):
        record = folder / WEIGHTS
        statistics = (
            files.read_json(record, "it says where the weights came from: put it back") if record.is_file() else {}
        )
    else:
        try:
            statistics = _file_statistics(section.weights, bands, dataset)
        except InputError as error:
            raise InputError(f"teacher.{error}") from None
    if bands is None or statistics.get("bands") != list(bands.names):
        return bands
    mean, std = tuple(statistics["mean"]), tuple(statistics["std"])
    return dataclasses.replace(bands, input=dataclasses.replace(bands.input, mean=mean, std=std))


def _file_statistics(source: str, bands: NetworkBands | None, dataset: Dataset) -> dict[str, Any]:
    """Reads the input statistics of a weights file (see `pretrained.input_statistics`) if it names just these bands.

    Returns {} if it names other bands: an RGB file is widened, and others are refused later.

    Raises:
        InputError: see `with_file_statistics`.
    """
    band_names = weights_metadata.band_names(source)
    theirs, ours = weights_metadata.value_range(source), list(dataset.value_range)
    if band_names != (list(bands.names) if bands else None):
        return {}
    if ranges_differ(theirs, ours, named=bool(band_names)):
        raise InputError(
            f"weights {source}: made for the values {theirs}, not {ours}: set dataset.value_range to the first"
        )
    statistics = pretrained.input_statistics(source)
    if band_names and not statistics:
        raise InputError(
            f"weights {source}: names its bands, but not the mean and std that its pixels are normalized by: export it "
            "again, or write them into its metadata"
        )
    return statistics


def _document_of(other: OtherRun) -> dict[str, Any] | None:
    if not (other.workdir / NAME).is_file():
        return None
    return dict(other.read(NAME, "names", "value_range", "mean", "std"))
