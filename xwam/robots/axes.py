"""Which way the axes point: the simulators' frames and those in which the released models were trained.

In: states (xyz m, quat wxyz with w >= 0, gripper) x 2 arms and chunks of actions. Out: the same in the other frame.
Read next: `interfaces.py`, which says what is used where.

Letters: K actions. `sim` is the simulator's frame, `model` the one of the training data; `eef` the end effector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from xwam.robots.actions import ARM_ACTION, ARM_PROPRIO

R_EEFSIM_EEFMODEL_ROBOCASA = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
"""RoboCasa: the end effector's axes turned by +90 degrees about its z; R_base_eefmodel = R_base_eefsim @ this."""

R_MODELBASE_SIMBASE_ROBOTWIN = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
"""RoboTwin: the base axes turned by -90 degrees about z; p_modelbase = this @ p_simbase."""

R_EEFSIM_EEFMODEL_ROBOTWIN = np.array([[0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [1.0, 0.0, 0.0]])
"""RoboTwin: the end effector's x and z change places and its y turns round."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Axes:
    """How a model's frames lie in a simulator's.

    Attributes:
        R_modelbase_simbase: Turns positions and orientations of the base.
        R_eefsim_eefmodel: Turns the end effector's own axes.
    """

    R_modelbase_simbase: np.ndarray
    R_eefsim_eefmodel: np.ndarray

    def model_from_sim(self, proprio: np.ndarray, arms: Sequence[str]) -> np.ndarray:
        """Return states, ...,16, as the model knows them."""
        return _turn(proprio, arms, self.R_modelbase_simbase, self.R_eefsim_eefmodel)

    def sim_from_model(self, proprio: np.ndarray, arms: Sequence[str]) -> np.ndarray:
        """Return states, ...,16, as the simulator knows them."""
        return _turn(proprio, arms, self.R_modelbase_simbase.T, self.R_eefsim_eefmodel.T)


SAME_AXES = Axes(R_modelbase_simbase=np.eye(3), R_eefsim_eefmodel=np.eye(3))
ROBOCASA_AXES = Axes(R_modelbase_simbase=np.eye(3), R_eefsim_eefmodel=R_EEFSIM_EEFMODEL_ROBOCASA)
ROBOTWIN_AXES = Axes(R_modelbase_simbase=R_MODELBASE_SIMBASE_ROBOTWIN, R_eefsim_eefmodel=R_EEFSIM_EEFMODEL_ROBOTWIN)


def accumulate(actions: np.ndarray, proprio: np.ndarray, arms: Sequence[str]) -> np.ndarray:
    """Return the absolute states, K,16, that a chunk of deltas leads to, in the frame of the deltas.

    Each action is added to the state before it, the first one to the state at the chunk's start; a rotation delta is
    applied on the left: R_next = R_delta @ R_before.

    Args:
        actions: K,14: (translation m, rotation vector rad, change of gripper) x 2.
        proprio: 16 numbers, the state at the start.
        arms: Arms that exist; the others stay zero.
    """
    states = np.zeros((len(actions), 16))
    for arm in arms:
        start, deltas = np.asarray(proprio, np.float64)[ARM_PROPRIO[arm]], np.asarray(actions)[:, ARM_ACTION[arm]]
        rotation = _rotation(start[3:7])
        quats = np.empty((len(actions), 4))
        for index, delta in enumerate(deltas):
            rotation = Rotation.from_rotvec(delta[3:6]) * rotation
            quats[index] = _quat_wxyz(rotation)
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
        rotation = _rotation(path[:, 3:7])
        turns = (rotation[1:] * rotation[:-1].inv()).as_rotvec()
        moves = np.diff(path, axis=0)
        deltas[:, ARM_ACTION[arm]] = np.hstack([moves[:, :3], turns, moves[:, 7:]])
    return deltas


def pose_actions(states: np.ndarray, arms: Sequence[str]) -> np.ndarray:
    """Return absolute poses, K,16 with quaternions, as actions, K,14 with rotation vectors, float32."""
    actions = np.zeros((len(states), 14), np.float32)
    for arm in arms:
        state = states[:, ARM_PROPRIO[arm]]
        rotvec_rad = _rotation(state[:, 3:7]).as_rotvec()
        actions[:, ARM_ACTION[arm]] = np.hstack([state[:, :3], rotvec_rad, state[:, 7:]])
    return actions


def states_of_poses(actions: np.ndarray, arms: Sequence[str]) -> np.ndarray:
    """Return absolute poses, K,14 with rotation vectors, as states, K,16 with quaternions: undoes `pose_actions`."""
    states = np.zeros((len(actions), 16))
    for arm in arms:
        action = np.asarray(actions, np.float64)[:, ARM_ACTION[arm]]
        quat = _quat_wxyz(Rotation.from_rotvec(action[:, 3:6]))
        states[:, ARM_PROPRIO[arm]] = np.hstack([action[:, :3], quat, action[:, 6:]])
    return states


def ee_pose(state: np.ndarray) -> np.ndarray:
    """Return the hand's pose, ...,4,4 `T_base_ee`, from the eight numbers of an arm's state.

    Example:
        >>> ee_pose(np.float32([0.5, 0, 0.25, 0, 0, 0, 1, 1]))[:, 3].tolist()
        [0.5, 0.0, 0.25, 1.0]
    """
    pose = np.zeros((*np.shape(state)[:-1], 4, 4))
    pose[..., :3, :3] = _rotation(np.asarray(state, np.float64)[..., 3:7]).as_matrix()
    pose[..., :3, 3] = state[..., :3]
    pose[..., 3, 3] = 1
    return pose


def _turn(proprio: np.ndarray, arms: Sequence[str], R_left: np.ndarray, R_right: np.ndarray) -> np.ndarray:
    turned = np.zeros(np.shape(proprio))
    for arm in arms:
        state = np.asarray(proprio, np.float64)[..., ARM_PROPRIO[arm]]
        rotation = Rotation.from_matrix(R_left) * _rotation(state[..., 3:7]) * Rotation.from_matrix(R_right)
        parts = [state[..., :3] @ R_left.T, _quat_wxyz(rotation), state[..., 7:]]
        turned[..., ARM_PROPRIO[arm]] = np.concatenate(parts, axis=-1)
    return turned


def _rotation(quat_wxyz: np.ndarray) -> Rotation:
    return Rotation.from_quat(quat_wxyz[..., [1, 2, 3, 0]])


def _quat_wxyz(rotation: Rotation) -> np.ndarray:
    quat = rotation.as_quat()[..., [3, 0, 1, 2]]
    return np.where(quat[..., :1] < 0, -quat, quat)
