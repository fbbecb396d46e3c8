"""The kinematic chain of one arm, read from a URDF file: tool poses and Jacobians of many joint positions at once.

In: a URDF file and the names of the arm's joints, base first. Out: rotation, position and Jacobian of the last joint's
link. Read next: `inverse.py`, which solves it backwards.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...sapien.urdf import joints_of, link_of, origin, unit_axis

NO_POSITION_LIMIT_RAD = 1e3
"""Stands for the limits of a continuous joint, which a URDF does not state."""


class ToolPoses(NamedTuple):
    """Where the tool is at N joint positions.

    Attributes:
        R_base_tool: [N, 3, 3].
        p_base_tool_m: [N, 3].
        jacobian: [N, 6, J]; rows: linear velocity in m/rad, then angular velocity; along the axes of the base.
    """

    R_base_tool: np.ndarray
    p_base_tool_m: np.ndarray
    jacobian: np.ndarray


@dataclass(frozen=True)
class ArmChain:
    """Revolute joints in a row, each with the fixed transform from the joint before; build it with `from_urdf`.

    The base is the URDF's root link. A joint's rotation `R(q)` of its own fixed rotation `F` and axis is kept as
    `constant + sin(q) * sine + cos(q) * cosine`, so that one product gives every joint of every position.
    """

    axes: np.ndarray
    offsets_m: np.ndarray
    constant: np.ndarray
    sine: np.ndarray
    cosine: np.ndarray
    lower_rad: np.ndarray
    upper_rad: np.ndarray
    max_velocity_rad_s: np.ndarray

    @classmethod
    def from_urdf(cls, path: Path, joints: Sequence[str]) -> ArmChain:
        """Read the chain that ends with the child link of the last joint.

        Raises:
            ValueError: A joint is missing, does not turn, or is no descendant of the one named before it.
        """
        by_child = {link_of(joint, "child"): joint for joint in joints_of(path)}
        by_name = {joint.get("name"): joint for joint in by_child.values()}
        missing = [name for name in joints if name not in by_name]
        if missing:
            raise ValueError(f"{path}: joints {', '.join(missing)} are missing; expected {', '.join(joints)}.")
        links = [_turning(path, by_name[name]) for name in joints]
        transforms, before = [], None
        for joint in links:
            transforms.append(_transform_since(path, joint, before, by_child))
            before = joint
        return cls._build(links, transforms)

    @classmethod
    def _build(cls, joints: Sequence[ElementTree.Element], transforms: Sequence[np.ndarray]) -> ArmChain:
        axes = np.array([unit_axis(joint) for joint in joints])
        fixed = np.array([transform[:3, :3] for transform in transforms])
        cross = np.array([_cross_matrix(axis) for axis in axes])
        limits = np.array([_limits(joint) for joint in joints])
        return cls(
            axes=axes,
            offsets_m=np.array([transform[:3, 3] for transform in transforms]),
            constant=fixed @ (np.eye(3) + cross @ cross),
            sine=fixed @ cross,
            cosine=-fixed @ cross @ cross,
            lower_rad=limits[:, 0],
            upper_rad=limits[:, 1],
            max_velocity_rad_s=limits[:, 2],
        )

    def limited(self, range_rad: np.ndarray) -> ArmChain:
        """Return this chain with limits that also lie within [J, 2] others."""
        lower, upper = np.maximum(self.lower_rad, range_rad[:, 0]), np.minimum(self.upper_rad, range_rad[:, 1])
        return replace(self, lower_rad=lower, upper_rad=upper)

    @property
    def num_joints(self) -> int:
        """How many joints turn."""
        return len(self.axes)

    def tool_poses(self, q_rad: np.ndarray) -> ToolPoses:
        """Return pose and Jacobian of the tool at joint positions [N, J]."""
        turned = np.sin(q_rad)[..., None, None] * self.sine + np.cos(q_rad)[..., None, None] * self.cosine
        turned += self.constant
        R, p = turned[:, 0], np.broadcast_to(self.offsets_m[0], (len(q_rad), 3))
        axes, origins = [R @ self.axes[0]], [p]
        for index in range(1, self.num_joints):
            p = p + R @ self.offsets_m[index]
            R = R @ turned[:, index]
            axes.append(R @ self.axes[index])
            origins.append(p)
        along = np.stack(axes, axis=2)
        arms = p[:, :, None] - np.stack(origins, axis=2)
        return ToolPoses(R, p, np.concatenate([_cross_columns(along, arms), along], axis=1))


def robot_name(urdf: Path) -> str:
    """Return the name that a URDF file gives its robot."""
    return ElementTree.parse(urdf).getroot().get("name", "")


def _turning(path: Path, joint: ElementTree.Element) -> ElementTree.Element:
    if joint.get("type") not in ("revolute", "continuous"):
        raise ValueError(
            f"{path}: joint {joint.get('name')} is {joint.get('type')}; expected a revolute joint of an arm."
        )
    return joint


def _transform_since(
    path: Path,
    joint: ElementTree.Element,
    before: ElementTree.Element | None,
    by_child: dict[str, ElementTree.Element],
) -> np.ndarray:
    """Return the transform from the link of the joint before (or the root) to this joint, over fixed joints."""
    transform, step = origin(joint), joint
    while True:
        parent = link_of(step, "parent")
        if before is not None and parent == link_of(before, "child"):
            return transform
        if parent not in by_child:
            if before is None:
                return transform
            raise ValueError(f"{path}: joint {joint.get('name')} does not follow joint {before.get('name')}.")
        step = by_child[parent]
        transform = origin(step) @ transform


def _limits(joint: ElementTree.Element) -> tuple[float, float, float]:
    limit = joint.find("limit")
    stated = {} if limit is None else limit.attrib
    free = joint.get("type") == "continuous"
    lower = -NO_POSITION_LIMIT_RAD if free else float(stated.get("lower", "0"))
    upper = NO_POSITION_LIMIT_RAD if free else float(stated.get("upper", "0"))
    return lower, upper, float(stated.get("velocity", "inf"))


def _cross_matrix(axis: Sequence[float] | np.ndarray) -> np.ndarray:
    x, y, z = axis
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def _cross_columns(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cross products of the columns of [N, 3, J] and [N, 3, J]; numpy's own is three times as slow."""
    return np.stack(
        [
            a[:, 1] * b[:, 2] - a[:, 2] * b[:, 1],
            a[:, 2] * b[:, 0] - a[:, 0] * b[:, 2],
            a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0],
        ],
        axis=1,
    )
