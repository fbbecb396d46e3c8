"""The records that env, harness and policy exchange.

In: arrays. Out: frozen records with documented shapes, units and frames.
Read next: `spec.py` (specs of env and policy); `policy.py` and `env.py` (the protocols that exchange the records).

Letters: V views, H W image rows and columns, K actions in a chunk, F predicted future frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

PROPRIO_DIM = 16
"""(xyz m, quat wxyz with w >= 0, gripper 1 = open) of the left arm, then of the right; an absent arm is all zero."""

ACTION_DIM = 14
"""(translation 3, rotation vector 3, gripper 1) of the left arm, then of the right; an absent arm is all zero."""

ARM_PROPRIO = {"left": slice(0, 8), "right": slice(8, 16)}
ARM_ACTION = {"left": slice(0, 7), "right": slice(7, 14)}

QUAT_WXYZ = slice(3, 7)
"""Of the eight numbers of an arm's proprio, which begin with xyz and end with the gripper."""

TRANSLATION, ROTVEC_RAD, GRIPPER = slice(0, 3), slice(3, 6), 6
"""Of the seven numbers of an arm's action."""

OnProgress = Callable[[int, int], None]
"""Called with (units done, units in all)."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One planned episode: everything that is fixed before the first step.

    Attributes:
        bench: Name of the bench plugin, for example `robosuite`.
        setting: One of the bench's settings, for example `randomized`.
        protocol: Named and versioned set of choices, for example `robosuite-7/standard`.
        task: One of the bench's tasks.
        index: Position among the episodes of this task, from 0.
        seed: Seed of the env; fixes the first frame to the bit.
        instruction: Prompt of the policy. None if the bench knows it only after reset.
        max_steps: Control steps after which the episode is a failure.
        noise_key: Where the protocol fixes the noise of a policy, the episode's part of each request's seed (see
            `requests.noise_seed`), for example `3_14` for rank 3 and rollout 14 of the released X-WAM evaluation.
        first_state_sha256: Hash of the env's first state, where the plan knows it; an episode that starts in another
            state is an error.
    """

    bench: str
    setting: str
    protocol: str
    task: str
    index: int
    seed: int
    instruction: str | None
    max_steps: int
    noise_key: str | None = None
    first_state_sha256: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; an absent noise key or hash is left out, as in files that know none."""
        left_out = {name for name in ("noise_key", "first_state_sha256") if getattr(self, name) is None}
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    @property
    def key(self) -> str:
        """Return the name, unique within a plan, for example `Lift/0003`."""
        return f"{self.task}/{self.index:04d}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Observation:
    """The observation of an env at one step; field names are the keys of its gymnasium Dict space.

    Attributes:
        rgb: V,H,W,3 uint8, row 0 on top. V is 0 in an observation taken without rendering.
        depth: V,H,W float32, metres along the optical axis; 0 where unknown.
        intrinsics: V,3,3 float64, pixels, pixel centres at integer (u, v), of the image as delivered.
        T_base_cam: V,4,4 float64, camera in the robot base frame; x right, y down, z forward.
        proprio: 16 float32, see `PROPRIO_DIM`; positions in the robot base frame.
        instruction: Prompt of the policy.
        privileged: Simulator state by name (1-d float64 arrays), only for policies whose spec requests it.
    """

    rgb: np.ndarray
    depth: np.ndarray
    intrinsics: np.ndarray
    T_base_cam: np.ndarray
    proprio: np.ndarray
    instruction: str
    privileged: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """The predicted future of one chunk; frame f is `(f + 1) * frame_stride` control steps after the request.

    Attributes:
        rgb: F,V,H,W,3 uint8, row 0 on top; F is `num_predicted_frames` of the request.
        depth: F,V,H,W float32 metres, not masked: invalid values stay as the model predicted them. None without depth.
        proprio: F,16 float32, see `PROPRIO_DIM`. None if the policy predicts no states.
    """

    rgb: np.ndarray
    depth: np.ndarray | None
    proprio: np.ndarray | None


@dataclass(frozen=True, kw_only=True, eq=False)
class CommittedActions:
    """The rest of the chunk that the robot executes while the policy computes the next one.

    Attributes:
        actions: R,14 float32 in the env's layout: the chunk from the request's step on.
        delay: Control steps until the reply arrives: the first `delay` actions are executed whatever it says.
        last: 14 float32, the action that was executed before the request; the robot may lag behind it.
        strategy: How the new chunk joins: `guided` or `prefix`, see `Join`.
    """

    actions: np.ndarray
    delay: int
    last: np.ndarray
    strategy: Literal["guided", "prefix"]


@dataclass(frozen=True, kw_only=True, eq=False)
class PolicyRequest:
    """One request to a policy; `requests.EpisodeRequests` makes it.

    Attributes:
        episode_id: Identifies the policy's memory of this episode. Random: it tells nothing about the episode.
        chunk_idx: Number of earlier requests in this episode.
        step_idx: Control steps executed so far.
        noise_seed: 32-bit seed of everything random in the reply.
        observation: The current observation.
        num_predicted_frames: Number of future frames that the prediction must hold, counted from the first one, at
            most `num_future_frames` of the spec; 0 for no prediction. Actions do not depend on it.
        given_actions: K,14 float32 in the env's layout. The policy predicts the outcome of these actions, and the reply
            repeats them unchanged. Only for policies with `takes_actions` in their spec; None lets the policy act.
        past_rgb: N,V,H,W,3 uint8, the images after every `past_frame_stride` steps since the previous request, the
            current one last; N is 0 in the first request. None unless the policy's spec asks for them.
        episode: The planned episode; None unless the policy's spec requests it (`EPISODE` or `EVERYTHING`).
        committed: What the robot executes while the policy computes; only for policies that join chunks (`joins` in
            their spec), and None where the robot waits for the reply. The first `delay` actions of the reply are then
            what the policy would have done in these steps; they are compared, not executed.
    """

    episode_id: str
    chunk_idx: int
    step_idx: int
    noise_seed: int
    observation: Observation
    num_predicted_frames: int = 0
    given_actions: np.ndarray | None = None
    past_rgb: np.ndarray | None = None
    episode: Episode | None = None
    committed: CommittedActions | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class PolicyReply:
    """A policy's reply, sent as soon as the actions are denoised.

    Attributes:
        actions: K,14 float32 in the action layout of the env; the first `execute_steps` are executed.
        timings_ms: Named durations, milliseconds.
        prediction: Finishes the prediction and returns it; called while the robot moves. None if there is none.
        details: Further JSON values for the record.
    """

    actions: np.ndarray
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    prediction: Callable[[], Prediction] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
