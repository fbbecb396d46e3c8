"""Two sides on the same frames: means, differences, what is left out, and which side is better.

In: rows of result files. Out: a verdict.
Read next: `evalkit/report/paired.py`.
"""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from evalkit.contracts.errors import RunFolderError
from evalkit.report.columns import NOT_CLEAR
from evalkit.report.paired import PLACE, Paired, PairedRow, paired_rows, reference_pairs
from evalkit.report.side_by_side import better_side
from evalkit.report.stats import mean_interval
from tests.doubles.known import known

METRIC = "psnr_db/frame_mean"


def _side(seed: int, *, missing: float, num_episodes: int = 6) -> pd.DataFrame:
    """Return rows with random values; a share of them has none or is not there."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = [
        {"metric": METRIC, "task": task, "index": index, "chunk_idx": chunk, "frame_idx": frame, "view": view}
        for task in ("a", "b")
        for index in range(num_episodes)
        for chunk in range(2)
        for frame in range(12)
        for view in ("front", "side")
    ]
    table = pd.DataFrame(rows)
    values = 30 - table["frame_idx"] + rng.normal(size=len(table))
    table["value"] = np.where(rng.random(len(table)) < missing, np.nan, values)
    table = table[rng.random(len(table)) > missing / 2]
    return table.astype(dict.fromkeys(("metric", "task", "view"), "category"))


@pytest.mark.parametrize("seed", range(5))
def test_means_are_over_the_rows_that_both_have(seed: int) -> None:
    left, right = _side(seed, missing=0.3), _side(seed + 100, missing=0.2)
    values: list[dict[Any, float]] = [side.dropna().set_index(PLACE)["value"].to_dict() for side in (left, right)]
    both = sorted(values[0].keys() & values[1].keys())
    (row,) = paired_rows(left, right, splits=("all",))
    assert row.left == pytest.approx(np.mean([values[0][key] for key in both]))
    assert row.right == pytest.approx(np.mean([values[1][key] for key in both]))
    assert row.num_values == len(both)
    assert row.num_dropped == len(values[0].keys() ^ values[1].keys())
    episodes: dict[tuple[str, int], list[float]] = {}
    for key in both:
        episodes.setdefault((key[1], key[2]), []).append(values[0][key] - values[1][key])
    sums, counts = np.array([[sum(d), len(d)] for d in episodes.values()]).T
    tasks = np.array([task for task, _ in episodes])
    assert row.interval == pytest.approx(known(mean_interval(sums, counts, tasks)))
    assert row.num_episodes == len(episodes)


def test_a_floor_on_other_frames_does_not_look_worse() -> None:
    """The floor has values on the difficult frames only; on those it equals the policy."""
    policy = _side(1, missing=0.0)
    floor = policy[policy["frame_idx"] >= 8]
    (row,) = paired_rows(policy, floor, splits=("all",))
    assert row.difference == pytest.approx(0.0)
    assert row.num_dropped == 2 * len(policy) // 3
    assert abs(policy["value"].mean() - floor["value"].mean()) > 3


def test_sides_swapped_change_the_sign() -> None:
    left, right = _side(1, missing=0.1), _side(2, missing=0.1)
    (row,), (swapped,) = (paired_rows(*sides, splits=("all",)) for sides in ((left, right), (right, left)))
    assert known(row.difference) == pytest.approx(-known(swapped.difference))
    assert known(row.interval) == pytest.approx([-end for end in reversed(known(swapped.interval))])


def test_equal_sides_have_no_difference() -> None:
    side = _side(3, missing=0.2)
    (row,) = paired_rows(side, side, splits=("all",))
    assert (row.difference, row.interval, row.num_dropped) == (0.0, None, 0)


def test_horizons_are_in_the_order_of_time() -> None:
    rows = paired_rows(_side(1, missing=0.1), _side(2, missing=0.1), splits=("horizon",))
    assert [row.group for row in rows] == [f"frame {number}" for number in range(1, 13)]


def test_metrics_of_one_side_are_left_out() -> None:
    left, right = _side(1, missing=0.0), _side(2, missing=0.0)
    assert paired_rows(left, right.assign(metric="ssim/gauss11")) == []


def test_sides_without_a_common_frame_have_no_mean() -> None:
    left = _side(1, missing=0.0)
    rows = paired_rows(left[left["frame_idx"] < 3], left[left["frame_idx"] > 3], splits=("all",))
    assert [(row.left, row.right, row.interval, row.num_values) for row in rows] == [(None, None, None, 0)]


def test_two_values_of_a_frame_are_refused() -> None:
    left = _side(1, missing=0.0)
    with pytest.raises(RunFolderError, match=r"two values of psnr_db/frame_mean for a/0000, chunk 0, frame 1, front"):
        paired_rows(pd.concat([left, left]), left)


def test_references_go_with_what_they_refer_to() -> None:
    subjects = ("policy", "policy_given_actions", "repeat_last_frame", "policy+plane/median", "truth+plane/median")
    scores = pd.concat([_side(i, missing=0.1).assign(subject=name) for i, name in enumerate(subjects)])
    assert [(pair.left, pair.right) for pair in reference_pairs(scores)] == [
        ("policy", "repeat_last_frame"),
        ("policy_given_actions", "repeat_last_frame"),
        ("policy+plane/median", "truth+plane/median"),
    ]


@pytest.mark.parametrize(
    ("metric", "ends", "better"),
    [
        (METRIC, (0.1, 0.3), "A"),
        (METRIC, (-0.3, -0.1), "B"),
        ("absrel/gt_mask_10m", (0.1, 0.3), "B"),
        ("absrel/gt_mask_10m", (-0.3, -0.1), "A"),
        (METRIC, (-0.1, 0.3), NOT_CLEAR),
        (METRIC, None, ""),
    ],
)
def test_the_better_side_depends_on_the_metric(metric: str, ends: tuple[float, float] | None, better: str) -> None:
    counts = {"num_values": 4, "num_dropped": 0, "num_episodes": 4}
    interval: Any = ends
    if ends is not None:
        interval = known(mean_interval(np.array(ends), np.array([1, 1])))._replace(low=ends[0], high=ends[1])
    row = PairedRow(metric=metric, split="all", group="all", left=1.0, right=1.0, interval=interval, **counts)
    assert better_side(Paired(left="A", right="B", rows=(row,)), row) == better


def test_rows_of_checks_are_not_compared() -> None:
    side = _side(0, missing=0.0)
    odd = side.assign(metric="check/state_unit")
    twice = pd.concat([side.astype({"metric": str}), odd, odd])
    assert [row.metric for row in paired_rows(twice, twice, splits=("all",))] == [METRIC]
