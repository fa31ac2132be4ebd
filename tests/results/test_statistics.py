"""Statistics over seeds against SciPy and by hand."""

import numpy as np
import pytest
from scipy import stats

from kdjax.results import intervals


@pytest.mark.parametrize("n", [2, 3, 5, 10])
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
    assert intervals.summary([0.5, None, 0.7]) == intervals.summary([0.5, 0.7])
    assert intervals.summary([0.5, 0.5]) == {"mean": 0.5, "std": 0.0, "ci95": [0.5, 0.5]}
    with pytest.raises(ValueError):
        intervals.summary([0.5, float("nan")])


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_paired_t_against_scipy(n):
    rng = np.random.default_rng(n)
    a, b = rng.normal(0.9, 0.02, n), rng.normal(0.88, 0.02, n)
    assert intervals.paired_t(a.tolist(), b.tolist()) == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-9)
    with_failures = intervals.paired_t([*a, None, 0.1], [*b, 0.5, None])
    assert with_failures == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-9)


def test_paired_t_where_it_is_not_defined():
    assert intervals.paired_t([0.9], [0.8]) is None
    assert intervals.paired_t([0.9, None], [0.8, 0.7]) is None
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


def test_overlapping_splits_widen_the_interval():
    a, b = [0.9, 0.92, 0.95], [0.88, 0.9, 0.9]
    plain, wide = intervals.summary(a), intervals.summary(a, overlap=0.25)
    widths = [one["ci95"][1] - one["ci95"][0] for one in (plain, wide)]
    assert widths[1] / widths[0] == pytest.approx(np.sqrt((1 / 3 + 0.25) / (1 / 3)))
    t = stats.ttest_rel(a, b).statistic / np.sqrt((1 / 3 + 0.25) / (1 / 3))
    assert intervals.paired_t(a, b, overlap=0.25) == pytest.approx(2 * stats.t.sf(t, 2))
