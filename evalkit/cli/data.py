"""The verbs `record` and `replay`: data sets from a bench.

In: tasks and numbers of episodes, or recorded demonstrations. Out: a data set, in the layout of docs/data.md.
Read next: `evalkit/record/plan.py` and `evalkit/record/workers.py`; `evalkit/replay/jobs.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from evalkit.cli.options import (
    BenchOfDemos,
    BenchOfTasks,
    DataSetFolder,
    DemoFiles,
    DemoOffset,
    Disturbances,
    DryRecord,
    DryReplay,
    FirstNumber,
    FirstSeed,
    MaxSteps,
    PolicyToRecord,
    Refuse,
    Setting,
    TakeOver,
    TaskOfFiles,
    TasksToRecord,
    ToleranceMm,
    Workers,
)
from evalkit.console import out, progress_bar
from evalkit.contracts.errors import BadConfig

if TYPE_CHECKING:
    from evalkit.contracts.bound import BoundPolicy
    from evalkit.record.plan import RecordJob
    from evalkit.replay.jobs import ReplayJob


def record(
    root: DataSetFolder,
    wanted: TasksToRecord,
    bench: BenchOfTasks = "robosuite",
    setting: Setting = None,
    policy: PolicyToRecord = None,
    take_over: TakeOver = None,
    refuse: Refuse = None,
    disturbances: Disturbances = True,
    max_steps: MaxSteps = None,
    first_seed: FirstSeed = 0,
    first_number: FirstNumber = 0,
    workers: Workers = 1,
    dry_run: DryRecord = False,
) -> None:
    """Record demonstrations of scripted experts, or episodes of any policy, as a data set.

    Write RGB, depth, states, actions and instructions. The same command again records only the missing episodes. An
    expert that fails costs its seed, which is counted. Exit with 1 if a simulator failed.

    Examples:

    - `evalkit record data/lift Lift=200 Door=200 --workers 2`
    - `evalkit record data/lift Lift=200 bench.robosuite.image_hw_px=[64,64]`
    - `evalkit record data/lift Lift=100 --refuse anything`
    - `evalkit record data/kitchen CloseDrawer=100 --bench robocasa bench.robocasa.art=real`
    - `evalkit record data/own Lift=40 --policy xwam policy.xwam.execute_steps=32`
    - `evalkit record data/lift Stack=100 --policy xwam --take-over 200`
    """
    from evalkit.config import bind_bench
    from evalkit.record.demonstrate import NO_DISTURBANCE, Disturbance
    from evalkit.record.plan import Actor, jobs

    tasks, overrides = _split(wanted)
    of_policy = [text for text in overrides if text.startswith("policy.")]
    bound = bind_bench(bench, [text for text in overrides if text not in of_policy])
    todo = jobs(
        root,
        bound,
        tasks,
        setting=setting or bound.settings[0],
        first_seed=first_seed,
        first_number=first_number,
        disturbance=Disturbance() if disturbances else NO_DISTURBANCE,
        refuse=refuse,
        actor=Actor(policy=_acting(policy, of_policy), max_steps=max_steps, take_over=take_over),
    )
    if dry_run:
        _list_missing(tasks, todo)
    else:
        _record(root, todo, workers)


def replay(
    root: DataSetFolder,
    files: DemoFiles,
    bench: BenchOfDemos,
    task: TaskOfFiles = None,
    first_number: DemoOffset = 0,
    tolerance_mm: ToleranceMm = 2.0,
    workers: Workers = 1,
    dry_run: DryReplay = False,
) -> None:
    """Render recorded demonstrations again, with depth, as a data set.

    Every recorded state is set in the simulator and rendered; actions are not executed. The same command again replays
    only the missing demonstrations. A demonstration that cannot be reproduced is left out; the reason is printed and
    kept in `unreproduced/`. Exit with 1 if a demonstration was left out.

    Examples:

    - `evalkit replay data/robocasa OpenDrawer/demo.hdf5 --bench robocasa --workers 8`
    - `evalkit replay data/lift low_dim.hdf5 --bench robosuite --task Lift bench.robosuite.image_hw_px=[256,256]`
    """
    from evalkit.config import bind_bench
    from evalkit.replay.jobs import jobs

    overrides = [text for text in files if "=" in text and not Path(text).exists()]
    todo = jobs(
        root,
        [Path(text) for text in files if text not in overrides],
        bind_bench(bench, overrides),
        task=task,
        first_number=first_number,
        ee_tolerance_m=tolerance_mm / 1000,
    )
    if not dry_run:
        _replay(root, todo, workers)
        return
    for job in todo:
        out.print(f"missing  {job.key}  {job.task}: {job.name} of {job.path}")
    out.print(f"{len(todo)} demonstrations are missing in {root}.")


def _split(pairs: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """Return tasks with their numbers of episodes, and overrides, whose keys hold dots.

    Example:
        >>> _split(["Lift=200", "bench.robosuite.gl=egl"])
        ({'Lift': 200}, ['bench.robosuite.gl=egl'])
    """
    tasks: dict[str, int] = {}
    overrides = []
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if "." in key:
            overrides.append(pair)
        elif not equals or not value.isdecimal():
            raise BadConfig(f"'{pair}' must be a task and its number of episodes, for example Lift=200.")
        else:
            tasks[key] = int(value)
    if not tasks:
        raise BadConfig("Name at least one task and its number of episodes, for example Lift=200.")
    return tasks, overrides


def _acting(policy: str | None, overrides: Sequence[str]) -> BoundPolicy | None:
    """Return the policy to record; None for the bench's expert."""
    from evalkit.config import bind_policy
    from evalkit.record.plan import EXPERT

    if policy is not None and policy != EXPERT:
        return bind_policy(policy, overrides)
    if overrides:
        raise BadConfig(f"'{overrides[0]}' has no effect: --policy must name the policy.")
    return None


