"""Statistics over seeds and over images against SciPy and by hand."""

import numpy as np
import pytest
from scipy import optimize, stats

from kdjax.results import intervals


@pytest.mark.parametrize("n", [3, 5, 10])
def test_summary_against_scipy(n):
    values = np.random.default_rng(n).normal(0.9, 0.02, n)
    out = intervals.summary(values.tolist())
    assert out["mean"] == pytest.approx(values.mean())
    assert out["std"] == pytest.approx(values.std(ddof=1))
    low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert out["ci95"] == pytest.approx([low, high])


def test_summary_of_few_or_failed_values():
    assert intervals.summary([]) == {"mean": None, "std": None, "ci95": None}
    assert intervals.summary([None, None]) == {"mean": None, "std": None, "ci95": None}
    assert intervals.summary([0.5, None]) == {"mean": 0.5, "std": None, "ci95": None}
    assert intervals.summary([0.5, None, 0.7, 0.9]) == intervals.summary([0.5, 0.7, 0.9])
    assert intervals.summary([0.5, 0.5, 0.5]) == {"mean": 0.5, "std": 0.0, "ci95": None}
    assert intervals.mean([]) is None and intervals.mean([None]) is None and intervals.mean([1.0, None, 2.0]) == 1.5
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError):
            intervals.summary([0.5, bad])


@pytest.mark.parametrize("of", [intervals.summary, intervals.accuracies])
def test_two_values_have_a_spread_but_no_interval(of):
    assert of([0.25, 0.75]) == {"mean": 0.5, "std": pytest.approx(np.sqrt(0.125)), "ci95": None}
    assert of([0.25, None, 0.75])["ci95"] is None and of([0.25, 0.5, 0.75])["ci95"] is not None


@pytest.mark.parametrize(
    "values", [[1.0] * 3, [0.0] * 4, [0.95] * 3, [0.1 + 0.2, 0.3, 0.3], [1e-17, 0.0, 1e-17], [0.5, None, 0.5, 0.5]]
)
def test_values_without_spread_have_no_interval(values):
    """Equal but for rounding: nothing tells how far another one would be from them."""
    for of in (intervals.summary, intervals.accuracies):
        found = of(values)
        assert found["ci95"] is None and found["std"] == pytest.approx(0, abs=1e-15)
    assert intervals.paired_t(values, [None if one is None else one + 0.05 for one in values]) is None
    almost = [0.5, 0.5, 0.5 + 1e-7]  # one image of ten million
    assert intervals.summary(almost)["ci95"] is not None and intervals.accuracies(almost)["ci95"] is not None


def test_rounding_grows_with_the_values():
    """Those of large losses differ by more than those of accuracies."""
    assert intervals.summary([1e5, 1e5 + 3e-11, 1e5])["ci95"] is None
    assert intervals.summary([1e5, 1e5 + 1e-3, 1e5])["ci95"] is not None


@pytest.mark.parametrize("values", [[0.97, 0.99, 1.0], [0.0, 0.01, 0.0], [0.7, 0.72, 0.74], [0.2, 0.9, 0.5, 0.99]])
@pytest.mark.parametrize("overlap", [0.0, 0.4])
def test_the_interval_of_accuracies_solves_its_equation(values, overlap):
    mean, n = np.mean(values), len(values)
    half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) * np.sqrt(1 / n + overlap)
    outside = lambda p: (p - mean) ** 2 - half**2 * p * (1 - p) / (mean * (1 - mean))
    low, high = optimize.brentq(outside, 0, mean), optimize.brentq(outside, mean, 1)
    out = intervals.accuracies(values, overlap)
    assert out["ci95"] == pytest.approx([low, high], abs=1e-9) and 0 <= low < mean < high <= 1
    assert {**out, "ci95": None} == {**intervals.summary(values, overlap), "ci95": None}


def test_the_interval_of_accuracies_of_0_or_1_is_wilsons():
    # Single answers, right or wrong, have the spread of a binomial, and many of them nearly normal quantiles.
    for right in (3, 400, 1990):
        values = [1.0] * right + [0.0] * (2000 - right)
        expected = stats.binomtest(right, 2000).proportion_ci(0.95, "wilson")
        assert intervals.accuracies(values)["ci95"] == pytest.approx([expected.low, expected.high], rel=2e-3)


def test_accuracies_stay_between_0_and_1_where_students_interval_does_not():
    for values in ([1.0, 1.0, 0.9], [0.0, 0.0, 0.1], [0.0, 1.0, 1.0], [0.999, 1.0, 1.0, 1.0]):
        low, high = intervals.summary(values)["ci95"]
        assert low < 0 or high > 1
        low, high = intervals.accuracies(values)["ci95"]
        assert 0 <= low < np.mean(values) < high <= 1
    for values in ([0.5, 1.2, 0.5], [-0.1, 0.5, 0.5], [97.0, 98.0, 99.0]):
        with pytest.raises(ValueError, match="0, 1"):
            intervals.accuracies(values)


