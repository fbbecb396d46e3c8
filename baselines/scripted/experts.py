"""One expert a task, as the sequence of its phases; each loops until the episode ends, so a failed try is tried again.

In: senses. Out: goals of the hand, one a control step.
Read next: `motion.py` for the words; `policy.py` for who listens.

Every expert sees the object all the time and corrects for it: what counts is where the cube is, not where the hand
was told to go.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from baselines.scripted.motion import (
    CLOSED,
    OPEN,
    Expert,
    Goal,
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
"""Height above a grasp at which the hand gets into line."""

CLOSING_STEPS = 8
"""Control steps for the fingers to close and press."""

NEAR_CORNER_M = np.array([-0.05, -0.04, 0.0])
"""From the middle of the can's compartment towards the robot, whose arm does not reach the middle."""

GRASP_LATCH_M = np.array([0.115, -0.1, 0.0])
"""Where the hand takes the door's handle, in the frame of the latch, whose y axis it turns about."""

R_latch_hand = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]])
"""Hand that points at the door and closes on the handle from above and below."""

HINGE_DOOR_M = np.array([0.255, 0.0, 0.0])
"""Where the door's vertical hinge is, in the frame of the door."""

RELEASED_RAD, TURNED_RAD = 1.3, 1.45
"""Turn of the handle at which the bolt is free, and the turn that the hand keeps up while it pulls."""


def lift(senses: Senses) -> Expert:
    """Grasp the cube and raise it."""
    while True:
        yield from _pick(senses, lambda: senses["cube_pos_m"], _square_yaw(senses, "cube", avoid=None))
        start_m = senses.position_m
        top = Goal(position_m=start_m + [0.0, 0.0, 0.15], R_base_ee=senses.R_base_ee, gripper=CLOSED)
        while _holds(senses, senses["cube_pos_m"]):
            yield top


def stack(senses: Senses) -> Expert:
    """Put the red cube on the green one."""
    while True:
        yield from _pick(senses, lambda: senses["red_cube_pos_m"], _square_yaw(senses, "red_cube", avoid="green_cube"))
        heights_m = senses["red_cube_half_size_m"][2] + senses["green_cube_half_size_m"][2]
        yield from _carry(
            senses, "red_cube", lambda: senses["green_cube_pos_m"] + [0.0, 0.0, heights_m], clearance_m=0.06
        )


def can(senses: Senses) -> Expert:
    """Put the can into its compartment."""
    while True:
        yield from _pick(senses, lambda: senses["can_pos_m"] + [0.0, 0.0, 0.01], lambda: 0.0)
        yield from _carry(
            senses, "can", lambda: senses["compartment_pos_m"] + NEAR_CORNER_M, clearance_m=0.13, within_m=0.025
        )


def door(senses: Senses) -> Expert:
    """Take the handle from the front, turn it down, pull along the door's arc; the hand turns with the handle."""

    def hand(turn_rad: float, *, back_m: float = 0.0, opening_rad: float = 0.0, gripper: float = CLOSED) -> Goal:
        R_base_latch = _latch_at_rest(senses) @ about_y(turn_rad)
        position_m = senses["latch_pos_m"] + R_base_latch @ (GRASP_LATCH_M - [0.0, back_m, 0.0])
        hinge_m = senses["door_pos_m"] + senses.rotation("door") @ HINGE_DOOR_M
        R_opening = about_z(opening_rad)
        return Goal(
            position_m=hinge_m + R_opening @ (position_m - hinge_m),
            R_base_ee=R_opening @ R_base_latch @ R_latch_hand,
            gripper=gripper,
        )

    def turn_rad() -> float:
        return float(senses["latch_rad"][0])

    def on_handle() -> bool:
        return senses.distance_m(hand(turn_rad()).position_m) < 0.05

    while True:
        yield from reach(senses, lambda: hand(turn_rad(), back_m=HOVER_M, gripper=OPEN), within_m=0.015)
        yield from reach(senses, lambda: hand(turn_rad(), gripper=OPEN), within_m=0.008, max_steps=40)
        yield from stay(senses, gripper=CLOSED, num_steps=CLOSING_STEPS)
        while turn_rad() < RELEASED_RAD and on_handle():
            yield hand(min(turn_rad() + 0.35, TURNED_RAD))
        while on_handle():
            yield hand(TURNED_RAD, opening_rad=0.15)
        yield from reach(senses, lambda: hand(turn_rad(), back_m=HOVER_M, gripper=OPEN), within_m=0.03, max_steps=20)


