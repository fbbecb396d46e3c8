"""Scoring on a device: torch gives the values of the CPU, here on torch's own CPU, and on a GPU where there is one.

In: images, clouds, chunks, golden values. Out: a verdict.
Read next: `evalkit/score/metrics/device.py`.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.spatial import cKDTree
from typer.testing import CliRunner

from evalkit.cli.main import app
from evalkit.contracts.errors import BadConfig
from evalkit.score import run as spreading
from evalkit.score.chunk import ScoreOptions, score_chunk
from evalkit.score.folders import score_folders
from evalkit.score.metrics import cloud, image, lpips, nearest
from evalkit.score.metrics import device as scoring_device
from evalkit.score.results.table import read_scores
from evalkit.score.run import score_run
from tests.doubles.known import known
from tests.doubles.scene import scene_chunk, scene_spec, write_scene_folders, write_scene_run

GOLDEN = Path(os.environ.get("EVALKIT_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "golden/metrics"
TORCH = "cpu:0"
SIZE = (24, 32)
SPEC = scene_spec(SIZE)
OPTIONS = ScoreOptions(lpips_nets=())
NOISE = np.random.default_rng(1).integers(0, 256, (2, 40, 56, 3)).astype(np.uint8)
ROWS = ["task", "index", "subject", "chunk_idx", "frame_idx", "view", "metric", "status", "reason"]
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
devices = pytest.mark.parametrize("device", [TORCH, pytest.param("cuda", marks=[pytest.mark.gpu, needs_cuda])])


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring_device, "PAIRS_AT_ONCE", 1 << 16)


@devices
@pytest.mark.parametrize(
    "pair",
    [
        NOISE,
        np.stack([NOISE[0], NOISE[0]]),
        np.stack([NOISE[0], np.zeros_like(NOISE[0])]),
        np.stack([np.full((16, 11, 3), 90, np.uint8), np.full((16, 11, 3), 110, np.uint8)]),
        np.stack([np.full((16, 11, 3), 3, np.uint8), np.full((16, 11, 3), 4, np.uint8)]),
    ],
    ids=["noise", "identical", "black", "constant", "dark and flat"],
)
def test_ssim_is_the_cpus(pair: tuple[np.ndarray, np.ndarray], device: str) -> None:
    true, pred = pair
    assert image.ssim(true, pred, device=device) == pytest.approx(image.ssim(true, pred), rel=1e-9, abs=1e-9)
    half = image.ssim_half(true[:, ::-1], device=device)  # images that do not lie in order, as views of a clip
    flipped = image.ssim(half, pred[:, ::-1], device=device)
    assert flipped == pytest.approx(image.ssim(true, pred), rel=1e-9, abs=1e-9)


def test_too_small_images_are_refused_on_a_device() -> None:
    with pytest.raises(ValueError, match="at least 11 pixels"):
        image.ssim(NOISE[0, :10], NOISE[1, :10], device=TORCH)


def _clouds(kind: Any) -> Any:
    chunk, rng = scene_chunk(seed=2, num_frames=1, image_hw_px=SIZE, depth_error_frac=0.05), np.random.default_rng(0)
    depth = known(known(chunk.predicted).depth)[0].astype(np.float64)
    depth = {
        "smooth": depth,
        "noise": rng.uniform(0.1, 4.0, depth.shape),
        "constant": np.ones_like(depth),
        "holes": np.where(rng.random(depth.shape) < 0.3, 0.0, depth),
        "outliers": np.where(rng.random(depth.shape) < 0.02, 60.0, depth),
    }[kind]
    cameras = chunk.intrinsics_v33_px, chunk.true.T_base_cam_fv44[0]
    return cloud.fuse(chunk.true.depth_fvhw_m[0], *cameras), cloud.fuse(depth, *cameras)


@devices
@pytest.mark.parametrize("kind", ["smooth", "noise", "constant", "holes", "outliers"])
def test_nearest_neighbours_are_exact(kind: str, device: str) -> None:
    true, pred = _clouds(kind)
    found = cloud.distances(true, pred, device=device)
    np.testing.assert_allclose(found.pred_to_true_m, cKDTree(true).query(pred)[0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.true_to_pred_m, cKDTree(pred).query(true)[0], rtol=1e-9, atol=1e-12)
    cpu = cloud.distances(true, pred)
    for radius_m in cloud.FSCORE_RADII_M:
        assert found.fscore(radius_m).value == pytest.approx(cpu.fscore(radius_m).value, rel=1e-5)


@devices
@pytest.mark.parametrize("sizes", [(1, 1), (1, 17), (16, 15), (257, 3), (300, 4100)])
def test_clouds_of_any_size_and_no_order_are_searched(sizes: tuple[int, int], device: str) -> None:
    rng = np.random.default_rng(sum(sizes))
    true, pred = (rng.normal(size=(size, 3)) for size in sizes)
    found = cloud.distances(true, pred, device=device)
    np.testing.assert_allclose(found.pred_to_true_m, cKDTree(true).query(pred)[0], rtol=1e-9)
    np.testing.assert_allclose(found.true_to_pred_m, cKDTree(pred).query(true)[0], rtol=1e-9)


@pytest.mark.parametrize("sizes", [(0, 3), (3, 0), (0, 0)])
def test_an_empty_cloud_is_named_on_a_device_too(sizes: tuple[int, int]) -> None:
    true, pred = (np.ones((size, 3)) for size in sizes)
    assert cloud.distances(true, pred, device=TORCH).l1_half_m() == cloud.distances(true, pred).l1_half_m()
    assert cloud.distances(true, pred, device=TORCH).l1_half_m().status == "empty_cloud"


@pytest.mark.parametrize("kind", ["outliers", "far apart"])
def test_no_piece_of_the_search_is_larger_than_the_bound(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    true, pred = _clouds("outliers") if kind == "outliers" else (_clouds("noise")[0], np.ones((600, 3)) * 50.0)
    sizes: list[Any] = []

    def recorded(function: Any) -> Any:
        def wrapper(*arguments: Any) -> Any:
            a, b = arguments
            num_pairs = a.shape[1] * a.shape[2] * b.shape[2] if function is nearest_in else None
            found = function(*arguments)
            sizes.append(num_pairs or found.numel())
            return found

        return wrapper

    nearest_in, between_boxes = scoring_device._nearest_in, scoring_device._between_boxes
    monkeypatch.setattr(scoring_device, "_nearest_in", recorded(nearest_in))
    monkeypatch.setattr(scoring_device, "_between_boxes", recorded(between_boxes))
    whole = cloud.distances(true, pred, device=TORCH)
    assert max(sizes) <= scoring_device.PAIRS_AT_ONCE
    monkeypatch.setattr(scoring_device, "PAIRS_AT_ONCE", nearest.RUN**3)
    for piecemeal, expected in zip(cloud.distances(true, pred, device=TORCH), whole, strict=True):
        np.testing.assert_array_equal(piecemeal, expected)


@pytest.mark.skipif(not GOLDEN.exists(), reason="no golden values: ../shared/golden/metrics is absent")
@devices
def test_golden_values_are_matched(device: str) -> None:
    keys = json.loads((GOLDEN / "expected.json").read_text())["cases"]["case_1001"]
    with np.load(GOLDEN / "case_1001.npz") as case:
        for view in (0, 1):
            ours = image.ssim(case["rgb_gt"][view, 1], case["rgb_pred"][view, 1], device=device)
            assert ours == pytest.approx(keys[f"ssim/skimage_gauss11_sigma1.5_popcov/frame_v{view}_t1"], rel=1e-5)
        poses = case["T_world_cam"][:, 0]
        clouds: dict[str, Any] = {"cloud": (case["cloud_b"], case["cloud_a"])}
        clouds["fused/gt_pose/t0"] = tuple(
            cloud.fuse(case[f"depth_{x}"][:, 0], case["K"], poses) for x in ("gt", "pred")
        )
    for prefix, (true, pred) in clouds.items():
        found = cloud.distances(true, pred, device=device)
        assert found.l1_half_m().value == pytest.approx(keys[f"{prefix}/l1_half"], rel=1e-5)
        assert found.l2sq_sum_m2().value == pytest.approx(keys[f"{prefix}/l2sq_sum"], rel=1e-5)
        assert found.fscore(0.01).value == pytest.approx(keys[f"{prefix}/fscore_1cm"], rel=1e-5)


def _unfit(case: str) -> Any:
    chunk = scene_chunk(num_frames=2, image_hw_px=SIZE)
    pred, true = known(chunk.predicted), chunk.true
    depth = known(pred.depth)
    ones = np.ones_like(depth)
    if case == "no truth in the mask":
        return replace(chunk, true=replace(true, depth_fvhw_m=0 * ones))
    changes: dict[str, dict[str, Any]] = {
        "good": {},
        "constant depth": {"depth": ones},
        "nan and negative depth": {"depth": np.where(depth > 1.0, np.nan, -ones)},
        "constant image": {"rgb": np.full_like(pred.rgb, 7)},
        "a frame short": {"rgb": pred.rgb[:1], "depth": depth[:1]},
    }
    return replace(chunk, predicted=replace(pred, **changes[case]))


@devices
@pytest.mark.parametrize(
    "case",
    ["good", "no truth in the mask", "constant depth", "nan and negative depth", "constant image", "a frame short"],
)
def test_a_chunk_has_the_same_rows_and_values(case: str, device: str) -> None:
    chunk = _unfit(case)
    expected = score_chunk(chunk, SPEC, OPTIONS)
    found = score_chunk(chunk, SPEC, replace(OPTIONS, device=device, threads=2))
    assert [replace(score, value=None) for score in found] == [replace(score, value=None) for score in expected]
    assert [score.value is None for score in found] == [score.value is None for score in expected]
    values = [[score.value for score in scores if score.value is not None] for scores in (found, expected)]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-5, atol=1e-12)


@devices
def test_lpips_moves_to_the_device(tmp_path: Path, device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {"0": (64, 3, 11), "3": (192, 64, 5), "6": (384, 192, 3), "8": (256, 384, 3), "10": (256, 256, 3)}
    weights = {
        f"features.{k}.weight": torch.randn(o, i, s, s, generator=generator) / 20 for k, (o, i, s) in shapes.items()
    }
    torch.save(
        weights | {f"features.{k}.bias": torch.zeros(o) for k, (o, _, _) in shapes.items()},
        tmp_path / lpips.BACKBONES["alex"].torchvision_file,
    )
    chunk = scene_chunk(num_frames=2, image_hw_px=(40, 40))
    options = ScoreOptions(lpips_weights=tmp_path)
    rows = [
        [score.value for score in score_chunk(chunk, scene_spec((40, 40)), used) if score.metric == "lpips/alex_v0.1"]
        for used in (options, replace(options, device=device))
    ]
    assert rows[1] == pytest.approx(rows[0], rel=1e-4, abs=1e-7)  # float32
    assert max(known(value) for value in rows[0]) > 1e-4
    assert lpips.load("alex", tmp_path, device).heads[0].device.type == torch.device(device).type


def test_a_device_that_fails_is_not_a_picture_that_is_too_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        net = "alex"

        def features(self, _: Any) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(lpips, "load", lambda *_: Full())
    with pytest.raises(torch.OutOfMemoryError):
        score_chunk(scene_chunk(num_frames=1, image_hw_px=SIZE), SPEC, ScoreOptions(references=False))


def _values(path: Any) -> Any:
    scores = read_scores(path)
    assert scores["status"].ne("scoring_failed").all()
    return scores[ROWS].astype(str), scores["value"].to_numpy()


def test_scoring_on_a_device_uses_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_scene_run(tmp_path / "run", outcomes=["success", "failure"], num_frames=1, image_hw_px=SIZE)
    rows, values = _values(score_run(tmp_path / "run", workers=1, options=OPTIONS))
    started = []

    # Threads stand for processes, which would each load torch; see test_score_run.py for those.
    def pool(workers: int) -> ThreadPoolExecutor:
        started.append(workers)
        return ThreadPoolExecutor(workers)

    monkeypatch.setattr(spreading, "_pool", pool)
    for workers, processes in ((0, []), (2, [2])):
        written = score_run(tmp_path / "run", workers=workers, options=replace(OPTIONS, device=TORCH))
        assert started == processes
        again, found = _values(written)
        assert again.equals(rows)
        np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-12)
        assert pq.read_schema(written).metadata[b"scored_on"].decode() == f"cpu:0 (the CPU, torch {torch.__version__})"


def test_folders_say_where_they_were_scored(tmp_path: Path) -> None:
    write_scene_folders(tmp_path / "pred", tmp_path / "true", scene_chunk(num_frames=1, image_hw_px=SIZE))
    for device, said in (("cpu", b"cpu"), (TORCH, b"cpu:0 (the CPU")):
        options = replace(OPTIONS, device=device)
        written = score_folders(tmp_path / "pred", tmp_path / "true", tmp_path / "scores.parquet", options=options)
        assert pq.read_schema(written).metadata[b"scored_on"].startswith(said)


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:01", "cuda:-1", "cpu:1", "mps", ""])
def test_a_device_of_no_known_kind_is_refused(device: str) -> None:
    with pytest.raises(BadConfig, match=f"takes cpu, cuda, or one of several as cuda:1, got '{device}'"):
        scoring_device.describe(device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_without_cuda_one_sentence_says_so_before_any_work(device: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["score", "run", str(tmp_path / "no such run"), "--device", device])
    assert isinstance(done.exception, BadConfig)  # of the device, not of the run, which is looked for later
    assert str(done.exception).startswith(f"--device {device} does not exist: torch {torch.__version__} finds no CUDA")
    with pytest.raises(BadConfig, match="finds no CUDA device"):
        score_folders(tmp_path, tmp_path, tmp_path / "out" / "scores.parquet", options=ScoreOptions(device=device))
    assert not (tmp_path / "out").exists()


def test_a_number_beyond_the_devices_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    assert scoring_device.describe("cuda:1").startswith("cuda:1 (Some GPU, torch ")
    with pytest.raises(BadConfig, match=r"cuda:2 does not exist: torch .* finds 2 of them, counted from 0"):
        scoring_device.describe("cuda:2")
