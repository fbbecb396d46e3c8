"""Checks of a bench and its envs: plans, specs, scenes, states, cameras, rendering, settling, verdicts.

In: a bench plugin, perhaps with a config, a task and a setting. Out: nothing, or an AssertionError with the promise
that is not kept.
Read next: `benches.py`, which runs them; `evalkit/contracts/env.py`, which states the contract.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.contracts.env import Bench, ExaminedBench, SettledBench, VettableBench
from evalkit.contracts.geometry import ee_pose_from_proprio, inverse, matrix_from_quat, rotvec_from_matrix
from evalkit.contracts.manifest import Vetting
from evalkit.contracts.spec import EE_POSE_BASE, JOINT_POSITION, OSC_STEP_M, EnvSpec
from evalkit.contracts.types import ACTION_DIM, ARM_ACTION, ARM_PROPRIO, QUAT_WXYZ, Episode, Observation
from evalkit.contracts.worker.client import EnvWorker, EpisodeStart
from evalkit.run.settings import RunSettings
from evalkit.testing.suite import Doubt

_CHUNK_LEN = 8
_SETTLE_STEPS = 20
_FRAME_FIELDS = ("rgb", "depth", "proprio", "T_base_cam", "intrinsics")
_SCENE_DEPTH_M = (0.02, 20.0)
"""Median depth of a scene with a robot arm; outside of it, depth is often in another unit."""


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


def check_cameras(bench: Bench, config: Any = None, *, task: str | None = None, setting: str | None = None) -> None:
    """Check that camera poses are rigid and follow the end effectors, and that intrinsics are those of the images.

    Raises:
        Doubt: If the scene's median depth is no length in metres, or every static camera has the robot behind it.
    """
    config = bench.config_type() if config is None else config
    task, setting = task or bench.tasks[0], setting or bench.settings[0]
    (episode,) = bench.plan_episodes(config, task=task, setting=setting, num_episodes=1, seed=0)
    with _worker(bench, config, task=task, setting=setting) as worker:
        seen, spec = _begin(worker, episode, render=True).observation, worker.env_spec
    height, width = spec.image_hw_px
    for camera, T_base_cam, K in zip(spec.cameras, seen.T_base_cam, seen.intrinsics, strict=True):
        R = T_base_cam[:3, :3]
        rigid = np.allclose(R @ R.T, np.eye(3), atol=1e-5) and np.linalg.det(R) > 0
        assert rigid, f"{camera.name}: T_base_cam holds no rotation: {R.round(3).tolist()}"
        inside = 0 < K[0, 2] < width and 0 < K[1, 2] < height and K[0, 0] > 0 and K[1, 1] > 0
        assert inside, f"{camera.name}: intrinsics {K.round(1).tolist()} are not of an image of {height} x {width} px"
        if camera.arm is not None and camera.T_ee_cam is not None:
            expected = ee_pose_from_proprio(seen.proprio[ARM_PROPRIO[camera.arm]]) @ np.asarray(camera.T_ee_cam)
            error = float(np.abs(T_base_cam - expected).max())
            assert error < 5e-3, f"{camera.name}: T_base_cam differs from end effector times T_ee_cam by {error:.3g}"
    _check_depth(seen)
    _check_in_front(spec, seen)


def _check_depth(seen: Observation) -> None:
    known = seen.depth[seen.depth > 0]
    low, high = _SCENE_DEPTH_M
    if known.size and not low < float(np.median(known)) < high:
        raise Doubt(f"the median depth is {float(np.median(known)):.3g}; depth is in metres along the optical axis")


def _check_in_front(spec: EnvSpec, seen: Observation) -> None:
    """Raise Doubt if no static camera has an end effector in front of it, as with the axes of OpenGL."""
    static = [pose for camera, pose in zip(spec.cameras, seen.T_base_cam, strict=True) if camera.kind == "static"]
    ends_m = [ee_pose_from_proprio(seen.proprio[ARM_PROPRIO[arm]])[:, 3] for arm in spec.arms]
    ahead_m = [(inverse(pose) @ end)[2] for pose in static for end in ends_m]
    if ahead_m and max(ahead_m) < 0:
        raise Doubt(f"every static camera has the end effectors behind it (z = {max(ahead_m):.2f} m); z points forward")


def check_rendering(bench: Bench, config: Any = None, *, task: str | None = None, setting: str | None = None) -> None:
    """Check that rendering within a chunk changes nothing that the robot does."""
    config = bench.config_type() if config is None else config
    task, setting = task or bench.tasks[0], setting or bench.settings[0]
    (episode,) = bench.plan_episodes(config, task=task, setting=setting, num_episodes=1, seed=0)
    ends = []
    with _worker(bench, config, task=task, setting=setting) as worker:
        for offsets in ([], list(range(1, _CHUNK_LEN + 1))):
            start = _begin(worker, episode, render=bool(offsets)).observation
            actions = _probing_actions(worker.env_spec, start)
            worker.send_actions(actions, render_at=offsets, render_last=False, render_success=False)
            ends.append(worker.receive_outcome())
    plain, rendered = ends
    assert plain.num_executed == rendered.num_executed, "an episode ends earlier if images are rendered within a chunk"
    gap = float(np.abs(plain.last.proprio - rendered.last.proprio).max())
    assert gap == 0, f"images rendered within a chunk change where the robot ends, by up to {gap:.3g}"


def _check_scene(start: EpisodeStart) -> None:
    advice = "see `SceneEnv` in evalkit/contracts/env.py and the page docs/write_a_bench.md"
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
