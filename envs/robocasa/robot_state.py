"""The states of the robot that released RoboCasa policies read, as robosuite's observables give them.

In: MuJoCo's model and data of a PandaOmron. Out: the arrays of `evalkit.contracts.spec.ROBOT_STATE`.
Read next: `state.py`, what only oracles may read.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from evalkit.contracts import geometry

BASE_SITE = "mobilebase0_center"
GRIP_SITE = "gripper0_right_grip_site"
GRIPPER_BODY = "robot0_right_hand"
FINGER_JOINTS = ("gripper0_right_finger_joint1", "gripper0_right_finger_joint2")


def read_robot_state(data: Any) -> dict[str, np.ndarray]:
    """Return each state by name, float64; positions are those of a site and rotations of a body, as robosuite has it.

    Args:
        data: MuJoCo's data, its kinematics as the protocol observes them.
    """
    base, fingers = data.site(BASE_SITE), [data.joint(name) for name in FINGER_JOINTS]
    R_world_base, p_world_base = base.xmat.reshape(3, 3), np.array(base.xpos)
    p_world_ee = np.array(data.site(GRIP_SITE).xpos)
    quat_wxyz = np.array(data.body(GRIPPER_BODY).xquat)
    return {
        "robot0_eef_pos": p_world_ee,
        "robot0_eef_quat": geometry.xyzw_from_wxyz(quat_wxyz),
        "robot0_gripper_qpos": np.array([finger.qpos[0] for finger in fingers]),
        "robot0_gripper_qvel": np.array([finger.qvel[0] for finger in fingers]),
        "robot0_base_to_eef_pos": R_world_base.T @ (p_world_ee - p_world_base),
        "robot0_base_to_eef_quat": _quat_xyzw(R_world_base.T @ geometry.matrix_from_quat(quat_wxyz)),
        "robot0_base_pos": p_world_base,
        "robot0_base_quat": _quat_xyzw(R_world_base),
    }


def _quat_xyzw(R: np.ndarray) -> np.ndarray:
    return geometry.xyzw_from_wxyz(geometry.quat_from_matrix(R))
