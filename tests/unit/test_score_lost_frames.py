"""Compared frames that are absent, unreadable or copies are named, and `--strict` does not exit with 0.

In: folders with two views, depth and states. Out: a verdict.
Read next: `evalkit/score/sources/clip_facts.py`, `evalkit/score/sources/read_log.py`.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from evalkit.cli.main import app
from evalkit.contracts.errors import BadConfig
from evalkit.score.chunk import ScoreOptions
from evalkit.score.folders import score_folders
from evalkit.score.results.checks import split_checks
from evalkit.score.results.table import read_scores
from evalkit.score.sources.folder_options import FolderOptions
from tests.doubles.folders import images, noisy

NUM_FRAMES = 6
QUICK = ScoreOptions(lpips_nets=(), references=False)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    rng = np.random.default_rng(3)
    true = {name: images(seed, NUM_FRAMES) for seed, name in enumerate(("front", "side"))}
    for side in ("pred", "gt"):
        for name, frames in true.items():
            for modality in ("rgb", "depth"):
                (tmp_path / side / "clip" / modality / name).mkdir(parents=True)
            for i, frame in enumerate(frames if side == "gt" else noisy(frames, 1)):
                Image.fromarray(frame).save(tmp_path / side / f"clip/rgb/{name}/{i:04d}.png")
                depth = (900 + 2 * frame[..., 0].astype(int) + rng.integers(0, 5, frame.shape[:2])).astype(np.uint16)
                Image.fromarray(depth).save(tmp_path / side / f"clip/depth/{name}/{i:04d}.png")
        states = np.zeros((NUM_FRAMES, 16), np.float32)
        states[:, 0], states[:, 3], states[:, 7] = np.linspace(0.3, 0.4, NUM_FRAMES), 1.0, 0.5
        np.savez(tmp_path / side / "clip/states.npz", proprio=states)
    return tmp_path / "pred", tmp_path / "gt"


def _checks(folders: tuple[Path, Path], **options: Any) -> list[tuple[str, str, str, str]]:
    to = folders[0].parent / "scores.parquet"
    score_folders(*folders, to, options=QUICK, files=FolderOptions.parse(**options))
    _, checks = split_checks(read_scores(to))
    rows = checks[checks["metric"] != "check/cameras"]
    return [tuple(map(str, row)) for row in rows[["metric", "subject", "view", "reason"]].itertuples(index=False)]  # type: ignore[misc]


def _absent_rgb(pred: Path, gt: Path) -> None:
    (pred / "clip/rgb/side/0002.png").unlink()


def _few_depth(pred: Path, gt: Path) -> None:
    for i in (4, 5):
        (pred / f"clip/depth/front/{i:04d}.png").unlink()


def _no_depth_of_side(pred: Path, gt: Path) -> None:
    shutil.rmtree(pred / "clip/depth/side")


def _absent_truth(pred: Path, gt: Path) -> None:
    (gt / "clip/rgb/front/0003.png").unlink()


def _few_states(pred: Path, gt: Path) -> None:
    path = pred / "clip/states.npz"
    np.savez(path, proprio=np.load(path)["proprio"][:4])


def _cut_off(pred: Path, gt: Path) -> None:
    for i in (3, 4):
        path = pred / f"clip/rgb/side/{i:04d}.png"
        path.write_bytes(path.read_bytes()[:-40])


def _cut_off_truth(pred: Path, gt: Path) -> None:
    path = gt / "clip/depth/front/0000.png"
    path.write_bytes(path.read_bytes()[:-40])


def _other_size(pred: Path, gt: Path) -> None:
    Image.fromarray(images(0, 1, (24, 32))[0]).save(pred / "clip/rgb/side/0005.png")


LOST: list[tuple[Callable[[Path, Path], None], str, str, str, str]] = [
    (
        _absent_rgb,
        "frame_count",
        "policy",
        "side",
        "prediction's rgb of side lacks 1 of 6 compared frames, first frame 2",
    ),
    (_few_depth, "frame_count", "policy", "front", "prediction's depth of front lacks 2 of 6 compared frames"),
    (_no_depth_of_side, "frame_count", "policy", "side", "prediction's depth of side lacks 6 of 6"),
    (_absent_truth, "frame_count", "ground_truth", "front", "ground truth's rgb of front lacks 1 of 6"),
    (_few_states, "frame_count", "policy", "", "has 4 states, so that 2 of 6 compared frames have none"),
    (_cut_off, "files", "policy", "side", "2 of 6 compared frames of the prediction's rgb of side cannot be used"),
    (_cut_off_truth, "files", "ground_truth", "front", "1 of 6 compared frames of the ground truth's depth of front"),
    (_other_size, "files", "policy", "side", "1 of 6 compared frames of the prediction's rgb of side"),
]


def test_complete_clips_are_quiet(folders: tuple[Path, Path]) -> None:
    assert _checks(folders) == []


@pytest.mark.parametrize(("damage", "check", "subject", "view", "said"), LOST, ids=[case[0].__name__ for case in LOST])
def test_frames_without_a_score_are_counted(
    folders: tuple[Path, Path], damage: Any, check: str, subject: str, view: str, said: str
) -> None:
    damage(*folders)
    found = _checks(folders)
    assert [row[:3] for row in found] == [(f"check/{check}", subject, view)]
    assert said in found[0][3]


def test_frames_absent_by_time_are_counted(folders: tuple[Path, Path]) -> None:
    for path in folders[0].rglob("0005.png"):
        path.unlink()
    found = _checks(folders, fps="2,1")  # predicted frames 0, 2, 4 belong to 0, 1, 2 of the ground truth
    assert any(row[0] == "check/frame_count" and "3 predicted frames from 6 on are absent" in row[3] for row in found)


def test_strict_is_3_for_an_unreadable_frame(folders: tuple[Path, Path]) -> None:
    _cut_off(*folders)
    flags = ["--lpips", "none", "--no-references", "--strict", "--out", str(folders[0].parent / "out")]
    assert CliRunner().invoke(app, ["score", "folders", *map(str, folders), *flags]).exit_code == 3


def test_a_copy_of_the_ground_truth_is_named(folders: tuple[Path, Path]) -> None:
    shutil.rmtree(folders[0])
    shutil.copytree(folders[1], folders[0])
    assert [row[0] for row in _checks(folders)] == ["check/same_images"]
    Image.fromarray(images(9, 1)[0]).save(folders[0] / "clip/rgb/front/0003.png")
    assert _checks(folders) == []


def _write_cameras(gt: Path, **views: Any) -> None:
    K = [[50.0, 0.0, 31.5], [0.0, 50.0, 23.5], [0.0, 0.0, 1.0]]
    listed = [{"name": name, "kind": "static", "intrinsics": K, **pose} for name, pose in views.items()]
    (gt / "clip/cameras.json").write_text(json.dumps({"views": listed}))


def _camera_rows(folders: tuple[Path, Path]) -> list[tuple[str, str, str]]:
    scores = read_scores(score_folders(*folders, folders[0].parent / "scores.parquet", options=QUICK))
    assert scores[scores["metric"] == "psnr_db/frame_mean"]["value"].notna().all()
    rows = scores[scores["metric"] == "check/cameras"]
    return [tuple(map(str, row)) for row in rows[["view", "status", "reason"]].itertuples(index=False)]  # type: ignore[misc]


@pytest.mark.parametrize(("count", "said"), [(1, "has 1 poses"), (3, "has 3 poses for 6"), (8, "has 8 poses for 6")])
def test_a_wrong_number_of_poses_is_named(folders: tuple[Path, Path], count: int, said: str) -> None:
    one = {"T_base_cam": np.eye(4).tolist()}
    _write_cameras(folders[1], front={"T_base_cam": [np.eye(4).tolist()] * NUM_FRAMES}, side=one)
    assert _camera_rows(folders) == []
    _write_cameras(folders[1], front={"T_base_cam": [np.eye(4).tolist()] * count}, side=one)
    [(view, status, reason)] = _camera_rows(folders)
    assert (view, status) == ("front", "warning")
    assert said in reason


def test_cameras_without_images_are_named(folders: tuple[Path, Path]) -> None:
    one = {"T_base_cam": np.eye(4).tolist()}
    _write_cameras(folders[1], front=one, cam_2=one)
    [(view, status, reason)] = _camera_rows(folders)
    assert (view, status) == ("cam_2", "warning")
    assert reason == "cameras.json names cam_2, which has no images; the folders are front, side"
    _write_cameras(folders[1], cam_1=one, cam_2=one)
    (_, status, reason), *_ = _camera_rows(folders)
    assert (status, reason[:60]) == ("refused", "cameras.json names cam_1, cam_2, the folders are front, side")


def test_an_open_convention_costs_clouds_alone(folders: tuple[Path, Path]) -> None:
    _write_cameras(folders[1], front={"c2w": np.eye(4).tolist()}, side={"c2w": np.eye(4).tolist()})
    (_, status, reason), *_ = _camera_rows(folders)
    assert status == "refused"
    assert "add --camera-convention opencv, opengl or colmap" in reason


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.full((6, 48, 64, 3), np.nan, np.float32), "float32 colours without a finite value"),
        (np.linspace(-1, 1, 6 * 48 * 64 * 3, dtype=np.float32).reshape(6, 48, 64, 3), "colours from -1 to "),
        (np.full((6, 48, 64, 3), 255.0), "float64 colours from 255 to 255, expected 8 bits"),
    ],
)
def test_the_range_of_colours_is_named(folders: tuple[Path, Path], array: np.ndarray, said: str) -> None:
    shutil.rmtree(folders[0] / "clip/rgb/front")
    np.save(folders[0] / "clip/rgb/front.npy", array)
    assert any(row[:3] == ("check/files", "policy", "front") and said in row[3] for row in _checks(folders))


def test_an_array_cut_off_names_its_frames(folders: tuple[Path, Path]) -> None:
    shutil.rmtree(folders[0] / "clip/rgb/front")
    path = folders[0] / "clip/rgb/front.npy"
    np.save(path, noisy(images(0, NUM_FRAMES), 1))
    path.write_bytes(path.read_bytes()[: -2 * 48 * 64 * 3])
    [row] = _checks(folders)
    assert "2 of 6 compared frames" in row[3]
    assert "is cut off: it holds 4 of 6 frames" in row[3]


def test_no_words_of_opencv_on_stderr(folders: tuple[Path, Path], capfd: pytest.CaptureFixture[str]) -> None:
    _cut_off(*folders)
    assert [row[0] for row in _checks(folders)] == ["check/files"]
    assert capfd.readouterr().err == ""


def test_dry_run_exits_with_2_if_nothing_is_scored(folders: tuple[Path, Path]) -> None:
    command = ["score", "folders", *map(str, folders), "--dry-run"]
    assert CliRunner().invoke(app, command).exit_code == 0
    done = CliRunner().invoke(app, [*command, "--gt-offset", "9"])
    assert "No clip can be scored" in str(done.exception)


def test_the_same_folder_twice_is_refused(folders: tuple[Path, Path]) -> None:
    with pytest.raises(BadConfig, match="PRED_DIR and GT_DIR are both"):
        _checks((folders[1], folders[1] / "clip/.."))


def test_results_among_predictions_are_no_clips(folders: tuple[Path, Path]) -> None:
    flags = ["--lpips", "none", "--no-references", "--strict"]
    for _ in range(2):
        done = CliRunner().invoke(app, ["score", "folders", *map(str, folders), *flags, "--out", f"{folders[0]}/out"])
        assert "no_truth" not in done.output
    assert set(read_scores(folders[0] / "out/scores.parquet")["clip"]) == {"clip"}
    for to in (folders[0], folders[0] / "clip"):
        done = CliRunner().invoke(app, ["score", "folders", *map(str, folders), *flags, "--out", str(to)])
        assert isinstance(done.exception, BadConfig)
        assert "lies among the frames of" in str(done.exception)
