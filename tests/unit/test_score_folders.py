"""Two folders of frames: the same scores as from a clip, and every broken file is a named outcome.

In: folders written from the synthetic scene. Out: a verdict.
Read next: `evalkit/score/folders.py`.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from evalkit.contracts.errors import BadConfig
from evalkit.score import folder_clip
from evalkit.score.chunk import ScoreOptions, score_chunk
from evalkit.score.folders import score_folders
from evalkit.score.results.outcome import Measure
from evalkit.score.results.table import read_scores
from evalkit.score.sources.clip_files import Stream
from evalkit.score.sources.images import open_view
from evalkit.store.clips import ClipChunk
from tests.doubles.folders import score_folder_clip
from tests.doubles.known import known
from tests.doubles.scene import scene_chunk, scene_spec, write_scene_folders

SIZE = (24, 32)
NO_LPIPS = ScoreOptions(lpips_nets=())


@pytest.fixture
def chunk() -> ClipChunk:
    return scene_chunk(num_frames=3, image_hw_px=SIZE)


@pytest.fixture
def folders(tmp_path: Path, chunk: ClipChunk) -> tuple[Path, Path]:
    pred, true = tmp_path / "pred", tmp_path / "true"
    write_scene_folders(pred / "clip", true / "clip", chunk)
    return pred, true


def _status(folders: tuple[Path, Path], metric: Any, frame_idx: Any = None) -> Any:
    pred, true = folders
    scores = score_folder_clip(pred / "clip", true / "clip", NO_LPIPS)
    found = [s for s in scores if s.metric == metric and s.subject == "policy"]
    assert all(s.value is None or np.isfinite(s.value) for s in scores)
    return {s.status for s in found if frame_idx is None or s.frame_idx == frame_idx}


def test_folders_score_as_the_clip_does(folders: tuple[Path, Path], chunk: ClipChunk) -> None:
    pred, true = folders
    ours = {
        (s.subject, s.frame_idx, s.view, s.metric): s.value
        for s in score_folder_clip(pred / "clip", true / "clip", NO_LPIPS)
    }
    expected = {
        (s.subject, s.frame_idx, s.view, s.metric): s.value for s in score_chunk(chunk, scene_spec(SIZE), NO_LPIPS)
    }
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
        assert ours[key] == (None if value is None else pytest.approx(value, rel=1e-9, abs=1e-9)), key


def test_a_result_file_has_a_task_a_clip(folders: tuple[Path, Path], tmp_path: Path) -> None:
    seen = []
    path = score_folders(*folders, tmp_path / "scores.parquet", on_progress=lambda *p: seen.append(p), options=NO_LPIPS)
    assert set(read_scores(path)["task"]) == {"clip"}
    assert seen == [(1, 1)]


def test_one_clip_may_be_given_alone(folders: tuple[Path, Path], tmp_path: Path) -> None:
    pred, true = folders
    path = score_folders(pred / "clip", true / "clip", tmp_path / "scores.parquet", options=NO_LPIPS)
    assert set(read_scores(path)["task"]) == {"clip"}


def test_npz_and_mp4_are_read(folders: tuple[Path, Path], chunk: ClipChunk) -> None:
    pred, _ = folders
    for what in ("rgb", "depth"):
        for png in (pred / "clip" / what / "front").glob("*.png"):
            png.unlink()
        (pred / "clip" / what / "front").rmdir()
    np.savez(pred / "clip/depth/front.npz", depth_m=known(known(chunk.predicted).depth)[:, 0])
    with av.open(str(pred / "clip/rgb/front.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        for frame in known(chunk.predicted).rgb[:, 0]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    assert _status(folders, "psnr_db/frame_mean") == {"ok"}
    assert _status(folders, "absrel/gt_mask_10m") == {"ok"}
    video = pred / "clip/rgb/front.mp4"
    video.write_bytes(video.read_bytes()[:200])
    assert _status(folders, "psnr_db/frame_mean") == {"ok", "unreadable"}
    depth = pred / "clip/depth/front.npz"
    depth.write_bytes(depth.read_bytes()[:300])
    assert "unreadable" in _status(folders, "absrel/gt_mask_10m")


def test_a_truncated_png_is_named(folders: tuple[Path, Path]) -> None:
    png = folders[0] / "clip/rgb/front/0001.png"
    png.write_bytes(png.read_bytes()[:-30])
    assert _status(folders, "ssim/gauss11", 1) == {"unreadable", "ok"}
    assert _status(folders, "ssim/gauss11", 0) == {"ok"}
    depth = folders[0] / "clip/depth/wrist/0002.png"
    depth.write_bytes(b"")
    assert _status(folders, "chamfer_m/l1_half_10m", 2) == {"unreadable"}
    assert _status(folders, "chamfer_m/l1_half_10m", 0) == {"ok"}


def test_a_missing_frame_and_a_wrong_size_are_named(folders: tuple[Path, Path]) -> None:
    (folders[0] / "clip/rgb/front/0002.png").unlink()
    assert _status(folders, "psnr_db/frame_mean", 2) == {"missing_frame", "ok"}
    small = np.zeros((8, 8, 3), np.uint8)
    (folders[0] / "clip/rgb/side/0000.png").write_bytes(cv2.imencode(".png", small)[1].tobytes())
    assert _status(folders, "psnr_db/frame_mean", 0) == {"wrong_size", "ok"}


def test_depth_that_is_not_uint16_is_named(folders: tuple[Path, Path]) -> None:
    path = folders[0] / "clip/depth/front/0000.png"
    path.write_bytes(cv2.imencode(".png", np.zeros(SIZE, np.uint8))[1].tobytes())
    assert "unreadable" in _status(folders, "absrel/gt_mask_10m", 0)


def test_missing_intrinsics_are_named(folders: tuple[Path, Path]) -> None:
    path = folders[1] / "clip/cameras.json"
    data = json.loads(path.read_text())
    del data["views"][0]["intrinsics"]
    path.write_text(json.dumps(data))
    assert _status(folders, "chamfer_m/l1_half_10m") == {"bad_camera"}
    assert _status(folders, "absrel/gt_mask_10m") == {"ok"}


def test_without_predicted_states_the_wrist_is_left_out_by_name(folders: tuple[Path, Path]) -> None:
    (folders[0] / "clip/states.npz").unlink()
    assert _status(folders, "chamfer_m/l1_half_10m") == {"ok", "no_predicted_state"}


def test_without_true_states_nothing_is_infinite(folders: tuple[Path, Path]) -> None:
    (folders[1] / "clip/states.npz").unlink()
    assert _status(folders, "ee_position_mm/euclidean") == {"bad_truth"}


def test_a_prediction_that_is_not_there_is_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    scores = score_folder_clip(tmp_path / "nowhere", folders[1] / "clip", NO_LPIPS)
    [row] = [score for score in scores if score.metric == "clip"]
    assert (row.status, "nowhere does not exist" in row.reason) == ("no_prediction", True)
    assert all(score.value is None for score in scores)


def test_folders_without_a_common_clip_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    pred, true = folders
    (pred / "clip").rename(pred / "other")
    with pytest.raises(BadConfig, match=r"holds no prediction named clip, .* it holds other"):
        score_folders(pred, true, tmp_path / "scores.parquet")
    with pytest.raises(BadConfig, match="true has cameras: name the folder of the ground truth second"):
        score_folders(true, pred, tmp_path / "scores.parquet")
    assert not (tmp_path / "scores.parquet").exists()


def test_what_is_no_truth_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadConfig, match="holds no clip"):
        score_folders(folders[0], tmp_path / "empty", tmp_path / "scores.parquet")


def test_extreme_depth_is_far_not_near(chunk: ClipChunk) -> None:
    predicted = known(chunk.predicted)
    far = replace(predicted, depth=np.full_like(known(predicted.depth), 1e30))
    scores = score_chunk(replace(chunk, predicted=far), scene_spec(SIZE), NO_LPIPS)
    values = [known(s.value) for s in scores if s.metric == "chamfer_m/l1_pred_to_gt_10m" and s.subject == "policy"]
    assert min(values) > 1e20


def test_a_frame_left_out_shifts_no_other(folders: tuple[Path, Path]) -> None:
    (folders[0] / "clip/rgb/front/0001.png").unlink()
    assert _status(folders, "psnr_db/frame_mean", 1) == {"missing_frame", "ok"}
    assert _status(folders, "psnr_db/frame_mean", 2) == {"ok"}
    for png in (folders[0] / "clip/rgb/side").glob("*.png"):
        png.rename(png.with_name(f"frame{png.name}"))
    assert _status(folders, "psnr_db/frame_mean", 0) == {"ok"}
    for png in (folders[0] / "clip/rgb/side").glob("*.png"):
        png.rename(png.with_name(f"{png.stem.translate(str.maketrans('012', 'abc'))}.png"))
    assert _status(folders, "psnr_db/frame_mean", 0) == {"missing_frame", "ok"}


@pytest.mark.parametrize("frames_a_part", [1, 2])
def test_parts_of_a_clip_give_what_the_whole_gives(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, frames_a_part: int
) -> None:
    def values() -> Any:
        found = score_folder_clip(folders[0] / "clip", folders[1] / "clip", NO_LPIPS)
        return {(s.subject, s.frame_idx, s.view, s.metric): s.value for s in found if s.frame_idx >= 0}

    whole = values()
    monkeypatch.setattr(folder_clip, "FRAMES_A_PART", frames_a_part)
    parts = values()
    assert {key for key in whole if key[0] != "ground_truth"} <= set(parts)
    assert all(whole[key] == value for key, value in parts.items())


def test_unreadable_states_are_bad_and_short_ones_missing(folders: tuple[Path, Path]) -> None:
    path = folders[0] / "clip/states.npz"
    states = np.load(path)["proprio"]
    for broken in (path.read_bytes()[:100], b"", b"no archive"):
        path.write_bytes(broken)
        assert _status(folders, "ee_position_mm/euclidean") == {"bad_state"}
    np.savez(path, proprio=states.reshape(-1, 8))
    assert _status(folders, "ee_position_mm/euclidean") == {"bad_state"}
    np.savez(path, proprio=states[:1])
    assert _status(folders, "ee_position_mm/euclidean", 0) == {"ok"}
    assert _status(folders, "ee_position_mm/euclidean", 1) == {"missing_frame"}


@pytest.mark.parametrize(
    ("change", "statuses"),
    [
        (lambda views: views[2].pop("T_ee_cam"), [{"bad_camera"}] * 2),
        (lambda views: views[2].update(T_ee_cam=[[1, 0], [0, 1]]), [{"bad_camera"}] * 2),
        (lambda views: views[0].update(T_base_cam=np.zeros((4, 4)).tolist()), [{"bad_camera"}] * 2),
        (lambda views: views[0].update(intrinsics=[[0, 0, 0]] * 3), [{"bad_camera"}] * 2),
        (lambda views: views[0].update(T_base_cam=views[0]["T_base_cam"][:1]), [{"ok"}, {"bad_camera"}]),
        (lambda views: views[0].update(T_base_cam=np.diag([1, 1, -1, 1]).tolist()), [{"bad_camera"}] * 2),
        (lambda views: views[0].update(T_base_cam=[views[0]["T_base_cam"]]), [{"bad_camera"}] * 2),
        (lambda views: views[0].update(intrinsics=[views[0]["intrinsics"]] * 3), [{"bad_camera"}] * 2),
    ],
)
def test_cameras_that_cannot_be_used_are_named(folders: tuple[Path, Path], change: Any, statuses: Any) -> None:
    path = folders[1] / "clip/cameras.json"
    data = json.loads(path.read_text())
    change(data["views"])
    path.write_text(json.dumps(data))
    assert [_status(folders, "chamfer_m/l1_half_10m", frame_idx) for frame_idx in (0, 1)] == statuses
    assert _status(folders, "absrel/gt_mask_10m") == {"ok"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda views: views[0].update(kind="moving"), "static or wrist, got 'moving'"),
        (lambda views: views[2].update(arm="middle"), "left or right, got 'middle'"),
        (lambda views: views[1].update(name="front"), "names a view twice"),
        (lambda views: views.clear(), "names no view"),
        (lambda views: views[0].pop("name"), "not a list of cameras"),
        (lambda views: views[0].update(name=5), "the name of a view must be a text, got 5"),
        (lambda views: views[0].update(kind=["static"]), "not a list of cameras"),
    ],
)
def test_broken_cameras_cost_clouds_alone(
    folders: tuple[Path, Path], tmp_path: Path, chunk: ClipChunk, change: Any, said: str
) -> None:
    write_scene_folders(folders[0] / "other", folders[1] / "other", chunk)
    write_scene_folders(folders[0] / "extra", tmp_path / "unused", chunk)
    path = folders[1] / "clip/cameras.json"
    data = json.loads(path.read_text())
    change(data["views"])
    path.write_text(json.dumps(data))
    scores = read_scores(score_folders(*folders, tmp_path / "scores.parquet", options=NO_LPIPS))
    assert list(scores[scores["metric"] == "clip"]["status"]) == ["no_truth"]
    checks = scores[(scores["metric"] == "check/cameras") & (scores["task"] == "clip")]
    assert said in checks["reason"].iloc[0]
    assert checks["status"].iloc[0] == "refused"
    valued = scores[scores["value"].notna() & (scores["subject"] == "policy")].groupby("task", observed=True)["metric"]
    has = {task: set(metrics) for task, metrics in valued}
    assert "chamfer_m/l1_half_10m" in has["other"] - has["clip"]
    assert "psnr_db/frame_mean" in has["clip"]
    assert ("absrel/gt_mask_10m" in has["clip"]) == ("check/depth_unit" not in set(scores["metric"]))


def test_a_seen_frame_that_cannot_be_read_is_no_floor(folders: tuple[Path, Path]) -> None:
    (folders[1] / "clip/start/depth/side/0000.png").write_bytes(b"no image")
    scores = score_folder_clip(folders[0] / "clip", folders[1] / "clip", NO_LPIPS)
    (floor,) = [s for s in scores if s.subject == "repeat_last_frame"]
    assert (floor.status, floor.value) == ("bad_truth", None)
    assert "the start frame" in floor.reason


def test_arrays_that_are_no_frames_are_named(folders: tuple[Path, Path], chunk: ClipChunk) -> None:
    def write(**arrays: Any) -> Any:
        shutil.rmtree(folders[0] / "clip/depth/front", ignore_errors=True)
        np.savez_compressed(folders[0] / "clip/depth/front.npz", **arrays)
        return _status(folders, "absrel/gt_mask_10m", 0)

    depth_m = known(known(chunk.predicted).depth)[:, 0]
    assert write(depth_m=depth_m.astype(np.float64)) == {"ok"}
    assert write(depth_m=(depth_m * 1000).astype(np.uint16)) == {"unreadable", "ok"}
    assert write(depth_m=depth_m[0]) == {"ok"}
    assert _status(folders, "absrel/gt_mask_10m", 1) == {"missing_frame", "ok"}
    assert write(depth_m=depth_m[:, 0]) == {"wrong_size", "ok"}
    assert write(depth=depth_m) == {"ok"}
    assert write(disparity=depth_m, confidence=depth_m) == {"unreadable", "ok"}
    assert write(depth_m=np.full_like(depth_m, np.nan)) == {"all_invalid_depth", "ok"}


def test_an_mp4_without_a_picture_is_named(folders: tuple[Path, Path]) -> None:
    shutil.rmtree(folders[0] / "clip/rgb/front")
    for data in (b"", b"no video" * 100):
        (folders[0] / "clip/rgb/front.mp4").write_bytes(data)
        assert _status(folders, "psnr_db/frame_mean", 0) == {"unreadable", "ok"}


def test_a_video_that_is_cut_off_gives_no_frame_from_there_on(tmp_path: Path) -> None:
    """mpeg4's decoder shows the frame before in place of what is lost, and says nothing."""
    rng, path = np.random.default_rng(0), tmp_path / "rgb/front.mp4"
    path.parent.mkdir()
    images = rng.integers(0, 256, (20, 4, 6, 3), np.uint8).repeat(16, axis=1).repeat(16, axis=2)
    video = Stream(kind="video", paths=(path,))
    for codec in ("mpeg4", "libx264"):
        with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
            stream = container.add_stream(codec, rate=5)
            stream.height, stream.width, stream.pix_fmt = 64, 96, "yuv420p"
            for frame in images:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
        whole = open_view(video, "rgb", range(20)).take(99)
        assert len(whole) == 20
        data = path.read_bytes()
        for share in (0.4, 0.7, 0.95):
            path.write_bytes(data[: int(share * len(data))])
            frames = open_view(video, "rgb", range(20)).take(99)
            last = frames[-1]
            assert isinstance(last, Measure)
            assert last.status == "unreadable"
            readable = [frame for frame in frames if not isinstance(frame, Measure)]
            assert all(np.array_equal(a, np.asarray(b)) for a, b in zip(readable, whole, strict=False))


