"""Two sets of scores on the same frames: a policy and its floor, or the predictions of two models.

In: the rows of two subjects or of two result files. Out: means over the rows that both have, and their difference.
Read next: `build.py` for references, `compare.py` for two models; `stats.py` for the intervals.

A mean over frames that the other side lacks says nothing of the difference: frames differ in difficulty. Rows for which
only one side has a value are therefore left out of both means, and counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evalkit.contracts.errors import RunFolderError
from evalkit.report.stats import Interval, mean_interval
from evalkit.report.tables import horizons
from evalkit.score.results.checks import CHECK_PREFIX
from evalkit.score.results.names import CONTROLS, GIVEN, PREDICTED, SUBJECTS

if TYPE_CHECKING:
    import pandas as pd

PLACE = ["metric", "task", "index", "chunk_idx", "frame_idx", "view"]
"""Columns of the result file that say what a value measures."""

PAIRED_SPLITS = ("all", "task", "horizon")


@dataclass(frozen=True, kw_only=True)
class PairedRow:
    """One metric of two sides over one part of the frames that both have.

    Attributes:
        metric: Name with convention.
        split: What the frames are split by; one of `PAIRED_SPLITS`.
        group: Value of the split.
        left: Mean of the first side; None where the sides share no value.
        right: Mean of the second side over the same rows.
        interval: 95 %, of the mean difference left - right.
        num_values: Rows that have a value on both sides.
        num_dropped: Rows that have a value on one side only.
        num_episodes: Episodes of the shared rows.
    """

    metric: str
    split: str
    group: str
    left: float | None
    right: float | None
    interval: Interval | None
    num_values: int
    num_dropped: int
    num_episodes: int

    @property
    def difference(self) -> float | None:
        """Return left - right."""
        return None if self.left is None or self.right is None else self.left - self.right


@dataclass(frozen=True, kw_only=True)
class Paired:
    """All metrics that two sides share.

    Attributes:
        left: Name of the first side.
        right: Name of the second side.
        rows: One per metric and group.
    """

    left: str
    right: str
    rows: tuple[PairedRow, ...]


def reference_pairs(scores: pd.DataFrame) -> Iterator[Paired]:
    """Yield the policy's predictions with each reference that has a metric in common.

    Depth estimated from predicted RGB goes with depth estimated from ground-truth RGB.

    Args:
        scores: Rows of a result file, without those of checks.
    """
    order = {subject: position for position, subject in enumerate(SUBJECTS)}
    subjects = sorted(map(str, scores["subject"].unique()), key=lambda subject: order.get(subject, len(order)))
    of_subject = {subject: scores[scores["subject"] == subject] for subject in subjects}
    for left in subjects:
        side, plus, estimator = left.partition("+")
        if left in PREDICTED:
            rights = [right for right in subjects if right not in (*PREDICTED, *CONTROLS) and "+" not in right]
        else:
            rights = [f"truth+{estimator}"] if plus and side == "policy" else []
        for right in rights:
            rows = paired_rows(of_subject[left], of_subject[right]) if right in of_subject else []
            if rows:
                yield Paired(left=left, right=right, rows=tuple(rows))


def control_pairs(scores: pd.DataFrame) -> Iterator[Paired]:
    """Yield the policy's predictions for the recorded actions with each control.

    Args:
        scores: Rows of a result file, without those of checks.
    """
    given = scores[scores["subject"] == GIVEN]
    for control in CONTROLS:
        rows = paired_rows(given, scores[scores["subject"] == control])
        if rows:
            yield Paired(left=GIVEN, right=control, rows=tuple(rows))


def paired_rows(left: pd.DataFrame, right: pd.DataFrame, splits: Sequence[str] = PAIRED_SPLITS) -> list[PairedRow]:
    """Return the means of the metrics that both sides have, over the rows for which both have a value.

    Args:
        left: Rows of a result file, of one subject.
        right: Rows of the other subject, or of the same subject in another file.
        splits: Some of `PAIRED_SPLITS`.

    Raises:
        RunFolderError: If a side has several values for the same frame.
    """
    pairs = shared_values(left, right)
    return [row for split in splits for row in _split(pairs, split)]


def shared_values(left: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
    """Return one row per place of the metrics that both sides have; rows of checks are left out.

    Returns:
        The columns of `PLACE`, `left`, `right`, `difference`, and `both`: whether both sides have a value.

    Raises:
        RunFolderError: If a side has several values for the same frame.
    """
    both = set(left["metric"].unique()) & set(right["metric"].unique())
    metrics = {metric for metric in both if not metric.startswith(CHECK_PREFIX)}
    return _merged(_valued(left, metrics), _valued(right, metrics))


def _valued(scores: pd.DataFrame, metrics: set[str]) -> pd.DataFrame:
    rows = scores[scores["metric"].isin(metrics) & scores["value"].notna()][[*PLACE, "value"]]
    text = ["metric", "task", "view"]
    return rows.astype(dict.fromkeys(text, object))  # categories of two files differ


def _merged(left: pd.DataFrame, right: pd.DataFrame) -> pd.DataFrame:
    """Return one row per place, with `left`, `right`, `difference` and whether both sides have a value."""
    for side in (left, right):
        if (twice := side.duplicated(PLACE)).any():
            place = side[twice].iloc[0]
            raise RunFolderError(
                f"The scores hold two values of {place['metric']} for {place['task']}/{place['index']:04d}, chunk "
                f"{place['chunk_idx']}, frame {place['frame_idx'] + 1}, {place['view']}; score again."
            )
    pairs = left.merge(right, on=PLACE, how="outer", suffixes=("_left", "_right"))
    pairs = pairs.rename(columns={"value_left": "left", "value_right": "right"})
    difference = pairs["left"] - pairs["right"]
    return pairs.assign(difference=difference, both=difference.notna())


def _split(pairs: pd.DataFrame, split: str) -> Iterator[PairedRow]:
    if pairs.empty:
        return
    if split == "horizon":
        table = pairs.assign(group=horizons(pairs["frame_idx"]))
    else:
        table = pairs.assign(group=pairs["task"] if split == "task" else "all")
    shared = table[table["both"]]
    sums = shared.groupby(["metric", "group", "task", "index"], observed=True)[["left", "right", "difference", "both"]]
    episodes = dict(iter(sums.sum().reset_index().groupby(["metric", "group"], observed=True)))
    sizes = table.groupby(["metric", "group"], observed=True, sort=True)["both"].agg(["sum", "size"])
    for (metric, group), num_values, size in zip(sizes.index, sizes["sum"], sizes["size"], strict=True):
        yield _row(metric, split, str(group), episodes.get((metric, group)), int(num_values), int(size))


def _row(metric: str, split: str, group: str, episodes: pd.DataFrame | None, num_values: int, size: int) -> PairedRow:
    left = right = interval = None
    if episodes is not None:
        counts = episodes["both"].to_numpy(np.float64)
        left, right = (float(episodes[side].sum() / counts.sum()) for side in ("left", "right"))
        interval = mean_interval(episodes["difference"].to_numpy(), counts, episodes["task"].to_numpy())
    return PairedRow(
        metric=metric,
        split=split,
        group=group,
        left=left,
        right=right,
        interval=interval,
        num_values=num_values,
        num_dropped=size - num_values,
        num_episodes=0 if episodes is None else len(episodes),
    )
