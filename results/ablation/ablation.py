"""The nano ablation: depth branch or none; ANS, decoupled or synchronous noise. `python -m baselines.ablation`.

In: demonstrations, seeds, steps of a training. Out: one training for each variant and seed, one run in closed loop and
one scoring for each row of the table, `ablation.json` and `ablation.md`; run again, it does what is missing.
Read next: `xwam/training/recipes.py`, whose numbers it changes; table 4 of the paper, which it follows.

All trainings take the same steps on the same clips; all rows act in the same scenes, and imagine from the same frames
of demonstrations that none has learnt from, so that what differs is the variant and its seed.
"""

from __future__ import annotations

import argparse
import json
import math
import operator
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.progress import track
from scipy import stats

VIDEO_STEPS = 10
FIRST_UNSEEN = 50_000
"""Seed from which what is imagined is recorded; whoever records demonstrations to learn from stays below."""

METRICS = {"psnr_db": "psnr_db/frame_mean", "absrel": "absrel/gt_mask"}
"""Names in the result, and those of the metrics in the scores."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table.

    Attributes:
        name: Shown.
        changes: To the recipe.
        num_action_steps: Passes until the actions are clean; `VIDEO_STEPS` is synchronous.
    """

    name: str
    changes: tuple[str, ...] = ()
    num_action_steps: int = 1

    @property
    def variant(self) -> str:
        """Return the name of the training, which rows may share."""
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
        row: Its name.
        seed: Of weights, clips and noise.
        num_success: Episodes solved.
        num_episodes: Episodes that ended in success or failure.
        num_errors: Episodes that ended otherwise.
        action_latency_ms: Median time from an observation to its actions; None if nobody acted.
        psnr_db: Mean over frames, static views; None where nothing was scored.
        absrel: Likewise; None without depth.
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
        """Return how many episodes were solved, of how many, and how many broke."""
        errors = f" ({self.num_errors} errors)" if self.num_errors else ""
        return f"{self.num_success} of {self.num_episodes}{errors}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, run, score and tabulate what is missing; return 0."""
    parser = argparse.ArgumentParser(
        prog="python -m baselines.ablation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Example: python -m baselines.ablation demos results/ablation --tasks Lift --set num_steps=1500",
    )
    parser.add_argument("demos", type=Path, help="data set with statistics.json")
    parser.add_argument("out", type=Path, help="folder of trainings, runs and the table")
    parser.add_argument("--tasks", default="Lift", help="commas between them")
    parser.add_argument("--setting", default="wide", help="of the bench robosuite")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one training of each variant for each")
    parser.add_argument("--episodes", type=int, default=40, help="in closed loop, of each task")
    parser.add_argument("--imagined", type=int, default=5, help="demonstrations of each task to imagine")
    parser.add_argument("--seed", type=int, default=404, help="of the scenes")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a training")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="changes to the recipe of all")
    options = parser.parse_args(arguments)
    bench = ["--bench", "robosuite", "--setting", options.setting, "--tasks", options.tasks]
    imagined = f"imagined-{options.setting}-{options.tasks}-{options.imagined}"
    truth, wanted = options.out / imagined, [f"{task}={options.imagined}" for task in options.tasks.split(",")]
    unseen = ["--setting", options.setting, "--first-seed", FIRST_UNSEEN]
    run_quietly("baselines.scripted.record", truth, *wanted, *unseen)
    found = []
    for seed, row in track([(seed, row) for seed in options.seeds for row in ROWS], "rows"):
        weights = options.out / f"{row.variant}-{seed}"
        changes = [*options.set, *row.changes, f"seed={seed}"]
        run_quietly("xwam.cli", "train", options.demos, weights, "--threads", options.threads, "--set", *changes)
        policy = [f"policy.xwam.checkpoint={weights / 'checkpoint.safetensors'}"]
        policy += [f"policy.xwam.num_video_steps={VIDEO_STEPS}", f"policy.xwam.num_action_steps={row.num_action_steps}"]
        folder = weights / f"{row.num_action_steps}-of-{VIDEO_STEPS}"
        plan = [*bench, "--episodes", str(options.episodes), "--seed", str(options.seed)]
        evalkit(
            "run", "--policy", "xwam", *plan, "--out", folder / "run", *policy, "run.clips=false", "run.video=false"
        )
        if not (folder / imagined / "scores.parquet").is_file():
            asked = ["--dataset", truth, "--policy", "xwam", "--actions", "own", "--lpips", "none", "--no-references"]
            evalkit("score", *asked, "--out", folder / imagined, *policy)
        found.append(measure(row, seed, folder / "run", folder / imagined))
        write(options.out, found, options)
    print((options.out / "ablation.md").read_text())
    return 0


def evalkit(*arguments: object) -> None:
    """Run a verb of evalkit."""
    run_quietly("evalkit.cli.main", *arguments)


def run_quietly(module: str, *arguments: object) -> None:
    """Run a command of ours in a process of its own.

    Raises:
        SystemExit: With the end of what it printed, if it fails.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise SystemExit(f"{' '.join(command)} failed:\n{said}")


def measure(row: Row, seed: int, run: Path, imagined: Path) -> Measured:
    """Return what the folders of a row's run and scores say."""
    lines = [json.loads(line) for line in (run / "episodes.jsonl").read_text().splitlines()]
    records = [record for record in lines if record["outcome"] in ("success", "failure")]
    latencies_s = [
        (record["timings_s"]["policy/encode"] + record["timings_s"]["policy/denoise_actions"]) / record["num_chunks"]
        for record in records
        if record["num_chunks"]
    ]
    scores = pd.read_parquet(imagined / "scores.parquet")
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


def write(out: Path, found: Sequence[Measured], options: argparse.Namespace) -> None:
    """Write both result files."""
    asked = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    data = {"asked": asked, "measured": [asdict(one) for one in found]}
    (out / "ablation.json").write_text(json.dumps(data, indent=1) + "\n")
    (out / "ablation.md").write_text(table(found))


def table(found: Sequence[Measured]) -> str:
    """Return the table: means over seeds with 95 % intervals of Student's t, and differences to the first row."""
    lines = [
        "| | success, % | of each seed | minus the first row | PSNR, dB | AbsRel | latency over the first row's |",
        "|---|---|---|---|---|---|---|",
    ]
    by_row: dict[str, dict[int, Measured]] = {}
    for one in found:
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
    sys.exit(main())
