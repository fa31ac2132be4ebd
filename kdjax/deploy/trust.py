"""How far a classifier's answers can be trusted: what its validation images say of it, kept in the exported files.

Probabilities are calibrated by one temperature (Guo et al., arXiv 1706.04599). A prediction set holds the true class of
nine in ten or nineteen in twenty images: split conformal prediction, with the probability of all classes ranked before
the true one as score (Romano et al., arXiv 2006.02544, without its randomization). It would hold for any network if
validation had chosen nothing else; see `fit`. An answer is "unknown" where the calibrated probability of the best class
is lower than for nearly all validation images, or where the energy of the logits (Liu et al., arXiv 2010.03759) is
higher: the image is unlike those.

NumPy and SciPy only. All of it is chosen on validation; `measure` says on test what came of it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import logsumexp

from kdjax.results.metrics import classification, log_softmax

LEVELS = (0.9, 0.95)
"""Shares of images whose true class a prediction set is to hold."""

DOUBTFUL, UNLIKE = 0.05, 0.01
"""Shares of validation images whose confidence is below, and whose energy is above the limits."""

PRIOR = 0.25
"""Standard deviation of the logarithm of temperatures before any image is seen, around a temperature of 1: a hundred
images outweigh it, and ten that are all right do not make the network boast (without it, by a factor of ten)."""

FEW = 100
"""With fewer validation images than these all of it is rough."""

KEY = "trust"
"""In the metadata of the exported files."""

PROBABILITIES = f"the softmax of logits / temperature, which is in {KEY}, gives calibrated probabilities of the classes"
"""What those say of their output."""


@dataclasses.dataclass(frozen=True)
class Trust:
    """What was found on validation.

    Attributes:
        temperature: that the logits are divided by.
        limits: by level, the largest probability that classes before one in a set may have together; 1 = all classes.
        least_confidence: calibrated probability of the best class below which an answer is "unknown".
        most_energy: of the logits, nats, above which it is, too.
        images: of validation that it was fitted on; None = not known, in files of earlier versions.
    """

    temperature: float
    limits: Mapping[float, float]
    least_confidence: float
    most_energy: float
    images: int | None = None

    @property
    def warning(self) -> str | None:
        """See `rough`."""
        return None if self.images is None else rough(self.images)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (n, classes) float64."""
        return np.exp(log_softmax(np.asarray(logits, np.float64) / self.temperature))

    def sets(self, probabilities: np.ndarray, level: float) -> np.ndarray:
        """Prediction sets (n, classes) bool of calibrated probabilities, for one of `limits`."""
        before = _before(probabilities)
        return before <= self.limits[level]

    def doubtful(self, probabilities: np.ndarray) -> np.ndarray:
        """Which of (n, classes) calibrated probabilities name no class with enough confidence, (n,) bool."""
        return probabilities.max(-1) < self.least_confidence

    def unlike(self, logits: np.ndarray) -> np.ndarray:
        """Which images are unlike those of validation, by their logits (n, classes), (n,) bool."""
        return energy(logits) > self.most_energy

    def metadata(self) -> dict[str, str]:
        """For the metadata of an exported file."""
        limits = {str(level): limit for level, limit in self.limits.items()}
        return {KEY: json.dumps({**dataclasses.asdict(self), "limits": limits})}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Trust | None:
        """What `metadata` wrote; None where a file has none of it.

        Raises:
            ValueError: it is damaged.
        """
        if KEY not in metadata:
            return None
        try:
            held = json.loads(metadata[KEY])
            limits = {float(level): float(limit) for level, limit in held["limits"].items()}
            temperature, confidence, most = (
                float(held[name]) for name in ("temperature", "least_confidence", "most_energy")
            )
            images = held.get("images")
            images = None if images is None else int(images)
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"its {KEY} cannot be read") from error
        if not all(map(math.isfinite, (temperature, confidence, most, *limits.values(), *limits))) or temperature <= 0:
            raise ValueError(f"its {KEY} is not finite")
        # Rounding may take what is a share a little beyond 1.
        if not all(0 <= share <= 1 + 1e-9 for share in (confidence, *limits.values(), *limits)):
            raise ValueError(f"its {KEY} has shares beyond 0 and 1")
        return cls(temperature, limits, confidence, most, images)


