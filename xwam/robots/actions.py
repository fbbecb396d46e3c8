"""Scaling of states and actions between physical units and the numbers of the network.

In: states S = 16 and actions A = 14 in metres, quaternions and the bench's action units. Out: numbers of about -1 to
1, and the inverse; an absent arm is zero on both sides.
Read next: `xwam/policy.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from evalkit.contracts.types import ARM_ACTION, ARM_PROPRIO, GRIPPER, QUAT_WXYZ, ROTVEC_RAD
from xwam.config import Bounds


def bounds_from_release(statistics: Mapping[str, Any], arms: Sequence[str]) -> Bounds:
    """Return the bounds behind released quantile statistics.

    Args:
        statistics: `q01` and `q99`, each {`proprio_left_ee_xyz`, `action_left_ee_xyz`, `action_left_ee_axisangle`,
            the same for `right`, `gripper_pos`, `gripper_action`}.
        arms: Arms that exist; those absent get bounds of zero.

    Raises:
        ValueError: If an arm that exists has no statistics.
    """
    limits = [_side(statistics, side, arms, quat) for side, quat in (("q01", -1.0), ("q99", 1.0))]
    (proprio_low, action_low), (proprio_high, action_high) = limits
    return Bounds(proprio_low=proprio_low, proprio_high=proprio_high, action_low=action_low, action_high=action_high)


def statistics_from_bounds(bounds: Bounds, arms: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """Return bounds in the layout of released statistics; the inverse of `bounds_from_release`."""
    sides = {"q01": (bounds.proprio_low, bounds.action_low), "q99": (bounds.proprio_high, bounds.action_high)}
    statistics: dict[str, dict[str, list[float]]] = {}
    for side, (proprio, action) in sides.items():
        values: dict[str, list[float]] = {}
        for arm in arms:
            state, delta = proprio[ARM_PROPRIO[arm]], action[ARM_ACTION[arm]]
            values[f"proprio_{arm}_ee_xyz"] = list(state[:3])
            values[f"action_{arm}_ee_xyz"] = list(delta[:3])
            values[f"action_{arm}_ee_axisangle"] = list(delta[ROTVEC_RAD])
            values["gripper_pos"], values["gripper_action"] = [state[7]], [delta[GRIPPER]]
        statistics[side] = values
    return statistics


def training_bounds(
    statistics: Mapping[str, Any], arms: Sequence[str], *, raw: bool, least_action: float = 0.0
) -> Bounds:
    """Return the bounds that a model is trained and run with.

    Args:
        statistics: As the command `xwam statistics` writes them, or as a released checkpoint holds them.
        arms: Arms that exist.
        raw: Whether actions are commands of the controller; its gripper command is -1 or 1 and stays as it is,
            independent of the quantiles.
        least_action: Smallest bound of an action, so that tiny motions are not scaled up.

    Raises:
        ValueError: If the statistics lack an entry, or an entry has too few or too many numbers.
    """
    bounds = bounds_from_release(statistics, arms)
    low, high = list(bounds.action_low), list(bounds.action_high)
    for arm in arms:
        columns = range(*ARM_ACTION[arm].indices(14))
        for column in columns:
            low[column], high[column] = min(0.0 - least_action, low[column]), max(least_action, high[column])
        if raw:
            low[columns[-1]], high[columns[-1]] = -1.0, 1.0
    return replace(bounds, action_low=tuple(low), action_high=tuple(high))


def _side(
    statistics: Mapping[str, Any], side: str, arms: Sequence[str], quat: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    proprio, action = np.zeros(16), np.zeros(14)
    for arm in arms:

        def numbers(name: str, count: int) -> list[float]:
            return _numbers(statistics, side, name, count, arms)

        proprio[ARM_PROPRIO[arm]] = [*numbers(f"proprio_{arm}_ee_xyz", 3), *[quat] * 4, *numbers("gripper_pos", 1)]
        rotvec = numbers(f"action_{arm}_ee_axisangle", 3)
        action[ARM_ACTION[arm]] = [*numbers(f"action_{arm}_ee_xyz", 3), *rotvec, *numbers("gripper_action", 1)]
    return tuple(proprio.tolist()), tuple(action.tolist())


def _numbers(statistics: Mapping[str, Any], side: str, name: str, count: int, arms: Sequence[str]) -> list[float]:
    try:
        entry = statistics[side][name]
    except (KeyError, TypeError) as error:
        raise ValueError(f"The statistics hold no '{name}' under '{side}', which arms {tuple(arms)} need.") from error
    try:
        values = np.asarray(entry, np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.shape != (count,) or not np.isfinite(values).all():
        raise ValueError(f"The statistics must hold {count} finite numbers in '{name}' under '{side}', got {entry}.")
    return values.tolist()


def normalise(
    values: np.ndarray, low: Sequence[float], high: Sequence[float], *, dtype: type[np.floating] = np.float64
) -> np.ndarray:
    """Return 2 (x - low) / (high - low) - 1 as float32; numbers without a range (an absent arm) give 0.

    Args:
        values: Values, ...,X.
        low: X lowest values; they become -1.
        high: X highest values; they become 1.
        dtype: Type of the computation. The released loader of training data computes in float32.

    Example:
        >>> normalise(np.array([0.0, 5.0, 7.0]), (-1.0, 0.0, 0.0), (1.0, 10.0, 0.0)).tolist()
        [0.0, 0.0, 0.0]
    """
    bottom = np.asarray(low, dtype)
    span = np.asarray(high, dtype) - bottom
    scaled = 2 * (np.asarray(values, dtype) - bottom) / np.where(span > 0, span, dtype(1)) - 1
    return np.where(span > 0, scaled, dtype(0)).astype(np.float32)


def denormalise(values: np.ndarray, low: Sequence[float], high: Sequence[float]) -> np.ndarray:
    """Return low + (x + 1) / 2 * (high - low) as float32, the inverse of `normalise`; absent arms give 0.

    Example:
        >>> denormalise(np.array([0.0, 1.0, 0.3]), (-1.0, 0.0, 0.0), (1.0, 10.0, 0.0)).tolist()
        [0.0, 10.0, 0.0]
    """
    low_, span = np.asarray(low, np.float64), np.subtract(high, low)
    return np.where(span > 0, low_ + (np.asarray(values, np.float64) + 1) / 2 * span, 0.0).astype(np.float32)


def with_quaternions_near(proprio: np.ndarray, arms: Sequence[str], side_wxyz: Sequence[float]) -> np.ndarray:
    """Return states whose quaternions have the sign of a given one.

    Of q and -q, which are one rotation, that is the one whose product with the given one is not negative. Benches
    give w >= 0; an end effector that points down has a w of about 0, so that all four numbers would often jump.

    Example:
        >>> state = np.float32([0, 0, 0, 0.1, -0.7, -0.7, 0, 1] + [0] * 8)
        >>> with_quaternions_near(state, ["left"], (0.0, 1.0, 1.0, 0.0))[3:7].round(1).tolist()
        [-0.10000000149011612, 0.699999988079071, 0.699999988079071, -0.0]
    """
    states = np.array(proprio)
    for arm in arms:
        columns = ARM_PROPRIO[arm].start + np.arange(8)[QUAT_WXYZ]
        quat = states[..., columns]
        away = np.sum(quat * np.asarray(side_wxyz, quat.dtype), axis=-1, keepdims=True) < 0
        states[..., columns] = np.where(away, -quat, quat)
    return states


def tidy_quaternions(proprio: np.ndarray, arms: Sequence[str]) -> np.ndarray:
    """Return states whose quaternions are unit with w >= 0; one that is nearly zero becomes no rotation."""
    tidy = np.array(proprio, np.float64)
    for arm in arms:
        columns = ARM_PROPRIO[arm].start + np.arange(8)[QUAT_WXYZ]
        quat = tidy[..., columns]
        length = np.linalg.norm(quat, axis=-1, keepdims=True)
        quat = np.where(length > 1e-6, quat / np.maximum(length, 1e-6), [1.0, 0.0, 0.0, 0.0])
        tidy[..., columns] = np.where(quat[..., :1] < 0, -quat, quat)
    return tidy.astype(np.float32)
