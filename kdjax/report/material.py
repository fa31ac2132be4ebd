"""What the report is made from, as plain data."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kdjax.data.rows import Images


@dataclasses.dataclass(frozen=True)
class Side:
    """A split with what the networks say of it.

    Attributes:
        name: "test" or "validation".
        images: (N, side, side, 3) uint8.
        labels: (N,), all of them classes.
        names: N file names.
        teacher: log-probabilities (N, C); None of a teacher that was not measured on it.
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
    """Augmented views of some training images, and what the networks say of these pictures.

    Attributes:
        names, labels: of the images.
        images: (images, side, side, 3) uint8, as they are stored.
        views: (images, views, size, size, 3) uint8.
        teacher: log-probabilities (images, views, C), or None where there is no teacher to run.
        students: log-probabilities (networks, images, views, C).
    """

    names: Sequence[str]
    labels: Sequence[int]
    images: np.ndarray
    views: np.ndarray
    teacher: np.ndarray | None
    students: np.ndarray


@dataclasses.dataclass(frozen=True)
class Located:
    """Where tiles lie.

    Attributes:
        sides: "training", "validation" and "test" -> (n, 2) longitude and latitude in degrees of those that are known.
        unknown: number of the others.
        by_place: whether the split keeps places together; None of a split that came with the data.
        block_km: side of a place.
    """

    sides: Mapping[str, np.ndarray]
    unknown: int
    by_place: bool | None
    block_km: float


@dataclasses.dataclass(frozen=True)
class Material:
    """All that the page shows.

    Attributes:
        results: the content of results.json.
        records: lines of metrics.jsonl by stage, "teacher" and "distill".
        students: arm and seed of each network along the axis `networks` below; none that failed.
        test, validation: the splits.
        views: see `Views`.
        parity: the content of export/parity.json, or None.
        note: a sentence of the user's, or "".
        located: where the tiles lie, None where nothing says it.
    """

    results: Mapping[str, Any]
    records: Mapping[str, Sequence[Mapping[str, Any]]]
    students: Sequence[tuple[str, int]]
    test: Side
    validation: Side
    views: Views
    parity: Mapping[str, Any] | None
    note: str
    located: Located | None = None
