"""What a URDF file says of a robot's joints.

In: a URDF file. Out: its joints, their fixed transforms and axes.
Read next: `cameras.py`, the poses of cameras on links; `envs/robotwin/planners/chain.py`, the kinematics of an arm.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from evalkit.contracts import geometry


def joints_of(path: Path) -> list[ElementTree.Element]:
    """Return the joints in a file; what has no child link, for example in a transmission, is none."""
    return [joint for joint in ElementTree.parse(path).getroot().iter("joint") if joint.find("child") is not None]


def link_of(joint: ElementTree.Element, end: str) -> str:
    """Return the name of a joint's `parent` or `child` link."""
    return str(joint.find(end).get("link"))  # type: ignore[union-attr]


def origin(joint: ElementTree.Element) -> np.ndarray:
    """Return the 4,4 transform of a joint's `origin`: roll about x, then pitch about y, then yaw about z."""
    element = joint.find("origin")
    rotation = Rotation.from_euler("xyz", _numbers(element, "rpy", "0 0 0"))
    return geometry.transform(rotation.as_matrix(), _numbers(element, "xyz", "0 0 0"))


def unit_axis(joint: ElementTree.Element) -> np.ndarray:
    """Return the axis of a joint in its own frame, 3 numbers of length 1."""
    axis = _numbers(joint.find("axis"), "xyz", "1 0 0")
    return axis / np.linalg.norm(axis)


def _numbers(element: ElementTree.Element | None, name: str, default: str) -> np.ndarray:
    text = default if element is None else element.get(name, default)
    return np.array([float(value) for value in text.split()])
