"""The nano table: X-WAM, UWM, DreamZero and both designs with two streams on the same data with the same compute.

In: demonstrations. Out: one training for each design and one for its blind control, one run in closed loop and one
scoring for each row, `table.json`, `table.csv` and `table.md`; run again, it does what is missing.
Read next: `designs.py`, the rows; `flops.py`, what a training step costs; `rendering.py`, which writes the table;
`README.md`, what the numbers can say.

All rows act in the same scenes and predict from the same frames of demonstrations that no training has seen. A blind
control is the same design, trained and run with grey images.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from designs import DESIGNS, LATENCY_ROUNDS, ROWS, Design, Paths, Row, check_parameters, match_steps
from records import training_of
from rendering import write

FIRST_UNSEEN = 50_000
"""First seed of the demonstrations to predict; demonstrations for training must have smaller seeds."""

RECIPE = ("precision=bf16", "compile=true", "validate_every=0", "imagined_clips=0", "save_every=250")

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

Call = Callable[..., str]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is asked for.

    Attributes:
        demos: Demonstrations.
        paths: Where results lie.
        tasks: Tasks in closed loop.
        blind_task: Task of the blind controls.
        setting: Setting of the bench.
        base_steps: Training steps of X-WAM; the others follow from their cost.
        episodes: Episodes of each task.
        predicted: Demonstrations of each task to predict.
        seed: Seed of the scenes.
        training_seed: Seed of weights, clips and noise.
        steps: Training steps by design.
    """

    demos: Path
    paths: Paths
    tasks: tuple[str, ...]
    blind_task: str
    setting: str
    base_steps: int
    episodes: int
    predicted: int
    seed: int
    training_seed: int
    steps: dict[str, int]


def main(
    demos: Annotated[Path, typer.Argument(help="Data set with statistics.json.")],
    out: Annotated[Path, typer.Argument(help="Folder for trainings, runs and the table.")],
    steps: Annotated[int, typer.Option(help="Training steps of X-WAM.")] = 3500,
    designs: Annotated[str, typer.Option(help="Designs to do now, separated by commas. [default: all]")] = "",
    tasks: Annotated[str, typer.Option(help="Tasks, separated by commas.")] = "Lift,Door,PickPlaceCan",
    blind_task: Annotated[str, typer.Option(help="Task of the blind controls.")] = "Lift",
    setting: Annotated[str, typer.Option(help="Setting of the bench robosuite.")] = "wide",
    episodes: Annotated[int, typer.Option(help="Episodes of each task in closed loop.")] = 100,
    predicted: Annotated[int, typer.Option(help="Demonstrations of each task to predict.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the scenes.")] = 505,
    training_seed: Annotated[int, typer.Option(help="Seed of the trainings.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the commands; run none.")] = False,
) -> None:
    """Train, run, score and tabulate every design and its blind control; run again, it does what is missing.

    Example: `python results/baselines/table.py demos out --steps 3500`
    """
    chosen = [design for design in DESIGNS if not designs or design.name in designs.split(",")]
    call: Call = partial(show, sys.stdout.write) if dry_run else run_quietly
    paths = Paths(out)
    if not dry_run:
        out.mkdir(parents=True, exist_ok=True)
    costs = {design.name: cost_of(design, demos, paths, dry_run=dry_run) for design in DESIGNS}
    check_parameters({name: cost["parameters"] for name, cost in costs.items()})
    plan = Plan(
        demos=demos,
        paths=paths,
        tasks=tuple(tasks.split(",")),
        blind_task=blind_task,
        setting=setting,
        base_steps=steps,
        episodes=episodes,
        predicted=predicted,
        seed=seed,
        training_seed=training_seed,
        steps=match_steps({name: cost["flops"] for name, cost in costs.items()}, steps),
    )
    print("\n".join(f"{name}: {count} steps" for name, count in plan.steps.items()))
    counts = [f"{task}={predicted}" for task in plan.tasks]
    unseen = ["--setting", setting, "--first-seed", FIRST_UNSEEN, "--no-disturbances"]
    call("evalkit.cli", "record", paths.unseen, *counts, *unseen)
    work = [partial(do, call, plan, design, blind=blind) for design in chosen for blind in (False, True)]
    with ThreadPoolExecutor(1 if dry_run else 2) as pool:
        for done in [pool.submit(one) for one in work]:
            done.result()
    for index in range(LATENCY_ROUNDS):
        for row in rows_of(chosen, blind=False):
            measure_latency(call, plan, row, index)
    if not dry_run:
        options = {"tasks": plan.tasks, "blind_task": blind_task, "setting": setting, "episodes": episodes}
        options |= {"predicted": predicted, "seed": seed, "training_seed": training_seed, "steps": plan.steps}
        print(write(paths, costs, options))


