"""One expert per RoboCasa task: it presses buttons, and pinches handles and knobs and moves them along their path.

In: senses, with the fixture's state in the base frame. Out: goals of the end effector, one per control step.
Read next: `motion.py`, the primitives; `envs/robocasa/tasks.py`, the state of each task; `experts.py`, robosuite's.

The base does not move. Every step computes the goal from the published boxes and joint axes, so that a handle that has
moved or slipped is approached where it is now. In addition, an expert knows how to orient the end effector: low
counters, wall cabinets and the spout leave the forearm little room.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import cycle

import numpy as np

from baselines.scripted.motion import CLOSED, OPEN, UP, Goal, Goals, ScriptedExperts, Senses, reach, stay

Direction = Callable[[Senses], np.ndarray]
"""A unit vector in the base frame."""

Grip = Callable[[Senses, str], tuple[np.ndarray, np.ndarray]]
"""Where to pinch a part, and the direction in which the fingers close on it there."""

HOVER_M = 0.12
"""Distance in front of a button or handle at which the gripper lines up."""

ASIDE_M = 0.1
"""Distance at which the gripper passes the spout on its way to the handle next to it."""

AWAY_M = 0.24
"""Distance to which the gripper retreats; RoboCasa counts a button as pressed once the gripper is 0.15 m away."""

CLOSING_STEPS = 8
"""Control steps for the fingers to close and press."""

PRESS_M = 0.05
"""Distance by which the goal lies inside a button or a drawer; it sets the force."""

AHEAD_M, MOST_AHEAD_RAD = 0.06, 0.9
"""Distance, along its arc, by which the goal leads a lever's end, and its limit; it sets the turning force."""

LEVER_LEAD_RAD, KNOB_LEAD_RAD = 0.2, 0.6
"""Angle by which the end effector's orientation leads a lever or a knob."""

TUCK_M = 0.1
"""Distance that the gripper moves down before it approaches."""

PRESSING_TILT_RAD = 0.6
"""Largest angle below the horizontal at which a pressing gripper points: wall cabinets leave no room for more."""

HANDLE_TILT_RAD = 0.45
"""Angle below the horizontal of a gripper at the faucet's handle; the sixth joint's limit prevents pointing level."""

STEEP_RAD, SLANTED_RAD, LEVEL_RAD = 1.0, 0.3, 0.1
"""Angles below the horizontal of a gripper that pushes the spout."""

STRAIGHT_COS, TALL_M = 0.95, 0.34
"""Cosine above which a spout is straight, and height above the sink's rim from which it almost meets the cabinet."""

SPOUT_BELOW_M, SIDE_M = 0.01, 0.08
"""How far a level gripper is below the middle of the spout, and how far from the side of the spout a push begins."""

SWING_RAD, STUCK_RAD = 0.5, 0.05
"""Angle by which the goal of a push leads the spout, and the turn in a second below which the push has failed."""

HANDLE_YAW = 0.4
"""Tangent of the yaw towards the spout at the faucet's handle: the forearm then passes next to the spout."""

KNOB_SLANT = 0.3
"""Tangent of the downward slant of a gripper at a knob on the front; it keeps the wrist within its limits."""

PUSHING_TILT_RAD, STEEP_FRAC = 0.7, 2 / 3
"""Angle below the horizontal of a gripper that pushes an almost closed drawer: it must pass below the counter's edge.
And how open a drawer is that it pushes from straight above."""

PINCH_TILT_RAD = 0.25
"""Angle below the horizontal of a gripper that pinches a drawer's handle."""

YAW_RAD_PER_M, STRAIGHT_M = 2.0, 0.47
"""How that gripper turns away from the robot: by how much per metre that the handle is farther aside than this."""

FAR_M, MOST_NEARER_M = 0.72, 0.035
"""A handle farther aside than this is pinched nearer than in its middle, by at most this."""

GRIP_BACK_M, BELOW_M = 0.008, 0.015
"""From the handle's axis to the middle of the finger pads: back, and down, so that the gripper clears the counter."""


