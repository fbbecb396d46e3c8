"""Whether a server's actions go on from where the robot is: each chunk's first action, and an episode's first 64.

In: actions of the env, the state at which they were asked for. Out: nothing, or a `BadMessage` with the likely cause.
Read next: `plausible.py`, the ranges of single numbers; `policy.py`, which looks at every chunk.

One step moves little. RoboTwin's expert (planner `cpu`, click_bell and stack_blocks_two, a state every 15 physics
steps) turns an end effector by at most 6.8 degrees, moves it by 34 mm and a joint by 0.16 rad from one state to the
next; over two of them by 13 degrees, 64 mm and 0.31 rad. The limits are several times that of one step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from baselines.remote.adapter import Adapter
from evalkit.contracts.geometry import wxyz_from_xyzw, xyzw_from_wxyz
from evalkit.contracts.msgpack_arrays import BadMessage
from evalkit.contracts.spec import EE_POSE_BASE, JOINT_POSITION, OSC_DELTA_BASE, OSC_STEP_M, Arm
from evalkit.contracts.types import (
    ARM_ACTION,
    ARM_PROPRIO,
    GRIPPER,
    QUAT_WXYZ,
    ROTVEC_RAD,
    TRANSLATION,
    Observation,
)

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

LARGEST_START_M, LARGEST_START_DEG, LARGEST_START_RAD = 0.3, 60.0, 0.5
"""Largest distance of a chunk's first action from the measured state: position, rotation, joint angle."""

FIRST_ACTIONS = 64
"""Number of an episode's first actions that must show the unit; experts on robosuite reach 1 within 16 of them, and the
joints of RoboTwin's expert are 1 rad from home within 15."""

LEAST_MOTION = 2e-3
"""A robot that moves less, in any unit, is one that holds still."""

MOST_IN_METRES = 1.1 * OSC_STEP_M
"""Largest change of position in metres that a controller of `osc_delta_base` takes, with a margin."""

MOST_OF_CHANGES_RAD = 0.2
"""Largest change of a joint in a step, with a margin, see above."""


def check_start(actions: np.ndarray, adapter: Adapter, observation: Observation) -> None:
    """Raise BadMessage if the first absolute action of a chunk is far from the measured state.

    Args:
        actions: K,14, in the layout of the adapter.
        adapter: The adapter.
        observation: What the server was sent.
    """
    layout = adapter.actions.layout
    for arm in adapter.env.arms:
        first = actions[0, ARM_ACTION[arm]].astype(np.float64)
        if layout == EE_POSE_BASE:
            _check_position(first[TRANSLATION], adapter, observation, arm)
            _check_rotation(first[ROTVEC_RAD], adapter, observation, arm)
        if layout == JOINT_POSITION:
            _check_joints(first[:GRIPPER], adapter, observation, arm)


def _check_position(first_m: np.ndarray, adapter: Adapter, observation: Observation, arm: Arm) -> None:
    measured_m = {each: observation.proprio[ARM_PROPRIO[each]][TRANSLATION] for each in adapter.env.arms}
    away_m = {each: float(np.linalg.norm(first_m - measured)) for each, measured in measured_m.items()}
    if away_m[arm] <= LARGEST_START_M:
        return
    nearest = min(away_m, key=lambda each: away_m[each])
    exchanged = nearest != arm and away_m[nearest] <= LARGEST_START_M
    raise _refused(
        f"{arm} arm: the first position of a chunk, {np.round(first_m, 3).tolist()}, lies {away_m[arm]:.2f} m from the "
        f"measured one, {np.round(measured_m[arm], 3).tolist()} (at most {LARGEST_START_M:g} m)",
        f"with the {nearest} arm's numbers in place of the {arm} one's"
        if exchanged
        else "with changes, or in another frame, where the adapter says absolute positions",
    )


def _check_rotation(rotvec_rad: np.ndarray, adapter: Adapter, observation: Observation, arm: Arm) -> None:
    from scipy.spatial.transform import Rotation

    from evalkit.dataset.axes import rotation_from_wxyz

    measured = rotation_from_wxyz(observation.proprio[ARM_PROPRIO[arm]][QUAT_WXYZ].astype(np.float64))
    first = Rotation.from_rotvec(rotvec_rad)
    if (away_deg := _apart_deg(first, measured)) > LARGEST_START_DEG:
        raise _refused(
            f"{arm} arm: the first rotation of a chunk is turned by {away_deg:.0f} degrees against the measured one "
            f"(at most {LARGEST_START_DEG:g})",
            _cause_of_rotation(first, measured, _form(adapter, arm)),
        )


