"""Geometry against scipy and against known values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from evalkit.contracts import geometry

angles = st.floats(-np.pi, np.pi, allow_nan=False)


@given(angles, angles, angles)
def test_rotations_agree_with_scipy(a: float, b: float, c: float) -> None:
    rotation = Rotation.from_euler("xyz", [a, b, c])
    R = rotation.as_matrix()
    quat_wxyz = geometry.quat_from_matrix(R)
    assert quat_wxyz[0] >= 0
    np.testing.assert_allclose(geometry.matrix_from_quat(quat_wxyz), R, atol=1e-9)
    np.testing.assert_allclose(geometry.wxyz_from_xyzw(rotation.as_quat()) @ quat_wxyz, 1.0, atol=1e-9)
    back = Rotation.from_rotvec(geometry.rotvec_from_matrix(R)).as_matrix()
    np.testing.assert_allclose(back, R, atol=1e-6)
    assert np.linalg.norm(geometry.rotvec_from_matrix(R)) <= np.pi + 1e-9


def test_a_quaternion_by_hand() -> None:
    # 90 degrees about x takes y to z.
    quat_wxyz = geometry.wxyz_from_xyzw(np.array([np.sqrt(0.5), 0.0, 0.0, np.sqrt(0.5)]))
    np.testing.assert_allclose(geometry.matrix_from_quat(quat_wxyz) @ [0, 1, 0], [0, 0, 1], atol=1e-12)


def test_frames_cancel_from_left_to_right() -> None:
    T_base_ee = geometry.transform(Rotation.from_euler("z", 90, degrees=True).as_matrix(), np.array([1.0, 2.0, 3.0]))
    T_ee_cam = geometry.transform(np.eye(3), np.array([0.1, 0.0, 0.0]))
    # The camera sits 0.1 m along the end effector's x axis, which points along y of the base.
    np.testing.assert_allclose((T_base_ee @ T_ee_cam)[:3, 3], [1.0, 2.1, 3.0], atol=1e-12)
    np.testing.assert_allclose(geometry.inverse(T_base_ee) @ T_base_ee, np.eye(4), atol=1e-12)
    stacked = np.stack([T_base_ee, T_ee_cam])
    np.testing.assert_allclose(geometry.inverse(stacked), np.linalg.inv(stacked), atol=1e-12)


def test_pixels_lift_to_where_a_hand_drawn_camera_sees_them() -> None:
    intrinsics_px = np.array([[100.0, 0.0, 2.0], [0.0, 50.0, 1.0], [0.0, 0.0, 1.0]])
    depth_hw_m = np.zeros((3, 5))
    depth_hw_m[2, 4] = 2.0
    depth_hw_m[0, 0] = np.nan
    depth_hw_m[0, 1] = -1.0
    T_base_cam = geometry.transform(np.eye(3), np.array([0.0, 0.0, 10.0]))
    points = geometry.points_from_depth(depth_hw_m, intrinsics_px, T_base_cam)
    np.testing.assert_allclose(points, [[(4 - 2) / 100 * 2, (2 - 1) / 50 * 2, 12.0]])


def test_a_state_becomes_a_pose_and_a_zero_quaternion_no_nan() -> None:
    proprio_arm = np.array([1.0, 2.0, 3.0, 2.0, 0.0, 0.0, 0.0, 0.5])
    np.testing.assert_allclose(
        geometry.ee_pose_from_proprio(proprio_arm), geometry.transform(np.eye(3), np.array([1.0, 2.0, 3.0]))
    )
    assert np.isfinite(geometry.ee_pose_from_proprio(np.zeros((2, 8)))).all()


@pytest.mark.parametrize(("height_px", "width_px"), [(128, 128), (240, 320)])
def test_image_border_lies_at_half_the_field_of_view(height_px: int, width_px: int) -> None:
    fovy_rad = np.deg2rad(60)
    K = geometry.intrinsics_from_fovy(fovy_rad, height_px=height_px, width_px=width_px)
    top_edge_v = -0.5  # the upper border of the first row, whose centre is at 0
    assert np.isclose((K[1, 2] - top_edge_v) / K[1, 1], np.tan(fovy_rad / 2))
