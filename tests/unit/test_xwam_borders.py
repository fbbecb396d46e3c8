"""Codec, depth map, text, normalisation: what stands between the world and the network."""

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from evalkit.dataset.depth_video import DepthRange, depth_from_video, video_from_depth
from xwam.codecs.codec import decode_views, encode_views
from xwam.codecs.patch_dct import COLOURS, SHRINKAGE, PatchDCT
from xwam.config import NANO
from xwam.robots import actions
from xwam.text.encoders import HashedText


def video_of(frames: Any = 9, size: Any = 32, seed: Any = 0) -> Any:
    return torch.rand(2, 3, frames, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_colours_and_patterns_are_orthonormal() -> None:
    np.testing.assert_allclose(COLOURS @ COLOURS.T, np.eye(3), atol=1e-12)
    codec = PatchDCT(96)
    for basis in (codec.still_CX, codec.motion_CX):
        torch.testing.assert_close(basis @ basis.T, torch.eye(96), atol=1e-5, rtol=0)


def test_all_coefficients_of_a_still_frame_give_it_back() -> None:
    codec, video = PatchDCT(768), video_of(frames=1)
    torch.testing.assert_close(codec.decode(codec.encode(video)), video, atol=1e-4, rtol=0)


def test_decoding_then_encoding_returns_the_latents() -> None:
    codec = PatchDCT(48)
    latent = 0.4 * torch.randn(2, 48, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    latent[:, :, 1:, 0] *= 0.3
    back = codec.encode(codec.decode(latent))
    torch.testing.assert_close(back[:, :, 0], latent[:, :, 0], atol=1e-4, rtol=0)
    assert back[:, :, 1:, 0].abs().max() < 1e-4  # these blocks hardly change
    before, after = (x[:, :, 1:, 1].square().mean(1).sqrt() for x in (latent, back))
    torch.testing.assert_close(after, before - SHRINKAGE, atol=1e-4, rtol=0)


def test_latents_have_a_mean_square_that_falls_with_the_spread() -> None:
    codec = PatchDCT(48)
    for unit in (codec.still_unit_C, codec.motion_unit_C):
        spread = unit.square() / unit.square().mean().sqrt()
        torch.testing.assert_close((spread / unit).square().mean(), torch.tensor(1.0))
        assert ((spread / unit).diff() <= 1e-6).all()


def test_a_still_scene_seen_once_keeps_its_detail() -> None:
    codec, frame = PatchDCT(48), video_of(frames=1)
    latent = codec.encode(frame.expand(-1, -1, 9, -1, -1))
    assert latent.shape == (2, 48, 3, 2, 2)
    assert not latent[:, :, 1:].abs().max() > 1e-5
    decoded = codec.decode(latent, frame[:, :, 0])
    torch.testing.assert_close(decoded, frame.expand(-1, -1, 9, -1, -1), atol=1e-5, rtol=0)


def test_the_first_latent_frame_knows_nothing_of_later_ones() -> None:
    codec, video = PatchDCT(48), video_of()
    torch.testing.assert_close(codec.encode(video)[:, :, :1], codec.encode(video[:, :, :1]))
    torch.testing.assert_close(codec.encode(video)[:, :, :2], codec.encode(video[:, :, :5]))


def test_views_are_encoded_one_by_one() -> None:
    codec, video = PatchDCT(16), video_of()
    stacked = torch.stack([video, video.flip(0)], dim=3)
    latent = encode_views(codec, stacked)
    torch.testing.assert_close(latent[:, :, :, 1], codec.encode(video.flip(0)))
    torch.testing.assert_close(decode_views(codec, latent)[:, :, :, 0], codec.decode(codec.encode(video)))


def test_videos_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="8 frames of 32x32"):
        PatchDCT(48).encode(video_of(frames=8))
    with pytest.raises(ValueError, match="1 to 768"):
        PatchDCT(769)


def test_depth_map_by_hand() -> None:
    plain = DepthRange(near_m=0.5, far_m=2.0, offset_m=0.0)
    np.testing.assert_allclose(video_from_depth(np.array([0.5, 1.0, 2.0, 0.0, 9.0]), plain), [1, -1 / 3, -1, -1, -1])
    metres = np.linspace(0.5, 2.0, 50)
    np.testing.assert_allclose(depth_from_video(video_from_depth(metres, plain), plain), metres, rtol=1e-5)
    assert depth_from_video(np.array([5.0, -5.0]), plain).tolist() == [0.5, 2.0]


def test_text_is_the_same_everywhere() -> None:
    expected = [0.1731, 1.0087, -1.8443, 1.0087, -0.2447, 1.0087, -0.6626, -1.0087]
    np.testing.assert_allclose(
        HashedText(num_tokens=4, width=8).encode("Lift the cube").rows_BMW[0, 0], expected, atol=1e-4
    )
    code = (
        "from xwam.text.encoders import HashedText; "
        "print(HashedText(num_tokens=4, width=8).encode('Lift the cube').rows_BMW[0, 0].tolist())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={})
    np.testing.assert_allclose(json.loads(other.stdout), expected, atol=1e-4)


def test_text_tells_words_and_order_apart() -> None:
    encoder = HashedText(num_tokens=8, width=64)
    one, two = (encoder.encode(f"open the {side} door").rows_BMW[0] for side in ("left", "right"))
    assert torch.equal(one[:2], two[:2])
    assert not torch.equal(one[2], two[2])
    assert not torch.equal(encoder.encode("a b").rows_BMW[0, 0], encoder.encode("b a").rows_BMW[0, 1])
    assert not encoder.encode("").places().any()
    assert one[:4].pow(2).mean().item() == pytest.approx(1.0)
    with pytest.raises(ValueError, match=r"9 words, the model reads 8"):
        encoder.encode("a b c d e f g h i")


def test_normalisation_by_hand() -> None:
    low, high = (0.0, -1.0, 0.0), (4.0, 1.0, 0.0)
    np.testing.assert_allclose(actions.normalise(np.array([[1.0, 0.3, 5.0]]), low, high), [[-0.5, 0.3, 0.0]])
    np.testing.assert_allclose(actions.denormalise(np.array([[-0.5, 0.3, 9.0]]), low, high), [[1.0, 0.3, 0.0]])


def test_quaternions_are_made_fit() -> None:
    raw = np.zeros((3, 16), np.float32)
    raw[0, 3:7] = [-2.0, 0.0, 0.0, 2.0]
    raw[1, 3:7] = 1e-9
    raw[2, 3:7] = [0.6, 0.0, 0.8, 0.0]
    tidy = actions.tidy_quaternions(raw, ("left",))
    np.testing.assert_allclose(tidy[0, 3:7], [np.sqrt(0.5), 0, 0, -np.sqrt(0.5)], atol=1e-6)
    np.testing.assert_allclose(tidy[1:, 3:7], np.array([[1, 0, 0, 0], [0.6, 0, 0.8, 0]]), atol=1e-6)
    assert not tidy[:, 8:].any()


def test_bounds_of_released_statistics() -> None:
    side = {"proprio_left_ee_xyz": [0, 1, 2], "action_left_ee_xyz": [1, 1, 1], "action_left_ee_axisangle": [2, 2, 2]}
    statistics = {
        "q01": {key: [-v for v in value] for key, value in side.items()} | {"gripper_pos": [0], "gripper_action": [-3]},
        "q99": side | {"gripper_pos": [1], "gripper_action": [3]},
    }
    bounds = actions.bounds_from_release(statistics, ("left",))
    assert bounds.proprio_low == (0, -1, -2, -1, -1, -1, -1, 0, *[0] * 8)
    assert bounds.action_high == (1, 1, 1, 2, 2, 2, 3, *[0] * 7)
    with pytest.raises(ValueError, match="no 'proprio_right_ee_xyz' under 'q01'"):
        actions.bounds_from_release(statistics, ("left", "right"))


@pytest.mark.parametrize("wrong", [[1.0, 2.0], 3.0, [1.0, float("nan"), 0.0], ["a", "b", "c"], None])
def test_statistics_of_another_length_are_refused(wrong: Any) -> None:
    one = {"proprio_left_ee_xyz": [0.0] * 3, "action_left_ee_xyz": [1.0] * 3, "gripper_pos": [1], "gripper_action": [1]}
    statistics = {side: one | {"action_left_ee_axisangle": wrong} for side in ("q01", "q99")}
    with pytest.raises(ValueError, match="3 finite numbers in 'action_left_ee_axisangle' under 'q01', got"):
        actions.bounds_from_release(statistics, ("left",))
    with pytest.raises(ValueError, match="no 'proprio_left_ee_xyz' under 'q01'"):
        actions.bounds_from_release({"q01": 3}, ("left",))


def test_a_raw_gripper_command_is_not_normalised() -> None:
    side = {"proprio_left_ee_xyz": [1.0] * 3, "action_left_ee_xyz": [0.1] * 3, "action_left_ee_axisangle": [0.5] * 3}
    side |= {"gripper_pos": [1.0], "gripper_action": [0.0463]}
    statistics = {"q01": {key: [-v for v in value] for key, value in side.items()}, "q99": side}
    raw = actions.training_bounds(statistics, ("left",), raw=True)
    assert (raw.action_low[6], raw.action_high[6]) == (-1.0, 1.0)
    assert actions.training_bounds(statistics, ("left",), raw=False).action_high[6] == 0.0463
    floored = actions.training_bounds(statistics, ("left",), raw=True, least_action=0.2)
    assert floored.action_high[:7] == (0.2, 0.2, 0.2, 0.5, 0.5, 0.5, 1.0)
    assert floored.action_low == tuple(0.0 - value for value in floored.action_high)


def test_configuration_survives_json() -> None:
    assert type(NANO).from_json(NANO.to_json()) == NANO
