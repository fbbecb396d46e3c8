"""The conversions that adapters are made of: images, states, rotations, grippers, actions.

In: an observation and an adapter; a server's answer and an adapter. Out: a message; actions of the env.
Read next: `adapter.py` for the words; `plausible.py`, which looks at the numbers.

Letters: K actions of a chunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines.remote.adapter import ActionPart, Actions, Adapter, ImageField, Key, StatePart
from evalkit.contracts.geometry import wxyz_from_xyzw, xyzw_from_wxyz
from evalkit.contracts.msgpack_arrays import BadMessage
from evalkit.contracts.spec import JOINT_POSITION, OSC_DELTA_BASE, OSC_STEP_M, OSC_STEP_RAD
from evalkit.contracts.types import (
    ACTION_DIM,
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

QUAT_LENGTH_TOLERANCE = 0.1
"""Largest distance of a quaternion's length from 1: networks predict their four numbers one by one."""


def message(adapter: Adapter, observation: Observation, *, session: str, noise_seed: int) -> dict[str, Any]:
    """Return what the server is sent: images, states, the sentence, and nothing that names task or seed.

    Args:
        adapter: The adapter.
        observation: The current observation.
        session: Random id of the episode; sent if the adapter names a key for it.
        noise_seed: Seed of the request's noise; sent if the adapter names a key for it.
    """
    body: dict[str, Any] = {}
    for constant in adapter.constants:
        _put(body, constant.key, constant.value)
    for image in adapter.images:
        _put(body, image.key, _timed(adapter, image_array(image, observation.rgb[image.view])))
    for state in adapter.states:
        numbers = np.concatenate([state_numbers(part, observation) for part in state.parts])
        _put(body, state.key, _timed(adapter, numbers.astype(state.dtype)))
    for prompt in adapter.prompts:
        text = observation.instruction
        _put(body, prompt.key, [text] if prompt.form == "list" else text)
    if adapter.session_key is not None:
        body[adapter.session_key] = session
    if adapter.seed_key is not None:
        body[adapter.seed_key] = noise_seed
    return body


def image_array(field: ImageField, rgb_hwc_u8: np.ndarray) -> np.ndarray:
    """Return an image as a field wants it, uint8, contiguous."""
    image = rgb_hwc_u8
    if field.hw_px is not None and image.shape[:2] != field.hw_px:
        image = (resize_with_pad if field.resize == "pad" else resize)(image, field.hw_px)
    if field.axes == "chw":
        image = image.transpose(2, 0, 1)
    return np.ascontiguousarray(image)


def resize(rgb_hwc_u8: np.ndarray, hw_px: tuple[int, int]) -> np.ndarray:
    """Return an image in another size, Pillow's bilinear filter (which averages where it shrinks)."""
    from PIL import Image

    height, width = hw_px
    return np.asarray(Image.fromarray(rgb_hwc_u8).resize((width, height), Image.Resampling.BILINEAR))


def resize_with_pad(rgb_hwc_u8: np.ndarray, hw_px: tuple[int, int]) -> np.ndarray:
    """Return an image in another size with its ratio kept and black borders, to the bit as openpi-client 0.1.2.

    Example:
        >>> resize_with_pad(np.full((2, 4, 3), 9, np.uint8), (4, 4))[:, 0, 0].tolist()
        [0, 9, 9, 0]
    """
    height, width = hw_px
    ratio = max(rgb_hwc_u8.shape[1] / width, rgb_hwc_u8.shape[0] / height)
    inner = int(rgb_hwc_u8.shape[0] / ratio), int(rgb_hwc_u8.shape[1] / ratio)
    top, left = int((height - inner[0]) / 2), int((width - inner[1]) / 2)
    padded = np.zeros((height, width, 3), np.uint8)
    padded[top : top + inner[0], left : left + inner[1]] = resize(rgb_hwc_u8, inner)
    return padded


