"""What the nano weights can do: success in closed loop, success after settling, predictions against the floor.

In: the shipped weights. Out: runs with scores, `nano.json` and `nano.md`; run again, it does what is missing.
Read next: `README.md`, which discusses the numbers.

Nothing about the weights or the settings was chosen on the scenes of seed 31.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer
from rich.progress import track

TASKS = ("Lift", "Door", "PickPlaceCan", "Stack")

SUCCESS_ROWS: Mapping[str, tuple[str, ...]] = {
    "nano": (),
    "control: instruction of another task": ("bench.robosuite.shuffle_instructions=true",),
    "control: random weights": ("policy.xwam.checkpoint=random-nano",),
}
"""Rows of the success table, and their settings."""

NETWORK_ALONE, AS_SHIPPED, FLOOR = "network alone", "with measured depth and pixel decoder", "last frame repeated"

PREDICTION_ROWS: Mapping[str, tuple[str, ...]] = {
    NETWORK_ALONE: ("policy.xwam.camera_depth=false", "policy.xwam.warp=false"),
    AS_SHIPPED: (),
}
"""Rows of the prediction tables, and their settings. All rows act in the same scenes with the same actions."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the prediction tables.

    Attributes:
        title: Its head.
        metric: Name of the metric in the scores.
        digits: Decimals shown.
        higher_is_better: Whether a larger value is better.
    """

    title: str
    metric: str
    digits: int
    higher_is_better: bool = False


COLUMNS = (
    Column(title="PSNR, dB", metric="psnr_db/frame_mean", digits=1, higher_is_better=True),
    Column(title="SSIM", metric="ssim/gauss11", digits=3, higher_is_better=True),
    Column(title="LPIPS", metric="lpips/alex_v0.1", digits=3),
    Column(title="AbsRel", metric="absrel/gt_mask_10m", digits=3),
    Column(title="depth change, m", metric="depth_change_m/gt_mask_10m", digits=4),
    Column(title="Chamfer, m", metric="chamfer_m/l1_half_10m", digits=4),
    Column(title="position, mm", metric="ee_position_mm/euclidean", digits=1),
    Column(title="rotation, deg", metric="ee_rotation_deg/geodesic", digits=2),
)


@dataclass(frozen=True, kw_only=True)
class Success:
    """Successes of one row in one task.

    Attributes:
        row: Name of the row.
        task: The task.
        num_success: Episodes that met the goal, as robosuite counts.
        num_standing: Successes whose goal still held after settling.
        num_episodes: Episodes that ended in success or failure.
    """

    row: str
    task: str
    num_success: int
    num_standing: int
    num_episodes: int


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """Mean scores of one row at one horizon.

    Attributes:
        executed: Executed actions of each chunk.
        horizon_s: Time from the current frame to the predicted one.
        row: Name of the row.
        means: Mean over frames and views, by the title of the column; None where nothing was scored.
    """

    executed: int
    horizon_s: float
    row: str
    means: Mapping[str, float | None]


def main(
    out: Annotated[Path, typer.Argument(help="Folder for runs and tables.")],
    seed: Annotated[int, typer.Option(help="Seed of the scenes.")] = 31,
    episodes: Annotated[int, typer.Option(help="Episodes of each task for the success of nano.")] = 100,
    controls: Annotated[int, typer.Option(help="Episodes of each task for the controls; 0 for no controls.")] = 0,
    predicted: Annotated[int, typer.Option(help="Episodes of each task for predictions.")] = 3,
    lpips_weights: Annotated[str | None, typer.Option(help="Folder of the LPIPS weights.")] = None,
) -> None:
    """Run, score and tabulate; run again, it does what is missing.

    Example: `python results/nano/measure.py results/runs/nano --seed 31`
    """
    lpips = [] if lpips_weights is None else ["--lpips-weights", lpips_weights]
    successes, predictions = [], []
    for row, settings in track(SUCCESS_ROWS.items(), "success"):
        count = controls if row.startswith("control") else episodes
        if count == 0:
            continue
        folder = out / f"success-{_file_name(row)}"
        _run(folder, "wide", seed, count, [*settings, "run.clips=false", "run.video=false"])
        successes += successes_of(row, folder)
    for executed in (8, 32):
        for row, settings in track(PREDICTION_ROWS.items(), f"predictions, {executed} actions executed"):
            folder = out / f"predictions-{executed}-{_file_name(row)}"
            settings = (*settings, f"policy.xwam.execute_steps={executed}", "run.video=false", "run.settle_steps=0")
            _run(folder, "default", seed, predicted, settings)
            if not (folder / "scores.parquet").is_file():
                _call("score", "run", folder, *lpips)
            predictions += predictions_of(row, executed, folder)
    options = {"seed": seed, "episodes": episodes, "controls": controls, "predicted": predicted}
    tables = {"options": options, "success": list(map(asdict, successes)), "predicted": list(map(asdict, predictions))}
    (out / "nano.json").write_text(json.dumps(tables, indent=1) + "\n")
    (out / "nano.md").write_text(success_table(successes) + "\n" + prediction_tables(predictions))
    print((out / "nano.md").read_text())


def successes_of(row: str, folder: Path) -> list[Success]:
    """Return the successes of one run by task."""
    lines = [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]
    successes = []
    for task in TASKS:
        records = [line for line in lines if line["task"] == task and line["outcome"] in ("success", "failure")]
        solved = [record for record in records if record["outcome"] == "success"]
        standing = sum(bool(record["success_after_settling"]) for record in solved)
        successes.append(
            Success(row=row, task=task, num_success=len(solved), num_standing=standing, num_episodes=len(records))
        )
    return successes


def predictions_of(row: str, executed: int, folder: Path) -> list[Predicted]:
    """Return the mean scores of one run by horizon; with the shipped row also those of the floor."""
    scores = pd.read_parquet(folder / "scores.parquet")
    scores = scores[(scores["status"] == "ok") & (scores["frame_idx"] >= 0)]
    subjects = {"policy": row} | ({"repeat_last_frame": FLOOR} if row == AS_SHIPPED else {})
    means = scores.groupby(["subject", "frame_idx", "metric"], observed=True)["value"].mean()
    return [
        Predicted(
            executed=executed,
            horizon_s=round(0.2 * (int(frame_idx) + 1), 1),
            row=name,
            means={column.title: means.get((subject, frame_idx, column.metric)) for column in COLUMNS},
        )
        for frame_idx in sorted(scores["frame_idx"].unique())
        for subject, name in subjects.items()
    ]


def success_table(successes: Sequence[Success]) -> str:
    """Return the success table; cells hold successes, and in parentheses those that hold after settling."""
    lines = [f"| | {' | '.join(TASKS)} |", f"|---|{'---|' * len(TASKS)}"]
    for row in SUCCESS_ROWS:
        cells = [f"{one.num_success} of {one.num_episodes} ({one.num_standing})" for one in successes if one.row == row]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def prediction_tables(predictions: Sequence[Predicted]) -> str:
    """Return one table for each number of executed actions; bold beats the floor of the same horizon."""
    lines = []
    for executed in sorted({one.executed for one in predictions}):
        lines += ["", f"{executed} of 32 actions executed:", ""]
        lines += [
            f"| ahead | | {' | '.join(column.title for column in COLUMNS)} |",
            f"|---|---|{'---|' * len(COLUMNS)}",
        ]
        table = [one for one in predictions if one.executed == executed]
        for horizon_s in sorted({one.horizon_s for one in table}):
            rows = {one.row: one.means for one in table if one.horizon_s == horizon_s}
            for name in (NETWORK_ALONE, AS_SHIPPED, FLOOR):
                cells = [_cell(column, rows[name], rows[FLOOR]) for column in COLUMNS]
                lines.append(f"| {horizon_s} s | {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(column: Column, means: Mapping[str, float | None], floor: Mapping[str, float | None]) -> str:
    value, reference = means[column.title], floor[column.title]
    if value is None:
        return "-"
    text = f"{value:.{column.digits}f}"
    better = reference is not None and (value > reference if column.higher_is_better else value < reference)
    return f"**{text}**" if better else text


def _run(folder: Path, setting: str, seed: int, episodes: int, settings: Sequence[str]) -> None:
    scenes = ["--bench", "robosuite", "--setting", setting, "--tasks", ",".join(TASKS)]
    _call("run", "--policy", "xwam", *scenes, "--episodes", episodes, "--seed", seed, "--out", folder, *settings)


def _call(*arguments: object) -> None:
    """Run an evalkit command in a process of its own.

    Raises:
        SystemExit: With the end of its output, if it fails.
    """
    command = [sys.executable, "-m", "evalkit.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise SystemExit(f"{' '.join(command)} failed:\n{tail}")


def _file_name(row: str) -> str:
    return row.replace(": ", "-").replace(" ", "-")


if __name__ == "__main__":
    typer.run(main)
