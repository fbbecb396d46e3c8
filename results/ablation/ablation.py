"""The nano ablation: with and without a depth branch; asynchronous (ANS), decoupled and synchronous noise.

In: demonstrations, seeds, steps of a training. Out: one training for each variant and seed, one run in closed loop and
one scoring for each row of the table, `ablation.json` and `ablation.md`; run again, it does what is missing.
Read next: `xwam/training/recipes.py`, whose numbers it changes; table 4 of the paper, which it follows.

All trainings take the same steps on the same clips. All rows act in the same scenes and predict from the same frames of
demonstrations that no training has seen. Only the variant and its seed differ.
"""

from __future__ import annotations

import json
import math
import operator
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from rich.progress import track
from scipy import stats

VIDEO_STEPS = 10
FIRST_UNSEEN = 50_000
"""First seed of the demonstrations to predict; demonstrations for training must have smaller seeds."""

PREDICTED_KEY, CHANGES_KEY = "imagined", "set"
"""Keys of `ablation.json` for the options `predicted` and `changes`."""

METRICS = {"psnr_db": "psnr_db/frame_mean", "absrel": "absrel/gt_mask_10m"}
"""Names in the result, and names of the metrics in the scores."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table.

    Attributes:
        name: Name in the table.
        changes: Changes to the recipe.
        num_action_steps: Denoising steps of the actions; `VIDEO_STEPS` is synchronous.
    """

    name: str
    changes: tuple[str, ...] = ()
    num_action_steps: int = 1

    @property
    def variant(self) -> str:
        """Return the name of the training; rows may share one."""
        return "-".join(change.replace("=", "-") for change in self.changes) or "base"


ROWS = (
    Row(name="X-WAM: depth branch, ANS"),
    Row(name="no depth", changes=("depth=none",)),
    Row(name="decoupled, asynchronous", changes=("noise=decoupled",)),
    Row(name="decoupled, synchronous", changes=("noise=decoupled",), num_action_steps=VIDEO_STEPS),
    Row(name="sync, synchronous", changes=("noise=sync",), num_action_steps=VIDEO_STEPS),
)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One row with one seed.

    Attributes:
        row: Name of the row.
        seed: Seed of weights, clips and noise.
        num_success: Episodes that met the goal.
        num_episodes: Episodes that ended in success or failure.
        num_errors: Episodes that ended in an error.
        action_latency_ms: Median time from an observation to its actions; None without an action.
        psnr_db: Mean PSNR over frames, static views; None without scores.
        absrel: Mean AbsRel over frames, static views; None without depth.
    """

    row: str
    seed: int
    num_success: int
    num_episodes: int
    num_errors: int = 0
    action_latency_ms: float | None
    psnr_db: float | None
    absrel: float | None

    @property
    def success_percent(self) -> float | None:
        """Return the success rate in percent; None without episodes."""
        return 100 * self.num_success / self.num_episodes if self.num_episodes else None

    @property
    def counts(self) -> str:
        """Return how many episodes met the goal, of how many, and how many ended in an error."""
        errors = f" ({self.num_errors} errors)" if self.num_errors else ""
        return f"{self.num_success} of {self.num_episodes}{errors}"


def main(
    demos: Annotated[Path, typer.Argument(help="Data set with statistics.json.")],
    out: Annotated[Path, typer.Argument(help="Folder for trainings, runs and the table.")],
    changes: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Changes to the recipe of every training.")
    ] = None,
    tasks: Annotated[str, typer.Option(help="Tasks, separated by commas.")] = "Lift",
    setting: Annotated[str, typer.Option(help="Setting of the bench robosuite.")] = "wide",
    seeds: Annotated[str, typer.Option(help="Seeds of the trainings, separated by commas.")] = "0,1,2",
    episodes: Annotated[int, typer.Option(help="Episodes of each task in closed loop.")] = 40,
    predicted: Annotated[int, typer.Option(help="Demonstrations of each task to predict.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the scenes.")] = 404,
    threads: Annotated[int, typer.Option(help="CPU threads of a training.")] = 1,
) -> None:
    """Train, run, score and tabulate every variant; run again, it does what is missing.

    Example: `python results/ablation/ablation.py demos results/ablation --tasks Lift num_steps=1500`
    """
    name = f"imagined-{setting}-{tasks}-{predicted}"
    ground_truth, counts = out / name, [f"{task}={predicted}" for task in tasks.split(",")]
    run_quietly("evalkit.cli", "record", ground_truth, *counts, "--setting", setting, "--first-seed", FIRST_UNSEEN)
    scenes = ["--bench", "robosuite", "--setting", setting, "--tasks", tasks, "--episodes", episodes, "--seed", seed]
    options = {"demos": demos, "out": out, "tasks": tasks, "setting": setting, "seeds": seeds, "episodes": episodes}
    options |= {PREDICTED_KEY: predicted, "seed": seed, "threads": threads, CHANGES_KEY: changes or []}
    measured = []
    for training_seed, row in track([(int(one), row) for one in seeds.split(",") for row in ROWS], "rows"):
        weights = out / f"{row.variant}-{training_seed}"
        recipe = [*(changes or []), *row.changes, f"seed={training_seed}"]
        run_quietly("xwam.cli", "train", demos, weights, "--threads", threads, *recipe)
        folder = weights / f"{row.num_action_steps}-of-{VIDEO_STEPS}"
        run_and_score(row, weights, folder, scenes, ground_truth)
        measured.append(measure(row, training_seed, folder / "run", folder / name))
        write(out, measured, options)
    print((out / "ablation.md").read_text())


def run_and_score(row: Row, weights: Path, folder: Path, scenes: Sequence[object], ground_truth: Path) -> None:
    """Run a row in closed loop, and score its predictions on demonstrations that no training has seen."""
    policy = [f"policy.xwam.checkpoint={weights / 'checkpoint.safetensors'}"]
    policy += [f"policy.xwam.num_video_steps={VIDEO_STEPS}", f"policy.xwam.num_action_steps={row.num_action_steps}"]
    evalkit = "evalkit.cli"
    without_files = ["run.clips=false", "run.video=false"]
    run_quietly(evalkit, "run", "--policy", "xwam", *scenes, "--out", folder / "run", *policy, *without_files)
    scores = folder / ground_truth.name
    if not (scores / "scores.parquet").is_file():
        options = ["--policy", "xwam", "--actions", "own", "--lpips", "none", "--no-references", "--out", scores]
        run_quietly(evalkit, "score", "dataset", ground_truth, *options, *policy)


def run_quietly(module: str, *arguments: object) -> None:
    """Run one of our commands in a process of its own.

    Raises:
        SystemExit: With the end of its output, if it fails.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise SystemExit(f"{' '.join(command)} failed:\n{tail}")


