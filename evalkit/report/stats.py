"""Intervals of success rates, and of means over frames that come in episodes.

In: counts, or sums of values with their number, per episode. Out: 95 % intervals.
Read next: `correlation.py`, predictions and success; `tables.py`, which fills its rows with both;
`tests/unit/test_report_coverage.py`, which measures how often the intervals hold the true value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student_t
from statsmodels.stats.proportion import proportion_confint

CONFIDENCE = 0.95
MIN_FOR_TAIL, MIN_FOR_SKEW = 3, 4
"""Episodes from which on an interval leans away from a bound, and to the side of their longer tail."""

SKEW_SHOWN = 0.8
"""Share of the skewness of a distribution that a small sample shows."""

NO_SPREAD = 1e-12
"""A standard error below this share of the values is rounding."""


class Interval(NamedTuple):
    """Lower and upper end of a 95 % interval."""

    low: float
    high: float


class Spread(NamedTuple):
    """How uncertain a mean is.

    Attributes:
        error: Standard error.
        freedom: Degrees of freedom of the standard error.
        skew: Sum of the cubed residuals over the sum of their squares to the power 1.5: Hall's skewness of the mean.
    """

    error: float
    freedom: float
    skew: float


def success_interval(num_success: int, num_valid: int) -> Interval | None:
    """Return the 95 % Clopper-Pearson interval of a success rate; None where no episode is valid.

    It holds the true rate at least 95 times in 100 whatever the rate is, also near 100 %, where Wilson's does not.

    Args:
        num_success: Episodes that met the goal.
        num_valid: Episodes that ended as success or failure.

    Raises:
        ValueError: If the counts cannot describe real episodes.

    Example:
        >>> low, high = success_interval(8, 10)
        >>> round(low, 3), round(high, 3)
        (0.444, 0.975)
    """
    if not 0 <= num_success <= num_valid:
        raise ValueError(f"{num_success} successes of {num_valid} valid episodes is impossible.")
    if num_valid == 0:
        return None
    low, high = proportion_confint(num_success, num_valid, alpha=1 - CONFIDENCE, method="beta")
    return Interval(float(low), float(high))


def mean_rate_interval(rates: Sequence[float], valid: Sequence[int]) -> Interval | None:
    """Return the 95 % interval of the mean of several tasks' success rates; None without a task.

    It is Clopper-Pearson's for as many episodes as give a mean of rates the variance that theirs has, if all rates are
    equal; if they differ, its variance is smaller (Korn and Graubard 1998, Hoeffding 1956). With as many episodes in
    each task, it is the interval of the pooled rate.

    Args:
        rates: Success rate of each task, 0 to 1.
        valid: Episodes behind each rate, at least 1.

    Example:
        >>> mean_rate_interval([1.0, 0.6], [5, 5]) == success_interval(8, 10)
        True
    """
    if not rates:
        return None
    num_episodes = len(valid) ** 2 / sum(1.0 / count for count in valid)
    num_success = sum(rates) / len(rates) * num_episodes
    low, high = proportion_confint(num_success, num_episodes, alpha=1 - CONFIDENCE, method="beta")
    return Interval(float(low), float(high))


def mean_interval(
    sums: np.ndarray,
    counts: np.ndarray,
    tasks: np.ndarray | None = None,
    *,
    low: float = -math.inf,
    high: float = math.inf,
) -> Interval | None:
    """Return the 95 % interval of a mean over frames, `sums.sum() / counts.sum()`, where frames come in episodes.

    Frames of one episode resemble each other, so that episodes count, not frames. The interval is Student's, on the
    cluster-robust standard error CR2 with the degrees of freedom of Bell and McCaffrey (2002), which fall where few
    episodes hold most frames. It leans to the side of the longer tail, of which few episodes show too little: from four
    episodes on by Hall's transformation (1992), and, from three on, where all episodes lie on one side of zero or of a
    bound, at least as far as the same interval on the scale of the logarithm of the distance from there.

    Args:
        sums: Sum of the values of each episode.
        counts: Number of values of each episode, at least 1.
        tasks: Task of each episode. If every task has two episodes or more, the tasks are fixed: the interval is for
            other episodes of the same tasks, and differences of tasks do not widen it. Otherwise, or if not given, the
            episodes are one sample.
        low: Lowest possible value; the interval ends there.
        high: Highest possible value.

    Returns:
        None for fewer than two episodes and where all episodes agree, which say nothing of the spread.

    Raises:
        ValueError: If a count is below 1, or the arrays differ in length.

    Example:
        >>> low, high = mean_interval(np.array([10.0, 12.0, 14.0]), np.array([5, 5, 5]))
        >>> round(low, 2), round(high, 2)
        (1.41, 3.63)
    """
    sums, counts = np.asarray(sums, np.float64), np.asarray(counts, np.float64)
    if sums.shape != counts.shape or (tasks is not None and len(tasks) != len(sums)) or (counts < 1).any():
        raise ValueError("Each episode needs one sum and one count of at least 1.")
    if len(sums) < 2:
        return None
    mean = float(sums.sum() / counts.sum())
    means = sums / counts
    spread = _spread(sums, counts, _strata(tasks, len(sums)))
    if not spread.error > NO_SPREAD * float(np.abs(means).max()):
        return None
    reach = float(student_t.ppf(0.5 + CONFIDENCE / 2, spread.freedom)) * spread.error
    below, above = reach, reach
    if len(sums) >= MIN_FOR_TAIL:
        below, above = _leaning(reach, spread, num_episodes=len(sums))
        floor, ceiling = (low if low > -math.inf else 0.0), (high if high < math.inf else 0.0)
        if means.min() > floor:
            above = max(above, _reach_on_log_scale(reach, mean - floor))
        if means.max() < ceiling:
            below = max(below, _reach_on_log_scale(reach, ceiling - mean))
    return Interval(max(mean - below, low), min(mean + above, high))


def _strata(tasks: np.ndarray | None, num_episodes: int) -> list[np.ndarray]:
    """Return the positions of the episodes of each stratum: the tasks if each has two episodes, else all in one."""
    whole = [np.arange(num_episodes)]
    if tasks is None:
        return whole
    _, of_task = np.unique(np.asarray(tasks).astype(str), return_inverse=True)
    strata = [np.flatnonzero(of_task == task) for task in range(of_task.max() + 1)]
    return strata if all(len(stratum) > 1 for stratum in strata) else whole


def _spread(sums: np.ndarray, counts: np.ndarray, strata: list[np.ndarray]) -> Spread:
    """Return the spread of the combined ratio estimator of a stratified sample of episodes (Cochran 1977, 6.11)."""
    residuals = sums - sums.sum() / counts.sum() * counts
    scaled, variances, freedoms = np.zeros_like(sums), [], []
    for stratum in strata:
        share = counts[stratum] / counts[stratum].sum()
        scaled[stratum] = (residuals[stratum] - residuals[stratum].mean()) / np.sqrt(1.0 - share)
        variances.append(float(np.sum(scaled[stratum] ** 2)))
        freedoms.append(_bell_mccaffrey(share))
    total = sum(variances)
    if total == 0.0:
        return Spread(0.0, 1.0, 0.0)
    freedom = total**2 / sum(v**2 / f for v, f in zip(variances, freedoms, strict=True))  # Welch and Satterthwaite
    return Spread(math.sqrt(total) / float(counts.sum()), freedom, float(np.sum(scaled**3)) / total**1.5)


def _bell_mccaffrey(share: np.ndarray) -> float:
    """Return the degrees of freedom of CR2's standard error of a mean; one less than the episodes if they are equal.

    Args:
        share: Of the frames that each episode holds.

    Example:
        >>> round(_bell_mccaffrey(np.full(5, 0.2)), 9), round(_bell_mccaffrey(np.array([0.9, 0.05, 0.05])), 2)
        (4.0, 1.11)
    """
    rest = 1.0 - share
    return float(1.0 / (np.sum(share**2 * (1.0 - 2.0 * share) / rest**2) + np.sum(share**2 / rest) ** 2))


def _leaning(reach: float, spread: Spread, *, num_episodes: int) -> tuple[float, float]:
    """Return how far an interval reaches below and above, by Hall's transformation of the t statistic.

    Two numbers come from simulation. Few episodes show less skewness than their distribution has: `SKEW_SHOWN` of it.
    And the side of the shorter tail gives only half of what the transformation takes from it, because the skewness is
    uncertain. Three episodes show little more than on which side the middle one lies, so theirs is not used.
    """
    skew = spread.skew / SKEW_SHOWN
    if num_episodes < MIN_FOR_SKEW or abs(skew) < 1e-6:
        return reach, reach

    def hall(t: float) -> float:
        moved = abs(3.0 / skew * float(np.cbrt(1.0 + skew * (t - skew / 6.0)) - 1.0)) * spread.error
        return moved if moved > reach else (moved + reach) / 2

    return hall(reach / spread.error), hall(-reach / spread.error)


def _reach_on_log_scale(reach: float, distance: float) -> float:
    """Return how far an interval reaches away from a bound, if it is symmetric in the logarithm of the distance."""
    return distance * math.expm1(min(reach / distance, 50.0))
