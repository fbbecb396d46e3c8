"""The values that travel between env, harness and policy.

In: arrays. Out: frozen records with their shapes, units and frames written down.
Read next: `spec.py` (what an env gives and a policy needs), `policy.py` and `env.py` (who gives and takes them).

Letters: V views, H W image rows and columns, K actions in a chunk, F predicted future frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

PROPRIO_DIM = 16
"""(xyz m, quat wxyz with w >= 0, gripper 1 = open) of the left arm, then of the right; an absent arm is all zero."""

ACTION_DIM = 14
"""(translation 3, rotation vector 3, gripper 1) of the left arm, then of the right; an absent arm is all zero."""

ARM_PROPRIO = {"left": slice(0, 8), "right": slice(8, 16)}
ARM_ACTION = {"left": slice(0, 7), "right": slice(7, 14)}


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One line of a plan: everything that is fixed before the first step.

    Attributes:
        bench: Name of the bench plugin, for example `robosuite`.
        setting: One of the bench's settings, for example `randomized`.
        protocol: Named and versioned set of choices, for example `robosuite-7/standard`.
        task: One of the bench's tasks.
        index: Position among the episodes of this task, from 0.
        seed: Seed of the env; fixes the first frame to the bit.
        instruction: What the policy is told; None where the bench only knows it after reset.
        max_steps: Control steps after which the episode is a failure.
    """

    bench: str
    setting: str
    protocol: str
    task: str
    index: int
    seed: int
    instruction: str | None
    max_steps: int

    @property
    def key(self) -> str:
        """Return the name that is unique within a plan, for example `Lift/0003`."""
        return f"{self.task}/{self.index:04d}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Observation:
    """What an env gives at one moment; field names are the keys of its gymnasium Dict space.

    Attributes:
        rgb: V,H,W,3 uint8, row 0 on top. V is 0 in an observation taken without rendering.
        depth: V,H,W float32, metres along the optical axis; 0 where there is none.
        intrinsics: V,3,3 float64, pixels, pixel centres at integer (u, v), of the image as delivered.
        T_base_cam: V,4,4 float64, camera in the robot base frame; x right, y down, z forward.
        proprio: 16 float32, see `PROPRIO_DIM`; positions in the robot base frame.
        instruction: Exactly what the policy is told.
        privileged: Simulator state by name (1-d float64 arrays), only for policies whose spec asks for it.
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
    """The imagined future of one chunk; frame f is meant for `(f + 1) * frame_stride` control steps after the request.

    Attributes:
        rgb: F,V,H,W,3 uint8, row 0 on top.
        depth: F,V,H,W float32 metres, not masked: what is invalid stays as the model gave it. None without depth.
        proprio: F,16 float32, see `PROPRIO_DIM`. None where the policy predicts no states.
    """

    rgb: np.ndarray
    depth: np.ndarray | None
    proprio: np.ndarray | None


@dataclass(frozen=True, kw_only=True, eq=False)
class PolicyRequest:
    """One question to a policy.

    Attributes:
        episode: The planned episode; its `key` names the policy's state for it.
        chunk_idx: How many chunks this episode has asked for before.
        step_idx: Control steps executed so far.
        observation: What the env shows now.
        want_prediction: Whether the reply should carry a handle to the imagined future.
        given_actions: K,14 float32 in the env's layout: the future to imagine is that of these actions, and the reply
            gives them back unchanged. Only for policies whose spec says `takes_actions`; None lets the policy act.
    """

    episode: Episode
    chunk_idx: int
    step_idx: int
    observation: Observation
    want_prediction: bool = False
    given_actions: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class PolicyReply:
    """A policy's answer; it leaves as soon as the actions are clean.

    Attributes:
        actions: K,14 float32 in the action layout of the env; the first `execute_steps` are executed.
        timings_ms: Named durations, milliseconds.
        prediction: Finishes the imagination and returns it; called while the robot moves. None where there is none.
        details: What else deserves a place in the record, JSON values only.
    """

    actions: np.ndarray
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    prediction: Callable[[], Prediction] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
