"""Action dependence and controls, on a world where the outcome of every action is known.

In: a recorded run of the painted world, and policies that know, ignore or turn round what actions do. Out: a verdict.
Read next: `evalkit/score/controls/`, `evalkit/report/dependence.py`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from evalkit.config import load_config
from evalkit.contracts.env import WorkerLaunch
from evalkit.contracts.errors import BadConfig, EvalkitError
from evalkit.report.dependence import DependenceRow, dependence_rows
from evalkit.report.paired import control_pairs
from evalkit.report.render_console import render_console
from evalkit.report.write import write_scores_report
from evalkit.run.lane import Job
from evalkit.run.runner import run_missing
from evalkit.score.chunk import ScoreOptions
from evalkit.score.controls.dependence import _depth, distances
from evalkit.score.dataset import score_dataset
from evalkit.score.results.names import BRANCHES, CONTROLS
from evalkit.score.results.table import read_scores
from evalkit.store.plan import make_plan
from evalkit.store.run_folder import HeldRun
from tests.doubles.known import known
from tests.doubles.painted import CHUNK_LEN, DIES_AT_SEED, PaintedBench, PaintedPolicyConfig, PaintedPolicyPlugin

OPTIONS = ScoreOptions(lpips_nets=())


def record(path: Path, *, episodes: int = 3, tasks: tuple[str, ...] = ("Slide", "Push"), seed: int = 0) -> Path:
    config = load_config(PaintedBench(), PaintedPolicyPlugin(), [])
    plan = make_plan(config.bench, config.policy, tasks=tasks, num_episodes=episodes, seed=seed)
    with HeldRun(path, plan) as folder:
        job = Job(folder=folder, bench=config.bench, policy=config.policy.load(), settings=config.run)
        run_missing(job, lambda record: None)
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("painted") / "run")


@pytest.fixture(scope="module")
def branches(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("branches")
    scored(run, folder, folder / "first.parquet")
    return folder


def scored(run: Path, branches: Path | None, to: Path, *, sees: float = 1.0, controls: Any = CONTROLS) -> pd.DataFrame:
    policy = PaintedPolicyPlugin().make(PaintedPolicyConfig(sees=sees))
    modes: Any = ("own", "recorded")
    return read_scores(
        score_dataset(run, policy, to, modes=modes, controls=controls, branches=branches, options=OPTIONS)
    )


def whole(scores: pd.DataFrame, subject: str = "policy_given_actions") -> dict[tuple[str, str], DependenceRow]:
    rows = [row for row in dependence_rows(scores) if row.subject == subject and row.horizon == "all"]
    return {(row.branch, row.quantity): row for row in rows}


@pytest.mark.parametrize(
    ("sees", "dependence", "directed"), [(1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (-1.0, 1.0, -1.0), (0.5, 0.5, 0.5)]
)
def test_the_score_is_known_in_closed_form(
    run: Path, branches: Path, tmp_path: Path, sees: float, dependence: float, directed: float
) -> None:
    rows = whole(scored(run, branches, tmp_path / "s.parquet", sees=sees))
    assert set(rows) == {(branch, what) for branch in BRANCHES for what in ("apart_levels", "apart_m", "apart_mm")}
    for branch in BRANCHES:
        position = rows[branch, "apart_mm"]
        assert position.dependence == pytest.approx(dependence, abs=1e-4)
        assert position.directed == pytest.approx(directed, abs=1e-4)
        assert position.num_episodes == 6
        if sees in (0.0, 1.0):
            for what in ("apart_levels", "apart_m"):
                assert rows[branch, what].dependence == pytest.approx(sees, abs=1e-6)
                assert rows[branch, what].directed == pytest.approx(sees, abs=1e-6)
    if sees == -1.0:
        assert known(rows["mirrored_action", "apart_levels"].directed) < 0.1


def test_references_are_the_ends_of_the_scale(run: Path, branches: Path, tmp_path: Path) -> None:
    scores = scored(run, branches, tmp_path / "s.parquet", sees=0.0)
    assert {row.dependence for row in whole(scores, "repeat_last_frame").values()} == {0.0}
    for row in whole(scores, "ground_truth").values():
        assert (row.dependence, row.directed, row.direction) == pytest.approx((1.0, 1.0, 1.0))


def test_a_model_that_ignores_actions_scores_the_same(run: Path, tmp_path: Path) -> None:
    pairs = {pair.right: pair for pair in control_pairs(scored(run, None, tmp_path / "s.parquet", sees=0.0))}
    assert set(pairs) == set(CONTROLS)
    assert {row.difference for pair in pairs.values() for row in pair.rows if row.num_values} == {0.0}


def test_a_model_that_knows_them_scores_worse_on_others(run: Path, tmp_path: Path) -> None:
    scores = scored(run, None, tmp_path / "s.parquet")
    given = scores[(scores["subject"] == "policy_given_actions") & (scores["metric"] == "psnr_db/frame_mean")]
    assert set(given["status"]) == {"identical_frames"}
    for branch in BRANCHES:
        rows = scores[(scores["subject"] == branch) & (scores["metric"] == "ee_position_mm/euclidean")]
        assert rows["value"].mean() > 20


def test_only_the_actions_differ_within_a_chunk(run: Path, tmp_path: Path) -> None:
    policy = PaintedPolicyPlugin().make(PaintedPolicyConfig())
    modes: Any = ("recorded",)
    score_dataset(run, policy, tmp_path / "s.parquet", modes=modes, controls=CONTROLS, options=OPTIONS)
    given, other, mirrored, wrong = policy.asked[:4]
    assert len({request.noise_seed for request in policy.asked[:4]}) == 1
    assert len({request.episode_id for request in policy.asked[:4]}) == 4
    assert [request.observation.instruction for request in policy.asked[:4]] == ["slide", "slide", "slide", "push"]
    actions = [known(request.given_actions) for request in (given, other, mirrored, wrong)]
    np.testing.assert_array_equal(actions[0], actions[3])
    np.testing.assert_array_equal(actions[2][:, 1], -actions[0][:, 1])
    np.testing.assert_array_equal(actions[2][:, 2], actions[0][:, 2])
    second = policy.asked[4 * 3]  # the next episode's first chunk, after three chunks of this one
    np.testing.assert_array_equal(actions[1], known(second.given_actions))


def test_branches_are_executed_once(run: Path, branches: Path, tmp_path: Path) -> None:
    clips = {path: path.stat().st_mtime_ns for path in branches.rglob("*.h5")}
    assert len(clips) == 2 * 6
    scored(run, branches, tmp_path / "s.parquet")
    assert clips == {path: path.stat().st_mtime_ns for path in branches.rglob("*.h5")}


def test_branches_of_another_recording_are_refused(branches: Path, tmp_path: Path) -> None:
    other = record(tmp_path / "other", episodes=1, tasks=("Slide",), seed=1)
    with pytest.raises(BadConfig, match="holds the outcome of other actions than `other_branch` takes"):
        scored(other, branches, tmp_path / "s.parquet")


def test_a_scene_that_cannot_be_met_again_is_counted(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("evalkit.score.sources.recorded.Simulator.of", lambda name, settings: drifted())
    scores = scored(run, tmp_path / "branches", tmp_path / "s.parquet")
    rows = scores[scores["metric"].str.startswith("apart") & (scores["status"] == "unavailable")]
    assert len(rows) == 2 * 6 * 3
    assert rows["reason"].str.contains("the left end effector is 100.0 mm and 0.0 degrees from the recorded one").all()
    assert not whole(scores)


def test_a_killed_simulator_costs_one_episode_for_now(
    run: Path, branches: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """Of three episodes, the second one's process is killed with SIGKILL; the third has another process."""
    whole_scores = scored(run, branches, tmp_path / "whole.parquet")
    monkeypatch.setenv(DIES_AT_SEED, "1")
    scores = scored(run, tmp_path / "branches", tmp_path / "s.parquet")
    apart = scores[scores["metric"].str.startswith("apart")]
    lost = apart[apart["status"] == "unavailable"]
    assert set(lost["index"]) == {1}
    assert lost["reason"].str.startswith("the simulator failed: ").all()
    assert len(lost) == 2 * 2 * 3  # controls, tasks, chunks
    assert set(apart[apart["index"] != 1]["status"]) <= {"ok", "same_truth"}
    monkeypatch.delenv(DIES_AT_SEED)
    again = scored(run, tmp_path / "branches", tmp_path / "again.parquet")
    pd.testing.assert_frame_equal(again, whole_scores)


