"""The nano table: equal compute, its caption, and its cells from records on disk."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from designs import BASE, DESIGNS, ROWS, Paths, Row, check_parameters, match_steps
from records import latency_ms, measured, predictions, training_of
from rendering import caption, recipe_differences, smallest_difference, table, write

from evalkit.score.results.names import METRICS as KNOWN
from xwam.families import model_named

ROOT = Path(__file__).resolve().parents[2]

OPTIONS = {
    "tasks": ["Lift", "Door"],
    "blind_task": "Lift",
    "setting": "wide",
    "episodes": 100,
    "predicted": 8,
    "seed": 505,
    "steps": {design.name: 100 for design in DESIGNS},
}
COSTS = {design.name: {"parameters": 5e6, "clips": 16.0, "flops": 2.5e10} for design in DESIGNS}


def row_named(title: str) -> Row:
    return next(row for row in ROWS if row.title == title)


def test_products_of_steps_and_cost_agree() -> None:
    flops = {BASE: 26.839e9, "uwm": 29.979e9, "dreamzero": 36.998e9}
    steps = match_steps(flops, 3500)
    assert steps == {BASE: 3500, "uwm": 3133, "dreamzero": 2539}
    for name, count in steps.items():
        assert count * flops[name] == pytest.approx(3500 * flops[BASE], rel=0.02)


def test_budgets_of_too_few_steps_are_refused() -> None:
    with pytest.raises(SystemExit, match="give more --steps"):
        match_steps({BASE: 1.0, "uwm": 1.4}, 2)


def test_designs_of_another_size_are_refused() -> None:
    with pytest.raises(SystemExit, match="uwm/nano has 106 parameters"):
        check_parameters({BASE: 100, "uwm": 106})


@pytest.mark.parametrize("rate", [0.5, 0.9])
def test_the_smallest_difference_has_the_stated_power(rate: float) -> None:
    low = rate - smallest_difference(rate, 100)
    successes = np.random.default_rng(0).binomial(100, [rate, low], (20_000, 2)) / 100
    pooled = successes.mean(axis=1)
    z = (successes[:, 0] - successes[:, 1]) / np.sqrt(np.maximum(pooled * (1 - pooled) / 50, 1e-12))
    assert np.mean(np.abs(z) > 1.96) == pytest.approx(0.8, abs=0.03)


def test_the_caption_states_the_smallest_difference() -> None:
    text = caption(OPTIONS)
    assert f"{100 * smallest_difference(0.5, 100):.0f} points below a row with 50 %" in text
    assert "one training" in text


def test_the_caption_and_the_page_say_how_recipes_differ() -> None:
    weights = "weight_action 3.0 (xwam, joint_attention, video_in_training), 1.0 (uwm, dreamzero)"
    starts = "start_frac 0.25 (xwam, joint_attention, video_in_training), 0.0 (uwm, dreamzero)"
    levels = "noise ans (xwam), decoupled (uwm, joint_attention, video_in_training), sync (dreamzero)"
    assert recipe_differences() == "; ".join((levels, starts, weights))
    assert recipe_differences() in caption(OPTIONS)
    page = " ".join((ROOT / "results/baselines/README.md").read_text().split())
    assert (
        "(`weight_action=3`, `start_frac=0.25`); UWM and DreamZero train with `weight_action=1` and `start_frac=0`"
        in page
    )


def test_rows_say_what_their_policies_do() -> None:
    for row in ROWS:
        model = model_named(f"{row.design}/nano")
        assert row.executed == model.execute_steps
        if row.predicts:
            assert row.stride == model.frame_stride
    assert len({row.folder for row in ROWS}) == len(ROWS)


def test_a_training_is_read_from_its_log(tmp_path: Path) -> None:
    lines = [
        {"step": 10, "kind": "train", "s_per_step": 3.0},
        {"step": 10, "kind": "validation"},
        {"step": 14, "kind": "train", "s_per_step": 0.5},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done, steps, minutes = training_of(tmp_path, 14)
    assert (done, steps) == (False, 14)  # no checkpoint yet
    assert minutes == pytest.approx(32 / 60)
    (tmp_path / "checkpoint.safetensors").touch()
    assert training_of(tmp_path, 14).done
    assert not training_of(tmp_path, 20).done


def records(run: Path, *outcomes: str, task: str = "Lift") -> None:
    run.mkdir(parents=True, exist_ok=True)
    timings = {"policy/encode": 0.1, "policy/denoise_actions": 0.3}
    lines = [{"task": task, "outcome": outcome, "num_chunks": 4, "timings_s": timings} for outcome in outcomes]
    with (run / "episodes.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def scores(rows: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    names = ["subject", "status", "task", "index", "chunk_idx", "frame_idx", "view", "metric", "value"]
    return pd.DataFrame(rows, columns=names)


def psnr(chunk_idx: int, frame_idx: int, value: float, subject: str = "policy") -> tuple[Any, ...]:
    return subject, "ok", "Lift", 0, chunk_idx, frame_idx, "agentview", "psnr_db/frame_mean", value


def test_designs_are_compared_from_the_same_frames() -> None:
    near, later = predictions(
        scores([psnr(0, 0, 20.0), psnr(0, 1, 18.0), psnr(1, 0, 22.0)]), row_named("X-WAM")
    ).values()
    assert (near[0], later[0]) == (21.0, 18.0)
    dreamzero = [psnr(0, 3, 20.0), psnr(0, 7, 18.0), psnr(1, 3, 99.0), psnr(4, 3, 22.0)]
    near, later = predictions(scores(dreamzero), row_named("DreamZero")).values()
    assert (near[0], later[0]) == (21.0, 18.0)  # its chunk 1 starts where X-WAM predicts nothing


def test_the_table_comes_from_the_records(tmp_path: Path) -> None:
    paths, row, blind = Paths(tmp_path), row_named("X-WAM"), row_named("X-WAM, blind")
    records(paths.run(row), *["success"] * 60, *["failure"] * 40)
    records(paths.run(blind), *["success"] * 4, *["failure"] * 95, "error")
    records(paths.latency(row, 0), "success", "failure")
    paths.scores(row).mkdir(parents=True)
    scores([psnr(0, 0, 20.0), psnr(0, 0, 19.0, "repeat_last_frame")]).to_parquet(paths.scores(row) / "scores.parquet")
    text = write(paths, COSTS, OPTIONS)
    line = next(line for line in text.splitlines() if line.startswith("| X-WAM |"))
    cells = [cell.strip() for cell in line.split("|")[2:-1]]
    assert cells[:4] == ["60 of 100 (50 to 70)", "-", "4 of 99 (1 to 10)", "yes"]
    assert "| floor: last frame repeated | 19.00 |" in text
    assert "| X-WAM | 20.00 | none |" in text
    assert "| 100.0 | 12.5 |" in text  # 0.4 s for 4 chunks, 8 executed steps
    stored = json.loads((tmp_path / "table.json").read_text())["rows"]
    assert [one["row"] for one in stored] == [one.title for one in ROWS]
    assert len(pd.read_csv(tmp_path / "table.csv")) == len(ROWS)


def test_rows_without_records_have_dashes(tmp_path: Path) -> None:
    found = [measured(Paths(tmp_path), row, COSTS, OPTIONS) for row in ROWS]
    lines = table(found, OPTIONS).splitlines()
    assert lines[2].startswith("| X-WAM | - | - | - | - |")
    assert latency_ms([]) is None


def test_the_metrics_of_the_nano_table_are_metrics() -> None:
    from records import METRICS

    assert set(METRICS.values()) <= set(KNOWN)
