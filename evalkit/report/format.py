"""Text of table cells, the same on the console, in Markdown and in CSV.

In: report rows. Out: short strings.
Read next: `render_markdown.py`, `render_console.py`.
"""

from __future__ import annotations

from evalkit.report.stats import Interval
from evalkit.report.tables import MEAN_OF_TASKS, POOLED, ScoreRow, SuccessRow
from evalkit.score.results.names import METRICS

HEADLINE = (
    "psnr_db/frame_mean",
    "ssim/gauss11",
    "lpips/alex_v0.1",
    "absrel/gt_mask",
    "delta1/gt_mask",
    "chamfer_m/l1_half",
    "chamfer_m2/l2sq_sum",
    "ee_position_mm/euclidean",
    "ee_rotation_deg/geodesic",
)
"""Metrics shown by task, outcome and horizon; `scores.csv` has all of them."""

COUNTS = ("success", "failure", "error", "skipped", "missing", "planned")
SUCCESS_HEADER = ("task", *COUNTS, "rate %", "95 % Wilson")
SUCCESS_SHORT = ("task", "ok", "fail", "err", "skip", "miss", "plan", "rate %", "95 % Wilson")
"""The same for 80 columns; `SUCCESS_LEGEND` says what it means."""

TOTALS = f"`{POOLED}` counts every episode once, `{MEAN_OF_TASKS}` every task once."
SUCCESS_LEGEND = (
    "ok success, fail failure, err error, skip skipped, miss no record yet, plan planned; the rate is over ok + fail. "
    f"{TOTALS}"
)
SCORE_HEADER = ("metric", "better", "mean", "95 % interval", "values", "episodes", "without value", "remarks")


def success_cells(row: SuccessRow) -> tuple[str, ...]:
    """Return the cells of a row of the success table; rates in percent."""
    counts = (str(getattr(row, name)) for name in COUNTS)
    return (row.task, *counts, percent(row.rate), percent_interval(row.interval))


def score_cells(row: ScoreRow) -> tuple[str, ...]:
    """Return the cells of a row of the imagination table."""
    metric = METRICS.get(row.metric)
    return (
        row.metric,
        metric.better if metric else "",
        number(row.mean),
        interval(row.interval),
        str(row.num_values),
        str(row.num_episodes),
        str(row.num_without),
        row.remarks or "-",
    )


def percent(share: float | None) -> str:
    """Return a share in percent, without the sign, or a dash.

    Example:
        >>> percent(0.8), percent(None)
        ('80.0', '-')
    """
    return "-" if share is None else f"{100 * share:.1f}"


def percent_interval(ends: Interval | None) -> str:
    """Return an interval of shares in percent, or a dash."""
    return "-" if ends is None else f"{100 * ends.low:.1f} to {100 * ends.high:.1f}"


def number(value: float | None) -> str:
    """Return a number with four digits, or a dash.

    Example:
        >>> number(27.70561), number(0.00491), number(1234.5), number(None)
        ('27.71', '0.00491', '1234', '-')
    """
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def interval(ends: Interval | None) -> str:
    """Return both ends of an interval, or a dash where one episode says nothing of the spread."""
    return "-" if ends is None else f"{number(ends.low)} to {number(ends.high)}"
