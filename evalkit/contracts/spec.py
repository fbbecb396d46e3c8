"""Specs of env and policy, and the checks that they fit each other.

In: `EnvSpec`, `PolicySpec`. Out: nothing, or a `SpecMismatch` that names both sides.
Read next: `env.py` and `policy.py`, the protocols that have these specs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from evalkit.contracts.errors import EpisodeFault, SpecMismatch
from evalkit.contracts.text import count_of
from evalkit.contracts.types import ACTION_DIM, ARM_ACTION, PROPRIO_DIM, Observation

Arm = Literal["left", "right"]

OSC_DELTA_BASE = "osc_delta_base"
"""Action layout of robosuite and RoboCasa: per arm (translation in units of 0.05 m, rotation vector in units of
0.5 rad, both along the robot base axes and clipped to +-1; gripper +1 opens, -1 closes, 0 keeps its command). Zero
moves nothing."""

OSC_STEP_M, OSC_STEP_RAD = 0.05, 0.5
"""Size of an action of 1 in the layout `osc_delta_base`."""

LARGEST_OSC = 2.5
"""Translations and rotations of `osc_delta_base` are clipped at 1. A network may overshoot; larger numbers probably
have another unit or layout."""

GRIPPER_OVERSHOOT = 0.5
"""How far a gripper's number may lie outside of its range: -1 to 1 in `osc_delta_base`, else 0 to 1."""

EE_POSE_BASE = "ee_pose_base"
"""Action layout of RoboTwin: per arm an absolute pose (xyz m, rotation vector rad, both in the frame of the states) and
the gripper's open fraction. The current pose moves nothing."""

JOINT_POSITION = "joint_position"
"""Action layout of RoboTwin's joint-space policies: per arm six absolute joint angles (rad, from the base to the wrist)
and the gripper's open fraction. The current joints move nothing: an env of this layout gives them, 14 float64, in
`privileged` under this very name. They are the targets of its joint drives, which the robot knows, so every policy of
this layout gets them and is no oracle for it."""

ROBOT_STATE = {
    "robot0_eef_pos": 3,
    "robot0_eef_quat": 4,
    "robot0_gripper_qpos": 2,
    "robot0_gripper_qvel": 2,
    "robot0_base_to_eef_pos": 3,
    "robot0_base_to_eef_quat": 4,
    "robot0_base_pos": 3,
    "robot0_base_quat": 4,
}
"""How many numbers each state of the robot itself has, by robosuite's name of the observable: metres, m/s, quaternions
(x, y, z, w); in the world, or as seen from the centre of the mobile base. The quaternions are those of the gripper's
body, which is turned by 90 degrees about z against the end effector of `proprio`. Released RoboCasa policies read them.
A policy that requests them is no oracle: a robot measures them."""

EVERYTHING = "*"
"""In a policy's `privileged_keys`: it reads the planned episode, and all state that the env of its task gives."""

EPISODE = "episode"
"""In a policy's `privileged_keys`: it reads the planned episode, with its task and its seed."""


@dataclass(frozen=True, kw_only=True)
class CameraSpec:
    """One camera; observations hold the views in the order of the spec.

    Attributes:
        name: Name of the camera in the simulator.
        kind: `static`, or `wrist` for one that moves with an arm.
        arm: The arm that carries a wrist camera.
        T_ee_cam: Hand-eye transform of a wrist camera, 4 rows of 4. The end effector's pose times this transform is
            the camera's pose.
    """

    name: str
    kind: Literal["static", "wrist"]
    arm: Arm | None = None
    T_ee_cam: tuple[tuple[float, ...], ...] | None = None


@dataclass(frozen=True, kw_only=True)
class EnvSpec:
    """Spec of an env.

    Attributes:
        env_id: `bench/task`.
        cameras: The V views, in order.
        image_hw_px: Height and width of every image.
        arms: Arms that exist; absent arms are zero in proprio and action.
        action_layout: Frame and units of actions, for example `OSC_DELTA_BASE`.
        control_hz: Control rate, in steps per simulated second. Where a step takes as long as its motion needs, as in
            RoboTwin, the rate of the bench's recorded demonstrations: videos of a run then do not play in real time.
        privileged_keys: Names of simulator state that a policy may request.
    """

    env_id: str
    cameras: tuple[CameraSpec, ...]
    image_hw_px: tuple[int, int]
    arms: tuple[Arm, ...]
    action_layout: str
    control_hz: float
    privileged_keys: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; `from_json` restores the same spec."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> EnvSpec:
        """Return the spec that `to_json` wrote, with its tuples."""
        cameras = tuple(CameraSpec(**{**camera, "T_ee_cam": _matrix(camera["T_ee_cam"])}) for camera in data["cameras"])
        tuples = {name: tuple(data[name]) for name in ("image_hw_px", "arms", "privileged_keys")}
        return cls(**{**data, **tuples, "cameras": cameras})


