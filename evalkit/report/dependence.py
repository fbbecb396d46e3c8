"""Action dependence: how far predictions for two actions part, as a share of how far the ground truths part.

In: rows of a result file. Out: `DependenceRow`s with 95 % intervals over episodes, in all and by horizon.
Read next: `dependence_tables.py`, which shows them; `evalkit/score/controls/dependence.py`, where distances come from.

Each number is a ratio of two means over the same frames, so that frames in which the ground truths part far count more,
as they say more. Frames whose ground truths do not part (`same_truth`) are left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evalkit.report.stats import Interval, ratio_interval
from evalkit.report.tables import horizons
from evalkit.score.results.names import BRANCHES, SUBJECTS

if TYPE_CHECKING:
    import pandas as pd

QUANTITIES = {"apart_levels": "RGB, levels", "apart_m": "depth, m", "apart_mm": "end effector, mm"}
"""What is compared, with the unit of its distances, by the first part of the metrics' names."""

FRAME = ["task", "index", "chunk_idx", "frame_idx", "view"]
SIDES = ["pred", "true", "along"]


@dataclass(frozen=True, kw_only=True)
class DependenceRow:
    """How far the predictions of one subject depend on the actions.

    Attributes:
        subject: Whose predictions.
        branch: The other actions, a name of `BRANCHES`.
        quantity: A key of `QUANTITIES`.
        horizon: `all`, or the horizon of the frames.
        pred: Mean distance of the predictions for both actions; None where no frame counts.
        true: Mean distance of the ground truths.
        dependence: `pred` / `true`. 0: the actions change nothing; 1: predictions part as far as the ground truths.
        dependence_interval: 95 %.
        directed: The part of `pred` along the true difference, over `true`. 0: unrelated; 1: as the ground truth, for
            predictions that part as it does; negative: the other way.
        directed_interval: 95 %.
        direction: `directed` / `dependence`, -1 to 1: the cosine between predicted and true difference, weighted by the
            predicted distance; None where the predictions do not part.
        num_values: Frames that count.
        num_same: Frames left out because the ground truths do not part.
        num_episodes: Episodes of the frames that count.
    """

    subject: str
    branch: str
    quantity: str
    horizon: str
    pred: float | None
    true: float | None
    dependence: float | None
    dependence_interval: Interval | None
    directed: float | None
    directed_interval: Interval | None
    direction: float | None
    num_values: int
    num_same: int
    num_episodes: int


def dependence_rows(scores: pd.DataFrame) -> Iterator[DependenceRow]:
    """Yield the dependence of every subject, in all and by horizon; none without branches.

    Args:
        scores: Rows of a result file, without those of checks.
    """
    for branch in BRANCHES:
        for quantity in QUANTITIES:
            names = {f"{quantity}/{side}_{branch}": side for side in SIDES}
            rows = scores[scores["metric"].isin(list(names)) & (scores["frame_idx"] >= 0)]
            for subject in SUBJECTS:
                frames = _frames(rows[rows["subject"] == subject], names)
                if frames is None:
                    continue
                yield _row(subject, branch, quantity, "all", frames)
                for horizon, part in frames.assign(horizon=horizons(frames["frame_idx"])).groupby("horizon"):
                    yield _row(subject, branch, quantity, str(horizon), part)


def _frames(rows: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame | None:
    """Return one row per frame with the columns of `SIDES` and `same`; None without one."""
    if rows.empty:
        return None
    table = rows.astype({"metric": object, "task": object, "view": object, "status": object})
    sides = table.assign(side=table["metric"].map(names))
    wide = sides.pivot_table(index=FRAME, columns="side", values="value", aggfunc="first", dropna=False)
    same = sides[(sides["side"] == "along") & (sides["status"] == "same_truth")].set_index(FRAME).index
    wide = wide.reindex(columns=SIDES).dropna(how="all").reset_index()
    return wide.assign(same=wide.set_index(FRAME).index.isin(same))


def _row(subject: str, branch: str, quantity: str, horizon: str, frames: pd.DataFrame) -> DependenceRow:
    counted = frames.dropna(subset=SIDES)
    episodes = counted.groupby(["task", "index"])[SIDES].sum().reset_index()
    pred, true, along = (episodes[side].to_numpy(np.float64) for side in SIDES)
    tasks, total = episodes["task"].to_numpy(), float(true.sum())
    known = total > 0
    return DependenceRow(
        subject=subject,
        branch=branch,
        quantity=quantity,
        horizon=horizon,
        pred=float(counted["pred"].mean()) if known else None,
        true=float(counted["true"].mean()) if known else None,
        dependence=float(pred.sum()) / total if known else None,
        dependence_interval=ratio_interval(pred, true, tasks, low=0.0) if known else None,
        directed=float(along.sum()) / total if known else None,
        directed_interval=ratio_interval(along, true, tasks) if known else None,
        direction=float(along.sum() / pred.sum()) if known and pred.sum() > 0 else None,
        num_values=len(counted),
        num_same=int(frames["same"].sum()),
        num_episodes=len(episodes),
    )
