"""Which bands of the images a network takes, and by which statistics they are normalized."""

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
from kdjax.training.checkpoint import begun
from kdjax.training.learner import WEIGHTS

NAME = "bands.json"
"""In the directory of a run whose images are not plain red, green and blue: their bands and statistics."""


@dataclasses.dataclass(frozen=True)
class TakenBands:
    """Bands that a network takes.

    Attributes:
        names: in the order of its channels.
        input: the same as places among the data's bands, with their statistics.
    """

    names: tuple[str, ...]
    input: InputBands


def document(dataset: Dataset) -> dict[str, Any] | None:
    """The content of `NAME`; None for plain red, green and blue."""
    if dataset.statistics is None:
        return None
    return {
        "names": list(dataset.meaning.names),
        "value_range": list(dataset.meaning.value_range),
        "mean": list(dataset.statistics.mean),
        "std": list(dataset.statistics.std),
    }


def as_begun(workdir: Path, dataset: Dataset) -> Dataset:
    """The data of a run that has begun, with the statistics by which its networks have learned.

    Those of the images now are others where an image, or a library that decodes it, has changed.

    Raises:
        InputError: the record of the statistics cannot be read, or is of other bands.
    """
    now, path = document(dataset), workdir / NAME
    if now is None or not path.is_file():  # earlier versions wrote none
        return dataset
    kept = files.read_json(path, FIX)
    if not isinstance(kept, dict) or kept.keys() != now.keys() or kept["names"] != now["names"]:
        raise InputError(f"{path} is not of the bands of this run: {FIX}")
    return dataclasses.replace(dataset, statistics=Statistics(tuple(kept["mean"]), tuple(kept["std"])))


def taken(where: str, names: Sequence[str], dataset: Dataset, other: OtherRun | None = None) -> TakenBands | None:
    """The bands that a network takes of the images; None = red, green and blue, as its weights were trained.

    Args:
        where: its section of the configuration, for messages.
        names: of the bands, () = all.
        dataset: the data.
        other: the run that trained it, whose statistics it keeps; None = this one.

    Raises:
        InputError: the data have not these bands, or the other run's bands were read otherwise.
    """
    ours = document(dataset)
    theirs = ours if other is None else _document_of(other)
    if other is not None and (ours is None) != (theirs is None):
        has = "has bands of its own" if ours is None else "was trained on plain red, green and blue"
        raise InputError(f"{other.field}: {other.workdir} {has}: give a run on data of the same kind")
    if ours is None or theirs is None:
        if names:
            raise InputError(
                f"{where}.bands is {tuple(names)}, but the images are plain red, green and blue: set dataset.sensor "
                "or dataset.bands"
            )
        return None
    keys, their_keys = ([canonical(name) for name in one["names"]] for one in (ours, theirs))
    names = tuple(names) or tuple(theirs["names"])
    for name in names:
        if canonical(name) not in keys or canonical(name) not in their_keys:
            raise InputError(f"{where}.bands: there is no band {name!r} among {', '.join(ours['names'])}")
    if other is not None and ranges_differ(theirs["value_range"], ours["value_range"], named=True):
        raise InputError(
            f"{other.field}: {other.workdir} maps the values {theirs['value_range']}, this run {ours['value_range']}: "
            "set dataset.value_range to the first"
        )
    places = tuple(keys.index(canonical(name)) for name in names)
    known = [their_keys.index(canonical(name)) for name in names]
    mean, std = (tuple(theirs[kind][place] for place in known) for kind in ("mean", "std"))
    return TakenBands(tuple(ours["names"][place] for place in places), InputBands(mean, std, places))


def frozen(section: Any, folder: Path, bands: TakenBands | None, dataset: Dataset) -> TakenBands | None:
    """The bands of a network whose weights stay as their file has them: normalized as that file says.

    Args:
        section: of the configuration. Where its network is trained, `bands` are returned.
        folder: the network's. Once it has a checkpoint, its record of the file counts: that may be gone by now.
        bands: as `taken` says.
        dataset: the data.

    Raises:
        InputError: the file names bands and not their statistics, or its images were mapped by other values.
    """
    plain = bands is None and not dataset.value_range  # there is nothing to ask the file, which may lie on a hub
    if section.get("fit", "all") == "all" or not section.weights or plain:
        return bands
    if begun(folder):
        record = folder / WEIGHTS
        said = files.read_json(record, "it says where the weights came from: put it back") if record.is_file() else {}
    else:
        try:
            said = _said(section.weights, bands, dataset)
        except InputError as error:
            raise InputError(f"teacher.{error}") from None
    if bands is None or said.get("bands") != list(bands.names):
        return bands
    mean, std = tuple(said["mean"]), tuple(said["std"])
    return dataclasses.replace(bands, input=dataclasses.replace(bands.input, mean=mean, std=std))


def _said(source: str, bands: TakenBands | None, dataset: Dataset) -> dict[str, Any]:
    """What a file of weights says of the bands that are taken, where its images were made as those of the data set."""
    named, theirs, ours = (
        weights_metadata.band_names(source),
        weights_metadata.value_range(source),
        list(dataset.value_range),
    )
    if named != (list(bands.names) if bands else None):  # of red, green and blue, and widened; or refused later
        return {}
    if ranges_differ(theirs, ours, named=bool(named)):
        raise InputError(
            f"weights {source}: made for the values {theirs}, not {ours}: set dataset.value_range to the first"
        )
    said = pretrained.input_statistics(source)
    if named and not said:
        raise InputError(
            f"weights {source}: names its bands, but not the mean and std that its pixels are normalized by: export it "
            "again, or write them into its metadata"
        )
    return said


def _document_of(other: OtherRun) -> dict[str, Any] | None:
    if not (other.workdir / NAME).is_file():
        return None
    return dict(other.read(NAME, "names", "value_range", "mean", "std"))
