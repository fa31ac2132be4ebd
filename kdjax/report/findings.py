"""Analyses of the logits of teacher and students, beyond the figures of `metrics`, in pure NumPy."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from kdjax.results.metrics import ECE_BINS


@dataclasses.dataclass(frozen=True)
class Bin:
    """One bin of a reliability diagram: number of predictions, their mean confidence, and the share that is right."""

    count: int
    confidence: float
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Confusion:
    """Images of class `true` that were taken for class `predicted`.

    Attributes:
        mistakes: number of mistakes over all networks.
        images: indices of the images; those that more networks mistook come first.
        networks: number of networks that mistook each of these images.
    """

    true: int
    predicted: int
    mistakes: int
    images: tuple[int, ...]
    networks: tuple[int, ...]


def risk_over_coverage(log_probabilities: np.ndarray, labels: np.ndarray, points: int = 100) -> np.ndarray:
    """Returns the error among a network's most confident answers over their share (arXiv 1705.08500), in percent.

    Args:
        log_probabilities: (N, C).
        labels: (N,).
        points: number of points to return.

    Returns:
        (points, 2): the share of images that are answered, ascending to 100 in equal steps, and the error among these.
        Images of equal confidence are answered together or not at all; between two possible shares, the error is
        interpolated linearly. The curve begins at a tenth of the images, or at twenty if that is more, because the
        error of a few images is mostly chance.
    """
    confidence = log_probabilities.max(-1)
    order = np.argsort(-confidence, kind="stable")
    wrong = np.cumsum(log_probabilities.argmax(-1)[order] != labels[order])
    ordered, count = confidence[order], len(labels)
    ends = np.append(ordered[1:] < ordered[:-1], True)  # of images of equal confidence
    answered = np.flatnonzero(ends) + 1
    grid = np.linspace(min(max(count / 10, 20), count), count, points)
    return 100 * np.stack([grid / count, np.interp(grid, answered, wrong[answered - 1] / answered)], axis=1)


def calibration(log_probabilities: np.ndarray, labels: np.ndarray) -> list[Bin]:
    """Returns the nonempty ones of the 15 bins that the expected calibration error uses.

    Args:
        log_probabilities: (..., N, C); leading axes are networks, whose predictions are pooled.
        labels: (N,).
    """
    confidence = np.exp(log_probabilities.max(-1)).ravel()
    right = (log_probabilities.argmax(-1) == labels).ravel()
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    masks = (bins == number for number in range(ECE_BINS))
    return [
        Bin(int(mask.sum()), float(confidence[mask].mean()), float(right[mask].mean())) for mask in masks if mask.any()
    ]


def confusion(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the confusion matrix (C, C), summed over networks; rows are true classes.

    Args:
        log_probabilities: (networks, N, C).
        labels: (N,).
    """
    predicted = log_probabilities.argmax(-1)
    counts = np.zeros((log_probabilities.shape[-1],) * 2, int)
    np.add.at(counts, (np.broadcast_to(labels, predicted.shape), predicted), 1)
    return counts


def confused_pairs(predictions: np.ndarray, labels: np.ndarray) -> list[Confusion]:
    """Returns which class is taken for which, the most frequent pair first.

    Args:
        predictions: (networks, N) classes.
        labels: (N,).
    """
    network, image = (predictions != labels).nonzero()
    pairs = []
    for true, predicted in {*zip(labels[image].tolist(), predictions[network, image].tolist(), strict=True)}:
        networks = (predictions[:, labels == true] == predicted).sum(0)
        images = np.flatnonzero(labels == true)
        order = [index for index in np.argsort(-networks, kind="stable") if networks[index]]
        pairs.append(
            Confusion(
                true,
                predicted,
                int(networks.sum()),
                tuple(int(images[index]) for index in order),
                tuple(int(networks[index]) for index in order),
            )
        )
    return sorted(pairs, key=lambda pair: (-pair.mistakes, pair.true, pair.predicted))


def hardest(log_probabilities: np.ndarray, labels: np.ndarray, count: int) -> list[tuple[int, float]]:
    """Returns the images with the largest loss, and the loss in nats: the mean of -log p(label) over networks.

    Args:
        log_probabilities: (networks, N, C).
        labels: (N,).
        count: number of images.
    """
    losses = -log_probabilities[:, np.arange(len(labels)), labels].mean(0)
    return [(int(image), float(losses[image])) for image in np.argsort(-losses, kind="stable")[:count]]


def suspect_labels(
    teacher: np.ndarray | None, students: np.ndarray, labels: np.ndarray
) -> list[tuple[int, int, float]]:
    """Returns the images that all students, and the teacher if measured, put into one class other than the label.

    Args:
        teacher: (N, C) log-probabilities, or None.
        students: (networks, N, C) log-probabilities; at least one network if there is no teacher.
        labels: (N,).

    Returns:
        The image, the class that all networks predict, and the mean of its probabilities; the most confident first.
    """
    all_networks = students if teacher is None else np.concatenate([teacher[None], students])
    predictions = all_networks.argmax(-1)
    unanimous = (predictions == predictions[0]).all(0) & (predictions[0] != labels)
    suspects = []
    for image in np.flatnonzero(unanimous):
        other = int(predictions[0, image])
        suspects.append((int(image), other, float(np.exp(all_networks[:, image, other]).mean())))
    return sorted(suspects, key=lambda suspect: (-suspect[2], suspect[0]))


def votes(predictions: np.ndarray) -> list[tuple[int, int]]:
    """Returns the classes among the predictions (networks,) and how often each occurs, the most frequent first."""
    classes, counts = np.unique(predictions, return_counts=True)
    return sorted(
        ((int(label), int(count)) for label, count in zip(classes, counts, strict=True)), key=lambda v: (-v[1], v[0])
    )


def first_examples(labels: np.ndarray, classes: Sequence[int]) -> list[int]:
    """Returns the first example of each of these classes; classes without examples are skipped."""
    examples_by_class = (np.flatnonzero(labels == label) for label in classes)
    return [int(indices[0]) for indices in examples_by_class if len(indices)]
