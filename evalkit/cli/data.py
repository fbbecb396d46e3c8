"""The verbs `record` and `replay`: data sets from a bench.

In: tasks and numbers of episodes, or recorded demonstrations. Out: a data set, in the layout of docs/data.md.
Read next: `evalkit/record/plan.py` and `evalkit/record/workers.py`; `evalkit/replay/jobs.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
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
    RgbOnly,
    Setting,
    SettingOfFiles,
    TakeOver,
    TaskOfFiles,
    TasksToRecord,
    ToleranceMm,
    Workers,
)
from evalkit.console import out, progress_bar
from evalkit.contracts.errors import BadConfig
from evalkit.contracts.limits import check_range
from evalkit.contracts.text import count_of

if TYPE_CHECKING:
    from evalkit.contracts.bound import BoundPolicy
    from evalkit.record.plan import RecordJob
    from evalkit.replay.imports import ImportPlan
    from evalkit.replay.jobs import ReplayPlan


INTERRUPTED = 3
"""Exit code where a process failed: the same command again may complete the work."""


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

    Write RGB, depth, states, actions and instructions. The same command again records only the missing episodes. A seed
    on which the expert fails gives no episode and is not tried again. Exit with 1 if a task has fewer episodes than
    were asked for, and with 3 if a process failed, so that the same command again may record the rest.

    Examples:

    - `evalkit record data/lift Lift=200 Door=200 --workers 2`
    - `evalkit record data/small Lift=200 bench.robosuite.image_hw_px=[64,64]`
    - `evalkit record data/lift Lift=100 --refuse anything`
    - `evalkit record data/kitchen CloseDrawer=100 --bench robocasa bench.robocasa.art=real`
    - `evalkit record data/own Lift=40 --policy xwam policy.xwam.execute_steps=32`
    - `evalkit record data/lift Stack=100 --policy xwam --take-over 200`
    """
    from evalkit.config import bind_bench
    from evalkit.record.demonstrate import NO_DISTURBANCE, Disturbance
    from evalkit.record.plan import Actor, count_episodes, jobs

    tasks, overrides = _split(wanted)
    _check_folder(root)
    _check_flags(overrides, {"bench.max_steps": "--max-steps", "run.workers": "--workers"})
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
    exit_code = _list_missing(tasks, todo) if dry_run else _record(root, todo, workers)
    missing = [number for job in todo for number in job.numbers] if dry_run else []
    counts = count_episodes(root, bound, tasks, refuse=refuse, first_number=first_number, missing=missing)
    short = _print_short(tasks, counts, expert=policy is None and refuse is None)
    if exit_code or (short and not dry_run):
        raise typer.Exit(exit_code or 1)


