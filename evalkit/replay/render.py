"""One demonstration rendered again, and compared with its own recorded observations.

In: a demonstration, a worker whose env plays states. Out: steps to be written; or which frame could not be reproduced.
Read next: `demos.py`, what a demonstration holds; `evalkit/dataset/writer.py`, which writes the steps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from evalkit.contracts.errors import EnvRaised, EpisodeFault
from evalkit.contracts.spec import EnvSpec
from evalkit.contracts.types import ACTION_DIM, ARM_ACTION, GRIPPER, ROTVEC_RAD, TRANSLATION, Observation
from evalkit.contracts.worker.client import EnvWorker
from evalkit.dataset.writer import Steps
from evalkit.replay.demos import ARM_NUMBERS, BrokenDemo, Demo

EE_TOLERANCE_M = 2e-3
"""Largest distance of the end effector from its recorded position; observations may be one physics step older."""

BASE_TOLERANCE_M = 1e-3
BASE_TOLERANCE_RAD = 5e-3
"""Largest motion of the robot's base: an action of ours cannot express it."""


class Rendered(NamedTuple):
    """A rendered demonstration.

    Attributes:
        spec: What the env gives.
        steps: The steps.
        instruction: The demonstration's instruction, or else the env's.
        ee_error_m: Largest distance of the end effector from its recorded position; None without such a record.
    """

    spec: EnvSpec
    steps: Steps
    instruction: str
    ee_error_m: float | None


def render(
    worker: EnvWorker, demo: Demo, *, in_world_axes: bool = False, ee_tolerance_m: float = EE_TOLERANCE_M
) -> Rendered:
    """Return a demonstration with RGB and depth at every step.

    Args:
        worker: Its env plays states.
        demo: The demonstration.
        in_world_axes: Whether its actions are along the axes of the world, not of the robot's base.
        ee_tolerance_m: Largest allowed distance of the end effector from its recorded position.

    Raises:
        BrokenDemo: Names the first frame that could not be reproduced, or what is wrong with the model.
        EpisodeFault: If the worker failed, or this machine lacks what the env needs.
    """
    try:
        worker.begin_playback()
    except EnvRaised as error:
        raise _judged(error) from error
    observations = _play(worker, demo, ee_tolerance_m)
    R_base_world = observations[0].privileged["base_world_rotation"].T if in_world_axes else np.eye(3)
    return Rendered(
        spec=worker.env_spec,
        steps=Steps.of(observations, actions_of(demo, R_base_world)),
        instruction=str(demo.ep_meta.get("lang") or observations[0].instruction),
        ee_error_m=None
        if demo.ee_world_m is None
        else max(_ee_error_m(observation, demo, step_idx) for step_idx, observation in enumerate(observations)),
    )


def _play(worker: EnvWorker, demo: Demo, ee_tolerance_m: float) -> list[Observation]:
    observations: list[Observation] = []
    try:
        for step_idx, observation in enumerate(worker.play(demo.states)):
            _check(step_idx, observation, demo, ee_tolerance_m, first=observations[0] if observations else None)
            observations.append(observation)
    except EnvRaised as error:
        raise _judged(error, f"after frame {len(observations)}: ") from error
    except EpisodeFault as fault:
        if fault.retriable:
            raise
        raise BrokenDemo(f"after frame {len(observations)}: {fault.reason.rstrip('.')}") from fault
    return observations


def _judged(error: EnvRaised, where: str = "") -> BrokenDemo | EnvRaised:
    """Return the error of an env: a demonstration's own fault is a ValueError there, see `PlayableEnv`."""
    return BrokenDemo(f"{where}{error.text.rstrip('.')}") if error.kind == ValueError.__name__ else error


def actions_of(demo: Demo, R_base_world: np.ndarray) -> np.ndarray:
    """Return T,14 in the layout `osc_delta_base`: clipped as the controller does it, the gripper opens with 1.

    Args:
        demo: The demonstration.
        R_base_world: 3,3, from the axes of its actions to those of the robot's base; clipping comes first.
    """
    action = np.zeros((len(demo.actions), ACTION_DIM), np.float32)
    arm = action[:, ARM_ACTION["left"]]  # a view
    clipped = np.clip(demo.actions[:, :ARM_NUMBERS], -1.0, 1.0)
    for turned in (TRANSLATION, ROTVEC_RAD):
        arm[:, turned] = clipped[:, turned] @ R_base_world.T
    arm[:, GRIPPER] = -clipped[:, GRIPPER]
    return action


def _check(
    step_idx: int, observation: Observation, demo: Demo, ee_tolerance_m: float, *, first: Observation | None
) -> None:
    """Raise BrokenDemo unless a frame agrees with the recorded one, and the base stands where it stood at first."""
    for view_idx, depth in enumerate(observation.depth):
        if not depth.any():
            raise BrokenDemo(f"frame {step_idx}: view {view_idx} has no depth")
    if demo.ee_world_m is not None and _ee_error_m(observation, demo, step_idx) > ee_tolerance_m:
        raise BrokenDemo(
            f"frame {step_idx}: the end effector is {1000 * _ee_error_m(observation, demo, step_idx):.1f} mm from its "
            f"recorded position, {1000 * ee_tolerance_m:g} mm are allowed"
        )
    if first is not None and _base_has_moved(first, observation):
        raise BrokenDemo(f"frame {step_idx}: the robot's base has moved, which an action of ours cannot express")


def _base_has_moved(first: Observation, now: Observation) -> bool:
    moved_m = np.linalg.norm(now.privileged["base_world_m"] - first.privileged["base_world_m"])
    turned = now.privileged["base_world_rotation"] @ first.privileged["base_world_rotation"].T
    # the Frobenius norm of R - 1 is sqrt(8) sin(angle / 2)
    turned_rad = 2 * np.arcsin(min(np.linalg.norm(turned - np.eye(3)) / np.sqrt(8), 1.0))
    return bool(moved_m > BASE_TOLERANCE_M or turned_rad > BASE_TOLERANCE_RAD)


def _ee_error_m(observation: Observation, demo: Demo, step_idx: int) -> float:
    assert demo.ee_world_m is not None
    return float(np.linalg.norm(observation.privileged["ee_world_m"] - demo.ee_world_m[step_idx]))
