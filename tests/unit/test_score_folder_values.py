"""Folders as other people write them: values equal to an independent computation to 1e-6.

In: clips written with imageio, Pillow, tifffile and FFmpeg; cameras in closed form. Out: a verdict.
Read next: `evalkit/score/folders.py`; docs/scoring.md, which shows the same layouts.

The expected values come from scikit-image, numpy and scipy alone.
"""

import json
import sys
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image
from scipy.spatial import cKDTree
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from evalkit.score.chunk import ScoreOptions
from evalkit.score.folders import score_folders
from evalkit.score.results.table import read_scores
from evalkit.score.sources.folder_options import FolderOptions
from tests.doubles.folders import GL_FROM_CV, SIZE, images, noisy, room, write_depth_clips, write_video

ONLY = ScoreOptions(references=False, lpips_nets=())


def scored(pred: Path, true: Path, tmp_path: Path, **said: Any) -> pd.DataFrame:
    """Return the rows of the prediction's metrics, and of the checks."""
    options = FolderOptions.parse(**said)
    return read_scores(score_folders(pred, true, tmp_path / "scores.parquet", options=ONLY, files=options))


def values(table: pd.DataFrame, metric: str, **where: Any) -> list[float]:
    rows = table[table["metric"] == metric]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    assert (rows["status"] == "ok").all(), rows[["status", "reason"]].to_string()
    return rows["value"].tolist()


def no_findings(table: pd.DataFrame) -> None:
    found = [str(reason) for metric, reason in zip(table["metric"], table["reason"], strict=True) if "check/" in metric]
    assert not found


def check_images(table: pd.DataFrame, true: np.ndarray, pred: np.ndarray, **where: Any) -> None:
    psnr = [peak_signal_noise_ratio(t, p, data_range=255) for t, p in zip(true, pred, strict=True)]
    ssim = [gaussian_ssim(t, p) for t, p in zip(true, pred, strict=True)]
    assert values(table, "psnr_db/frame_mean", **where) == pytest.approx(psnr, abs=1e-6)
    assert values(table, "ssim/gauss11", **where) == pytest.approx(ssim, abs=1e-6)
    pooled = 10 * np.log10(255**2 / mean_squared_error(true, pred))
    where.pop("view", None)
    assert values(table, "psnr_db/clip_pooled", **where) == pytest.approx([pooled], abs=1e-6)


def gaussian_ssim(true: np.ndarray, pred: np.ndarray) -> float:
    """Return scikit-image's SSIM with its 11-pixel Gaussian window, averaged over its valid part."""
    _, full = structural_similarity(
        true,
        pred,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        full=True,
    )
    return float(full[5:-5, 5:-5].mean())


def test_a_flat_video_against_a_folder_of_images(tmp_path: Path) -> None:
    true = images(0)
    pred = noisy(true, 1)
    write_video(tmp_path / "pred/clip.mp4", pred, "libx264rgb", "rgb24")
    (tmp_path / "gt/clip").mkdir(parents=True)
    for frame, image in enumerate(true):
        iio.imwrite(tmp_path / f"gt/clip/{frame:05d}.png", image)
    table = scored(tmp_path / "pred", tmp_path / "gt", tmp_path)
    no_findings(table)
    assert set(table["task"]) == {"clip"}
    check_images(table, true, pred, view="camera")


def test_tasks_with_episodes_of_jpgs(tmp_path: Path) -> None:
    decoded: dict[tuple[str, str, str], np.ndarray] = {}
    for task in ("close", "open"):
        for episode in ("episode_2", "episode_10"):
            for side, seed in (("gt", 3), ("pred", 4)):
                folder = tmp_path / side / task / episode
                folder.mkdir(parents=True)
                frames = noisy(images(len(task)), seed)
                for frame, image in enumerate(frames):
                    Image.fromarray(image).save(folder / f"frame_{frame + 1:04d}.jpg", quality=93)
                decoded[side, task, episode] = np.stack(
                    [np.asarray(Image.open(path)) for path in sorted(folder.iterdir())]
                )
    table = scored(tmp_path / "pred", tmp_path / "gt", tmp_path)
    no_findings(table)
    assert set(zip(table["task"], table["index"], strict=True)) == {(t, i) for t in ("close", "open") for i in (0, 1)}
    for task in ("close", "open"):
        for index, episode in enumerate(("episode_2", "episode_10")):
            true, pred = decoded["gt", task, episode], decoded["pred", task, episode]
            check_images(table, true, pred, task=task, index=index)


