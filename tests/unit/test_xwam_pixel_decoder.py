"""The pixel decoder: features against a pinhole camera, flows that move images, training on a square that moves.

Read next: `xwam/nano/pixel_decoder.py`, `xwam/training/decoder.py`.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from evalkit.dataset.layout import BrokenEpisode, read_track, scan
from tests.doubles.known import known
from tests.doubles.pixels import SMALL, K, pose, recorded
from tests.doubles.recordings import key_of, steps_of
from xwam.checkpoints import convert
from xwam.checkpoints.bundle import load_bundle, save_checkpoint
from xwam.checkpoints.fresh import fresh_bundle
from xwam.checkpoints.metadata import read_notes
from xwam.codecs.patch_dct import PatchDCT
from xwam.nano.pixel_decoder import (
    FARTHEST_PX,
    FLOW_PX,
    LONGEST_PX,
    NEAR_M,
    STILL_PX,
    PixelDecoder,
    Scene,
    _unshuffled,
    bounded,
    gripper_motion_features,
)
from xwam.training.clips import ClipDataset
from xwam.training.decoder import (
    DecoderRecipe,
    Episodes,
    Examples,
    cameras_of,
    check_model,
    decoder_loss,
    draw_examples,
    fresh_decoder,
    train_decoder,
    unit_length,
)

WIDTHS = (8, 8, 8, 8)


def scene(depth_m: Any = 1.0) -> Any:
    return Scene(
        depth_vhw_m=np.full((1, 32, 32), depth_m),
        intrinsics_v33_px=K[None],
        T_base_cam_v44=np.eye(4)[None],
        T_base_ee=pose(0, 0, 1.0),
    )


def test_channels_of_neighbours_are_pixel_unshuffle() -> None:
    parts = [torch.randn(2, channels, 6, 8) for channels in (4, 1)]
    unshuffled = _unshuffled(*parts)
    assert torch.equal(unshuffled, F.pixel_unshuffle(torch.cat(parts, dim=1), 2))
    assert unshuffled.is_contiguous(memory_format=torch.channels_last)


def test_hints_are_those_of_a_pinhole() -> None:
    hints = gripper_motion_features(scene(), np.stack([pose(0.05, 0, 1.0), pose(0, 0.02, 1.0)]), [0.5, 1.0])
    right, down, now, later, when = hints[:, 0].transpose(1, 0, 2, 3)
    np.testing.assert_allclose(right[0] * FARTHEST_PX, 40 * 0.05, atol=1e-4)
    np.testing.assert_allclose(down[1] * FARTHEST_PX, 40 * 0.02, atol=1e-4)
    np.testing.assert_allclose(down[0], 0, atol=1e-5)
    u, v = 20, 10
    point = np.array([(u - 15.5) / 40, (v - 15.5) / 40, 1.0])
    assert now[0, v, u] == pytest.approx(np.exp(-np.linalg.norm(point - [0, 0, 1]) / NEAR_M), rel=1e-4)
    assert later[0, v, u] == pytest.approx(np.exp(-np.linalg.norm(point - [0.05, 0, 1]) / NEAR_M), rel=1e-4)
    assert (when[0], when[1]) == (pytest.approx(np.full((32, 32), 0.5)), pytest.approx(np.ones((32, 32))))


def test_a_turning_hand_moves_pixels_about_itself() -> None:
    quarter = pose(0, 0, 1.0)
    quarter[:2, :2] = [[0, -1], [1, 0]]
    right, down = gripper_motion_features(scene(), quarter[None], [1.0])[0, 0, :2] * FARTHEST_PX
    np.testing.assert_allclose((right[15, 20], down[15, 20]), (0.5 - 4.5, 4.5 + 0.5), atol=1e-3)


def test_what_was_not_measured_is_far_away_and_hardly_moves() -> None:
    nowhere = replace(scene(), depth_vhw_m=np.zeros((1, 32, 32)))
    right, _, now, *_ = gripper_motion_features(nowhere, pose(0.05, 0, 1.0)[None], [1.0])[0, 0]
    np.testing.assert_allclose(right * FARTHEST_PX, 40 * 0.05 / 5.0, atol=1e-4)
    assert now.max() < 1e-9


def test_a_fresh_decoder_shows_what_is_seen() -> None:
    seen = torch.rand(2, 4, 32, 32) * 2 - 1
    decoded = fresh_decoder(0, WIDTHS)(seen, torch.randn_like(seen), torch.randn(2, 5, 32, 32))
    torch.testing.assert_close(decoded.blended_NCHW, seen, atol=1e-5, rtol=0)
    assert torch.equal(decoded.sharp_NCHW, seen)


def test_flow_samples_the_source_and_depth_is_not_blended() -> None:
    decoder = fresh_decoder(0, WIDTHS)
    columns_px = 2.5 + STILL_PX
    with torch.no_grad():
        known(decoder.leave.bias)[:4] = columns_px / (1 - (columns_px / LONGEST_PX) ** 2) ** 0.5 / FLOW_PX
    seen = torch.rand(1, 4, 32, 32) * 2 - 1
    decoded = decoder.eval()(seen, torch.randn_like(seen), torch.randn(1, 5, 32, 32))
    between = (seen[..., 2:-3] + seen[..., 3:-2]) / 2
    torch.testing.assert_close(decoded.blended_NCHW[..., :-5], between, atol=1e-4, rtol=0)
    assert torch.isin(decoded.sharp_NCHW, seen).all()
    rgb, depth = decoder.images(seen, torch.randn_like(seen), torch.randn(1, 5, 32, 32))
    assert torch.equal(rgb, decoded.blended_NCHW[:, :3])
    assert torch.equal(depth, decoded.sharp_NCHW[:, 3])
    with torch.no_grad():
        known(decoder.leave.bias)[:4] = 0.8 * STILL_PX / FLOW_PX
    assert torch.equal(decoder(seen, seen, torch.zeros(1, 5, 32, 32)).sharp_NCHW, seen)


def moving_square(recipe: Any) -> Iterator[Any]:
    """Yield a bright square that moves as the features of the end effector say."""
    rng = np.random.default_rng(recipe.seed)
    while True:
        pages = []
        for _ in range(4):
            left, shift = rng.integers(6, 14), int(rng.integers(-4, 5))
            seen, true = torch.full((4, 32, 32), -0.5), torch.full((4, 32, 32), -0.5)
            texture = torch.from_numpy(rng.uniform(0, 1, (4, 12, 12)).astype(np.float32))
            seen[:, 10:22, left : left + 12] = texture
            true[:, 10:22, left + shift : left + shift + 12] = texture
            hints = torch.zeros(5, 32, 32)
            hints[0] = shift / FARTHEST_PX
            pages.append((seen, torch.zeros(4, 32, 32), hints, true))
        yield Examples(*(torch.stack(part) for part in zip(*pages, strict=True)))


def test_flow_length_is_bounded_and_short_flows_stay() -> None:
    flow = torch.randn(1, 2, 8, 8) * torch.logspace(-1, 8, 8)
    found = bounded(flow)
    assert found.norm(dim=1).max() <= LONGEST_PX * (1 + 1e-6)
    torch.testing.assert_close(F.normalize(found), F.normalize(flow))
    torch.testing.assert_close(found[..., 0], flow[..., 0], rtol=1e-4, atol=1e-6)


def test_training_learns_to_move_what_the_hand_moves() -> None:
    torch.manual_seed(0)
    recipe = DecoderRecipe(num_steps=200, learning_rate=5e-3, warmup_steps=20)
    decoder = fresh_decoder(0, (16, 16, 16, 16))
    lines: list[str] = []
    train_decoder(decoder, moving_square(recipe), recipe, say=lines.append)
    page = next(moving_square(replace(recipe, seed=99)))
    with torch.no_grad():
        decoded = decoder(*page[:3]).blended_NCHW
    error, floor = ((image - page.true_NCHW).abs().mean().item() for image in (decoded, page.seen_NCHW))
    assert error < 0.6 * floor
    assert lines[-1].startswith("step 200/200: loss ")


def test_a_perceptual_loss_is_weighed_and_its_absence_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    page, decoder = next(moving_square(DecoderRecipe())), fresh_decoder(0, WIDTHS)
    plain, weighed = DecoderRecipe(), DecoderRecipe(perceptual_weight=0.25)
    found = decoder_loss(decoder, page, weighed, lambda decoded, true: torch.full((len(decoded),), 2.0))
    assert found.item() == pytest.approx(decoder_loss(decoder, page, plain).item() + 0.5, rel=1e-5)
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(ValueError, match="needs the packages lpips and torchvision"):
        train_decoder(decoder, iter([page]), weighed)


def test_features_have_unit_length_and_finite_gradients() -> None:
    layer = torch.rand(2, 8, 3, 3)
    layer[0, :, 1, 1] = 0.0
    layer.requires_grad_(True)
    found = unit_length(layer)
    lengths = found.norm(dim=1)
    torch.testing.assert_close(lengths[1], torch.ones(3, 3))
    assert lengths[0, 1, 1] == 0
    (found - 1).square().sum().backward()
    assert known(layer.grad).isfinite().all()
    plain = layer.detach()[1] / layer.detach()[1].norm(dim=0)
    torch.testing.assert_close(found.detach()[1], plain)


# ---- from data to a checkpoint


def clips_of(root: Path, model: Any = SMALL) -> Any:
    return ClipDataset.for_model(
        root, scan(root).lengths, model, crop_frac=1.0, past_end="hold", augmentation=None, exact_depth=True
    )


def test_pages_are_what_was_recorded(tmp_path: Path) -> None:
    root, recipe = recorded(tmp_path), DecoderRecipe(every=16)
    bundle = fresh_bundle(SMALL, seed=0)
    assert isinstance(bundle.codec, PatchDCT)
    episodes = [Episodes(clips_of(root), bundle, recipe).read(key_of(index)) for index in range(2)]
    page = next(draw_examples(episodes, SMALL, bundle.codec, recipe))
    assert page.seen_NCHW.shape == page.true_NCHW.shape == (recipe.clips * recipe.frames, 4, 32, 48)
    assert page.features_NCHW.shape == (recipe.clips * recipe.frames, 5, 32, 48)
    recorded_rgb = torch.from_numpy(np.concatenate([steps_of(index).rgb[:, 0] for index in range(2)]))
    for image in (*page.seen_NCHW, *page.true_NCHW):
        bytes_hwc = ((image[:3] + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0)
        assert (recorded_rgb == bytes_hwc).flatten(1).all(1).any()  # the data set keeps RGB without loss
    assert torch.equal(page.seen_NCHW, next(draw_examples(episodes, SMALL, bundle.codec, recipe)).seen_NCHW)


def test_image_size_must_fit_the_intrinsics(tmp_path: Path) -> None:
    root = recorded(tmp_path, 1)
    other = replace(SMALL, image_hw_px=(32, 64))
    with pytest.raises(BrokenEpisode, match=r"episode_0000000: .* 32x48 pixels, the model sees 32x64"):
        cameras_of(read_track(root, key_of(0)), other)


def test_an_episode_without_camera_poses_is_named(tmp_path: Path) -> None:
    root = recorded(tmp_path, 1, T_base_cam=None)
    with pytest.raises(BrokenEpisode, match=r"episode_0000000 does not state pose and intrinsics of camera"):
        cameras_of(read_track(root, key_of(0)), SMALL)


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"blind": True}, "is blind"), ({"bench": "robocasa"}, "resizes or crops"), ({"network": "none"}, "depth 'none'")],
)
def test_models_that_a_decoder_cannot_serve_are_refused(change: Any, reason: str) -> None:
    if "network" in change:
        change = {"network": replace(SMALL.network, depth="none")}
    with pytest.raises(ValueError, match=reason):
        check_model(replace(SMALL, **change))


def test_a_changed_network_drops_its_pixel_decoder(tmp_path: Path) -> None:
    from xwam.training.initialise import prepare_for_training
    from xwam.training.recipes import RECIPES

    bundle = fresh_bundle(SMALL, seed=0)
    decoder = fresh_decoder(3, WIDTHS)
    path = tmp_path / "with.safetensors"
    save_checkpoint(path, bundle.network, bundle.model, decoder=decoder.weights(), notes={"steps": "1"})
    loaded = load_bundle(str(path))
    assert loaded.model.codec.warp_widths == WIDTHS
    assert loaded.decoder is not None
    for name, weight in PixelDecoder.from_weights(loaded.decoder).state_dict().items():
        assert torch.equal(weight, decoder.state_dict()[name])
    convert.write(loaded, tmp_path / "ours", "ours")
    assert load_bundle(str(tmp_path / "ours")).decoder is not None
    root = recorded(tmp_path / "data", 1)
    started = prepare_for_training(loaded, scan(root), root, RECIPES["nano"])
    assert started.decoder is None
    assert started.model.codec.warp_widths is None


def test_the_command_writes_network_and_decoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from xwam.cli import main

    root = recorded(tmp_path / "data")
    bundle = fresh_bundle(SMALL, seed=0)
    start, out = tmp_path / "start.safetensors", tmp_path / "decoded.safetensors"
    save_checkpoint(start, bundle.network, SMALL, notes={"steps": "7"})
    assert main(["train-decoder", str(root), str(start), str(out), "--steps", "2", "--episodes", "1"]) == 0
    assert "step 2/2: loss" in capsys.readouterr().out
    decoded = load_bundle(str(out))
    assert decoded.decoder is not None
    assert torch.equal(decoded.network.head.head.weight, bundle.network.head.head.weight)
    notes = read_notes(out)
    assert (notes["steps"], notes["decoder_steps"]) == ("7", "2")
    assert main(["train-decoder", str(recorded(tmp_path / "lost", 1, intrinsics=None)), str(start), str(out)]) == 2
    assert "holds no episode that a decoder can learn from" in capsys.readouterr().err
