"""The columns of a report's tables, each with the explanation that stands below its table.

In: nothing. Out: columns and notes.
Read next: `build.py`, which fills the tables.
"""

from __future__ import annotations

from collections.abc import Sequence

from evalkit.report.correlation import MIN_OF_EACH
from evalkit.report.document import Column
from evalkit.report.tables import MEAN_OF_TASKS, POOLED
from evalkit.score.results.names import SUBJECTS

HEADLINE = (
    "psnr_db/frame_mean",
    "ssim/gauss11",
    "lpips/alex_v0.1",
    "absrel/gt_mask_10m",
    "delta1/gt_mask_10m",
    "chamfer_m/l1_half_10m",
    "chamfer_m2/l2sq_sum_10m",
    "ee_position_mm/euclidean",
    "ee_rotation_deg/geodesic",
)
"""Metrics shown by task, outcome, view and horizon; `scores.csv` has all metrics."""

SUCCESS = (
    Column(id="task", title="task", explanation="name of the task"),
    Column(id="success", title="success", short="ok", kind="count", explanation="episodes that reached the goal"),
    Column(id="failure", title="failure", short="fail", kind="count", explanation="episodes that did not reach it"),
    Column(
        id="error",
        title="error",
        short="err",
        kind="count",
        explanation="episodes that a fault of simulator, policy or harness ended",
    ),
    Column(
        id="skipped", title="skipped", short="skip", kind="count", explanation="episodes left out for a stated reason"
    ),
    Column(
        id="missing", title="missing", short="miss", kind="count", explanation="planned episodes that have not run yet"
    ),
    Column(id="planned", title="planned", short="plan", kind="count", explanation="all planned episodes"),
    Column(id="rate", title="rate %", kind="percent", explanation="success / (success + failure), percent"),
    Column(
        id="interval",
        title="95 % interval",
        kind="percent",
        explanation="95 % confidence interval of the rate (Clopper-Pearson), percent",
    ),
)
COMPARED = "episodes that reached the goal, of those with success or failure, and the rate in percent"
"""What a run's column of the comparison says."""

SUCCESS_NOTE = (
    f"In the last two rows, `{POOLED}` counts every episode once, and `{MEAN_OF_TASKS}` is the mean of the rates above."
)

SETTLED = (
    SUCCESS[0],
    Column(
        id="success",
        title="success",
        explanation="episodes that reached the goal, of those with success or failure",
    ),
    Column(
        id="held",
        title="still holds",
        short="holds",
        explanation="of the successes, those whose goal is still met after settling",
    ),
    Column(
        id="held_share",
        title="holds %",
        kind="percent",
        explanation="share of the successes that still hold, percent",
    ),
    Column(
        id="held_interval",
        title="95 % of holds",
        narrow="hidden",
        kind="percent",
        explanation="95 % confidence interval of that share (Clopper-Pearson), percent",
    ),
    Column(
        id="settled_rate",
        title="rate after settling %",
        short="after %",
        kind="percent",
        explanation="success after settling: those that still hold / (success + failure), percent",
    ),
    Column(
        id="settled_interval",
        title="95 % interval",
        kind="percent",
        explanation="95 % confidence interval of the rate after settling (Clopper-Pearson), percent",
    ),
)
COMPARED_SETTLED = "episodes whose goal was reached and still met after settling, of those with success or failure"
"""What a run's column of the second comparison says."""

ERRORS = (
    Column(id="outcome", title="outcome", explanation="error or skipped"),
    Column(id="blame", title="at fault", explanation="which part failed: env (the simulator), policy or harness"),
    Column(id="count", title="count", kind="count", explanation="number of episodes"),
    Column(id="reason", title="reason", wraps=True, explanation="why there is no result"),
    Column(id="example", title="first", explanation="the first such episode"),
)

