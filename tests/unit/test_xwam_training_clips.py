"""Clips: the right steps, images, states and masks.

In: data sets in temporary folders. Out: a verdict.
Read next: `xwam/training/clips.py`, `xwam/training/augment.py`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evalkit.dataset.depth_video import DepthRange
from evalkit.dataset.layout import BrokenEpisode, DataSetError, read_track, scan
from evalkit.dataset.writer import write_episode, write_metadata
from tests.doubles.recordings import COLS, NO_BOUNDS, RECORDING, ROWS, STEPS, cut_off, key_of, steps_of
from xwam.robots.actions import normalise
from xwam.training.augment import Augmentation, contrast, corner, crop, draw_augmentation, rotate_hue, saturate
from xwam.training.clips import ClipDataset, ClipShape, ImageSettings, clip_states, read_images


def dataset(root: Path, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "shape": ClipShape(),
        "images": ImageSettings(image_hw_px=(ROWS, COLS), crop_frac=1.0, depth_range=DepthRange()),
        "bounds": NO_BOUNDS,
        "augmentation": None,
    }
    return ClipDataset(root, scan(root).lengths, **(settings | changes))


def test_a_video_that_breaks_later_is_a_broken_episode(root: Path) -> None:
    clips = dataset(root)
    cut_off(root / f"video/b/{key_of(1)}.mp4")
    with pytest.raises(BrokenEpisode, match="episode_0000001"):
        clips[ClipShape().num_starts(STEPS)]


def test_clips_take_the_right_steps(root: Path) -> None:
    clips = dataset(root)
    assert len(clips) == 3 * 8
    assert clips.where(8) == (key_of(1), 0)
    sample, steps = clips[8 + 5], steps_of(1)
    expected = torch.from_numpy(steps.rgb[5:38:4]).permute(4, 0, 1, 2, 3) / 127.5 - 1
    torch.testing.assert_close(sample.video_CFVHW, expected)
    torch.testing.assert_close(sample.action_KA, torch.from_numpy(steps.action[5:37]))
    torch.testing.assert_close(sample.proprio_PS[:, :3], torch.from_numpy(steps.proprio[5:38:4, :3]))
    assert sample.action_mask_KA[0].tolist() == [1.0] * 7 + [0.0] * 7
    assert not sample.proprio_PS[:, 8:].any()
    with pytest.raises(IndexError, match="24 clips"):
        clips.where(24)


def test_exact_depth_is_finer_than_the_video(root: Path) -> None:
    coarse, fine = dataset(root), dataset(root)
    fine.images = replace(fine.images, exact_depth=True)
    difference = (coarse[3].depth_CFVHW - fine[3].depth_CFVHW).abs().max().item()
    assert 0 < difference <= 1 / 255 + 0.0025  # half a step of the bytes, half a millimetre near the camera


def test_another_depth_map_is_refused(root: Path) -> None:
    other = dataset(root)
    other.images = replace(other.images, depth_range=DepthRange(far_m=9.0))
    with pytest.raises(DataSetError, match=r"far_m=5\.0.*expects.*far_m=9\.0"):
        other[0]


def test_after_the_last_step_the_robot_stands_still(root: Path) -> None:
    track = read_track(root, key_of(0))
    held = clip_states(track, 39, ClipShape(past_end="hold"), NO_BOUNDS)
    np.testing.assert_allclose(held.action_KA[0], track.action[39], atol=1e-6)
    assert not held.action_KA[1:, :6].any()
    np.testing.assert_allclose(held.action_KA[1:, 6], track.action[39, 6], atol=1e-6)
    assert (held.proprio_PS == held.proprio_PS[0]).all()
    with pytest.raises(IndexError, match="no clip at step 8"):
        clip_states(track, 8, ClipShape(), NO_BOUNDS)


def test_untrusted_actions_carry_no_loss(tmp_path: Path) -> None:
    trusted = np.ones(STEPS, bool)
    trusted[3:6] = False
    write_episode(tmp_path, 0, replace(steps_of(), trusted=trusted), RECORDING, instructions=["x"])
    mask = clip_states(read_track(tmp_path, key_of(0)), 2, ClipShape(), NO_BOUNDS).action_mask_KA
    assert mask[:6, 0].tolist() == [1, 0, 0, 0, 1, 1]


def test_scaling_maps_the_bounds_to_one() -> None:
    assert normalise(np.array([2.0], np.float32), [1.0], [5.0], dtype=np.float32).tolist() == [-0.5]


def test_executed_actions_differ_from_actions_to_learn(tmp_path: Path) -> None:
    steps = steps_of()
    pushed = np.clip(steps.action + 0.25, -1, 1).astype(np.float32) * (steps.action != 0)
    for number, executed in enumerate((None, pushed)):
        write_episode(tmp_path, number, replace(steps, executed=executed), RECORDING, instructions=["x"])
        states = clip_states(read_track(tmp_path, key_of(number)), 2, ClipShape(), NO_BOUNDS)
        expected = steps.action if executed is None else executed
        np.testing.assert_allclose(states.executed_KA, expected[2:34] * states.action_mask_KA, atol=1e-6)
        np.testing.assert_allclose(states.action_KA, steps.action[2:34] * states.action_mask_KA, atol=1e-6)


# ---- images


def test_a_crop_in_the_middle_is_that_of_inference() -> None:
    from xwam.robots.image_pipeline import ImagePipeline

    for height, width in ((64, 80), (18, 30)):  # an even and an odd rest
        image = torch.rand(2, 3, height, width) * 2 - 1
        rgb, _ = crop(image, image, 0.95)
        pipeline = ImagePipeline(env_hw_px=(height, width), model_hw_px=(height, width), crop_frac=0.95)
        torch.testing.assert_close(rgb, pipeline.to_model(image))


def nearest(size_in: int, size_out: int) -> list[int]:
    """Return which pixel each output pixel takes in the mode `nearest`: that at its upper or left edge."""
    return [i * size_in // size_out for i in range(size_out)]


def nearest_exact(size_in: int, size_out: int) -> list[int]:
    """Return the same for `nearest-exact`: the pixel at the centre of the output pixel."""
    return [(2 * i + 1) * size_in // (2 * size_out) for i in range(size_out)]


def test_depth_is_resized_by_nearest_exact(root: Path) -> None:
    rows, cols = 5 * ROWS // 4, 3 * COLS // 4
    assert nearest(COLS, cols) != nearest_exact(COLS, cols)
    camera = read_track(root, key_of(0)).cameras[0]
    _, native = read_images(camera, [0, 7], ImageSettings(image_hw_px=(ROWS, COLS)))
    rgb, depth = read_images(camera, [0, 7], ImageSettings(image_hw_px=(rows, cols)))
    assert rgb.shape == depth.shape == (2, 3, rows, cols)
    assert torch.equal(depth, native[..., nearest_exact(ROWS, rows), :][..., nearest_exact(COLS, cols)])


def test_a_crop_of_depth_takes_nearest() -> None:
    size, kept = (256, 320), (243, 304)
    assert nearest(243, 256) != nearest_exact(243, 256)
    image = torch.arange(256 * 320, dtype=torch.float32).view(1, 1, *size)
    for position, (top, left) in ((None, (6, 8)), ((0.0, 0.0), (0, 0)), ((0.999, 0.999), (13, 16))):
        _, depth = crop(image, image, 0.95, position)
        rows, cols = ([at + i for i in nearest(k, s)] for at, k, s in zip((top, left), kept, size, strict=True))
        assert torch.equal(depth[0, 0], image[0, 0, rows][:, cols])


def test_every_crop_is_equally_likely() -> None:
    rng = np.random.default_rng(5)
    draws = [draw_augmentation(Augmentation(), 2, rng).positions for _ in range(7000)]
    corners = np.array([corner((256, 320), (243, 304), position) for clip in draws for position in clip])
    for column, count in ((0, 14), (1, 17)):
        shares = np.bincount(corners[:, column], minlength=count) / len(corners)
        assert len(shares) == count
        np.testing.assert_allclose(shares, 1 / count, atol=4 * (count * len(corners)) ** -0.5)  # four standard errors


def test_colour_changes_have_known_values() -> None:
    pixel = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1)
    torch.testing.assert_close(rotate_hue(pixel, 0.0), pixel)
    torch.testing.assert_close(rotate_hue(pixel, 1 / 3).flatten(), torch.tensor([0.6, 0.2, 0.4]))
    torch.testing.assert_close(saturate(pixel, 0.0).flatten(), torch.full((3,), 0.363), atol=1e-3, rtol=0)
    torch.testing.assert_close(contrast(pixel, 1.0), pixel)


def test_augmentation_is_drawn_once_per_clip(root: Path) -> None:
    draws = [draw_augmentation(Augmentation(), 2, np.random.default_rng(3)) for _ in range(2)]
    assert draws[0] == draws[1]
    still = torch.rand(1, 3, 8, 8).expand(4, -1, -1, -1) * 2 - 1
    assert (draws[0].jitter(still) == draws[0].jitter(still)[:1]).all()
    clips = dataset(root, augmentation=Augmentation())
    one, same, other = (clips.sample(2, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert torch.equal(one.video_CFVHW, same.video_CFVHW)
    assert not torch.equal(one.video_CFVHW, other.video_CFVHW)


def test_quaternion_signs_follow_the_models_convention(tmp_path: Path) -> None:
    write_episode(tmp_path, 0, steps_of(0), RECORDING, instructions=["go"])
    write_metadata(tmp_path)
    track = read_track(tmp_path, key_of(0))
    plain = clip_states(track, 0, ClipShape(), NO_BOUNDS).proprio_PS
    side = -plain[0, 3:7]
    turned = clip_states(track, 0, ClipShape(), NO_BOUNDS, quat_side_wxyz=side.tolist()).proprio_PS
    assert (turned[:, 3:7] @ side >= 0).all()
    np.testing.assert_allclose(turned[0, 3:7], side, atol=1e-6)
    np.testing.assert_allclose(np.abs(turned), np.abs(plain), atol=1e-6)
    np.testing.assert_array_equal(np.delete(turned, range(3, 7), axis=1), np.delete(plain, range(3, 7), axis=1))
