"""One expert a RoboCasa task: buttons are pressed, handles and knobs are pinched and taken the way they move.

In: senses, with the fixture's state in the base frame. Out: goals of the hand, one a control step.
Read next: `motion.py` for the words; `envs/robocasa/tasks.py` for what each task tells; `experts.py`, robosuite's.

The base does not move. Where the hand is to go follows from the published boxes and joint axes alone, at every step
anew, so that a handle that moves, slips or was missed is simply where it now is. What an expert knows beside that is
how to hold the hand: low counters, wall cabinets and the spout leave the forearm little room.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from baselines.scripted.motion import CLOSED, OPEN, UP, Goal, Goals, ScriptedExperts, Senses, reach, stay

Direction = Callable[[Senses], np.ndarray]
"""A unit vector in the base frame."""

Grip = Callable[[Senses, str], tuple[np.ndarray, np.ndarray]]
"""Where to pinch a part, and the direction in which the fingers close on it there."""

HOVER_M = 0.12
"""Distance in front of a button or handle at which the hand gets into line."""

ASIDE_M = 0.1
"""Distance at which the hand passes the spout on its way to the handle beside it."""

AWAY_M = 0.24
"""Distance to which the hand backs off; RoboCasa counts a button as pressed once the hand is 0.15 m away."""

CLOSING_STEPS = 8
"""Control steps for the fingers to close and press."""

PRESS_M = 0.05
"""How far ahead the hand is sent into a button or a drawer."""

AHEAD_M, MOST_AHEAD_RAD = 0.06, 0.9
"""How far ahead of a lever's end the hand is sent along its arc: the force with which it turns."""

LEVER_LEAD_RAD, KNOB_LEAD_RAD = 0.2, 0.6
"""How far ahead of a lever or knob the hand itself is turned."""

TUCK_M = 0.1
"""How far the hand goes down before it sets out."""

PRESSING_TILT_RAD = 0.6
"""How far below the horizontal a hand that presses points at most: wall cabinets leave no room for more."""

SPOUT_TILT_RAD, HANDLE_TILT_RAD = 0.1, 0.45
"""How far below the horizontal a hand at the sink points; the wrist's sixth joint stops it from pointing level."""

HANDLE_YAW = 0.4
"""How far the hand at the faucet's handle turns to the spout, a tangent: its forearm then passes beside the spout."""

KNOB_SLANT = 0.3
"""How far a hand at a knob at the front points down, a tangent, for the wrist's sake."""

PUSHING_TILT_RAD, PULLING_TILT_RAD = 0.7, 0.8
"""How far below the horizontal a hand at a closed drawer points: below the counter's edge."""


def press(button: str, done: Callable[[Senses], bool], outward: Direction) -> Callable[[Senses], Goals]:
    """Return an expert that pushes a button with closed fingers and backs off, again if it did not work.

    Args:
        button: Its name in the published state.
        done: Whether it was pressed.
        outward: The normal of its face.
    """

    def expert(senses: Senses) -> Goals:
        n = outward(senses)
        pointing = _tilted(senses, -n)
        R_base_ee = hand_along(pointing, _across(senses))

        def off_m() -> float:
            return float(n @ (senses.position_m - senses[f"{button}_pos_m"]))

        def hand(off_m: float, back_m: float = 0.0) -> Goal:
            position_m = senses[f"{button}_pos_m"] + off_m * n - back_m * pointing
            return Goal(position_m=position_m, R_base_ee=R_base_ee, gripper=CLOSED)

        while True:
            yield from reach(senses, lambda: hand(HOVER_M / 2, HOVER_M / 2), within_m=0.01)
            for step in reach(senses, lambda: hand(off_m() - PRESS_M), within_m=0.0, max_steps=40):
                if done(senses):
                    break
                yield step
            yield from reach(senses, lambda: hand(0.0, AWAY_M), within_m=0.03, max_steps=25)

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
    """Return an expert that pinches a lever or knob and takes it round its axis, again if it slips.

    Args:
        name: The part, whose joint and box the task publishes.
        left_rad: How far it still has to turn, signed.
        pointing: Where the hand points.
        clear_side: The side from which the hand comes into line, or zero.
        grip_on: Where and how to pinch.
        lead_rad: How far ahead the hand is turned.
    """

    def expert(senses: Senses) -> Goals:
        def hand(off_m: float = 0.0, *, side: float = 0.0, gripper: float = CLOSED) -> Goal:
            grip_m, closing = grip_on(senses, name)
            axis, anchor_m = senses[f"{name}_axis"], senses[f"{name}_axis_pos_m"]
            z = pointing(senses)
            x = np.copysign(1.0, closing @ senses.R_base_ee[:, 0]) * closing  # the half turn that is nearer
            radius_m = float(np.linalg.norm(np.cross(axis, grip_m - anchor_m)))
            ahead_rad = min(AHEAD_M / max(radius_m, 0.01), MOST_AHEAD_RAD)
            return Goal(
                position_m=anchor_m + about(axis, side * ahead_rad) @ (grip_m - off_m * z - anchor_m),
                R_base_ee=about(axis, side * min(ahead_rad, lead_rad)) @ hand_along(z, x),
                gripper=gripper,
            )

        def aside() -> Goal:
            goal = hand(HOVER_M, gripper=OPEN)
            return replace(goal, position_m=goal.position_m + ASIDE_M * clear_side(senses))

        yield from _tuck(senses, hand().R_base_ee)
        while True:
            yield from reach(senses, aside, within_m=0.03, within_rad=0.2)
            yield from reach(senses, lambda: hand(HOVER_M, gripper=OPEN), within_m=0.015, within_rad=0.2)
            yield from reach(senses, lambda: hand(gripper=OPEN), within_m=0.01, max_steps=40)
            yield from stay(senses, gripper=CLOSED, num_steps=CLOSING_STEPS)
            while senses.distance_m(hand().position_m) < 0.06:
                yield hand(side=float(np.sign(left_rad(senses))))
            yield from stay(senses, gripper=OPEN, num_steps=5)
            yield from reach(senses, lambda: hand(HOVER_M, gripper=OPEN), within_m=0.03, max_steps=20)

    return expert