def cloud(depths: dict[str, np.ndarray], cameras: dict[str, Any]) -> np.ndarray:
    points = []
    for name, depth in depths.items():
        _, T, _, rays = cameras[name]
        points.append((rays * depth[..., None]).reshape(-1, 3) @ T[:3, :3].T + T[:3, 3])
    return np.concatenate(points)


def chamfer_half(true: np.ndarray, pred: np.ndarray) -> float:
    return float((cKDTree(true).query(pred)[0].mean() + cKDTree(pred).query(true)[0].mean()) / 2)


def check_depth(table: pd.DataFrame, stored: Any, cameras: dict[str, Any], num_frames: int = 2) -> None:
    for frame in range(num_frames):
        true, pred = stored["gt", frame], stored["pred", frame]
        for name in cameras:
            t, p = true[name].astype(np.float64), pred[name].astype(np.float64)
            [absrel] = values(table, "absrel/gt_mask_10m", frame_idx=frame, view=name)
            assert absrel == pytest.approx(np.mean(np.abs(p - t) / t), abs=1e-6)
            [rmse] = values(table, "rmse_m/gt_mask_10m", frame_idx=frame, view=name)
            assert rmse == pytest.approx(np.sqrt(np.mean((p - t) ** 2)), abs=1e-6)
        expected = chamfer_half(cloud(true, cameras), cloud(pred, cameras))
        [measured] = values(table, "chamfer_m/l1_half_10m", frame_idx=frame)
        assert measured == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("form", ["views", "named", "w2c", "colmap", "stated", "nerf"])
def test_depth_images_with_a_scale_and_opengl_cameras(tmp_path: Path, form: str) -> None:
    cameras = room(SIZE)
    stored = write_depth_clips(tmp_path, cameras, per_m=5000.0)
    said = {"depth_scale": "5000", "camera_convention": "opengl"}
    poses_gl = {name: T @ GL_FROM_CV for name, (_, T, _, _) in cameras.items()}
    intrinsics = {name: K for name, (K, _, _, _) in cameras.items()}
    data: Any
    if form == "views":
        data = {
            "views": [
                {"name": n, "kind": "static", "intrinsics": intrinsics[n].tolist(), "T_base_cam": T.tolist()}
                for n, T in poses_gl.items()
            ]
        }
    elif form == "named":
        data = {
            n: {"fx": K[0, 0], "fy": K[1, 1], "cx": K[0, 2], "cy": K[1, 2], "c2w": poses_gl[n][:3].tolist()}
            for n, K in intrinsics.items()
        }
    elif form == "w2c":
        data = {
            "cameras": {
                n: {"K": K.ravel().tolist(), "w2c": np.linalg.inv(poses_gl[n]).tolist()} for n, K in intrinsics.items()
            }
        }
    elif form == "colmap":
        said["camera_convention"] = "colmap"
        data = {
            n: {"K": K.tolist(), "extrinsics": np.linalg.inv(cameras[n][1]).tolist()} for n, K in intrinsics.items()
        }
    elif form == "stated":
        said = {}
        data = {
            "convention": "opengl",
            "depth_scale": 0.0002,
            "cameras": [
                {"name": n, "K": [K[0, 0], K[1, 1], K[0, 2], K[1, 2]], "T_world_cam": poses_gl[n].tolist()}
                for n, K in intrinsics.items()
            ],
        }
    else:
        said = {"depth_scale": "5000"}
        K = intrinsics["front"]
        frames = [
            {"file_path": f"rgb/{n}/{f:04d}.png", "transform_matrix": T.tolist()}
            for n, T in poses_gl.items()
            for f in range(2)
        ]
        data = {
            "fl_x": K[0, 0],
            "fl_y": K[1, 1],
            "cx": K[0, 2] + 0.5,
            "cy": K[1, 2] + 0.5,
            "w": SIZE[1],
            "h": SIZE[0],
            "frames": frames,
        }
    name = "transforms.json" if form == "nerf" else "cameras.json"
    (tmp_path / "gt/clip" / name).write_text(json.dumps(data))
    table = scored(tmp_path / "pred", tmp_path / "gt", tmp_path, **said)
    no_findings(table)
    check_depth(table, stored, cameras)


