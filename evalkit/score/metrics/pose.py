"""Errors of predicted end-effector poses and states.

In: predicted and true states, 16 numbers each. Out: millimetres, degrees, and what wrist cameras need.
Read next: `cloud.py`, which lifts wrist views with predicted poses.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from evalkit.contracts.geometry import ee_pose_from_proprio, inverse, rotvec_from_matrix
from evalkit.contracts.spec import Arm, CameraSpec
from evalkit.contracts.types import ARM_PROPRIO, QUAT_WXYZ
from evalkit.score.results.outcome import Measure


class PoseError(NamedTuple):
    """How far a predicted pose lies from the true one: millimetres, degrees in [0, 180]."""

    position_mm: float
    rotation_deg: float


def pose_error(T_base_true: np.ndarray, T_base_pred: np.ndarray) -> PoseError:
    """Return the distance of the origins and the angle of the rotation between two 4x4 poses.

    Example:
        >>> T_base_pred = np.eye(4)
        >>> T_base_pred[0, 3] = 0.02
        >>> pose_error(np.eye(4), T_base_pred)
        PoseError(position_mm=20.0, rotation_deg=0.0)
    """
    T_true_pred = inverse(T_base_true) @ T_base_pred
    shift_m = np.asarray(T_base_pred)[:3, 3] - np.asarray(T_base_true)[:3, 3]
    angle_rad = np.linalg.norm(rotvec_from_matrix(T_true_pred[:3, :3]))
    return PoseError(float(np.linalg.norm(shift_m) * 1000.0), float(np.degrees(angle_rad)))


def is_valid_state(proprio_arm: np.ndarray) -> bool:
    """Return whether one arm's 8 numbers are finite and its quaternion has a length."""
    return bool(np.isfinite(proprio_arm).all() and np.linalg.norm(proprio_arm[QUAT_WXYZ]) > 1e-6)


def bad_state(arm: Arm, true: np.ndarray, pred: np.ndarray) -> Measure | None:
    """Return which of two states of an arm, 8 numbers each, is not usable: the ground truth's first; None if both are.

    Example:
        >>> bad_state("left", np.full(8, np.nan), np.zeros(8)).status
        'bad_truth'
    """
    for status, side, state in (("bad_truth", "ground-truth", true), ("bad_state", "predicted", pred)):
        if not is_valid_state(state):
            return Measure(None, status, f"{side} state of the {arm} arm: {np.array2string(state, precision=3)}")
    return None


def state_mae(proprio_true: np.ndarray, proprio_pred: np.ndarray, *, arms: tuple[Arm, ...]) -> Measure:
    """Return the mean |pred - true| over the 8 numbers (metres, quaternion, open share) of each arm that exists.

    The units are mixed, as in the model's own loss; the quaternion takes the sign that is nearer to the ground truth.
    To judge a policy, read the pose errors instead.

    Example:
        >>> true = np.zeros(16)
        >>> true[[3, 11]] = 1.0
        >>> pred = true.copy()
        >>> pred[8:11] = 0.08
        >>> round(state_mae(true, pred, arms=("right",)).value, 6)
        0.03
    """
    errors = []
    for arm in arms:
        true, pred = (state[ARM_PROPRIO[arm]].astype(np.float64) for state in (proprio_true, proprio_pred))
        if problem := bad_state(arm, true, pred):
            return problem
        if np.dot(true[QUAT_WXYZ], pred[QUAT_WXYZ]) < 0:
            pred[QUAT_WXYZ] *= -1
        errors.append(np.abs(pred - true))
    return Measure(float(np.mean(errors)))


def wrist_pose(proprio_pred: np.ndarray, camera: CameraSpec) -> np.ndarray | None:
    """Return `T_base_cam` of a wrist camera: predicted end-effector pose times `T_ee_cam`; None for an invalid state.

    Args:
        proprio_pred: 16 numbers, see `contracts.types.PROPRIO_DIM`.
        camera: A wrist camera with its arm and `T_ee_cam`.
    """
    if camera.arm is None or camera.T_ee_cam is None:
        return None
    state = proprio_pred[ARM_PROPRIO[camera.arm]]
    if not is_valid_state(state):
        return None
    return np.asarray(ee_pose_from_proprio(state) @ np.asarray(camera.T_ee_cam))
