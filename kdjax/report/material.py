"""The data that the report shows, as plain values."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdjax.data.rows import Images


@dataclasses.dataclass(frozen=True)
class Side:
    """A split and the networks' outputs for it.

    Attributes:
        name: "test" or "validation".
        images: (N, side, side, 3) uint8.
        labels: (N,) class indices; unlabeled images are left out.
        names: N file names.
        teacher: log-probabilities (N, C); None if no teacher was measured on the split.
        students: log-probabilities (networks, N, C).
    """

    name: str
    images: Images
    labels: np.ndarray
    names: Sequence[str]
    teacher: np.ndarray | None
    students: np.ndarray


@dataclasses.dataclass(frozen=True)
class Views:
    """Augmented views of some training images, and the networks' outputs for these pictures.

    Attributes:
        names, labels: names and labels of the images.
        images: (images, side, side, 3) uint8, as stored.
        views: (images, views, size, size, 3) uint8.
        teacher: log-probabilities (images, views, C); None if there is no teacher that can be run.
        students: log-probabilities (networks, images, views, C).
    """

    names: Sequence[str]
    labels: Sequence[int]
    images: np.ndarray
    views: np.ndarray
    teacher: np.ndarray | None
    students: np.ndarray


@dataclasses.dataclass(frozen=True)
class TileLocations:
    """Where the tiles lie.

    Attributes:
        sides: "training", "validation" and "test" -> (n, 2) longitude and latitude in degrees of the located tiles.
        unknown: number of tiles without a known location.
        by_place: whether the split keeps places together; None for a split that came with the data.
        block_km: side of a place, km.
    """

    sides: Mapping[str, np.ndarray]
    unknown: int
    by_place: bool | None
    block_km: float


@dataclasses.dataclass(frozen=True)
class Material:
    """Everything that the page shows.

    Attributes:
        results: the content of results.json.
        records: lines of metrics.jsonl by stage, "teacher" and "distill".
        students: arm and seed of each network along the axis `networks` of `Side` and `Views`; failed ones are left
            out.
        test, validation: the splits.
        views: see `Views`.
        parity: the content of export/parity.json; None without an export of these results.
        note: a note from the user and on how images are shown, or "".
        locations: where the tiles lie; None if that is not known.
    """

    results: Mapping[str, Any]
    records: Mapping[str, Sequence[Mapping[str, Any]]]
    students: Sequence[tuple[str, int]]
    test: Side
    validation: Side
    views: Views
    parity: Mapping[str, Any] | None
    note: str
    locations: TileLocations | None = None
