"""The arm's torques within a control step: robosuite's, bit for bit, in a third of its time.

In: a running robosuite environment with Pandas on fixed bases, in the middle of a control step. Out: torques in `ctrl`.
Read next: `scene.py`, which calls this in every physics substep but the first of a control step.

Robosuite's operational space controller runs in each of the 25 substeps. Most of its time goes into looking up names,
checking the action again, and computing each Jacobian twice. Here the same formulas, in the same order, read MuJoCo's
arrays. Goals are robosuite's own: its controller sets them in the first substep, and they hold until the next action.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class ArmControl:
    """Operational space control of one arm between two actions (`OperationalSpaceController` of robosuite 1.5.2).

    It covers what robosuite uses for a Panda: fixed gains, goals in the axes of a base that stands still, position and
    orientation apart from each other, no interpolation. The gripper's command is not touched: it is constant between
    two actions.

    Args:
        sim: Robosuite's `MjSim`.
        robot: Robosuite's robot with one arm, after a reset.
    """

    def __init__(self, sim: Any, robot: Any) -> None:
        (arm,) = robot.arms
        self._model, self._data = sim.model._model, sim.data._data
        self._controller = robot.part_controllers[arm]
        self._site = self._model.site(self._controller.ref_name).id
        joints, velocities = _span(self._controller.qpos_index), _span(self._controller.qvel_index)
        actuators = _span(robot._ref_actuators_indexes_dict[arm])
        self._velocities = velocities
        self._qpos, self._qvel = self._data.qpos[joints], self._data.qvel[velocities]
        self._bias, self._ctrl = self._data.qfrc_bias[velocities], self._data.ctrl[actuators]
        self._ctrl_low, self._ctrl_high = self._model.actuator_ctrlrange[actuators].T
        self._position, self._rotation = self._data.site_xpos[self._site], self._data.site_xmat[self._site]
        self._jac_pos, self._jac_ori = np.zeros((3, self._model.nv)), np.zeros((3, self._model.nv))
        self._mass = np.zeros((self._model.nv, self._model.nv))

    def apply_torques(self) -> None:
        """Set the torques of the current state; `mj_step1` has run."""
        import mujoco
        from robosuite.utils import control_utils

        controller, data = self._controller, self._data
        mujoco.mj_jacSite(self._model, data, self._jac_pos, self._jac_ori, self._site)
        mujoco.mj_fullM(self._model, self._mass, data.qM)
        # compiled functions give the same bits only for the same memory layout
        jac_pos = np.ascontiguousarray(self._jac_pos[:, self._velocities])
        jac_ori = np.ascontiguousarray(self._jac_ori[:, self._velocities])
        jac = np.concatenate([jac_pos, jac_ori])
        mass = np.asfortranarray(self._mass[self._velocities, self._velocities])
        _, inertia_pos, inertia_ori, nullspace = control_utils.opspace_matrices(mass, jac, jac_pos, jac_ori)

        rotation = self._rotation.reshape(3, 3)
        goal_position = controller.origin_pos + np.dot(controller.origin_ori, controller.goal_pos)
        goal_rotation = np.dot(controller.origin_ori, controller.goal_ori)
        error = np.concatenate(
            [goal_position - self._position, control_utils.orientation_error(goal_rotation, rotation)]
        )
        velocity = np.concatenate([np.dot(self._jac_pos, data.qvel), np.dot(self._jac_ori, data.qvel)])
        wrench = error * controller.kp - velocity * controller.kd
        decoupled = np.concatenate([np.dot(inertia_pos, wrench[:3]), np.dot(inertia_ori, wrench[3:])])
        torques = np.dot(jac.T, decoupled) + self._bias
        torques += control_utils.nullspace_torques(mass, nullspace, controller.initial_joint, self._qpos, self._qvel)
        np.clip(torques, self._ctrl_low, self._ctrl_high, out=self._ctrl)


def _span(indices: list[int]) -> slice:
    """Return the slice of successive indices; an arm's joints follow each other."""
    first, last = int(indices[0]), int(indices[-1])
    assert list(indices) == list(range(first, last + 1)), f"not successive: {indices}"
    return slice(first, last + 1)
