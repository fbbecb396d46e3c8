"""One demonstration rendered again, and compared with what it says of itself.

In: a demonstration, a process that plays states back. Out: steps ready to be written; or which frame is not what was
recorded. Read next: `../../evalkit/dataset/writer.py`, which writes them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from baselines.env_process import Refused
from baselines.replay.player import Player
from evalkit.contracts.spec import OSC_DELTA_BASE, EnvSpec
from evalkit.contracts.types import ACTION_DIM, ARM_ACTION
from evalkit.dataset.writer import Steps
from evalkit.replay.demos import ARM_NUMBERS, BrokenDemo, Demo

HAND_TOLERANCE_M = 2e-3
"""How far the hand may be from where the demonstration saw it; observations may be one step of physics older."""

BASE_TOLERANCE_M = 1e-3
"""How far the robot's base may move: no action of ours says that it does."""


class Rendered(NamedTuple):
    """What came of it: the env's spec, the steps, the instruction that the env knows, the largest error of the hand."""

    spec: EnvSpec
    steps: Steps
    instruction: str
    hand_error_m: float | None


def render(player: Player, demo: Demo, *, hand_tolerance_m: float = HAND_TOLERANCE_M) -> Rendered:
    """Return a demonstration with RGB and depth at every step.

    Raises:
        BrokenDemo: Names the first frame that could not be reproduced.
        EnvProcessError: If the process failed.
    """
    spec = player.start()
    if spec.arms != ("left",) or spec.action_layout != OSC_DELTA_BASE:
        raise BrokenDemo(f"one arm with deltas along its base can be replayed, {spec.env_id} has {spec.arms}")
    seen: list[dict[str, Any]] = []
    try:
        for step_idx, observation in enumerate(player.play(demo.states)):
            first_base_m = seen[0]["privileged"]["base_world_m"] if seen else None
            _check(step_idx, observation, demo, hand_tolerance_m, first_base_m)
            seen.append(observation)
    except Refused as error:
        raise BrokenDemo(f"after frame {len(seen)}: {error}") from error
    return Rendered(
        spec=spec,
        steps=Steps(
            action=actions_of(demo),
            **{
                name: np.stack([observation[name] for observation in seen])
                for name in ("rgb", "depth", "proprio", "intrinsics", "T_base_cam")
            },
        ),
        instruction=str(demo.ep_meta.get("lang") or seen[0]["instruction"]),
        hand_error_m=None if demo.hand_world_m is None else max(_hand_error_m(s, demo, i) for i, s in enumerate(seen)),
    )


def actions_of(demo: Demo) -> np.ndarray:
    """Return T,14 in the layout `osc_delta_base`: clipped as the controller does it, the gripper opens with 1."""
    action = np.zeros((len(demo.actions), ACTION_DIM), np.float32)
    arm = action[:, ARM_ACTION["left"]]  # a view
    arm[:] = np.clip(demo.actions[:, :ARM_NUMBERS], -1.0, 1.0)
    arm[:, -1] *= -1.0
    return action


def _check(
    step_idx: int, observation: dict[str, Any], demo: Demo, hand_tolerance_m: float, first_base_m: np.ndarray | None
) -> None:
    """Return quietly if a frame is what was recorded.

    Raises:
        BrokenDemo: If it is not.
    """
    for view_idx, depth in enumerate(observation["depth"]):
        if not np.isfinite(depth).all() or not depth.any():
            raise BrokenDemo(f"frame {step_idx}: view {view_idx} has depth that is not finite, or none at all")
    if demo.hand_world_m is not None and _hand_error_m(observation, demo, step_idx) > hand_tolerance_m:
        raise BrokenDemo(
            f"frame {step_idx}: the hand is {1000 * _hand_error_m(observation, demo, step_idx):.1f} mm from where the "
            f"demonstration saw it, {1000 * hand_tolerance_m:g} mm are allowed"
        )
    base_m = observation["privileged"]["base_world_m"]
    if first_base_m is not None and np.linalg.norm(base_m - first_base_m) > BASE_TOLERANCE_M:
        raise BrokenDemo(f"frame {step_idx}: the robot's base has moved, which no action of ours can say")


def _hand_error_m(observation: dict[str, Any], demo: Demo, step_idx: int) -> float:
    assert demo.hand_world_m is not None
    return float(np.linalg.norm(observation["privileged"]["hand_world_m"] - demo.hand_world_m[step_idx]))
