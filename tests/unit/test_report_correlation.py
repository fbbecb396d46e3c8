"""Correlation of predictions with success: within tasks, on what all episodes have.

In: values and outcomes. Out: a verdict.
Read next: `evalkit/report/correlation.py`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, pointbiserialr, ttest_ind

from evalkit.report.correlation import correlation_rows, success_correlation
from tests.doubles.known import known

EVEN = np.tile([0, 1], 10)


def _scores(
    episodes: Iterable[tuple[str, int, bool, Sequence[Sequence[float | None]]]], metric: str = "absrel/gt_mask"
) -> pd.DataFrame:
    """Return rows of a result file from (task, index, success, values by chunk and frame)."""
    rows: list[dict[str, Any]] = [
        {
            "task": task,
            "index": index,
            "outcome": "success" if success else "failure",
            "subject": "policy",
            "chunk_idx": chunk_idx,
            "frame_idx": frame_idx,
            "view": "front",
            "metric": metric,
            "value": value,
        }
        for task, index, success, chunks in episodes
        for chunk_idx, frames in enumerate(chunks)
        for frame_idx, value in enumerate(frames)
    ]
    return pd.DataFrame(rows).astype({"value": float})


@pytest.mark.parametrize("failures", [1.0, 3.0])
def test_one_task_equals_scipy(failures: float) -> None:
    """Fisher's interval, times the roots of Tate's variance and of Welch's over Student's, and their quantiles."""
    rng = np.random.default_rng(1)
    successes = rng.random(40) < 0.7
    means = rng.normal(size=40) * np.where(successes, 1.0, failures) + successes
    found = known(success_correlation(means, successes))
    assert found.r == pytest.approx(pointbiserialr(successes, means).statistic)
    fisher = np.arctanh(pearsonr(means, successes).confidence_interval(0.95))
    welch, student = (ttest_ind(means[successes], means[~successes], equal_var=even) for even in (False, True))
    product = successes.mean() * (1 - successes.mean())
    tate = 1 - found.r**2 * (6 * product - 1) / (4 * product)
    widths = [(ends.high - ends.low) for ends in (welch.confidence_interval(), student.confidence_interval())]
    reach = (fisher[1] - fisher[0]) / 2 * np.sqrt(tate) * widths[0] / widths[1]
    middle = np.arctanh(found.r) - found.r / (2 * 39)
    assert found.interval == pytest.approx(tuple(np.tanh([middle - reach, middle + reach])), abs=1e-9)
    assert (found.num_episodes, found.num_tasks) == (40, 1)


def test_tasks_that_differ_do_not_correlate() -> None:
    """The better task succeeds more often; nothing is related within a task."""
    rng = np.random.default_rng(0)
    tasks = np.repeat(["a", "b", "c", "d"], 50)
    level = np.repeat([0, 1, 2, 3], 50)
    successes = rng.random(200) < 0.2 + 0.2 * level
    means = 5.0 * level + rng.normal(size=200)
    assert known(success_correlation(means, successes)).interval.low > 0.3
    low, high = known(success_correlation(means, successes, tasks)).interval
    assert low < 0 < high


def test_a_task_with_a_larger_spread_does_not_count_more() -> None:
    rng = np.random.default_rng(2)
    tasks, successes = np.repeat(["a", "b"], 40), np.tile([0, 1], 40)
    means = rng.normal(size=80) + successes
    scale = np.where(tasks == "a", 1000.0, 1.0)
    assert known(success_correlation(means * scale, successes, tasks)).r == pytest.approx(
        known(success_correlation(means, successes, tasks)).r
    )


@pytest.mark.parametrize(("num_success", "num_failure", "given"), [(5, 5, True), (4, 50, False), (50, 4, False)])
def test_five_of_each_outcome_are_needed(num_success: int, num_failure: int, given: bool) -> None:
    successes = np.array([1] * num_success + [0] * num_failure)
    means = np.random.default_rng(0).normal(size=len(successes))
    assert (success_correlation(means, successes) is not None) == given


def test_tasks_without_five_of_each_are_left_out() -> None:
    rng = np.random.default_rng(0)
    tasks = np.repeat(["a", "b"], 20)
    successes = np.concatenate([EVEN, np.ones(20, int)])
    found = known(success_correlation(rng.normal(size=40), successes, tasks))
    assert (found.tasks, found.num_episodes) == (("a",), 20)


@pytest.mark.parametrize("means", [np.ones(20), EVEN.astype(float), np.full(20, 0.1)])
def test_a_metric_without_noise_has_no_correlation(means: np.ndarray) -> None:
    assert success_correlation(means, EVEN) is None


def test_rare_failures_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for successes in (np.array([0] * 10 + [1] * 90), np.array([0, 1] * 50)):
        means = rng.normal(size=100) + successes * 1.5 / successes.std() * 0.5
        found = known(success_correlation(means, successes))
        widths.append(np.diff(np.arctanh(found.interval)))
    assert widths[0] > 1.2 * widths[1]


def test_failures_that_run_longer_do_not_correlate() -> None:
    """Predictions get worse along every episode in the same way, and only failures reach its end."""
    rng = np.random.default_rng(0)

    def chunks(num_chunks: int) -> list[list[float]]:
        return [[0.1 * chunk + rng.normal(0, 0.01) for _ in range(2)] for chunk in range(num_chunks)]

    episodes = [("a", i, i % 2 == 0, chunks(3 if i % 2 == 0 else 12)) for i in range(20)]
    (row,) = correlation_rows(_scores(episodes))
    low, high = known(row.correlation).interval
    assert low < 0 < high
    assert row.num_chunks == (3, 3)


def test_frames_that_a_success_lacks_are_left_out() -> None:
    """The last chunk of a success ends early: its later, worse frames are missing."""
    episodes = [("a", i, i % 2 == 0, [[1.0, 2.0 + i], [1.0 + i] if i % 2 == 0 else [1.0 + i, 99.0]]) for i in range(10)]
    (row,) = correlation_rows(_scores(episodes))
    means = np.array([(1.0 + 2.0 + i + 1.0 + i) / 3 for i in range(10)])
    assert known(row.correlation).r == pytest.approx(np.corrcoef(means, [i % 2 == 0 for i in range(10)])[0, 1])


def test_a_value_that_one_episode_lacks_is_left_out_for_all() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 2))
    episodes = [("a", i, i % 2 == 0, [[values[i, 0], None if i == 7 else values[i, 1]]]) for i in range(20)]
    (row,) = correlation_rows(_scores(episodes))
    assert known(row.correlation).r == pytest.approx(np.corrcoef(values[:, 0], 1 - EVEN)[0, 1])


def test_an_episode_without_values_does_not_count() -> None:
    rng = np.random.default_rng(0)
    episodes: list[Any] = [("a", i, i % 2 == 0, [[rng.normal()], [rng.normal()]]) for i in range(20)]
    (row,) = correlation_rows(_scores([*episodes, ("a", 20, True, [[None]])]))
    assert known(row.correlation).num_episodes == 20
    assert row.num_chunks == (2, 2)


def test_whole_chunks_compare_with_chunks_of_the_same_length() -> None:
    rng = np.random.default_rng(0)
    lengths = {i: 2 if i % 2 == 0 else 8 for i in range(20)}
    frames = _scores([("a", i, i % 2 == 0, [[0.0] * 8, [0.0] * lengths[i]]) for i in range(20)], "frame metric")
    pooled = _scores([("a", i, i % 2 == 0, [[rng.normal()], [100.0 * lengths[i]]]) for i in range(20)], "pooled")
    row = next(
        row for row in correlation_rows(pd.concat([frames, pooled.assign(frame_idx=-1)])) if row.metric == "pooled"
    )
    assert row.num_chunks == (1, 1)
    assert abs(known(row.correlation).r) < 0.5


def test_no_task_with_five_of_each_is_named() -> None:
    rows = correlation_rows(_scores([("a", i, i < 3, [[float(i)]]) for i in range(20)]))
    assert [(row.correlation, row.num_tasks) for row in rows] == [(None, 1)]
    assert correlation_rows(_scores([("a", 0, True, [[None]])])) == []