def state_numbers(part: StatePart, observation: Observation) -> np.ndarray:
    """Return the numbers of a part of a state, float64."""
    if part.part == "named":
        return np.asarray(observation.privileged[str(part.name)], np.float64)
    if part.part in ("joints_rad", "joint_gripper"):
        joints = observation.privileged[JOINT_POSITION][ARM_ACTION[part.arm]]
        return joints[:GRIPPER] if part.part == "joints_rad" else joints[GRIPPER:]
    state = observation.proprio[ARM_PROPRIO[part.arm]].astype(np.float64)
    if part.part == "position_m":
        return state[TRANSLATION]
    if part.part == "gripper":
        return gripper_as(str(part.form), state[-1:])
    from evalkit.dataset.axes import rotation_from_wxyz

    return rotation_as(str(part.form), rotation_from_wxyz(state[QUAT_WXYZ]))


def env_actions(adapter: Adapter, values: Any, *, chunk_len: int) -> np.ndarray:
    """Return a server's answer as actions of the env, K,14 float32.

    Args:
        adapter: The adapter.
        values: The answer.
        chunk_len: K that the plan states.

    Raises:
        BadMessage: If an array is missing, or has another shape or type than the adapter says.
    """
    actions = np.zeros((chunk_len, ACTION_DIM))
    arrays = _stacked(values) if adapter.actions.steps_in_list else values
    for field in adapter.actions.fields:
        columns = _array(arrays, field.key, (chunk_len, field.num_columns))
        start = 0
        for part in field.parts:
            _fill(actions, adapter.actions, part, columns[:, start : start + part.num_columns])
            start += part.num_columns
    return actions.astype(np.float32)


def _fill(actions: np.ndarray, layout: Actions, part: ActionPart, columns: np.ndarray) -> None:
    """Write the columns of a part into the arm's seven numbers."""
    if part.part == "ignored":
        return
    arm, is_osc = actions[:, ARM_ACTION[part.arm]], layout.layout == OSC_DELTA_BASE
    in_si = is_osc and part.unit == "si"
    if part.part == "joints_rad":
        arm[:, :GRIPPER] = columns
    elif part.part == "translation":
        arm[:, TRANSLATION] = columns / OSC_STEP_M if in_si else columns
    elif part.part == "rotation":
        rotvec = columns if part.form == "rotvec_rad" else rotation_from(str(part.form), columns).as_rotvec()
        arm[:, ROTVEC_RAD] = rotvec / OSC_STEP_RAD if in_si else rotvec
    else:
        open_frac = open_frac_from(str(part.form), columns[:, 0])
        arm[:, GRIPPER] = 2 * open_frac - 1 if is_osc else open_frac


def rotation_as(form: str, rotation: Rotation) -> np.ndarray:
    """Return a rotation in a form; leading axes are kept, and quaternions have w >= 0.

    Example:
        >>> from scipy.spatial.transform import Rotation
        >>> rotation_as("quat_wxyz", Rotation.from_rotvec([0, 0, np.pi])).round(6).tolist()
        [0.0, 0.0, 0.0, 1.0]
    """
    if form == "quat_wxyz":
        return wxyz_from_xyzw(rotation.as_quat())
    if form == "quat_xyzw":
        return xyzw_from_wxyz(wxyz_from_xyzw(rotation.as_quat()))
    if form == "rot6d_cols":
        matrix = rotation.as_matrix()
        return np.concatenate([matrix[..., 0], matrix[..., 1]], axis=-1)
    return rotation.as_euler("xyz") if form == "euler_xyz_rad" else rotation.as_rotvec()


def rotation_from(form: str, numbers: np.ndarray) -> Rotation:
    """Return the rotation of numbers in a form; quaternions are normalised, columns are made orthogonal.

    Raises:
        BadMessage: If the numbers are no rotation: a quaternion that is not of unit length, parallel columns.
    """
    from scipy.spatial.transform import Rotation

    if form in ("quat_wxyz", "quat_xyzw"):
        lengths = np.linalg.norm(numbers, axis=-1)
        if np.abs(lengths - 1).max() > QUAT_LENGTH_TOLERANCE:
            raise BadMessage(f"quaternions must have length 1, got {lengths.min():.3g} to {lengths.max():.3g}")
        return Rotation.from_quat(xyzw_from_wxyz(numbers) if form == "quat_wxyz" else numbers)
    if form == "rot6d_cols":
        return _rotation_from_columns(numbers)
    return Rotation.from_euler("xyz", numbers) if form == "euler_xyz_rad" else Rotation.from_rotvec(numbers)


