"""Actions of one place used at another one, and mirrored: the same motion, relative to where the robot is.

In: actions of a chunk, and the states from which they start. Out: actions of the same layout.
Read next: `choice.py`, which asks for them.

Letters: K actions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evalkit.contracts import plugins
from evalkit.contracts.errors import EvalkitError
from evalkit.contracts.recording import DataSetBench
from evalkit.contracts.spec import EE_POSE_BASE, OSC_DELTA_BASE
from evalkit.contracts.types import ARM_ACTION, ARM_PROPRIO, QUAT_WXYZ, ROTVEC_RAD, TRANSLATION
from evalkit.dataset.axes import SAME_AXES, Axes, rotation_from_wxyz

LEFT_IN_DATA = np.array([0.0, 1.0, 0.0])
"""The robot's left in the base of the data sets, whose x points forward and whose z points up."""


class NoSuchMotion(ValueError):
    """Actions that cannot be moved or mirrored; the sentence says why."""


def lateral_axis(bench: str) -> np.ndarray:
    """Return the unit vector from right to left in a bench's base frame: y, for RoboTwin x (negative).

    A bench that is not installed, or does not state its axes, has those of the data sets.
    """
    try:
        plugin = plugins.load_bench(bench)
        axes: Axes = plugin.dataset_axes() if isinstance(plugin, DataSetBench) else SAME_AXES
    except EvalkitError:
        axes = SAME_AXES
    return np.asarray(axes.R_modelbase_simbase).T @ LEFT_IN_DATA


def moved(
    actions: np.ndarray, proprio_from: np.ndarray, proprio_to: np.ndarray, arms: Sequence[str], layout: str
) -> np.ndarray:
    """Return actions, K,14 float32, that make the same motion from another state.

    Deltas stay as they are. Absolute poses keep their translation and rotation from the state at their start, both
    along the axes of the base. Grippers stay as they are.

    Args:
        actions: K,14.
        proprio_from: 16 numbers, the state at which they started.
        proprio_to: 16 numbers, the state at which they start now.
        arms: Arms that exist.
        layout: Action layout of the env.

    Raises:
        NoSuchMotion: If the layout has neither deltas nor poses of the end effector.

    Example:
        >>> start, now, action = np.zeros(16), np.zeros(16), np.zeros((1, 14))
        >>> start[3] = now[3] = 1.0
        >>> now[0], action[0, 0] = 0.5, 0.1
        >>> float(moved(action, start, now, ["left"], "ee_pose_base")[0, 0])
        0.6000000238418579
    """
    return _changed(actions, proprio_from, proprio_to, arms, layout, np.eye(3))


def mirrored(
    actions: np.ndarray, proprio: np.ndarray, arms: Sequence[str], layout: str, lateral: np.ndarray
) -> np.ndarray:
    """Return actions, K,14 float32, whose motion from the present state is mirrored left to right.

    Of each arm's motion in the base frame, the translation along the lateral axis changes its sign. A rotation vector
    is no arrow: its part along the lateral axis stays, the two other parts change their sign. With y to the left,
    (x, y, z) becomes (x, -y, z), and the rotation vector (x, y, z) becomes (-x, y, -z). Each arm keeps its own motion;
    grippers stay as they are.

    Args:
        actions: K,14.
        proprio: 16 numbers, the state at their start.
        arms: Arms that exist.
        layout: Action layout of the env.
        lateral: Unit vector from right to left in the base frame, see `lateral_axis`.

    Raises:
        NoSuchMotion: If the layout has neither deltas nor poses of the end effector.

    Example:
        >>> action = np.zeros((1, 14))
        >>> action[0, :6] = [1, 2, 3, 4, 5, 6]
        >>> mirrored(action, np.zeros(16), ["left"], "osc_delta_base", LEFT_IN_DATA)[0, :6].tolist()
        [1.0, -2.0, 3.0, -4.0, 5.0, -6.0]
    """
    mirror = np.eye(3) - 2.0 * np.outer(lateral, lateral)
    return _changed(actions, proprio, proprio, arms, layout, mirror)


def _changed(
    actions: np.ndarray,
    proprio_from: np.ndarray,
    proprio_to: np.ndarray,
    arms: Sequence[str],
    layout: str,
    M: np.ndarray,
) -> np.ndarray:
    """Return actions whose translations, from their start on, are mapped by M, and rotation vectors by det(M) M."""
    if layout not in (OSC_DELTA_BASE, EE_POSE_BASE):
        raise NoSuchMotion(f"actions of the layout {layout} say nothing of the end effector's motion")
    M_rotvec = np.linalg.det(M) * M
    changed = np.array(actions, np.float64)
    for arm in arms:
        action = changed[:, ARM_ACTION[arm]]  # a view
        if layout == OSC_DELTA_BASE:
            action[:, TRANSLATION] = action[:, TRANSLATION] @ M.T
            action[:, ROTVEC_RAD] = action[:, ROTVEC_RAD] @ M_rotvec.T
        else:
            _change_poses(action, proprio_from[ARM_PROPRIO[arm]], proprio_to[ARM_PROPRIO[arm]], M, M_rotvec)
    return changed.astype(np.float32)


def _change_poses(
    action: np.ndarray, state_from: np.ndarray, state_to: np.ndarray, M: np.ndarray, M_rotvec: np.ndarray
) -> None:
    """Change the poses of one arm, K,7, in place."""
    from scipy.spatial.transform import Rotation

    start, end = (rotation_from_wxyz(state[QUAT_WXYZ].astype(np.float64)) for state in (state_from, state_to))
    turns = Rotation.from_rotvec(action[:, ROTVEC_RAD]) * start.inv()
    action[:, TRANSLATION] = state_to[:3] + (action[:, TRANSLATION] - state_from[:3]) @ M.T
    action[:, ROTVEC_RAD] = (Rotation.from_rotvec(turns.as_rotvec() @ M_rotvec.T) * end).as_rotvec()
