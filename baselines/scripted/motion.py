"""What experts are written in: their senses, goals of the end effector, and the motions between goals.

In: observations with privileged state. Out: goals of the end effector, and the actions that lead to them.
Read next: `experts.py`, the experts of robosuite.

An expert is a generator: it yields one goal per control step and reads its senses, which are refreshed at every step.
Phases are therefore plain code, and plain loops repeat them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass

import numpy as np

from evalkit.contracts import geometry
from evalkit.contracts.spec import OSC_STEP_M, OSC_STEP_RAD
from evalkit.contracts.types import ACTION_DIM, ARM_ACTION, ARM_PROPRIO, Observation

UP = np.array([0.0, 0.0, 1.0])
OPEN, CLOSED = 1.0, -1.0

R_base_down = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
"""Gripper that points straight down at yaw 0; its fingers open along its x axis, which is then the base's y axis."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Goal:
    """Where the end effector should go during one control step.

    Attributes:
        position_m: 3, in the base frame.
        R_base_ee: 3,3.
        gripper: `OPEN` or `CLOSED`.
    """

    position_m: np.ndarray
    R_base_ee: np.ndarray
    gripper: float


Goals = Generator[Goal, None, None]
"""An expert's goals, one per control step."""


class Senses:
    """What an expert knows at this step; the policy refreshes it before the expert goes on."""

    def __init__(self, observation: Observation) -> None:
        self.refresh(observation)

    def refresh(self, observation: Observation) -> None:
        """Take in a new observation."""
        arm = observation.proprio[ARM_PROPRIO["left"]]
        T_base_ee = geometry.ee_pose_from_proprio(arm)
        self.position_m = T_base_ee[:3, 3]
        self.R_base_ee = T_base_ee[:3, :3]
        self.open_frac = float(arm[7])
        self.instruction = observation.instruction
        self._state = observation.privileged

    def __getitem__(self, key: str) -> np.ndarray:
        return self._state[key]

    def rotation(self, name: str) -> np.ndarray:
        """Return 3,3 `R_base_<name>` of a body."""
        return geometry.matrix_from_quat(self._state[f"{name}_quat_wxyz"])

    def distance_m(self, point_m: np.ndarray) -> float:
        """Return the distance of the end effector from a point."""
        return float(np.linalg.norm(self.position_m - point_m))


class ScriptedExpert:
    """Runs the goals of one episode; satisfies `evalkit.contracts.policy.Expert`.

    Args:
        start: Returns the goals, given the senses.
    """

    def __init__(self, start: Callable[[Senses], Goals]) -> None:
        self._start = start
        self._running: tuple[Senses, Goals] | None = None

    def act(self, observation: Observation) -> np.ndarray:
        """Return the action towards the next goal; the goals start at the first call."""
        if self._running is None:
            senses = Senses(observation)
            self._running = senses, self._start(senses)
        senses, goals = self._running
        senses.refresh(observation)
        return action_towards(next(goals), senses)


class ScriptedExperts:
    """The experts of one bench; satisfies `evalkit.contracts.policy.ExpertPlugin`.

    Args:
        experts: What returns the goals of each task.
    """

    def __init__(self, experts: Mapping[str, Callable[[Senses], Goals]]) -> None:
        self.tasks = tuple(experts)
        self._experts = experts

    def start(self, task: str) -> ScriptedExpert:
        """Return an expert for one episode of a task."""
        return ScriptedExpert(self._experts[task])


def action_towards(goal: Goal, senses: Senses) -> np.ndarray:
    """Return 14 float32 numbers in [-1, 1] that move the left arm one step towards a goal."""
    translation = (goal.position_m - senses.position_m) / OSC_STEP_M
    translation = translation / max(1.0, np.abs(translation).max())  # all axes alike, so that the path is straight
    rotation = geometry.rotvec_from_matrix(goal.R_base_ee @ senses.R_base_ee.T) / OSC_STEP_RAD
    action = np.zeros(ACTION_DIM, np.float32)
    action[ARM_ACTION["left"]] = np.clip([*translation, *rotation, goal.gripper], -1.0, 1.0)
    return action


def down(yaw_rad: float) -> np.ndarray:
    """Return 3,3 `R_base_ee` of a gripper that points straight down, turned about the vertical."""
    return about_z(yaw_rad) @ R_base_down


def about_z(angle_rad: float) -> np.ndarray:
    """Return the 3x3 rotation about the vertical.

    Example:
        >>> about_z(np.pi / 2).round(6) @ [1.0, 0.0, 0.0]
        array([0., 1., 0.])
    """
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def about_y(angle_rad: float) -> np.ndarray:
    """Return the 3x3 rotation about the y axis.

    Example:
        >>> about_y(np.pi / 2).round(6) @ [1.0, 0.0, 0.0]
        array([ 0.,  0., -1.])
    """
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[cos, 0.0, sin], [0.0, 1.0, 0.0], [-sin, 0.0, cos]])


def yaw_of(R: np.ndarray) -> float:
    """Return the angle of a rotation's x axis in the horizontal plane, radians."""
    return float(np.arctan2(R[1, 0], R[0, 0]))


def nearest_yaw(yaw_rad: float, reference_rad: float, period_rad: float) -> float:
    """Return the yaw nearest to a reference among those that look alike.

    Example:
        >>> round(nearest_yaw(3.2, 0.0, np.pi / 2), 3)
        0.058
    """
    return reference_rad + (yaw_rad - reference_rad + period_rad / 2) % period_rad - period_rad / 2


def reach(
    senses: Senses, goal: Callable[[], Goal], *, within_m: float, within_rad: float = 0.1, max_steps: int = 80
) -> Goals:
    """Go to a goal that may move; give up after `max_steps`, so that the caller's checks decide what comes next."""
    for _ in range(max_steps):
        now = goal()
        turn_rad = np.linalg.norm(geometry.rotvec_from_matrix(now.R_base_ee @ senses.R_base_ee.T))
        if senses.distance_m(now.position_m) < within_m and turn_rad < within_rad:
            return
        yield now


def stay(senses: Senses, *, gripper: float, num_steps: int) -> Goals:
    """Keep the end effector in place while the gripper opens or closes."""
    position_m, R_base_ee = senses.position_m, senses.R_base_ee
    for _ in range(num_steps):
        yield Goal(position_m=position_m, R_base_ee=R_base_ee, gripper=gripper)


def rise(senses: Senses, *, to_z_m: float, gripper: float, max_steps: int = 30) -> Goals:
    """Move straight up to a height; no step if the end effector is above it already."""
    start_m, R_base_ee = senses.position_m, senses.R_base_ee
    if start_m[2] >= to_z_m:
        return
    top_m = np.array([start_m[0], start_m[1], to_z_m])
    goal = Goal(position_m=top_m, R_base_ee=R_base_ee, gripper=gripper)
    yield from reach(senses, lambda: goal, within_m=0.01, max_steps=max_steps)
