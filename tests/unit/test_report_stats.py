"""Intervals at their edges and against independent values.

In: counts and values. Out: a verdict.
Read next: `evalkit/report/stats.py`; `test_report_coverage.py`, how often the intervals hold the true value.
"""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import beta, binom, binomtest
from scipy.stats import t as student_t

from evalkit.report.stats import _spread, combined_freedom, mean_interval, mean_rate_interval, success_interval
from tests.doubles.known import known


@pytest.mark.parametrize(("num_success", "num_valid"), [(0, 10), (3, 10), (10, 10), (1, 1), (950, 1000)])
def test_success_interval_equals_scipy(num_success: int, num_valid: int) -> None:
    expected = binomtest(num_success, num_valid).proportion_ci(0.95, method="exact")
    assert success_interval(num_success, num_valid) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("num_valid", [1, 5, 10, 50, 100])
def test_success_interval_covers_every_rate(num_valid: int) -> None:
    intervals = [known(success_interval(k, num_valid)) for k in range(num_valid + 1)]
    for rate in [*np.linspace(0.005, 0.995, 199), 0.98, 0.99, 0.999]:
        held = [interval.low <= rate <= interval.high for interval in intervals]
        assert binom.pmf(np.arange(num_valid + 1), num_valid, rate)[held].sum() >= 0.95


def test_no_valid_episode_has_no_interval() -> None:
    assert success_interval(0, 0) is None
    assert mean_rate_interval([], []) is None


@pytest.mark.parametrize(("num_success", "num_valid"), [(3, 2), (-1, 2)])
def test_impossible_counts_are_refused(num_success: int, num_valid: int) -> None:
    with pytest.raises(ValueError, match="impossible"):
        success_interval(num_success, num_valid)


def test_mean_rate_has_the_pooled_interval_if_tasks_are_equal() -> None:
    assert mean_rate_interval([0.9, 0.7, 1.0], [10, 10, 10]) == pytest.approx(success_interval(26, 30))


def test_mean_rate_of_unequal_tasks_counts_like_fewer_episodes() -> None:
    low, high = known(mean_rate_interval([1.0, 0.5], [100, 4]))
    num = 4 / (1 / 100 + 1 / 4)
    assert (low, high) == pytest.approx(
        (beta.ppf(0.025, 0.75 * num, 0.25 * num + 1), beta.ppf(0.975, 0.75 * num + 1, 0.25 * num))
    )
    assert known(mean_rate_interval([1.0, 1.0], [3, 5])).high == 1.0
    assert known(mean_rate_interval([0.0, 0.0], [3, 5])).low == 0.0


def test_two_episodes_have_student_with_one_degree() -> None:
    low, high = known(mean_interval(np.array([4.0, 6.0]), np.array([1, 1])))
    assert (low + high) / 2 == pytest.approx(5.0)
    assert (high - low) / 2 == pytest.approx(student_t.ppf(0.975, 1) * 2.0 / math.sqrt(2) / math.sqrt(2))


def test_interval_of_equal_episodes_equals_statsmodels() -> None:
    values = 100 + np.array([-1.5, -1.0, -0.5, 0.0, 0.2, 0.7, 1.2, 1.7])
    expected = sm.stats.DescrStatsW(values).tconfint_mean(0.05)
    low, high = known(mean_interval(7 * values, np.full(8, 7)))
    assert (low, high) == pytest.approx(expected, rel=1e-3)
    assert high - low == pytest.approx(expected[1] - expected[0], rel=0.02)  # these episodes have no skew


