"""A recorded robosuite demonstration as an env: `advance` takes the next recorded state in place of an action.

In: the model file of a demonstration, its states. Out: what `RobosuiteEnv` gives, cameras of ours included.
Read next: `../recorded.py`; `env.py`, which observes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from envs.mujoco.recorded import Recorded, with_local_files
from envs.mujoco.views import simplify_meshes
from envs.robosuite import scene
from envs.robosuite.env import RobosuiteEnv
from evalkit.contracts import geometry


class RobosuiteReplay(RobosuiteEnv):
    """One demonstration.

    Args:
        model_file: Its MJCF, as it was recorded.
        kwargs: As for `RobosuiteEnv`.
    """

    def __init__(self, *, model_file: str, ep_meta: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._model_file = model_file

    def begin(self, *, seed: int, max_steps: int) -> bool:
        """Compile the model; the first `advance` puts it into the first state."""
        import robosuite

        self._drop_simulation()
        xml = with_local_files(self._model_file, {"robosuite": str(Path(robosuite.__file__).parent)})
        absent = tuple(camera for camera in self._task.cameras if f'name="{camera.name}"' not in xml)
        self._sim = Recorded(scene.add_cameras(xml, absent))
        simplify_meshes(self._model, self._mesh_cell_m)
        base = self._data.body("robot0_base")
        self._T_base_world = geometry.inverse(geometry.transform(base.xmat.reshape(3, 3), base.xpos))
        return False

    def advance(self, action: np.ndarray) -> bool:
        """Put the simulation into a state, given in place of an action."""
        self._sim.put(np.asarray(action, np.float64))
        return False

    def _privileged(self) -> dict[str, np.ndarray]:
        """Return where hand and base are in the world, as demonstrations tell it."""
        return {
            "hand_world_m": np.array(self._data.site("gripper0_right_grip_site").xpos),
            "base_world_m": np.array(self._data.body("robot0_base").xpos),
        }
