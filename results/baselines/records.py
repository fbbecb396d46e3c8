"""What the folders of the nano table hold: training cost, success, predictions, action dependence, latency.

In: folders of trainings, runs and scores. Out: one dictionary of numbers for each row.
Read next: `rendering.py`, which makes the table of them.

Nothing here trains or runs. What has no record yet is 0 of 0, None or absent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from designs import BASE, LATENCY_ROUNDS, Paths, Row

from evalkit.report.dependence import dependence_rows
from evalkit.report.stats import Interval, mean_interval

HORIZONS_S = (0.2, 0.4)
CONTROL_HZ = 20
SHARED_STARTS = 32
"""All rows are compared on predictions that start at multiples of this many control steps."""

METRICS = {"psnr_db": "psnr_db/frame_mean", "absrel": "absrel/gt_mask_10m"}
FLOOR = "repeat_last_frame"

Value = tuple[float, Interval | None]


class Training(NamedTuple):
    """What a training took.

    Attributes:
        done: Whether it is complete.
        steps: Steps taken.
        minutes: Wall time of its steps.
    """

    done: bool
    steps: int
    minutes: float


def training_of(folder: Path, num_steps: int) -> Training:
    """Return how far a training is, read from its log."""
    path = folder / "log.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    seconds, before = 0.0, 0
    for line in (line for line in lines if line["kind"] == "train"):
        seconds += line["s_per_step"] * (line["step"] - before)
        before = line["step"]
    return Training((folder / "checkpoint.safetensors").is_file() and before >= num_steps, before, seconds / 60)


def successes(run: Path, task: str) -> tuple[int, int]:
    """Return successes and valid episodes of a task."""
    records = [record for record in _records(run) if record["task"] == task]
    valid = [record for record in records if record["outcome"] in ("success", "failure")]
    return sum(record["outcome"] == "success" for record in valid), len(valid)


def latency_ms(runs: Sequence[Path]) -> float | None:
    """Return the median time over episodes from an observation to its chunk of actions; None without records."""
    found = [
        1e3
        * sum(record["timings_s"][f"policy/{part}"] for part in ("encode", "denoise_actions"))
        / record["num_chunks"]
        for run in runs
        for record in _records(run)
        if record["num_chunks"]
    ]
    return float(np.median(found)) if found else None


def _records(run: Path) -> list[dict[str, Any]]:
    path = run / "episodes.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def predictions(scores: pd.DataFrame, row: Row, subject: str = "policy") -> dict[str, Value]:
    """Return mean and interval of each metric at each shared horizon, over the shared starts; by `metric@horizon`."""
    kept = scores[(scores["subject"] == subject) & (scores["status"] == "ok")]
    kept = kept[kept["chunk_idx"] * row.chunk % SHARED_STARTS == 0]
    found = {}
    for name, metric in METRICS.items():
        for horizon_s in HORIZONS_S:
            frame_idx = round(horizon_s * CONTROL_HZ) // row.stride - 1
            values = kept[(kept["metric"] == metric) & (kept["frame_idx"] == frame_idx)]
            if values.empty:
                continue
            by = values.groupby(["task", "index"], observed=True)["value"].agg(["sum", "count"]).reset_index()
            sums, counts, tasks = (by[column].to_numpy() for column in ("sum", "count", "task"))
            bounds = mean_interval(sums, counts, tasks, low=0.0)
            found[f"{name}@{horizon_s}"] = (float(values["value"].mean()), bounds)
    return found


def dependence(scores: pd.DataFrame) -> dict[str, Value]:
    """Return how far predictions for other actions part, and along the true difference; RGB, all horizons."""
    for row in dependence_rows(scores):
        wanted = (row.subject, row.branch, row.quantity, row.horizon)
        if wanted == ("policy_given_actions", "other_branch", "apart_levels", "all") and row.dependence is not None:
            assert row.directed is not None
            return {
                "dependence": (row.dependence, row.dependence_interval),
                "directed": (row.directed, row.directed_interval),
            }
    return {}


def measured(
    paths: Paths, row: Row, costs: Mapping[str, Mapping[str, float]], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return all numbers of one row, read from its folders."""
    cost, steps = costs[row.design], options["steps"][row.design]
    training = training_of(paths.training(row.design, blind=row.blind), steps)
    tasks = [options["blind_task"]] if row.blind else options["tasks"]
    chunk_ms = None if row.blind else latency_ms([paths.latency(row, index) for index in range(LATENCY_ROUNDS)])
    result: dict[str, Any] = {
        "row": row.title,
        "design": row.design,
        "blind": row.blind,
        "settings": list(row.settings),
        "parameters": cost["parameters"],
        "steps": training.steps,
        "clips": cost["clips"],
        "training_pflop": training.steps * cost["flops"] / 1e15,
        "training_minutes": training.minutes,
        "trained": training.done,
        "success": {task: successes(paths.run(row), task) for task in tasks},
        "chunk_ms": chunk_ms,
        "step_ms": None if chunk_ms is None else chunk_ms / row.executed,
        "predicted": {},
    }
    file = paths.scores(row) / "scores.parquet"
    if not row.blind and row.predicts and file.is_file():
        scores = pd.read_parquet(file)
        result["predicted"] = predictions(scores, row) | dependence(scores)
        if row.design == BASE:
            result["floor"] = predictions(scores, row, FLOOR)
    return result
