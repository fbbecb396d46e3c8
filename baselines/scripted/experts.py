"""One expert per task, as a sequence of phases; each loops until the episode ends, so that it repeats a failed try.

In: senses. Out: goals of the end effector, one per control step.
Read next: `motion.py`, the primitives; `policy.py`, which runs the experts.

Every expert reads the object's pose at each step and corrects for it. It can also continue what another policy has
begun: it does not pick what the gripper holds already, except nuts, whose orientation in the gripper matters.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np

from baselines.scripted.motion import (
    CLOSED,
    OPEN,
    UP,
    Goal,
    Goals,
    ScriptedExperts,
    Senses,
    about_y,
    about_z,
    down,
    nearest_yaw,
    reach,
    rise,
    stay,
    yaw_of,
)

HOVER_M = 0.09
"""Distance from a grasp at which the gripper lines up."""

CLOSED_AROUND_FRAC = (0.05, 0.9)
"""Openings of the fingers below which they are empty, and above which they do not touch what is between them."""

CLOSING_STEPS = 8
"""Control steps for the fingers to close and press."""

NEAR_CORNER_M = np.array([-0.05, -0.04, 0.0])
"""From the middle of the can's compartment towards the robot, whose arm does not reach the middle."""

GRASP_LATCH_M = np.array([0.115, -0.1, 0.0])
"""Where the gripper takes the door's handle, in the frame of the latch, which turns about its y axis."""

R_latch_ee = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]])
"""Gripper that points at the door and closes on the handle from above and below."""

HINGE_DOOR_M = np.array([0.255, 0.0, 0.0])
"""Where the door's vertical hinge is, in the frame of the door."""

RELEASED_RAD, TURNED_RAD = 1.3, 1.45
"""Angle of the handle at which the bolt is free, and the angle that the gripper holds while it pulls."""

YAW_LIMITS_RAD = (-1.9, 2.9)
"""Yaws of a downward gripper that the last joint reaches everywhere on the table."""


def lift(senses: Senses) -> Goals:
    """Grasp the cube and raise it."""
    while True:
        if not _grasps(senses, "cube_pos_m"):
            yield from _pick(senses, "cube_pos_m", _square_yaw(senses, "cube"))
        top = Goal(position_m=senses.position_m + 0.15 * UP, R_base_ee=senses.R_base_ee, gripper=CLOSED)
        while _holds(senses, "cube_pos_m"):
            yield top


def stack(senses: Senses) -> Goals:
    """Put the red cube on the green one."""
    height_m = senses["red_cube_half_size_m"][2] + senses["green_cube_half_size_m"][2] + 0.004

    def on_green() -> np.ndarray:
        return senses["green_cube_pos_m"] + height_m * UP

    while True:
        if not _grasps(senses, "red_cube_pos_m"):
            yield from _pick(senses, "red_cube_pos_m", _square_yaw(senses, "red_cube", avoid="green_cube"))
        yield from _carry(senses, "red_cube", "red_cube_pos_m", on_green, clearance_m=0.06, within_m=0.004)


def can(senses: Senses) -> Goals:
    """Put the can into its compartment."""

    def near_corner() -> np.ndarray:
        return senses["compartment_pos_m"] + NEAR_CORNER_M

    while True:
        if not _grasps(senses, "can_pos_m"):
            yield from _pick(senses, "can_pos_m", _always(0.0))
        yield from _carry(senses, "can", "can_pos_m", near_corner, clearance_m=0.13, within_m=0.025)


def nut(senses: Senses) -> Goals:
    """Take the nut by its handle and put it over the peg, square on square."""
    while True:
        grasp_yaw, place_yaw = _nut_yaws(yaw_of(senses.rotation("nut")))
        yield from _pick(senses, "nut_handle_pos_m", _always(grasp_yaw))
        yield from _carry(
            senses,
            "nut",
            "nut_handle_pos_m",
            lambda: senses["peg_pos_m"],
            clearance_m=0.14,
            within_m=0.005,
            R_base_ee=down(place_yaw),
        )


