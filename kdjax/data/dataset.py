"""The types that every source and every consumer of image data share."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Mapping

import numpy as np

from kdjax.data.bands import Bands
from kdjax.data.meaning import Meaning
from kdjax.data.rows import Images, Rows, row_hashes

UNLABELED = -1


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples of one side of a split.

    Attributes:
        images: (N, S, S, channels) of the data set's bands, uint8 or uint16: rows of a store, or in memory.
        labels: int32 (N,), index into the classes; -1 is unlabeled (train only).
        names: N names, unique over the data set.
        hashes: uint8 (N, 32), the `row_hashes` of the images; None = not known yet.
    """

    images: Images
    labels: np.ndarray
    names: tuple[str, ...]
    hashes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.names)

    def image_hashes(self) -> np.ndarray:
        """Returns the hashes of the images, uint8 (N, 32); reads all images if the hashes are not known yet."""
        return row_hashes(self.images) if self.hashes is None else self.hashes

    def labeled(self) -> Split:
        """The examples that have a label, in their order; images are not copied."""
        rows = np.flatnonzero(self.labels >= 0)
        if len(rows) == len(self):
            return self
        return Split(
            Rows.of(self.images).select(rows),
            self.labels[rows],
            tuple(self.names[i] for i in rows),
            None if self.hashes is None else self.hashes[rows],
        )


@dataclasses.dataclass(frozen=True)
class Statistics:
    """Statistics of each band over all pixels, on the scale [0, 1] of the networks' inputs.

    Attributes:
        mean: mean of each band.
        std: standard deviation of each band, above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set ready for training.

    Attributes:
        name: short name for logs and results.
        classes: class names; a label is an index into them.
        train: the training split.
        validation: the validation split.
        test: the test split.
        fingerprint: sha256 (hex) of classes, names, labels, the hashes of images, and their order in the splits.
        notes: facts worth logging (skipped files, dropped duplicates, the value range chosen).
        members: names per split before label_fraction drops any, and the names whose label it hides.
        overlap: test images ÷ training images that have a label, hidden or not, if another data seed would draw another
            test split from the same images; 0 if it would render new images; None if the test split comes from the
            source or a file.
        meaning: kind of numbers, bands and size of the tiles, against which images are checked at prediction.
        statistics: statistics of the bands over the training images; None for plain red, green and blue.
        bounds: west, south, east and north of the tiles' centers, degrees; () = not known.
        digests: name in `members` -> hex digest of the pixels before resizing, which is the same for an image whatever
            its name and whatever the storage size.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    fingerprint: str
    notes: tuple[str, ...]
    members: dict[str, tuple[str, ...]]
    overlap: float | None
    meaning: Meaning = Meaning()
    statistics: Statistics | None = None
    bounds: tuple[float, ...] = ()
    digests: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def value_range(self) -> tuple[float, ...]:
        """The (low, high) by which 16-bit and float images were mapped; () = there were no such images."""
        return self.meaning.value_range

    @property
    def class_counts(self) -> dict[str, list[int]]:
        """Labeled images of each class in "train", "val" and "test"."""
        labels = {"train": self.train.labels, "val": self.validation.labels, "test": self.test.labels}
        return {
            side: np.bincount(side_labels[side_labels >= 0], minlength=len(self.classes)).tolist()
            for side, side_labels in labels.items()
        }

    def splits_document(self) -> dict[str, list[str]]:
        """Names per split, as plain JSON data.

        'train', 'validation' and 'test' can be passed to `dataset.splits` again, also with another label_fraction: they
        hold the full split, except images that never had a label if dataset.unlabeled drops those. 'label_hidden' are
        the names in train and validation whose label label_fraction hides (hidden validation examples are not used).
        'unlabeled' are the tiles that unlabeled_dir added to train. 'classes' are the class names in the order of the
        labels.
        """
        return {**{key: list(names) for key, names in self.members.items()}, "classes": list(self.classes)}


@dataclasses.dataclass(frozen=True)
class Context:
    """What a source receives along with its config section.

    Attributes:
        data_seed: seed of the data set, not negative.
        cache_dir: folder for decoded images; None = they are not cached.
        log: receives progress messages.
    """

    data_seed: int
    cache_dir: pathlib.Path | None
    log: Callable[[str], None] = print


@dataclasses.dataclass(frozen=True)
class Pool:
    """All examples of a source before they are split.

    Attributes:
        name: short name of the source.
        classes: class names.
        images: (N, S, S, channels), uint8 or uint16.
        labels: int32 (N,), -1 = unlabeled.
        names: N unique names.
        digests: N sha256 hex digests of the decoded original pixels (before resizing).
        sides: N strings: 'train', 'validation' or 'test' if the source has its own splits, otherwise ''.
        notes: facts worth logging.
        meaning: kind of numbers, bands and size of the tiles.
        redrawn: whether another data seed gives new images.
        hashes: uint8 (N, 32), the `row_hashes` of the images; None = not known yet.
        skipped: names of the images that could not be read; they are not among the examples.
    """

    name: str
    classes: tuple[str, ...]
    images: Images
    labels: np.ndarray
    names: tuple[str, ...]
    digests: tuple[str, ...]
    sides: tuple[str, ...]
    notes: tuple[str, ...] = ()
    meaning: Meaning = Meaning()
    redrawn: bool = False
    hashes: np.ndarray | None = None
    skipped: frozenset[str] = frozenset()

    def take(self, indices: np.ndarray, labels: np.ndarray) -> Split:
        """Selects the examples at `indices`, int (n,), with the given labels, (n,); images are not copied."""
        return Split(
            Rows.of(self.images).select(indices),
            np.asarray(labels, np.int32),
            tuple(self.names[i] for i in indices),
            None if self.hashes is None else self.hashes[indices],
        )


def fingerprint(classes: tuple[str, ...], splits: dict[str, Split], bands: Bands | None = None) -> str:
    """sha256 (hex) of everything that defines the data: classes, bands, and per split names, labels and images.

    Images enter by the hashes of their pixels, which the cache has already checked against the pixels.
    """
    hasher = hashlib.sha256()

    def add(data: bytes) -> None:
        # The length comes first, so that two different sequences of fields cannot give the same bytes.
        hasher.update(len(data).to_bytes(8, "little"))
        hasher.update(data)

    add("\n".join(classes).encode())
    if bands:
        add("\n".join(bands.names).encode())
    for key, split in splits.items():
        add(key.encode())
        add("\n".join(split.names).encode("utf-8", "surrogateescape"))
        add(split.labels.astype("<i4").tobytes())
        add(repr(split.images.shape).encode())
        add(repr(np.dtype(split.images.dtype).str).encode() + split.image_hashes().tobytes())
    return hasher.hexdigest()