@pytest.mark.parametrize("kind", ["tiff16", "tiff32", "npy", "npy_frames", "npz", "ffv1", "exr"])
def test_depth_in_other_files(tmp_path: Path, kind: str) -> None:
    cameras = room(SIZE)
    stored = write_depth_clips(tmp_path, cameras, per_m=1000.0)
    views = [
        {"name": n, "kind": "static", "intrinsics": K.tolist(), "T_base_cam": T.tolist()}
        for n, (K, T, _, _) in cameras.items()
    ]
    (tmp_path / "gt/clip/cameras.json").write_text(json.dumps({"views": views}))
    for name in cameras:
        folder = tmp_path / "pred/clip/depth" / name
        pngs = sorted(folder.iterdir())
        depth_m = np.stack([stored["pred", frame][name] for frame in range(2)])
        units = np.rint(depth_m * 1000).astype(np.uint16)
        for png in pngs:
            png.unlink()
        if kind.startswith("tiff"):
            for frame in range(2):
                tifffile.imwrite(folder / f"{frame}.tif", units[frame] if kind == "tiff16" else depth_m[frame])
        elif kind == "npy_frames":
            for frame in range(2):
                np.save(folder / f"depth_{frame}.npy", depth_m[frame])
        elif kind == "exr":
            exr = pytest.importorskip("OpenEXR", reason="the extra exr is not installed")
            for frame in range(2):
                header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
                exr.File(header, {"Z": depth_m[frame]}).write(str(folder / f"{frame}.exr"))
        else:
            folder.rmdir()
            if kind == "npy":
                np.save(folder.with_suffix(".npy"), units[..., None])
            elif kind == "npz":
                np.savez_compressed(folder.with_suffix(".npz"), depth_m=depth_m.astype(np.float64))
            else:
                write_video(folder.with_suffix(".mkv"), units, "ffv1", "gray16le")
    table = scored(tmp_path / "pred", tmp_path / "gt", tmp_path)
    no_findings(table)
    check_depth(table, stored, cameras)


def test_views_of_different_size_are_scored_each_at_its_own(tmp_path: Path) -> None:
    cameras = {"front": room(SIZE)["front"], "side": room((40, 50))["side"]}
    stored = write_depth_clips(tmp_path, cameras, per_m=1000.0)
    views = [
        {"name": n, "kind": "static", "intrinsics": K.tolist(), "T_base_cam": T.tolist()}
        for n, (K, T, _, _) in cameras.items()
    ]
    (tmp_path / "gt/clip/cameras.json").write_text(json.dumps({"views": views}))
    true = {name: images(7, 1, depth.shape)[0] for name, (_, _, depth, _) in cameras.items()}
    pred = {name: noisy(image, 8) for name, image in true.items()}
    for name, image in pred.items():
        for frame in range(2):
            iio.imwrite(tmp_path / f"pred/clip/rgb/{name}/{frame:04d}.png", image)
    table = scored(tmp_path / "pred", tmp_path / "gt", tmp_path)
    no_findings(table)
    check_depth(table, stored, cameras)
    for name in cameras:
        [first, second] = values(table, "psnr_db/frame_mean", view=name)
        assert (
            first == second == pytest.approx(peak_signal_noise_ratio(true[name], pred[name], data_range=255), abs=1e-6)
        )
        assert values(table, "ssim/gauss11", view=name)[0] == pytest.approx(
            gaussian_ssim(true[name], pred[name]), abs=1e-6
        )


@pytest.mark.parametrize("kind", ["npy", "channels_first", "float", "npz", "webp", "tiff", "npy_frames", "bmp"])
def test_colours_in_other_files(tmp_path: Path, kind: str) -> None:
    true = images(0)
    pred = noisy(true, 1)
    np.savez(tmp_path / "gt.npz", rgb=true)
    (tmp_path / "pred").mkdir()
    name = "gt"
    if kind == "npy":
        np.save(tmp_path / "pred" / f"{name}.npy", pred)
    elif kind == "channels_first":
        np.save(tmp_path / "pred" / f"{name}.npy", pred.transpose(0, 3, 1, 2))
    elif kind == "float":
        np.save(tmp_path / "pred" / f"{name}.npy", (pred / 255).astype(np.float32))
    elif kind == "npz":
        np.savez(tmp_path / "pred" / f"{name}.npz", frames=pred, actions=np.zeros((4, 7)))
    else:
        (tmp_path / "pred" / name).mkdir()
        for frame, image in enumerate(pred):
            path = tmp_path / "pred" / name / f"img{frame}"
            if kind == "webp":
                Image.fromarray(image).save(path.with_suffix(".webp"), lossless=True)
            elif kind == "tiff":
                tifffile.imwrite(path.with_suffix(".tiff"), image, photometric="rgb")
            elif kind == "bmp":
                iio.imwrite(path.with_suffix(".bmp"), image)
            else:
                np.save(path.with_suffix(".npy"), image)
    table = scored(tmp_path / "pred", tmp_path / "gt.npz", tmp_path)
    no_findings(table)
    check_images(table, true, pred)


