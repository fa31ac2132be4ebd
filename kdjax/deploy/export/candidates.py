"""Chooses one of several 8-bit models by its logits on validation."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from kdjax.data.dataset import Split
from kdjax.results import metrics

IMAGES = 256
"""Number of training images to calibrate with."""

LOSS = 0.005
"""Largest loss of validation top-1, as a fraction, that 8 bits may cause without a warning."""

Settings = TypeVar("Settings")
Model = TypeVar("Model")


def calibration(train: Split) -> np.ndarray:
    """Training images to calibrate with, (n, S, S, bands), not augmented.

    The examples are ordered by class, so evenly spaced ones cover all classes.
    """
    return train.images[np.linspace(0, len(train) - 1, min(len(train), IMAGES)).astype(int)]


def nearest(
    settings: Sequence[Settings],
    make: Callable[[Settings], tuple[Model, np.ndarray]],
    expected: np.ndarray,
    labels: np.ndarray,
    say: Callable[[str], None],
) -> tuple[Model, np.ndarray, list[dict[str, Any]]]:
    """The model whose validation logits are nearest to the float network's (root mean square).

    Top-1 would be too coarse: candidates differ by one or two validation images, which is chance.

    Args:
        settings: dataclasses, one for each candidate.
        make: builds a candidate and returns it with its validation logits (n, classes).
        expected: validation logits of the float network, (n, classes).
        labels: of the validation images, (n,).
        say: called with a line on each candidate, and with a warning if the chosen one loses more than `LOSS`.

    Returns:
        The model, its validation logits, and the figures of all candidates.
    """
    float_top1 = metrics.classification(expected, labels)["top1"]
    models: list[tuple[Model, np.ndarray]] = []
    figures: list[dict[str, Any]] = []
    for candidate in settings:
        model, logits = make(candidate)
        models.append((model, logits))
        top1 = metrics.classification(logits, labels)["top1"]
        error = float(np.sqrt(np.mean(np.square(logits - expected))))
        fields = dataclasses.asdict(candidate)  # type: ignore[call-overload]
        measured = {"validation_top1": top1, "validation_top1_lost": float_top1 - top1, "logit_rms_error": error}
        figures.append({**fields, **measured, "chosen": False})
        say(f"{candidate}: validation top-1 {100 * top1:.2f} %, logits off by {error:.3f} (rms)")
    best = min(range(len(figures)), key=lambda index: figures[index]["logit_rms_error"])
    figures[best]["chosen"] = True
    if (warning := loss_warning(figures[best], len(labels))) is not None:
        say(f"warning: {warning}")
    return *models[best], figures


def loss_warning(chosen: Mapping[str, Any], images: int) -> str | None:
    """A warning if 8 bits cost more validation top-1 than `LOSS`; otherwise None.

    Args:
        chosen: figures of the candidate that was chosen.
        images: number of validation images.
    """
    lost = chosen["validation_top1_lost"]
    if round(lost - LOSS, 9) <= 0:
        return None
    return (
        f"8 bits cost {100 * lost:.2f} points of validation top-1 ({round(lost * images)} of {images} images), more "
        f"than {100 * LOSS:g}: compare both files on your own images before you use it"
    )
