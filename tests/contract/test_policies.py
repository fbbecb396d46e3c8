"""What every registered policy must do, on observations that no simulator made."""

import numpy as np
import pytest

from evalkit.contracts import plugins
from evalkit.contracts.errors import UnknownName
from evalkit.contracts.policy import Policy
from evalkit.contracts.spec import OSC_DELTA_BASE, CameraSpec, EnvSpec, PolicySpec, check, check_actions
from evalkit.contracts.types import Episode, Observation, PolicyReply, PolicyRequest

NEED_A_SIMULATOR = {"scripted"}  # reads a simulator's state; tests/sim runs it
POLICIES = [
    *(name for name in plugins.names(plugins.POLICIES) if name not in NEED_A_SIMULATOR),
    "tests.doubles.policy:FakePolicyPlugin",
]
HAND_EYE = tuple(map(tuple, np.eye(4).tolist()))


@pytest.fixture(scope="module", params=POLICIES)
def policy(request: pytest.FixtureRequest) -> Policy:
    plugin = plugins.load_policy(request.param)
    config = plugin.config_type()
    made = plugin.make(config)
    assert made.spec == plugin.spec(config), "the loaded policy must be the one that was planned"
    assert all(isinstance(value, str) for value in plugin.provenance(config).values())
    return made


def env_for(spec: PolicySpec) -> EnvSpec:
    """Return an env that gives just what a policy needs."""
    kinds = spec.views or ("static", "static", "wrist")
    cameras = tuple(
        CameraSpec(name=f"{kind}{i}", kind="wrist", arm="left", T_ee_cam=HAND_EYE)
        if kind == "wrist"
        else CameraSpec(name=f"{kind}{i}", kind="static")
        for i, kind in enumerate(kinds)
    )
    return EnvSpec(
        env_id=spec.env_ids[0] if spec.env_ids else "robosuite/Lift",
        cameras=cameras,
        image_hw_px=spec.image_hw_px or (16, 24),
        arms=spec.arms or ("left",),
        action_layout=OSC_DELTA_BASE,
        control_hz=spec.control_hz or 20.0,
    )


def request(spec: PolicySpec, index: int, chunk_idx: int) -> PolicyRequest:
    env, rng = env_for(spec), np.random.default_rng([index, chunk_idx])
    views, (height, width) = len(env.cameras), env.image_hw_px
    proprio = np.zeros(16, np.float32)
    proprio[:8] = [*rng.uniform(-0.5, 0.5, 3), 1, 0, 0, 0, 1]
    return PolicyRequest(
        episode=Episode(
            bench="robosuite",
            setting="default",
            protocol="test",
            task="Lift",
            index=index,
            seed=index,
            instruction="lift the cube",
            max_steps=100,
        ),
        chunk_idx=chunk_idx,
        step_idx=chunk_idx * spec.execute_steps,
        observation=Observation(
            rgb=rng.integers(0, 256, (views, height, width, 3), dtype=np.uint8),
            depth=rng.uniform(0.3, 2.0, (views, height, width)).astype(np.float32),
            intrinsics=np.tile(np.array([[50.0, 0, width / 2], [0, 50.0, height / 2], [0, 0, 1]]), (views, 1, 1)),
            T_base_cam=np.tile(np.eye(4), (views, 1, 1)),
            proprio=proprio,
            instruction="lift the cube",
        ),
        want_prediction=bool(spec.predicts),
    )


def ask(policy: Policy, *requests: PolicyRequest) -> list[PolicyReply]:
    for one in requests:
        if one.chunk_idx == 0:
            policy.reset(one.episode, env_for(policy.spec))
    return policy.infer(requests)


def test_replies_are_what_the_spec_promises(policy: Policy) -> None:
    spec = policy.spec
    env = env_for(spec)
    check(env, spec)
    (reply,) = ask(policy, request(spec, 0, 0))
    check_actions(reply.actions, env, spec)
    assert (reply.prediction is not None) == bool(spec.predicts)
    if reply.prediction is None:
        return
    prediction = reply.prediction()
    frames, views = spec.num_future_frames, len(env.cameras)
    assert prediction.rgb.shape == (frames, views, *env.image_hw_px, 3)
    assert prediction.rgb.dtype == np.uint8
    if "depth" in spec.predicts:
        assert prediction.depth is not None
        assert prediction.depth.shape == (frames, views, *env.image_hw_px)
        assert np.isfinite(prediction.depth).all()
    if "proprio" in spec.predicts:
        assert prediction.proprio is not None
        assert prediction.proprio.shape == (frames, 16)
        norms = np.linalg.norm(prediction.proprio[:, 3:7], axis=1)
        np.testing.assert_allclose(norms[norms > 0], 1, atol=1e-4)


def test_actions_do_not_depend_on_what_else_was_asked(policy: Policy) -> None:
    spec = policy.spec
    alone = ask(policy, request(spec, 0, 0)), ask(policy, request(spec, 0, 1))
    ask(policy, request(spec, 5, 0))
    together = ask(policy, request(spec, 7, 0), request(spec, 0, 0))
    again = ask(policy, request(spec, 0, 1))
    np.testing.assert_array_equal(alone[0][0].actions, together[1].actions)
    np.testing.assert_array_equal(alone[1][0].actions, again[0].actions)


def test_imagining_changes_no_action(policy: Policy) -> None:
    spec = policy.spec
    (before,) = ask(policy, request(spec, 1, 0))
    if before.prediction is not None:
        before.prediction()
    (after,) = ask(policy, request(spec, 1, 0))
    np.testing.assert_array_equal(before.actions, after.actions)


def test_an_unknown_policy_is_named() -> None:
    with pytest.raises(UnknownName, match=r"Unknown policy 'hodl'. Did you mean 'hold'"):
        plugins.load_policy("hodl")
