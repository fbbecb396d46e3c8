"""Rigid transforms, quaternions and pinhole cameras; only this module changes the order of a quaternion.

In: numpy arrays with any leading axes. Out: float64 arrays.
Read next: `docs/conventions.md`, on frames and units.

Quaternions are (w, x, y, z), unit, w >= 0; cameras look along +z with x right and y down; pixel
centres lie at integer (u, v).
"""

from __future__ import annotations

import numpy as np

from evalkit.contracts.types import QUAT_WXYZ


def wxyz_from_xyzw(quat_xyzw: np.ndarray) -> np.ndarray:
    """Return (w, x, y, z) with w >= 0 from (x, y, z, w), the order of robosuite and scipy.

    Example:
        >>> wxyz_from_xyzw(np.array([0.1, 0.2, 0.3, -0.9]))
        array([ 0.9, -0.1, -0.2, -0.3])
    """
    quat_wxyz = np.asarray(quat_xyzw, np.float64)[..., [3, 0, 1, 2]]
    return np.where(quat_wxyz[..., :1] < 0, -quat_wxyz, quat_wxyz)


def xyzw_from_wxyz(quat_wxyz: np.ndarray) -> np.ndarray:
    """Return (x, y, z, w), the order of robosuite and scipy, from (w, x, y, z); signs are kept.

    Example:
        >>> xyzw_from_wxyz(np.array([0.9, -0.1, -0.2, -0.3]))
        array([-0.1, -0.2, -0.3,  0.9])
    """
    return np.asarray(quat_wxyz)[..., [1, 2, 3, 0]]


def matrix_from_quat(quat_wxyz: np.ndarray) -> np.ndarray:
    """Return the 3x3 rotation of a unit quaternion (w, x, y, z); leading axes are kept.

    Example:
        >>> half = np.sqrt(0.5)
        >>> matrix_from_quat(np.array([half, 0.0, 0.0, half])).round(6) @ np.array([1.0, 0.0, 0.0])
        array([0., 1., 0.])
    """
    w, x, y, z = np.moveaxis(np.asarray(quat_wxyz, np.float64), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def quat_from_matrix(R: np.ndarray) -> np.ndarray:
    """Return the unit quaternion (w, x, y, z), w >= 0, of one 3x3 rotation (Shepperd's method).

    Example:
        >>> quat_from_matrix(np.diag([1.0, -1.0, -1.0]))
        array([0., 1., 0., 0.])
    """
    R = np.asarray(R, np.float64)
    diagonal = np.array([np.trace(R), R[0, 0], R[1, 1], R[2, 2]])
    largest = int(np.argmax(diagonal))
    if largest == 0:
        quat = np.array([1 + diagonal[0], R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]])
    else:
        i = largest - 1
        j, k = (i + 1) % 3, (i + 2) % 3
        quat = np.empty(4)
        quat[0] = R[k, j] - R[j, k]
        quat[1 + i] = 1 + R[i, i] - R[j, j] - R[k, k]
        quat[1 + j] = R[j, i] + R[i, j]
        quat[1 + k] = R[k, i] + R[i, k]
    quat = quat / np.linalg.norm(quat)
    return -quat if quat[0] < 0 else quat


def rotvec_from_matrix(R: np.ndarray) -> np.ndarray:
    """Return axis times angle, radians, angle in [0, pi], of one 3x3 rotation.

    Example:
        >>> rotvec_from_matrix(np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])).round(6)
        array([0.      , 0.      , 1.570796])
    """
    quat = quat_from_matrix(R)
    sine = np.linalg.norm(quat[1:])
    if sine < 1e-12:
        return 2.0 * quat[1:]
    return quat[1:] / sine * (2.0 * np.arctan2(sine, quat[0]))


def transform(R: np.ndarray, p_m: np.ndarray) -> np.ndarray:
    """Return the 4x4 transform with rotation R and translation p_m (metres)."""
    T = np.eye(4)
    T[:3, :3] = R
    T[:3, 3] = p_m
    return T


def inverse(T: np.ndarray) -> np.ndarray:
    """Return the inverse of rigid 4x4 transforms; leading axes are kept.

    Example:
        >>> T_base_cam = transform(np.diag([1.0, -1.0, -1.0]), np.array([1.0, 2.0, 3.0]))
        >>> bool(np.allclose(inverse(T_base_cam) @ T_base_cam, np.eye(4)))
        True
    """
    T = np.asarray(T, np.float64)
    R_transposed = np.swapaxes(T[..., :3, :3], -1, -2)
    result = np.zeros_like(T)
    result[..., :3, :3] = R_transposed
    result[..., :3, 3] = -np.einsum("...ij,...j->...i", R_transposed, T[..., :3, 3])
    result[..., 3, 3] = 1.0
    return result


def ee_pose_from_proprio(proprio_arm: np.ndarray) -> np.ndarray:
    """Return `T_base_ee`, ...,4,4, from one arm's (xyz m, quat wxyz, gripper), ...,8; the quaternion is normalised."""
    proprio_arm = np.asarray(proprio_arm, np.float64)
    quat = proprio_arm[..., QUAT_WXYZ]
    quat = quat / np.maximum(np.linalg.norm(quat, axis=-1, keepdims=True), 1e-12)
    T = np.zeros((*proprio_arm.shape[:-1], 4, 4))
    T[..., :3, :3] = matrix_from_quat(quat)
    T[..., :3, 3] = proprio_arm[..., :3]
    T[..., 3, 3] = 1.0
    return T


def intrinsics_from_fovy(fovy_rad: float, *, height_px: int, width_px: int) -> np.ndarray:
    """Return the 3x3 matrix of a camera with square pixels and its axis through the image centre.

    Example:
        >>> intrinsics_from_fovy(np.pi / 2, height_px=4, width_px=6)
        array([[2. , 0. , 2.5],
               [0. , 2. , 1.5],
               [0. , 0. , 1. ]])
    """
    focal_px = 0.5 * height_px / np.tan(0.5 * fovy_rad)
    return np.array([[focal_px, 0.0, (width_px - 1) / 2], [0.0, focal_px, (height_px - 1) / 2], [0.0, 0.0, 1.0]])


def points_from_depth(depth_hw_m: np.ndarray, intrinsics_px: np.ndarray, T_base_cam: np.ndarray) -> np.ndarray:
    """Return N,3 points (metres, base frame) of the pixels whose depth is finite and above 1 mm, in raster order.

    Example:
        >>> points_from_depth(np.array([[2.0, 0.0]]), np.diag([1.0, 1.0, 1.0]), np.eye(4))
        array([[0., 0., 2.]])
    """
    depth = np.asarray(depth_hw_m, np.float64)
    v, u = np.nonzero(np.isfinite(depth) & (depth > 1e-3))
    z = depth[v, u]
    fx, fy = intrinsics_px[0, 0], intrinsics_px[1, 1]
    cx, cy = intrinsics_px[0, 2], intrinsics_px[1, 2]
    points_cam = np.stack([(u - cx) / fx * z, (v - cy) / fy * z, z], axis=-1)
    return points_cam @ T_base_cam[:3, :3].T + T_base_cam[:3, 3]
