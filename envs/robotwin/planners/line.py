"""Joint positions along a straight line of the tool.

In: a chain, joint positions at the start, the tool pose at the end. Out: joint positions that follow the line, or None.
Read next: `timing.py`, which moves along them.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from .chain import ArmChain
from .inverse import InverseKinematics, Poses, nearest_turns, rotvec_rad, solve

KNOT_SPACING_M = 0.01
KNOT_SPACING_RAD = 0.05
MIN_INTERVALS = 4
MAX_INTERVALS = 64

STRAIGHTNESS_M = 0.001
"""How far the tool may be from the line half-way between two knots; more knots are taken until this holds."""


def straight_line(inverse: InverseKinematics, start_rad: np.ndarray, target: Poses) -> np.ndarray | None:
    """Return joint positions [K, J] from `start_rad` [J] whose tool moves straight to one pose, turning evenly.

    None if the line leaves what the arm reaches or its limits, or passes a pose where the arm would have to jump.
    """
    chain = inverse.chain
    goal = inverse.nearest(target, start_rad)
    if goal is None:
        return None
    here = chain.tool_poses(start_rad[None])
    line = _Line(here.R_base_tool[0], here.p_base_tool_m[0], target)
    intervals = line.intervals
    while intervals <= MAX_INTERVALS:
        path = _follow(chain, line, start_rad, goal, intervals)
        if path is not None and line.largest_offset_m(chain, path) <= STRAIGHTNESS_M:
            return path
        intervals *= 2
    return None


class _Line:
    """Poses between two tool poses: position and rotation vector grow in proportion."""

    def __init__(self, R_start: np.ndarray, p_start_m: np.ndarray, target: Poses) -> None:
        self._R_start, self._p_start_m = R_start, p_start_m
        self._way_m = target.p[0] - p_start_m
        self._turn_rad = rotvec_rad((target.R[0] @ R_start.T)[None])[0]

    @property
    def intervals(self) -> int:
        """How many intervals between knots to begin with."""
        length = np.linalg.norm(self._way_m) / KNOT_SPACING_M
        turn = np.linalg.norm(self._turn_rad) / KNOT_SPACING_RAD
        return int(np.clip(np.ceil(max(length, turn)), MIN_INTERVALS, MAX_INTERVALS))

    def at(self, frac: np.ndarray) -> Poses:
        """Return the poses at fractions [N] of the way."""
        return Poses(
            Rotation.from_rotvec(frac[:, None] * self._turn_rad).as_matrix() @ self._R_start,
            self._p_start_m + frac[:, None] * self._way_m,
        )

    def largest_offset_m(self, chain: ArmChain, path: np.ndarray) -> float:
        """Return how far the tool is from the line at most, half-way between knots."""
        halves = (np.arange(len(path) - 1) + 0.5) / (len(path) - 1)
        reached = chain.tool_poses(0.5 * (path[1:] + path[:-1])).p_base_tool_m
        return float(np.linalg.norm(reached - self.at(halves).p, axis=1).max())


def _follow(
    chain: ArmChain, line: _Line, start_rad: np.ndarray, goal_rad: np.ndarray, intervals: int
) -> np.ndarray | None:
    """Return joint positions at evenly spaced knots, each near its neighbours; the ends are those given."""
    frac = np.linspace(0, 1, intervals + 1)
    guess = start_rad + frac[:, None] * (goal_rad - start_rad)
    inner, reached = solve(chain, line.at(frac[1:-1]), guess[1:-1])
    inner, fits = nearest_turns(chain, inner, guess[1:-1])
    if not (reached.all() and fits.all()):
        return None
    return np.concatenate([start_rad[None], inner, goal_rad[None]])
