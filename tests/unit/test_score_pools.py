"""Metrics pooled over a clip: what is missing is left out and counted, and parts make no difference.

In: chunks and folders of the synthetic scene. Out: a verdict.
Read next: `evalkit/score/pools.py`.
"""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from evalkit.score import folder_clip
from evalkit.score.chunk import ScoreOptions, score_chunk
from evalkit.score.folders import score_folders
from evalkit.score.results.outcome import Score
from evalkit.score.results.table import read_scores
from evalkit.store.clips import ClipChunk
from tests.doubles.folders import score_folder_clip
from tests.doubles.known import known
from tests.doubles.scene import scene_chunk, scene_spec, write_scene_folders

SIZE = (24, 32)
POLICY_ONLY = ScoreOptions(references=False, lpips_nets=())
POOLED = (
    "psnr_db/clip_pooled",
    "absrel/gt_mask_clip_pooled_10m",
    "delta1/gt_mask_clip_pooled_10m",
    "absrel/gt_mask_affine_disparity_10m",
)


def _pooled(scores: list[Score]) -> dict[str, Score]:
    rows = [score for score in scores if score.metric in POOLED]
    assert [score.metric for score in rows] == list(POOLED)
    return {score.metric: score for score in rows}


def _without_frames(chunk: ClipChunk, first: int, frames: slice) -> ClipChunk:
    """Return a chunk whose ground truth and prediction lack frames from the front, or hold some of them."""
    pick = {name: array[frames] for name, array in vars(known(chunk.predicted)).items()}
    true = {name: array[frames] for name, array in vars(chunk.true).items()}
    return replace(chunk, predicted=replace(known(chunk.predicted), **pick), true=replace(chunk.true, **true))


def test_a_missing_frame_is_left_out_and_counted() -> None:
    chunk = scene_chunk(num_frames=6, image_hw_px=SIZE)
    short = {name: array[:4] for name, array in vars(known(chunk.predicted)).items()}
    scores = _pooled(
        score_chunk(replace(chunk, predicted=replace(known(chunk.predicted), **short)), scene_spec(SIZE), POLICY_ONLY)
    )
    whole = _pooled(score_chunk(_without_frames(chunk, 0, slice(4)), scene_spec(SIZE), POLICY_ONLY))
    for metric, score in scores.items():
        assert score.value == whole[metric].value
        assert score.status == "some_missing_frames"
        assert score.reason.startswith("4 of 12 images are not in the value (first: missing_frame: ")
        assert whole[metric].status == "ok"


@pytest.mark.parametrize("name", ["0000.png", "0002.png", "0005.png"])
def test_a_lost_depth_image_changes_no_other(tmp_path: Path, name: str) -> None:
    chunk = scene_chunk(num_frames=6, image_hw_px=SIZE)
    write_scene_folders(tmp_path / "pred", tmp_path / "true", chunk)
    for view in ("front", "side"):
        (tmp_path / "pred/depth" / view / name).unlink()
    scores = _pooled(score_folder_clip(tmp_path / "pred", tmp_path / "true", POLICY_ONLY))
    others = np.delete(np.arange(6), int(name[:4]))
    expected = _pooled(score_chunk(_without_frames(chunk, 0, others), scene_spec(SIZE), POLICY_ONLY))  # type: ignore[arg-type]
    for metric in POOLED[1:]:
        assert scores[metric].value == pytest.approx(expected[metric].value, rel=1e-9)
        assert (scores[metric].status, scores[metric].reason[:7]) == ("some_missing_frames", "2 of 12")
    assert scores[POOLED[0]].status == "ok"


def test_parts_of_a_clip_are_one_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_scene_folders(tmp_path / "pred", tmp_path / "true", scene_chunk(num_frames=7, image_hw_px=SIZE))
    whole = _pooled(score_folder_clip(tmp_path / "pred", tmp_path / "true", POLICY_ONLY))
    for num_frames in (1, 3, 7):
        monkeypatch.setattr(folder_clip, "FRAMES_A_PART", num_frames)
        parts = _pooled(score_folder_clip(tmp_path / "pred", tmp_path / "true", POLICY_ONLY))
        for metric, score in whole.items():
            assert parts[metric].value == pytest.approx(score.value, rel=1e-12)
            assert parts[metric].status == score.status


