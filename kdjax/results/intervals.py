"""Statistics over seeds: mean, spread, intervals, the paired t-test, Holm's correction. Over images: a bootstrap.

A value of None is a seed that failed. What the values cannot give is None, never NaN.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

FEWEST = 3
"""Values from which there is an interval or a p-value. Two values have a t interval 13 standard deviations wide, and
nothing shows whether they are at all normal."""

ROUNDING = 1e-12
"""Equal fractions and losses may differ by so much, and by this share of the largest where that is above 1."""


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are not None, None where there are none."""
    kept = _finite(values)
    return math.fsum(kept) / len(kept) if kept else None


def summary(values: Sequence[float | None], overlap: float = 0.0, largest_of: int = 1) -> dict[str, Any]:
    """Mean, standard deviation and Student's 95 % interval of the values that are not None.

    The interval has no bounds: it is for differences and losses. Accuracies have `accuracies`.

    Args:
        values: one a repetition.
        overlap: test images ÷ training images where the repetitions are random splits of the same images. They are
            then not independent, and the variance of their mean is taken as (1 / n + overlap) std² in place of
            std² / n (Nadeau and Bengio 2003, "Inference for the Generalization Error", equation 15).
        largest_of: so many such means, of which this one was chosen for being the largest. The interval is then wider
            (Bonferroni): 0.975 becomes 1 − 0.025 / largest_of.

    Returns:
        mean: float, None without values. std: with n − 1, None below two values. ci95: [low, high], the
        mean ± t(0.975, n − 1) std sqrt(1 / n + overlap), None below `FEWEST` values and where all are equal: without
        spread nothing says how far another value would be from them.
    """
    kept = _finite(values)
    n, center = len(kept), mean(kept)
    if n < 2 or center is None:
        return {"mean": center, "std": None, "ci95": None}
    std = math.sqrt(math.fsum((v - center) ** 2 for v in kept) / (n - 1))
    if n < FEWEST or std <= _rounding(kept):
        return {"mean": center, "std": std, "ci95": None}
    half = float(special.stdtrit(n - 1, 1 - 0.025 / largest_of)) * std * math.sqrt(1 / n + overlap)
    return {"mean": center, "std": std, "ci95": [center - half, center + half]}


def accuracies(values: Sequence[float | None], overlap: float = 0.0) -> dict[str, Any]:
    """As `summary`, of shares in [0, 1], with an interval that stays in [0, 1].

    It is Wilson's score interval (1927) with an effective sample size from the spread of the values and Student's t in
    place of the normal quantile, as for proportions in clustered surveys (Dean and Pagano 2015, "Evaluating Confidence
    Interval Methods for Binomial Proportions in Clustered Surveys"). With the mean m and the half width h of Student's
    interval it holds every p with (p − m)² ≤ h² p (1 − p) / (m (1 − m)): close to m ± h unless that nears 0 or 1, where
    it leans towards the middle.

    Raises:
        ValueError: a value outside [0, 1].
    """
    if not all(0 <= value <= 1 for value in _finite(values)):
        raise ValueError(f"accuracies must lie in [0, 1], got {list(values)}")
    found = summary(values, overlap)
    if found["ci95"] is None:
        return found
    center = found["mean"]
    square = ((found["ci95"][1] - found["ci95"][0]) / 2) ** 2
    share = square / (center * (1 - center))
    middle, half = center + share / 2, math.sqrt(square + share**2 / 4)
    bounds = [(middle - half) / (1 + share), (middle + half) / (1 + share)]
    return {**found, "ci95": [max(bounds[0], 0.0), min(bounds[1], 1.0)]}  # rounding can leave -1e-17


def paired_differences(a: Sequence[float | None], b: Sequence[float | None]) -> list[float | None]:
    """a − b pair by pair; None where either is None. Raises ValueError if the lengths differ."""
    if len(a) != len(b):
        raise ValueError(f"pairs need two sequences of one length, got {len(a)} and {len(b)}")
    return [None if x is None or y is None else x - y for x, y in zip(a, b, strict=True)]


def paired_t(a: Sequence[float | None], b: Sequence[float | None], overlap: float = 0.0) -> float | None:
    """Two-sided p-value of the paired t-test (Student 1908) of the hypothesis that a − b has mean 0.

    With `overlap` (see `summary`) the corrected resampled t-test of Nadeau and Bengio.
    Pairs with a None are left out. None below `FEWEST` pairs, and where all differences are equal but not 0: without
    spread there is nothing to measure the difference against. 1.0 where all differences are 0.
    """
    differences = _finite(paired_differences(a, b))
    n = len(differences)
    if n < FEWEST:
        return None
    spread = summary(differences)
    rounding = _rounding((*_finite(a), *_finite(b)))
    if spread["std"] <= rounding:
        return 1.0 if abs(spread["mean"]) <= rounding else None
    statistic = abs(spread["mean"]) / (spread["std"] * math.sqrt(1 / n + overlap))
    return min(1.0, 2 * float(special.stdtr(n - 1, -statistic)))


def holm(pvalues: Mapping[str, float | None]) -> dict[str, float | None]:
    """Holm's step-down correction (1979) over the p-values that are not None; None stays None and is not counted."""
    ranked = sorted((p, name) for name, p in pvalues.items() if p is not None)
    corrected: dict[str, float | None] = dict.fromkeys(pvalues)
    largest = 0.0
    for rank, (p, name) in enumerate(ranked):
        largest = max(largest, min(1.0, (len(ranked) - rank) * p))
        corrected[name] = largest
    return corrected


def paired_bootstrap(
    a: np.ndarray, b: np.ndarray, labels: np.ndarray | None = None, *, resamples: int = 10_000, seed: int = 0
) -> dict[str, float | list[float]]:
    """Bootstrap over test images of the difference of two accuracies, each averaged over seeds.

    The images are resampled, the students stay: the interval says what other test images of the same kind might have
    shown of these students, not what other seeds would. Percentile interval (Efron and Tibshirani 1993, chapter 13).

    With `labels` the accuracies are macro recalls, and the images are resampled within each class: a draw without any
    image of a rare class would have no macro recall. A class of one image then adds nothing to the spread.

    Args:
        a, b: (seeds, images) bool, whether each seed's student was right; at least one seed, the same images.
        labels: (images,) int, the classes of the images; None = one accuracy over all.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        difference: mean of a − mean of b. ci95: [low, high].
    """
    difference = a.mean(0) - b.mean(0)
    strata = [difference] if labels is None else [difference[labels == label] for label in np.unique(labels)]
    rng = np.random.default_rng(seed)

    def drawn(part: np.ndarray) -> np.ndarray:
        """Means of the resamples: they only depend on how often each value is drawn, and there are few values."""
        values, counts = np.unique(part, return_counts=True)
        return rng.multinomial(len(part), counts / len(part), size=resamples) @ values / len(part)

    means = np.mean([drawn(part) for part in strata], axis=0)
    low, high = np.quantile(means, (0.025, 0.975))
    center = np.mean([part.mean() for part in strata])
    return {"difference": float(center), "ci95": [float(low), float(high)]}


def _rounding(values: Sequence[float]) -> float:
    """The spread of such values, or of their differences, that is none."""
    return ROUNDING * max(1.0, *map(abs, values))


def _finite(values: Sequence[float | None]) -> list[float]:
    """The values without None. NaN and infinity raise ValueError: a failed seed must come as None."""
    kept = [float(v) for v in values if v is not None]
    if not all(map(math.isfinite, kept)):
        raise ValueError(f"values must be finite or None, got {list(values)}")
    return kept