MEANS = (
    Column(
        id="metric",
        title="metric",
        explanation="name/convention of a metric, defined at the end of report.md",
    ),
    Column(id="better", title="best", explanation="whether high or low values are better"),
    Column(
        id="mean",
        title="mean",
        kind="number",
        explanation="mean over frames and views (static cameras only, except for clouds and poses)",
    ),
    Column(
        id="interval",
        title="95 % interval",
        kind="number",
        wraps=True,
        explanation="95 % confidence interval of the mean (Student's, on the cluster-robust standard error over "
        "episodes, wider if they are skewed), none (`-`) where fewer than two episodes have a value or all agree",
    ),
    Column(
        id="num_values",
        title="values",
        kind="count",
        wraps=True,
        explanation="number of values (`n of m` if the others are absent)",
    ),
    Column(
        id="num_episodes",
        title="episodes",
        kind="count",
        narrow="hidden",
        explanation="episodes that gave a value",
    ),
    Column(
        id="remarks",
        title="remarks",
        narrow="below",
        explanation="statuses other than ok, with their counts",
    ),
)
MEANS_NOTE = (
    "An absent value is counted, never averaged. `evalkit score run` scores the frames of a chunk that were executed, "
    "`evalkit score dataset` all predicted frames that were recorded: their means do not compare. An interval is for "
    "other episodes of the same tasks if each task has two or more, otherwise for other episodes of any task. "
    "Intervals are not corrected for the number of metrics."
)

STATUSES_SEEN = (
    Column(id="status", title="remark", explanation="status in the result file"),
    Column(id="subject", title="subject", wraps=True, explanation="what was scored, the policy or a reference"),
    Column(id="count", title="rows", kind="count", explanation="how many rows of the result file have it"),
    Column(id="meaning", title="meaning", wraps=True, explanation="what the status means"),
    Column(id="reason", title="reason", wraps=True, explanation="what these rows say"),
)

SPLIT_EXPLANATIONS = {
    "task": "task of the frames",
    "outcome": "outcome of the episode of the frames",
    "view": "one camera, `static` (all static cameras), `all` (all cameras), or the arm of a pose",
    "horizon": "number of the predicted frame in its chunk, or `chunk` for values over the whole chunk",
}
"""What the first column of each split says."""

CORRELATION = (
    MEANS[0],
    Column(
        id="correlation",
        title="correlation with success",
        kind="number",
        explanation="correlation, over the episodes of each task, of the episode's mean with success (1) or failure "
        "(0), averaged over tasks",
    ),
    Column(id="interval", title="95 % interval", kind="number", explanation="95 % confidence interval, by Fisher's z"),
    Column(
        id="tasks",
        title="tasks",
        explanation=f"tasks that are used, of all: at least {MIN_OF_EACH} successes and {MIN_OF_EACH} failures have a "
        "value",
    ),
    Column(id="num_episodes", title="episodes", kind="count", explanation="episodes of those tasks"),
    Column(
        id="chunks",
        title="chunks",
        explanation="how many chunks of an episode are used, which depends on the task: those whose frames all "
        "episodes of the task have",
    ),
)
CORRELATION_NOTE = (
    "Episodes are compared within each task, on the chunks, horizons and views for which all of them have a value: "
    "failures run longer, and predictions get worse along an episode."
)
NO_CORRELATION = (
    f"Correlation with success: not reported; it needs {MIN_OF_EACH} successes and {MIN_OF_EACH} failures with scores "
    "in one task."
)

PAIRED_NOTE = (
    "Both means are over the same frames and views; values that only one side has are left out of both. The interval "
    "is of the mean difference, over episodes."
)
REFERENCE_NOTE = (
    "A good policy beats its floor. The ceiling is approximate: a policy can beat its codec's round trip, for example "
    "with pixels or depth that it copies from the current frame. The ground truth is perfect up to rounding. A dash is "
    "no value (identical images: no PSNR)."
)
NOT_CLEAR = "not clear"
PAIRED_DATA = tuple(
    Column(id=name, title=name)
    for name in (
        *("left", "right", "metric", "split", "group", "left_mean", "right_mean", "difference", "low95", "high95"),
        *("num_values", "num_left_out", "num_episodes"),
    )
)


