"""A recorded RoboCasa demonstration as an env: `play` puts it into a recorded state.

In: the model file and `ep_meta` of a demonstration, its states. Out: what `RobocasaEnv` gives. It runs in RoboCasa's
own interpreter.
Read next: `../mujoco/recorded.py`; `env.py`, which observes.

No kitchen is drawn: fixtures, objects and cameras are in the model file. Cameras are set as RoboCasa's own replay sets
them, to those in `ep_meta`, or else to its defaults.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from envs.mujoco.recorded import Recorded, missing_files, parsed, with_local_files
from envs.robocasa import scene
from envs.robocasa.env import BASE_SITE, FINGER_JOINT, GRIP_SITE, RobocasaEnv
from evalkit.contracts import geometry
from evalkit.contracts.recording import REPLAY_STATE


class RobocasaReplay(RobocasaEnv):
    """One demonstration; satisfies `evalkit.contracts.recording.PlayableEnv`.

    Args:
        model_file: Its MJCF, as it was recorded.
        ep_meta: What RoboCasa noted of the episode: its instruction and its cameras.
        kwargs: As for `RobocasaEnv`.
    """

    def __init__(self, *, model_file: str, ep_meta: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec = replace(self.spec, privileged_keys=REPLAY_STATE)
        self._protocol = replace(self._protocol, observes="current")  # nothing steps: there is no last substep
        self._model_file, self._ep_meta = model_file, ep_meta

    def begin(self, *, seed: int, max_steps: int) -> bool:
        """Compile the model; the first `play` puts it into the first state, which fixes the base frame.

        Raises:
            ValueError: If it is not a model with one PandaOmron.
            NoRoboCasa: If files of the kitchen are not on this machine.
        """
        import robosuite
        from robocasa.utils.camera_utils import get_robot_cam_configs

        self._drop_simulation()
        check_model(self._model_file)
        packages = {"robosuite": robosuite, "robocasa": scene.import_robocasa()}
        folders = {name: str(Path(package.__file__).parent) for name, package in packages.items()}
        cameras = self._ep_meta.get("cam_configs") or get_robot_cam_configs("PandaOmron")
        xml = with_cameras(with_local_files(self._model_file, folders), cameras)
        missing = missing_files(xml)
        if missing:
            raise scene.NoRoboCasa(
                f"{len(missing)} files of this kitchen are missing, {missing[0]} among them; download "
                "RoboCasa's art with `python -m robocasa.scripts.download_kitchen_assets` in its interpreter"
            )
        self._sim, self._instruction, self._placed = Recorded(xml), str(self._ep_meta.get("lang", "")), False
        return False

    @property
    def scene(self) -> dict[str, Any]:
        """The kitchen and what stands in it, as the demonstration notes it."""
        return scene.describe(self._ep_meta)

    def play(self, state: np.ndarray) -> None:
        """Put the simulation into a recorded state."""
        self._sim.put(np.asarray(state, np.float64))
        if not self._placed:
            self._T_base_world, self._placed = geometry.inverse(self._site_pose(BASE_SITE)), True

    def _privileged(self) -> dict[str, np.ndarray]:
        """Return `REPLAY_STATE`."""
        return {
            "ee_world_m": np.array(self._data.site(GRIP_SITE).xpos),
            "base_world_m": np.array(self._data.site(BASE_SITE).xpos),
            "base_world_rotation": np.array(self._data.site(BASE_SITE).xmat).reshape(3, 3),
        }


def check_model(xml: str) -> None:
    """Raise ValueError unless MJCF holds a PandaOmron, as robosuite 1.5 names its parts."""
    there = {(element.tag, element.get("name")) for element in parsed(xml).iter()}
    for element, name in (("site", GRIP_SITE), ("site", BASE_SITE), ("joint", FINGER_JOINT)):
        if (element, name) not in there:
            raise ValueError(
                f"its model has no PandaOmron as robosuite 1.5 describes it: there is no {element} '{name}'"
            )


def with_cameras(xml: str, cameras: dict[str, Any]) -> str:
    """Return MJCF with cameras placed as RoboCasa describes them: `pos`, `quat`, `parent_body`, `camera_attribs`.

    Example:
        >>> with_cameras("<m><worldbody/></m>", {"c": {"pos": [0, 0, 1], "quat": [1, 0, 0, 0]}})
        '<m><worldbody><camera mode="fixed" name="c" pos="0 0 1" quat="1 0 0 0" /></worldbody></m>'
    """
    root = parsed(xml)
    for name, settings in cameras.items():
        parent = settings.get("parent_body")
        where = root.find("worldbody") if parent is None else root.find(f".//body[@name='{parent}']")
        if where is None:  # a camera of another robot
            continue
        camera = where.find(f"./camera[@name='{name}']")
        if camera is None:
            camera = ElementTree.SubElement(where, "camera", {"mode": "fixed", "name": name})
        placed = {key: " ".join(map(str, settings[key])) for key in ("pos", "quat")}
        for key, value in (placed | settings.get("camera_attribs", {})).items():
            camera.set(key, str(value))
    return ElementTree.tostring(root, encoding="unicode")