def test_unequal_lengths_equal_cr2_by_matrices() -> None:
    rng = np.random.default_rng(3)
    counts = np.array([4, 30, 9, 11, 17, 6, 22])
    frames = [rng.normal(-1, 1) + rng.normal(0, 1, n) for n in counts]
    sums = np.array([frame.sum() for frame in frames])
    error, freedom = _cr2_by_matrices(frames)
    low, high = known(mean_interval(sums, counts))
    mean, reach = sums.sum() / counts.sum(), student_t.ppf(0.975, freedom) * error
    assert min(mean - low, high - mean) <= reach + 1e-12 <= max(mean - low, high - mean)
    two_low, two_high = known(mean_interval(sums[:2], counts[:2]))
    two_error, two_freedom = _cr2_by_matrices(frames[:2])
    assert two_freedom == pytest.approx(1.0)
    assert two_high - two_low == pytest.approx(2 * student_t.ppf(0.975, 1) * two_error)
    assert (spread := _spread(sums, counts, [np.arange(7)])).error == pytest.approx(error)
    assert spread.freedom == pytest.approx(freedom)


def _cr2_by_matrices(frames: list[np.ndarray]) -> tuple[float, float]:
    """Return CR2's standard error of a mean, and Bell and McCaffrey's degrees of freedom, from full matrices."""
    values = np.concatenate(frames)
    groups = np.repeat(np.arange(len(frames)), [len(frame) for frame in frames])
    num = len(values)
    residual_maker = np.eye(num) - np.full((num, num), 1 / num)
    residuals = residual_maker @ values
    columns, total = [], 0.0
    for group in range(len(frames)):
        of_group = groups == group
        eigenvalues, vectors = np.linalg.eigh(residual_maker[np.ix_(of_group, of_group)])
        root = vectors @ np.diag(eigenvalues**-0.5) @ vectors.T
        total += float(np.ones(of_group.sum()) @ root @ residuals[of_group]) ** 2
        columns.append(residual_maker[:, of_group] @ root.T @ np.ones(of_group.sum()))
    products = np.array(columns) @ np.array(columns).T
    return math.sqrt(total) / num, float(np.trace(products) ** 2 / np.sum(products**2))


def test_frames_do_not_narrow_the_interval() -> None:
    means = np.random.default_rng(0).normal(size=20)
    few, many = (known(mean_interval(n * means, np.full(20, n))) for n in (1, 5000))
    assert few == pytest.approx(many)


def test_one_long_episode_counts_like_few() -> None:
    rng = np.random.default_rng(1)
    counts = np.array([1000, *[10] * 9])
    widths = []
    for means in rng.normal(size=(50, 10)):
        even = known(mean_interval(10 * means, np.full(10, 10)))
        uneven = known(mean_interval(counts * means, counts))
        widths.append((even.high - even.low, uneven.high - uneven.low))
    even_width, uneven_width = np.median(widths, axis=0)
    assert uneven_width > 2 * even_width


@pytest.mark.parametrize("values", [[], [3.0], [3.0, 3.0], [0.1] * 7, [0.0] * 5, [1.0] * 4])
def test_without_spread_there_is_no_interval(values: list[float]) -> None:
    counts = np.full(len(values), 3)
    assert mean_interval(counts * np.array(values), counts) is None


def test_interval_stays_within_the_bounds() -> None:
    counts = np.full(5, 10)
    errors = np.array([0.001, 0.002, 0.001, 0.003, 0.4])
    low, high = known(mean_interval(counts * errors, counts, low=0.0))
    assert low == 0.0
    assert high > 0.4
    shares = known(mean_interval(counts * (1 - errors), counts, low=0.0, high=1.0))
    assert shares.high == 1.0
    assert shares.low == pytest.approx(max(0.0, 1 - high))


def test_interval_moves_with_unit_and_sign() -> None:
    rng = np.random.default_rng(5)
    counts, means = rng.integers(3, 30, 12), rng.lognormal(size=12)
    low, high = known(mean_interval(counts * means, counts))
    assert known(mean_interval(1000 * counts * means, counts)) == pytest.approx((1000 * low, 1000 * high))
    assert known(mean_interval(-counts * means, counts)) == pytest.approx((-high, -low))


