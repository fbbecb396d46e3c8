"""A recorded robosuite demonstration as an env: `play` puts it into a recorded state.

In: the model file of a demonstration, its states. Out: what `RobosuiteEnv` gives, our cameras included.
Read next: `../mujoco/recorded.py`; `env.py`, which observes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from envs.mujoco.recorded import Recorded, with_local_files
from envs.mujoco.views import simplify_meshes
from envs.robosuite import scene
from envs.robosuite.env import RobosuiteEnv
from evalkit.contracts import geometry
from evalkit.contracts.env import REPLAY_STATE


class RobosuiteReplay(RobosuiteEnv):
    """One demonstration; satisfies `evalkit.contracts.env.PlayableEnv`.

    Args:
        model_file: Its MJCF, as it was recorded.
        kwargs: As for `RobosuiteEnv`.
    """

    def __init__(self, *, model_file: str, ep_meta: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.spec = replace(self.spec, privileged_keys=REPLAY_STATE)
        self._model_file = model_file

    def begin(self, *, seed: int, max_steps: int) -> bool:
        """Compile the model; the first `play` puts it into the first state."""
        import robosuite

        self._drop_simulation()
        xml = with_local_files(self._model_file, {"robosuite": str(Path(robosuite.__file__).parent)})
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
        }