def _cause_of_rotation(first: Rotation, measured: Rotation, form: str) -> str:
    """Return the end of a sentence: what the server seems to answer with."""
    from evalkit.dataset.axes import rotation_from_wxyz

    quat_wxyz = wxyz_from_xyzw(first.as_quat())
    if form in ("quat_wxyz", "quat_xyzw"):
        other, reorder = ("xyzw", wxyz_from_xyzw) if form == "quat_wxyz" else ("wxyz", xyzw_from_wxyz)
        if _apart_deg(rotation_from_wxyz(reorder(quat_wxyz)), measured) <= LARGEST_START_DEG:
            return f"with quaternions in the order {other} where the adapter says {form.removeprefix('quat_')}"
    if np.degrees(first.magnitude()) <= LARGEST_START_DEG / 3:
        return "with changes of rotation where the adapter says absolute rotations"
    if _apart_deg(first.inv(), measured) <= LARGEST_START_DEG:
        return "with inverse rotations (rows of the matrix for columns, or the base seen from the end effector)"
    return "in another frame, another end-effector frame or another form of rotation than the adapter says"


def _check_joints(first_rad: np.ndarray, adapter: Adapter, observation: Observation, arm: Arm) -> None:
    joints = observation.privileged[JOINT_POSITION]
    measured = {each: joints[ARM_ACTION[each]][:GRIPPER] for each in adapter.env.arms}
    away_rad = {each: float(np.abs(first_rad - angles).max()) for each, angles in measured.items()}
    if away_rad[arm] <= LARGEST_START_RAD:
        return
    others = [each for each in away_rad if each != arm and away_rad[each] <= LARGEST_START_RAD]
    cause = "with joints in another order, of another sign or of another robot than the adapter says"
    if others:
        cause = f"with the {others[0]} arm's numbers in place of the {arm} one's"
    elif np.abs(first_rad).max() <= LARGEST_START_RAD:
        cause = "with changes of joint angles where the adapter says absolute angles"
    elif np.abs(np.radians(first_rad) - measured[arm]).max() <= LARGEST_START_RAD / 3:
        cause = "in degrees where the adapter says radians"
    raise _refused(
        f"{arm} arm: the first joint angles of a chunk, {np.round(first_rad, 2).tolist()}, are up to "
        f"{away_rad[arm]:.2f} rad from the measured ones, {np.round(measured[arm], 2).tolist()} (at most "
        f"{LARGEST_START_RAD:g})",
        cause,
    )


@dataclass
class FirstActions:
    """How far an episode's first actions have moved the robot.

    Attributes:
        count: Actions seen.
        largest: Largest number of a translation (`osc_delta_base`) or joint angle (`joint_position`), without sign.
    """

    count: int = 0
    largest: float = 0.0

    @property
    def is_complete(self) -> bool:
        """Return whether enough actions have been seen."""
        return self.count >= FIRST_ACTIONS

    def add(self, actions: np.ndarray, adapter: Adapter) -> None:
        """Take the actions of a chunk that are executed, K,14.

        Raises:
            BadMessage: If all of the first actions are so small that they must be of another unit, or changes.
        """
        layout = adapter.actions.layout
        columns = {OSC_DELTA_BASE: TRANSLATION, JOINT_POSITION: slice(GRIPPER)}.get(layout)
        if columns is None or self.is_complete:
            return
        numbers = [np.abs(actions[:, ARM_ACTION[arm]][:, columns]).max() for arm in adapter.env.arms]
        self.count, self.largest = self.count + len(actions), max(self.largest, float(max(numbers)))
        if not self.is_complete or self.largest < LEAST_MOTION:
            return
        if layout == OSC_DELTA_BASE and self.largest <= MOST_IN_METRES:
            raise _refused(
                f"no number of a translation exceeds {self.largest:.3g} in the first {self.count} actions of the "
                f"episode, though 1 is a motion of {OSC_STEP_M:g} m",
                f"in metres where the adapter says units of {OSC_STEP_M:g} m",
            )
        if layout == JOINT_POSITION and self.largest <= MOST_OF_CHANGES_RAD:
            raise _refused(
                f"no joint angle exceeds {self.largest:.3g} rad in the first {self.count} actions of the episode",
                "with changes of joint angles where the adapter says absolute angles",
            )


def _refused(found: str, cause: str) -> BadMessage:
    return BadMessage(
        f"{found}, so the server seems to answer {cause}; correct the adapter, or set policy.remote.check_motion=false "
        "if the policy does move like this"
    )


def _form(adapter: Adapter, arm: Arm) -> str:
    """Return the form in which a server gives an arm's rotations."""
    parts = (part for field in adapter.actions.fields for part in field.parts)
    return next(str(part.form) for part in parts if part.part == "rotation" and part.arm == arm)


def _apart_deg(one: Rotation, other: Rotation) -> float:
    return float(np.degrees((one * other.inv()).magnitude()))
