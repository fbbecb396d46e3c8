"""Success rates that others published, beside a run's own.

In: CSV files such as those in `results/published`, one number a line with its source. Out: a table a run.
Read next: `render_markdown.py` and `render_console.py`, which show it.

A published row belongs to a family of protocols, `robocasa-24` say: it is shown beside the runs whose protocol starts
with that name, and beside none whose protocol says with a `+` that it is no benchmark.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from evalkit.contracts.errors import EvalkitError
from evalkit.report.format import percent
from evalkit.report.read import RunReport
from evalkit.report.tables import MEAN_OF_TASKS, POOLED

SUCCESS = "success_rate_percent"


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One published number.

    Attributes:
        source: Where it was published, for example `arXiv:2604.26694 Table 1`.
        system: What it is of.
        bench: Family of protocols, for example `robocasa-24`.
        setting: `default`, or what was different.
        task: One of the bench's tasks; empty for the mean over all of them.
        metric: Name with unit.
        value: The number.
        note: What else must be known.
    """

    source: str
    system: str
    bench: str
    setting: str
    task: str
    metric: str
    value: float
    note: str


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What is shown beside one run, cells as text.

    Attributes:
        means: One system a row, the run first: its name, its mean over the tasks in percent, source, note.
        tasks: One task a row: its name, the run's rate, those of `systems`.
        systems: Whose rates were published task by task.
        refusal: Why nothing is shown; empty otherwise.
    """

    means: tuple[tuple[str, ...], ...] = ()
    tasks: tuple[tuple[str, ...], ...] = ()
    systems: tuple[str, ...] = ()
    refusal: str = ""


MEANS_HEADER = ("system", "mean of tasks %", "source", "note")


def read_published(path: Path) -> list[PublishedRow]:
    """Return every row of a CSV file, or of all those in a folder.

    Raises:
        EvalkitError: If there is none, or one has other columns.
    """
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise EvalkitError(f"There are no published rows at {path}; name a CSV file or a folder of them.")
    return [row for file in files for row in _read_file(file)]


def beside(run: RunReport, published: Sequence[PublishedRow]) -> Beside | None:
    """Return the published success rates that belong beside a run; None where nothing is published on its bench."""
    protocol = run.plan.protocol
    family = protocol.partition("/")[0]
    rows = [r for r in published if r.bench == family and r.setting == "default" and r.metric == SUCCESS]
    if not rows:
        return None
    if "+" in protocol:
        return Beside(refusal=f"{protocol} is no benchmark: no published row belongs beside it.")
    own = {row.task: percent(row.rate) for row in run.success}
    whole = sorted((row for row in rows if not row.task), key=lambda row: -row.value)
    by_task = {(row.system, row.task): f"{row.value:.1f}" for row in rows if row.task}
    systems = tuple(dict.fromkeys(system for system, _ in by_task))
    return Beside(
        means=(
            (run.name, own.get(MEAN_OF_TASKS, "-"), "this run", f"{len(run.plan.tasks)} tasks, {run.plan.protocol}"),
            *((row.system, f"{row.value:.1f}", row.source, row.note) for row in whole),
        ),
        tasks=tuple(
            (task, rate, *(by_task.get((system, task), "-") for system in systems))
            for task, rate in own.items()
            if task not in (POOLED, MEAN_OF_TASKS)
        ),
        systems=systems,
    )


def _read_file(path: Path) -> list[PublishedRow]:
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        names = [entry.name for entry in fields(PublishedRow)]
        if reader.fieldnames != names:
            raise EvalkitError(f"{path} holds no published rows: its first line must be {','.join(names)}.")
        try:
            return [
                PublishedRow(**{k: v for k, v in row.items() if k != "value"}, value=float(row["value"]))
                for row in reader
            ]
        except (TypeError, ValueError) as error:
            raise EvalkitError(f"{path}, line {reader.line_num}: {error}.") from error
