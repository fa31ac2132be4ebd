"""Compares the outputs and the speed of exported files."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kdjax.data.rows import Images
from kdjax.results import metrics

ROUNDS, SECONDS = (5, 50), 5.0


def compare(logits: np.ndarray, reference: np.ndarray, labels: np.ndarray) -> dict[str, float | None]:
    """Compares logits with the labels and with reference logits.

    Args:
        logits, reference: (n, classes) of the same images.
        labels: (n,) int, -1 = unlabeled.

    Returns:
        top1: accuracy of `logits`. agreement: share of images with the same class. largest_logit_difference:
        largest absolute difference.
    """
    return {
        "top1": metrics.classification(logits, labels)["top1"],
        "agreement": metrics.agreement(logits, reference)["agreement"],
        "largest_logit_difference": float(np.abs(logits - reference).max()),
    }


def in_batches(function: Callable[[np.ndarray], np.ndarray], images: Images, batch: int = 64) -> np.ndarray:
    """Applies `function` to `images`, `batch` of them at a time, and concatenates the results."""
    return np.concatenate([function(images[start : start + batch]) for start in range(0, len(images), batch)])


def latencies(functions: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Median time of a call of each function, in milliseconds.

    The functions take turns, so that other work on the machine slows all of them alike; the ratios are therefore more
    reliable than the times. After a round to warm up, there are at least 5 and at most 50 rounds, and no new round
    starts after five seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    started = time.monotonic()
    for round_number in range(ROUNDS[1] + 1):
        for name, function in functions.items():
            call_started = time.perf_counter()
            function()
            if round_number:
                times[name].append(1000 * (time.perf_counter() - call_started))
        if round_number >= ROUNDS[0] and time.monotonic() - started > SECONDS:
            break
    return {name: float(np.median(values)) for name, values in times.items()}