def _rotation_from_columns(numbers: np.ndarray) -> Rotation:
    """Return the rotation of ...,6 numbers, two columns of a matrix, by Gram and Schmidt."""
    from scipy.spatial.transform import Rotation

    first, second = numbers[..., :3], numbers[..., 3:]
    lengths = np.linalg.norm(first, axis=-1, keepdims=True)
    x = first / np.maximum(lengths, 1e-12)
    rest = second - np.sum(x * second, axis=-1, keepdims=True) * x
    rest_lengths = np.linalg.norm(rest, axis=-1, keepdims=True)
    if lengths.min() < 1e-6 or rest_lengths.min() < 1e-6:
        raise BadMessage("two columns of a rotation have no length, or one direction")
    y = rest / rest_lengths
    return Rotation.from_matrix(np.stack([x, y, np.cross(x, y)], axis=-1))


def gripper_as(form: str, open_frac: np.ndarray) -> np.ndarray:
    """Return an open fraction in a form.

    Example:
        >>> [float(gripper_as(form, np.array(0.75))) for form in ("open_frac", "closed_frac", "plus_opens")]
        [0.75, 0.25, 0.5]
    """
    if form == "open_frac":
        return open_frac
    if form == "plus_opens":
        return 2 * open_frac - 1
    return 1 - 2 * open_frac if form == "plus_closes" else 1 - open_frac


def open_frac_from(form: str, numbers: np.ndarray) -> np.ndarray:
    """Return the open fraction of numbers in a form; only `closes_above_half` rounds.

    Example:
        >>> open_frac_from("plus_closes", np.array([-1.0, 0.0, 1.0])).tolist()
        [1.0, 0.5, 0.0]
        >>> open_frac_from("closes_above_half", np.array([0.4, 0.5])).tolist()
        [1.0, 0.0]
    """
    if form == "open_frac":
        return numbers
    if form == "closes_above_half":
        return (numbers < 0.5).astype(np.float64)
    if form == "plus_opens":
        return (numbers + 1) / 2
    return (1 - numbers) / 2 if form == "plus_closes" else 1 - numbers


def _timed(adapter: Adapter, array: np.ndarray) -> np.ndarray:
    return array[None] if adapter.time_axis else array


def keys_of(key: Key) -> tuple[str, ...]:
    """Return the keys that lead to a value."""
    return (key,) if isinstance(key, str) else key


def _put(body: dict[str, Any], key: Key, value: Any) -> None:
    *folders, last = keys_of(key)
    for folder in folders:
        body = body.setdefault(folder, {})
    body[last] = value


def _array(values: Any, key: Key | None, shape: tuple[int, int]) -> np.ndarray:
    """Return an array of the reply, float64."""
    found = values
    for name in () if key is None else keys_of(key):
        if not isinstance(found, Mapping) or name not in found:
            given = ", ".join(map(str, found)) if isinstance(found, Mapping) else type(found).__name__
            raise BadMessage(f"actions must stand under '{'/'.join(keys_of(key or ''))}', the reply holds {given}")
        found = found[name]
    try:
        array = np.asarray(found)
    except ValueError as error:
        raise BadMessage(f"actions of unequal lengths ({error})") from error
    if array.dtype.kind not in "iuf":
        raise BadMessage(f"actions must be numbers, got {array.dtype}")
    if array.ndim == 1 and shape[1] == 1:
        array = array[:, None]
    if array.shape != shape:
        raise BadMessage(f"actions must have the shape {shape}, got {array.shape}{_named(key)}")
    if not np.isfinite(array).all():
        raise BadMessage(f"actions hold values that are not finite{_named(key)}")
    return array.astype(np.float64)


def _named(key: Key | None) -> str:
    return "" if key is None else f" under '{'/'.join(keys_of(key))}'"


def _stacked(values: Any) -> Mapping[str, Any]:
    """Return a list of dicts, one for each step, as a dict of arrays."""
    if not isinstance(values, Sequence) or not values or not all(isinstance(step, Mapping) for step in values):
        raise BadMessage(f"actions must be a list of dicts, one for each step, got {type(values).__name__}")
    shared = set.intersection(*(set(step) for step in values))
    return {name: [np.asarray(step[name]) for step in values] for name in shared}
