"""Statistics over seeds: mean, spread, Student's interval, the paired t-test and Holm's correction; and over images.

A value of None is a seed that failed. Results that cannot be had from the values are None, never NaN.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special


def summary(values: Sequence[float | None], overlap: float = 0.0) -> dict[str, Any]:
    """Mean, standard deviation and 95 % interval of the values that are not None.

    Args:
      values: one a repetition.
      overlap: test images ÷ training images where the repetitions are random splits of the same images. They are then
        not independent, and the variance of their mean is taken as (1 / n + overlap) std² in place of std² / n (Nadeau
        and Bengio 2003, "Inference for the Generalization Error", equation 15).

    Returns:
      mean: float, None without values. std: with n - 1, None below two values.
      ci95: [low, high], the mean ± t(0.975, n - 1) std sqrt(1 / n + overlap), None below two values. It is
        not cut at 0 or 1.
    """
    kept = _finite(values)
    n = len(kept)
    mean = math.fsum(kept) / n if n else None
    if n < 2:
        return {"mean": mean, "std": None, "ci95": None}
    std = math.sqrt(math.fsum((v - mean) ** 2 for v in kept) / (n - 1))
    half = float(special.stdtrit(n - 1, 0.975)) * std * math.sqrt(1 / n + overlap)
    return {"mean": mean, "std": std, "ci95": [mean - half, mean + half]}


def paired_differences(a: Sequence[float | None], b: Sequence[float | None]) -> list[float | None]:
    """a - b pair by pair; None where either is None. Raises ValueError if the lengths differ."""
    if len(a) != len(b):
        raise ValueError(f"pairs need two sequences of one length, got {len(a)} and {len(b)}")
    return [None if x is None or y is None else x - y for x, y in zip(a, b, strict=True)]


def paired_t(a: Sequence[float | None], b: Sequence[float | None], overlap: float = 0.0) -> float | None:
    """Two-sided p-value of the paired t-test (Student 1908) of the hypothesis that a - b has mean 0.

    With `overlap` (see `summary`) the corrected resampled t-test of Nadeau and Bengio.
    Pairs with a None are left out. None below two pairs, and where all differences are equal but not 0: without spread
    there is nothing to measure the difference against. 1.0 where all differences are 0.
    """
    differences = _finite(paired_differences(a, b))
    spread = summary(differences)
    mean, std = spread["mean"], spread["std"]
    if std is None:
        return None
    rounding = 1e-12 * max(abs(v) for v in (*_finite(a), *_finite(b), 0.0))  # equal differences may differ by it
    if std <= rounding:
        return 1.0 if abs(mean) <= rounding else None
    n = len(differences)
    return min(1.0, 2 * float(special.stdtr(n - 1, -abs(mean) / (std * math.sqrt(1 / n + overlap)))))


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
    a: np.ndarray, b: np.ndarray, *, resamples: int = 10_000, seed: int = 0
) -> dict[str, float | list[float]]:
    """Bootstrap over test images of the difference of two accuracies, each averaged over seeds.

    The images are drawn anew, the students stay: the interval tells what other test images of the same kind might have
    said of these students, not what other seeds would. Percentile interval (Efron and Tibshirani 1993, chapter 13).

    Args:
      a, b: (seeds, images) bool, whether each seed's student was right; at least one seed, the same images.
      resamples: number of draws.
      seed: of the draws.

    Returns:
      difference: mean of a - mean of b. ci95: [low, high].
    """
    difference = a.mean(0) - b.mean(0)
    images = len(difference)
    rng = np.random.default_rng(seed)
    drawn = np.concatenate(
        [
            # How often each image is drawn; in parts, so that many images fit into memory.
            rng.multinomial(images, np.full(images, 1 / images), size=min(500, resamples - done)) @ difference / images
            for done in range(0, resamples, 500)
        ]
    )
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {"difference": float(difference.mean()), "ci95": [float(low), float(high)]}


def _finite(values: Sequence[float | None]) -> list[float]:
    """The values without None. NaN and infinity raise ValueError: a failed seed must come as None."""
    kept = [float(v) for v in values if v is not None]
    if not all(map(math.isfinite, kept)):
        raise ValueError(f"values must be finite or None, got {list(values)}")
    return kept
