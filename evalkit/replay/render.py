"""One demonstration rendered again, and compared with its own recorded observations.

In: a demonstration, a worker whose env plays states. Out: steps to be written; or which frame could not be reproduced.
Read next: `demos.py`, what a demonstration holds; `evalkit/dataset/writer.py`, which writes the steps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from evalkit.contracts.errors import EnvRaised, EpisodeFault
from evalkit.contracts.spec import OSC_DELTA_BASE, EnvSpec
from evalkit.contracts.types import ACTION_DIM, ARM_ACTION, Observation
from evalkit.contracts.worker.client import EnvWorker
from evalkit.dataset.writer import Steps
from evalkit.replay.demos import ARM_NUMBERS, BrokenDemo, Demo

EE_TOLERANCE_M = 2e-3
"""Largest distance of the end effector from its recorded position; observations may be one physics step older."""

BASE_TOLERANCE_M = 1e-3
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


def render(worker: EnvWorker, demo: Demo, *, ee_tolerance_m: float = EE_TOLERANCE_M) -> Rendered:
    """Return a demonstration with RGB and depth at every step.

    Raises:
        BrokenDemo: Names the first frame that could not be reproduced.
        EpisodeFault: If the worker failed, or its env cannot be built.
    """
    spec = worker.env_spec
    if spec.arms != ("left",) or spec.action_layout != OSC_DELTA_BASE:
        raise BrokenDemo(f"one arm with deltas along its base can be replayed, {spec.env_id} has {spec.arms}")
    worker.begin_playback()
    observations = _play(worker, demo, ee_tolerance_m)
    return Rendered(
        spec=spec,
        steps=Steps.of(observations, actions_of(demo)),
        instruction=str(demo.ep_meta.get("lang") or observations[0].instruction),
        ee_error_m=None
        if demo.ee_world_m is None
        else max(_ee_error_m(observation, demo, step_idx) for step_idx, observation in enumerate(observations)),
    )


def _play(worker: EnvWorker, demo: Demo, ee_tolerance_m: float) -> list[Observation]:
    observations: list[Observation] = []
    try:
        for step_idx, observation in enumerate(worker.play(demo.states)):
            first_base_m = observations[0].privileged["base_world_m"] if observations else None
            _check(step_idx, observation, demo, ee_tolerance_m, first_base_m)
            observations.append(observation)
    except EpisodeFault as fault:
        if fault.retriable:
            raise
        text = f"{fault.kind}: {fault.text}" if isinstance(fault, EnvRaised) else fault.reason.rstrip(".")
        raise BrokenDemo(f"after frame {len(observations)}: {text}") from fault
    return observations


def actions_of(demo: Demo) -> np.ndarray:
    """Return T,14 in the layout `osc_delta_base`: clipped as the controller does it, the gripper opens with 1."""
    action = np.zeros((len(demo.actions), ACTION_DIM), np.float32)
    arm = action[:, ARM_ACTION["left"]]  # a view
    arm[:] = np.clip(demo.actions[:, :ARM_NUMBERS], -1.0, 1.0)
    arm[:, -1] *= -1.0
    return action


def _check(
    step_idx: int, observation: Observation, demo: Demo, ee_tolerance_m: float, first_base_m: np.ndarray | None
) -> None:
    """Raise BrokenDemo unless a frame agrees with the recorded one."""
    for view_idx, depth in enumerate(observation.depth):
        if not depth.any():
            raise BrokenDemo(f"frame {step_idx}: view {view_idx} has no depth")
    if demo.ee_world_m is not None and _ee_error_m(observation, demo, step_idx) > ee_tolerance_m:
        raise BrokenDemo(
            f"frame {step_idx}: the end effector is {1000 * _ee_error_m(observation, demo, step_idx):.1f} mm from its "
            f"recorded position, {1000 * ee_tolerance_m:g} mm are allowed"
        )
    base_m = observation.privileged["base_world_m"]
    if first_base_m is not None and np.linalg.norm(base_m - first_base_m) > BASE_TOLERANCE_M:
        raise BrokenDemo(f"frame {step_idx}: the robot's base has moved, which an action of ours cannot express")


def _ee_error_m(observation: Observation, demo: Demo, step_idx: int) -> float:
    assert demo.ee_world_m is not None
    return float(np.linalg.norm(observation.privileged["ee_world_m"] - demo.ee_world_m[step_idx]))
