"""Options that several verbs share, and the plan that they describe.

In: the values of options. Out: a bench and a policy with their settings, and a plan.
Read next: `evalkit/config.py`, which applies overrides; `evalkit/store/plan.py`, which makes the plan.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalkit.console import progress_bar
from evalkit.contracts.errors import BadConfig, SpecMismatch

if TYPE_CHECKING:
    from evalkit.config import Config
    from evalkit.contracts.bound import BoundBench, BoundPolicy
    from evalkit.contracts.types import OnProgress
    from evalkit.run.settings import RunSettings
    from evalkit.store.plan import Plan

PolicyName = Annotated[
    str, typer.Option("--policy", metavar="NAME", help="Name of a policy, or module:attribute of a policy plugin.")
]
BenchName = Annotated[
    str, typer.Option("--bench", metavar="NAME", help="Name of a bench, or module:attribute of a bench plugin.")
]
Setting = Annotated[
    str | None,
    typer.Option(
        "--setting", metavar="NAME", help="Setting of the bench. [default: its first setting]", show_default=False
    ),
]
Tasks = Annotated[
    str,
    typer.Option(
        "--tasks",
        metavar="NAME,NAME",
        help="Tasks, separated by commas. [default: all tasks on which the policy can run]",
        show_default=False,
    ),
]
Episodes = Annotated[int, typer.Option("--episodes", metavar="N", help="Episodes per task.")]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Seed from which every episode's seed is derived.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Hydra overrides of settings, for example `run.workers=2`. `evalkit list --bench NAME --policy NAME` "
        "lists the keys.",
        show_default=False,
    ),
]

# ---- of `record` and `replay`

DataSetFolder = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder of the data set, new or to be extended.", show_default=False)
]
Workers = Annotated[int, typer.Option("--workers", metavar="N", help="Simulators in parallel.", min=1, max=1024)]
TasksToRecord = Annotated[
    list[str],
    typer.Argument(
        metavar="TASK=EPISODES|KEY=VALUE",
        help="Tasks, each with the total number of its episodes; then Hydra overrides of the bench's and the "
        "policy's settings, for example `bench.robosuite.image_hw_px=[64,64]`.",
        show_default=False,
    ),
]
BenchOfTasks = Annotated[str, typer.Option("--bench", metavar="NAME", help="Bench of the tasks.")]
PolicyToRecord = Annotated[
    str | None,
    typer.Option(
        "--policy",
        metavar="NAME",
        help="Policy to record; its failures are recorded too. [default: the bench's scripted expert, whose "
        "failures are not recorded]",
        show_default=False,
    ),
]
TakeOver = Annotated[
    int | None,
    typer.Option(
        "--take-over",
        metavar="N",
        help="With --policy: the expert takes over after at most N steps; record only the expert's steps.",
    ),
]
Refuse = Annotated[
    str | None,
    typer.Option(
        "--refuse",
        metavar="TASK",
        help="Record refusals: the instruction is of TASK, which cannot be done in the scene, and the robot stands "
        "still. `anything` takes all such tasks.",
    ),
]
Disturbances = Annotated[
    bool,
    typer.Option(
        "--disturbances/--no-disturbances", help="Disturb the expert: noise, drags, displaced starting poses."
    ),
]
MaxSteps = Annotated[
    int | None, typer.Option("--max-steps", metavar="N", help="Longest episode. [default: the bench's own limit]")
]
FirstSeed = Annotated[int, typer.Option("--first-seed", metavar="N", help="Seed of each task's first episode.")]
FirstNumber = Annotated[
    int,
    typer.Option(
        "--first-number",
        metavar="N",
        help="First episode number per task. Use it to append a recording made with other settings.",
    ),
]
DryRecord = Annotated[bool, typer.Option("--dry-run", help="List what is missing; record nothing.")]
DemoFiles = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE|FOLDER|KEY=VALUE",
        help="HDF5 files of robomimic or RoboCasa, or files and folders of RoboTwin's episodes, of one bench; then "
        "Hydra overrides of the bench's settings, for example `bench.robosuite.image_hw_px=[64,64]`.",
        show_default=False,
    ),
]
BenchOfDemos = Annotated[
    str, typer.Option("--bench", metavar="NAME", help="Bench of the demonstrations.", show_default=False)
]
TaskOfFiles = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="NAME",
        help="Task of the files. [default: the task that each file states]",
        show_default=False,
    ),
]
SettingOfFiles = Annotated[
    str | None,
    typer.Option(
        "--setting",
        metavar="NAME",
        help="RoboTwin: setting of the files. [default: the one that a folder's name holds]",
        show_default=False,
    ),
]
RgbOnly = Annotated[
    bool,
    typer.Option(
        "--rgb-only",
        help="RoboTwin: import RGB without depth. Without this flag, files that hold no depth are left out.",
    ),
]
DemoOffset = Annotated[
    int,
    typer.Option(
        "--first-number",
        metavar="N",
        help="Added to the demonstrations' numbers. Use it to append files whose numbers are already taken.",
    ),
]
ToleranceMm = Annotated[
    float,
    typer.Option(
        "--end-effector-tolerance-mm",
        metavar="MM",
        help="Largest allowed distance of the end effector from its recorded position.",
    ),
]
DryReplay = Annotated[bool, typer.Option("--dry-run", help="List what is missing; replay nothing.")]


@dataclass(frozen=True, kw_only=True)
class Call:
    """What a command line asks for.

    Attributes:
        bench: The bench with its settings.
        policy: The policy with its settings.
        run: How the plan is carried out.
        plan: The plan of the run.
        left_out: Why the policy cannot run on the other tasks of the bench, by task, where no task is named.
        stand_in: What a dry run replaces in the policy's settings, one sentence; empty for nothing.
    """

    bench: BoundBench
    policy: BoundPolicy
    run: RunSettings
    plan: Plan
    left_out: Mapping[str, str]
    stand_in: str = ""


def plan_call(
    policy: str,
    bench: str,
    setting: str | None,
    tasks: str,
    episodes: int,
    seed: int,
    overrides: Sequence[str] | None,
    *,
    dry_run: bool = False,
) -> Call:
    """Return what the shared options ask for; a dry run may be planned with other settings than a run refuses.

    Raises:
        EvalkitError: If a name is unknown, an override cannot be applied, or bench and policy do not fit.
    """
    from evalkit.store.plan import make_plan

    _check_words(bench, tasks, overrides or [])
    config, stand_in = bind(bench, policy, overrides), ""
    if dry_run:
        rehearsed, stand_in = config.policy.for_dry_run(config.bench.name)
        config = replace(config, policy=rehearsed)
    plan = make_plan(
        config.bench,
        config.policy,
        tasks=split_names("--tasks", tasks),
        setting=setting,
        num_episodes=episodes,
        seed=seed,
        max_steps=config.max_steps,
        execution=config.execution,
    )
    left_out = {} if tasks else _why_left_out(config, plan)
    return Call(
        bench=config.bench, policy=config.policy, run=config.run, plan=plan, left_out=left_out, stand_in=stand_in
    )


def _why_left_out(config: Config, plan: Plan) -> dict[str, str]:
    """Return why the policy cannot run on the tasks that a plan of all tasks does not hold, by task."""
    from evalkit.contracts.spec import check

    policy_spec = config.policy.for_bench(config.bench.name).spec()
    reasons = {}
    for task in config.bench.tasks:
        if task not in plan.tasks:
            try:
                spec = config.bench.env_spec(task=task, setting=plan.setting)
                check(spec, policy_spec, config.bench.state_settings)
            except SpecMismatch as mismatch:
                reasons[task] = str(mismatch)
    return reasons


def _check_words(bench: str, tasks: str, overrides: Sequence[str]) -> None:
    """Raise BadConfig for a task name among the overrides, which need an equals sign."""
    from evalkit.contracts.plugins import load_bench

    for word in overrides:
        if word in load_bench(bench).tasks:
            if tasks:
                names = ",".join([*(name for name in tasks.split(",") if name), word])
                raise BadConfig(f"Tasks are separated by commas without spaces: --tasks {names}.")
            raise BadConfig(f"'{word}' is a task; write --tasks {word}.")


def bind(bench: str, policy: str, overrides: Sequence[str] | None) -> Config:
    """Return all settings of a bench and a policy; raises as `plan_call` does."""
    from evalkit.config import load_config
    from evalkit.contracts import plugins

    config = load_config(plugins.load_bench(bench), plugins.load_policy(policy), overrides or [])
    return replace(
        config, bench=replace(config.bench, loaded_as=bench), policy=replace(config.policy, loaded_as=policy)
    )


def split_names(option: str, text: str) -> list[str]:
    """Return the names in a comma-separated list.

    Raises:
        BadConfig: If one of them is empty.

    Example:
        >>> split_names("--tasks", "Lift, Door")
        ['Lift', 'Door']
    """
    names = [name.strip() for name in text.split(",")] if text else []
    if "" in names:
        raise BadConfig(f"{option} takes names separated by commas, got '{text}'.")
    return names


@contextmanager
def counted(label: str) -> Iterator[OnProgress]:
    """Show a progress bar; yield the function that moves it."""
    with progress_bar() as progress:
        bar = progress.add_task(label, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)
