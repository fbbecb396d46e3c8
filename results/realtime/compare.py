"""Success, error in the delay zone and jerk of the five real-time strategies at several delays.

In: nano, and nano trained further with clean first actions. Out: a run folder per strategy and delay, and table.md;
run again, it does what is missing, in rounds that give each cell one episode of each task.
Read next: `README.md`, which discusses the numbers; docs/realtime.md, what they mean.

Without delay, `sync` and `prefix` are not run: they execute what `async` does, to the bit.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

from evalkit import load_bench, load_policy, make_plan, run_plan
from evalkit.contracts.execution import Execution
from evalkit.report.stats import success_interval
from evalkit.store.records import EpisodeRecord
from evalkit.store.run_folder import open_run

TASKS, SETTING, SEED = ("Lift", "PickPlaceCan"), "wide", 51
DELAYS, STEP_MS, ROUNDS = (0, 2, 4, 8), 50, 50
GUIDED_STEPS: dict[str, Any] = {"num_action_steps": 4, "num_video_steps": 4}


class Row(NamedTuple):
    """One row of the table: a strategy, the settings of its policy, whether it takes the weights trained further."""

    name: str
    strategy: str
    settings: dict[str, Any]
    further: bool = False


ROWS = (
    Row("sync", "sync", {}),
    Row("async", "async", {}),
    Row("blend", "blend", {}),
    Row("guided, 4 steps", "guided", GUIDED_STEPS),
    Row("prefix, trained further", "prefix", {}, further=True),
    Row("control: async, 4 steps", "async", GUIDED_STEPS),
    Row("control: async, trained further", "async", {}, further=True),
)


def main(
    out: Annotated[Path, typer.Argument(help="Folder of the runs and of table.md.")],
    prefix: Annotated[Path | None, typer.Option(help="Weights of the prefix rows; none: no rows.")] = None,
    episodes: Annotated[int, typer.Option(help="Episodes of each task in each cell.")] = 50,
    minutes: Annotated[float, typer.Option(help="Begin no cell after this time; 0 only writes the table.")] = 1e6,
) -> None:
    """Run what is missing and write the table after each cell."""
    until_s = time.monotonic() + 60 * minutes
    out.mkdir(parents=True, exist_ok=True)
    for part in range(1, ROUNDS + 1):
        for row in ROWS:
            for delay in DELAYS:
                if time.monotonic() < until_s and _is_run(row, delay, prefix):
                    _run(out, row, delay, prefix, episodes, f"{part}/{ROUNDS}")
                    (out / "table.md").write_text(table(out))
    (out / "table.md").write_text(table(out))


def _is_run(row: Row, delay: int, prefix: Path | None) -> bool:
    equal_to_async = delay == 0 and row.strategy in ("sync", "prefix")
    return not equal_to_async and not (row.further and prefix is None)


def _run(out: Path, row: Row, delay: int, prefix: Path | None, episodes: int, shard: str) -> None:
    """Run a part of the episodes of a cell."""
    weights = {"checkpoint": str(prefix)} if row.further else {}
    bench, policy = load_bench("robosuite"), load_policy("xwam", **row.settings, **weights)
    plan = make_plan(
        bench,
        policy,
        tasks=TASKS,
        setting=SETTING,
        num_episodes=episodes,
        seed=SEED,
        execution=Execution(realtime=row.strategy, delay_ms=str(delay * STEP_MS)),
    )
    run_plan(plan, bench, policy, _folder(out, row, delay), shard=shard, clips=False, video=False)


def _folder(out: Path, row: Row, delay: int) -> Path:
    """Return the run folder of a cell, or that of the cell which executes the same to the bit."""
    if delay == 0 and row.strategy in ("sync", "prefix"):
        row = next(other for other in ROWS if (other.strategy, other.further) == ("async", row.further))
    return out / f"{row.name.replace(':', '').replace(',', '').replace(' ', '-')}-{delay}"


def table(out: Path) -> str:
    """Return the table of all cells that have records, in Markdown."""
    head = "| strategy | delay, steps | " + " | ".join(f"{task}: success" for task in TASKS)
    head += " | late | zone error, mm | jerk, m/s^3 |"
    return "\n".join([head, "|---" * (5 + len(TASKS)) + "|", *_lines(out)]) + "\n"


def _lines(out: Path) -> Iterator[str]:
    for row in ROWS:
        for delay in DELAYS:
            folder = _folder(out, row, delay)
            records = open_run(folder).records() if (folder / "plan.json").is_file() else []
            if records:
                rates = (_rate([record for record in records if record.task == task]) for task in TASKS)
                yield f"| {row.name} | {delay} | {' | '.join([*rates, *_measured(records)])} |"


def _rate(records: Sequence[EpisodeRecord]) -> str:
    """Return successes of episodes with success or failure, their rate, and its 95 % interval."""
    ended = [record.outcome for record in records if record.outcome in ("success", "failure")]
    if not ended:
        return "-"
    count = ended.count("success")
    interval = success_interval(count, len(ended))
    assert interval is not None
    percent = f"{100 * count / len(ended):.0f} % ({100 * interval.low:.0f} to {100 * interval.high:.0f})"
    errors = len(records) - len(ended)
    return f"{count} of {len(ended)}, {percent}" + (f", {errors} without result" if errors else "")


def _measured(records: Sequence[EpisodeRecord]) -> Iterator[str]:
    """Yield the sum of late chunks, the mean error in the delay zone and the mean jerk."""
    each = [record.realtime for record in records if record.realtime]
    yield f"{sum(int(one['late_chunks'] or 0) for one in each)}"
    for name, factor, digits in (("delay_zone_error_m", 1000, 2), ("jerk_left_mps3", 1, 0)):
        values = [factor * value for one in each if (value := one.get(name)) is not None]
        yield f"{np.mean(values):.{digits}f}" if values else "-"


if __name__ == "__main__":
    typer.run(main)
