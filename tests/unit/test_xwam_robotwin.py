"""X-WAM on RoboTwin without a simulator: which model acts there, what it gets, and its two wrist cameras.

In: the spec of RoboTwin's envs, observations of noise. Out: refusals, requests and predictions.
Read next: `test_xwam_benches.py`, axes and images.
"""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from envs.robotwin.bench import RobotwinBench
from envs.robotwin.tasks import env_spec
from evalkit import testing
from evalkit.config import load_config
from evalkit.contracts.bound import BoundPolicy
from evalkit.contracts.errors import BadConfig
from evalkit.contracts.requests import EpisodeRequests, visible_env
from evalkit.contracts.spec import EE_POSE_BASE, JOINT_POSITION, EnvSpec, check
from evalkit.contracts.types import Episode
from xwam.family import NANO_MODELS
from xwam.policy import XwamPlugin, XwamPolicyConfig
from xwam.robots.interfaces import INTERFACES
from xwam.serving.seen import Seen

RANDOM = XwamPolicyConfig(checkpoint="random-nano-robotwin")
PLUGIN = XwamPlugin("robotwin")


def robotwin_env(layout: str = EE_POSE_BASE, *, expert: bool = False) -> EnvSpec:
    offsets: Any = {"left": np.eye(4), "right": np.eye(4)}
    return env_spec("click_bell", layout=layout, T_ee_cams=offsets, expert=expert)


def test_a_model_of_another_bench_is_refused_in_one_sentence() -> None:
    with pytest.raises(BadConfig) as caught:
        PLUGIN.spec(XwamPolicyConfig())
    message = str(caught.value)
    assert message.startswith("policy.xwam.checkpoint=nano is a model of robosuite, not of robotwin; give ")
    assert "policy.xwam.checkpoint=sharinka0715/X-WAM-checkpoints/robotwin_sft" in message
    assert "policy.xwam.checkpoint=random-nano-robotwin" in message
    with pytest.raises(BadConfig, match=r"is a model of robotwin, not of robosuite; give \S+checkpoint=nano"):
        XwamPlugin().for_bench("robosuite").spec(RANDOM)
    assert XwamPlugin().for_bench("another_bench").spec(XwamPolicyConfig()).policy_id == "xwam/xwam-nano"


def test_a_dry_run_without_a_checkpoint_has_random_weights() -> None:
    def bound(*overrides: str) -> tuple[BoundPolicy, str]:
        config = load_config(RobotwinBench(), XwamPlugin(), list(overrides))
        return config.policy.for_dry_run("robotwin")

    policy, sentence = bound("policy.xwam.threads=2")
    assert policy.config == replace(RANDOM, threads=2)
    assert sentence == (
        "No checkpoint is given: plan, hash and hours are those of random weights (random-nano-robotwin); give "
        "policy.xwam.checkpoint=sharinka0715/X-WAM-checkpoints/robotwin_sft policy.xwam.tokenizer=google/umt5-xxl for "
        "those of the trained ones."
    )
    policy, sentence = bound("policy.xwam.checkpoint=nano")
    assert (policy.config.checkpoint, sentence) == ("nano", "")
    config = load_config(RobotwinBench(), XwamPlugin(), [])
    assert config.policy.for_dry_run("robosuite")[1] == ""


@pytest.mark.parametrize("name", [f"random-{name}" for name in NANO_MODELS])
def test_every_bench_has_a_model_with_random_weights(name: str) -> None:
    model = NANO_MODELS[name.removeprefix("random-")]
    spec = XwamPlugin().for_bench(model.bench).spec(XwamPolicyConfig(checkpoint=name))
    assert spec.policy_id.endswith("-random")
    assert spec.action_layouts == (INTERFACES[model.bench].layout,)
    assert "untrained" in PLUGIN.provenance(XwamPolicyConfig(checkpoint=name))["weights"]


def test_random_weights_fit_robotwin_and_keep_the_contract() -> None:
    check(robotwin_env(), PLUGIN.spec(RANDOM))
    testing.check_policy(PLUGIN, RANDOM)


def test_a_learned_policy_learns_neither_seed_nor_task() -> None:
    env, spec = robotwin_env(expert=True), PLUGIN.spec(RANDOM)
    episode = Episode(
        bench="robotwin",
        setting="clean",
        protocol="robotwin-50/xwam",
        task="click_bell",
        index=3,
        seed=100_123,
        instruction="Press the top of the bell.",
        max_steps=400,
        noise_key="0_3",
    )
    observation = testing.noise_request(spec, 0, 0).observation
    privileged = {key: np.ones(16) for key in env.privileged_keys} | {"bell_m": np.ones(3)}
    request = EpisodeRequests(episode, spec).request(
        replace(observation, privileged=privileged), chunk_idx=0, step_idx=0
    )
    assert request.episode is None
    assert dict(request.observation.privileged) == {}
    seen = visible_env(env, spec)
    assert (seen.env_id, seen.privileged_keys) == ("robotwin", ())
    texts = f"{request.episode_id} {request.observation.instruction} {seen} {request.noise_seed}"
    assert "click_bell" not in texts
    assert "100123" not in texts


def test_a_joint_policy_gets_its_joints_and_no_other_state() -> None:
    env = robotwin_env(JOINT_POSITION, expert=True)
    spec = replace(PLUGIN.spec(RANDOM), action_layouts=(JOINT_POSITION,))
    check(env, spec)
    assert visible_env(env, spec).privileged_keys == (JOINT_POSITION,)


def test_each_wrist_camera_moves_with_its_own_arm() -> None:
    policy = PLUGIN.make(RANDOM)
    observation = testing.noise_request(policy.spec, 0, 0).observation
    K = np.array([[200.0, 0.0, 159.5], [0.0, 200.0, 119.5], [0.0, 0.0, 1.0]])
    T_base_cam = np.eye(4)
    T_base_cam[:3, :3] = np.diag([1.0, -1.0, -1.0])  # looks down
    T_base_cam[:3, 3] = [0.0, 0.0, 1.5]
    depth = np.full_like(observation.depth, 0.8)
    cameras: Any = {"intrinsics": np.tile(K, (3, 1, 1)), "T_base_cam": np.tile(T_base_cam, (3, 1, 1))}
    seen = Seen.of(replace(observation, depth=depth, **cameras))
    future = np.stack([seen.proprio] * 2)
    future[1, 2] -= 0.1  # the left end effector goes down
    future[1, 10] -= 0.3  # the right one goes down further
    finisher = cast(Any, policy.engine.finisher)
    later = finisher.reproject_views(seen, seen.cameras, future).depth_fvhw_m
    np.testing.assert_allclose(later[0], depth, rtol=1e-6)
    for view, expected_m in ((0, 0.8), (1, 0.7), (2, 0.5)):
        np.testing.assert_allclose(later[1, view], expected_m, rtol=1e-5)
