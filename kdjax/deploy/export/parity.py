"""How an artifact's outputs and speed compare with what it was made from."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kdjax.data.rows import Images
from kdjax.results import metrics

ROUNDS, SECONDS = (5, 50), 5.0


def compare(logits: np.ndarray, reference: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """Accuracy, and closeness to the reference.

    Args:
        logits, reference: (n, classes) of the same images.
        labels: (n,) int, -1 = unlabeled.

    Returns:
        top1: of `logits`. agreement: share of images with the same class. largest_logit_difference: absolute.
    """
    return {
        "top1": metrics.classification(logits, labels)["top1"],
        "agreement": metrics.agreement(logits, reference)["agreement"],
        "largest_logit_difference": float(np.abs(logits - reference).max()),
    }


def in_batches(function: Callable[[np.ndarray], np.ndarray], images: Images, batch: int = 64) -> np.ndarray:
    """`function` of `images`, so many at a time."""
    return np.concatenate([function(images[start : start + batch]) for start in range(0, len(images), batch)])


def latencies(functions: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Median time of a call in milliseconds, of each function.

    They take turns, so that other work on the machine slows all of them alike: the ratios are then worth more than the
    times. At least 5 and at most 50 rounds, after one to warm up; no new one after five seconds.
    """
    taken: dict[str, list[float]] = {name: [] for name in functions}
    started = time.monotonic()
    for number in range(ROUNDS[1] + 1):
        for name, function in functions.items():
            before = time.perf_counter()
            function()
            if number:
                taken[name].append(1000 * (time.perf_counter() - before))
        if number >= ROUNDS[0] and time.monotonic() - started > SECONDS:
            break
    return {name: float(np.median(times)) for name, times in taken.items()}