def test_a_lost_ground_truth_is_not_blamed_on_the_prediction(tmp_path: Path) -> None:
    write_scene_folders(tmp_path / "pred", tmp_path / "true", scene_chunk(num_frames=3, image_hw_px=SIZE))
    (tmp_path / "true/depth/front/0001.png").unlink()
    (tmp_path / "true/rgb/side/0002.png").write_bytes(b"no image")
    scores = score_folder_clip(tmp_path / "pred", tmp_path / "true", POLICY_ONLY)
    for metric, view, frame_idx in (("absrel/gt_mask_10m", "front", 1), ("ssim/gauss11", "side", 2)):
        (score,) = [s for s in scores if (s.metric, s.view, s.frame_idx) == (metric, view, frame_idx)]
        assert (score.value, score.status) == (None, "bad_truth")
    assert _pooled(scores)["psnr_db/clip_pooled"].reason.startswith("1 of 6 images are not in the value (first: bad_")


def test_a_clip_without_prediction_is_one_row(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        chunk = scene_chunk(num_frames=2, image_hw_px=SIZE)
        write_scene_folders(tmp_path / "pred" / name, tmp_path / "true" / name, chunk)
    (tmp_path / "pred/b").rename(tmp_path / "gone")
    (tmp_path / "pred/c").rename(tmp_path / "gone_too")
    (tmp_path / "pred/c").mkdir()
    scores = read_scores(
        score_folders(tmp_path / "pred", tmp_path / "true", tmp_path / "s.parquet", options=POLICY_ONLY)
    )
    for name, said in (("b", "does not exist"), ("c", "holds no file of frames")):
        (row,) = scores[scores["task"] == name].itertuples()
        assert (row.metric, row.status) == ("clip", "no_prediction")
        assert said in str(row.reason)


def test_invalid_predictions_are_named_in_the_cloud() -> None:
    chunk = scene_chunk(num_frames=2, image_hw_px=SIZE)
    depth_m = known(known(chunk.predicted).depth).copy()
    depth_m[0, 0, :2] = 0.0
    depth_m[1, 2, :3] = 65.0
    scores = score_chunk(
        replace(chunk, predicted=replace(known(chunk.predicted), depth=depth_m)), scene_spec(SIZE), POLICY_ONLY
    )
    clouds = [score for score in scores if score.metric == "chamfer_m/l1_half_10m"]
    assert [score.status for score in clouds] == ["some_invalid_depth", "some_far_depth"]
    num_pixels, num_lost = 3 * SIZE[0] * SIZE[1], 2 * SIZE[1]
    assert clouds[0].reason.startswith(f"of {num_pixels} pixels with a true depth, {num_lost} have no predicted depth")
    assert f"{3 * SIZE[1]} are predicted at 10 m or beyond" in clouds[1].reason
    assert known(clouds[1].value) > 1.0


def test_no_return_in_the_ground_truth_adds_no_point(tmp_path: Path) -> None:
    chunk = scene_chunk(num_frames=2, image_hw_px=SIZE)
    write_scene_folders(tmp_path / "pred", tmp_path / "true", chunk)
    path = tmp_path / "true/depth/front/0000.png"
    depth_mm = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    values = {}
    for mark in (0, 65535):
        depth_mm[:4] = mark
        path.write_bytes(cv2.imencode(".png", depth_mm)[1].tobytes())
        scores = score_folder_clip(tmp_path / "pred", tmp_path / "true", POLICY_ONLY)
        values[mark] = {(s.metric, s.frame_idx, s.view): (s.value, s.status) for s in scores}
    assert values[0] == values[65535]