def measure(row: Row, seed: int, run: Path, predictions: Path) -> Measured:
    """Return the result of one row, read from its run and its scores."""
    lines = [json.loads(line) for line in (run / "episodes.jsonl").read_text().splitlines()]
    records = [record for record in lines if record["outcome"] in ("success", "failure")]
    latencies_s = [
        (record["timings_s"]["policy/encode"] + record["timings_s"]["policy/denoise_actions"]) / record["num_chunks"]
        for record in records
        if record["num_chunks"]
    ]
    scores = pd.read_parquet(predictions / "scores.parquet")
    scores = scores[(scores["subject"] == "policy") & (scores["status"] == "ok")]
    means = {name: float(scores["value"][scores["metric"] == metric].mean()) for name, metric in METRICS.items()}
    return Measured(
        row=row.name,
        seed=seed,
        num_success=sum(record["outcome"] == "success" for record in records),
        num_episodes=len(records),
        num_errors=len(lines) - len(records),
        action_latency_ms=1e3 * float(np.median(latencies_s)) if latencies_s else None,
        psnr_db=None if math.isnan(means["psnr_db"]) else means["psnr_db"],
        absrel=None if math.isnan(means["absrel"]) else means["absrel"],
    )


def write(out: Path, measured: Sequence[Measured], options: Mapping[str, object]) -> None:
    """Write both result files."""
    data = {"asked": options, "measured": [asdict(one) for one in measured]}
    (out / "ablation.json").write_text(json.dumps(data, indent=1, default=str) + "\n")
    (out / "ablation.md").write_text(table(measured))


def table(measured: Sequence[Measured]) -> str:
    """Return the table: means over seeds with 95 % intervals of Student's t, and differences to the first row."""
    lines = [
        "| | success, % | of each seed | minus the first row | PSNR, dB | AbsRel | latency over the first row's |",
        "|---|---|---|---|---|---|---|",
    ]
    by_row: dict[str, dict[int, Measured]] = {}
    for one in measured:
        by_row.setdefault(one.row, {})[one.seed] = one
    base = by_row[ROWS[0].name]
    for name, seeds in by_row.items():
        shared = [seed for seed in seeds if seed in base]
        cells = [
            with_interval([one.success_percent for one in seeds.values()], 1),
            ", ".join(one.counts for one in seeds.values()),
            with_interval(
                [_against(operator.sub, seeds[seed].success_percent, base[seed].success_percent) for seed in shared], 1
            ),
            with_interval([one.psnr_db for one in seeds.values()], 2),
            with_interval([one.absrel for one in seeds.values()], 4),
            with_interval(
                [
                    _against(operator.truediv, seeds[seed].action_latency_ms, base[seed].action_latency_ms)
                    for seed in shared
                ],
                2,
            ),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _against(operation: Callable[[float, float], float], value: float | None, base: float | None) -> float | None:
    return None if value is None or base is None else operation(value, base)


def with_interval(values: Sequence[float | None], digits: int) -> str:
    """Return mean and 95 % interval of Student's t over seeds; a dash where a value is missing.

    Example:
        >>> with_interval([1.0, 2.0, 3.0], 2)
        '2.00 (-0.48 to 4.48)'
        >>> with_interval([1.0], 1), with_interval([None], 1)
        ('1.0', '-')
    """
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return "-"
    mean = float(np.mean(known))
    if len(known) == 1:
        return f"{mean:.{digits}f}"
    half = float(stats.t.ppf(0.975, len(known) - 1) * stats.sem(known))
    return f"{mean:.{digits}f} ({mean - half:.{digits}f} to {mean + half:.{digits}f})"


if __name__ == "__main__":
    typer.run(main)
