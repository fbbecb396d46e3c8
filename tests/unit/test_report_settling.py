"""Both successes in reports, as the bench counts them and after settling; and whether runs met the same scenes."""

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from statsmodels.stats.proportion import proportion_confint

from evalkit.contracts.spec import EE_POSE_BASE
from evalkit.report.after_settling import settle_times
from evalkit.report.render_console import render_console
from evalkit.report.render_markdown import render_markdown
from evalkit.report.scenes import scene_caveats, scene_sentence
from evalkit.report.tables import success_rows
from evalkit.report.write import build_report, write_report
from evalkit.store.plan import Plan
from evalkit.store.records import EpisodeRecord
from evalkit.store.run_folder import open_run
from tests.doubles.scene import write_scene_run

SIZE = (24, 32)


def _records(task: str, after: Sequence[bool | None], num_failures: int) -> list[EpisodeRecord]:
    """Return successes with what is known after settling, then failures."""
    outcomes: list[dict[str, Any]] = [{"outcome": "success", "success_after_settling": value} for value in after]
    outcomes += [{"outcome": "failure"}] * num_failures
    return [EpisodeRecord(task=task, index=i, seed=i, instruction=None, **o) for i, o in enumerate(outcomes)]


def _written(path: Path, **changes: Any) -> Path:
    """Write a run of five episodes, two of them successes, and change fields of its successes."""
    write_scene_run(path, outcomes=["success", "failure", "success", "error", "success"], image_hw_px=SIZE)
    lines = [json.loads(line) for line in (path / "episodes.jsonl").read_text().splitlines()]
    changed = [{**line, **(changes if line["outcome"] == "success" else {})} for line in lines]
    (path / "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in changed))
    return path


def test_rates_after_settling_are_over_success_plus_failure() -> None:
    """34 of 40 succeed and 26 of the 34 still hold; the intervals are those of statsmodels."""
    records = _records("A", [True] * 26 + [False] * 8, 6)
    row, pooled, mean = success_rows(["A"], Counter(A=40), records)
    assert (row.success, row.failure, row.held, row.lost, row.unsettled) == (34, 6, 26, 8, 0)
    assert row.settled_rate == pytest.approx(26 / 40)
    assert row.settled_interval == pytest.approx(proportion_confint(26, 40, method="beta"))
    assert pooled.held == 26
    assert mean.settled_interval == pytest.approx(row.settled_interval)
    assert mean.settled_rate == pytest.approx(26 / 40)


@pytest.mark.parametrize(
    ("after", "num_failures", "rate"),
    [([], 3, 0.0), ([None, None], 3, None), ([True, None], 1, 0.5), ([None], 0, None), ([True], 0, 1.0)],
)
def test_unknown_successes_do_not_count(after: list[bool | None], num_failures: int, rate: float | None) -> None:
    row, *_ = success_rows(["A"], Counter(A=9), _records("A", after, num_failures))
    assert (row.settled_rate, row.unsettled) == (rate, after.count(None))


def test_a_report_shows_both_successes(tmp_path: Path) -> None:
    document = write_report([_written(tmp_path / "a")], tmp_path / "out").document
    text = (tmp_path / "out/report.md").read_text()
    assert "| ball | 3 of 4 | 1 of 3 | 33.3 | 0.8 to 90.6 | 25.0 | 0.6 to 80.6 |" in text
    assert "the robot is left alone for 1.0 s (20 control steps)" in text
    printer = Console(record=True, width=80, file=io.StringIO())
    printer.print(render_console(document))
    assert "ball            3 of 4  1 of 3     33.3     25.0    0.6 to 80.6" in printer.export_text()
    (ball, *_) = csv.DictReader(io.StringIO((tmp_path / "out/success.csv").read_text()))
    assert (ball["held"], ball["lost"], ball["unsettled"], float(ball["settled_rate"])) == ("1", "2", "0", 0.25)


def test_absolute_actions_take_at_least_the_time(tmp_path: Path) -> None:
    """An action to an absolute pose is a motion from rest to rest: 20 of them at 50/3 Hz take 1.2 s or longer."""
    plan = open_run(_written(tmp_path / "a")).plan
    (spec,) = plan.bench.specs.values()
    specs = {"deltas": spec, "poses": {**spec, "action_layout": EE_POSE_BASE, "control_hz": 50 / 3}}
    plan = replace(plan, bench=replace(plan.bench, specs=specs))
    records = [replace(record, settle_steps=20) for task in specs for record in _records(task, [True], 0)]
    assert set(settle_times(plan, records)) == {"1.0 s (20 control steps)", "at least 1.2 s (20 actions)"}


def test_the_csv_of_episodes_holds_hashes_and_scenes(tmp_path: Path) -> None:
    write_report([_written(tmp_path / "a", first_frame_sha256="f" * 64)], tmp_path / "out")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out/episodes.csv").read_text())))
    assert [row["outcome"] for row in rows] == ["success", "failure", "success", "error", "success"]
    assert (rows[0]["first_state_sha256"], rows[0]["first_frame_sha256"]) == ("0" * 64, "f" * 64)
    assert json.loads(rows[4]["scene"]) == {"ball": 4}
    assert [row["success_after_settling"] for row in rows] == ["True", "", "False", "", "False"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"settle_steps": 0, "success_after_settling": None}, "not checked, because run.settle_steps was 0"),
        ({"settle_steps": None, "success_after_settling": None}, "the version of evalkit that made this run"),
        ({"settle_steps": 20, "success_after_settling": None}, "not known; faults ended the settling"),
    ],
)
def test_a_report_without_settling_says_why(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    text = render_markdown(build_report([_written(tmp_path / "a", **changes)]))
    assert sentence in text
    assert "still holds" not in text


def test_unknown_successes_are_a_caveat(tmp_path: Path) -> None:
    path = _written(tmp_path / "a")
    text = (
        (path / "episodes.jsonl")
        .read_text()
        .replace('"success_after_settling": true', '"success_after_settling": null')
    )
    (path / "episodes.jsonl").write_text(text)
    said = render_markdown(build_report([path]))
    assert "Of 1 successful episode it is not known whether the goal still holds after settling (ball/0000)" in said


def test_runs_are_compared_by_both_successes(tmp_path: Path) -> None:
    runs = [_written(tmp_path / "a"), _written(tmp_path / "b", settle_steps=40, success_after_settling=True)]
    text = render_markdown(build_report(runs))
    assert "## Success after settling of all runs" in text
    assert "| ball | 1 of 4 (25.0 %) | 3 of 4 (75.0 %) |" in text
    assert (
        "their success after settling does not compare: a 1.0 s (20 control steps), b 2.0 s (40 control steps)" in text
    )


def test_runs_say_whether_they_met_the_same_scenes(tmp_path: Path) -> None:
    same = [_written(tmp_path / "a"), _written(tmp_path / "b")]
    text = render_markdown(build_report(same))
    assert "5 episodes of the same task and seed are in several runs. The first state is the same in 5 of 5" in text
    assert "different scenes" not in text
    text = render_markdown(build_report([same[0], _written(tmp_path / "c", first_state_sha256="e" * 64)]))
    assert "The runs met different scenes in 3 of 5 episodes of the same task and seed (ball, seed 0)" in text


def test_two_records_of_one_run_are_no_two_runs(tmp_path: Path) -> None:
    plan, records = _recorded(tmp_path / "a")
    twice = [replace(record, seed=0) for record in records]
    assert len({record.first_state_sha256 for record in twice}) == 5
    assert scene_sentence({"a": (plan, twice)}) == ""
    sentence = scene_sentence({"a": (plan, twice), "b": (plan, records[:1])})
    assert sentence.startswith("Scenes: 1 episode of the same task and seed is in several runs.")
    assert list(scene_caveats({"a": (plan, twice), "b": (plan, records[:1])})) == []


def test_only_runs_of_one_protocol_share_scenes(tmp_path: Path) -> None:
    plan, records = _recorded(tmp_path / "a")
    renamed = [replace(record, first_state_sha256="f" * 64) for record in records]
    assert len(list(scene_caveats({"a": (plan, records), "b": (plan, renamed)}))) == 1
    other = (replace(plan, protocol="scene/other"), renamed)
    assert scene_sentence({"a": (plan, records), "b": other}) == ""
    assert list(scene_caveats({"a": (plan, records), "b": other})) == []


def test_frames_that_no_run_rendered_are_left_out(tmp_path: Path) -> None:
    plan, records = _recorded(tmp_path / "a")
    seen = [replace(record, first_frame_sha256="f" * 64) for record in records]
    assert scene_sentence({"a": (plan, seen), "b": (plan, seen)}).endswith("5 of 5, the first frame in 5 of 5.")
    blind = [replace(record, first_frame_sha256=None) for record in records]
    assert scene_sentence({"a": (plan, blind), "b": (plan, seen)}).endswith("The first state is the same in 5 of 5.")


def _recorded(path: Path) -> tuple[Plan, list[EpisodeRecord]]:
    folder = open_run(_written(path))
    return folder.plan, folder.records()