def close_drawer(senses: Senses) -> Goals:
    """Come down in front of the handle with closed fingers and push it home."""

    def hand(front_m: float, up_m: float = 0.0) -> Goal:
        z, _ = _at_drawer(senses, PUSHING_TILT_RAD, steep_frac=2 / 3)
        position_m = senses["door_handle_pos_m"] - front_m * _into(senses) + up_m * UP
        return Goal(position_m=position_m, R_base_ee=hand_along(z, _across(senses)), gripper=CLOSED)

    while True:
        yield from reach(senses, lambda: hand(0.1, up_m=0.2), within_m=0.04, within_rad=0.3)
        yield from reach(senses, lambda: hand(0.08), within_m=0.03, max_steps=40)
        yield from reach(senses, lambda: hand(-PRESS_M), within_m=0.0, max_steps=150)


def open_drawer(senses: Senses) -> Goals:
    """Pinch the handle with one finger behind it and draw it out."""

    def hand(front_m: float = 0.0, back_m: float = 0.0, *, gripper: float = CLOSED) -> Goal:
        z, x = _at_drawer(senses, PULLING_TILT_RAD, steep_frac=1.0)
        position_m = senses["door_handle_pos_m"] - front_m * _into(senses) - back_m * z
        return Goal(position_m=position_m, R_base_ee=hand_along(z, x), gripper=gripper)

    while True:
        yield from reach(senses, lambda: hand(0.1, 0.1, gripper=OPEN), within_m=0.04, within_rad=0.2)
        yield from reach(senses, lambda: hand(0.0, 0.1, gripper=OPEN), within_m=0.01)
        yield from reach(senses, lambda: hand(gripper=OPEN), within_m=0.01, max_steps=40)
        yield from stay(senses, gripper=CLOSED, num_steps=CLOSING_STEPS)
        while senses.distance_m(hand().position_m) < 0.05:
            yield hand(AHEAD_M)
        yield from stay(senses, gripper=OPEN, num_steps=5)
        yield from reach(senses, lambda: hand(0.0, 0.12, gripper=OPEN), within_m=0.03, max_steps=20)