def replay(
    root: DataSetFolder,
    files: DemoFiles,
    bench: BenchOfDemos,
    task: TaskOfFiles = None,
    setting: SettingOfFiles = None,
    first_number: DemoOffset = 0,
    tolerance_mm: ToleranceMm = 2.0,
    rgb_only: RgbOnly = False,
    workers: Workers = 1,
    dry_run: DryReplay = False,
) -> None:
    """Make a data set of recorded demonstrations: render their states again, with depth, or import their images.

    Files of robomimic, robosuite 1.5 or RoboCasa hold states. Each state is set in the simulator and rendered; actions
    are not executed. A file that states another robot, controller, control rate or version than the bench's is refused.
    A demonstration that cannot be reproduced is left out; the reason is printed and kept in `unreproduced/`.

    RoboTwin's files hold images, which are imported without a simulator, with depth if the files have it. A file that
    is damaged, or does not follow RoboTwin's conventions, is left out and the reason is printed.

    The same command again adds only what is missing. Exit with 0 if everything was written, with 1 if something was
    left out for good, with 2 if nothing could begin, and with 3 if a process failed, so that the same command again may
    write the rest.

    Examples:

    - `evalkit replay data/lift demo.hdf5 --bench robosuite` (a file of robosuite's recorder, which states its task)
    - `evalkit replay data/lift demo.hdf5 --bench robosuite --dry-run` (check the files, list what is missing)
    - `evalkit replay data/lift low_dim.hdf5 --bench robosuite --task Lift bench.robosuite.image_hw_px=[256,256]`
    - `evalkit replay data/robocasa OpenDrawer/demo.hdf5 --bench robocasa bench.robocasa.art=real --workers 8`
    - `evalkit replay data/robotwin RoboTwin/data/click_bell/demo_clean --bench robotwin --rgb-only`
    """
    from evalkit.config import bind_bench
    from evalkit.contracts.recording import ImportableBench
    from evalkit.replay.imports import plan_import
    from evalkit.replay.jobs import plan_replay

    _check_folder(root)
    check_range("--end-effector-tolerance-mm", tolerance_mm, 0, 1000, unit="mm")
    overrides = [text for text in files if "=" in text and not Path(text).exists()]
    _check_flags(overrides, {"run.workers": "--workers"})
    paths, bound = [Path(text) for text in files if text not in overrides], bind_bench(bench, overrides)
    if isinstance(bound.plugin, ImportableBench):
        wanted = plan_import(
            root, paths, bound, task=task, setting=setting, first_number=first_number, with_depth=not rgb_only
        )
        _import(root, wanted, workers, dry_run=dry_run)
        return
    if rgb_only or setting is not None:
        raise BadConfig(
            f"{'--rgb-only' if rgb_only else '--setting'} has no effect with --bench {bench}; leave it out."
        )
    plan = plan_replay(
        root,
        paths,
        bound,
        task=task,
        first_number=first_number,
        ee_tolerance_m=tolerance_mm / 1000,
    )
    for warning in plan.warnings:
        out.print(f"warning: {warning}", soft_wrap=True)
    if not dry_run:
        _replay(root, plan, workers)
        return
    for job in plan.jobs:
        out.print(f"missing  {job.key}  {job.task}: {job.name} of {job.source}", soft_wrap=True)
    out.print(f"missing in {root}: {count_of(len(plan.jobs), 'demonstration')}", soft_wrap=True)


def _import(root: Path, plan: ImportPlan, workers: int, *, dry_run: bool) -> None:
    """Import episodes and print the result; or only list what is missing.

    Raises:
        typer.Exit: If one of them cannot be imported.
    """
    from evalkit.replay.imports import run_import

    unusable = list(plan.unusable)
    if dry_run:
        for job in plan.jobs:
            out.print(f"missing  {job.key}  {job.file.task}, {job.file.setting}: {job.file.path}", soft_wrap=True)
        summary = f"missing in {root}: {count_of(len(plan.jobs), 'episode')}"
    else:
        with progress_bar() as progress:
            bar = progress.add_task("episodes", total=len(plan.jobs))
            imported = run_import(root, plan.jobs, workers=workers, on_job=lambda job, result: progress.advance(bar))
        unusable += imported.unusable
        for warning in imported.describe_warnings():
            out.print(f"warning: {warning}", soft_wrap=True)
        summary = (
            f"{root}: {imported.written} of {len(plan.jobs)} imported now; "
            f"{count_of(len(imported.lengths), 'episode')}, {sum(imported.lengths.values())} frames in all"
        )
    for path, reason in unusable:
        out.print(f"left out: {path}: {reason}.", soft_wrap=True)
    out.print(f"{summary}; {count_of(len(unusable), 'file')} left out" if unusable else summary, soft_wrap=True)
    if unusable:
        raise typer.Exit(1)


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


def _check_folder(root: Path) -> None:
    """Raise BadConfig if a data set would be mixed with a run."""
    if (root / "plan.json").exists():
        raise BadConfig(f"{root} is a run folder: it holds plan.json. Write the data set to another folder.")


def _check_flags(overrides: Sequence[str], flags: Mapping[str, str]) -> None:
    """Raise BadConfig for an override of `evalkit run` that is a flag here."""
    for override in overrides:
        key, _, value = override.partition("=")
        if key in flags:
            raise BadConfig(f"'{override}' is a setting of `evalkit run`; here write {flags[key]} {value}.")


