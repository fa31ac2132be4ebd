"""Which bands of the images a network takes, and by which statistics they are normalized."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from kdjax.data.bands import canonical
from kdjax.data.dataset import Dataset
from kdjax.errors import InputError
from kdjax.networks.layers import InputBands
from kdjax.run.other_run import OtherRun

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
    if other is not None and ours["value_range"] != theirs["value_range"]:
        raise InputError(
            f"{other.field}: {other.workdir} maps the values {theirs['value_range']}, this run {ours['value_range']}: "
            "set dataset.value_range to the first"
        )
    places = tuple(keys.index(canonical(name)) for name in names)
    known = [their_keys.index(canonical(name)) for name in names]
    mean, std = (tuple(theirs[kind][place] for place in known) for kind in ("mean", "std"))
    return TakenBands(tuple(ours["names"][place] for place in places), InputBands(mean, std, places))


def _document_of(other: OtherRun) -> dict[str, Any] | None:
    if not (other.workdir / NAME).is_file():
        return None
    return dict(other.read(NAME, "names", "value_range", "mean", "std"))
