"""Intervals at their edges and against independent values.

In: counts and values. Out: a verdict.
Read next: `evalkit/report/stats.py`.
"""

import numpy as np
import pytest
from scipy.stats import binomtest

from evalkit.report import stats
from tests.doubles.known import known


@pytest.mark.parametrize(("num_success", "num_valid"), [(0, 10), (3, 10), (10, 10), (1, 1), (950, 1000)])
def test_wilson_equals_scipy(num_success: int, num_valid: int) -> None:
    expected = binomtest(num_success, num_valid).proportion_ci(0.95, method="wilson")
    assert stats.wilson_interval(num_success, num_valid) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_no_valid_episode_has_no_interval() -> None:
    assert stats.wilson_interval(0, 0) is None


@pytest.mark.parametrize(("num_success", "num_valid"), [(3, 2), (-1, 2)])
def test_impossible_counts_are_refused(num_success: int, num_valid: int) -> None:
    with pytest.raises(ValueError, match="impossible"):
        stats.wilson_interval(num_success, num_valid)


def test_clustered_interval_is_wider_than_one_of_frames() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 1)) + 0.01 * rng.normal(size=(20, 50))  # frames of an episode resemble each other
    low, high = known(stats.cluster_interval(values.sum(axis=1), np.full(20, 50.0)))
    naive = 2 * 1.96 * values.std() / np.sqrt(values.size)
    assert high - low > 4 * naive
    assert low < values.mean() < high


def test_one_episode_says_nothing_of_the_spread() -> None:
    assert stats.cluster_interval(np.array([3.0]), np.array([2.0])) is None


def test_the_same_report_has_the_same_interval() -> None:
    sums, counts = np.arange(10.0), np.full(10, 2.0)
    assert stats.cluster_interval(sums, counts) == stats.cluster_interval(sums, counts)


def test_correlation_equals_numpy() -> None:
    rng = np.random.default_rng(1)
    values, successes = rng.normal(size=40), rng.random(40) < 0.5
    found = stats.success_correlation(values + successes, successes)
    assert known(found).r == pytest.approx(np.corrcoef(values + successes, successes)[0, 1])
    assert known(known(found).interval).low < known(found).r < known(known(found).interval).high


def test_no_correlation_where_all_succeed() -> None:
    assert stats.success_correlation(np.arange(5.0), np.ones(5)) is None
    assert stats.success_correlation(np.ones(5), np.array([0, 1, 0, 1, 1])) is None
