"""The contracts of benches and policies as checks that any package can call from its tests.

In: a plugin, perhaps with a config. Out: nothing, or an AssertionError that says what the plugin must do.
Read next: `CONTRIBUTING.md`, whose recipes call `check_bench` and `check_policy`; `contracts/env.py`.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.contracts.env import Bench, ExaminedBench, SettledBench, VettableBench
from evalkit.contracts.geometry import matrix_from_quat, rotvec_from_matrix
from evalkit.contracts.manifest import Vetting
from evalkit.contracts.noise import noise_observation
from evalkit.contracts.policy import Policy, PolicyPlugin
from evalkit.contracts.requests import EpisodeRequests, visible_env
from evalkit.contracts.spec import (
    EE_POSE_BASE,
    JOINT_POSITION,
    OSC_STEP_M,
    CameraSpec,
    EnvSpec,
    PolicySpec,
    check,
    check_actions,
    past_offsets,
)
from evalkit.contracts.types import (
    ACTION_DIM,
    ARM_ACTION,
    ARM_PROPRIO,
    PROPRIO_DIM,
    QUAT_WXYZ,
    Episode,
    Observation,
    PolicyReply,
    PolicyRequest,
    Prediction,
)
from evalkit.contracts.worker.client import EnvWorker, EpisodeStart
from evalkit.run.settings import RunSettings

_CHUNK_LEN = 8
_SETTLE_STEPS = 20
_NO_OFFSET = tuple(map(tuple, np.eye(4).tolist()))
_FRAME_FIELDS = ("rgb", "depth", "proprio", "T_base_cam", "intrinsics")


def check_bench(bench: Bench, config: Any = None) -> None:
    """Check everything that a bench promises; starts its simulator in worker processes.

    Args:
        bench: The plugin.
        config: Settings for the episodes that are run; the plugin's defaults if None. Plans are always checked with
            the defaults.

    Raises:
        AssertionError: If a promise is not kept.
        EpisodeFault: If an env cannot start or answers with nonsense.
    """
    check_plans(bench)
    check_specs(bench)
    check_facts(bench, config)
    check_first_frames(bench, config)
    check_states(bench, config)
    check_settling(bench, config)
    check_vetting(bench, config)


def check_policy(plugin: PolicyPlugin, config: Any = None) -> None:
    """Check everything that a policy promises, on observations of noise; loads its weights.

    Args:
        plugin: The plugin.
        config: Its settings; the defaults if None.

    Raises:
        AssertionError: If a promise is not kept.
        SpecMismatch: If its actions do not fit its spec.
    """
    policy = load_checked_policy(plugin, config)
    check_replies(policy)
    check_independence(policy)
    check_prediction_is_passive(policy)


# ---- benches


def check_plans(bench: Bench) -> None:
    """Check that plans name every choice, and that a longer plan starts with the shorter one."""
    config = bench.config_type()
    for task in bench.tasks:
        for setting in bench.settings:
            few = bench.plan_episodes(config, task=task, setting=setting, num_episodes=3, seed=1)
            many = bench.plan_episodes(config, task=task, setting=setting, num_episodes=7, seed=1)
            assert many[:3] == few, f"{task}: a plan of 7 episodes must start with the plan of 3"
            assert [e.index for e in few] == [0, 1, 2], f"{task}: episodes must be numbered from 0"
            assert len({e.seed for e in many}) == 7, f"{task}: each episode needs a seed of its own"
            names = {(e.bench, e.task, e.setting, e.protocol) for e in few}
            expected = {(bench.name, task, setting, bench.protocol)}
            assert names == expected, f"{task}: episodes name {names}, expected {expected}"
            assert all(e.max_steps > 0 for e in few), f"{task}: an episode needs a step limit above 0"


def check_specs(bench: Bench) -> None:
    """Check that specs and launches survive JSON, and that the default settings follow the protocol.

    Where a simulator is installed that `examine` does not accept, its version may depart from the protocol.
    """
    config = bench.config_type()
    for task in bench.tasks:
        spec = bench.env_spec(config, task=task, setting=bench.settings[0])
        assert EnvSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec, f"{task}: the spec changes in JSON"
        assert spec.env_id == f"{bench.name}/{task}", f"the env id is {spec.env_id}, expected {bench.name}/{task}"
        carriers = {camera.arm for camera in spec.cameras if camera.kind == "wrist"}
        assert carriers <= set(spec.arms), f"{task}: a wrist camera names an arm that does not exist"
        for camera in spec.cameras:
            has_offset = camera.T_ee_cam is not None
            assert (camera.kind == "wrist") == has_offset, f"{camera.name}: wrist cameras, and only they, have T_ee_cam"
        gives_joints = JOINT_POSITION in spec.privileged_keys
        assert gives_joints or spec.action_layout != JOINT_POSITION, (
            f"{task}: an env of the layout '{JOINT_POSITION}' must give the joints under this name in `privileged`"
        )
        launch = bench.launch(config, task=task, setting=bench.settings[0])
        json.dumps([dict(launch.kwargs), dict(launch.environ), dict(launch.packages), launch.cwd])
        for pattern in launch.fatal_output:
            assert re.compile(pattern).search("") is None, f"{task}: fatal_output '{pattern}' is found in empty lines"
    json.dumps(dict(bench.provenance(config)))
    assert bench.departures(config) == [] or not _fits(bench, config), "the default settings must follow the protocol"


def check_facts(bench: Bench, config: Any = None) -> None:
    """Check what the optional members of a bench state of its protocol."""
    config = bench.config_type() if config is None else config
    if isinstance(bench, SettledBench):
        steps = bench.success_after_steps(config)
        assert type(steps) is int, f"success_after_steps must be a whole number, got {steps!r}"
        assert steps >= 0, f"success_after_steps must be 0 or more, got {steps}"
    if isinstance(bench, VettableBench):
        first, protocol = bench.first_vetted_seed(config), bench.vetting_protocol(config)
        assert type(first) is int, f"first_vetted_seed must be a whole number, got {first!r}"
        assert first >= 0, f"first_vetted_seed must be 0 or more, got {first}"
        assert isinstance(protocol, str), f"vetting_protocol must be a name, got {protocol!r}"
        count = bench.episodes_per_task(config)
        assert count is None or count > 0, f"episodes_per_task must be above 0 or None, got {count}"


def check_vetting(bench: Bench, config: Any = None, *, task: str | None = None, setting: str | None = None) -> None:
    """Check that the expert's verdict on a seed is the same in another process and after another seed.

    Only for a `VettableBench`; its envs must have `vet` (`contracts.env.VettingEnv`).
    """
    if not isinstance(bench, VettableBench):
        return
    config = bench.config_type() if config is None else config
    task, setting = task or bench.tasks[0], setting or bench.settings[0]
    first = bench.first_vetted_seed(config)
    verdicts: list[dict[int, Vetting]] = []
    for seeds in ((first, first + 1), (first + 1, first)):
        with _worker(bench, config, task=task, setting=setting) as worker:
            verdicts.append({seed: Vetting.from_json(worker.vet(seed)) for seed in seeds})
    for seed in (first, first + 1):
        one, other = (by_seed[seed] for by_seed in verdicts)
        assert one.seed == seed, f"the verdict on seed {seed} is of seed {one.seed}"
        assert one == other, f"seed {seed}: the verdict differs in another process: {one}, {other}"


def _fits(bench: Bench, config: Any) -> bool:
    """Return whether this machine has all that the bench needs."""
    return not isinstance(bench, ExaminedBench) or all(f.ok or not f.needed for f in bench.examine(config))


def check_first_frames(
    bench: Bench, config: Any = None, *, task: str | None = None, setting: str | None = None
) -> None:
    """Check that a seed gives the same scene to the bit, in another process and after another episode.

    The env must say which scene its episode met (`contracts.env.SceneEnv`). Without `task` and `setting`, the first
    task is tried in the last setting.
    """
    config = bench.config_type() if config is None else config
    task, setting = task or bench.tasks[0], setting or bench.settings[-1]
    first, second = bench.plan_episodes(config, task=task, setting=setting, num_episodes=2, seed=3)
    met = [_starts(bench, config, order) for order in ((first, second), (second, first))]
    for episode in (first, second):
        one, two = (starts[episode.seed] for starts in met)
        _check_scene(one)
        for name in _FRAME_FIELDS:
            first_values, second_values = (getattr(start.observation, name) for start in (one, two))
            message = f"seed {episode.seed}: '{name}' differs in another process"
            np.testing.assert_array_equal(first_values, second_values, err_msg=message)
        for name in ("scene", "first_state_sha256", "first_frame_sha256"):
            values = getattr(one, name), getattr(two, name)
            assert values[0] == values[1], f"seed {episode.seed}: '{name}' differs in another process: {values}"
    one, two = met[0][first.seed], met[0][second.seed]
    assert one.first_frame_sha256 != two.first_frame_sha256, "two seeds must give different images"
    assert one.first_state_sha256 != two.first_state_sha256, "two seeds must give different states"


def check_states(bench: Bench, config: Any = None, *, task: str | None = None, setting: str | None = None) -> None:
    """Check that quaternions are unit with w >= 0, grippers in 0..1, and absent arms zero."""
    config = bench.config_type() if config is None else config
    task, setting = task or bench.tasks[0], setting or bench.settings[0]
    (episode,) = bench.plan_episodes(config, task=task, setting=setting, num_episodes=1, seed=0)
    with _worker(bench, config, task=task, setting=setting) as worker:
        proprio = _begin(worker, episode, render=False).observation.proprio
    for arm, columns in ARM_PROPRIO.items():
        state = proprio[columns]
        if arm in bench.env_spec(config, task=task, setting=setting).arms:
            assert abs(np.linalg.norm(state[QUAT_WXYZ]) - 1) < 1e-5, f"{arm}: the quaternion (wxyz) must have length 1"
            assert state[3] >= 0, f"{arm}: w of the quaternion must not be negative"
            assert 0 <= state[7] <= 1, f"{arm}: the gripper's open fraction must lie in 0..1"
        else:
            assert not state.any(), f"{arm}: the state of an absent arm must be zero"


def check_settling(bench: Bench, config: Any = None, *, task: str | None = None, setting: str | None = None) -> None:
    """Check that the robot can be left alone after a chunk: its end effectors drift slowly, its grippers stay."""
    config = bench.config_type() if config is None else config
    task, setting = task or bench.tasks[0], setting or bench.settings[0]
    (episode,) = bench.plan_episodes(config, task=task, setting=setting, num_episodes=1, seed=0)
    with _worker(bench, config, task=task, setting=setting) as worker:
        observation = _begin(worker, episode, render=False).observation
        worker.send_actions(
            _probing_actions(worker.env_spec, observation), render_at=[], render_last=False, render_success=False
        )
        worker.receive_outcome()
        worker.settle(_SETTLE_STEPS)
        before = worker.observe().proprio
        assert worker.settle(1) is not None, (
            f"layout '{worker.env_spec.action_layout}': state the action that holds the robot, see `HoldingEnv` in "
            "evalkit/contracts/env.py"
        )
        after = worker.observe().proprio
    for arm, columns in ARM_PROPRIO.items():
        moved_m = float(np.linalg.norm(after[columns][:3] - before[columns][:3]))
        assert moved_m < OSC_STEP_M / 10, (
            f"{arm}: the arm still moves ({1000 * moved_m:.1f} mm per step) while the scene settles"
        )
        turned = abs(float(after[columns][7] - before[columns][7]))
        assert turned < 1e-2, f"{arm}: the gripper still moves ({turned:.3f} of its range) while the scene settles"


def _check_scene(start: EpisodeStart) -> None:
    advice = "see `SceneEnv` in evalkit/contracts/env.py and the recipe in CONTRIBUTING.md"
    assert start.scene is not None, f"the env must have a property `scene`: {advice}"
    assert start.first_state_sha256 is not None, f"the env must have a method `state`: {advice}"
    assert start.first_frame_sha256 is not None, "the first frame cannot be rendered; the worker's log says why"


def _begin(worker: EnvWorker, episode: Episode, *, render: bool) -> EpisodeStart:
    start = worker.begin(episode, render=render)
    worker.check_start(episode, start)
    return start


def _starts(bench: Bench, config: Any, episodes: Sequence[Episode]) -> dict[int, EpisodeStart]:
    task, setting = episodes[0].task, episodes[0].setting
    with _worker(bench, config, task=task, setting=setting) as worker:
        starts = {episode.seed: _begin(worker, episode, render=True) for episode in episodes}
        actions = _probing_actions(worker.env_spec, starts[episodes[-1].seed].observation)
        worker.send_actions(actions, render_at=[4], render_last=False, render_success=False)
        worker.receive_outcome()
        worker.close()  # closing twice, here and at the end, must be fine
    return starts


@contextmanager
def _worker(bench: Bench, config: Any, *, task: str, setting: str) -> Iterator[EnvWorker]:
    launch = bench.launch(config, task=task, setting=setting)
    spec = bench.env_spec(config, task=task, setting=setting)
    with tempfile.TemporaryDirectory(prefix="evalkit-check-") as folder:
        log_path = Path(folder) / "worker.log"
        with closing(EnvWorker(launch, spec, timeouts=RunSettings().timeouts, log_path=log_path).build()) as worker:
            yield worker


def _probing_actions(spec: EnvSpec, observation: Observation) -> np.ndarray:
    """Return small actions that any env must survive: deltas at random, or the pose or the joints that are there."""
    if spec.action_layout == JOINT_POSITION:
        return np.tile(observation.privileged[JOINT_POSITION].astype(np.float32), (_CHUNK_LEN, 1))
    actions = np.zeros((_CHUNK_LEN, ACTION_DIM), np.float32)
    for arm in spec.arms:
        state = observation.proprio[ARM_PROPRIO[arm]]
        if spec.action_layout == EE_POSE_BASE:
            rotvec_rad = rotvec_from_matrix(matrix_from_quat(state[QUAT_WXYZ]))
            actions[:, ARM_ACTION[arm]] = [*state[:3], *rotvec_rad, state[7]]
        else:
            actions[:, ARM_ACTION[arm]] = np.random.default_rng(0).uniform(-0.5, 0.5, (_CHUNK_LEN, 7))
    return actions


# ---- policies


def load_checked_policy(plugin: PolicyPlugin, config: Any = None) -> Policy:
    """Return the policy; its spec must be the one that was planned with, its provenance must be text."""
    config = plugin.config_type() if config is None else config
    policy = plugin.make(config)
    assert policy.spec == plugin.spec(config), "the loaded policy must have the spec that the plugin states"
    for name, value in plugin.provenance(config).items():
        assert isinstance(value, str), f"provenance '{name}' must be text"
    return policy


def check_replies(policy: Policy) -> None:
    """Check that actions and predictions have the shapes, types and ranges that the spec states."""
    spec = policy.spec
    env = env_for(spec)
    check(env, spec)
    (reply,) = ask(policy, noise_request(spec, 0, 0))
    check_actions(reply.actions, env, spec)
    assert (reply.prediction is not None) == bool(spec.predicts), "predictions must come exactly if the spec has them"
    if reply.prediction is None:
        return
    check_prediction(reply.prediction(), spec, num_frames=spec.num_future_frames)
    (reply,) = ask(policy, replace(noise_request(spec, 0, 0), num_predicted_frames=1))
    assert reply.prediction is not None, "a prediction of one frame was requested, but there is none"
    check_prediction(reply.prediction(), spec, num_frames=1)


def check_prediction(prediction: Prediction, spec: PolicySpec, *, num_frames: int) -> None:
    """Check that a prediction has the number of frames that was requested, and what the spec states."""
    env = env_for(spec)
    frames, views = num_frames, len(env.cameras)
    assert prediction.rgb.shape == (frames, views, *env.image_hw_px, 3), f"predicted RGB is {prediction.rgb.shape}"
    assert prediction.rgb.dtype == np.uint8, f"predicted RGB is {prediction.rgb.dtype}, expected uint8"
    if "depth" in spec.predicts:
        assert prediction.depth is not None, "the spec predicts depth, but there is none"
        assert prediction.depth.shape == (frames, views, *env.image_hw_px), f"depth is {prediction.depth.shape}"
        assert np.isfinite(prediction.depth).all(), "predicted depth must be finite"
    if "proprio" in spec.predicts:
        assert prediction.proprio is not None, "the spec predicts states, but there are none"
        assert prediction.proprio.shape == (frames, PROPRIO_DIM), f"states are {prediction.proprio.shape}"
        norms = np.linalg.norm(prediction.proprio[:, QUAT_WXYZ], axis=1)
        np.testing.assert_allclose(norms[norms > 0], 1, atol=1e-4, err_msg="predicted quaternions must be unit")


def check_independence(policy: Policy) -> None:
    """Check that actions depend neither on other episodes, nor on which requests share a batch, nor on the id."""
    spec = policy.spec
    alone = ask(policy, noise_request(spec, 0, 0)), ask(policy, noise_request(spec, 0, 1))
    ask(policy, noise_request(spec, 5, 0))
    together = ask(policy, noise_request(spec, 7, 0), noise_request(spec, 0, 0))
    again = ask(policy, noise_request(spec, 0, 1))
    message = "actions must not depend on the other requests"
    np.testing.assert_array_equal(alone[0][0].actions, together[1].actions, err_msg=message)
    np.testing.assert_array_equal(alone[1][0].actions, again[0].actions, err_msg=message)
    (renamed,) = ask(policy, replace(noise_request(spec, 0, 0), episode_id="another id"))
    message = "actions must not depend on the episode's id, which is random; take `noise_seed`"
    np.testing.assert_array_equal(alone[0][0].actions, renamed.actions, err_msg=message)


def check_prediction_is_passive(policy: Policy) -> None:
    """Check that computing a prediction changes no later action."""
    (before,) = ask(policy, noise_request(policy.spec, 1, 0))
    if before.prediction is not None:
        before.prediction()
    (after,) = ask(policy, noise_request(policy.spec, 1, 0))
    np.testing.assert_array_equal(before.actions, after.actions, err_msg="a prediction must not change actions")


def env_for(spec: PolicySpec) -> EnvSpec:
    """Return the spec of an env that gives exactly what a policy needs."""
    kinds = spec.views or ("static", "static", "wrist")
    cameras = tuple(
        CameraSpec(name=f"{kind}{i}", kind="wrist", arm="left", T_ee_cam=_NO_OFFSET)
        if kind == "wrist"
        else CameraSpec(name=f"{kind}{i}", kind="static")
        for i, kind in enumerate(kinds)
    )
    return EnvSpec(
        env_id=spec.env_ids[0] if spec.env_ids else "robosuite/Lift",
        cameras=cameras,
        image_hw_px=spec.image_hw_px or (16, 24),
        arms=spec.arms or ("left",),
        action_layout=spec.action_layouts[0],
        control_hz=spec.control_hz or 20.0,
        privileged_keys=(JOINT_POSITION,) if spec.action_layouts[0] == JOINT_POSITION else (),
    )


def noise_request(spec: PolicySpec, index: int, chunk_idx: int) -> PolicyRequest:
    """Return a request whose images are noise; the same numbers give the same request."""
    bench, _, task = env_for(spec).env_id.partition("/")
    instruction = "lift the cube"
    episode = Episode(
        bench=bench,
        setting="default",
        protocol="test",
        task=task,
        index=index,
        seed=index,
        instruction=instruction,
        max_steps=100,
    )
    rng = np.random.default_rng([index, chunk_idx])
    observation = noise_observation(env_for(spec), rng, instruction)
    past = past_offsets(spec, spec.execute_steps)[:-1] if chunk_idx else ()
    request = EpisodeRequests(episode, spec).request(
        observation,
        between=[rng.integers(0, 256, observation.rgb.shape, dtype=np.uint8) for _ in past],
        chunk_idx=chunk_idx,
        step_idx=chunk_idx * spec.execute_steps,
        num_predicted_frames=spec.num_future_frames if spec.predicts else 0,
    )
    return replace(request, episode_id=f"episode {index}")


def ask(policy: Policy, *requests: PolicyRequest) -> list[PolicyReply]:
    """Return the replies to one batch; episodes that begin are reset first."""
    for request in requests:
        if request.chunk_idx == 0:
            policy.reset(request.episode_id, visible_env(env_for(policy.spec), policy.spec))
    return policy.infer(requests)
