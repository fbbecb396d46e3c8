"""Frames of reference, images and actions of the benches: worked examples, and end to end."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evalkit.contracts import geometry
from evalkit.contracts.requests import EpisodeRequests
from evalkit.contracts.types import Episode, Observation
from evalkit.dataset import axes as frames
from tests.doubles.checkpoints import MODEL
from tests.doubles.known import known
from xwam.checkpoints import convert
from xwam.checkpoints.bundle import Bundle
from xwam.checkpoints.metadata import start_model
from xwam.config import WAN22_5B
from xwam.policy import XwamPlugin, XwamPolicyConfig
from xwam.robots.actions import denormalise
from xwam.robots.axes import accumulate
from xwam.robots.image_pipeline import ImagePipeline
from xwam.robots.interfaces import INTERFACES

HALF = np.sqrt(0.5)
BOTH = ("left", "right")


def state(xyz: Any, quat: Any, gripper: Any) -> Any:
    return np.array([*xyz, *quat, gripper, *[0.0] * 8])


def test_rotations_are_rotations() -> None:
    for name in ("R_EEFSIM_EEFMODEL_ROBOCASA", "R_MODELBASE_SIMBASE_ROBOTWIN", "R_EEFSIM_EEFMODEL_ROBOTWIN"):
        rotation = getattr(frames, name)
        np.testing.assert_array_equal(rotation @ rotation.T, np.eye(3))
        assert np.linalg.det(rotation) == pytest.approx(1)


def test_robocasa_turns_the_hand_by_ninety_degrees() -> None:
    turned = frames.ROBOCASA_AXES.model_from_sim(state((1, 2, 3), (1, 0, 0, 0), 0.5), ("left",))
    np.testing.assert_allclose(turned, state((1, 2, 3), (HALF, 0, 0, HALF), 0.5), atol=1e-12)


def test_robotwin_by_hand() -> None:
    turned = frames.ROBOTWIN_AXES.model_from_sim(state((1, 2, 3), (1, 0, 0, 0), 0.5), ("left",))
    expected = frames.R_MODELBASE_SIMBASE_ROBOTWIN @ frames.R_EEFSIM_EEFMODEL_ROBOTWIN
    np.testing.assert_allclose(turned[:3], (2, -1, 3))
    np.testing.assert_allclose(geometry.matrix_from_quat(turned[3:7]), expected, atol=1e-12)
    assert not turned[8:].any()


@pytest.mark.parametrize("axes", [frames.SAME_AXES, frames.ROBOCASA_AXES, frames.ROBOTWIN_AXES])
def test_there_and_back(axes: frames.Axes) -> None:
    quat = np.array([0.8, 0.2, -0.4, 0.4])
    known = np.tile([0.1, -0.2, 0.3, *quat, 0.7], 2)
    np.testing.assert_allclose(axes.sim_from_model(axes.model_from_sim(known, BOTH), BOTH), known, atol=1e-12)


def test_deltas_add_up_and_turn_on_the_left() -> None:
    chunk = np.zeros((3, 14))
    chunk[:, :7] = [0.1, 0, 0, 0, 0, np.pi / 2, -0.1]
    start = state((1, 0, 0), (HALF, HALF, 0, 0), 0.9)
    states = accumulate(chunk, start, ("left",))
    np.testing.assert_allclose(states[:, 0], [1.1, 1.2, 1.3])
    np.testing.assert_allclose(states[:, 7], [0.8, 0.7, 0.6])
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    expected = turn @ turn @ geometry.matrix_from_quat(start[3:7])
    np.testing.assert_allclose(geometry.matrix_from_quat(states[1, 3:7]), expected, atol=1e-12)
    assert not states[:, 8:].any()


def test_actions_of_the_benches() -> None:
    chunk = np.full((2, 14), 3.0)
    chunk[:, 7:] = 0.0
    assert INTERFACES["robocasa"].env_actions(chunk, np.zeros(16), ("left",)).max() == 1.0
    start = np.tile([0.2, 0.1, 0.3, 1.0, 0, 0, 0, 1.0], 2)
    still = INTERFACES["robotwin"].env_actions(np.zeros((2, 14)), start, BOTH)
    np.testing.assert_allclose(still, np.tile([0.2, 0.1, 0.3, 0, 0, 0, 1.0], (2, 2)), atol=1e-6)
    forward = np.zeros((1, 14))
    forward[0, 0] = 0.05  # x of the model's base is y of RoboTwin's
    moved = INTERFACES["robotwin"].env_actions(forward, start, BOTH)
    np.testing.assert_allclose(moved[0, :3], [0.2, 0.15, 0.3], atol=1e-6)


def test_the_released_crop() -> None:
    pipeline = ImagePipeline(env_hw_px=(256, 256), model_hw_px=(256, 320), crop_frac=0.95)
    assert pipeline.crop_px == (6, 8, 243, 304)
    K = np.array([[200.0, 0, 127.5], [0, 200.0, 127.5], [0, 0, 1]])
    after = pipeline.intrinsics(K)
    np.testing.assert_allclose([after[0, 0], after[1, 1]], [200 * 320 / 256 * 320 / 304, 200 * 256 / 243])
    np.testing.assert_allclose(after[0, 2], 159.5)  # the crop is centred in its rows' direction only to half a pixel
    np.testing.assert_allclose(after[1, 2], (127.5 - 6 + 0.5) * 256 / 243 - 0.5)


def test_pixels_go_where_the_intrinsics_say() -> None:
    pipeline = ImagePipeline(env_hw_px=(48, 40), model_hw_px=(64, 80), crop_frac=0.9)
    rows, cols = torch.meshgrid(torch.arange(48.0), torch.arange(40.0), indexing="ij")
    seen = pipeline.to_model(torch.stack([cols, rows])[None])[0]
    u_v = np.linalg.inv(pipeline.pixels_model_env()) @ np.array([30.0, 20.0, 1.0])
    np.testing.assert_allclose(seen[:, 20, 30], u_v[:2], atol=1e-3)


def test_pictures_come_back() -> None:
    pipeline = ImagePipeline(env_hw_px=(48, 40), model_hw_px=(96, 80), crop_frac=0.9)
    rows, cols = torch.meshgrid(torch.arange(48.0), torch.arange(40.0), indexing="ij")
    image = torch.stack([cols, rows])[None]
    back = pipeline.to_env(pipeline.to_model(image))
    torch.testing.assert_close(back[..., 4:-4, 4:-4], image[..., 4:-4, 4:-4], atol=0.02, rtol=0)
    same = ImagePipeline(env_hw_px=(8, 8), model_hw_px=(8, 8))
    assert torch.equal(same.to_env(same.to_model(torch.ones(1, 3, 8, 8))), torch.ones(1, 3, 8, 8))


def test_a_gripper_command_of_robocasa_survives_any_statistics() -> None:
    side = {"proprio_left_ee_xyz": [1.0] * 3, "action_left_ee_xyz": [0.1] * 3, "action_left_ee_axisangle": [0.5] * 3}
    side |= {"gripper_pos": [1.0], "gripper_action": [0.0463]}
    for arm in ("xyz", "axisangle"):
        side[f"action_right_ee_{arm}"] = [0.2] * 3
    side["proprio_right_ee_xyz"] = [1.0] * 3
    statistics = {"q01": {key: [-v for v in value] for key, value in side.items()}, "q99": side}
    for bench, bound in (("robocasa", 1.0), ("robotwin", 0.0463)):
        model = start_model(WAN22_5B, bench=bench, statistics=statistics, num_depth_blocks=10)
        assert (model.bounds.action_low[6], model.bounds.action_high[6]) == (-bound, bound)
        assert model.bounds.action_high[:6] == (0.1, 0.1, 0.1, 0.5, 0.5, 0.5)
    bounds = start_model(WAN22_5B, bench="robocasa", statistics=statistics, num_depth_blocks=10).bounds
    closed = denormalise(np.eye(14)[6:7], bounds.action_low, bounds.action_high)
    assert INTERFACES["robocasa"].env_actions(closed, np.zeros(16), ("left",))[0, 6] == 1.0


@pytest.mark.parametrize("bench", ["robocasa", "robotwin"])
def test_a_released_model_runs_end_to_end(bundle: Bundle, bench: str, tmp_path: Path) -> None:
    single = bench == "robocasa"
    arms = ("left",) if single else BOTH
    model = replace(MODEL, bench=bench, arms=arms, views=("static", "static", "wrist") if single else MODEL.views)
    convert.write_ours(Bundle(model, *bundle[1:]), tmp_path)
    config = XwamPolicyConfig(
        checkpoint=str(tmp_path), num_video_steps=2, num_action_steps=1, text_cache=str(tmp_path / "prompts")
    )
    plugin = XwamPlugin()
    spec = plugin.spec(config)
    assert spec.image_hw_px == ((256, 256) if single else (240, 320))
    assert spec.action_layouts == (("osc_delta_base",) if single else ("ee_pose_base",))
    height, width = spec.image_hw_px
    proprio = np.zeros(16, np.float32)
    for index in range(len(arms)):
        proprio[8 * index : 8 * index + 8] = [0.3, 0.1, 0.2, 1, 0, 0, 0, 1]
    observation = Observation(
        rgb=np.random.default_rng(0).integers(0, 256, (3, height, width, 3), dtype=np.uint8),
        depth=np.ones((3, height, width), np.float32),
        intrinsics=np.tile(np.eye(3), (3, 1, 1)),
        T_base_cam=np.tile(np.eye(4), (3, 1, 1)),
        proprio=proprio,
        instruction="open the drawer",
    )
    episode = Episode(
        bench=bench, setting="s", protocol="p", task="t", index=0, seed=1, instruction="open the drawer", max_steps=9
    )
    requests = EpisodeRequests(episode, spec)
    request = requests.request(observation, chunk_idx=0, step_idx=0, num_predicted_frames=8)
    (reply,) = plugin.make(config).infer([request])
    assert reply.actions.shape == (32, 14)
    assert np.isfinite(reply.actions).all()
    assert reply.actions[:, 7:].any() != single
    future = known(reply.prediction)()
    assert future.rgb.shape == (8, 3, height, width, 3)
    assert known(future.depth).shape == (8, 3, height, width)
    assert known(future.proprio)[:, 8:].any() != single
    np.testing.assert_allclose(np.linalg.norm(known(future.proprio)[:, 3:7], axis=1), 1, rtol=1e-5)
    assert len(list((tmp_path / "prompts").iterdir())) == 1


def test_a_gripper_opens_no_further_than_open() -> None:
    deltas = np.zeros((32, 14))
    deltas[:, [6, 13]] = 0.075, -0.075
    proprio = np.tile([0.1, 0.2, 0.3, 1.0, 0.0, 0.0, 0.0, 0.4], 2)
    actions = INTERFACES["robotwin"].env_actions(deltas, proprio, ("left", "right"))
    np.testing.assert_allclose(actions[:9, 6], np.minimum(0.4 + 0.075 * np.arange(1, 10), 1.0), atol=1e-6)
    assert (actions[8:, 6] == 1.0).all()
    assert (actions[8:, 13] == 0.0).all()