def test_a_simulator_that_never_starts_is_an_error(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    no_simulator = WorkerLaunch(target="no.such:Env", kwargs={})
    monkeypatch.setattr("tests.doubles.painted.PaintedBench.launch", lambda *_, **__: no_simulator)
    with pytest.raises(EvalkitError, match="No module named 'no'"):
        scored(run, tmp_path / "branches", tmp_path / "s.parquet")


@pytest.mark.parametrize(("value", "count"), [(0.0, 8), (np.nan, 8), (-1.0, 4)])
def test_invalid_depth_counts_as_zero_metres_and_is_named(value: float, count: int) -> None:
    true = np.ones((1, 2, 2))
    pred, other = true.copy(), true + 0.5
    if count == 8:
        pred, other = (np.full_like(true, value) for _ in range(2))
    else:
        pred[:] = value
    apart = _depth(pred, other, true, true + 0.5)
    status = "all_invalid_depth" if count == 8 else "some_invalid_depth"
    assert (apart.true.value, apart.true.status) == (0.5, "ok")
    assert (apart.pred.status, apart.along.status) == (status, status)
    assert apart.pred.value == (0.0 if count == 8 else 1.5)
    assert apart.pred.reason.startswith(
        f"{count} of 8 predicted depths are not finite or not positive, and count as 0 m"
    )


def drifted() -> Any:
    from evalkit.score.sources.simulator import Simulator

    return Simulator(bench=PaintedBench(), config=PaintedBench.config_type(drift_m=0.1))


def test_one_episode_takes_its_own_other_chunk(tmp_path: Path) -> None:
    run = record(tmp_path / "run", episodes=1, tasks=("Slide",))
    policy = PaintedPolicyPlugin().make(PaintedPolicyConfig())
    modes: Any = ("recorded",)
    result = score_dataset(run, policy, tmp_path / "s.parquet", modes=modes, controls=CONTROLS, options=OPTIONS)
    first, other = policy.asked[0], policy.asked[1]
    assert not np.array_equal(known(first.given_actions), known(other.given_actions))
    np.testing.assert_array_equal(known(other.given_actions), known(policy.asked[3].given_actions))
    wrong = read_scores(result).query("subject == 'wrong_instruction'")
    assert set(wrong["reason"]) == {"the data hold no task with another instruction"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"modes": ("own",), "controls": ("other_branch",)}, "add --actions recorded or both"),
        ({"modes": ("recorded",), "branches": Path("b")}, "add --controls other_branch,mirrored_action"),
    ],
)
def test_options_that_do_not_fit_are_refused(run: Path, tmp_path: Path, arguments: Any, message: str) -> None:
    policy = PaintedPolicyPlugin().make(PaintedPolicyConfig())
    with pytest.raises(BadConfig, match=message):
        score_dataset(run, policy, tmp_path / "s.parquet", **arguments)


def test_ground_truths_that_agree_are_left_out_and_counted() -> None:
    apart = distances(np.array([3.0, 4.0]), np.array([0.1, 0.0]), least=0.5, mean=False)
    assert [measure.status for measure in apart] == ["same_truth"] * 3
    assert [measure.value for measure in apart] == [5.0, pytest.approx(0.1), None]


def test_the_report_says_whether_actions_matter(run: Path, branches: Path, tmp_path: Path) -> None:
    scored(run, branches, tmp_path / "scores.parquet", sees=0.0)
    report = write_scores_report(tmp_path / "scores.parquet", tmp_path, name="ignoring")
    text = (tmp_path / "report.md").read_text()
    assert "Does the prediction depend on the actions?" in text
    assert "A model that ignores its actions has 0 and 0, as the floor" in text
    table = pd.read_csv(tmp_path / "dependence.csv")
    rows = table[(table["subject"] == "policy_given_actions") & (table["horizon"] == "all")]
    assert len(rows) == 6
    assert (rows["dependence"] == 0).all()
    assert (rows["num_values"] + rows["num_same"] == 6 * 3 * (CHUNK_LEN // 4)).all()
    assert render_console(report.document)