def press(button: str, done: Callable[[Senses], bool], outward: Direction) -> Callable[[Senses], Goals]:
    """Return an expert that pushes a button with closed fingers and retreats; it tries again if that failed.

    Args:
        button: Its name in the published state.
        done: Whether it was pressed.
        outward: The normal of its face.
    """

    def expert(senses: Senses) -> Goals:
        n = outward(senses)
        pointing = _tilted(senses, -n)
        R_base_ee = pointing_along(pointing, _across(senses))

        def off_m() -> float:
            return float(n @ (senses.position_m - senses[f"{button}_pos_m"]))

        def ee_goal(off_m: float, back_m: float = 0.0) -> Goal:
            position_m = senses[f"{button}_pos_m"] + off_m * n - back_m * pointing
            return Goal(position_m=position_m, R_base_ee=R_base_ee, gripper=CLOSED)

        while True:
            yield from reach(senses, lambda: ee_goal(HOVER_M / 2, HOVER_M / 2), within_m=0.01)
            for step in reach(senses, lambda: ee_goal(off_m() - PRESS_M), within_m=0.0, max_steps=40):
                if done(senses):
                    break
                yield step
            yield from reach(senses, lambda: ee_goal(0.0, AWAY_M), within_m=0.03, max_steps=25)

    return expert


def lever_end(senses: Senses, name: str, inset_m: float = 0.015) -> tuple[np.ndarray, np.ndarray]:
    """Return where to pinch a lever, near the end that is far from its axis, and the unit tangent of its arc there."""
    axis, anchor = senses[f"{name}_axis"], senses[f"{name}_axis_pos_m"]
    centre, half_m = senses[f"{name}_pos_m"], senses[f"{name}_half_size_m"]
    longest = int(np.argmax(half_m))
    arm = senses.rotation(name)[:, longest] * max(half_m[longest] - inset_m, 0.0)
    end = max(centre + arm, centre - arm, key=lambda p: float(np.linalg.norm(np.cross(axis, p - anchor))))
    return end, _unit(np.cross(axis, end - anchor))


