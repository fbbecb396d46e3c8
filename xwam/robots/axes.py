"""Chunks of actions as deltas, as poses and as the states that they lead to.

In: states (xyz m, quat wxyz with w >= 0, gripper) x 2 arms and chunks of actions. Out: one made from the other.
Read next: `interfaces.py`, which says what is used where; `evalkit/dataset/axes.py`, the frames of reference.

Letters: K actions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evalkit.contracts.geometry import wxyz_from_xyzw
from evalkit.contracts.types import ARM_ACTION, ARM_PROPRIO, QUAT_WXYZ, ROTVEC_RAD
from evalkit.dataset.axes import rotation_from_wxyz


def accumulate(actions: np.ndarray, proprio: np.ndarray, arms: Sequence[str]) -> np.ndarray:
    """Return the absolute states, K,16, that a chunk of deltas leads to, in the frame of the deltas.

    Each action is added to the state before it, the first one to the state at the chunk's start; a rotation delta is
    applied on the left: R_next = R_delta @ R_before.

    Args:
        actions: K,14: (translation m, rotation vector rad, change of gripper) x 2.
        proprio: 16 numbers, the state at the start.
        arms: Arms that exist; the others stay zero.
    """
    from scipy.spatial.transform import Rotation

    states = np.zeros((len(actions), 16))
    for arm in arms:
        start, deltas = np.asarray(proprio, np.float64)[ARM_PROPRIO[arm]], np.asarray(actions)[:, ARM_ACTION[arm]]
        rotation = rotation_from_wxyz(start[QUAT_WXYZ])
        quats = np.empty((len(actions), 4))
        for index, delta in enumerate(deltas):
            rotation = Rotation.from_rotvec(delta[ROTVEC_RAD]) * rotation
            quats[index] = wxyz_from_xyzw(rotation.as_quat())
        travelled = np.cumsum(deltas, axis=0)
        states[:, ARM_PROPRIO[arm]] = np.hstack([start[:3] + travelled[:, :3], quats, start[7:] + travelled[:, 6:]])
    return states


def differences(states: np.ndarray, proprio: np.ndarray, arms: Sequence[str]) -> np.ndarray:
    """Return the deltas, K,14, that lead through these states: the inverse of `accumulate`.

    Args:
        states: K,16.
        proprio: 16 numbers, the state at the start.
        arms: Arms that exist; the others stay zero.
    """
    deltas = np.zeros((len(states), 14))
    for arm in arms:
        path = np.concatenate([np.asarray(proprio)[None], states]).astype(np.float64)[:, ARM_PROPRIO[arm]]
        rotation = rotation_from_wxyz(path[:, QUAT_WXYZ])
        turns = (rotation[1:] * rotation[:-1].inv()).as_rotvec()
        moves = np.diff(path, axis=0)
        deltas[:, ARM_ACTION[arm]] = np.hstack([moves[:, :3], turns, moves[:, 7:]])
    return deltas


def pose_actions(states: np.ndarray, arms: Sequence[str]) -> np.ndarray:
    """Return absolute poses, K,16 with quaternions, as actions, K,14 with rotation vectors, float32."""
    actions = np.zeros((len(states), 14), np.float32)
    for arm in arms:
        state = states[:, ARM_PROPRIO[arm]]
        rotvec_rad = rotation_from_wxyz(state[:, QUAT_WXYZ]).as_rotvec()
        actions[:, ARM_ACTION[arm]] = np.hstack([state[:, :3], rotvec_rad, state[:, 7:]])
    return actions


def states_of_poses(actions: np.ndarray, arms: Sequence[str]) -> np.ndarray:
    """Return absolute poses, K,14 with rotation vectors, as states, K,16 with quaternions: undoes `pose_actions`."""
    from scipy.spatial.transform import Rotation

    states = np.zeros((len(actions), 16))
    for arm in arms:
        action = np.asarray(actions, np.float64)[:, ARM_ACTION[arm]]
        quat = wxyz_from_xyzw(Rotation.from_rotvec(action[:, ROTVEC_RAD]).as_quat())
        states[:, ARM_PROPRIO[arm]] = np.hstack([action[:, :3], quat, action[:, 6:]])
    return states


def ee_pose(state: np.ndarray) -> np.ndarray:
    """Return the pose of the end effector, ...,4,4 `T_base_ee`, from the eight numbers of an arm's state.

    `geometry.ee_pose_from_proprio` does the same without scipy and differs in the last bit of a float64. The pixel
    decoder was trained on these values.

    Example:
        >>> ee_pose(np.float32([0.5, 0, 0.25, 0, 0, 0, 1, 1]))[:, 3].tolist()
        [0.5, 0.0, 0.25, 1.0]
    """
    pose = np.zeros((*np.shape(state)[:-1], 4, 4))
    pose[..., :3, :3] = rotation_from_wxyz(np.asarray(state, np.float64)[..., QUAT_WXYZ]).as_matrix()
    pose[..., :3, 3] = state[..., :3]
    pose[..., 3, 3] = 1
    return pose