def rough(images: int) -> str | None:
    """What to expect of answers that so many validation images were there for; None where they are enough."""
    if images >= FEW:
        return None
    return (
        f"with {images} validation images probabilities, sets and the answer unknown are rough: give validation {FEW} "
        "or more"
    )


def energy(logits: np.ndarray) -> np.ndarray:
    """Of logits (n, classes): −log Σ exp, nats (n,) float64; low where some class fits well."""
    return -logsumexp(np.asarray(logits, np.float64), axis=-1)


def fit(logits: np.ndarray, labels: np.ndarray) -> Trust:
    """What validation logits (n, classes) and labels (n,) say.

    The limits are the smallest with which sets hold the true class of the asked share of new images like these, in the
    mean over validation splits, if these images chose nothing before. Where they also chose the network and gave the
    temperature, as in an export, the share may be a little less: nothing guarantees it. Where there are too few images
    for a level, its sets hold all classes. The temperature is the most probable one, given `PRIOR`.
    """
    from scipy.optimize import minimize_scalar  # takes a while, and whoever only reads files has no use for it

    logits = np.asarray(logits, np.float64)

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / math.exp(log_temperature))
        return (log_temperature / PRIOR) ** 2 / 2 - float(scaled[np.arange(len(labels)), labels].sum())

    temperature = math.exp(minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded").x)
    probabilities = np.exp(log_softmax(logits / temperature))
    scores = np.sort(_before(probabilities)[np.arange(len(labels)), labels])
    limits = {}
    for level in LEVELS:
        place = math.ceil((len(scores) + 1) * level)
        limits[level] = float(scores[place - 1]) if place <= len(scores) else 1.0
    return Trust(
        temperature,
        limits,
        float(np.quantile(probabilities.max(-1), DOUBTFUL)),
        float(np.quantile(energy(logits), 1 - UNLIKE)),
        len(labels),
    )


def measure(trust: Trust, logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """What became of it on other images: logits (n, classes) and labels (n,), at least one.

    Returns:
        temperature; nll and ece "before" and "after" the calibration; sets: by level coverage and mean size; unknown:
        share, and top1 of those answered and of those not (None where there are none).
    """
    probabilities = trust.probabilities(logits)
    rows = np.arange(len(labels))
    right = probabilities.argmax(-1) == labels
    unknown = trust.doubtful(probabilities) | trust.unlike(logits)
    sets = {}
    for level in trust.limits:
        held = trust.sets(probabilities, level)
        sets[str(level)] = {"coverage": float(held[rows, labels].mean()), "size": float(held.sum(-1).mean())}
    scaled = np.asarray(logits, np.float64) / trust.temperature
    before, after = (
        {name: classification(values, labels)[name] for name in ("nll", "ece")} for values in (logits, scaled)
    )
    return {
        "temperature": trust.temperature,
        "before": before,
        "after": after,
        "sets": sets,
        "unknown": {
            "share": float(unknown.mean()),
            "answered_top1": float(right[~unknown].mean()) if (~unknown).any() else None,
            "unknown_top1": float(right[unknown].mean()) if unknown.any() else None,
        },
    }


def _before(probabilities: np.ndarray) -> np.ndarray:
    """Of each class the probability of all classes that are ranked before it, (n, classes); of equals the first."""
    order = np.argsort(-probabilities, axis=-1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, -1)
    sums = np.zeros_like(ranked)
    # Rounding may take a sum beyond 1, and a set of all classes would then leave the last ones out.
    np.minimum(np.cumsum(ranked[:, :-1], axis=-1), 1, out=sums[:, 1:])
    before = np.empty_like(ranked)
    np.put_along_axis(before, order, sums, -1)
    return before