def test_masks_of_the_robot_limit_the_pixels(tmp_path: Path) -> None:
    true = images(0)
    pred, robot = noisy(true, 1), np.random.default_rng(2).random((4, *SIZE)) < 0.2
    np.savez(tmp_path / "pred.npz", rgb=pred)
    for frame, (image, mask) in enumerate(zip(true, robot, strict=True)):
        for folder in ("gt/rgb/front", "gt/mask/front"):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        iio.imwrite(tmp_path / f"gt/rgb/front/{frame:04d}.png", image)
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / f"gt/mask/front/{frame:04d}.png")
    table = scored(tmp_path / "pred.npz", tmp_path / "gt", tmp_path)
    no_findings(table)
    expected = [
        10 * np.log10(255**2 / np.mean((t[m].astype(float) - p[m].astype(float)) ** 2))
        for t, p, m in zip(true, pred, robot, strict=True)
    ]
    assert values(table, "psnr_db/robot_pixels") == pytest.approx(expected, abs=1e-6)
    (tmp_path / "gt/mask/front/0002.png").unlink()
    table = scored(tmp_path / "pred.npz", tmp_path / "gt", tmp_path)
    assert set(table[table["metric"] == "check/mask"]["status"]) == {"warning"}


def test_an_exr_without_its_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cameras = room(SIZE)
    write_depth_clips(tmp_path, cameras, per_m=1000.0)
    for png in (tmp_path / "pred/clip/depth/front").iterdir():
        png.rename(png.with_suffix(".exr"))
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    table = scored(tmp_path / "pred", tmp_path / "gt", tmp_path)
    rows = table[(table["metric"] == "absrel/gt_mask_10m") & (table["view"] == "front")]
    assert set(rows["status"]) == {"unavailable"}
    assert "run `pip install OpenEXR`" in rows["reason"].iloc[0]


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "found"),
    [("libx264", "yuv420p", "h264 with pixel format yuv420p"), ("ffv1", "gray", "ffv1 with pixel format gray")],
)
def test_a_video_that_loses_depth_is_refused(tmp_path: Path, codec: str, pix_fmt: str, found: str) -> None:
    cameras = room(SIZE)
    write_depth_clips(tmp_path, cameras, per_m=1000.0)
    folder = tmp_path / "pred/clip/depth/front"
    for png in folder.iterdir():
        png.unlink()
    folder.rmdir()
    write_video(folder.with_suffix(".mkv"), images(0, 2), codec, pix_fmt)
    table = scored(tmp_path / "pred", tmp_path / "gt", tmp_path)
    rows = table[(table["metric"] == "absrel/gt_mask_10m") & (table["view"] == "front")]
    assert rows["value"].isna().all()
    assert "depth needs a lossless grey video of 10 to 16 bits" in rows["reason"].iloc[0]
    assert found in rows["reason"].iloc[0]


@pytest.mark.parametrize("per_m", [1.0e6, 10.0])
def test_depth_of_another_unit_is_refused(tmp_path: Path, per_m: float) -> None:
    cameras = room(SIZE)
    write_depth_clips(tmp_path, cameras, per_m=1000.0)
    table = scored(tmp_path / "pred", tmp_path / "gt", tmp_path, depth_scale=f"{per_m}")
    rows = table[table["metric"] == "check/depth_unit"]
    assert set(rows["status"]) == {"refused"}
    assert set(rows["subject"]) == {"policy", "ground_truth"}
    assert table[table["metric"] == "absrel/gt_mask_10m"]["value"].isna().all()
    assert table[table["metric"] == "psnr_db/frame_mean"]["status"].eq("identical_frames").all()


