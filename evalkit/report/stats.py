"""Intervals: of success rates, and of means over frames that come in episodes.

In: counts, or values with the episode of each. Out: 95 % intervals.
Read next: `tables.py`, which fills its rows with them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from statsmodels.stats.proportion import proportion_confint

NUM_RESAMPLES = 1000


class Interval(NamedTuple):
    """Lower and upper end of a 95 % interval."""

    low: float
    high: float


class Correlation(NamedTuple):
    """Correlation of a metric with success over episodes.

    Attributes:
        r: Point-biserial correlation of an episode's mean with its success, in [-1, 1].
        interval: Bootstrap over episodes.
        num_episodes: Episodes that ended in success or failure and have a value.
    """

    r: float
    interval: Interval
    num_episodes: int


def wilson_interval(num_success: int, num_valid: int) -> Interval | None:
    """Return the 95 % Wilson interval of a success rate; None where no episode is valid.

    Args:
        num_success: Episodes that met the goal.
        num_valid: Episodes that ended as success or failure.

    Raises:
        ValueError: If the counts cannot describe real episodes.

    Example:
        >>> low, high = wilson_interval(8, 10)
        >>> round(low, 3), round(high, 3)
        (0.49, 0.943)
    """
    if not 0 <= num_success <= num_valid:
        raise ValueError(f"{num_success} successes of {num_valid} valid episodes is impossible.")
    if num_valid == 0:
        return None
    low, high = proportion_confint(num_success, num_valid, alpha=0.05, method="wilson")
    return Interval(float(low), float(high))


def cluster_interval(sums: np.ndarray, counts: np.ndarray, *, seed: int = 0) -> Interval | None:
    """Return the 95 % bootstrap interval of a mean over frames, whole episodes drawn with replacement.

    Frames of one episode resemble each other; drawing frames would give intervals that are far too narrow.

    Args:
        sums: Sum of the values of each episode.
        counts: Number of values of each episode, at least 1.
        seed: Of the resampling, so that a report is the same each time.

    Returns:
        Percentiles 2.5 and 97.5; None for fewer than two episodes, which say nothing of the spread.

    Example:
        >>> cluster_interval(np.array([10.0, 10.0]), np.array([5, 5]))
        Interval(low=2.0, high=2.0)
    """
    num_episodes = len(sums)
    if num_episodes < 2:
        return None
    weights = _resamples(num_episodes, seed)
    means = (weights @ sums) / (weights @ counts)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(low), float(high))


def success_correlation(episode_means: np.ndarray, successes: np.ndarray, *, seed: int = 0) -> Correlation | None:
    """Return the correlation of a metric with success over episodes; None where one of the two does not vary.

    Args:
        episode_means: Mean of the metric in each episode.
        successes: 1 for success, 0 for failure.
        seed: Of the bootstrap.

    Example:
        >>> round(success_correlation(np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 0, 1, 1])).r, 3)
        0.894
    """
    if len(episode_means) < 3:
        return None
    weights = _resamples(len(episode_means), seed)
    resampled = _weighted_correlation(weights, episode_means, successes.astype(np.float64))
    whole = _weighted_correlation(np.ones((1, len(episode_means))), episode_means, successes.astype(np.float64))
    if not np.isfinite(whole[0]):
        return None
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return Correlation(float(whole[0]), Interval(float(low), float(high)), len(episode_means))


@lru_cache(maxsize=64)
def _resamples(num_episodes: int, seed: int) -> np.ndarray:
    """Return how often each episode is drawn, one row per resample."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(num_episodes, np.full(num_episodes, 1.0 / num_episodes), size=NUM_RESAMPLES)


def _weighted_correlation(weights: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return a correlation a row of weights; NaN where one side does not vary."""
    total = weights.sum(axis=1)
    mean_x, mean_y = (weights @ x) / total, (weights @ y) / total
    covariance = (weights @ (x * y)) / total - mean_x * mean_y
    spread = ((weights @ (x * x)) / total - mean_x**2) * ((weights @ (y * y)) / total - mean_y**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(spread > 1e-18, covariance / np.sqrt(np.maximum(spread, 0)), np.nan))
