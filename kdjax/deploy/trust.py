"""How far a classifier's answers can be trusted: fitted on validation images, stored in the exported files.

One temperature calibrates the probabilities (Guo et al., arXiv 1706.04599). Prediction sets contain the true class of
nine in ten or nineteen in twenty images. They come from split conformal prediction, whose score is the probability of
all classes ranked before the true one (Romano et al., arXiv 2006.02544, without its randomization). Their coverage
would be guaranteed for any network if the validation images had chosen nothing else; see `fit`. An answer is "unknown"
if the calibrated probability of the best class is lower than for nearly all validation images. It is also "unknown" if
the energy of the logits (Liu et al., arXiv 2010.03759) is higher than for nearly all of them: the image is then unlike
the validation images.

Everything is fitted on validation; `measure` evaluates it on test. Needs only NumPy and SciPy.
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
"""Shares of images whose true class a prediction set should contain."""

DOUBTFUL, UNLIKE = 0.05, 0.01
"""Shares of validation images whose confidence is below, and whose energy is above, the fitted limits."""

PRIOR = 0.25
"""Standard deviation of the log-temperature in the prior, whose mean is a temperature of 1.

A hundred images outweigh the prior. With ten images that are all classified correctly, it keeps the temperature from
falling by a factor of ten, which would make the network overconfident.
"""

FEW = 100
"""With fewer validation images, everything fitted here is only a rough estimate."""

KEY = "trust"
"""Field in the metadata of the exported files."""

PROBABILITIES = f"the softmax of logits / temperature, which is in {KEY}, gives calibrated probabilities of the classes"
"""Description of the output in those metadata."""


@dataclasses.dataclass(frozen=True)
class Trust:
    """Calibration and limits, fitted on validation.

    Attributes:
        temperature: divisor of the logits.
        limits: for each level, a class belongs to the prediction set if the classes ranked before it have at most this
            total probability; 1 = every class belongs to it.
        least_confidence: calibrated probability of the best class below which an answer is "unknown".
        most_energy: energy of the logits, nats, above which an answer is "unknown".
        images: number of validation images; None = not known, in files of earlier versions.
    """

    temperature: float
    limits: Mapping[float, float]
    least_confidence: float
    most_energy: float
    images: int | None = None

    @property
    def warning(self) -> str | None:
        """See `few_images_warning`; None if the number of images is not known."""
        return None if self.images is None else few_images_warning(self.images)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (n, classes) float64."""
        return np.exp(log_softmax(np.asarray(logits, np.float64) / self.temperature))

    def sets(self, probabilities: np.ndarray, level: float) -> np.ndarray:
        """Prediction sets (n, classes) bool of calibrated probabilities (n, classes); `level` is a key of `limits`."""
        return _probability_before(probabilities) <= self.limits[level]

    def doubtful(self, probabilities: np.ndarray) -> np.ndarray:
        """Which answers are not confident enough, (n,) bool, from calibrated probabilities (n, classes)."""
        return probabilities.max(-1) < self.least_confidence

    def unlike(self, logits: np.ndarray) -> np.ndarray:
        """Which images are unlike those of validation, (n,) bool, from their logits (n, classes)."""
        return energy(logits) > self.most_energy

    def metadata(self) -> dict[str, str]:
        """The fields for the metadata of an exported file."""
        limits = {str(level): limit for level, limit in self.limits.items()}
        return {KEY: json.dumps({**dataclasses.asdict(self), "limits": limits})}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Trust | None:
        """Reads what `metadata` wrote; None if the file has no such field.

        Raises:
            ValueError: the field is damaged.
        """
        if KEY not in metadata:
            return None
        try:
            fields = json.loads(metadata[KEY])
            limits = {float(level): float(limit) for level, limit in fields["limits"].items()}
            temperature, least_confidence, most_energy = (
                float(fields[name]) for name in ("temperature", "least_confidence", "most_energy")
            )
            images = fields.get("images")
            images = None if images is None else int(images)
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"its {KEY} cannot be read") from error
        shares = (least_confidence, *limits.values(), *limits)
        if not all(map(math.isfinite, (temperature, most_energy, *shares))) or temperature <= 0:
            raise ValueError(f"its {KEY} is not finite")
        # Rounding errors may put a share slightly above 1.
        if not all(0 <= share <= 1 + 1e-9 for share in shares):
            raise ValueError(f"its {KEY} has shares beyond 0 and 1")
        return cls(temperature, limits, least_confidence, most_energy, images)


