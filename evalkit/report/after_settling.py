"""Whether successes last: the part of a report that says which goals were still met after settling.

In: a run's plan, records and success rows. Out: tables, paragraphs and caveats.
Read next: `tables.py`, which counts; `build.py`, which calls this; docs/conventions.md, which defines both successes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from evalkit.contracts.errors import EvalkitError
from evalkit.contracts.spec import OSC_DELTA_BASE
from evalkit.report.columns import SETTLED
from evalkit.report.document import Cell, Paragraph, Part, Section, Table
from evalkit.report.format import quantity
from evalkit.report.stats import success_interval
from evalkit.report.tables import MEAN_OF_TASKS, SuccessRow
from evalkit.store.plan import Plan
from evalkit.store.records import EpisodeRecord

NOTE = (
    "The first success counts. Settling: after it the robot is left alone for {time}, and the goal is checked again; "
    "this changes no success."
)


def settled_parts(plan: Plan, records: Sequence[EpisodeRecord], rows: Sequence[SuccessRow]) -> Iterator[Part]:
    """Yield the table of successes after settling, or why there is none; nothing where no episode succeeded."""
    times = settle_times(plan, records)
    if plan.success_after_steps:
        yield Paragraph(text=_counted_text(plan, records, times))
    elif times:
        cells = tuple(map(_cells, rows))
        note = NOTE.format(time=" or ".join(times))
        table = Table(id="success_after_settling", columns=SETTLED, rows=cells, note=note, num_totals=2)
        yield Section(title="Success after settling", parts=(table,))
    elif reason := _why_unsettled(records):
        yield Paragraph(text=reason)


def settle_times(plan: Plan, records: Sequence[EpisodeRecord]) -> list[str]:
    """Return for how long the successes of a run settled, for example `1.0 s (20 control steps)`; empty if none did."""
    settled = {
        (record.settle_steps, *_pace(plan, record.task))
        for record in records
        if record.settle_steps and record.success_after_settling is not None
    }
    return [_time_text(*each) for each in sorted(settled, key=str)]


def settling_caveats(plan: Plan, records: Sequence[EpisodeRecord]) -> Iterator[str]:
    """Yield what limits the numbers after settling: several settling times, successes of which nothing is known."""
    times = settle_times(plan, records)
    if len(times) > 1:
        yield f"Successes settled for different times, {' and '.join(times)}: they are counted together."
    unknown = [record for record in records if record.outcome == "success" and record.success_after_settling is None]
    if times and unknown:
        yield (
            f"Of {quantity(len(unknown), 'successful episode')} it is not known whether the goal "
            f"still holds after settling ({unknown[0].key}): they are left out of those numbers."
        )


def settling_time_caveats(runs: Mapping[str, tuple[Plan, Sequence[EpisodeRecord]]]) -> Iterator[str]:
    """Yield a sentence where several runs settled for different times.

    Args:
        runs: Plan and records of each run, by the run's name.
    """
    by_run = {name: " or ".join(settle_times(plan, records)) for name, (plan, records) in runs.items()}
    known = {name: times for name, times in by_run.items() if times}
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{name} {times}" for name, times in known.items())
        yield f"The runs settle for different times, so their success after settling does not compare: {listed}."


def settled_text(row: SuccessRow | None) -> str | None:
    """Return counts and rate after settling, for example `26 of 40 (65.0 %)`; None where nothing is known."""
    if row is None or row.settled_rate is None:
        return None
    percent = f"{100 * row.settled_rate:.1f} %"
    counts = f"{row.held} of {row.held + row.lost + row.failure}"
    return percent if row.task == MEAN_OF_TASKS else f"{counts} ({percent})"


def _cells(row: SuccessRow) -> tuple[Cell, ...]:
    settled = row.held + row.lost
    share = row.held / settled if settled else None
    return (
        row.task,
        f"{row.success} of {row.success + row.failure}",
        f"{row.held} of {settled}" if settled else None,
        share,
        success_interval(row.held, settled),
        row.settled_rate,
        row.settled_interval,
    )


def _counted_text(plan: Plan, records: Sequence[EpisodeRecord], times: Sequence[str]) -> str:
    """Return how a plan counts successes that must outlast the settling, and how many goals were lost in it."""
    first = [record for record in records if record.settle_steps is not None]
    lost = sum(record.outcome == "failure" for record in first)
    time = " or ".join(times) or quantity(plan.success_after_steps, "control step")
    return (
        f"The protocol counts a success if the goal is still met after {time} without action. "
        f"Of {quantity(len(first), 'episode')} that met the goal, {lost} lost it."
    )


def _why_unsettled(records: Sequence[EpisodeRecord]) -> str:
    """Return why no success was checked after settling; empty where there is no success."""
    steps = {record.settle_steps for record in records if record.outcome == "success"}
    if not steps:
        return ""
    if steps == {0}:
        return "Success after settling: not checked, because run.settle_steps was 0."
    if steps == {None}:
        return "Success after settling: not checked; the version of evalkit that made this run did not do so."
    return "Success after settling: not known; faults ended the settling, see the warnings in episodes.jsonl."


def _pace(plan: Plan, task: str) -> tuple[float | None, bool]:
    """Return the control rate of a task's env, and whether its actions may take longer than 1 / rate."""
    try:
        spec = plan.env_spec(task)
    except (EvalkitError, KeyError):
        return None, False
    return spec.control_hz, spec.action_layout != OSC_DELTA_BASE


def _time_text(num_steps: int | None, hz: float | None, may_take_longer: bool) -> str:
    """Return a settling time; an action to absolute poses is a motion from rest to rest, however long that takes."""
    steps = quantity(num_steps or 0, "action" if may_take_longer else "control step")
    return f"{'at least ' if may_take_longer else ''}{(num_steps or 0) / hz:.1f} s ({steps})" if hz else steps
