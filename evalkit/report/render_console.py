"""The report on the console, for 80 columns and more.

In: `RunReport`s. Out: rich renderables.
Read next: `render_markdown.py`, the same with more of it as Markdown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from evalkit.report.format import SUCCESS_LEGEND, SUCCESS_SHORT, interval, number, success_cells
from evalkit.report.published import MEANS_HEADER, Beside
from evalkit.report.read import Imagination, RunReport
from evalkit.report.render_markdown import all_rows, imagined, meaning, worth_table
from evalkit.report.tables import MEAN_OF_TASKS, POOLED, ScoreRow
from evalkit.score.results.names import METRICS

FOLDED = ("reason", "95 % interval", "values")
"""Columns that are wrapped where there is no room for them; all others stay on one line."""


def renderables(runs: Sequence[RunReport]) -> Iterator[RenderableType]:
    """Yield, for each run, its caveats, the table of success, errors, and the scores of what it imagined."""
    for run in runs:
        plan = run.plan
        yield _title(f"{run.name}: {plan.policy.name} on {plan.bench.name} ({plan.protocol}, {plan.setting})")
        if run.caveats:
            yield caveat_list(run.caveats)
        yield _table(SUCCESS_SHORT, [success_cells(row) for row in run.success], bold=(POOLED, MEAN_OF_TASKS))
        yield Text(SUCCESS_LEGEND.replace("`", ""), style="dim")
        if run.errors:
            rows = [(row.outcome, row.blame, str(row.count), row.example, row.reason) for row in run.errors]
            yield _title("Episodes without a result")
            yield _table(("outcome", "whose", "count", "first", "reason"), rows)
        yield from imagination(run)


def imagination(run: Imagination) -> Iterator[RenderableType]:
    """Yield the means of what was imagined, and what they are worth; one sentence where nothing was scored."""
    subjects = imagined(run)
    if not subjects:
        yield _title(f"{run.name}: what was imagined")
        yield Text(run.nothing or "Nothing imagined was scored.")
        return
    for subject in subjects:
        yield _title(f"{run.name}: " + ("what was imagined" if subjects == ["policy"] else meaning(subject)))
        cells = [_score_cells(row) for row in all_rows(run, subject)]
        yield _table(("metric", "best", "mean", "95 % interval", "values"), cells)
    if run.remarks:
        yield _title("Remarks")
        yield _table(
            ("remark", "rows", "reason"),
            [(row.status, str(row.count), row.reason or row.meaning) for row in run.remarks],
        )
    if any(row.mean is not None for subject in subjects for row in all_rows(run, subject)):
        header, cells = worth_table(run)
        yield _title("What these numbers are worth")
        yield _table([_broken(name) for name in header], cells)


def published_beside(name: str, found: Beside | None) -> Iterator[RenderableType]:
    """Yield what others published beside the run of this name; nothing where nothing was."""
    if found is None:
        return
    yield _title(f"{name}: published beside it")
    if found.refusal:
        yield Text(found.refusal)
        return
    yield _table(MEANS_HEADER, found.means)
    if found.systems:
        yield _table(("task", name, *found.systems), found.tasks)


def caveat_list(sentences: Sequence[str]) -> RenderableType:
    """Return caveats below each other, a dash before each."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    for sentence in sentences:
        grid.add_row(Text("-", style="yellow"), Text(sentence, style="yellow"))
    return grid


def _score_cells(row: ScoreRow) -> tuple[str, ...]:
    """Return the cells of a metric; its remarks stand below its name, where there is room for them."""
    metric = METRICS.get(row.metric)
    best = {"higher": "high", "lower": "low"}[metric.better] if metric else ""
    total = row.num_values + row.num_without
    values = f"{row.num_values} of {total}" if row.num_without else str(total)
    remarks = [f"  {remark}" for remark in row.remarks.split(", ") if remark]
    return "\n".join([row.metric, *remarks]), best, number(row.mean), interval(row.interval), values


def _broken(name: str) -> str:
    """Return a name over several lines.

    Example:
        >>> _broken("repeat_last_frame").splitlines()
        ['repeat_', 'last_', 'frame']
    """
    return re.sub(r"(?<=[_+/])", "\n", name)


def _title(text: str) -> Text:
    return Text(f"\n{text}", style="italic")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], bold: Sequence[str] = ()) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    for position, name in enumerate(header):
        text = position == 0 or name in ("first", "reason")
        table.add_column(name, justify="left" if text else "right", no_wrap=name not in FOLDED, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row), style="bold" if row[0] in bold else None)
    return table