def _list_missing(tasks: dict[str, int], todo: Sequence[RecordJob]) -> int:
    """Print how many episodes of each task are missing; return the exit code 0."""
    missing = Counter(dict.fromkeys(tasks, 0))
    for job in todo:
        missing[job.task] += len(job.numbers)
    for task, total in tasks.items():
        out.print(f"missing  {task}: {missing[task]} of {count_of(total, 'episode')}")
    return 0


def _print_short(tasks: Mapping[str, int], counts: Mapping[str, tuple[int, int]], *, expert: bool) -> bool:
    """Print a line for each task of which seeds gave no episode; return whether there is one."""
    short = {task: count for task, count in counts.items() if count[1]}
    for task, (num_there, num_failed) in short.items():
        seeds = count_of(num_failed, "seed")
        reason = f"the expert failed on {seeds}" if expert else f"{seeds} gave no episode"
        out.print(
            f"{task}: {num_there} of {count_of(tasks[task], 'episode')}; {reason}. Ask for more episodes, or record "
            "into another folder with more --max-steps.",
            soft_wrap=True,
        )
    return bool(short)


def _record(root: Path, todo: Sequence[RecordJob], workers: int) -> int:
    """Record jobs, print the result, and return the exit code."""
    from evalkit.record.workers import record as record_jobs

    with progress_bar() as progress:
        bar = progress.add_task("episodes", total=sum(len(job.numbers) for job in todo))
        recorded = record_jobs(
            root, todo, workers=workers, on_job=lambda job, result: progress.advance(bar, len(job.numbers))
        )
    for kind, sentences in (("not recorded", recorded.faults), ("interrupted", recorded.interruptions)):
        for sentence in sentences:
            out.print(f"{kind}: {sentence}", soft_wrap=True)
    again = "; run the same command again for what was interrupted" if recorded.interruptions else ""
    out.print(
        f"{root}: {recorded.kept} of {recorded.tried} recorded now; {count_of(len(recorded.lengths), 'episode')}, "
        f"{sum(recorded.lengths.values())} frames in all; {count_of(recorded.num_failed, 'seed')} gave no "
        f"episode{again}",
        soft_wrap=True,
    )
    return INTERRUPTED if recorded.interruptions else 1 if recorded.faults else 0


def _replay(root: Path, plan: ReplayPlan, workers: int) -> None:
    """Replay demonstrations and print the result.

    Raises:
        typer.Exit: If one of them is not in the data set.
    """
    from evalkit.replay.jobs import UNREPRODUCED
    from evalkit.replay.jobs import replay as replay_jobs

    with progress_bar() as progress:
        bar = progress.add_task("demonstrations", total=len(plan.jobs))
        replayed = replay_jobs(root, plan.jobs, workers=workers, on_job=lambda job, result: progress.advance(bar))
    for kind, sentences in (
        ("warning", replayed.warnings),
        ("left out", replayed.reasons),
        ("interrupted", replayed.interruptions),
    ):
        for sentence in sentences:
            out.print(f"{kind}: {sentence}", soft_wrap=True)
    if plan.unreproduced:
        count = count_of(len(plan.unreproduced), "demonstration")
        out.print(f"left out: {count} that could not be reproduced before, see {root / UNREPRODUCED}", soft_wrap=True)
    again = "; run the same command again for what was interrupted" if replayed.interruptions else ""
    out.print(
        f"{root}: {replayed.written} of {len(plan.jobs)} replayed now; {count_of(len(replayed.lengths), 'episode')}, "
        f"{sum(replayed.lengths.values())} frames in all; {count_of(replayed.num_unreproduced, 'demonstration')} "
        f"cannot be reproduced{again}",
        soft_wrap=True,
    )
    if replayed.interruptions or replayed.reasons or plan.unreproduced:
        raise typer.Exit(INTERRUPTED if replayed.interruptions else 1)