def _latch_at_rest(senses: Senses) -> np.ndarray:
    """Return 3,3 `R_base_latch` as it would be with the handle at rest."""
    return senses.rotation("latch") @ about_y(-float(senses["latch_rad"][0]))


def _pick(senses: Senses, where: Callable[[], np.ndarray], yaw: Callable[[], float]) -> Expert:
    """Come from above with open fingers, go down around a point, close."""

    def above() -> Goal:
        return Goal(position_m=where() + [0.0, 0.0, HOVER_M], R_base_ee=down(yaw()), gripper=OPEN)

    def around() -> Goal:
        return Goal(position_m=where(), R_base_ee=down(yaw()), gripper=OPEN)

    yield from rise(senses, to_z_m=where()[2] + HOVER_M / 2, gripper=OPEN)
    yield from reach(senses, above, within_m=0.015)
    yield from reach(senses, around, within_m=0.006, max_steps=40)
    yield from stay(senses, gripper=CLOSED, num_steps=CLOSING_STEPS)


def _carry(
    senses: Senses, name: str, where: Callable[[], np.ndarray], *, clearance_m: float, within_m: float = 0.004
) -> Expert:
    """Take a held object over a place, set it down there, let go and back off; stop early if it is lost."""
    R_base_ee = senses.R_base_ee

    def hand_for(place_m: np.ndarray) -> Goal:
        offset_m = senses.position_m - senses[f"{name}_pos_m"]
        return Goal(position_m=place_m + offset_m, R_base_ee=R_base_ee, gripper=CLOSED)

    def high() -> Goal:
        return hand_for(where() + [0.0, 0.0, clearance_m])

    def low() -> Goal:
        return hand_for(where() + [0.0, 0.0, 0.004])

    def held() -> bool:
        return _holds(senses, senses[f"{name}_pos_m"])

    yield from rise(senses, to_z_m=high().position_m[2], gripper=CLOSED)
    for goal, tolerance_m in ((high, 2 * within_m), (low, within_m)):
        for step in reach(senses, goal, within_m=tolerance_m):
            if not held():
                return
            yield step
    yield from stay(senses, gripper=OPEN, num_steps=5)
    yield from rise(senses, to_z_m=senses.position_m[2] + 0.1, gripper=OPEN)


def _holds(senses: Senses, point_m: np.ndarray) -> bool:
    """Return whether an object at this point is between the fingers."""
    return senses.distance_m(point_m) < 0.035 and senses.open_frac > 0.05


def _square_yaw(senses: Senses, name: str, *, avoid: str | None) -> Callable[[], float]:
    """Return the yaw at which the fingers close on two faces of a cube, followed as the cube turns.

    Of the two ways it takes the one that needs less turning, unless a finger would come down on a neighbour.
    """
    first = nearest_yaw(yaw_of(senses.rotation(name)), 0.0, np.pi / 2)
    if avoid is not None:
        towards = (senses[f"{avoid}_pos_m"] - senses[f"{name}_pos_m"])[:2]
        other = first - np.copysign(np.pi / 2, first)
        first = min((first, other), key=lambda yaw: _crowding(yaw, towards))
    return lambda: nearest_yaw(yaw_of(senses.rotation(name)), first, np.pi / 2)


def _crowding(yaw_rad: float, towards_m: np.ndarray) -> float:
    """Return how much a finger at this yaw comes near a neighbour, metres below a gap of 5 cm; 0 where it is clear."""
    fingers = np.array([-np.sin(yaw_rad), np.cos(yaw_rad)]) * 0.05
    gaps_m = [np.linalg.norm(towards_m - side * fingers) for side in (-1, 1)]
    return max(0.0, 0.05 - float(min(gaps_m)))


EXPERTS: dict[str, Callable[[Senses], Expert]] = {"Lift": lift, "Stack": stack, "Door": door, "PickPlaceCan": can}