def _list_missing(tasks: dict[str, int], todo: Sequence[RecordJob]) -> None:
    missing = Counter(dict.fromkeys(tasks, 0))
    for job in todo:
        missing[job.task] += len(job.numbers)
    for task, total in tasks.items():
        out.print(f"missing  {task}: {missing[task]} of {total} episodes")


def _record(root: Path, todo: Sequence[RecordJob], workers: int) -> None:
    from evalkit.record.workers import record as record_jobs

    with progress_bar() as progress:
        bar = progress.add_task("episodes", total=sum(len(job.numbers) for job in todo))
        recorded = record_jobs(
            root, todo, workers=workers, on_job=lambda job, result: progress.advance(bar, len(job.numbers))
        )
    for fault in recorded.faults:
        out.print(f"not recorded: {fault}", soft_wrap=True)
    out.print(
        f"{root}: {recorded.kept} of {recorded.tried} recorded now; {len(recorded.lengths)} episodes, "
        f"{sum(recorded.lengths.values())} frames in all; {recorded.num_failed} seeds gave no episode",
        soft_wrap=True,
    )
    if recorded.faults:
        raise typer.Exit(1)


def _replay(root: Path, todo: Sequence[ReplayJob], workers: int) -> None:
    from evalkit.replay.jobs import replay as replay_jobs

    with progress_bar() as progress:
        bar = progress.add_task("demonstrations", total=len(todo))
        replayed = replay_jobs(root, todo, workers=workers, on_job=lambda job, result: progress.advance(bar))
    for reason in replayed.reasons:
        out.print(f"left out: {reason}", soft_wrap=True)
    out.print(
        f"{root}: {replayed.written} of {len(todo)} replayed now; {len(replayed.lengths)} episodes, "
        f"{sum(replayed.lengths.values())} frames in all; {replayed.num_unreproduced} demonstrations cannot be "
        "reproduced",
        soft_wrap=True,
    )
    if replayed.reasons:
        raise typer.Exit(1)
