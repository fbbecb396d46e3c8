"""Coverage in the result file, and the sentences of `evalkit score` on clips that could not be scored.

In: synthetic runs. Out: a verdict.
Read next: `evalkit/score/results/coverage.py`, `evalkit/cli/score.py`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evalkit.cli.main import app
from evalkit.contracts.errors import BadConfig
from evalkit.score.results.coverage import Coverage, LostClip, lost_sentence, nothing_to_score
from evalkit.score.results.table import read_coverage
from evalkit.score.run import score_run
from evalkit.store.run_folder import HeldRun, open_run
from tests.doubles.known import known
from tests.doubles.scene import write_scene_run

SIZE = (24, 32)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_scene_run(tmp_path / "run", outcomes=["success", "failure", "error"], image_hw_px=SIZE)
    return tmp_path / "run"


def _score(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["score", "run", *map(str, arguments), "--workers", "1", "--lpips", "none"])


def test_a_result_file_names_its_plan_and_records(run: Path) -> None:
    made_of = read_coverage(score_run(run, workers=1))
    assert known(made_of).plan_sha256 == open_run(run).plan.sha256
    assert list(known(made_of).clips) == ["ball/0000", "ball/0001"]
    assert made_of == Coverage.of(open_run(run).plan, open_run(run).records())


def test_another_try_of_an_episode_is_another_record(run: Path) -> None:
    plan, (first, *_) = open_run(run).plan, open_run(run).records()
    again = [replace(first, actions_sha256="f00"), replace(first, outcome="failure")]
    found = [Coverage.of(plan, [record]).clips["ball/0000"] for record in (first, *again)]
    assert len(set(found)) == 3
    assert Coverage.of(plan, [replace(first, timings_s={"wall": 2.0})]).clips["ball/0000"] == found[0]


def test_lost_clips_are_said_after_scoring(run: Path) -> None:
    (run / "clips/ball/0001.h5").unlink()
    done = _score(run)
    assert done.exit_code == 0
    assert "1 of 2 clips could not be scored: ball/0001 (missing_clip)." in done.stdout
    assert "could not be scored" not in _score_whole(run)


def _score_whole(run: Path) -> Any:
    records = (run / "episodes.jsonl").read_text().splitlines(keepends=True)
    (run / "episodes.jsonl").write_text(records[0])
    return _score(run).stdout


def test_many_lost_clips_are_named_in_part() -> None:
    said = lost_sentence([LostClip(f"Lift/{index:04d}", "broken_clip") for index in range(7)], 9)
    assert said.startswith("7 of 9 clips could not be scored: Lift/0000 (broken_clip), ")
    assert said.endswith("Lift/0004 (broken_clip), and 2 more.")


def test_a_policy_without_predictions_has_nothing_to_score(run: Path, tmp_path: Path) -> None:
    plan = open_run(run).plan
    policy = replace(plan.policy, name="hold", specs={"hold": {"predicts": []}})
    with HeldRun(tmp_path / "hold", replace(plan, policy=policy)) as folder:
        for record in open_run(run).records():
            folder.append(replace(record, clip=None))
    done = _score(tmp_path / "hold")
    assert (done.exit_code, done.stdout) == (0, "There is nothing to score: policy 'hold' predicts no frames.\n")
    assert not (tmp_path / "hold/scores.parquet").exists()
    assert _score(run, tmp_path / "hold").exit_code == 0


def test_a_run_that_lacks_clips_is_still_an_error(run: Path, tmp_path: Path) -> None:
    plan = open_run(run).plan
    silent = replace(plan.policy, name="hold", specs={"hold": {"predicts": []}})
    with HeldRun(tmp_path / "hold", replace(plan, policy=silent)), HeldRun(tmp_path / "empty", plan):
        pass
    done = _score(tmp_path / "hold", tmp_path / "empty")
    assert str(done.exception) == "There is nothing to score yet: the run has no records."


def test_a_run_without_clips_says_why(run: Path) -> None:
    plan, records = open_run(run).plan, open_run(run).records()
    assert nothing_to_score(plan, records) is None
    assert "has no records" in known(nothing_to_score(plan, []))
    assert "has a clip" in known(nothing_to_score(plan, records[2:]))


def test_workers_below_zero_are_refused(run: Path) -> None:
    done = CliRunner().invoke(app, ["score", "run", str(run), "--workers", "-1"])
    assert isinstance(done.exception, BadConfig)
    assert not (run / "scores.parquet").exists()