def rows_of(designs: Sequence[Design], *, blind: bool) -> list[Row]:
    """Return the rows of some designs, or their blind controls."""
    return [row for row in ROWS if row.design in [design.name for design in designs] and row.blind == blind]


def cost_of(design: Design, demos: Path, paths: Paths, *, dry_run: bool) -> dict[str, float]:
    """Return parameters, clips and operations of a training step; counted once."""
    path = paths.cost(design.name)
    if not path.is_file():
        found = run_python(str(Path(__file__).with_name("flops.py")), demos, design.model).splitlines()[-1]
        if dry_run:
            return json.loads(found)  # type: ignore[no-any-return]
        path.write_text(found + "\n")
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def do(call: Call, plan: Plan, design: Design, *, blind: bool) -> None:
    """Train a design, run its rows and score what they predict."""
    folder, steps = plan.paths.training(design.name, blind=blind), plan.steps[design.name]
    if not training_of(folder, steps).done:
        recipe = [*RECIPE, f"num_steps={steps}", f"warmup_steps={min(200, steps)}", f"seed={plan.training_seed}"]
        recipe += [*design.recipe, *(["blind=true"] if blind else [])]
        call("xwam.cli", "train", plan.demos, folder, "--model", design.model, "--threads", 1, *recipe)
    for row in rows_of([design], blind=blind):
        tasks = (plan.blind_task,) if blind else plan.tasks
        out = plan.paths.run(row)
        call("evalkit.cli", "run", *scenes(plan, row, tasks, plan.episodes), "--out", out, *settings(plan, row))
        if not blind and row.predicts:
            score(call, plan, row)


def score(call: Call, plan: Plan, row: Row) -> None:
    """Score the predictions of a row on demonstrations that no training has seen."""
    folder = plan.paths.scores(row)
    if (folder / "scores.parquet").is_file():
        return
    controls = ["--controls", "other_branch", "--branches", plan.paths.branches] if row.takes_actions else []
    options = ["--actions", "both" if row.takes_actions else "own", "--lpips", "none", "--workers", 1]
    policy = ["--policy", row.policy, "--out", folder, *weights(plan, row)]
    call("evalkit.cli", "score", "dataset", plan.paths.unseen, *options, *controls, *policy)


def measure_latency(call: Call, plan: Plan, row: Row, index: int) -> None:
    """Run two episodes of a row with nothing else at work."""
    out, shortened = plan.paths.latency(row, index), ["bench.max_steps=160"]
    run = [*scenes(plan, row, (plan.blind_task,), 2), "--out", out, *settings(plan, row), *shortened]
    call("evalkit.cli", "run", *run)


def scenes(plan: Plan, row: Row, tasks: Sequence[str], episodes: int) -> list[object]:
    """Return the options of a run that name policy and scenes."""
    bench = ["--policy", row.policy, "--bench", "robosuite", "--setting", plan.setting, "--tasks", ",".join(tasks)]
    return [*bench, "--episodes", episodes, "--seed", plan.seed]


def settings(plan: Plan, row: Row) -> list[str]:
    """Return the settings of a run without clips and videos."""
    return [*weights(plan, row), "run.clips=false", "run.video=false"]


def weights(plan: Plan, row: Row) -> list[str]:
    """Return the settings of a policy: its checkpoint, and those of its row."""
    checkpoint = plan.paths.training(row.design, blind=row.blind) / "checkpoint.safetensors"
    return [f"policy.{row.policy}.{change}" for change in (f"checkpoint={checkpoint}", *row.settings)]


def show(say: Callable[[str], object], module: str, *arguments: object) -> str:
    """Print a command in place of running it."""
    say(" ".join(["python -m", module, *map(str, arguments)]) + "\n")
    return ""


def run_quietly(module: str, *arguments: object) -> str:
    """Run one of our commands, see `run_python`."""
    return run_python("-m", module, *arguments)


def run_python(*arguments: object) -> str:
    """Run Python in a process of its own with one thread, and return what it printed.

    Raises:
        SystemExit: With the end of its output, if it fails.
    """
    command = [sys.executable, *map(str, arguments)]
    print(" ".join(command[1:]), flush=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | ONE_THREAD)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise SystemExit(f"{' '.join(command)} failed:\n{tail}")
    return done.stdout


if __name__ == "__main__":
    typer.run(main)
