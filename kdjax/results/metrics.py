"""Exact measures of a classifier on a whole split, from its logits, in NumPy float64.

No function returns NaN or infinity. A measure is None if it is undefined: no labeled example, a class without examples,
or a network that has diverged to non-finite logits.
"""

from typing import Any

import numpy as np

ECE_BINS = 15


def classification(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Measures how well logits agree with labels.

    Args:
        logits: (N, C), any float dtype.
        labels: (N,) integers in [0, C), or -1 for unlabeled rows, which are ignored.

    Returns:
        count: int, labeled rows.
        top1: share of rows whose largest logit is the label's (of equal logits the first counts).
        macro_recall: mean of the recall over the classes with labeled rows; also called balanced accuracy.
        macro_f1: mean of 2 TP / (2 TP + FP + FN) over the classes that occur among labels or predictions.
        nll: mean negative log-likelihood of the label under the softmax, in nats.
        ece: expected calibration error, 15 equal-width bins (low, high] of the largest probability
            (Guo et al. 2017, arXiv 1706.04599, eq. 3).
        per_class_recall: C entries, None for a class without labeled rows.
        confusion: C lists of C ints, rows are true classes, columns predicted ones.
        Without labeled rows, all but count and confusion are None (per_class_recall: C times None). If a labeled row
        has a non-finite logit, all but count are None, because the network has failed and its argmax is meaningless.

    Raises:
        ValueError: shapes that do not fit, or a label outside [-1, C).
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"logits must be (N, C) and labels (N,), got {logits.shape} and {labels.shape}")
    classes = logits.shape[1]
    if labels.size and not (labels.min() >= -1 and labels.max() < classes):
        raise ValueError(f"labels must lie in [-1, {classes}), got {labels.min()} to {labels.max()}")
    labeled = labels >= 0
    logits, labels = logits[labeled], labels[labeled].astype(np.int64)
    undefined = dict(
        count=len(labels),
        top1=None,
        macro_recall=None,
        macro_f1=None,
        nll=None,
        ece=None,
        per_class_recall=[None] * classes,
        confusion=None,
    )
    if not np.isfinite(logits).all():
        return {**undefined, "per_class_recall": None}
    if not len(labels):
        return {**undefined, "confusion": np.zeros((classes, classes), int).tolist()}

    log_probabilities = log_softmax(logits)
    predicted = logits.argmax(axis=1)
    confusion = np.zeros((classes, classes), np.int64)
    np.add.at(confusion, (labels, predicted), 1)
    hits, true_counts, predicted_counts = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    occurs = true_counts + predicted_counts > 0
    return {
        "count": len(labels),
        "top1": float(hits.sum() / len(labels)),
        "macro_recall": float(np.mean(hits[true_counts > 0] / true_counts[true_counts > 0])),
        "macro_f1": float(np.mean(2 * hits[occurs] / (true_counts + predicted_counts)[occurs])),
        "nll": float(-log_probabilities[np.arange(len(labels)), labels].mean()),
        "ece": _calibration_error(np.exp(log_probabilities.max(axis=1)), predicted == labels),
        "per_class_recall": [float(h / t) if t else None for h, t in zip(hits, true_counts, strict=True)],
        "confusion": confusion.tolist(),
    }


def agreement(student_logits: np.ndarray, teacher_logits: np.ndarray | None) -> dict[str, float | None]:
    """Measures how close a student's outputs are to its teacher's (fidelity; Stanton et al. 2021, arXiv 2106.05945).

    Args:
        student_logits, teacher_logits: (N, C), the same examples in the same order, labeled or not. The teacher's are
            None if there is no teacher.

    Returns:
        agreement: share of rows with the same argmax. kl: mean KL(teacher || student) of the softmax at temperature 1,
        in nats. Both are None without a teacher or rows, or with a non-finite logit.

    Raises:
        ValueError: the two are not of one shape (N, C).
    """
    if teacher_logits is None:
        return {"agreement": None, "kl": None}
    student, teacher = np.asarray(student_logits, np.float64), np.asarray(teacher_logits, np.float64)
    if student.ndim != 2 or student.shape != teacher.shape:
        raise ValueError(f"student and teacher logits must be one shape (N, C), got {student.shape}, {teacher.shape}")
    if not student.size or not (np.isfinite(student).all() and np.isfinite(teacher).all()):
        return {"agreement": None, "kl": None}
    log_student, log_teacher = log_softmax(student), log_softmax(teacher)
    divergence = np.sum(np.exp(log_teacher) * (log_teacher - log_student), axis=1).mean()
    return {
        "agreement": float(np.mean(student.argmax(axis=1) == teacher.argmax(axis=1))),
        "kl": max(float(divergence), 0.0),  # rounding can leave -1e-17
    }


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the logarithm of the softmax over the last axis, (..., C) float64; finite for finite logits."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _calibration_error(confidence: np.ndarray, correct: np.ndarray) -> float:
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    gap = np.bincount(bins, weights=correct.astype(float) - confidence, minlength=ECE_BINS)
    return float(np.abs(gap).sum() / len(confidence))
