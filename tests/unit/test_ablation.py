"""The ablation's table, against intervals and means by hand."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from evalkit.score.results.names import METRICS as KNOWN

SCRIPT = Path(__file__).resolve().parents[2] / "results" / "ablation" / "ablation.py"


def load() -> Any:
    """Return the script as a module; it lies outside the packages, next to its numbers."""
    spec = importlib.util.spec_from_file_location("ablation", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["ablation"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


ABLATION = load()
METRICS, ROWS, Measured = ABLATION.METRICS, ABLATION.ROWS, ABLATION.Measured
measure, table, with_interval = ABLATION.measure, ABLATION.table, ABLATION.with_interval

BASE = Measured(
    row=ROWS[0].name, seed=0, num_success=8, num_episodes=10, action_latency_ms=20.0, psnr_db=20.0, absrel=0.02
)


def test_differences_are_taken_seed_by_seed() -> None:
    other = replace(BASE, row=ROWS[1].name, num_success=6, absrel=None, action_latency_ms=60.0)
    found = [BASE, other, replace(BASE, seed=1, num_success=4), replace(other, seed=1, num_success=3)]
    cells = [cell.strip() for cell in table(found).splitlines()[3].split("|")[1:-1]]
    half = 12.706 * 15  # of Student with one degree of freedom, times the standard error of 60 and 30
    assert cells[0] == ROWS[1].name
    assert cells[1].startswith("45.0 (")
    assert cells[2] == "6 of 10, 3 of 10"
    assert cells[3].startswith("-15.0 (")
    low, high = (float(end) for end in cells[1].split("(")[1].strip(")").split(" to "))
    assert (high - low) / 2 == pytest.approx(half, rel=1e-3)
    assert cells[5] == "-"  # no depth, no AbsRel
    assert cells[6] == "3.00 (3.00 to 3.00)"


def test_rows_with_the_same_recipe_share_a_training() -> None:
    trainings: dict[Any, Any] = {}
    for row in ROWS:
        trainings.setdefault(row.variant, set()).add(row.changes)
    assert all(len(changes) == 1 for changes in trainings.values())
    assert len(trainings) == 4
    assert with_interval([], 1) == "-"


def record(index: Any, outcome: Any, encode_s: Any = 0.1, denoise_s: Any = 0.3, num_chunks: Any = 4) -> Any:
    timings = {"policy/encode": encode_s, "policy/denoise_actions": denoise_s}
    return {"task": "Lift", "index": index, "outcome": outcome, "num_chunks": num_chunks, "timings_s": timings}


def test_a_row_is_measured_by_what_its_folders_hold(tmp_path: Path) -> None:
    records = [
        record(0, "success", denoise_s=1.1),
        record(1, "success"),
        record(2, "failure", denoise_s=0.7),
        record(3, "error"),
    ]
    (tmp_path / "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in records))
    psnr_db, absrel = METRICS.values()
    rows = [
        ("policy", "ok", psnr_db, 20.0),
        ("policy", "ok", psnr_db, 22.0),
        ("policy", "missing", psnr_db, 99.0),
        ("repeat_last_frame", "ok", psnr_db, 50.0),
        ("policy", "ok", absrel, 0.1),
    ]
    pd.DataFrame(rows, columns=["subject", "status", "metric", "value"]).to_parquet(tmp_path / "scores.parquet")
    found = measure(ROWS[0], 3, tmp_path, tmp_path)
    assert (found.num_success, found.num_episodes, found.num_errors) == (2, 3, 1)
    assert found.action_latency_ms == pytest.approx(1e3 * 0.8 / 4)
    assert (found.psnr_db, found.absrel, found.seed) == (21.0, 0.1, 3)
    assert found.counts == "2 of 3 (1 errors)"


def test_the_metrics_of_the_table_are_metrics() -> None:
    assert set(METRICS.values()) <= set(KNOWN)


def test_a_row_that_only_broke_has_no_rate() -> None:
    broken = replace(BASE, row=ROWS[1].name, num_success=0, num_episodes=0, num_errors=10, action_latency_ms=None)
    cells = [cell.strip() for cell in table([BASE, broken]).splitlines()[3].split("|")[1:-1]]
    assert cells[1:4] == ["-", "0 of 0 (10 errors)", "-"]
    assert cells[6] == "-"
