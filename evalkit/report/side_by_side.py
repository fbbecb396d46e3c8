"""Tables of two sides: the policy and each of its references, or two models.

In: `Paired` rows. Out: sections and data tables of a report.
Read next: `paired.py`, where the numbers come from; `build.py`, which puts the sections into a report.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evalkit.report.columns import (
    HEADLINE,
    IDENTITY,
    NOT_CLEAR,
    PAIRED_DATA,
    PAIRED_NOTE,
    REFERENCE_NOTE,
    SPLIT_EXPLANATIONS,
    describe_subject,
    paired_columns,
)
from evalkit.report.compare import Comparison
from evalkit.report.document import Caveats, Cell, Column, Paragraph, Part, Section, Table
from evalkit.report.paired import Paired, PairedRow
from evalkit.report.read import ScoreSummary
from evalkit.score.results.names import METRICS

DETAILS = ("ground_truth", "depth_8bit")
"""References that the console leaves out."""


def reference_section(scored: ScoreSummary) -> Section:
    """Return the headline metrics of the policy next to each reference."""
    parts: list[Part] = [Paragraph(text=REFERENCE_NOTE), *reference_tables(scored, HEADLINE)]
    return Section(title="References: floor, ceiling and sanity check", parts=tuple(parts))


def reference_tables(scored: ScoreSummary, metrics: Sequence[str], prefix: str = "") -> Iterator[Section]:
    """Yield the policy next to each reference, over the frames that both have.

    Args:
        scored: The scores.
        metrics: The metrics to show, in order.
        prefix: Of the tables' stable names.
    """
    for pair in scored.references:
        means = [f"`{subject}`: {describe_subject(subject)}" for subject in (pair.left, pair.right)]
        table = paired_table(f"{prefix}{pair.left}_and_{pair.right}", pair, means, metrics)
        if table.rows:
            yield Section(title=f"{pair.left} and {pair.right}", parts=(table,), is_detail=pair.right in DETAILS)


def paired_table(table_id: str, pair: Paired, means: Sequence[str], metrics: Sequence[str]) -> Table:
    """Return the means of both sides over all frames that both have, one row per metric.

    Args:
        table_id: Stable name.
        pair: The two sides.
        means: What the mean of each side is the mean of.
        metrics: The metrics to show, in order; those without rows are left out.
    """
    rows = {row.metric: row for row in pair.rows if row.split == "all"}
    cells = tuple(_cells(pair, rows[metric]) for metric in metrics if metric in rows)
    return Table(id=table_id, columns=paired_columns(pair.left, pair.right, means), rows=cells, note=PAIRED_NOTE)


def better_side(pair: Paired, row: PairedRow) -> str:
    """Return the name of the side with the better values; `NOT_CLEAR` if the interval holds 0, empty without one."""
    if row.interval is None or row.metric not in METRICS or METRICS[row.metric].better == "neither":
        return ""
    if row.interval.low <= 0 <= row.interval.high:
        return NOT_CLEAR
    left_is_higher = row.interval.low > 0
    return pair.left if left_is_higher == (METRICS[row.metric].better == "higher") else pair.right


def references_data(scored: Sequence[ScoreSummary]) -> Table:
    """Return every row of every pair of policy and reference, or policy and control, with full precision."""
    rows = [
        (summary.name, *cells)
        for summary in scored
        for pair in (*summary.references, *summary.controls)
        for cells in paired_data_rows(pair)
    ]
    return Table(id="references", columns=(IDENTITY[0], *PAIRED_DATA), rows=tuple(rows))


def paired_data_rows(pair: Paired) -> Iterator[tuple[Cell, ...]]:
    """Yield the cells of `PAIRED_DATA` for each row."""
    for row in pair.rows:
        low, high = (None, None) if row.interval is None else row.interval
        means = (row.left, row.right, row.difference, low, high)
        counts = (row.num_values, row.num_dropped, row.num_episodes)
        yield (pair.left, pair.right, row.metric, row.split, row.group, *means, *counts)


def comparison_section(comparison: Comparison, figures: Sequence[Part] = ()) -> Section:
    """Return the difference of two models: all metrics, then the headline metrics by horizon."""
    parts: list[Part] = [Caveats(sentences=comparison.caveats)] if comparison.caveats else []
    parts += figures
    for subject, pair in comparison.pairs.items():
        means = [f"`{subject}` of {name}: {describe_subject(subject)}" for name in (pair.left, pair.right)]
        metrics = [*METRICS, *(row.metric for row in pair.rows if row.metric not in METRICS)]
        parts.append(paired_table(f"compared_{subject}", pair, means, list(dict.fromkeys(metrics))))
        parts.append(Section(title="Difference by horizon", parts=(_by_horizon(subject, pair),), is_detail=True))
    return Section(title=comparison.name, parts=tuple(parts))


def comparison_data(comparisons: Sequence[Comparison]) -> Table:
    """Return every row of some comparisons, with full precision."""
    rows = [
        (subject, *cells)
        for comparison in comparisons
        for subject, pair in comparison.pairs.items()
        for cells in paired_data_rows(pair)
    ]
    columns = (Column(id="subject", title="subject"), *PAIRED_DATA)
    return Table(id="compared", columns=columns, rows=tuple(rows))


def _by_horizon(subject: str, pair: Paired) -> Table:
    rows = [row for row in pair.rows if row.split == "horizon" and row.metric in HEADLINE]
    metrics = [metric for metric in HEADLINE if any(row.metric == metric for row in rows)]
    differences = {(row.group, row.metric): row.difference for row in rows}
    explanation = f"difference {pair.left} - {pair.right} of the metric in the title"
    columns = (
        Column(id="horizon", title="horizon", explanation=SPLIT_EXPLANATIONS["horizon"]),
        *(Column(id=metric, title=metric, explanation=explanation, kind="number") for metric in metrics),
    )
    groups = dict.fromkeys(row.group for row in rows if row.difference is not None)
    cells = tuple((group, *(differences.get((group, metric)) for metric in metrics)) for group in groups)
    return Table(id=f"compared_by_horizon_{subject}", columns=columns, rows=cells, note=PAIRED_NOTE)


def _cells(pair: Paired, row: PairedRow) -> tuple[Cell, ...]:
    counts = (row.num_values, row.num_dropped, row.num_episodes)
    return (row.metric, row.left, row.right, row.difference, row.interval, better_side(pair, row), *counts)
