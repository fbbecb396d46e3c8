"""One robosuite task as an env: begin, advance, observe, close.

In: 14-number actions along the base axes, seeds. Out: RGB-D, camera matrices, proprio, state for oracles.
Read next: `scene.py`, how an episode is built; `../mujoco/observed.py`, how it is observed; `../gymnasium_env.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.mujoco.observed import ObservedEnv
from envs.mujoco.views import ViewRenderer, simplify_meshes
from envs.robosuite import scene
from envs.robosuite.tasks import TASKS, env_spec
from evalkit.contracts import geometry
from evalkit.contracts.types import ARM_ACTION, ARM_PROPRIO, PROPRIO_DIM

FINGER_TRAVEL_M = 0.08
"""Gap between the Panda's fingers when it is fully open."""


class RobosuiteEnv(ObservedEnv):
    """One task; satisfies `evalkit.contracts.env.Env`. There is one per process.

    The action's gripper number acts by its sign: positive opens and negative closes by a fifth of the range per step; 0
    keeps the command of the step before.

    Args:
        task: Name of a task.
        setting: `default` is robosuite's own placement and looks; `wide` places objects over a larger area;
            `randomized` draws looks, light and cameras from the seed too.
        image_hw_px: Height and width of every view.
        antialias_samples: Samples per pixel.
        mesh_cell_m: Grid on which heavy visual meshes are thinned out; 0 keeps them whole.
        instruction: Instruction for policies; the task's own if not given.
    """

    def __init__(
        self,
        *,
        task: str,
        setting: str = "default",
        image_hw_px: Sequence[int] = (128, 128),
        antialias_samples: int = 0,
        mesh_cell_m: float = 0.008,
        instruction: str | None = None,
    ) -> None:
        height, width = image_hw_px
        renderer = ViewRenderer(image_hw_px=(height, width), antialias_samples=antialias_samples)
        super().__init__(env_spec(task, image_hw_px=(height, width)), renderer)
        self._task_name, self._task, self._setting = task, TASKS[task], setting
        self._mesh_cell_m = mesh_cell_m
        self._instruction = instruction or self._task.instruction

    def begin(self, *, seed: int, max_steps: int) -> bool:
        """Build the episode of this seed; return whether it is already solved."""
        self._drop_simulation()
        self._sim = scene.build(self._task_name, setting=self._setting, seed=seed)
        simplify_meshes(self._model, self._mesh_cell_m)
        base = self._data.body("robot0_base")
        self._T_base_world = geometry.inverse(geometry.transform(base.xmat.reshape(3, 3), base.xpos))
        return bool(self._sim._check_success())

    @property
    def scene(self) -> dict[str, Any]:
        """Return where the seed put each object and how large it is, in the robot base frame."""
        return {"objects": scene.read_objects(self._sim, self._T_base_world)}

    def advance(self, action: np.ndarray) -> bool:
        """Execute one action for 50 ms; return whether the goal is met."""
        self._sim.step(self._simulator_action(np.asarray(action, np.float64)))
        return bool(self._sim._check_success())

    def _simulator_action(self, action: np.ndarray) -> np.ndarray:
        """Return robosuite's action: each robot's own base axes, gripper +1 closes."""
        parts = []
        for i, arm in enumerate(self._task.arms):
            base = self._data.body(f"robot{i}_base")
            R_own_base = (self._T_base_world[:3, :3] @ base.xmat.reshape(3, 3)).T
            move = action[ARM_ACTION[arm]]
            # clipping comes first: it belongs to the common base axes, in which the action is stated
            translation, rotation = np.clip(move[:6], -1.0, 1.0).reshape(2, 3) @ R_own_base.T
            parts += [translation, rotation, [-move[6]]]
        return np.concatenate(parts)

    def _proprio(self) -> np.ndarray:
        proprio = np.zeros(PROPRIO_DIM, np.float32)
        for i, arm in enumerate(self._task.arms):
            T_base_ee = self._T_base_world @ self._site_pose(f"gripper{i}_right_grip_site")
            fingers = [self._data.joint(f"gripper{i}_right_finger_joint{finger}").qpos[0] for finger in (1, 2)]
            open_frac = np.clip((fingers[0] - fingers[1]) / FINGER_TRAVEL_M, 0.0, 1.0)
            quat_wxyz = geometry.quat_from_matrix(T_base_ee[:3, :3])
            proprio[ARM_PROPRIO[arm]] = [*T_base_ee[:3, 3], *quat_wxyz, open_frac]
        return proprio

    def _privileged(self) -> dict[str, np.ndarray]:
        return scene.read_state(self._model, self._data, self._task, self._T_base_world)