def test_colours_of_sixteen_bits_are_named(folders: tuple[Path, Path]) -> None:
    path = folders[0] / "clip/rgb/front/0000.png"
    path.write_bytes(cv2.imencode(".png", np.full((*SIZE, 3), 40000, np.uint16))[1].tobytes())
    assert _status(folders, "psnr_db/frame_mean", 0) == {"unreadable", "ok"}


def test_what_one_clip_has_is_missing_in_another(folders: tuple[Path, Path], tmp_path: Path, chunk: ClipChunk) -> None:
    pred, true = folders
    write_scene_folders(pred / "other", true / "other", chunk)
    shutil.rmtree(pred / "other/depth")
    (pred / "other/states.npz").unlink()
    scores = read_scores(score_folders(pred, true, tmp_path / "scores.parquet", options=NO_LPIPS))
    scores = scores[(scores["subject"] == "policy") & (scores["task"] == "other")].set_index("metric")
    for metric in (
        "absrel/gt_mask_10m",
        "absrel/gt_mask_clip_pooled_10m",
        "chamfer_m/l1_half_10m",
        "ee_position_mm/euclidean",
    ):
        assert set(scores.loc[[metric], "status"]) == {"missing_frame"}
    assert scores["value"].count() == len(scores.filter(regex="psnr_db/(frame|clip)|ssim", axis=0))