@dataclass(frozen=True, kw_only=True)
class Join:
    """A way in which a policy can continue the chunk that the robot executes while it computes.

    Attributes:
        strategy: `guided`: the new chunk is guided towards the old one. `prefix`: it is denoised behind the committed
            actions, which the model gets clean.
        refusal: Why the policy refuses it under its settings, one sentence with numbers and what to change; empty if it
            does not.
        max_delay: Most committed actions for which the model was trained; None for any.
    """

    strategy: Literal["guided", "prefix"]
    refusal: str = ""
    max_delay: int | None = None


@dataclass(frozen=True, kw_only=True)
class PolicySpec:
    """Spec of a policy. None means that any value fits.

    Attributes:
        policy_id: Name in records and reports.
        action_layouts: Action layouts that it supports.
        chunk_len: K, actions in a reply.
        execute_steps: Actions of a reply that are executed before the next request.
        views: Camera kinds in the order that it expects, for example `("static", "static", "wrist")`.
        image_hw_px: Image size that it expects.
        arms: Arms that it moves.
        env_ids: Envs that it supports, for example `("robosuite/Lift",)`.
        control_hz: Control rate that it expects.
        needs_images: False for a policy that reads no images; its observations are not rendered.
        privileged_keys: Simulator state that it reads, `EPISODE` for the planned episode, `EVERYTHING` for both.
            Reports call such a policy an oracle.
        predicts: Content of its predictions.
        num_future_frames: F, frames in a prediction.
        frame_stride: Control steps between predicted frames.
        takes_actions: Whether it can predict the outcome of given actions, as a world simulator does.
        past_frame_stride: Control steps between the images in `past_rgb` of its requests: what it saw since its
            previous request. None for a policy that reads the current images alone; nothing more is then rendered.
        joins: How it can continue the chunk under execution in real-time mode; every policy with chunks supports the
            strategies `sync`, `async` and `blend`.
    """

    policy_id: str
    action_layouts: tuple[str, ...]
    chunk_len: int
    execute_steps: int
    views: tuple[str, ...] | None = None
    image_hw_px: tuple[int, int] | None = None
    arms: tuple[Arm, ...] | None = None
    env_ids: tuple[str, ...] | None = None
    control_hz: float | None = None
    needs_images: bool = True
    privileged_keys: tuple[str, ...] = ()
    predicts: tuple[Literal["rgb", "depth", "proprio"], ...] = ()
    num_future_frames: int = 0
    frame_stride: int = 4
    takes_actions: bool = False
    past_frame_stride: int | None = None
    joins: tuple[Join, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; an absent `past_frame_stride` is left out, as in plans that know none.

        `joins` is left out too: it decides nothing, a plan's `execution` does.
        """
        left_out = {"joins"} | ({"past_frame_stride"} if self.past_frame_stride is None else set())
        return {name: value for name, value in asdict(self).items() if name not in left_out}


def check(env: EnvSpec, policy: PolicySpec, state_settings: Mapping[str, str] = MappingProxyType({})) -> None:
    """Raise SpecMismatch unless the policy can run on the env; nothing is padded, trimmed or resized.

    Args:
        env: The env.
        policy: The policy.
        state_settings: The bench's setting that adds a simulator state, for example `bench.robotwin.expert=true`, by
            the name of the state.

    Raises:
        SpecMismatch: Names each difference: the value of the env and the value that the policy needs.
    """
    kinds = tuple(camera.kind for camera in env.cameras)
    pairs: list[tuple[str, Any, Any]] = [
        ("views", kinds, policy.views),
        ("image size (rows, columns)", env.image_hw_px, policy.image_hw_px),
        ("arms", env.arms, policy.arms),
        ("control rate in Hz", env.control_hz, policy.control_hz),
    ]
    problems = [
        f"{name}: the env gives {given}, the policy needs {needed}"
        for name, given, needed in pairs
        if needed is not None and given != needed
    ]
    if policy.env_ids is not None and env.env_id not in policy.env_ids:
        problems.append(f"task: the policy supports only {', '.join(policy.env_ids)}")
    if env.action_layout not in policy.action_layouts:
        problems.append(f"actions: the env takes '{env.action_layout}', the policy gives {policy.action_layouts}")
    missing = sorted(set(policy.privileged_keys) - set(env.privileged_keys) - {EVERYTHING, EPISODE})
    if missing:
        bench = env.env_id.partition("/")[0]
        adding = dict.fromkeys(state_settings[key] for key in missing if key in state_settings)
        problems.append(
            f"simulator state: the policy reads {missing}, the env gives {sorted(env.privileged_keys)}; "
            + (
                f"add {' '.join(adding)}"
                if adding
                else f"`evalkit list --bench {bench}` lists the settings, of which one may add it"
            )
        )
    if not 1 <= policy.execute_steps <= policy.chunk_len:
        problems.append(f"the policy executes {policy.execute_steps} of {policy.chunk_len} actions of a chunk")
    if policy.num_future_frames * policy.frame_stride > policy.chunk_len:
        problems.append(
            f"the policy predicts {count_of(policy.num_future_frames, 'frame')} "
            f"{count_of(policy.frame_stride, 'step')} apart, "
            f"beyond its chunk of {policy.chunk_len} actions"
        )
    problems += _past_frame_problems(policy)
    if problems:
        raise SpecMismatch(f"{env.env_id} and policy '{policy.policy_id}' do not fit: {'; '.join(problems)}.")


def _past_frame_problems(policy: PolicySpec) -> list[str]:
    """Return why a policy's requests cannot hold the images that it asks for; the last one must be the current one."""
    stride = policy.past_frame_stride
    if stride is None:
        return []
    if not policy.needs_images:
        return ["past frames: the policy asks for them, but says that it needs no images"]
    if stride < 1 or policy.execute_steps % stride or policy.chunk_len % stride:
        return [
            f"past frames: past_frame_stride is {stride}, which does not divide the {policy.execute_steps} executed "
            f"actions and the chunk of {policy.chunk_len}"
        ]
    return []


def past_offsets(policy: PolicySpec, num_actions: int) -> range:
    """Return the numbers of executed actions of a chunk after which the policy's next request needs an image.

    Example:
        >>> spec = PolicySpec(policy_id="x", action_layouts=(), chunk_len=8, execute_steps=8, past_frame_stride=4)
        >>> list(past_offsets(spec, 8)), list(past_offsets(replace(spec, past_frame_stride=None), 8))
        ([4, 8], [])
    """
    stride = policy.past_frame_stride
    return range(0) if stride is None else range(stride, num_actions + 1, stride)


def check_takes_actions(env: EnvSpec, policy: PolicySpec) -> None:
    """Raise SpecMismatch unless the policy can predict the outcome of recorded actions.

    Raises:
        SpecMismatch: Names env and policy.
    """
    if not policy.takes_actions:
        raise SpecMismatch(
            f"Policy '{policy.policy_id}' cannot be given the recorded actions of {env.env_id}: it only predicts the "
            f"outcome of its own actions (takes_actions is false in its spec)."
        )


def still_action(last: np.ndarray, layout: str) -> np.ndarray:
    """Return the action, 14 numbers, that moves nothing after the action `last` and keeps its gripper commands.

    Example:
        >>> still_action(np.array([0.5] * 6 + [-1.0] + [0.0] * 7, np.float32), OSC_DELTA_BASE)[:7].tolist()
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]
    """
    still = np.array(last, np.float32)
    if layout == OSC_DELTA_BASE:
        for columns in ARM_ACTION.values():
            still[columns.start : columns.stop - 1] = 0.0
    return still


def settling_action(last: np.ndarray, layout: str) -> np.ndarray | None:
    """Return the action, 14 numbers, that is executed while a scene settles after success; None in another layout.

    Zero in `osc_delta_base`: the arms stand still, and a gripper number of 0 leaves the gripper's command as it is.
    In `ee_pose_base` and `joint_position` it is the last action: the robot goes on holding its last target.

    Args:
        last: The last executed action, 14 numbers.
        layout: Action layout of the env.

    Example:
        >>> settling_action(np.ones(14, np.float32), OSC_DELTA_BASE).any()
        False
    """
    target = np.array(last, np.float32)
    known = {OSC_DELTA_BASE: np.zeros(ACTION_DIM, np.float32), EE_POSE_BASE: target, JOINT_POSITION: target}
    return known.get(layout)


def check_observation(observation: Observation, env: EnvSpec, *, rendered: bool, check_depth: bool = True) -> None:
    """Raise EpisodeFault unless an observation has the form of the env's spec.

    Args:
        observation: The observation.
        env: Spec of the env.
        rendered: Whether images were requested; without them V is 0.
        check_depth: False where depth is known to be zeros of the right form.

    Raises:
        EpisodeFault: Blames the env: a wrong shape or type, or a value that is not finite.
    """
    views = len(env.cameras) if rendered else 0
    height, width = env.image_hw_px
    depth = [("depth", observation.depth, (views, height, width), np.float32)] if check_depth else []
    expected: list[tuple[str, np.ndarray, tuple[int, ...], type]] = [
        ("rgb", observation.rgb, (views, height, width, 3), np.uint8),
        *depth,
        ("intrinsics", observation.intrinsics, (views, 3, 3), np.float64),
        ("T_base_cam", observation.T_base_cam, (views, 4, 4), np.float64),
        ("proprio", observation.proprio, (PROPRIO_DIM,), np.float32),
    ]
    for name, value, shape, dtype in expected:
        if not isinstance(value, np.ndarray) or value.shape != shape or value.dtype != dtype:
            got = f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
            raise EpisodeFault("env", f"{env.env_id}: {name} must be {np.dtype(dtype)} {shape}, got {got}.")
        if dtype is not np.uint8 and not np.isfinite(value).all():
            raise EpisodeFault("env", f"{env.env_id}: {name} holds values that are not finite.")
    if rendered and check_depth and (observation.depth < 0).any():
        raise EpisodeFault("env", f"{env.env_id}: depth holds negative values.")
    if not isinstance(observation.instruction, str):
        raise EpisodeFault("env", f"{env.env_id}: the instruction must be text, got {observation.instruction!r}.")
    missing = sorted(set(env.privileged_keys) - set(observation.privileged))
    if missing:
        raise EpisodeFault("env", f"{env.env_id}: the simulator state {missing} of the spec is missing.")


def allowed(observation: Observation, spec: PolicySpec) -> Observation:
    """Return the observation with only the simulator state that the policy's spec requests."""
    if EVERYTHING in spec.privileged_keys:
        return observation
    given = observation.privileged
    return replace(observation, privileged={key: given[key] for key in readable_keys(spec, given)})


def readable_keys(spec: PolicySpec, given: Iterable[str]) -> tuple[str, ...]:
    """Return the names of simulator state that a policy gets of those given: requested ones, and the robot's joints."""
    joints = (JOINT_POSITION,) if JOINT_POSITION in spec.action_layouts else ()
    return tuple(key for key in given if key in (*spec.privileged_keys, *joints))


def oracle_keys(keys: Iterable[str]) -> tuple[str, ...]:
    """Return what only an oracle may read of a policy's `privileged_keys`: all but the states of the robot itself.

    Example:
        >>> oracle_keys(["robot0_eef_pos", "cube_pos_m"])
        ('cube_pos_m',)
    """
    return tuple(key for key in keys if key not in ROBOT_STATE)


def reads_episode(spec: PolicySpec) -> bool:
    """Return whether a policy is given the planned episode: its task and its seed."""
    return EVERYTHING in spec.privileged_keys or EPISODE in spec.privileged_keys


def check_actions(actions: np.ndarray, env: EnvSpec, policy: PolicySpec) -> None:
    """Raise EpisodeFault unless a reply's actions are K,14, finite, and zero for absent arms.

    Raises:
        EpisodeFault: Blames the policy.
    """
    where = f"{env.env_id}, policy '{policy.policy_id}'"
    shape = (policy.chunk_len, ACTION_DIM)
    if type(actions) is not np.ndarray or actions.shape != shape:
        got = actions.shape if type(actions) is np.ndarray else type(actions).__name__
        raise EpisodeFault("policy", f"{where}: actions must have shape {shape} ({env.action_layout}), got {got}.")
    if actions.dtype != np.float32:
        raise EpisodeFault("policy", f"{where}: actions must be float32, got {actions.dtype}.")
    if not np.isfinite(actions).all():
        raise EpisodeFault("policy", f"{where}: actions hold values that are not finite.")
    for arm, columns in ARM_ACTION.items():
        if arm not in env.arms and actions[:, columns].any():
            raise EpisodeFault("policy", f"{where}: actions move the {arm} arm, which this env does not have.")


def _matrix(rows: Any) -> tuple[tuple[float, ...], ...] | None:
    return None if rows is None else tuple(tuple(float(value) for value in row) for row in rows)