def door(senses: Senses) -> Goals:
    """Take the handle from the front, turn it down, pull along the door's arc; the gripper turns with the handle."""

    def ee_goal(turn_rad: float, *, back_m: float = 0.0, opening_rad: float = 0.0, gripper: float = CLOSED) -> Goal:
        R_base_latch = _latch_at_rest(senses) @ about_y(turn_rad)
        position_m = senses["latch_pos_m"] + R_base_latch @ (GRASP_LATCH_M - [0.0, back_m, 0.0])
        hinge_m = senses["door_pos_m"] + senses.rotation("door") @ HINGE_DOOR_M
        R_opening = about_z(opening_rad)
        return Goal(
            position_m=hinge_m + R_opening @ (position_m - hinge_m),
            R_base_ee=R_opening @ R_base_latch @ R_latch_ee,
            gripper=gripper,
        )

    def turn_rad() -> float:
        return float(senses["latch_rad"][0])

    def on_handle() -> bool:
        return senses.distance_m(ee_goal(turn_rad()).position_m) < 0.05

    while True:
        if not (on_handle() and _are_around(senses)):
            yield from reach(senses, lambda: ee_goal(turn_rad(), back_m=HOVER_M, gripper=OPEN), within_m=0.015)
            yield from reach(senses, lambda: ee_goal(turn_rad(), gripper=OPEN), within_m=0.008, max_steps=40)
            yield from stay(senses, gripper=CLOSED, num_steps=CLOSING_STEPS)
        while turn_rad() < RELEASED_RAD and on_handle():
            yield ee_goal(min(turn_rad() + 0.35, TURNED_RAD))
        while on_handle():
            yield ee_goal(TURNED_RAD, opening_rad=0.15)
        yield from reach(senses, lambda: ee_goal(turn_rad(), back_m=HOVER_M, gripper=OPEN), within_m=0.03, max_steps=20)


def _pick(senses: Senses, point_key: str, yaw: Callable[[], float]) -> Goals:
    """Come from above with open fingers, go down around a point, close."""

    def ee_goal(up_m: float) -> Goal:
        return Goal(position_m=senses[point_key] + up_m * UP, R_base_ee=down(yaw()), gripper=OPEN)

    yield from rise(senses, to_z_m=ee_goal(HOVER_M / 2).position_m[2], gripper=OPEN)
    yield from reach(senses, lambda: ee_goal(HOVER_M), within_m=0.015)
    yield from reach(senses, lambda: ee_goal(0.0), within_m=0.006, max_steps=40)
    yield from stay(senses, gripper=CLOSED, num_steps=CLOSING_STEPS)


def _carry(
    senses: Senses,
    name: str,
    point_key: str,
    where: Callable[[], np.ndarray],
    *,
    clearance_m: float,
    within_m: float,
    R_base_ee: np.ndarray | None = None,
) -> Goals:
    """Take a held object over a place, set it down there, let go and back off; stop early if it is lost.

    Args:
        senses: What the expert knows.
        name: The object; its position is brought to the place.
        point_key: The point at which it is held.
        where: The place, which may move.
        clearance_m: Height above the place at which the object travels.
        within_m: How near the place is near enough.
        R_base_ee: Orientation of the end effector at the place; None to keep the current one.
    """
    R_there = senses.R_base_ee if R_base_ee is None else R_base_ee

    def ee_goal(up_m: float) -> Goal:
        ee_to_object_m = senses.R_base_ee.T @ (senses[f"{name}_pos_m"] - senses.position_m)
        return Goal(position_m=where() + up_m * UP - R_there @ ee_to_object_m, R_base_ee=R_there, gripper=CLOSED)

    yield from rise(senses, to_z_m=ee_goal(clearance_m).position_m[2], gripper=CLOSED)
    for up_m, tolerance_m in ((clearance_m, 2 * within_m), (0.0, within_m)):
        for step in reach(senses, partial(ee_goal, up_m), within_m=tolerance_m):
            if not _holds(senses, point_key):
                return
            yield step
    yield from stay(senses, gripper=OPEN, num_steps=5)
    yield from rise(senses, to_z_m=senses.position_m[2] + 0.1, gripper=OPEN)


