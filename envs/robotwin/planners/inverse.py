"""Inverse kinematics of one arm: damped Gauss-Newton steps from many starts at once, and along a straight line.

In: a chain, a tool pose, joint positions to start from. Out: joint positions within the limits, nearest first.
Read next: `line.py`, which follows a straight line with it; `cpu.py`, the planner.

The damping is the squared error itself plus a small constant (Sugihara, "Solvability-unconcerned inverse kinematics by
the Levenberg-Marquardt method", 2011): far away steps are careful, near the solution they are Newton's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .chain import ArmChain

TOLERANCE = 1e-5
"""Largest distance in metres and largest angle in radians between the pose asked for and the one reached."""

NUM_STARTS = 32
"""Positions over the whole range that a search starts from, in addition to the current one."""

POSITION_WEIGHT = 3.0
"""Radians that weigh as much as one metre: about one over the length of the arm."""

_MIN_DAMPING = 1e-9
_MAX_STEP_RAD = 1.0
_MAX_ITERATIONS = 40
_SAME_BRANCH_RAD = 1e-3


@dataclass(frozen=True)
class Poses:
    """Tool poses in the chain's base, N of them: R [N, 3, 3] and p [N, 3] in metres."""

    R: np.ndarray
    p: np.ndarray

    def repeat(self, count: int) -> Poses:
        """Return every pose `count` times in a row."""
        return Poses(np.repeat(self.R, count, axis=0), np.repeat(self.p, count, axis=0))


def rotvec_rad(R: np.ndarray) -> np.ndarray:
    """Return axis times angle of rotations [N, 3, 3], lengths in [0, pi]; some axis for a turn by exactly pi.

    scipy's conversion, through quaternions, takes three to nine times as long, and this one runs in every iteration.
    """
    sines = 0.5 * np.stack([R[:, 2, 1] - R[:, 1, 2], R[:, 0, 2] - R[:, 2, 0], R[:, 1, 0] - R[:, 0, 1]], axis=1)
    sine = np.sqrt(np.einsum("ni,ni->n", sines, sines))
    cosine = 0.5 * (R[:, 0, 0] + R[:, 1, 1] + R[:, 2, 2] - 1)
    angle = np.arctan2(sine, cosine)
    flat = sine < 1e-9
    scale = np.where(flat, 1.0, angle / np.where(flat, 1.0, sine))
    vectors = sines * scale[:, None]
    for row in np.flatnonzero(flat & (cosine < 0)):
        column = np.argmax(np.diag(R[row]))
        axis = (R[row] + np.eye(3))[:, column]
        vectors[row] = np.pi * axis / np.linalg.norm(axis)
    return vectors


def solve(chain: ArmChain, targets: Poses, start_rad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return joint positions [N, J] near each start whose tool pose is the target, and whether each one is.

    Limits are not considered: angles are free to turn around.

    Args:
        chain: The arm.
        targets: N poses.
        start_rad: [N, J].
    """
    q = np.array(start_rad, dtype=np.float64)
    reached = np.zeros(len(q), dtype=bool)
    active = np.arange(len(q))
    for _ in range(_MAX_ITERATIONS):
        poses = chain.tool_poses(q[active])
        position = targets.p[active] - poses.p_base_tool_m
        turn = rotvec_rad(targets.R[active] @ poses.R_base_tool.transpose(0, 2, 1))
        here = (np.einsum("ni,ni->n", position, position) < TOLERANCE**2) & (
            np.einsum("ni,ni->n", turn, turn) < TOLERANCE**2
        )
        reached[active[here]] = True
        if here.all():
            break
        going = ~here
        active = active[going]
        q[active] += _steps(poses.jacobian[going], position[going], turn[going])
    return q, reached


def _steps(jacobian: np.ndarray, position: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Return one damped step per row, at most 1 rad long in its largest joint."""
    weighted = jacobian.copy()
    weighted[:, :3] *= POSITION_WEIGHT
    error = np.concatenate([POSITION_WEIGHT * position, turn], axis=1)
    transposed = weighted.transpose(0, 2, 1)
    damping = 0.5 * np.einsum("ni,ni->n", error, error) + _MIN_DAMPING
    normal = transposed @ weighted
    diagonal = np.arange(normal.shape[1])
    normal[:, diagonal, diagonal] += damping[:, None]
    step = np.linalg.solve(normal, transposed @ error[:, :, None])[:, :, 0]
    largest = np.abs(step).max(axis=1, keepdims=True)
    return step * np.minimum(1.0, _MAX_STEP_RAD / np.maximum(largest, 1e-300))


def nearest_turns(chain: ArmChain, q_rad: np.ndarray, near_rad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn each angle by whole turns to where it is nearest to `near_rad` within its limits; say which rows fit.

    Args:
        chain: The arm.
        q_rad: [N, J].
        near_rad: [J] or [N, J].
    """
    turn = 2 * np.pi
    wished = np.round((near_rad - q_rad) / turn)
    lowest, highest = np.ceil((chain.lower_rad - q_rad) / turn), np.floor((chain.upper_rad - q_rad) / turn)
    turns = np.clip(wished, lowest, np.maximum(highest, lowest))
    return q_rad + turn * turns, (lowest <= highest).all(axis=1)


class InverseKinematics:
    """Joint positions for a tool pose; the starts of the search are fixed, so that the same question has one answer.

    Args:
        chain: The arm.
    """

    def __init__(self, chain: ArmChain) -> None:
        self.chain = chain
        lower, upper = np.maximum(chain.lower_rad, -np.pi), np.minimum(chain.upper_rad, np.pi)
        self._starts_rad = np.random.RandomState(0).uniform(lower, upper, (NUM_STARTS, chain.num_joints))

    def nearest(self, targets: Poses, near_rad: np.ndarray) -> np.ndarray | None:
        """Return the solution [J] of one pose that Newton steps from `near_rad` [J] reach, if within the limits."""
        q, reached = solve(self.chain, targets, near_rad[None])
        q, fits = nearest_turns(self.chain, q, near_rad)
        return q[0] if reached[0] and fits[0] else None

    def branches(self, targets: Poses, near_rad: np.ndarray) -> list[np.ndarray]:
        """Return for each of N poses every solution found, [M, J], nearest to `near_rad` [J] first.

        The nearest is the one that a joint line reaches soonest: its joint with the longest way has the shortest.
        Each pose is searched from `near_rad` and from the fixed starts; M is 0 where nothing was found, which for the
        poses that a six-joint arm can reach is rare and for those out of reach is certain.
        """
        starts = np.concatenate([near_rad[None], self._starts_rad])
        rows = targets.repeat(len(starts))
        q, reached = solve(self.chain, rows, np.tile(starts, (len(targets.p), 1)))
        q, fits = nearest_turns(self.chain, q, near_rad)
        valid = (reached & fits).reshape(len(targets.p), -1)
        q = q.reshape(*valid.shape, -1)
        return [_distinct(q[row][valid[row]], near_rad) for row in range(len(q))]


def _distinct(q: np.ndarray, near_rad: np.ndarray) -> np.ndarray:
    """Return rows that differ, nearest to `near_rad` first: that with the shortest way of its largest joint."""
    kept: list[np.ndarray] = []
    for row in q[np.argsort(np.abs(q - near_rad).max(axis=1), kind="stable")]:
        if all(np.abs(row - other).max() > _SAME_BRANCH_RAD for other in kept):
            kept.append(row)
    return np.array(kept).reshape(-1, len(near_rad))