def describe_subject(subject: str) -> str:
    """Return which frames a subject's rows score.

    Example:
        >>> describe_subject("truth+plane/median")
        'ground-truth RGB with depth estimated by plane, aligned: median'
    """
    side, plus, estimator = subject.partition("+")
    if not plus:
        return SUBJECTS.get(subject, "")
    source = "predicted" if side == "policy" else "ground-truth"
    name, _, alignment = estimator.rpartition("/")
    return f"{source} RGB with depth estimated by {name}, aligned: {alignment}"


def paired_columns(left: str, right: str, means: Sequence[str]) -> tuple[Column, ...]:
    """Return the columns of a table of two sides.

    Args:
        left: Title of the first side.
        right: Title of the second side.
        means: What the mean of each side is the mean of.
    """
    return (
        MEANS[0],
        Column(id="left", title=left, kind="number", explanation=f"mean of {means[0]}"),
        Column(id="right", title=right, kind="number", explanation=f"mean of {means[1]}"),
        Column(id="difference", title="difference", kind="number", narrow="hidden", explanation=f"{left} - {right}"),
        Column(
            id="interval",
            title="95 % interval",
            kind="number",
            wraps=True,
            explanation=f"95 % confidence interval of the difference {left} - {right}",
        ),
        Column(
            id="better",
            title="better",
            wraps=True,
            explanation=f"the side with the better values, `{NOT_CLEAR}` if the interval holds 0",
        ),
        Column(id="num_values", title="values", kind="count", explanation="number of values that both sides have"),
        Column(
            id="num_left_out",
            title="left out",
            kind="count",
            narrow="hidden",
            explanation="number of values that only one side has",
        ),
        Column(
            id="num_episodes",
            title="episodes",
            kind="count",
            narrow="hidden",
            explanation="episodes of the values that both sides have",
        ),
    )


PUBLISHED_MEANS = (
    Column(id="system", title="system", explanation="policy"),
    Column(
        id="rate",
        title="mean of tasks %",
        kind="percent",
        explanation="mean of the success rates of all tasks, percent",
    ),
    Column(id="source", title="source", wraps=True, explanation="where the rate was published"),
    Column(id="note", title="note", wraps=True, explanation="what else must be known"),
)

DEFINITIONS_NOTE = (
    "A metric's name is `what_unit/convention`. `pred` is the prediction, `true` the ground truth that the executed "
    "actions brought about."
)

IDENTITY = tuple(
    Column(id=name, title=name) for name in ("run", "bench", "setting", "protocol", "policy", "plan_sha256")
)
"""First columns of the CSV files."""

SUCCESS_DATA = (
    *SUCCESS[:-1],
    *(Column(id=name, title=name) for name in ("low95", "high95")),
    *(Column(id=name, title=name) for name in ("held", "lost", "unsettled")),
    *(Column(id=name, title=name) for name in ("settled_rate", "settled_low95", "settled_high95")),
)

EPISODES_DATA = tuple(
    Column(id=name, title=name)
    for name in (
        *("task", "index", "seed", "outcome", "steps", "settle_steps", "success_after_settling"),
        *("instruction", "first_state_sha256", "first_frame_sha256", "actions_sha256", "scene", "blame", "reason"),
        "counters",
        *("late_chunks", "held_steps", "delay_steps", "delay_zone_error_m", "jerk_left_mps3", "jerk_right_mps3"),
    )
)
"""Fields of a record that `episodes.csv` holds; the last ones are those of its `realtime`."""

SCORES_DATA = tuple(
    Column(id=name, title=name)
    for name in (
        *("subject", "metric", "split", "group", "mean", "low95", "high95"),
        *("num_values", "num_without_value", "num_episodes", "remarks"),
    )
)
