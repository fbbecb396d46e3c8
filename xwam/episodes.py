"""Episodes in the released data layout: states, actions, masks and the quantiles that normalise them.

In: the JSON of one episode (or of many). Out: clips as the network is trained on them, statistics.
Read next: `actions.py` for normalisation, `losses.py` for what becomes of a clip.

Letters: N frames of an episode, K actions, P states of a clip.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from xwam.actions import ARM_ACTION, ARM_PROPRIO, normalise
from xwam.config import Bounds

QUANTILES = {"q01": 0.01, "q99": 0.99}
MIN_GRIPPER_DELTA = 0.01
"""Changes of the gripper below this, in units of its normalised position, do not count towards its statistics."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EpisodeNumbers:
    """What one episode says in numbers, not normalised.

    Attributes:
        arms: Arms that exist.
        proprio: N,16 states; quaternions with w >= 0.
        action: N,14 actions; the gripper of the last frame stays as it is, where it is a change of position.
        gripper_delta: Changes of gripper position from frame to frame, all arms.
    """

    arms: tuple[str, ...]
    proprio: np.ndarray
    action: np.ndarray
    gripper_delta: np.ndarray


class Clip(NamedTuple):
    """Numbers of one training sample, normalised, float32; masks are 1 where a number is real."""

    proprio: np.ndarray
    action: np.ndarray
    proprio_mask: np.ndarray
    action_mask: np.ndarray


def read_episode(episode: Mapping[str, Any]) -> EpisodeNumbers:
    """Return states and actions of one episode.

    Actions are the raw controller commands where the episode holds them (RoboCasa; the gripper is negated, so that 1
    opens), else what leads from each state to the pose that was commanded in it (RoboTwin), rotations on the left.

    Args:
        episode: `num_frames`, `proprios` and `actions` by arm.
    """
    proprios, commands, num = episode["proprios"], episode["actions"], episode["num_frames"]
    arms = tuple(arm for arm in ARM_PROPRIO if f"{arm}_ee_pos" in proprios)
    proprio, action, changes = np.zeros((num, 16)), np.zeros((num, 14)), []
    for arm in arms:
        xyz, rotation = _pose(proprios, arm)
        gripper = np.asarray(proprios[f"{arm}_gripper_pos"], np.float64).reshape(num, 1)
        proprio[:, ARM_PROPRIO[arm]] = np.hstack([xyz, _quat_wxyz(rotation), gripper])
        changes.append(np.diff(gripper, axis=0))
        if "raw_actions" not in commands:
            goal_xyz, goal = _pose(commands, arm)
            delta = np.vstack([changes[-1], np.zeros((1, 1))])
            action[:, ARM_ACTION[arm]] = np.hstack([goal_xyz - xyz, (goal * rotation.inv()).as_rotvec(), delta])
    if "raw_actions" in commands:
        raw = np.asarray(commands["raw_actions"], np.float64)
        action[:, ARM_ACTION["left"]] = np.hstack([raw[:, :6], -raw[:, 6:7]])
    return EpisodeNumbers(arms=arms, proprio=proprio, action=action, gripper_delta=np.concatenate(changes).ravel())


def clip(
    numbers: EpisodeNumbers, bounds: Bounds, *, start: int, num_actions: int = 32, num_states: int = 9, stride: int = 4
) -> Clip:
    """Return the clip that starts at a frame.

    Args:
        numbers: One episode.
        bounds: Of its data set.
        start: First frame.
        num_actions: K, one a frame.
        num_states: P, `stride` frames apart.
        stride: Frames between states, and between pictures.

    Raises:
        ValueError: If the episode ends before the clip does.
    """
    last = start + max(num_actions - 1, (num_states - 1) * stride)
    if not 0 <= start <= last < len(numbers.proprio):
        raise ValueError(f"A clip from frame {start} to {last} does not fit into {len(numbers.proprio)} frames.")
    proprio = numbers.proprio[start : start + num_states * stride : stride]
    action = numbers.action[start : start + num_actions]
    proprio_mask, action_mask = np.zeros((num_states, 16), np.float32), np.zeros((num_actions, 14), np.float32)
    for arm in numbers.arms:
        proprio_mask[:, ARM_PROPRIO[arm]] = action_mask[:, ARM_ACTION[arm]] = 1.0
    return Clip(
        proprio=normalise(proprio, bounds.proprio_low, bounds.proprio_high),
        action=normalise(action, bounds.action_low, bounds.action_high),
        proprio_mask=proprio_mask,
        action_mask=action_mask,
    )


def statistics(episodes: Sequence[EpisodeNumbers]) -> dict[str, dict[str, list[float]]]:
    """Return quantile statistics of a data set in the released layout.

    Quantiles 0.01 and 0.99; those of actions are made symmetric; grippers of both arms count together.

    Args:
        episodes: At least one, all with the same arms.
    """
    arms = episodes[0].arms
    proprio = np.concatenate([episode.proprio for episode in episodes])
    action = np.concatenate([episode.action for episode in episodes])
    values = {f"proprio_{arm}_ee_xyz": proprio[:, ARM_PROPRIO[arm]][:, :3] for arm in arms}
    values["gripper_pos"] = np.concatenate([proprio[:, ARM_PROPRIO[arm]][:, 7:] for arm in arms])
    sides = {side: {name: _quantile(v, share) for name, v in values.items()} for side, share in QUANTILES.items()}
    moved = np.concatenate([episode.gripper_delta for episode in episodes])[:, None]
    span = sides["q99"]["gripper_pos"][0] - sides["q01"]["gripper_pos"][0]
    changes = {"gripper_action": moved[np.abs(moved[:, 0]) * 2 >= MIN_GRIPPER_DELTA * span]}
    for arm in arms:
        changes[f"action_{arm}_ee_xyz"] = action[:, ARM_ACTION[arm]][:, :3]
        changes[f"action_{arm}_ee_axisangle"] = action[:, ARM_ACTION[arm]][:, 3:6]
    for name, change in changes.items():
        largest = np.maximum(*(np.abs(np.quantile(change, share, axis=0)) for share in QUANTILES.values()))
        sides["q01"][name], sides["q99"][name] = (-largest).tolist(), largest.tolist()
    return sides


def _quantile(values: np.ndarray, share: float) -> list[float]:
    return np.quantile(values, share, axis=0).tolist()


def _pose(values: Mapping[str, Any], arm: str) -> tuple[np.ndarray, Rotation]:
    matrices = np.asarray(values[f"{arm}_ee_rotm"], np.float64).reshape(-1, 3, 3)
    return np.asarray(values[f"{arm}_ee_pos"], np.float64), Rotation.from_matrix(matrices)


def _quat_wxyz(rotation: Rotation) -> np.ndarray:
    quat = rotation.as_quat()[:, [3, 0, 1, 2]]
    return np.where(quat[:, :1] < 0, -quat, quat)
