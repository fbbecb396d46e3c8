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
MIN_FOR_TAIL = 3
"""Episodes from which on an interval leans to the side of their longer tail."""

TAIL_SHOWN, LONGEST_REACH, GIVEN_BACK = 0.45, 2.5, 0.1
"""Share of Johnson's correction by which a side is lengthened that few episodes show; how many times Student's reach it
is at most; the share of what one side gains by which the other is shortened. From simulation."""

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
        skew: Sum of the cubed residuals over the sum of their squares to the power 1.5: the skewness of the mean.
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
    episodes hold most frames. From three episodes on, the side of the longer tail, of which few episodes show too
    little, reaches further: by a multiple of Johnson's correction for skewness (1978), and, away from a bound of the
    metric, at least as far as the same interval of the logarithm of the distance from there; at most two and a half
    times as far as Student's. Without bounds, the interval moves with the values if all of them are moved.

    Args:
        sums: Sum of the values of each episode.
        counts: Number of values of each episode, at least 1.
        tasks: Task of each episode. If most episodes share their task with another, the tasks are fixed: the interval
            is for other episodes of the same tasks, and differences of tasks do not widen it; an episode alone in its
            task counts with the spread of the others. Otherwise, or if not given, the episodes are one sample.
        low: Lowest possible value; the interval ends there.
        high: Highest possible value.

    Returns:
        None for fewer than two episodes and where all episodes agree, which say nothing of the spread.

    Raises:
        ValueError: If a count is below 1, or the arrays differ in length.

    Example:
        >>> low, high = mean_interval(np.array([10.0, 12.0, 14.0]), np.array([5, 5, 5]))
        >>> round(low, 2), round(high, 2)
        (1.41, 3.39)
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
    below, above = _reaches(reach, spread, num_episodes=len(sums))
    if len(sums) >= MIN_FOR_TAIL and means.min() > low:
        above = max(above, _reach_on_log_scale(reach, mean - low))
    if len(sums) >= MIN_FOR_TAIL and means.max() < high:
        below = max(below, _reach_on_log_scale(reach, high - mean))
    return Interval(max(mean - below, low), min(mean + above, high))


def ratio_interval(
    numerators: np.ndarray,
    denominators: np.ndarray,
    tasks: np.ndarray | None = None,
    *,
    low: float = -math.inf,
) -> Interval | None:
    """Return the 95 % interval of a ratio of two sums over episodes, `numerators.sum() / denominators.sum()`.

    It is the interval of `mean_interval`, whose number of values is the denominator here.

    Args:
        numerators: Sum of each episode.
        denominators: Sum of each episode, positive.
        tasks: Task of each episode, as in `mean_interval`.
        low: Lowest possible ratio.

    Example:
        >>> ratio_interval(np.array([0.2, 0.6]), np.array([0.1, 0.3])) is None  # both episodes have the ratio 2
        True
    """
    least = float(np.min(denominators)) if len(denominators) else 1.0
    found = mean_interval(numerators, np.asarray(denominators) / least, tasks, low=low * least)
    return None if found is None else Interval(found.low / least, found.high / least)


def _strata(tasks: np.ndarray | None, num_episodes: int) -> list[np.ndarray]:
    """Return the episodes' positions for each task with several; if most are alone in theirs, of all in one."""
    whole = [np.arange(num_episodes)]
    if tasks is None:
        return whole
    _, of_task = np.unique(np.asarray(tasks).astype(str), return_inverse=True)
    strata = [np.flatnonzero(of_task == task) for task in range(of_task.max() + 1)]
    shared = [stratum for stratum in strata if len(stratum) > 1]
    return shared if sum(map(len, shared)) > num_episodes / 2 else whole


def _spread(sums: np.ndarray, counts: np.ndarray, strata: list[np.ndarray]) -> Spread:
    """Return the spread of the combined ratio estimator of a stratified sample of episodes (Cochran 1977, 6.11).

    An episode of no stratum adds the variance of an episode of the strata with as many frames.
    """
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
    alone = float(np.sum(counts**2) / np.sum(counts[np.concatenate(strata)] ** 2))
    skew = float(np.sum(scaled**3)) / total**1.5
    return Spread(math.sqrt(total * alone) / float(counts.sum()), combined_freedom(variances, freedoms), skew)


def combined_freedom(variances: Sequence[float], freedoms: Sequence[float]) -> float:
    """Return the degrees of freedom of a sum of independent estimated variances.

    Welch's and Satterthwaite's formula with unbiased squares: an estimate with `f` degrees of freedom squares to
    `1 + 2 / f` times the square of what it estimates. Without that, many tasks of two episodes count for too little.

    Example:
        >>> round(combined_freedom([1.0, 1.0], [5.0, 5.0]), 9), round(combined_freedom([1.0, 0.0], [5.0, 9.0]), 9)
        (12.0, 5.0)
    """
    return sum(variances) ** 2 / sum(v**2 / (f + 2.0) for v, f in zip(variances, freedoms, strict=True)) - 2.0


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


def _reaches(reach: float, spread: Spread, *, num_episodes: int) -> tuple[float, float]:
    """Return how far an interval reaches below and above; the side of the longer tail further.

    Johnson's correction for skewness moves a t statistic by `skew * (1 + 2 t^2) / 6`; the skewness is the adjusted one
    of Fisher and Pearson, because a small sample shows too little of it.
    """
    if num_episodes < MIN_FOR_TAIL:
        return reach, reach
    t = reach / spread.error
    skew = spread.skew * math.sqrt(num_episodes * (num_episodes - 1)) / (num_episodes - 2)
    longer = min(1.0 + abs(skew) * (1.0 + 2.0 * t**2) / (6.0 * t) / TAIL_SHOWN, LONGEST_REACH)
    further, nearer = reach * longer, reach * (1.0 - GIVEN_BACK * (longer - 1.0))
    return (nearer, further) if skew > 0 else (further, nearer)


def _reach_on_log_scale(reach: float, distance: float) -> float:
    """Return how far an interval reaches away from a bound, if it is symmetric in the logarithm of the distance."""
    return min(distance * math.expm1(min(reach / distance, 50.0)), LONGEST_REACH * reach)
