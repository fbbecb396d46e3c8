"""Whether a server's numbers can be what its adapter says: ranges by layout, and what its metadata states.

In: actions of the env; metadata. Out: nothing, or a `BadMessage`.
Read next: `starts.py`, which compares actions with the measured state; `policy.py`, which looks before the first step.

Ranges find numbers that no action of the layout can have: poses taken for changes, degrees, millimetres. They do not
find changes taken for joint angles, another order of a quaternion, or metres taken for units of 0.05 m: all of these
are small numbers, which `starts.py` finds. Neither finds an axis that points elsewhere, or two joints that are
exchanged near 0: what numbers of the right form mean is then the server's word alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from baselines.remote.adapter import Adapter
from evalkit.contracts.msgpack_arrays import BadMessage
from evalkit.contracts.spec import EE_POSE_BASE, GRIPPER_OVERSHOOT, JOINT_POSITION, LARGEST_OSC, OSC_DELTA_BASE
from evalkit.contracts.types import ARM_ACTION, GRIPPER, ROTVEC_RAD, TRANSLATION

LARGEST_JOINT_RAD = 2 * np.pi
LARGEST_POSITION_M = 2.5
GRIPPER_RANGE = (-GRIPPER_OVERSHOOT, 1 + GRIPPER_OVERSHOOT)


def check_numbers(actions: np.ndarray, adapter: Adapter) -> None:
    """Raise BadMessage if a number lies outside what its layout can mean.

    Args:
        actions: K,14, in the layout of the adapter.
        adapter: The adapter.
    """
    layout = adapter.actions.layout
    for arm in adapter.env.arms:
        numbers = actions[:, ARM_ACTION[arm]].astype(np.float64)
        if layout == OSC_DELTA_BASE:
            _check(numbers, arm, "translation and rotation in units of 0.05 m and 0.5 rad", -LARGEST_OSC, LARGEST_OSC)
            continue
        _check(numbers[:, GRIPPER:], arm, "open fraction of the gripper", *GRIPPER_RANGE)
        if layout == JOINT_POSITION:
            _check(numbers[:, :GRIPPER], arm, "joint angles in rad", -LARGEST_JOINT_RAD, LARGEST_JOINT_RAD)
        if layout == EE_POSE_BASE:
            _check(numbers[:, TRANSLATION], arm, "positions in m", -LARGEST_POSITION_M, LARGEST_POSITION_M)
            _check(numbers[:, ROTVEC_RAD], arm, "rotation vectors in rad", -2 * np.pi, 2 * np.pi)


def _check(numbers: np.ndarray, arm: str, what: str, low: float, high: float) -> None:
    if numbers.min() < low or numbers.max() > high:
        raise BadMessage(
            f"{arm} arm: {what} must lie within {low:.3g} and {high:.3g}, got {numbers.min():.3g} to "
            f"{numbers.max():.3g}, so the server answers in another layout or unit"
        )


def check_metadata(metadata: Mapping[str, Any], adapter: Adapter, *, chunk_len: int) -> None:
    """Raise BadMessage if a server's metadata contradicts the adapter; what it does not state is not checked.

    The names are those of vLLM-Omni's `policy_server_config`.
    """
    problems = list(_contradictions(metadata, adapter, chunk_len))
    if problems:
        raise BadMessage("; ".join(problems))


def _contradictions(metadata: Mapping[str, Any], adapter: Adapter, chunk_len: int) -> Iterator[str]:
    actions = adapter.actions
    expected = {"action_horizon": chunk_len, "action_dim": actions.num_columns}
    if len(actions.fields) > 1:
        del expected["action_dim"]  # servers state it for a single array only
    for name, number in expected.items():
        if type(found := metadata.get(name)) is int and found != number:
            yield f"its metadata states {name} {found}, the adapter expects {number}"
    most = metadata.get("max_action_horizon")
    if type(most) is int and most < chunk_len:
        yield f"its metadata states max_action_horizon {most}, the adapter expects {chunk_len}"
    space = metadata.get("action_space")
    if isinstance(space, str) and space not in (actions.layout, *actions.space_names):
        names = " or ".join((actions.layout, *actions.space_names))
        yield f"its metadata states action_space '{space}', the adapter expects {names}"
    if metadata.get("needs_session_id") and adapter.session_key is None:
        yield "its metadata asks for a session id, which the adapter does not send"
    size = metadata.get("image_resolution")
    sizes = {image.hw_px or adapter.env.image_hw_px for image in adapter.images} - {None}
    if isinstance(size, list | tuple) and len(size) == 2 and sizes and sizes != {tuple(size)}:
        yield f"its metadata states image_resolution {list(size)}, the adapter sends {sorted(map(list, sizes))}"  # type: ignore[arg-type]