def knob_sides(senses: Senses, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return where to pinch a knob and the unit normal of its two broad sides."""
    axes, half_m, axis = senses.rotation(name), senses[f"{name}_half_size_m"], senses[f"{name}_axis"]
    flat = min((i for i in range(3) if abs(axes[:, i] @ axis) < 0.5), key=lambda i: float(half_m[i]))
    return senses[f"{name}_pos_m"], axes[:, flat]


def turn(
    name: str,
    left_rad: Callable[[Senses], float],
    pointing: Direction,
    *,
    clear_side: Direction = lambda senses: np.zeros(3),
    grip_on: Grip = lever_end,
    lead_rad: float = LEVER_LEAD_RAD,
) -> Callable[[Senses], Goals]:
    """Return an expert that pinches a lever or knob and turns it about its axis; it tries again if it slips.

    Args:
        name: The part, whose joint and box the task publishes.
        left_rad: Remaining angle, signed.
        pointing: Direction in which the gripper points.
        clear_side: Side from which the gripper approaches, or zero.
        grip_on: Where and how to pinch.
        lead_rad: Angle by which the orientation leads.
    """

    def expert(senses: Senses) -> Goals:
        def ee_goal(off_m: float = 0.0, *, side: float = 0.0, gripper: float = CLOSED) -> Goal:
            grip_m, closing = grip_on(senses, name)
            axis, anchor_m = senses[f"{name}_axis"], senses[f"{name}_axis_pos_m"]
            z = pointing(senses)
            x = np.copysign(1.0, closing @ senses.R_base_ee[:, 0]) * closing  # the half turn that is nearer
            radius_m = float(np.linalg.norm(np.cross(axis, grip_m - anchor_m)))
            ahead_rad = min(AHEAD_M / max(radius_m, 0.01), MOST_AHEAD_RAD)
            return Goal(
                position_m=anchor_m + about(axis, side * ahead_rad) @ (grip_m - off_m * z - anchor_m),
                R_base_ee=about(axis, side * min(ahead_rad, lead_rad)) @ pointing_along(z, x),
                gripper=gripper,
            )

        def aside() -> Goal:
            goal = ee_goal(HOVER_M, gripper=OPEN)
            return replace(goal, position_m=goal.position_m + ASIDE_M * clear_side(senses))

        yield from _tuck(senses, ee_goal().R_base_ee, senses.position_m)
        while True:
            yield from reach(senses, aside, within_m=0.03, within_rad=0.2)
            yield from reach(senses, lambda: ee_goal(HOVER_M, gripper=OPEN), within_m=0.015, within_rad=0.2)
            yield from reach(senses, lambda: ee_goal(gripper=OPEN), within_m=0.01, max_steps=40)
            yield from stay(senses, gripper=CLOSED, num_steps=CLOSING_STEPS)
            while senses.distance_m(ee_goal().position_m) < 0.06:
                yield ee_goal(side=float(np.sign(left_rad(senses))))
            yield from stay(senses, gripper=OPEN, num_steps=5)
            yield from reach(senses, lambda: ee_goal(HOVER_M, gripper=OPEN), within_m=0.03, max_steps=20)

    return expert


def turn_spout(senses: Senses) -> Goals:
    """Push the end of the spout sideways with closed fingers; try again with another slant of the gripper if it stays.

    Every try starts from where the first one started, because an arm that met a cabinet is stuck there.
    """
    start_m = senses.position_m
    for tilt_rad in cycle(_tilts_at_spout(senses)):
        yield from _swing(senses, tilt_rad, start_m)


def _tilts_at_spout(senses: Senses) -> tuple[float, ...]:
    """Return how far below the horizontal to point at the spout, the best angle first.

    A spout that points straight to the robot is pushed from above, because the sixth joint's limit prevents pointing
    level there; the wall cabinet above a tall one leaves room for a slight slant only. A spout that points aside is
    pushed with an almost level gripper: there is a wall cabinet above it.
    """
    rim_m = senses["fixture_pos_m"][2] + senses["fixture_half_size_m"][2]
    if _along_spout(senses) @ _into(senses) <= STRAIGHT_COS:
        return LEVEL_RAD, STEEP_RAD, SLANTED_RAD
    if senses["spout_pos_m"][2] - rim_m > TALL_M:
        return SLANTED_RAD, LEVEL_RAD
    return STEEP_RAD, LEVEL_RAD, SLANTED_RAD


def _swing(senses: Senses, tilt_rad: float, start_m: np.ndarray) -> Goals:
    """Go to the side of the spout that is opposite to where it should turn, push along its arc, and back off."""
    side = float(np.sign(_spout_left_rad(senses)))
    z = _slanted(_along_spout(senses), tilt_rad)
    across = np.copysign(1.0, _across(senses) @ senses.R_base_ee[:, 0]) * _across(senses)
    R_base_ee = pointing_along(z, -UP if tilt_rad == STEEP_RAD else across)  # from above with the narrow side ahead
    below_m = SPOUT_BELOW_M * np.cos(tilt_rad)

    def ee_goal(*, ahead_rad: float = 0.0, aside_m: float = 0.0, back_m: float = 0.0) -> Goal:
        axis, anchor_m = senses["spout_axis"], senses["spout_axis_pos_m"]
        end_m, tangent = lever_end(senses, "spout", inset_m=0.0)
        turned_m = anchor_m + about(axis, side * ahead_rad) @ (end_m - anchor_m)
        position_m = turned_m - side * aside_m * tangent - back_m * z - below_m * UP
        return Goal(position_m=position_m, R_base_ee=R_base_ee, gripper=CLOSED)

    start_rad = float(senses["spout_joint"][0])
    yield from _tuck(senses, R_base_ee, start_m)
    yield from reach(
        senses, lambda: ee_goal(aside_m=SIDE_M, back_m=HOVER_M), within_m=0.03, within_rad=0.3, max_steps=40
    )
    yield from reach(senses, lambda: ee_goal(aside_m=SIDE_M), within_m=0.02, within_rad=0.3, max_steps=30)
    yield from reach(senses, lambda: ee_goal(ahead_rad=SWING_RAD), within_m=0.0, max_steps=40)
    while abs(senses["spout_joint"][0] - start_rad) > STUCK_RAD:
        start_rad = float(senses["spout_joint"][0])
        yield from reach(senses, lambda: ee_goal(ahead_rad=SWING_RAD), within_m=0.0, max_steps=20)
    yield from reach(senses, lambda: ee_goal(aside_m=SIDE_M, back_m=HOVER_M), within_m=0.04, max_steps=20)


def close_drawer(senses: Senses) -> Goals:
    """Move down in front of the handle with closed fingers and push the drawer shut."""

    def ee_goal(front_m: float, up_m: float = 0.0) -> Goal:
        position_m = senses["door_handle_pos_m"] - front_m * _into(senses) + up_m * UP
        R_base_ee = pointing_along(_onto_open_drawer(senses), _across(senses))
        return Goal(position_m=position_m, R_base_ee=R_base_ee, gripper=CLOSED)

    while True:
        yield from reach(senses, lambda: ee_goal(0.1, up_m=0.2), within_m=0.04, within_rad=0.3)
        yield from reach(senses, lambda: ee_goal(0.08), within_m=0.03, max_steps=40)
        yield from reach(senses, lambda: ee_goal(-PRESS_M), within_m=0.0, max_steps=150)


def open_drawer(senses: Senses) -> Goals:
    """Pinch the handle from above and below and pull the drawer open; try again if the handle slips."""

    def ee_goal(*, back_m: float = GRIP_BACK_M, below_m: float = 0.0, out_m: float = 0.0, gripper: float) -> Goal:
        z, x = _at_handle(senses)
        position_m = _handle_m(senses) - out_m * _into(senses) - back_m * z - below_m * UP
        return Goal(position_m=position_m, R_base_ee=pointing_along(z, x), gripper=gripper)

    def low(back_m: float, out_m: float = 0.0) -> Goal:
        return ee_goal(back_m=back_m, below_m=BELOW_M, out_m=out_m, gripper=OPEN)

    while True:
        yield from reach(senses, lambda: low(0.1, out_m=0.1), within_m=0.04, within_rad=0.2)
        yield from reach(senses, lambda: low(0.08), within_m=0.015, max_steps=40)
        yield from reach(senses, lambda: low(GRIP_BACK_M), within_m=0.006, max_steps=25)
        yield from stay(senses, gripper=CLOSED, num_steps=CLOSING_STEPS)
        while senses.distance_m(ee_goal(gripper=CLOSED).position_m) < 0.05:
            yield ee_goal(out_m=AHEAD_M, gripper=CLOSED)
        yield from stay(senses, gripper=OPEN, num_steps=5)
        yield from reach(senses, lambda: low(0.1, out_m=0.05), within_m=0.03, max_steps=20)


def pointing_along(z: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return 3,3 `R_base_ee` of a gripper that points along z and opens along the part of x that is normal to z.

    Example:
        >>> pointing_along(np.array([0.0, 0.0, -1.0]), np.array([0.0, 1.0, 0.0]))  # straight down
        array([[ 0.,  1.,  0.],
               [ 1.,  0.,  0.],
               [ 0.,  0., -1.]])
    """
    x = _square_to(x, z)
    return np.stack([x, np.cross(z, x), z], axis=-1) + 0.0


def about(axis: np.ndarray, angle_rad: float) -> np.ndarray:
    """Return the 3x3 rotation about a unit axis (Rodrigues).

    Example:
        >>> about(np.array([0.0, 0.0, 1.0]), np.pi / 2).round(6) @ [1.0, 0.0, 0.0]
        array([0., 1., 0.])
    """
    x, y, z = axis
    K = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + np.sin(angle_rad) * K + (1.0 - np.cos(angle_rad)) * K @ K


def wrapped(angle_rad: float) -> float:
    """Return an angle in [-pi, pi).

    Example:
        >>> round(wrapped(5.5), 3)
        -0.783
    """
    return float((angle_rad + np.pi) % (2 * np.pi) - np.pi)


def _tuck(senses: Senses, R_base_ee: np.ndarray, start_m: np.ndarray) -> Goals:
    """Turn the gripper a little below where it started, so that gripper and wrist stay below the wall cabinets."""
    goal = Goal(position_m=start_m - TUCK_M * UP, R_base_ee=R_base_ee, gripper=OPEN)
    yield from reach(senses, lambda: goal, within_m=0.04, within_rad=0.25, max_steps=30)


def _into(senses: Senses) -> np.ndarray:
    """Return the unit vector into the task's fixture from its front."""
    return senses.rotation("fixture")[:, 1]


def _across(senses: Senses) -> np.ndarray:
    """Return the unit vector along the front of the task's fixture, to the left of who stands before it."""
    return -senses.rotation("fixture")[:, 0]


def _front(senses: Senses) -> np.ndarray:
    return -_into(senses)


def _tilted(senses: Senses, direction: np.ndarray) -> np.ndarray:
    """Return where to point for a push along a direction: into the fixture, and down as far as there is room."""
    down_rad = min(float(np.arccos(np.clip(direction @ _into(senses), -1.0, 1.0))), PRESSING_TILT_RAD)
    return _slanted(_into(senses), down_rad)


def _slanted(ahead: np.ndarray, down_rad: float) -> np.ndarray:
    """Return a horizontal direction turned down by an angle."""
    return np.cos(down_rad) * ahead - np.sin(down_rad) * UP


def _button_face(senses: Senses) -> np.ndarray:
    """Return the normal of the broad face of a flat button, the one that looks to the front or up."""
    n = senses.rotation("start_button")[:, np.argmin(senses["start_button_half_size_m"])]
    return np.copysign(1.0, n @ (UP - _into(senses))) * n


def _away_from_spout(senses: Senses) -> np.ndarray:
    """Return the unit vector from the spout to a handle next to it; zero if the handle is on top of the spout."""
    offset_m = float(_across(senses) @ (senses["handle_pos_m"] - senses["spout_axis_pos_m"]))
    return _across(senses) * (np.sign(offset_m) if abs(offset_m) > 0.02 else 0.0)


def _past_spout(senses: Senses) -> np.ndarray:
    """Return the pointing direction at the faucet's handle that keeps the forearm clear of the spout."""
    return _unit(_slanted(_into(senses), HANDLE_TILT_RAD) - HANDLE_YAW * _away_from_spout(senses))


def _along_spout(senses: Senses) -> np.ndarray:
    """Return the horizontal unit vector from the end of the spout to its axis."""
    return _square_to(senses["spout_axis_pos_m"] - senses["spout_pos_m"], UP)


def _spout_left_rad(senses: Senses) -> float:
    """Return how far the spout has to turn to the side that the instruction names; 30 degrees are enough."""
    side = 1.0 if senses.instruction.endswith("right") else -1.0
    return float(side * 0.7 - senses["spout_joint"][0])


def _onto_knob(senses: Senses) -> np.ndarray:
    """Return the direction along the knob's axis: from above, or from the front and a little from above."""
    axis = senses["knob_axis"]
    return _unit(np.copysign(1.0, axis @ (_into(senses) - UP)) * axis - KNOB_SLANT * UP)


def _handle_m(senses: Senses) -> np.ndarray:
    """Return where to pinch the handle of a drawer: in its middle, or nearer if that is far."""
    handle_m = senses["door_handle_pos_m"]
    aside_m = float(_across(senses) @ handle_m)
    nearer_m = float(np.clip(abs(aside_m) - FAR_M, 0.0, MOST_NEARER_M))
    return handle_m - np.sign(aside_m) * nearer_m * _across(senses)


def _at_handle(senses: Senses) -> tuple[np.ndarray, np.ndarray]:
    """Return the pointing and the opening direction at the handle of a drawer next to the robot.

    The gripper slants down as little as the shoulder allows, and turns away from the robot, the more the farther it
    reaches. Of the two ways to pinch, one stays within the limits of the last joint.
    """
    aside_m = float(_across(senses) @ senses["door_handle_pos_m"])
    side, yaw_rad = np.sign(aside_m), YAW_RAD_PER_M * max(abs(aside_m) - STRAIGHT_M, 0.0)
    ahead = np.cos(yaw_rad) * _into(senses) + np.sin(yaw_rad) * side * _across(senses)
    return _slanted(ahead, PINCH_TILT_RAD), -side * (np.cos(PINCH_TILT_RAD) * UP + np.sin(PINCH_TILT_RAD) * ahead)


def _onto_open_drawer(senses: Senses) -> np.ndarray:
    """Return the pointing direction at an open drawer's handle: straight down from `STEEP_FRAC` open on."""
    opened = float(np.clip(senses["door_open_frac"][0] / STEEP_FRAC, 0.0, 1.0))
    return _slanted(_into(senses), PUSHING_TILT_RAD + (np.pi / 2 - PUSHING_TILT_RAD) * opened)


def _square_to(v: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return the unit vector of the part of v that is square to a unit vector."""
    return _unit(v - (v @ n) * n)


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v)


def _knob(left_rad: Callable[[Senses], float]) -> Callable[[Senses], Goals]:
    return turn("knob", left_rad, _onto_knob, grip_on=knob_sides, lead_rad=KNOB_LEAD_RAD)


def _faucet(left_rad: Callable[[Senses], float]) -> Callable[[Senses], Goals]:
    return turn("handle", left_rad, _past_spout, clear_side=_away_from_spout)


EXPERTS: dict[str, Callable[[Senses], Goals]] = {
    "OpenDrawer": open_drawer,
    "CloseDrawer": close_drawer,
    "TurnOnStove": _knob(lambda senses: 0.8 - senses["knob_joint"][0]),
    "TurnOffStove": _knob(lambda senses: -wrapped(senses["knob_joint"][0])),
    "TurnOnSinkFaucet": _faucet(lambda senses: 0.52 - senses["handle_joint"][0]),
    "TurnOffSinkFaucet": _faucet(lambda senses: -senses["handle_joint"][0]),
    "TurnSinkSpout": turn_spout,
    "CoffeePressButton": press("start_button", lambda senses: senses["machine_on"][0] > 0, _button_face),
    "TurnOnMicrowave": press("start_button", lambda senses: senses["microwave_on"][0] > 0, _front),
    "TurnOffMicrowave": press("stop_button", lambda senses: senses["microwave_on"][0] == 0, _front),
}


class RobocasaExperts(ScriptedExperts):
    """The experts of RoboCasa, found by entry point."""

    def __init__(self) -> None:
        super().__init__(EXPERTS)
