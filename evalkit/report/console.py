"""The report on the console.

In: `RunReport`s. Out: rich renderables.
Read next: `page.py`, the same with more of it as Markdown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from evalkit.report.cells import SUCCESS_HEADER, interval, number, success_cells
from evalkit.report.page import all_rows, worth_table
from evalkit.report.read import Imagination, RunReport
from evalkit.report.tables import MEAN_OF_TASKS, POOLED
from evalkit.score.names import METRICS


def renderables(runs: Sequence[RunReport]) -> Iterator[RenderableType]:
    """Yield, for each run, its caveats, the table of success, errors, and the scores of what it imagined."""
    for run in runs:
        plan = run.plan
        if run.caveats:
            yield Text("\n".join(run.caveats), style="yellow")
        yield _table(
            f"{run.name}: {plan.policy.name} on {plan.bench.name} ({plan.protocol}, {plan.setting})",
            SUCCESS_HEADER,
            [success_cells(row) for row in run.success],
            bold=(POOLED, MEAN_OF_TASKS),
        )
        if run.errors:
            rows = [(row.outcome, row.blame, str(row.count), row.reason, row.example) for row in run.errors]
            yield _table("Episodes without a result", ("outcome", "whose", "count", "reason", "first"), rows)
        yield from imagination(run)


def imagination(run: Imagination) -> Iterator[RenderableType]:
    """Yield the means of what was imagined, and what they are worth; nothing where nothing was scored."""
    rows = all_rows(run)
    if not rows:
        return
    cells = [
        (
            row.metric,
            METRICS[row.metric].better if row.metric in METRICS else "",
            number(row.mean),
            interval(row.interval),
            f"{row.num_values} of {row.num_values + row.num_without}",
            row.remarks or "-",
        )
        for row in rows
    ]
    yield _table(
        f"{run.name}: what was imagined", ("metric", "better", "mean", "95 % interval", "values", "remarks"), cells
    )
    if run.remarks:
        remarks = [(row.status, str(row.count), row.reason or row.meaning) for row in run.remarks]
        yield _table("Remarks", ("remark", "rows", "reason"), remarks)
    if any(row.mean is not None for row in rows):
        yield _table("What these numbers are worth", *worth_table(run))


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], bold: Sequence[str] = ()) -> Table:
    table = Table(title=title, title_justify="left")
    for position, name in enumerate(header):
        table.add_column(name, justify="left" if position == 0 or name in ("reason", "remarks") else "right")
    for row in rows:
        table.add_row(*map(Text, row), style="bold" if row[0] in bold else None)
    return table
