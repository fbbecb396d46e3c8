"""The tables on a console of 80 columns: nothing is cut off, no name is wrapped.

In: tables with the longest names that there are. Out: a verdict.
Read next: `evalkit/report/render_console.py`.
"""

import io
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from evalkit.report.build import build_document
from evalkit.report.paired import Paired, PairedRow
from evalkit.report.read import RunSummary, read_run
from evalkit.report.render_console import render_console
from evalkit.report.stats import Interval
from evalkit.report.tables import RemarkRow, ScoreRow, success_rows
from evalkit.score.results.names import CONTROLS, METRICS, PREDICTED, SUBJECTS
from evalkit.store.records import EpisodeRecord
from tests.doubles.scene import write_scene_run

TASKS = ("Lift", "NutAssemblySquare", "TwoArmHandover")

GOLDEN = """
run: noise on scene (scene/closed-form, default)

Success
task                 ok  fail  err  skip  miss  plan  rate %  95 % interval
───────────────────────────────────────────────────────────────────────────
Lift                500     0    0     0   500  1000   100.0  99.3 to 100.0
NutAssemblySquare   500     0    0     0   500  1000   100.0  99.3 to 100.0
TwoArmHandover      500     0    0     0   500  1000   100.0  99.3 to 100.0
pooled             1500     0    0     0  1500  3000   100.0  99.8 to 100.0
mean of tasks      1500     0    0     0  1500  3000   100.0  99.8 to 100.0
task: name of the task; ok: episodes that reached the goal; fail: episodes that
did not reach it; err: episodes that a fault of simulator, policy or harness
ended; skip: episodes left out for a stated reason; miss: planned episodes that
have not run yet; plan: all planned episodes; rate %: success / (success +
failure), percent; 95 % interval: 95 % confidence interval of the rate
(Clopper-Pearson), percent. In the last two rows, pooled counts every episode
once, and mean of tasks is the mean of the rates above.
"""


@pytest.fixture
def report(tmp_path: Path) -> RunSummary:
    write_scene_run(tmp_path / "run", outcomes=["success"], image_hw_px=(24, 32))
    run = read_run(tmp_path / "run")
    records = [
        EpisodeRecord(outcome="success", task=task, index=index, seed=0, instruction=None)
        for task in TASKS
        for index in range(500)
    ]
    rows = success_rows(TASKS, Counter(dict.fromkeys(TASKS, 1000)), records)
    return replace(run, success=tuple(rows))


def _lines(run: Any, width: Any = 80) -> Any:
    printer = Console(record=True, width=width, file=io.StringIO())
    printer.print(render_console(build_document([run])))
    return [line.rstrip() for line in printer.export_text().splitlines()]


def _score(metric: Any, subject: Any = "policy", **more: Any) -> Any:
    return ScoreRow(
        subject=subject,
        metric=metric,
        split="all",
        group="all",
        **{
            **{"mean": 0.0012345, "interval": Interval(0.001234, 0.001345), "num_values": 123456, "num_without": 0},
            **{"num_episodes": 500, "remarks": ""},
            **more,
        },
    )


def test_the_success_table_fits_80_columns(report: RunSummary) -> None:
    lines = _lines(report)
    assert lines[: len(GOLDEN.splitlines())] == GOLDEN.splitlines()


def test_the_longest_task_names_of_any_bench_fit(report: RunSummary) -> None:
    rows = [replace(row, task="PnPCounterToMicrowave") for row in report.success[:1]]
    assert any(line.startswith("PnPCounterToMicrowave ") for line in _lines(replace(report, success=tuple(rows))))


def _paired(left: str, right: str) -> Paired:
    counts = {"num_values": 123456, "num_dropped": 0, "num_episodes": 400}
    rows = tuple(
        PairedRow(
            metric=metric,
            split="all",
            group="all",
            left=0.001234,
            right=0.01234,
            interval=Interval(-0.01234, -0.001234),
            **counts,
        )
        for metric in METRICS
    )
    return Paired(left=left, right=right, rows=rows)


def test_score_tables_fit_80_columns(report: RunSummary) -> None:
    rows = [_score(metric, subject) for metric in METRICS for subject in SUBJECTS]
    remarks = "some_invalid_depth 123456, identical_frames 4"
    rows[0] = _score(next(iter(METRICS)), remarks=remarks, num_values=12345, num_without=1234)
    reason = "LPIPS (alex) is unavailable, because its weights are not in the torch hub cache. " * 3
    remark = RemarkRow(subject="policy", status="degenerate_alignment", count=123456, meaning="", reason=reason)
    pairs = tuple(_paired("policy", subject) for subject in SUBJECTS if subject not in (*PREDICTED, *CONTROLS))
    lines = _lines(replace(report, scores=tuple(rows), references=pairs, remarks=(remark,)))
    assert not any("…" in line for line in lines)
    firsts = {line.split(" ")[0] for line in lines}
    assert firsts >= {name for name, metric in METRICS.items() if metric.family != "dependence"}
    assert "degenerate_alignment" in firsts
    at = lines.index(next(line for line in lines if line.startswith("psnr_db/frame_mean")))
    assert lines[at].split()[:5] == ["psnr_db/frame_mean", "high", "0.001234", "0.001234", "to"]
    assert all(remark in "\n".join(lines[at : at + 3]) for remark in (*remarks.split(", "), "12345 of"))
    at = lines.index("policy and repeat_last_frame")
    assert next(line for line in lines[at:] if line.startswith("absrel/gt_mask_10m")).split()[:3] == [
        *("absrel/gt_mask_10m", "0.001234", "0.01234"),
    ]
    assert "policy and depth_8bit" not in lines  # a detail


def test_what_is_not_scored_is_said(report: RunSummary) -> None:
    said = "".join(_lines(report))
    assert "Not scored yet. Run `evalkit score run/" in said.replace("run /", "run/")