def test_resized_depth_and_intrinsics_fit_the_small_image(tmp_path: Path) -> None:
    """Depth that is constant along blocks of 2x2 pixels: nearest neighbour must pick its blocks exactly."""
    small = room((24, 32))
    blocks = {n: (K, T, d.repeat(2, axis=0).repeat(2, axis=1), rays) for n, (K, T, d, rays) in small.items()}
    stored = write_depth_clips(tmp_path, blocks, per_m=1000.0)
    views = []
    for name, (K, T, _, _) in small.items():
        large = np.array([[2 * K[0, 0], 0, 2 * K[0, 2] + 0.5], [0, 2 * K[1, 1], 2 * K[1, 2] + 0.5], [0, 0, 1]])
        views.append({"name": name, "intrinsics": large.tolist(), "T_base_cam": T.tolist()})
    (tmp_path / "gt/clip/cameras.json").write_text(json.dumps({"views": views}))
    for name in small:
        for frame in range(2):
            path = tmp_path / f"pred/clip/depth/{name}/{frame:04d}.png"
            image = np.asarray(Image.open(path))[::2, ::2]
            Image.fromarray(image).save(path)
            stored["pred", frame][name] = image.astype(np.float32) / np.float32(1000)
            stored["gt", frame][name] = stored["gt", frame][name][::2, ::2]
            rgb = tmp_path / f"pred/clip/rgb/{name}/{frame:04d}.png"
            iio.imwrite(rgb, iio.imread(rgb)[::2, ::2])
    table = scored(tmp_path / "pred", tmp_path / "gt", tmp_path, resize="gt")
    no_findings(table)
    check_depth(table, stored, small)
    refused = scored(tmp_path / "pred", tmp_path / "gt", tmp_path)
    assert set(refused[refused["metric"] == "absrel/gt_mask_10m"]["status"]) == {"wrong_size"}
    assert set(refused[refused["metric"] == "check/image_size"]["status"]) == {"refused"}


def test_a_wrist_view_without_cameras_is_named(tmp_path: Path) -> None:
    for side in ("gt", "pred"):
        for view in ("front", "eye_in_hand"):
            (tmp_path / side / "clip" / view).mkdir(parents=True)
            iio.imwrite(tmp_path / side / f"clip/{view}/0.png", noisy(images(0), len(side))[0])
    table = scored(tmp_path / "pred", tmp_path / "gt", tmp_path)
    [reason] = table[table["metric"] == "check/views"]["reason"]
    assert "view 'eye_in_hand' counts as a static camera" in reason
    views = [{"name": "front"}, {"name": "eye_in_hand", "kind": "wrist", "arm": "right"}]
    (tmp_path / "gt/clip/cameras.json").write_text(json.dumps({"views": views}))
    table = scored(tmp_path / "pred", tmp_path / "gt", tmp_path)
    no_findings(table)
    assert values(table, "psnr_db/frame_mean_wrist") == values(table, "psnr_db/frame_mean", view="front")


def test_depth_smaller_than_colours_is_scaled_on_request(tmp_path: Path) -> None:
    cameras = room(SIZE)
    stored = write_depth_clips(tmp_path, cameras, per_m=1000.0)
    for side in ("gt", "pred"):
        for path in (tmp_path / side).glob("clip/depth/*/*.png"):
            Image.fromarray(np.asarray(Image.open(path))[::2, ::2]).save(path)
    refused = scored(tmp_path / "pred", tmp_path / "gt", tmp_path)
    assert all("add --resize depth" in reason for reason in refused[refused["metric"] == "check/image_size"]["reason"])
    table = scored(tmp_path / "pred", tmp_path / "gt", tmp_path, resize="depth")
    for name in cameras:
        true, pred = (stored[side, 0][name][::2, ::2].astype(np.float64) for side in ("gt", "pred"))
        [absrel] = values(table, "absrel/gt_mask_10m", frame_idx=0, view=name)
        assert absrel == pytest.approx(np.mean(np.abs(pred - true) / true), abs=1e-6)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((4, 2, 48, 64, 3), np.uint8), "got uint8 (4, 2, 48, 64, 3)"),
        (np.zeros((4, 48, 64), np.uint8), "got uint8 (4, 48, 64)"),
        (np.zeros((4, 48, 64, 3), np.int64), "got int64"),
        (np.full((4, 48, 64, 3), -1.0, np.float32), "has float32 colours from -1 to -1, expected 8 bits"),
        (np.full((4, 48, 64, 3), 300, np.uint16), "has uint16 colours from 300 to 300, expected 8 bits"),
        (np.asfortranarray(images(0)), "in Fortran order"),
        (np.array([{}]), "got object"),
    ],
)
def test_an_array_that_is_not_understood_is_named(tmp_path: Path, array: np.ndarray, said: str) -> None:
    np.save(tmp_path / "gt.npy", images(0))
    np.save(tmp_path / "pred.npy", array)
    table = scored(tmp_path / "pred.npy", tmp_path / "gt.npy", tmp_path)
    assert table[table["metric"] == "psnr_db/frame_mean"]["value"].isna().all()
    [reason] = table[table["metric"] == "check/files"]["reason"]
    assert said in reason