def hand_along(z: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return 3,3 `R_base_ee` of a hand that points along z and opens along x, as far as x is square to z.

    Example:
        >>> hand_along(np.array([0.0, 0.0, -1.0]), np.array([0.0, 1.0, 0.0]))  # straight down, as `motion.down(0.0)`
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


def _tuck(senses: Senses, R_base_ee: np.ndarray) -> Goals:
    """Turn the hand where it is, a little lower, so that neither it nor the wrist meets the wall cabinets later."""
    goal = Goal(position_m=senses.position_m - TUCK_M * UP, R_base_ee=R_base_ee, gripper=OPEN)
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
    """Return where to point the hand to push along a direction: into the fixture, and down as far as there is room."""
    down_rad = min(float(np.arccos(np.clip(direction @ _into(senses), -1.0, 1.0))), PRESSING_TILT_RAD)
    return _slanted(_into(senses), down_rad)


def _slanted(ahead: np.ndarray, down_rad: float) -> np.ndarray:
    """Return a horizontal direction turned down by an angle."""
    return np.cos(down_rad) * ahead - np.sin(down_rad) * UP


def _button_face(senses: Senses) -> np.ndarray:
    """Return the normal of the broad face of a flat button, the one that looks to the front or up."""
    n = senses.rotation("start_button")[:, np.argmin(senses["start_button_half_size_m"])]
    return np.copysign(1.0, n @ (UP - _into(senses))) * n


def _beside_spout(senses: Senses) -> np.ndarray:
    """Return the unit vector from the spout to a handle beside it; zero if it is on top of the spout."""
    offset_m = float(_across(senses) @ (senses["handle_pos_m"] - senses["spout_axis_pos_m"]))
    return _across(senses) * (np.sign(offset_m) if abs(offset_m) > 0.02 else 0.0)


def _past_spout(senses: Senses) -> np.ndarray:
    """Return where to point the hand to take the faucet's handle with the forearm clear of the spout."""
    return _unit(_slanted(_into(senses), HANDLE_TILT_RAD) - HANDLE_YAW * _beside_spout(senses))


def _along_spout(senses: Senses) -> np.ndarray:
    """Return the direction half way between into the fixture and along the spout from its end."""
    along = _square_to(senses["spout_axis_pos_m"] - senses["spout_pos_m"], UP)
    return _slanted(_unit(along + _into(senses)), SPOUT_TILT_RAD)


def _spout_left_rad(senses: Senses) -> float:
    """Return how far the spout has to turn to the side that the instruction names; 30 degrees are enough."""
    side = 1.0 if senses.instruction.endswith("right") else -1.0
    return float(side * 0.7 - senses["spout_joint"][0])


def _onto_knob(senses: Senses) -> np.ndarray:
    """Return the direction along the knob's axis: from above, or from the front and a little from above."""
    axis = senses["knob_axis"]
    return _unit(np.copysign(1.0, axis @ (_into(senses) - UP)) * axis - KNOB_SLANT * UP)


def _at_drawer(senses: Senses, least_rad: float, *, steep_frac: float) -> tuple[np.ndarray, np.ndarray]:
    """Return where a hand at a drawer's handle points and how it opens to close on it from before and behind.

    It slants in at the handle of a closed drawer and points straight down at one that is `steep_frac` open.
    """
    opened = float(np.clip(senses["door_open_frac"][0] / steep_frac, 0.0, 1.0))
    down_rad = least_rad + (np.pi / 2 - least_rad) * opened
    return _slanted(_into(senses), down_rad), np.cos(down_rad) * UP + np.sin(down_rad) * _into(senses)


def _square_to(v: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return the unit vector of the part of v that is square to a unit vector."""
    return _unit(v - (v @ n) * n)


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v)


def _knob(left_rad: Callable[[Senses], float]) -> Callable[[Senses], Goals]:
    return turn("knob", left_rad, _onto_knob, grip_on=knob_sides, lead_rad=KNOB_LEAD_RAD)


def _faucet(left_rad: Callable[[Senses], float]) -> Callable[[Senses], Goals]:
    return turn("handle", left_rad, _past_spout, clear_side=_beside_spout)


EXPERTS: dict[str, Callable[[Senses], Goals]] = {
    "OpenDrawer": open_drawer,
    "CloseDrawer": close_drawer,
    "TurnOnStove": _knob(lambda senses: 0.8 - senses["knob_joint"][0]),
    "TurnOffStove": _knob(lambda senses: -wrapped(senses["knob_joint"][0])),
    "TurnOnSinkFaucet": _faucet(lambda senses: 0.52 - senses["handle_joint"][0]),
    "TurnOffSinkFaucet": _faucet(lambda senses: -senses["handle_joint"][0]),
    "TurnSinkSpout": turn("spout", _spout_left_rad, _along_spout),
    "CoffeePressButton": press("start_button", lambda senses: senses["machine_on"][0] > 0, _button_face),
    "TurnOnMicrowave": press("start_button", lambda senses: senses["microwave_on"][0] > 0, _front),
    "TurnOffMicrowave": press("stop_button", lambda senses: senses["microwave_on"][0] == 0, _front),
}


class RobocasaExperts(ScriptedExperts):
    """The experts of RoboCasa, found by entry point."""

    def __init__(self) -> None:
        super().__init__(EXPERTS)
