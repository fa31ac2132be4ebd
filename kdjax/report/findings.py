"""What the logits of teacher and students show beyond the figures of `metrics`: pure NumPy."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from kdjax.results.metrics import ECE_BINS


@dataclasses.dataclass(frozen=True)
class Bin:
    """One bin of a reliability diagram: how many predictions, their mean confidence, the share that is right."""

    count: int
    confidence: float
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Confusion:
    """Images of class `true` that were taken for class `predicted`.

    Attributes:
        mistakes: how often, over all networks.
        images: which images, those that more networks mistook first.
        networks: how many networks mistook each of them.
    """

    true: int
    predicted: int
    mistakes: int
    images: tuple[int, ...]
    networks: tuple[int, ...]


def risk_over_coverage(log_probabilities: np.ndarray, labels: np.ndarray, points: int = 100) -> np.ndarray:
    """The error among the answers that a network is surest of (arXiv 1705.08500), in percent.

    Args:
        log_probabilities: (N, C).
        labels: (N,).
        points: how many to give.

    Returns:
        (points, 2): share of the images that is answered, ascending to 100 in equal steps, and the error among these.
        Images of equal confidence are answered together or not at all; between two possible shares the line is
        straight. It begins at a tenth of the images, or twenty of them: the error of fewer is chance.
    """
    confidence = log_probabilities.max(-1)
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(log_probabilities.argmax(-1)[order] != labels[order])
    ordered, count = confidence[order], len(labels)
    ends = np.append(ordered[1:] < ordered[:-1], True)  # of images of equal confidence
    answered = np.flatnonzero(ends) + 1
    shown = np.linspace(min(max(count / 10, 20), count), count, points)
    return 100 * np.stack([shown / count, np.interp(shown, answered, wrong[answered - 1] / answered)], axis=1)


def calibration(log_probabilities: np.ndarray, labels: np.ndarray) -> list[Bin]:
    """The bins that are not empty, of the 15 that the expected calibration error uses.

    Args:
        log_probabilities: (..., N, C); leading axes are networks, whose predictions count alike.
        labels: (N,).
    """
    confidence = np.exp(log_probabilities.max(-1)).ravel()
    right = (log_probabilities.argmax(-1) == labels).ravel()
    place = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    chosen = (place == one for one in range(ECE_BINS))
    return [Bin(int(c.sum()), float(confidence[c].mean()), float(right[c].mean())) for c in chosen if c.any()]


def confusion(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(C, C) counts over all networks of (networks, N, C), rows the true class of (N,)."""
    predicted = log_probabilities.argmax(-1)
    counts = np.zeros((log_probabilities.shape[-1],) * 2, int)
    np.add.at(counts, (np.broadcast_to(labels, predicted.shape), predicted), 1)
    return counts


def confused_pairs(predictions: np.ndarray, labels: np.ndarray) -> list[Confusion]:
    """Which class is taken for which, the most frequent first.

    Args:
        predictions: (networks, N) classes.
        labels: (N,).
    """
    network, image = (predictions != labels).nonzero()
    found = []
    for true, predicted in {*zip(labels[image].tolist(), predictions[network, image].tolist(), strict=True)}:
        networks = (predictions[:, labels == true] == predicted).sum(0)
        images = np.flatnonzero(labels == true)
        order = [one for one in np.argsort(-networks, kind="stable") if networks[one]]
        found.append(
            Confusion(
                true,
                predicted,
                int(networks.sum()),
                tuple(int(images[one]) for one in order),
                tuple(int(networks[one]) for one in order),
            )
        )
    return sorted(found, key=lambda one: (-one.mistakes, one.true, one.predicted))


def hardest(log_probabilities: np.ndarray, labels: np.ndarray, count: int) -> list[tuple[int, float]]:
    """The images with the largest loss, and that loss in nats: the mean over networks of -log p(label).

    Args:
        log_probabilities: (networks, N, C).
        labels: (N,).
        count: how many.
    """
    losses = -log_probabilities[:, np.arange(len(labels)), labels].mean(0)
    return [(int(image), float(losses[image])) for image in np.argsort(-losses, kind="stable")[:count]]


def suspect_labels(
    teacher: np.ndarray | None, students: np.ndarray, labels: np.ndarray
) -> list[tuple[int, int, float]]:
    """Images whose label the teacher, if measured, and every student deny with one voice.

    Args:
        teacher: (N, C) log-probabilities, or None.
        students: (networks, N, C) log-probabilities; without a teacher at least one.
        labels: (N,).

    Returns:
        Image, the class that all of them name, and the mean of its probabilities; the surest first.
    """
    everyone = students if teacher is None else np.concatenate([teacher[None], students])
    named = everyone.argmax(-1)
    agreed = (named == named[0]).all(0) & (named[0] != labels)
    found = []
    for image in np.flatnonzero(agreed):
        other = int(named[0, image])
        found.append((int(image), other, float(np.exp(everyone[:, image, other]).mean())))
    return sorted(found, key=lambda one: (-one[2], one[0]))


def votes(predictions: np.ndarray) -> list[tuple[int, int]]:
    """Classes and how many of the predictions (networks,) name them, the most frequent first."""
    classes, counts = np.unique(predictions, return_counts=True)
    return sorted(
        ((int(one), int(count)) for one, count in zip(classes, counts, strict=True)), key=lambda v: (-v[1], v[0])
    )


def one_of_each(labels: np.ndarray, classes: Sequence[int]) -> list[int]:
    """The first example of each of these classes that has one."""
    found = (np.flatnonzero(labels == one) for one in classes)
    return [int(examples[0]) for examples in found if len(examples)]