def test_longer_tail_is_the_wider_side() -> None:
    counts = np.full(6, 4)
    values = np.array([1.0, 1.1, 0.9, 1.0, 1.2, 4.0])
    low, high = known(mean_interval(counts * values, counts))
    assert high - values.mean() > 1.5 * (values.mean() - low)


def test_difficulty_of_tasks_does_not_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    tasks = np.repeat(["a", "b", "c"], 5)
    means = np.repeat([10.0, 20.0, 30.0], 5) + rng.normal(0, 0.1, 15)
    within = known(mean_interval(8 * means, np.full(15, 8), tasks))
    across = known(mean_interval(8 * means, np.full(15, 8)))
    assert within.high - within.low < 0.5
    assert across.high - across.low > 5


def test_one_episode_alone_hardly_widens_the_interval() -> None:
    rng = np.random.default_rng(0)
    tasks = np.repeat(np.arange(8), 5)
    sums = 10 * (np.linspace(20, 32, 8)[tasks] + rng.normal(0, 1, 40))
    counts = np.full(40, 10)
    low, high = known(mean_interval(sums, counts, tasks))
    lost_low, lost_high = known(mean_interval(sums[:36], counts[:36], tasks[:36]))
    assert lost_high - lost_low == pytest.approx(high - low, rel=0.25)
    alone = _spread(sums[:36], counts[:36], [np.flatnonzero(tasks[:36] == task) for task in range(7)])
    squares = sum(np.var(sums[tasks == task], ddof=1) * 5 for task in range(7))  # variances of the seven sums
    assert alone.error == pytest.approx(math.sqrt(squares * 36 / 35) / 360)


def test_episodes_mostly_alone_in_their_tasks_are_one_sample() -> None:
    sums, counts = np.array([10.0, 11.0, 30.0, 20.0]), np.array([1, 1, 1, 1])
    assert mean_interval(sums, counts, np.array(["a", "a", "b", "c"])) == mean_interval(sums, counts)


@pytest.mark.parametrize("num_tasks", [3, 24])
def test_two_episodes_a_task_count_one_degree_each(num_tasks: int) -> None:
    """Summed over samples, the degrees of freedom of equal variances are those of all tasks together."""
    rng = np.random.default_rng(0)
    estimates = rng.chisquare(1, (20000, num_tasks))
    squares, of_each = (estimates.sum(1) ** 2).mean(), (estimates**2 / 3).sum(1).mean()
    assert squares / of_each - 2 == pytest.approx(num_tasks, rel=0.05)
    assert combined_freedom([1.0] * num_tasks, [1.0] * num_tasks) == pytest.approx(3 * num_tasks - 2)


@pytest.mark.parametrize("shift", [0.0, -1.0, 40.0])
def test_an_interval_without_bounds_moves_with_the_values(shift: float) -> None:
    counts, means = np.array([7, 9, 30, 4]), np.array([22.0, 22.5, 23.0, 30.0])
    low, high = known(mean_interval(counts * means, counts))
    assert known(mean_interval(counts * (means + shift), counts)) == pytest.approx((low + shift, high + shift))


def test_few_uneven_episodes_reach_no_absurd_values() -> None:
    """Nothing reaches further than 2.5 times Student's interval, also where one episode holds hardly a frame."""
    counts = np.array([60, 55, 4])
    means = np.array([0.02, 0.12, 0.03])
    spread = _spread(counts * means, counts, [np.arange(3)])
    reach = student_t.ppf(0.975, spread.freedom) * spread.error
    mean = counts @ means / counts.sum()
    low, high = known(mean_interval(counts * means, counts, low=0.0))
    assert low == 0.0
    assert reach < high - mean <= 2.5 * reach * (1 + 1e-9)


def test_what_is_no_episode_is_refused() -> None:
    for sums, counts, tasks in (([1.0], [0], None), ([1.0, 2.0], [1], None), ([1.0, 2.0], [1, 1], ["a"])):
        with pytest.raises(ValueError, match="one sum and one count"):
            mean_interval(np.array(sums), np.array(counts), None if tasks is None else np.array(tasks))
