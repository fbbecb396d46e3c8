"""LPIPS: against the values of lpips 0.1.4, and its structure and refusals.

In: the weights that ship with evalkit, or random ones. Out: a verdict.
Read next: `evalkit/score/metrics/lpips.py`.
"""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from evalkit.cli.main import app
from evalkit.contracts.errors import BadConfig
from evalkit.score.chunk import ScoreOptions, score_chunk
from evalkit.score.metrics import lpips
from tests.doubles.scene import scene_chunk, scene_spec

EXAMPLE = Path(__file__).parents[1] / "parity/lpips_example.npz"
PUBLISHED = {"alex": {"further": 0.72188, "nearer": 0.13757}, "squeeze": {"further": 0.71105, "nearer": 0.14790}}
"""Distances that lpips 0.1.4 gives for its own example images; its page shows 0.722 and 0.138."""
CHANNELS = {
    "alex": {"0": (64, 3, 11), "3": (192, 64, 5), "6": (384, 192, 3), "8": (256, 384, 3), "10": (256, 256, 3)},
    "vgg": {
        str(layer): (out, into, 3)
        for layer, (out, into) in zip(
            (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
            [(64, 3), (64, 64), (128, 64), (128, 128), (256, 128), (256, 256), (256, 256)]
            + [(512, 256)]
            + [(512, 512)] * 5,
            strict=True,
        )
    },
}


@pytest.fixture(autouse=True)
def _forget_networks() -> None:
    lpips.load.cache_clear()


def _write_random(folder: Path, net: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {}
    for layer, (out, into, size) in CHANNELS[net].items():
        state[f"features.{layer}.weight"] = torch.randn(out, into, size, size, generator=generator) * 0.05
        state[f"features.{layer}.bias"] = torch.zeros(out)
    torch.save(state, folder / lpips.BACKBONES[net].torchvision_file)


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_torchvision_weights_give_equal_images_0(tmp_path: Path, net: str) -> None:
    _write_random(tmp_path, net)
    network = lpips.load(net, tmp_path)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    assert network(images, images) == pytest.approx([0.0, 0.0], abs=1e-9)
    apart = network(images, images[::-1].copy())
    assert apart.shape == (2,)
    assert (apart > 0).all()
    assert apart[0] == pytest.approx(apart[1], rel=1e-5)
    assert network(images[:1], images[1:])[0] == pytest.approx(apart[0], rel=1e-5)  # batches change nothing


def test_missing_weights_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv(lpips.WEIGHTS_VARIABLE, raising=False)
    with pytest.raises(lpips.LpipsUnavailable, match="vgg16-397923af"):
        lpips.load("vgg")


def test_broken_and_foreign_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / lpips.BACKBONES["alex"].torchvision_file
    path.write_bytes(b"no weights")
    with pytest.raises(lpips.LpipsUnavailable, match="cannot be read"):
        lpips.load("alex", tmp_path)
    torch.save({"features.0.weight": torch.zeros(1)}, path)
    with pytest.raises(lpips.LpipsUnavailable, match="holds no alex weights"):
        lpips.load("alex", tmp_path)


def test_unavailable_lpips_is_one_row_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv(lpips.WEIGHTS_VARIABLE, raising=False)
    options = ScoreOptions(lpips_nets=("vgg",))
    scores = score_chunk(scene_chunk(num_frames=2, image_hw_px=(24, 32)), scene_spec((24, 32)), options)
    (row,) = [score for score in scores if score.metric == "lpips/vgg_v0.1"]
    assert (row.value, row.status) == (None, "unavailable")
    assert "torch hub cache" in row.reason


@pytest.mark.parametrize("net", lpips.PACKAGED_SHA256)
def test_shipped_weights_give_the_published_values(net: lpips.Net) -> None:
    network = lpips.load(net)
    assert network.sha256 == lpips.PACKAGED_SHA256[net]
    with np.load(EXAMPLE) as example:
        for name, value in PUBLISHED[net].items():
            distance = network(example["reference"][None], example[name][None])[0]
            assert distance == pytest.approx(value, abs=2e-5)


def test_a_chunk_is_scored_with_lpips() -> None:
    chunk, spec = scene_chunk(num_frames=2, image_hw_px=(64, 80)), scene_spec((64, 80))
    scores = score_chunk(chunk, spec, ScoreOptions(lpips_nets=("alex", "squeeze")))
    for net in ("alex", "squeeze"):
        rows = [score for score in scores if score.metric == f"lpips/{net}_v0.1"]
        assert {(row.status, row.reason) for row in rows} == {("ok", "")}
        network = lpips.load(net)
        for row in rows:
            view = [camera.name for camera in spec.cameras].index(row.view)
            true, floor = chunk.true.rgb_fvhwc_u8[row.frame_idx, view], chunk.start.rgb_fvhwc_u8[0, view]
            if row.subject == "repeat_last_frame":
                assert row.value == pytest.approx(plain_distance(network, true, floor), rel=1e-5)


def plain_distance(network: lpips.Lpips, one: np.ndarray, other: np.ndarray) -> float:
    return float(network.distances(network.features(one[None]), network.features(other[None]))[0])


def test_equal_and_repeated_images_are_not_computed_again() -> None:
    network = lpips.load("alex")
    a, b, c = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    true, pred = np.stack([a, b, c, a, b]), np.stack([b, b, b, c, a])
    expected = [plain_distance(network, *pair) for pair in zip(true, pred, strict=True)]
    assert network(true, pred).tolist() == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_other_weights_say_so_in_each_row(tmp_path: Path) -> None:
    chunk, spec = scene_chunk(num_frames=2, image_hw_px=(64, 80)), scene_spec((64, 80))

    def statuses() -> set[tuple[str, str]]:
        lpips.load.cache_clear()
        scores = score_chunk(chunk, spec, ScoreOptions(references=False, lpips_weights=tmp_path))
        return {(score.status, score.reason) for score in scores if score.metric == "lpips/alex_v0.1"}

    state = dict(lpips.load("alex").state)
    torch.save(state | {"classifier.1.weight": torch.zeros(1)}, tmp_path / lpips.BACKBONES["alex"].torchvision_file)
    assert statuses() == {("ok", "")}  # torchvision's own file holds more than LPIPS needs
    _write_random(tmp_path, "alex")
    ((status, reason),) = statuses()
    assert status == "other_weights"
    assert "alex backbone with sha256" in reason


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    for folder, cause in ((tmp_path, "holds no LPIPS weights"), (tmp_path / "typo", "is not a folder")):
        done = CliRunner().invoke(app, ["score", "run", "nowhere", "--lpips-weights", str(folder)])
        assert isinstance(done.exception, BadConfig)
        assert cause in str(done.exception)


def test_a_wheel_holds_the_weights_and_their_notices(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, tmp_path)
    shutil.copytree(root / "evalkit", tmp_path / "evalkit", ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools import build_meta; print(build_meta.build_wheel('dist'))"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    shipped = ["alex.safetensors", "squeeze.safetensors", "heads_v0.1.safetensors", "README.md"]
    notices = [f"evalkit/score/metrics/lpips_weights/LICENSE.{owner}" for owner in ("torchvision", "lpips")]
    for name in [*(f"evalkit/score/metrics/lpips_weights/{name}" for name in shipped), *notices]:
        assert name in names
    assert all(any(name.endswith(f"licenses/{notice}") for name in names) for notice in notices)
