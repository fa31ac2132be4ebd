"""The one of several 8-bit models to keep: chosen on validation, by its logits."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from kdjax.data.dataset import Split
from kdjax.results import metrics

IMAGES = 256

LOSS = 0.005
"""Validation top-1, as a fraction, that 8 bits may cost without a word."""

Settings = TypeVar("Settings")
Model = TypeVar("Model")


def calibration(train: Split) -> np.ndarray:
    """Training images to calibrate with, (n, S, S, bands), not augmented.

    The examples are ordered by class, so an even choice takes of all classes.
    """
    return train.images[np.linspace(0, len(train) - 1, min(len(train), IMAGES)).astype(int)]


def nearest(
    settings: Sequence[Settings],
    make: Callable[[Settings], tuple[Model, np.ndarray]],
    expected: np.ndarray,
    labels: np.ndarray,
    say: Callable[[str], None],
) -> tuple[Model, np.ndarray, list[dict[str, Any]]]:
    """The model with the validation logits nearest to the float network's (root mean square).

    Top-1 would be a coarse judge: candidates differ by one or two validation images, which is chance.

    Args:
        settings: dataclasses, one for each candidate.
        make: gives the candidate and its validation logits (n, classes).
        expected: the float network's, (n, classes).
        labels: of the validation images, (n,).
        say: takes a sentence on each candidate, and one where the model costs more than `LOSS`.

    Returns:
        The model, its validation logits, and the figures of all candidates.
    """
    unquantized = metrics.classification(expected, labels)["top1"]
    found: list[tuple[Model, np.ndarray]] = []
    tried: list[dict[str, Any]] = []
    for one in settings:
        model, logits = make(one)
        found.append((model, logits))
        top1 = metrics.classification(logits, labels)["top1"]
        error = float(np.sqrt(np.mean(np.square(logits - expected))))
        held = dataclasses.asdict(one)  # type: ignore[call-overload]
        measured = {"validation_top1": top1, "validation_top1_lost": unquantized - top1, "logit_rms_error": error}
        tried.append({**held, **measured, "chosen": False})
        say(f"{one}: validation top-1 {100 * top1:.2f} %, logits off by {error:.3f} (rms)")
    best = min(range(len(tried)), key=lambda number: tried[number]["logit_rms_error"])
    tried[best]["chosen"] = True
    if (words := loss(tried[best], len(labels))) is not None:
        say(f"warning: {words}")
    return *found[best], tried


def loss(chosen: Mapping[str, Any], images: int) -> str | None:
    """What 8 bits cost, where that is more than `LOSS`.

    Args:
        chosen: the figures of the candidate that was kept.
        images: number of validation images.
    """
    lost = chosen["validation_top1_lost"]
    if round(lost - LOSS, 9) <= 0:
        return None
    return (
        f"8 bits cost {100 * lost:.2f} points of validation top-1 ({round(lost * images)} of {images} images), more "
        f"than {100 * LOSS:g}: compare both files on your own images before you use it"
    )