def test_a_change_from_a_broken_frame_is_named(folders: tuple[Path, Path]) -> None:
    (folders[0] / "clip/depth/front/0001.png").unlink()
    for frame_idx, said in ((0, set()), (1, {"missing_frame", "ok"}), (2, {"missing_frame", "ok"})):
        assert _status(folders, "depth_change_m/gt_mask_10m", frame_idx) == said
    assert _status(folders, "absrel/gt_mask_10m", 2) == {"ok"}


def test_a_failed_clip_is_a_row_and_others_are_scored(
    folders: tuple[Path, Path], tmp_path: Path, chunk: ClipChunk, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scene_folders(folders[0] / "other", folders[1] / "other", chunk)
    calls = []

    def fails_once(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return 1 / 0 if len(calls) == 1 else score_chunk(*args, **kwargs)

    monkeypatch.setattr(folder_clip, "score_chunk", fails_once)
    scores = read_scores(score_folders(*folders, tmp_path / "scores.parquet", options=NO_LPIPS))
    (row,) = scores[scores["metric"] == "clip"].itertuples()
    assert (row.task, row.status, row.reason) == ("clip", "scoring_failed", "ZeroDivisionError: division by zero")
    assert scores[scores["task"] == "other"]["value"].notna().any()


def test_images_smaller_than_a_window_are_named(tmp_path: Path) -> None:
    write_scene_folders(tmp_path / "pred", tmp_path / "true", scene_chunk(num_frames=2, image_hw_px=(8, 10)))
    scores = score_folder_clip(tmp_path / "pred", tmp_path / "true", NO_LPIPS)
    assert {s.status for s in scores if s.metric == "ssim/gauss11"} == {"too_small"}
    assert {s.status for s in scores if s.metric == "psnr_db/frame_mean" and s.subject == "policy"} == {"ok"}
