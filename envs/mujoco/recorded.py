"""Recorded demonstrations for envs that replay them: a model file and states in place of physics.

In: MJCF that another machine wrote, flattened states (time, positions, velocities). Out: a replacement of robosuite's
simulation in an env.
Read next: `envs/robosuite/replay.py` and `envs/robocasa/replay.py`, the envs; `evalkit/replay/`, which renders them.

The same action can lead to another state on another machine; a recorded state is exact everywhere.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np


class Recorded:
    """Replaces robosuite's environment where only its model and data are needed.

    Args:
        xml: The model; its files exist on this machine.

    Raises:
        ValueError: If MuJoCo cannot compile it.
    """

    def __init__(self, xml: str) -> None:
        import mujoco

        try:
            model = mujoco.MjModel.from_xml_string(xml)
        except ValueError as error:
            raise ValueError(f"its model cannot be compiled: {' '.join(str(error).split())}") from error
        self._model, self._data = model, mujoco.MjData(model)
        self.sim = SimpleNamespace(model=SimpleNamespace(_model=model), data=SimpleNamespace(_data=self._data))
        self.put(np.concatenate([[0.0], model.qpos0, np.zeros(model.nv)]))

    def put(self, state: np.ndarray) -> None:
        """Put the simulation into a flattened state.

        Raises:
            ValueError: If it is of another model, or holds values that are not finite.
        """
        import mujoco

        model, data = self._model, self._data
        expected = 1 + model.nq + model.nv
        if state.shape != (expected,):
            raise ValueError(f"a state of its model has {expected} numbers, the recorded one has {state.size}")
        if not np.isfinite(state).all():
            raise ValueError("the recorded state holds numbers that are not finite")
        data.time, data.qpos[:], data.qvel[:] = state[0], state[1 : 1 + model.nq], state[1 + model.nq :]
        mujoco.mj_forward(model, data)

    def close(self) -> None:
        """Do nothing: the model is freed with this object."""


def parsed(xml: str) -> ElementTree.Element:
    """Return the root element of MJCF.

    Raises:
        ValueError: If it is not XML.
    """
    try:
        return ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise ValueError(f"its model_file is not XML: {error}") from error


def missing_elements(root: ElementTree.Element) -> list[ElementTree.Element]:
    """Return the textures and meshes of a model whose files are not there."""
    assets = root.find("asset")
    named = [] if assets is None else [e for e in assets if e.tag in ("mesh", "texture") and e.get("file") is not None]
    return [element for element in named if not Path(element.get("file", "")).is_file()]


def missing_files(xml: str) -> list[str]:
    """Return the texture and mesh files that an MJCF names and that are not there, each once, sorted."""
    return sorted({element.get("file", "") for element in missing_elements(parsed(xml))})


def with_local_files(xml: str, packages: dict[str, str]) -> str:
    """Return MJCF whose meshes and textures lie in the packages of this machine.

    Args:
        xml: As recorded.
        packages: Folder of each package, by its name; the last folder of that name in a path counts.

    Example:
        >>> with_local_files('<m><asset><mesh file="/home/a/robosuite/x.stl"/></asset></m>', {"robosuite": "/lib/r"})
        '<m><asset><mesh file="/lib/r/x.stl" /></asset></m>'
    """
    root = parsed(xml)
    for element in root.findall("./asset/*[@file]"):
        parts = element.attrib["file"].split("/")
        folders = [(index, name) for index, name in enumerate(parts) if name in packages]
        if folders:
            index, package = folders[-1]
            element.set("file", "/".join([packages[package], *parts[index + 1 :]]))
    return ElementTree.tostring(root, encoding="unicode")