def test_the_interval_of_accuracies_holds_the_truth_19_times_in_20():
    # Accuracies near 1 are skewed: Student's interval holds their mean in 88 of 100 cases here.
    rng = np.random.default_rng(0)
    for truth, wanted, tolerance in ((0.97, 0.95, 0.015), (0.995, 0.93, 0.02), (0.6, 0.95, 0.015)):
        drawn = rng.beta(truth * 200, (1 - truth) * 200, (3000, 5))
        found = np.array([intervals.accuracies(one.tolist())["ci95"] for one in drawn])
        assert np.mean((found[:, 0] <= truth) & (truth <= found[:, 1])) == pytest.approx(wanted, abs=tolerance)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_paired_t_against_scipy(n):
    rng = np.random.default_rng(n)
    a, b = rng.normal(0.9, 0.02, n), rng.normal(0.88, 0.02, n)
    assert intervals.paired_t(a.tolist(), b.tolist()) == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-9)
    with_failures = intervals.paired_t([*a, None, 0.1], [*b, 0.5, None])
    assert with_failures == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-9)


def test_paired_t_where_it_is_not_defined():
    assert intervals.paired_t([0.9], [0.8]) is None
    assert intervals.paired_t([0.9, None], [0.8, 0.7]) is None
    assert intervals.paired_t([0.9, 0.95], [0.8, 0.7]) is None and intervals.paired_t([0.9, 0.9], [0.9, 0.9]) is None
    assert intervals.paired_t([0.9, 0.95, None, 0.9], [0.8, 0.7, 0.6, None]) is None
    assert intervals.paired_t([0.9, 0.8, 0.7], [0.9, 0.8, 0.7]) == 1.0
    assert intervals.paired_t([0.9, 0.8, 0.7], [0.8, 0.7, 0.6]) is None  # equal but for rounding
    with pytest.raises(ValueError):
        intervals.paired_t([0.9], [0.8, 0.7])


def test_holm_by_hand():
    # Ranks .01 x 4, .02 x 3, .03 x 2, .04 x 1, never falling.
    assert intervals.holm({"a": 0.04, "b": 0.01, "c": None, "d": 0.03, "e": 0.02}) == pytest.approx(
        {"a": 0.06, "b": 0.04, "d": 0.06, "e": 0.06, "c": None}
    )
    assert intervals.holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert intervals.holm({"a": 0.03}) == {"a": 0.03}
    assert intervals.holm({}) == {}


def test_holm_keeps_the_family_wise_error():
    # Under the null (uniform p), at most about 5 % of families hold any corrected p below 0.05.
    rng = np.random.default_rng(0)
    families = [intervals.holm(dict(zip("abc", rng.random(3), strict=True))) for _ in range(4000)]
    assert np.mean([min(f.values()) < 0.05 for f in families]) == pytest.approx(0.05, abs=0.012)


def test_the_bootstrap_interval_is_that_of_scipy():
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 300)) < 0.9, rng.random((2, 300)) < 0.8
    found = intervals.paired_bootstrap(a, b)
    difference = a.mean(0) - b.mean(0)
    expected = stats.bootstrap((difference,), np.mean, method="percentile", rng=rng).confidence_interval
    assert found["difference"] == pytest.approx(difference.mean())
    assert found["ci95"] == pytest.approx(list(expected), abs=0.004)
    assert found == intervals.paired_bootstrap(a, b)  # the same draws each time


def test_the_bootstrap_is_of_pairs():
    # Two students that are right on nearly the same images: only the few others count. By hand, the resampled sum of
    # n differences is a sum of independent draws, normal for many images.
    rng = np.random.default_rng(2)
    b = rng.random((3, 2000)) < 0.7
    a = b.copy()
    a[:, :60] = ~b[:, :60]
    difference = a.mean(0) - b.mean(0)
    half = 1.96 * difference.std() / np.sqrt(2000)
    found = intervals.paired_bootstrap(a, b)
    center = difference.mean()
    assert found["ci95"] == pytest.approx([center - half, center + half], abs=6e-4)
    unpaired = 1.96 * np.sqrt((a.mean(0).var() + b.mean(0).var()) / 2000)
    assert np.ptp(found["ci95"]) < 0.5 * 2 * unpaired
    assert intervals.paired_bootstrap(b, b) == {"difference": 0.0, "ci95": [0.0, 0.0]}
    assert intervals.paired_bootstrap(b, a)["difference"] == -found["difference"]


def test_the_bootstrap_draws_as_often_as_it_says():
    # Of one image in two the student is right and the other wrong: over n images the share drawn is binomial.
    a = np.arange(10)[None] % 2 == 0
    found = intervals.paired_bootstrap(a, np.zeros_like(a), resamples=20_000)
    low, high = stats.binom.ppf([0.025, 0.975], 10, 0.5) / 10
    assert found == {"difference": 0.5, "ci95": [low, high]}
    other = intervals.paired_bootstrap(a, np.zeros_like(a), resamples=7, seed=5)
    draws = np.random.default_rng(5).multinomial(10, [0.5, 0.5], size=7) @ [0, 1] / 10
    assert other["ci95"] == pytest.approx(np.quantile(draws, (0.025, 0.975)).tolist())


def test_overlapping_splits_widen_the_interval():
    a, b = [0.9, 0.92, 0.95], [0.88, 0.9, 0.9]
    plain, wide = intervals.summary(a), intervals.summary(a, overlap=0.25)
    widths = [one["ci95"][1] - one["ci95"][0] for one in (plain, wide)]
    assert widths[1] / widths[0] == pytest.approx(np.sqrt((1 / 3 + 0.25) / (1 / 3)))
    t = stats.ttest_rel(a, b).statistic / np.sqrt((1 / 3 + 0.25) / (1 / 3))
    assert intervals.paired_t(a, b, overlap=0.25) == pytest.approx(2 * stats.t.sf(t, 2))
