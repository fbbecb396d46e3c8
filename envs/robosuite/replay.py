"""A recorded robosuite demonstration as an env: `play` puts it into a recorded state.

In: the model file of a demonstration, its states. Out: what `RobosuiteEnv` gives, our cameras included.
Read next: `../mujoco/recorded.py`; `env.py`, which observes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from envs.mujoco.recorded import Recorded, missing_files, parsed, with_local_files
from envs.mujoco.views import simplify_meshes
from envs.robosuite import scene
from envs.robosuite.env import RobosuiteEnv
from envs.robosuite.tasks import TASKS
from evalkit.contracts import geometry
from evalkit.contracts.recording import REPLAY_STATE

VERSION = "1.5"
"""Series of robosuite whose names of parts are expected."""

PANDA = {
    "joint": [f"robot0_joint{number}" for number in range(1, 8)] + [f"gripper0_right_finger_joint{n}" for n in (1, 2)],
    "site": ["gripper0_right_grip_site"],
    "body": ["robot0_base"],
    "camera": ["robot0_eye_in_hand"],
}
"""What a model of robosuite 1.5 with a Panda holds: names by element."""

ELEMENTS = {"pose": "body", "site": "site", "hinge": "joint", "size": "geom"}
"""Element that gives a task's state, by kind of its item."""


class RobosuiteReplay(RobosuiteEnv):
    """One demonstration; satisfies `evalkit.contracts.recording.PlayableEnv`.

    Args:
        model_file: Its MJCF, as it was recorded.
        kwargs: As for `RobosuiteEnv`.
    """

    def __init__(self, *, model_file: str, ep_meta: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec = replace(self.spec, privileged_keys=REPLAY_STATE)
        self._model_file = model_file

    def begin(self, *, seed: int, max_steps: int) -> bool:
        """Compile the model; the first `play` puts it into the first state.

        Raises:
            ValueError: If it is not a model of the task with one Panda, or needs files that robosuite does not have.
        """
        import robosuite

        self._drop_simulation()
        check_model(self._model_file, self._task_name)
        xml = with_local_files(self._model_file, {"robosuite": str(Path(robosuite.__file__).parent)})
        if missing := missing_files(xml):
            raise ValueError(
                f"its model needs {len(missing)} files that robosuite {robosuite.__version__} does not have, "
                f"{missing[0]} among them: it is of another version, or has objects of its own"
            )
        absent = tuple(camera for camera in self._task.cameras if f'name="{camera.name}"' not in xml)
        self._sim = Recorded(scene.add_cameras(xml, absent))
        simplify_meshes(self._model, self._mesh_cell_m)
        base = self._data.body("robot0_base")
        self._T_base_world = geometry.inverse(geometry.transform(base.xmat.reshape(3, 3), base.xpos))
        return False

    def play(self, state: np.ndarray) -> None:
        """Put the simulation into a recorded state."""
        self._sim.put(np.asarray(state, np.float64))

    def _privileged(self) -> dict[str, np.ndarray]:
        """Return `REPLAY_STATE`."""
        return {
            "ee_world_m": np.array(self._data.site("gripper0_right_grip_site").xpos),
            "base_world_m": np.array(self._data.body("robot0_base").xpos),
            "base_world_rotation": np.array(self._data.body("robot0_base").xmat).reshape(3, 3),
        }


def check_model(xml: str, task: str) -> None:
    """Check that MJCF is of a task with one Panda, as robosuite 1.5 names its parts.

    Raises:
        ValueError: Names the first part that is missing, or the other robot.
    """
    root = parsed(xml)
    expected = [(element, name) for element, names in PANDA.items() for name in names]
    expected += [(ELEMENTS[item.kind], item.source) for item in TASKS[task].state]
    there = {(element.tag, element.get("name")) for element in root.iter()}
    for element, name in expected:
        if (element, name) not in there:
            raise ValueError(
                f"its model is not of {task} with a Panda in robosuite {VERSION}: it has no {element} '{name}'"
            )
    folders = {robot_of(element.attrib["file"]) for element in root.findall("./asset/*[@file]")} - {None, "panda"}
    others = sorted(map(str, folders))
    others += ["a second robot"] if ("body", "robot1_base") in there else []
    others += ["a mobile base"] if any(str(name).startswith("mobilebase0_joint") for _, name in there) else []
    if others:
        raise ValueError(f"its model holds more than one Panda on a fixed base: {', '.join(others)}")


def robot_of(path: str) -> str | None:
    """Return the robot to which a mesh of robosuite belongs; None for those of other things.

    Example:
        >>> robot_of("/lib/robosuite/models/assets/robots/panda/meshes/link0.stl"), robot_of("/lib/cereal.stl")
        ('panda', None)
    """
    parts = path.split("/")
    return parts[parts.index("robots") + 1] if "robots" in parts[:-1] else None
