"""Scoring whole chunks and runs: every bad input is a named outcome, and nothing is lost.

In: synthetic clips. Out: a verdict.
Read next: `evalkit/score/chunk.py`, `evalkit/score/run.py`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from evalkit.contracts.errors import BadConfig, RunFolderError
from evalkit.score.chunk import ScoreOptions, score_chunk
from evalkit.score.extra import EXTRAS, RobotMasks
from evalkit.score.results.coverage import lost_clips
from evalkit.score.results.names import METRICS
from evalkit.score.results.outcome import STATUSES, Score
from evalkit.score.results.table import read_scores
from evalkit.score.run import score_run
from tests.doubles.known import known
from tests.doubles.scene import scene_chunk, scene_spec, write_scene_run

SIZE = (24, 32)
SPEC = scene_spec(SIZE)
NO_LPIPS = ScoreOptions(lpips_nets=())
POLICY_ONLY = ScoreOptions(references=False, lpips_nets=())
ONES = np.ones((2, 3, *SIZE), np.float32)


def _chunk(**predicted: Any) -> Any:
    chunk = scene_chunk(num_frames=2, image_hw_px=SIZE)
    return replace(chunk, predicted=replace(known(chunk.predicted), **predicted)) if predicted else chunk


def _policy(scores: list[Score], metric: str) -> list[Score]:
    return [score for score in scores if score.subject == "policy" and score.metric == metric]


def test_every_metric_has_a_value_on_a_good_chunk() -> None:
    options = ScoreOptions(lpips_nets=(), extras=EXTRAS)
    robot = RobotMasks(np.ones((2, 3, *SIZE), bool), {})
    scores = score_chunk(_chunk(), SPEC, options, robot=robot)
    given = {score.metric for score in scores if score.subject == "policy" and not score.metric.startswith("check/")}
    elsewhere = ("lpips", "apart_")  # weights, and predictions for other actions
    assert given == {
        name for name, metric in METRICS.items() if not name.startswith(elsewhere) and metric.per != "clip"
    }
    absent = {(score.metric, score.status) for score in scores if score.subject == "policy" and score.value is None}
    assert {status for metric, status in absent} <= {"too_few_pixels"}
    assert all("moving" in metric for metric, status in absent)


def test_truth_against_itself_is_perfect() -> None:
    scores = [score for score in score_chunk(_chunk(), SPEC, NO_LPIPS) if score.subject == "ground_truth"]
    value = {score.metric: score.value for score in scores}
    assert value["psnr_db/frame_mean"] is None
    assert value["absrel/gt_mask_10m"] == 0.0
    assert value["delta1/gt_mask_10m"] == 1.0
    assert value["ee_position_mm/euclidean"] == 0.0
    assert known(value["chamfer_m/l1_half_10m"]) < 1e-6  # the wrist pose from the state, through the `T_ee_cam`


def test_repeating_the_last_frame_is_scored_beside() -> None:
    scores = score_chunk(_chunk(), SPEC, NO_LPIPS)
    assert {score.subject for score in scores} == {"policy", "repeat_last_frame", "ground_truth", "depth_8bit"}
    assert score_chunk(_chunk(), SPEC, POLICY_ONLY) == [s for s in scores if s.subject == "policy"]


def test_no_prediction_gives_no_score() -> None:
    assert score_chunk(replace(_chunk(), predicted=None), SPEC) == []


def test_only_frames_with_a_truth_are_scored() -> None:
    chunk = scene_chunk(num_frames=4, image_hw_px=SIZE)
    short = replace(chunk, true=replace(chunk.true, **{k: v[:1] for k, v in vars(chunk.true).items()}))
    assert {score.frame_idx for score in score_chunk(short, SPEC)} == {-1, 0}


@pytest.mark.parametrize(
    ("change", "metric", "status", "value"),
    [
        ({"depth": np.zeros((2, 3, *SIZE), np.float32)}, "absrel/gt_mask_10m", "all_invalid_depth", 1.0),
        ({"depth": np.full((2, 3, *SIZE), np.nan, np.float32)}, "absrel/gt_mask_10m", "all_invalid_depth", 1.0),
        ({"depth": np.full((2, 3, *SIZE), np.inf, np.float32)}, "absrel/gt_mask_10m", "all_invalid_depth", 1.0),
        ({"depth": np.full((2, 3, *SIZE), -1, np.float32)}, "chamfer_m/l1_half_10m", "empty_cloud", None),
        (
            {"depth": np.ones((2, 3, *SIZE), np.float32)},
            "absrel/gt_mask_affine_disparity_10m",
            "degenerate_alignment",
            None,
        ),
        ({"depth": np.ones((2, 3, 12, 16), np.float32)}, "chamfer_m/l1_half_10m", "wrong_size", None),
        ({"depth": np.ones((2, 3, 12, 16), np.float32)}, "absrel/gt_mask_clip_pooled_10m", "wrong_size", None),
        ({"rgb": np.zeros((2, 3, 12, 16, 3), np.uint8)}, "ssim/gauss11", "wrong_size", None),
        ({"rgb": np.zeros((2, 3, 12, 16, 3), np.uint8)}, "psnr_db/clip_pooled", "wrong_size", None),
        ({"proprio": np.full((2, 16), np.nan, np.float32)}, "chamfer_m/l1_half_10m", "bad_state", None),
        ({"proprio": np.full((2, 16), np.nan, np.float32)}, "ee_rotation_deg/geodesic", "bad_state", None),
    ],
)
def test_bad_predictions_are_named(change: Any, metric: str, status: str, value: float | None) -> None:
    scores = _policy(score_chunk(_chunk(**change), SPEC), metric)
    assert {(score.status, score.value) for score in scores} == {(status, value)}


def test_constant_depth_keeps_its_value_and_says_so() -> None:
    scores = score_chunk(_chunk(depth=ONES), SPEC)
    assert {score.status for score in _policy(scores, "absrel/gt_mask_10m")} == {"constant_depth"}
    assert all(known(score.value) > 0 for score in _policy(scores, "absrel/gt_mask_10m"))


def test_a_missing_frame_is_named_in_every_family() -> None:
    chunk = _chunk()
    short = replace(chunk.predicted, **{name: value[:1] for name, value in vars(chunk.predicted).items()})
    scores = score_chunk(replace(chunk, predicted=short), SPEC, POLICY_ONLY)
    missing = {score.metric for score in scores if score.status == "missing_frame"}
    assert {"psnr_db/frame_mean", "absrel/gt_mask_10m", "chamfer_m/l1_half_10m", "ee_position_mm/euclidean"} <= missing
    assert all(score.frame_idx == 1 for score in scores if score.status == "missing_frame")


def test_truth_without_depth_is_named() -> None:
    chunk = _chunk()
    empty = replace(chunk, true=replace(chunk.true, depth_fvhw_m=np.zeros_like(chunk.true.depth_fvhw_m)))
    scores = score_chunk(empty, SPEC)
    assert {s.status for s in _policy(scores, "absrel/gt_mask_10m")} == {"no_valid_truth"}
    assert {s.status for s in _policy(scores, "chamfer_m/l1_half_10m")} == {"empty_cloud"}


def test_missing_intrinsics_are_named() -> None:
    chunk = replace(_chunk(), intrinsics_v33_px=np.full((3, 3, 3), np.nan))
    (score, *_) = _policy(score_chunk(chunk, SPEC), "chamfer_m/l1_half_10m")
    assert (score.status, score.value) == ("bad_camera", None)


def test_without_states_only_static_cameras_are_fused() -> None:
    scores = _policy(score_chunk(_chunk(proprio=None), SPEC), "chamfer_m/l1_half_10m")
    assert {(score.view, score.status) for score in scores} == {("all", "no_predicted_state"), ("static", "ok")}


def test_every_status_is_explained() -> None:
    chunks = [_chunk(), _chunk(depth=np.zeros((2, 3, *SIZE), np.float32)), _chunk(proprio=None)]
    assert {score.status for chunk in chunks for score in score_chunk(chunk, SPEC)} <= set(STATUSES)


def test_a_run_is_scored_and_scoring_again_gives_the_same(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_scene_run(run, outcomes=["success", "failure", "error", "success"], image_hw_px=SIZE)
    seen = []
    path = score_run(run, workers=1, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    first = read_scores(path)
    assert set(first["index"]) == {0, 1, 3}
    assert list(run.glob(".scores*")) == []
    data = path.read_bytes()
    score_run(run, workers=1)
    assert path.read_bytes() == data


def test_processes_give_the_same_scores(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_scene_run(run, outcomes=["success", "failure", "success"], image_hw_px=SIZE)
    alone = read_scores(score_run(run, workers=1))
    assert alone.equals(read_scores(score_run(run, workers=2)))


def test_a_clip_that_is_overwritten_inside_is_a_row(tmp_path: Path) -> None:
    write_scene_run(tmp_path / "run", outcomes=["success", "success"], image_hw_px=SIZE)
    clip = tmp_path / "run/clips/ball/0000.h5"
    clip.write_bytes(clip.read_bytes().replace(b"HEAP", b"XXXX"))  # what h5py says to this is a RuntimeError
    scores = read_scores(score_run(tmp_path / "run", workers=1))
    assert list(scores[scores["metric"] == "clip"]["status"]) == ["broken_clip"]
    assert scores[scores["index"] == 1]["value"].notna().any()


def test_missing_and_broken_clips_are_rows(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_scene_run(run, outcomes=["success", "success", "success"], image_hw_px=SIZE)
    (run / "clips/ball/0000.h5").unlink()
    clip = run / "clips/ball/0001.h5"
    clip.write_bytes(clip.read_bytes()[:2000])
    scores = read_scores(score_run(run, workers=1))
    rows = scores[scores["metric"] == "clip"]
    assert list(zip(rows["index"], rows["status"], strict=True)) == [(0, "missing_clip"), (1, "broken_clip")]
    assert scores[scores["index"] == 2]["value"].notna().any()


def test_a_clip_of_another_plan_is_foreign(tmp_path: Path) -> None:
    write_scene_run(tmp_path / "run", outcomes=["success", "success"], image_hw_px=SIZE)
    write_scene_run(tmp_path / "other", outcomes=["error", "success", "success"], image_hw_px=SIZE)
    (tmp_path / "other/clips/ball/0001.h5").rename(tmp_path / "run/clips/ball/0001.h5")
    scores = read_scores(score_run(tmp_path / "run", workers=1))
    (row,) = scores[scores["metric"] == "clip"].itertuples()
    assert str(row.index) == "1"
    assert row.status == "foreign_clip"
    assert "belongs to another plan: its hash is" in str(row.reason)
    assert len(scores[scores["index"] == 1]) == 1


def test_a_clip_of_another_episode_is_foreign(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_scene_run(run, outcomes=["success", "success"], image_hw_px=SIZE)
    (run / "clips/ball/0000.h5").rename(run / "clips/ball/0001.h5")
    scores = read_scores(score_run(run, workers=1))
    missing, foreign = scores[scores["metric"] == "clip"].itertuples()
    assert (missing.status, foreign.status) == ("missing_clip", "foreign_clip")
    assert str(foreign.reason).endswith("belongs to another plan: index is 0, not 1, seed is 0, not 1.")


def test_a_broken_chunk_costs_no_other(tmp_path: Path) -> None:
    run = tmp_path / "run"
    write_scene_run(run, outcomes=["success", "success"], image_hw_px=SIZE, num_chunks=3)
    with h5py.File(run / "clips/ball/0000.h5", "r+") as file:
        del file["chunks/0001/intrinsics_v33_px"]
        del file["chunks/0002/intrinsics_v33_px"]
        file["chunks/0002/intrinsics_v33_px"] = np.ones((1, 3, 3))
    with h5py.File(run / "clips/ball/0001.h5", "r+") as file:
        del file.attrs["episode"]
    for workers in (1, 2):
        scores = read_scores(score_run(run, workers=workers, options=NO_LPIPS))
        rows = scores[scores["metric"] == "clip"]
        assert list(zip(rows["index"], rows["chunk_idx"], rows["status"], strict=True)) == [
            (0, 1, "broken_chunk"),
            (0, 2, "scoring_failed"),
            (1, -1, "broken_clip"),
        ]
        assert set(scores[scores["value"].notna()]["chunk_idx"]) == {0}
        assert [lost.key for lost in lost_clips(scores)] == ["ball/0000", "ball/0001"]


def test_workers_below_zero_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="--workers takes a number of processes, or 0 for every core; got -2"):
        score_run(tmp_path, workers=-2)


def test_an_empty_run_gives_an_empty_table(tmp_path: Path) -> None:
    write_scene_run(tmp_path / "run", outcomes=["error"], image_hw_px=SIZE)
    assert len(read_scores(score_run(tmp_path / "run"))) == 0


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="not a run folder"):
        score_run(tmp_path)
    with pytest.raises(RunFolderError, match="evalkit score"):
        read_scores(tmp_path / "scores.parquet")
