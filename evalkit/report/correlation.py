"""Correlation of a metric with success, within tasks.

In: mean, outcome and task of each episode; or a result file. Out: correlations with their 95 % intervals.
Read next: `tests/unit/test_report_coverage.py`, which measures how often the intervals hold the true value.

Tasks differ in difficulty and in how their images score, so that episodes of several tasks correlate although nothing
is related within any of them. Each task therefore gets a correlation of its own, and only those are averaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student_t

from evalkit.report.stats import CONFIDENCE, NO_SPREAD, Interval, combined_freedom

if TYPE_CHECKING:
    import pandas as pd

MIN_OF_EACH = 5
"""Successes, and failures, that a task needs."""


class Correlation(NamedTuple):
    """Correlation of a metric with success.

    Attributes:
        r: Point-biserial correlation within tasks, in [-1, 1].
        interval: 95 %, by Fisher's z.
        num_episodes: Episodes of the tasks that are used.
        tasks: Tasks that are used.
    """

    r: float
    interval: Interval
    num_episodes: int
    tasks: tuple[str, ...]

    @property
    def num_tasks(self) -> int:
        """Return how many tasks are used."""
        return len(self.tasks)


class _TaskCorrelation(NamedTuple):
    """Fisher's z of one task, with its bias and variance, and the degrees of freedom of that variance."""

    z: float
    bias: float
    variance: float
    freedom: float
    num_episodes: int


@dataclass(frozen=True, kw_only=True)
class CorrelationRow:
    """Correlation of one metric of the policy's predictions with success.

    Attributes:
        metric: Name with convention.
        correlation: None where no task has enough successes and failures with a value.
        num_tasks: Tasks with a success or a failure that has a value.
        num_chunks: The fewest and the most chunks of an episode that are used, over the tasks that are used.
    """

    metric: str
    correlation: Correlation | None
    num_tasks: int
    num_chunks: tuple[int, int]


def correlation_rows(scores: pd.DataFrame) -> list[CorrelationRow]:
    """Return, for each metric of the policy, its correlation with success.

    Args:
        scores: From `score.results.table.read_scores`.
    """
    usable = scores[(scores["subject"] == "policy") & scores["outcome"].isin(["success", "failure"])]
    shared = shared_rows(usable)
    rows = []
    for metric, group in usable[usable["value"].notna()].groupby("metric", observed=True, sort=False):
        episodes = shared[shared["metric"] == metric].groupby(["task", "index", "outcome"], observed=True)
        means = episodes["value"].mean().reset_index()
        tasks = means["task"].astype(str).to_numpy()
        found = success_correlation(means["value"].to_numpy(), (means["outcome"] == "success").to_numpy(), tasks)
        chunks = episodes["chunk_idx"].nunique().to_numpy()
        used = np.isin(tasks, [] if found is None else found.tasks)
        num_chunks = (int(chunks[used].min()), int(chunks[used].max())) if used.any() else (0, 0)
        num_tasks = group["task"].nunique()
        rows.append(CorrelationRow(metric=str(metric), correlation=found, num_tasks=num_tasks, num_chunks=num_chunks))
    return rows


def shared_rows(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose chunk, horizon and view have a value of the metric in every episode of the task.

    An episode without any value of the metric does not count. A value over a whole chunk is only compared with those
    of chunks with as many frames.
    """
    chunk = ["task", "index", "chunk_idx"]
    num_frames = scores.groupby(chunk, observed=True)["frame_idx"].transform("max").where(scores["frame_idx"] < 0, 0)
    valued = scores.assign(num_frames=num_frames)[scores["value"].notna()]
    of_task = ["metric", "task"]
    place = [*of_task, "chunk_idx", "frame_idx", "view", "num_frames"]
    have = valued.groupby(place, observed=True)["index"].transform("nunique")
    return valued[have == valued.groupby(of_task, observed=True)["index"].transform("nunique")]


def success_correlation(
    means: np.ndarray, successes: np.ndarray, tasks: np.ndarray | None = None, *, min_of_each: int = MIN_OF_EACH
) -> Correlation | None:
    """Return the correlation of a metric with success over the episodes of each task, averaged over tasks.

    Fisher's z of each task counts with its episodes less three. Its variance is that of a point-biserial correlation
    (Tate 1954), which assumes that successes and failures scatter alike, times Welch's variance (1947) of the
    difference of means over Student's, which assumes the same.

    Args:
        means: Mean of the metric in each episode.
        successes: 1 for success, 0 for failure.
        tasks: Task of each episode; one task if not given.
        min_of_each: Successes, and failures, that a task needs; other tasks are left out.

    Returns:
        None where no task is left. A task in which the metric does not vary is left out too.

    Example:
        >>> found = success_correlation(np.arange(12.0), np.array([0, 0, 0, 1, 0, 0, 1, 0, 1, 1, 1, 1]))
        >>> round(found.r, 3), found.num_tasks
        (0.676, 1)
    """
    means, successes = np.asarray(means, np.float64), np.asarray(successes, bool)
    labels = np.full(len(means), "") if tasks is None else np.asarray(tasks).astype(str)
    names = [str(name) for name in np.unique(labels)]
    of_tasks = {name: _of_task(means[labels == name], successes[labels == name], min_of_each) for name in names}
    used = {name: one for name, one in of_tasks.items() if one is not None}
    if not used:
        return None
    z_of, bias_of, variance_of, freedom_of, num_episodes = np.array(list(used.values()), np.float64).T
    weights = (num_episodes - 3) / (num_episodes - 3).sum()
    z, middle, variances = weights @ z_of, weights @ (z_of - bias_of), weights**2 * variance_of
    quantile = 0.5 + CONFIDENCE / 2
    uncertain, even = (student_t.ppf(quantile, combined_freedom(variances, f)) for f in (freedom_of, num_episodes - 2))
    reach = float(norm.ppf(quantile) * uncertain / even * np.sqrt(variances.sum()))
    r, low, high = np.tanh([z, middle - reach, middle + reach]).tolist()
    return Correlation(r, Interval(low, high), int(num_episodes.sum()), tuple(used))


def _of_task(means: np.ndarray, successes: np.ndarray, min_of_each: int) -> _TaskCorrelation | None:
    """Return Fisher's z of one task; None where an outcome is too rare or the metric does not vary."""
    num_episodes, num_success = len(means), int(successes.sum())
    if min(num_success, num_episodes - num_success) < min_of_each or num_episodes <= 3:
        return None
    if max(means[successes].std(), means[~successes].std()) <= NO_SPREAD * np.abs(means).max():
        return None
    r = float(np.corrcoef(means, successes)[0, 1])
    product = num_success * (num_episodes - num_success) / num_episodes**2
    tate = 1.0 - r**2 * (6.0 * product - 1.0) / (4.0 * product)
    ratio, freedom = _welch(means[successes], means[~successes])
    variance = tate * ratio / (num_episodes - 3)
    return _TaskCorrelation(float(np.arctanh(r)), r / (2.0 * (num_episodes - 1)), variance, freedom, num_episodes)


def _welch(some: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    """Return Welch's variance of a difference of means over Student's, which pools both, and its degrees of freedom."""
    variances, counts = np.array([some.var(ddof=1), others.var(ddof=1)]), np.array([len(some), len(others)])
    of_means = variances / counts
    pooled = (counts - 1) @ variances / (counts.sum() - 2) * (1.0 / counts).sum()
    return float(of_means.sum() / pooled), float(of_means.sum() ** 2 / (of_means**2 / (counts - 1)).sum())
