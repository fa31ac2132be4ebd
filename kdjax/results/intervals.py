"""Statistics over seeds (mean, spread, intervals, paired t-test, Holm's correction) and a bootstrap over images.

A value of None is a seed that failed. A result that the values do not define is None, never NaN.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

FEWEST = 3
"""The smallest number of values with an interval or a p-value. The half width of the t interval of two values is 9
standard deviations, and nothing shows whether they are normally distributed."""

ROUNDING = 1e-12
"""Rounding error up to which values count as equal; relative to the largest value if that is above 1."""


def mean(values: Sequence[float | None]) -> float | None:
    """Returns the mean of the values that are not None; None if there are none."""
    finite = _finite(values)
    return math.fsum(finite) / len(finite) if finite else None


def summary(values: Sequence[float | None], overlap: float = 0.0, largest_of: int = 1) -> dict[str, Any]:
    """Returns mean, standard deviation and Student's 95 % interval of the values that are not None.

    The interval is not limited to a range, so it suits differences and losses; for accuracies use `accuracies`.

    Args:
        values: one per repetition.
        overlap: test images ÷ training images if the repetitions are random splits of the same images. These are not
            independent, so the variance of their mean is taken as (1 / n + overlap) std² instead of std² / n (Nadeau
            and Bengio 2003, "Inference for the Generalization Error", equation 15). Training images are those that
            another split might test; whether a student sees their labels does not matter.
        largest_of: the number of means from which this one was chosen as the largest. The interval is then wider
            (Bonferroni): 0.975 becomes 1 − 0.025 / largest_of.

    Returns:
        mean: float, None without values. std: with n − 1, None below two values. ci95: [low, high], the
        mean ± t(0.975, n − 1) std sqrt(1 / n + overlap); None below `FEWEST` values, and if all are equal, because
        values without spread do not show how much another one would differ.
    """
    finite = _finite(values)
    n, center = len(finite), mean(finite)
    if n < 2 or center is None:
        return {"mean": center, "std": None, "ci95": None}
    std = math.sqrt(math.fsum((v - center) ** 2 for v in finite) / (n - 1))
    if n < FEWEST or std <= _rounding(finite):
        return {"mean": center, "std": std, "ci95": None}
    half = float(special.stdtrit(n - 1, 1 - 0.025 / largest_of)) * std * math.sqrt(1 / n + overlap)
    return {"mean": center, "std": std, "ci95": [center - half, center + half]}


def accuracies(values: Sequence[float | None], overlap: float = 0.0) -> dict[str, Any]:
    """Returns the same as `summary` for fractions, with an interval that stays in [0, 1].

    It is Wilson's score interval (1927) with an effective sample size from the spread of the values and Student's t
    instead of the normal quantile, as for proportions in clustered surveys (Dean and Pagano 2015, "Evaluating
    Confidence Interval Methods for Binomial Proportions in Clustered Surveys"). With the mean m and the half width h of
    Student's interval, it contains every p with (p − m)² ≤ h² p (1 − p) / (m (1 − m)). That is close to m ± h, except
    near 0 and 1, where it is pulled towards the middle.

    Raises:
        ValueError: a value outside [0, 1].
    """
    if not all(0 <= value <= 1 for value in _finite(values)):
        raise ValueError(f"accuracies must lie in [0, 1], got {list(values)}")
    spread = summary(values, overlap)
    if spread["ci95"] is None:
        return spread
    center = spread["mean"]
    square = ((spread["ci95"][1] - spread["ci95"][0]) / 2) ** 2
    share = square / (center * (1 - center))
    middle, half = center + share / 2, math.sqrt(square + share**2 / 4)
    bounds = [(middle - half) / (1 + share), (middle + half) / (1 + share)]
    return {**spread, "ci95": [max(bounds[0], 0.0), min(bounds[1], 1.0)]}  # rounding can leave -1e-17


def paired_differences(a: Sequence[float | None], b: Sequence[float | None]) -> list[float | None]:
    """Returns a − b pair by pair, None if either is None. Raises ValueError if the lengths differ."""
    if len(a) != len(b):
        raise ValueError(f"pairs need two sequences of one length, got {len(a)} and {len(b)}")
    return [None if x is None or y is None else x - y for x, y in zip(a, b, strict=True)]


def paired_t(a: Sequence[float | None], b: Sequence[float | None], overlap: float = 0.0) -> float | None:
    """Returns the two-sided p-value of the paired t-test (Student 1908) of the hypothesis that a − b has mean 0.

    With `overlap` (see `summary`), it is the corrected resampled t-test of Nadeau and Bengio. Pairs with a None are
    left out. The result is None below `FEWEST` pairs, and if all differences are equal but not 0, because there is no
    spread to compare the difference with. It is 1.0 if all differences are 0.
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
    """Applies Holm's step-down correction (1979) to the p-values; None stays None and is not counted."""
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
    """Bootstraps the difference of two accuracies, each averaged over seeds, by resampling test images.

    Images are resampled and students are not, so the interval shows how these students might do on other test images of
    the same kind, not how other seeds would do. It is a percentile interval (Efron and Tibshirani 1993, chapter 13).

    With `labels`, the accuracies are macro recalls, and images are resampled within each class: macro recall would be
    undefined for a resample without any image of a rare class. A class with a single image adds nothing to the spread.

    Args:
        a, b: (seeds, images) bool, whether each seed's student was right; at least one seed, the same images.
        labels: (images,) int, the classes of the images; None = one accuracy over all images.
        resamples: number of resamples.
        seed: seed of the random resamples.

    Returns:
        difference: mean of a − mean of b. ci95: [low, high].
    """
    difference = a.mean(0) - b.mean(0)
    strata = [difference] if labels is None else [difference[labels == label] for label in np.unique(labels)]
    rng = np.random.default_rng(seed)

    def resampled_means(part: np.ndarray) -> np.ndarray:
        """Draws the counts of the few distinct values instead of single images, because only counts matter."""
        values, counts = np.unique(part, return_counts=True)
        return rng.multinomial(len(part), counts / len(part), size=resamples) @ values / len(part)

    means = np.mean([resampled_means(part) for part in strata], axis=0)
    low, high = np.quantile(means, (0.025, 0.975))
    center = np.mean([part.mean() for part in strata])
    return {"difference": float(center), "ci95": [float(low), float(high)]}


def _rounding(values: Sequence[float]) -> float:
    """Returns the largest spread of these values, or of their differences, that is rounding error only."""
    return ROUNDING * max(1.0, *map(abs, values))


def _finite(values: Sequence[float | None]) -> list[float]:
    """Returns the values that are not None. Raises ValueError for NaN and infinity: a failed seed must be None."""
    finite = [float(v) for v in values if v is not None]
    if not all(map(math.isfinite, finite)):
        raise ValueError(f"values must be finite or None, got {list(values)}")
    return finite
