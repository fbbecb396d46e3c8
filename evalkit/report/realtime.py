"""The real-time mode of a run: late chunks, steps without motion, error in the delay zone, jerk.

In: a plan, its records. Out: a table with one row per task; nothing for a run whose simulation waits for each answer.
Read next: `build.py`, which calls this; `evalkit/run/realtime.py`, which counts and measures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from evalkit.report.document import Cell, Column, Part, Section, Table
from evalkit.store.plan import Plan
from evalkit.store.records import EpisodeRecord

JERKS = ("jerk_left_mps3", "jerk_right_mps3")
MEASURED = ("late_chunks", "held_steps", "delay_steps", "delay_zone_error_m", *JERKS)
"""What a record's `realtime` holds, in the order of `episodes.csv`."""

REALTIME = (
    Column(id="task", title="task", explanation="name of the task"),
    Column(id="strategy", title="strategy", explanation="what the robot does until an answer arrives"),
    Column(id="delay_ms", title="delay ms", explanation="time from a request to its answer, on the robot's clock"),
    Column(id="delay_steps", title="steps", kind="number", explanation="mean delay in control steps"),
    Column(id="episodes", title="episodes", kind="count", explanation="episodes with success or failure"),
    Column(id="late_chunks", title="late", kind="count", explanation="answers that came after the old chunk's end"),
    Column(id="held_steps", title="held", kind="count", explanation="steps in which the robot stood still and waited"),
    Column(
        id="delay_zone_error_mm",
        title="zone error mm",
        kind="number",
        explanation="mean distance between the positions commanded until an answer arrived and those of the new chunk",
    ),
    Column(id="jerk_left", title="jerk left", kind="number", explanation="RMS jerk of the commanded motion, m/s^3"),
    Column(id="jerk_right", title="jerk right", kind="number", explanation="the same of the right arm"),
)

NOTE = "Sums of late answers and held steps, means over episodes of the rest; empty where it is not defined."


def realtime_parts(plan: Plan, records: Sequence[EpisodeRecord]) -> Iterator[Part]:
    """Yield the table of a run in real-time mode."""
    rows = []
    for task in plan.tasks:
        ended = [r for r in records if r.task == task and r.outcome in ("success", "failure") and r.realtime]
        if ended:
            rows.append(_row(plan, task, [record.realtime or {} for record in ended]))
    if rows:
        table = Table(id="realtime", columns=REALTIME, rows=tuple(rows), note=NOTE)
        yield Section(title="Real-time execution", parts=(table,))


def measured_cells(record: EpisodeRecord) -> dict[str, Cell]:
    """Return what a record's `realtime` holds; empty cells in other runs."""
    return {name: (record.realtime or {}).get(name) for name in MEASURED}


def _row(plan: Plan, task: str, each: Sequence[Mapping[str, float | None]]) -> tuple[Cell, ...]:
    error_m = _mean(each, "delay_zone_error_m")
    return (
        *(task, plan.execution.realtime, plan.execution.delay_ms, _mean(each, "delay_steps"), len(each)),
        *(int(sum(one.get(name) or 0 for one in each)) for name in ("late_chunks", "held_steps")),
        None if error_m is None else 1000 * error_m,
        *(_mean(each, name) for name in JERKS),
    )


def _mean(each: Sequence[Mapping[str, float | None]], name: str) -> float | None:
    values = [value for one in each if (value := one.get(name)) is not None]
    return sum(values) / len(values) if values else None