def few_images_warning(images: int) -> str | None:
    """A warning if `images` validation images are too few for a reliable fit; None if they are enough."""
    if images >= FEW:
        return None
    return (
        f"with {images} validation images, probabilities, prediction sets and unknown answers are rough: give "
        f"validation {FEW} or more"
    )


def energy(logits: np.ndarray) -> np.ndarray:
    """The energy of logits (n, classes): −log Σ exp, nats, (n,) float64; low if some class fits well."""
    return -logsumexp(np.asarray(logits, np.float64), axis=-1)


def fit(logits: np.ndarray, labels: np.ndarray) -> Trust:
    """Fits calibration and limits to validation logits (n, classes) and labels (n,).

    The temperature is the maximum a posteriori estimate with the prior `PRIOR`. Each limit is the smallest one with
    which the sets contain the true class of the requested share of new images like these, in the mean over validation
    splits. That holds if these images chose nothing before. In an export they also chose the network and gave the
    temperature, so the share may be a little lower, and nothing guarantees it. If there are too few images for a level,
    its sets contain all classes.
    """
    from scipy.optimize import minimize_scalar  # slow to import, and code that only reads files does not need it

    logits = np.asarray(logits, np.float64)

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / math.exp(log_temperature))
        return (log_temperature / PRIOR) ** 2 / 2 - float(scaled[np.arange(len(labels)), labels].sum())

    temperature = math.exp(minimize_scalar(loss, bounds=(math.log(0.05), math.log(20)), method="bounded").x)
    probabilities = np.exp(log_softmax(logits / temperature))
    scores = np.sort(_probability_before(probabilities)[np.arange(len(labels)), labels])
    limits = {}
    for level in LEVELS:
        rank = math.ceil((len(scores) + 1) * level)
        limits[level] = float(scores[rank - 1]) if rank <= len(scores) else 1.0
    return Trust(
        temperature,
        limits,
        float(np.quantile(probabilities.max(-1), DOUBTFUL)),
        float(np.quantile(energy(logits), 1 - UNLIKE)),
        len(labels),
    )


def measure(trust: Trust, logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Evaluates `trust` on images other than those it was fitted on.

    Args:
        trust: what to evaluate.
        logits: (n, classes), at least one row.
        labels: (n,).

    Returns:
        temperature; nll and ece "before" and "after" calibration; "sets", with coverage and mean size by level; and
        "unknown", with the share of unknown answers and the top-1 accuracy of the other and of the unknown answers
        (None if there are none).
    """
    probabilities = trust.probabilities(logits)
    rows = np.arange(len(labels))
    correct = probabilities.argmax(-1) == labels
    unknown = trust.doubtful(probabilities) | trust.unlike(logits)
    sets = {}
    for level in trust.limits:
        members = trust.sets(probabilities, level)
        sets[str(level)] = {"coverage": float(members[rows, labels].mean()), "size": float(members.sum(-1).mean())}
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
            "answered_top1": float(correct[~unknown].mean()) if (~unknown).any() else None,
            "unknown_top1": float(correct[unknown].mean()) if unknown.any() else None,
        },
    }


def _probability_before(probabilities: np.ndarray) -> np.ndarray:
    """For each class, the total probability of the classes ranked before it, (n, classes).

    Of classes with equal probabilities, the one with the lower index ranks first.
    """
    order = np.argsort(-probabilities, axis=-1, kind="stable")
    ranked = np.take_along_axis(probabilities, order, -1)
    sums = np.zeros_like(ranked)
    # Rounding errors may put a sum above 1; a set of all classes would then lack the last ones.
    np.minimum(np.cumsum(ranked[:, :-1], axis=-1), 1, out=sums[:, 1:])
    totals = np.empty_like(ranked)
    np.put_along_axis(totals, order, sums, -1)
    return totals
