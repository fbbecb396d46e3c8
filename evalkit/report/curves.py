"""Curves of the scores over the horizon: one panel per metric, both sides on the frames that they share.

In: rows of result files. Out: a PNG.
Read next: `paired.py`, which pairs the values.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.report.columns import HEADLINE
from evalkit.report.paired import shared_values
from evalkit.score.results.names import METRICS
from evalkit.store.files import write_whole

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

CURVES = "curves.png"
NO_CURVES = "Curves are left out, because matplotlib is not installed (`pip install matplotlib`)."
MAX_CLIPS = 50
"""Clips with a thin curve of their own."""

PANELS_A_ROW = 3


def write_curves(left: pd.DataFrame, right: pd.DataFrame, names: tuple[str, str], path: Path) -> str:
    """Write the curves of two sides and return why there are none; empty if they are written.

    Args:
        left: Rows of one subject; each clip has a thin curve too.
        right: Rows of the other subject or file.
        names: How to call the sides; an empty second name draws the first side alone.
        path: The PNG.
    """
    values = shared_values(left, right)
    values = values[values["both"] & (values["frame_idx"] >= 0)]
    metrics = [m for m in HEADLINE if values.loc[values["metric"] == m, "frame_idx"].nunique() > 1]
    if not metrics:
        return "There are no curves: no metric has values of several horizons on both sides."
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return NO_CURVES
    num_rows = -(-len(metrics) // PANELS_A_ROW)
    figure = Figure(figsize=(4.2 * PANELS_A_ROW, 3.2 * num_rows), layout="constrained")
    panels = figure.subplots(num_rows, PANELS_A_ROW, squeeze=False).flatten()
    for panel, metric in zip(panels, metrics, strict=False):
        _draw(panel, values[values["metric"] == metric], metric, names)
    for panel in panels[len(metrics) :]:
        panel.set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    write_whole(path, buffer.getvalue())
    return ""


def horizon_curves(values: pd.DataFrame) -> tuple[Sequence[int], Sequence[float], Sequence[float]]:
    """Return the horizons, counted from 1, and the mean of both sides at each.

    Args:
        values: Of one metric, from `shared_values`.
    """
    means = values.groupby("frame_idx")[["left", "right"]].mean()
    return [int(idx) + 1 for idx in means.index], means["left"].tolist(), means["right"].tolist()


def _draw(panel: Axes, values: pd.DataFrame, metric: str, names: tuple[str, str]) -> None:
    clips = list(values.groupby(["task", "index"], observed=True))
    for _, clip in clips[:MAX_CLIPS] if len(clips) > 1 else []:
        horizons, ours, _ = horizon_curves(clip)
        panel.plot(horizons, ours, color="tab:blue", alpha=0.25, linewidth=0.7)
    horizons, ours, theirs = horizon_curves(values)
    panel.plot(horizons, ours, color="tab:blue", linewidth=2, label=names[0])
    if names[1]:
        panel.plot(horizons, theirs, color="tab:orange", linewidth=2, linestyle="--", label=names[1])
    better = METRICS[metric].better if metric in METRICS else ""
    panel.set_title(f"{metric} ({better} is better)", fontsize=9)
    panel.set_xlabel("horizon, frames", fontsize=8)
    panel.tick_params(labelsize=8)
