"""Does the prediction depend on the actions? Controls and action dependence, as sections and a data table.

In: a `ScoreSummary`. Out: parts of a report.
Read next: `dependence.py` and `paired.py`, where the numbers come from; `build.py`, which puts them into a report.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evalkit.report.columns import IDENTITY, MEANS
from evalkit.report.dependence import QUANTITIES, DependenceRow
from evalkit.report.document import Cell, Column, Part, Section, Table
from evalkit.report.read import ScoreSummary
from evalkit.report.side_by_side import better_side
from evalkit.score.results.names import GIVEN

COMPARED = (
    "psnr_db/frame_mean",
    "psnr_db/moving_pixels",
    "ssim/gauss11",
    "lpips/alex_v0.1",
    "absrel/gt_mask_10m",
    "ee_position_mm/euclidean",
)
"""Metrics of the table of controls; `references.csv` has all."""

SHOWN = (GIVEN, "codec_round_trip")
"""Subjects of the table of dependence; the other references have 0 and 1 by definition, and stand in the CSV file."""

CONTROL_COLUMNS = (
    Column(id="control", title="control", wraps=True, explanation="what the policy was asked to predict instead"),
    MEANS[0],
    Column(
        id="given",
        title="recorded actions",
        kind="number",
        wraps=True,
        explanation=f"mean of `{GIVEN}`",
    ),
    Column(id="mean", title="control's mean", kind="number", wraps=True, explanation="mean over the same frames"),
    Column(
        id="interval",
        title="95 % interval",
        kind="number",
        wraps=True,
        explanation="95 % confidence interval of the difference recorded actions - control",
    ),
    Column(
        id="better",
        title="better",
        wraps=True,
        explanation="the side with the better values, `not clear` if the interval holds 0",
    ),
    Column(id="num_values", title="values", kind="count", explanation="number of values that both sides have"),
)
CONTROLS_NOTE = (
    "Every control is scored against the ground truth of the recorded actions, with the same noise. A model that "
    "ignores its actions scores the same for other actions: its PSNR then says how well it draws the scene, not that "
    "it knows what the actions do. The same holds for the instruction, which a good model "
    "need not read where the actions are given."
)
DEPENDENCE_COLUMNS = (
    Column(id="subject", title="predictions", wraps=True, explanation="of the policy or of a reference"),
    Column(
        id="branch",
        title="other actions",
        wraps=True,
        explanation="the actions whose outcome was predicted and executed from the same frame as the recorded ones",
    ),
    Column(id="quantity", title="of", wraps=True, explanation="what is compared, with the unit of the distances"),
    Column(
        id="pred",
        title="predictions part",
        kind="number",
        wraps=True,
        explanation="mean distance of the two predictions",
    ),
    Column(
        id="true",
        title="ground truths part",
        kind="number",
        wraps=True,
        explanation="mean distance of the two ground truths",
    ),
    Column(
        id="dependence",
        title="dependence",
        kind="number",
        explanation="their ratio, 0 if the actions change nothing, 1 if predictions part as far as the ground truths",
    ),
    Column(
        id="dependence_interval",
        title="95 % of dependence",
        kind="number",
        wraps=True,
        narrow="hidden",
        explanation="95 % confidence interval over episodes",
    ),
    Column(
        id="directed",
        title="directed",
        kind="number",
        explanation="the part of the predicted difference that points along the true one, over the true one, 0 if they "
        "are unrelated, 1 for the ground truth itself, negative if predictions move the other way",
    ),
    Column(
        id="directed_interval",
        title="95 % of directed",
        kind="number",
        wraps=True,
        explanation="95 % confidence interval over episodes",
    ),
    Column(id="num_values", title="frames", kind="count", explanation="frames that count"),
    Column(
        id="num_same",
        title="same truth",
        kind="count",
        narrow="hidden",
        explanation="frames left out because the ground truths do not part (less than half a grey level, 2 mm)",
    ),
)
DEPENDENCE_NOTE = (
    "A model that ignores its actions has 0 and 0, as the floor; the ground truth has 1 and 1. One whose predictions "
    "part for another reason than the true outcome has a large dependence and a small directed part. One that moves as "
    "it should has about 1 and 1; blurred images lower both."
)
HORIZON_COLUMNS = (
    *DEPENDENCE_COLUMNS[:3],
    Column(id="horizon", title="horizon", explanation="number of the predicted frame in its chunk"),
    *DEPENDENCE_COLUMNS[3:],
)
DATA_COLUMNS = tuple(
    Column(id=name, title=name)
    for name in (
        *("subject", "branch", "quantity", "horizon", "pred", "true", "dependence", "dependence_low95"),
        *("dependence_high95", "directed", "directed_low95", "directed_high95", "direction"),
        *("num_values", "num_same", "num_episodes"),
    )
)


def dependence_sections(scored: ScoreSummary) -> Iterator[Section]:
    """Yield the section on actions; none where there are neither controls nor branches."""
    parts: list[Part] = []
    if rows := tuple(_control_rows(scored)):
        parts.append(Table(id="controls", columns=CONTROL_COLUMNS, rows=rows, note=CONTROLS_NOTE))
    whole = tuple(_cells(row) for row in scored.dependence if row.horizon == "all" and row.subject in SHOWN)
    if whole:
        parts.append(Table(id="dependence", columns=DEPENDENCE_COLUMNS, rows=whole, note=DEPENDENCE_NOTE))
        by_horizon = tuple(
            (*_cells(row)[:3], row.horizon, *_cells(row)[3:])
            for row in scored.dependence
            if row.horizon != "all" and row.subject == GIVEN
        )
        table = Table(id="dependence_by_horizon", columns=HORIZON_COLUMNS, rows=by_horizon)
        parts.append(Section(title="Dependence by horizon", parts=(table,), is_detail=True))
    if parts:
        yield Section(title="Does the prediction depend on the actions?", parts=tuple(parts))


def dependence_data(scored: Sequence[ScoreSummary]) -> list[Table]:
    """Return every row of action dependence, with full precision; no table where there is none."""
    rows = tuple((one.name, *_data_cells(row)) for one in scored for row in one.dependence)
    return [Table(id="dependence", columns=(IDENTITY[0], *DATA_COLUMNS), rows=rows)] if rows else []


def _control_rows(scored: ScoreSummary) -> Iterator[tuple[Cell, ...]]:
    for pair in scored.controls:
        rows = {row.metric: row for row in pair.rows if row.split == "all"}
        for metric in COMPARED:
            row = rows.get(metric)
            if row is not None and row.left is not None:
                yield (pair.right, metric, row.left, row.right, row.interval, better_side(pair, row), row.num_values)


def _cells(row: DependenceRow) -> tuple[Cell, ...]:
    return (
        row.subject,
        row.branch,
        QUANTITIES[row.quantity],
        row.pred,
        row.true,
        row.dependence,
        row.dependence_interval,
        row.directed,
        row.directed_interval,
        row.num_values,
        row.num_same,
    )


def _data_cells(row: DependenceRow) -> tuple[Cell, ...]:
    sizes = row.dependence_interval or (None, None)
    directed = row.directed_interval or (None, None)
    return (
        *(row.subject, row.branch, row.quantity, row.horizon, row.pred, row.true, row.dependence, *sizes),
        *(row.directed, *directed, row.direction, row.num_values, row.num_same, row.num_episodes),
    )
