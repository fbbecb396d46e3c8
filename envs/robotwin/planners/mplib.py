"""Planner `mplib`: stands for RoboTwin's curobo planner where there is no CUDA, with mplib 0.2.1 (needs numpy below 2).

In: joint positions of the robot, poses of an arm's end effector in the world, as RoboTwin's `Robot` passes them.
Out: plans as RoboTwin reads them. Read next: `mplib_world.py`, the robot that mplib plans for.

A screw motion first, which moves the tool straight where it does not turn; RRTConnect where that fails. Random numbers
are seeded before each plan, so that the same question gets the same answer, unless the sampler's time is up: that is
counted. As in RoboTwin's own use of mplib, joints have unit limits of velocity and acceleration, and plans of more than
2500 samples fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .counts import PlanCounts
from .mplib_world import ArmWorld, arm_world
from .shared import PathTiming, Plan, as_batch, gripper_plan
from .timing import MIN_SAMPLES, RATE_HZ

SCREW_STEP_RAD = 0.02
"""mplib's own step of 0.1 rad ends a screw motion of 0.4 m up to 7 mm away from its goal and calls it a success."""

GOAL_TOLERANCE = 2e-3
"""Metres, and radians, between the goal and where a screw motion may end; curobo accepts 5 mm and 0.05 rad."""

AT_GOAL = 1e-4
"""Metres, and radians, from which on there is nothing to plan; mplib's screw motion does not end at distance 0."""

SAMPLING_LIMIT_S = 5.0
TIMED_OUT = ("RRTConnect Failed. Timeout", "RRTConnect Failed. Approximate solution")
"""What mplib says when the time was up; other failures, such as a start within a collision, need no time."""

MAX_SAMPLES = 2500
SEED = 1

COUNTS = PlanCounts()

__all__ = ["COUNTS", "PathTiming", "Planner"]


class Planner:
    """One arm's planner, with the constructor and the methods of RoboTwin's `CuroboPlanner`; see `cpu.Planner`."""

    def __init__(
        self, robot_origion_pose: Any, active_joints_name: Sequence[str], all_joints: Sequence[str], yml_path: str
    ) -> None:
        position, quat_wxyz = (tuple(float(x) for x in part) for part in (robot_origion_pose.p, robot_origion_pose.q))
        self._world: ArmWorld = arm_world(
            Path(yml_path), tuple(active_joints_name), tuple(all_joints), (position, quat_wxyz)
        )

    def plan_path(
        self,
        curr_joint_pos: Sequence[float],
        target_gripper_pose: Any,
        constraint_pose: Sequence[float] | None = None,
        arms_tag: str | None = None,
    ) -> Plan:
        """Return a plan to one pose: `status`, and where it is `Success` `position` and `velocity`, [N, J].

        A constraint is not passed on: the screw motion keeps orientations that RoboTwin asks to keep.
        """
        import mplib

        world, start = self._world, self._world.start(curr_joint_pos)
        goal = mplib.Pose(target_gripper_pose.p, target_gripper_pose.q)
        COUNTS.planned += 1
        if world.distance(start, goal) < AT_GOAL:
            arm = start[world.arm]
            return _success(np.tile(arm, (MIN_SAMPLES, 1)), np.zeros((MIN_SAMPLES, len(arm))))
        result = self._screw(start, goal) or self._sampled(start, goal)
        if result is None or len(result["position"]) > MAX_SAMPLES:
            COUNTS.failed += 1
            return {"status": "Fail"}
        return _success(result["position"], result["velocity"])

    def plan_batch(
        self,
        curr_joint_pos: Sequence[float],
        target_gripper_pose_list: Sequence[Any],
        constraint_pose: Sequence[float] | None = None,
        arms_tag: str | None = None,
    ) -> Plan:
        """Return plans to several poses from one start; see `cpu.Planner.plan_batch`."""
        return as_batch([self.plan_path(curr_joint_pos, pose) for pose in target_gripper_pose_list])

    def plan_grippers(self, now_val: float, target_val: float) -> Plan:
        """Return evenly spaced gripper openings from one to another."""
        return gripper_plan(now_val, target_val)

    def _screw(self, start: np.ndarray, goal: Any) -> Plan | None:
        """Return a screw motion, unless it fails or ends elsewhere."""
        result: Plan = self._world.planner.plan_screw(goal, start, time_step=1 / RATE_HZ, qpos_step=SCREW_STEP_RAD)
        if result["status"] != "Success":
            return None
        end = start.copy()
        end[self._world.arm] = result["position"][-1]
        if self._world.distance(end, goal) > GOAL_TOLERANCE:
            return None
        COUNTS.straight += 1
        return result

    def _sampled(self, start: np.ndarray, goal: Any) -> Plan | None:
        """Return a path found by RRTConnect, timed by mplib."""
        import mplib

        mplib.set_global_seed(SEED)
        result: Plan = self._world.planner.plan_pose(goal, start, time_step=1 / RATE_HZ, planning_time=SAMPLING_LIMIT_S)
        if result["status"] == "Success":
            COUNTS.sampled += 1
            return result
        COUNTS.timed_out += result["status"] in TIMED_OUT
        return None


def _success(position: np.ndarray, velocity: np.ndarray) -> Plan:
    """Return a plan of at least `MIN_SAMPLES`; a shorter motion is slowed down."""
    if len(position) < MIN_SAMPLES:
        old, new = np.arange(len(position)), np.linspace(0, len(position) - 1, MIN_SAMPLES)
        slower = (len(position) - 1) / (MIN_SAMPLES - 1)
        position = np.stack([np.interp(new, old, joint) for joint in position.T], axis=1)
        velocity = slower * np.stack([np.interp(new, old, joint) for joint in velocity.T], axis=1)
    return {"status": "Success", "position": position, "velocity": velocity}
