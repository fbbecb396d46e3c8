"""The verbs `record` and `replay`: data sets from a bench.

In: tasks and numbers of episodes, or recorded demonstrations. Out: a data set, in the layout of docs/data.md.
Read next: `evalkit/record/plan.py` and `evalkit/record/workers.py`; `evalkit/replay/jobs.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalkit.console import out, progress_bar
from evalkit.contracts.errors import BadConfig

if TYPE_CHECKING:
    from evalkit.record.plan import Configured, Job

Root = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder of the data set, new or to be extended.", show_default=False)
]
Workers = Annotated[int, typer.Option("--workers", metavar="N", help="Simulators in parallel.", min=1)]


def record(
    root: Root,
    wanted: Annotated[
        list[str],
        typer.Argument(
            metavar="TASK=EPISODES|KEY=VALUE",
            help="Tasks, each with the total number of its episodes; then Hydra overrides of the bench's and the "
            "policy's settings, for example `bench.robosuite.image_hw_px=[64,64]`.",
            show_default=False,
        ),
    ],
    bench: Annotated[str, typer.Option("--bench", metavar="NAME", help="Bench of the tasks.")] = "robosuite",
    setting: Annotated[
        str | None,
        typer.Option(
            "--setting", metavar="NAME", help="Setting of the bench. [default: its first setting]", show_default=False
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            "--policy",
            metavar="NAME",
            help="Policy to record; its failures are recorded too. [default: the bench's scripted expert, whose "
            "failures are not recorded]",
            show_default=False,
        ),
    ] = None,
    take_over: Annotated[
        int | None,
        typer.Option(
            "--take-over",
            metavar="N",
            help="With --policy: the expert takes over after at most N steps; record only the expert's steps.",
        ),
    ] = None,
    refuse: Annotated[
        str | None,
        typer.Option(
            "--refuse",
            metavar="TASK",
            help="Record refusals: the instruction is of TASK, which cannot be done in the scene, and the robot stands "
            "still. `anything` takes all such tasks.",
        ),
    ] = None,
    disturbances: Annotated[
        bool,
        typer.Option(
            "--disturbances/--no-disturbances", help="Disturb the expert: noise, drags, displaced starting poses."
        ),
    ] = True,
    max_steps: Annotated[
        int | None, typer.Option("--max-steps", metavar="N", help="Longest episode. [default: the bench's own limit]")
    ] = None,
    first_seed: Annotated[
        int, typer.Option("--first-seed", metavar="N", help="Seed of each task's first episode.")
    ] = 0,
    first_number: Annotated[
        int,
        typer.Option(
            "--first-number",
            metavar="N",
            help="First episode number per task. Use it to append a recording made with other settings.",
        ),
    ] = 0,
    workers: Workers = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what is missing; record nothing.")] = False,
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
    from evalkit.contracts.plugins import load_bench
    from evalkit.record.demonstrate import NO_DISTURBANCE, Disturbance
    from evalkit.record.plan import EXPERT, Actor, jobs

    tasks, overrides = _split(wanted)
    of_policy = [text for text in overrides if text.startswith("policy.")]
    actor_policy = None
    if policy is not None and policy != EXPERT:
        actor_policy = _configured_policy(policy, of_policy)
    elif of_policy:
        raise BadConfig(f"'{of_policy[0]}' has no effect: --policy must name the policy.")
    todo = jobs(
        root,
        _configured_bench(bench, [text for text in overrides if text not in of_policy]),
        tasks,
        setting=setting or load_bench(bench).settings[0],
        first_seed=first_seed,
        first_number=first_number,
        disturbance=Disturbance() if disturbances else NO_DISTURBANCE,
        refuse=refuse,
        actor=Actor(policy=actor_policy, max_steps=max_steps, take_over=take_over),
    )
    if dry_run:
        _list_missing(tasks, todo)
    else:
        _record(root, todo, workers)


def replay(
    root: Root,
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE|KEY=VALUE",
            help="HDF5 files of robomimic or RoboCasa, of one bench; then Hydra overrides of the bench's settings, for "
            "example `bench.robosuite.image_hw_px=[64,64]`.",
            show_default=False,
        ),
    ],
    bench: Annotated[
        str, typer.Option("--bench", metavar="NAME", help="Bench of the demonstrations.", show_default=False)
    ],
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            metavar="NAME",
            help="Task of the files. [default: the task that each file states]",
            show_default=False,
        ),
    ] = None,
    first_number: Annotated[
        int,
        typer.Option(
            "--first-number",
            metavar="N",
            help="Added to the demonstrations' numbers. Use it to append files whose numbers are already taken.",
        ),
    ] = 0,
    tolerance_mm: Annotated[
        float,
        typer.Option(
            "--end-effector-tolerance-mm",
            metavar="MM",
            help="Largest allowed distance of the end effector from its recorded position.",
        ),
    ] = 2.0,
    workers: Workers = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what is missing; replay nothing.")] = False,
) -> None:
    """Render recorded demonstrations again, with depth, as a data set.

    Every recorded state is set in the simulator and rendered; actions are not executed. The same command again replays
    only the missing demonstrations. A demonstration that cannot be reproduced is left out; the reason is printed and
    kept in `unreproduced/`. Exit with 1 if a demonstration was left out.

    Examples:

    - `evalkit replay data/robocasa OpenDrawer/demo.hdf5 --bench robocasa --workers 8`
    - `evalkit replay data/lift low_dim.hdf5 --bench robosuite --task Lift bench.robosuite.image_hw_px=[256,256]`
    """
    from evalkit.replay.jobs import jobs

    overrides = [text for text in files if "=" in text and not Path(text).exists()]
    paths = [Path(text) for text in files if text not in overrides]
    todo = jobs(
        root,
        paths,
        _configured_bench(bench, overrides),
        task=task,
        first_number=first_number,
        ee_tolerance_m=tolerance_mm / 1000,
    )
    if dry_run:
        for job in todo:
            out.print(f"missing  {job.key}  {job.task}: {job.name} of {job.path}")
        out.print(f"{len(todo)} demonstrations are missing in {root}.")
        return
    from evalkit.replay.jobs import replay

    with progress_bar() as progress:
        bar = progress.add_task("demonstrations", total=len(todo))
        replayed = replay(root, todo, workers=workers, on_job=lambda job, result: progress.advance(bar))
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


def _configured_bench(name: str, overrides: Sequence[str]) -> Configured:
    from evalkit.config import bind_bench
    from evalkit.contracts.overrides import overridden
    from evalkit.contracts.plugins import load_bench
    from evalkit.record.plan import Configured

    bound = bind_bench(load_bench(name), overrides)
    return Configured(name=name, config=bound.config, given=tuple(overridden(overrides, f"bench.{bound.name}.")))


def _configured_policy(name: str, overrides: Sequence[str]) -> Configured:
    from evalkit.config import bind_policy
    from evalkit.contracts.overrides import overridden
    from evalkit.contracts.plugins import load_policy
    from evalkit.record.plan import Configured

    bound = bind_policy(load_policy(name), overrides)
    return Configured(name=name, config=bound.config, given=tuple(overridden(overrides, f"policy.{bound.name}.")))


def _list_missing(tasks: dict[str, int], todo: Sequence[Job]) -> None:
    missing = Counter(dict.fromkeys(tasks, 0))
    for job in todo:
        missing[job.task] += len(job.numbers)
    for task, total in tasks.items():
        out.print(f"missing  {task}: {missing[task]} of {total} episodes")


def _record(root: Path, todo: Sequence[Job], workers: int) -> None:
    from evalkit.record.workers import record

    with progress_bar() as progress:
        bar = progress.add_task("episodes", total=sum(len(job.numbers) for job in todo))
        recorded = record(
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
