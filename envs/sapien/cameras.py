"""SAPIEN's cameras in the contract's frames: RGB, depth, intrinsics, poses; and where a URDF puts them.

In: camera components of a scene; a URDF file. Out: arrays as `Observation` has them; transforms between links.
Read next: `envs/robotwin/rendering.py`, which decides what is rendered.

A camera component looks along +x with y left and z up; its "model matrix" is OpenGL's (y up, z back). The image's
origin is the outer corner of the first pixel, so that pixel centres lie at half-integer (u, v). The contract looks
along +z with x right and y down, and has pixel centres at integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evalkit.contracts import geometry

from .urdf import joints_of, link_of, origin, unit_axis

CV_FROM_GL = np.diag([1.0, -1.0, -1.0, 1.0])
"""Transform from a camera with OpenCV's axes into one with OpenGL's."""

CV_FROM_SAPIEN = np.array([[0.0, 0.0, 1.0, 0.0], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
"""Transform from a camera with OpenCV's axes into one with SAPIEN's: x forward, y left, z up."""

CORNER_TO_CENTRE_PX = 0.5
"""From the outer corner of the first pixel to its centre."""


CLOSE_TO_X = 0.9
"""Cosine above which SAPIEN's URDF loader takes a joint's axis to be close to the link's x."""


class Views(NamedTuple):
    """V views of one moment.

    Attributes:
        rgb: V,H,W,3 uint8.
        depth: V,H,W float32 metres; 0 where nothing is hit.
        intrinsics: V,3,3 float64 pixels.
        T_world_cam: V,4,4 float64.
    """

    rgb: np.ndarray
    depth: np.ndarray
    intrinsics: np.ndarray
    T_world_cam: np.ndarray


def capture(cameras: Sequence[Any], *, image_hw_px: tuple[int, int]) -> Views:
    """Render each camera once; poses of cameras and bodies must be up to date in the renderer.

    Args:
        cameras: Camera components; may be empty.
        image_hw_px: Rows and columns, also of an empty answer.
    """
    for camera in cameras:
        camera.take_picture()
    num, (height, width) = len(cameras), image_hw_px
    colors = [camera.get_picture("Color") for camera in cameras]
    return Views(
        rgb=_stacked([_as_uint8(color[..., :3]) for color in colors], (num, height, width, 3), np.uint8),
        depth=_stacked([_depth_m(camera) for camera in cameras], (num, height, width), np.float32),
        intrinsics=_stacked([intrinsics(camera) for camera in cameras], (num, 3, 3), np.float64),
        T_world_cam=_stacked([T_world_cam(camera) for camera in cameras], (num, 4, 4), np.float64),
    )


def intrinsics(camera: Any) -> np.ndarray:
    """Return 3,3 float64 with the origin in the centre of the first pixel."""
    matrix = np.array(camera.get_intrinsic_matrix(), np.float64)
    matrix[:2, 2] -= CORNER_TO_CENTRE_PX
    return matrix


def T_world_cam(camera: Any) -> np.ndarray:
    """Return the 4,4 float64 pose of a camera with OpenCV's axes."""
    return np.array(camera.get_model_matrix(), np.float64) @ CV_FROM_GL


def _depth_m(camera: Any) -> np.ndarray:
    """Return H,W float32: metres along the optical axis; pixels without a surface have z = 0 in SAPIEN's answer."""
    return np.array(-camera.get_picture("Position")[..., 2], np.float32)


def _as_uint8(color: np.ndarray) -> np.ndarray:
    """Return uint8 of a float image, rounded down as RoboTwin does."""
    return (color * 255).clip(0, 255).astype(np.uint8)


def _stacked(arrays: Sequence[np.ndarray], shape: tuple[int, ...], dtype: type) -> np.ndarray:
    return np.stack(arrays).astype(dtype, copy=False) if arrays else np.zeros(shape, dtype)


def fixed_transform(urdf: Path, joint: str, link: str) -> np.ndarray:
    """Return the 4,4 pose of a link in SAPIEN's frame of a joint (`joint.global_pose`), over fixed joints only.

    Args:
        urdf: Path of the robot's description.
        joint: Name of the joint that ends the moving chain.
        link: Name of a link that hangs on the joint's child link.

    Raises:
        ValueError: If the link does not hang on it, or a joint between them moves.
    """
    joints = joints_of(urdf)
    by_child = {link_of(entry, "child"): entry for entry in joints}
    by_name = {entry.get("name"): entry for entry in joints}
    if joint not in by_name:
        raise ValueError(f"{urdf} has no joint '{joint}'.")
    flange, T_flange_link, current = link_of(by_name[joint], "child"), np.eye(4), link
    while current != flange:
        entry = by_child.get(current)
        if entry is None or entry.get("type") != "fixed":
            kind = "no joint" if entry is None else f"a joint that is {entry.get('type')}"
            raise ValueError(f"{urdf}: '{link}' must hang rigidly on '{flange}'; '{current}' has {kind} above it.")
        T_flange_link = origin(entry) @ T_flange_link
        current = link_of(entry, "parent")
    axes = joint_axes(unit_axis(by_name[joint]))
    return geometry.inverse(geometry.transform(axes, np.zeros(3))) @ T_flange_link


def joint_axes(axis: np.ndarray) -> np.ndarray:
    """Return 3,3: the axes of SAPIEN's frame of a joint, as columns in the joint's child link.

    Its x is the joint's axis. Its y is perpendicular to that and to the link's x (or z, where x is close to the axis),
    so that the frame of a joint about +x is turned by half a turn against the link.

    Example:
        >>> np.diag(joint_axes(np.array([1.0, 0.0, 0.0]))).tolist()
        [1.0, -1.0, -1.0]
    """
    x = axis / np.linalg.norm(axis)
    y = np.cross(x, [0.0, 0.0, 1.0] if abs(x[0]) > CLOSE_TO_X else [1.0, 0.0, 0.0])
    y /= np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)], axis=1)