def _holds(senses: Senses, point_key: str) -> bool:
    """Return whether an object's point is between the fingers, open or not."""
    return senses.distance_m(senses[point_key]) < 0.035 and senses.open_frac > CLOSED_AROUND_FRAC[0]


def _grasps(senses: Senses, point_key: str) -> bool:
    """Return whether the fingers are closed around an object's point."""
    return _holds(senses, point_key) and _are_around(senses)


def _are_around(senses: Senses) -> bool:
    """Return whether the fingers are closed around something."""
    return CLOSED_AROUND_FRAC[0] < senses.open_frac < CLOSED_AROUND_FRAC[1]


def _latch_at_rest(senses: Senses) -> np.ndarray:
    """Return 3,3 `R_base_latch` as it would be with the handle at rest."""
    return senses.rotation("latch") @ about_y(-float(senses["latch_rad"][0]))


def _square_yaw(senses: Senses, name: str, *, avoid: str | None = None) -> Callable[[], float]:
    """Return the yaw at which the fingers close on two faces of a cube, followed as the cube turns.

    Of the two ways it takes the one that needs less turning, unless a finger would come down on a neighbour.
    """
    first = nearest_yaw(yaw_of(senses.rotation(name)), 0.0, np.pi / 2)
    if avoid is not None:
        towards_m = (senses[f"{avoid}_pos_m"] - senses[f"{name}_pos_m"])[:2]
        other = first - np.copysign(np.pi / 2, first)
        first = min((first, other), key=lambda yaw: _crowding(yaw, towards_m))
    return lambda: nearest_yaw(yaw_of(senses.rotation(name)), first, np.pi / 2)


def _always(yaw_rad: float) -> Callable[[], float]:
    return lambda: yaw_rad


def _crowding(yaw_rad: float, towards_m: np.ndarray) -> float:
    """Return how much a finger at this yaw comes near a neighbour, metres below a gap of 5 cm; 0 where it is clear."""
    fingers_m = np.array([-np.sin(yaw_rad), np.cos(yaw_rad)]) * 0.05
    gaps_m = [np.linalg.norm(towards_m - side * fingers_m) for side in (-1, 1)]
    return max(0.0, 0.05 - float(min(gaps_m)))


def _nut_yaws(nut_yaw_rad: float) -> tuple[float, float]:
    """Return the gripper's yaw at the nut's handle and at the peg: two ways to hold it, three sides for the handle.

    The handle may end up nearest to the robot, or on either side of the peg; beyond the peg the arm does not reach.
    The gripper must turn from yaw 0 to the first and from there to the second the short way.
    """
    ways = []
    for flip, handle_side in product((np.pi, 0.0), (np.pi, np.pi / 2, -np.pi / 2)):
        grasp = nearest_yaw(nut_yaw_rad + flip, 0.5, 2 * np.pi)
        place = nearest_yaw(handle_side + flip, 0.5, 2 * np.pi)
        if all(YAW_LIMITS_RAD[0] < yaw < YAW_LIMITS_RAD[1] for yaw in (grasp, place)) and abs(place - grasp) < 2.8:
            ways.append((abs(grasp) + abs(place - grasp) + (handle_side != np.pi), grasp, place))
    _, grasp, place = min(ways)
    return grasp, place


EXPERTS: dict[str, Callable[[Senses], Goals]] = {
    "Lift": lift,
    "Stack": stack,
    "Door": door,
    "PickPlaceCan": can,
    "NutAssemblySquare": nut,
}


class RobosuiteExperts(ScriptedExperts):
    """The experts of robosuite, found by entry point."""

    def __init__(self) -> None:
        super().__init__(EXPERTS)
