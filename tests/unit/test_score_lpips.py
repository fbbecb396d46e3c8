"""LPIPS: against golden values where the weights are available, and its structure and refusals anywhere.

In: weights from the shared folder, or random ones. Out: a verdict.
Read next: `evalkit/score/metrics/lpips.py`.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evalkit.score.chunk import ScoreOptions, score_chunk
from evalkit.score.metrics import lpips
from tests.doubles.known import known
from tests.doubles.scene import scene_chunk, scene_spec

SHARED = Path(os.environ.get("EVALKIT_SHARED", Path(__file__).resolve().parents[3] / "shared"))
needs_weights = pytest.mark.skipif(
    not (SHARED / "weights/lpips_alex_full.pth").exists(), reason="no LPIPS weights: ../shared/weights is absent"
)
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
    scores = score_chunk(scene_chunk(num_frames=2, image_hw_px=(24, 32)), scene_spec((24, 32)))
    (row,) = [score for score in scores if score.metric == "lpips/alex_v0.1"]
    assert (row.value, row.status) == (None, "unavailable")
    assert "torch hub cache" in row.reason


@needs_weights
def test_a_chunk_is_scored_with_lpips() -> None:
    options = ScoreOptions(lpips_weights=SHARED / "weights", lpips_nets=("alex", "squeeze"))
    scores = score_chunk(scene_chunk(num_frames=2, image_hw_px=(64, 80)), scene_spec((64, 80)), options)
    for net in ("alex", "squeeze"):
        rows = [score for score in scores if score.metric == f"lpips/{net}_v0.1"]
        assert len(rows) == 3 * 2 * 2  # subjects, frames, static views
        assert all(0 <= known(row.value) < 1 for row in rows)
        assert all(known(row.value) < 1e-6 for row in rows if row.subject == "ground_truth")
