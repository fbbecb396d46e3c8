"""What a checkpoint becomes before it is trained: float32, its map of depth known where the data say theirs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evalkit.dataset.depth_video import DepthRange
from evalkit.dataset.layout import scan, tracks
from evalkit.dataset.statistics import statistics
from evalkit.dataset.writer import write_episode
from tests.doubles.recordings import RECORDING, key_of, steps_of
from tests.doubles.training import RECIPE, TINY
from xwam.checkpoints.bundle import load_checkpoint, save_checkpoint
from xwam.checkpoints.fresh import fresh_bundle
from xwam.cli import main
from xwam.config import ModelConfig
from xwam.network.transformer import is_exact
from xwam.robots.actions import training_bounds
from xwam.training.initialise import prepare_for_training, with_data_depth

UNKNOWN = replace(TINY, depth_known=False)
OTHER = DepthRange(near_m=0.1, far_m=3.0, offset_m=0.0)


def without_maps(root: Path) -> None:
    for path in root.glob("data/*/*.json"):
        content = json.loads(path.read_text())
        for view in content["observations"].values():
            view.pop("depth_range")
        path.write_text(json.dumps(content))


def test_weights_are_trained_in_float32(root: Path) -> None:
    bundle = fresh_bundle(UNKNOWN, seed=0)
    exact = {name: weight.clone() for name, weight in bundle.network.named_parameters()}
    bundle.network.cast(torch.bfloat16)
    assert {weight.dtype for weight in bundle.network.parameters()} == {torch.float32, torch.bfloat16}
    started = prepare_for_training(bundle, scan(root), root, RECIPE)
    for name, weight in started.network.named_parameters():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, exact[name] if is_exact(name) else exact[name].bfloat16().float())


def test_a_map_that_data_state_is_taken_over(tmp_path: Path) -> None:
    for index in range(2):
        write_episode(tmp_path, index, steps_of(index), replace(RECORDING, depth_range=OTHER), instructions=["x"])
    (tmp_path / "metadata.json").write_text(json.dumps({key_of(index): 40 for index in range(2)}))
    found = scan(tmp_path)
    learned = with_data_depth(UNKNOWN, found, tmp_path, exact=False)
    assert (learned.depth_range, learned.depth_known) == (OTHER, True)
    assert with_data_depth(TINY, found, tmp_path, exact=False) == TINY  # it has another, and the first clip is refused
    assert with_data_depth(UNKNOWN, found, tmp_path, exact=True) == replace(UNKNOWN, depth_known=True)


def test_a_map_that_nobody_wrote_down_stays_unknown(root: Path) -> None:
    without_maps(root)
    assert with_data_depth(TINY, scan(root), root, exact=False) == UNKNOWN
    write_episode(root, 1, steps_of(1), RECORDING, instructions=["x"])
    with pytest.raises(ValueError, match=r"use the same map .*DepthRange\(near_m=0.05.*; an unknown one"):
        with_data_depth(TINY, scan(root), root, exact=False)


def test_the_command_fine_tunes_a_half_checkpoint(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bounds = training_bounds(statistics(lambda: tracks(root)), ("left",), raw=True)
    bundle = fresh_bundle(replace(UNKNOWN, bounds=bounds), seed=0)
    save_checkpoint(tmp_path / "half.safetensors", bundle.network.cast(torch.bfloat16), bundle.model)
    small = ["num_steps=1", "warmup_steps=0", "batch_size=2", "micro_batch=2", "validate_every=0"]
    run = tmp_path / "run"
    assert main(["train", str(root), str(run), "--start", str(tmp_path / "half.safetensors"), *small]) == 0
    network, model = load_checkpoint(run / "checkpoint.safetensors")
    assert isinstance(model, ModelConfig)
    assert model.depth_known
    assert network.dtype == torch.float32
