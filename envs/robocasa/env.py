"""One RoboCasa task as an env: begin, advance, observe, close. It runs in RoboCasa's own interpreter.

In: 14-number actions along the base axes, seeds. Out: RGB-D, camera matrices, proprio, state for oracles.
Read next: `scene.py`, how an episode is built; `state.py`, what oracles may read; `../mujoco_views.py`, how it is seen.

Needs numpy and msgpack beside RoboCasa, Python 3.10 or 3.11. The base frame is that of the arm's controller (the foot
of the Panda) when the episode begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.mujoco_views import ViewRenderer
from envs.robocasa import scene
from envs.robocasa.protocols import PROTOCOLS
from envs.robocasa.state import read_state
from envs.robocasa.tasks import TASKS, env_spec
from evalkit.contracts import geometry
from evalkit.contracts.types import ARM_ACTION, ARM_PROPRIO, PROPRIO_DIM

GRIP_SITE = "gripper0_right_grip_site"
BASE_SITE = "robot0_right_center"
FINGER_JOINT = "gripper0_right_finger_joint1"

FINGER_OPEN_M = 0.04
"""Where a finger's actuator stops; the state's gripper number is the first finger's position over it."""


class RobocasaEnv:
    """One task; satisfies `evalkit.contracts.env.Env`. There is one in a process.

    The action's gripper number acts by its sign: positive opens and negative closes by a fifth of the range a step.
    The base and the torso stand still, as in every published protocol.

    Args:
        task: Name of a task.
        protocol: Name of a protocol.
        art: `real`, or `placeholder` for stand-ins.
        image_hw_px: Height and width of every view.
        antialias_samples: Samples a pixel.
    """

    def __init__(
        self, *, task: str, protocol: str, art: str, image_hw_px: Sequence[int], antialias_samples: int
    ) -> None:
        robocasa = scene.import_robocasa()
        if art == "real":
            scene.check_art()
        height, width = image_hw_px
        self.spec = env_spec(task, image_hw_px=(height, width))
        self._task, self._protocol, self._placeholder = task, PROTOCOLS[protocol], art == "placeholder"
        self._renderer = ViewRenderer(
            image_hw_px=(height, width), antialias_samples=antialias_samples, as_robosuite=True
        )
        self.about = {
            "renderer": self._renderer.describe(),
            "robocasa": robocasa.__version__,
            "art": art,
        }
        self._camera_names = [camera.name for camera in self.spec.cameras]
        self._sim: Any = None
        self._instruction = ""
        self._T_base_world = np.eye(4)

    def begin(self, *, seed: int, max_steps: int) -> bool:
        """Build the episode of this seed; return whether it is already solved."""
        self._drop_simulation()
        self._sim = scene.build(self._task, protocol=self._protocol, placeholder=self._placeholder, seed=seed)
        self._instruction = str(self._sim.get_ep_meta()["lang"])
        self._update_kinematics()
        self._T_base_world = geometry.inverse(self._site_pose(BASE_SITE))
        self._check_stable()
        return bool(self._sim._check_success())

    def advance(self, action: np.ndarray) -> bool:
        """Execute one action for 50 ms; return whether the goal is met."""
        self._sim.step(self._simulator_action(np.asarray(action, np.float64)))
        self._check_stable()
        return bool(self._sim._check_success())

    def observe(self, *, render: bool) -> dict[str, Any]:
        """Return the fields of an `Observation`; with `render=False` V is 0."""
        self._update_kinematics()
        views = self._renderer.capture(self._model, self._data, self._camera_names if render else [])
        return {
            "rgb": views.rgb,
            "depth": views.depth,
            "intrinsics": views.intrinsics,
            "T_base_cam": self._T_base_world @ views.T_world_cam,
            "proprio": self._proprio(),
            "instruction": self._instruction,
            "privileged": read_state(self._sim, TASKS[self._task].state, self._T_base_world),
        }

    def close(self) -> None:
        """Free the simulator and the GL context; calling it twice is fine."""
        self._drop_simulation()
        self._renderer.close()

    @property
    def _model(self) -> Any:
        return self._sim.sim.model._model

    @property
    def _data(self) -> Any:
        return self._sim.sim.data._data

    def _drop_simulation(self) -> None:
        self._renderer.forget()
        if self._sim is not None:
            self._sim.close()
            self._sim = None

    def _update_kinematics(self) -> None:
        import mujoco

        # robosuite leaves positions one 2 ms substep behind; the next step recomputes all of this anyway
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)

    def _check_stable(self) -> None:
        """Fail on a simulation that blew up; MuJoCo only notes it, starts anew and goes on.

        Raises:
            FloatingPointError: With the step at which it happened.
        """
        import mujoco

        for kind in ("BADQPOS", "BADQVEL", "BADQACC"):
            warning = self._data.warning[int(getattr(mujoco.mjtWarning, f"mjWARN_{kind}"))]
            if warning.number:
                raise FloatingPointError(
                    f"the simulation blew up at {self._data.time:.2f} s ({kind}, degree of freedom {warning.lastinfo})"
                )

    def _simulator_action(self, action: np.ndarray) -> np.ndarray:
        """Return RoboCasa's 12 numbers: arm 6, gripper (+1 closes), base 3, torso 1, mode 1."""
        move = action[ARM_ACTION["left"]]
        return np.concatenate([move[:6], [-move[6]], self._protocol.base_action])

    def _site_pose(self, name: str) -> np.ndarray:
        site = self._data.site(name)
        return geometry.transform(site.xmat.reshape(3, 3), site.xpos)

    def _proprio(self) -> np.ndarray:
        T_base_ee = self._T_base_world @ self._site_pose(GRIP_SITE)
        open_frac = np.clip(self._data.joint(FINGER_JOINT).qpos[0] / FINGER_OPEN_M, 0.0, 1.0)
        proprio = np.zeros(PROPRIO_DIM, np.float32)
        proprio[ARM_PROPRIO["left"]] = [*T_base_ee[:3, 3], *geometry.quat_from_matrix(T_base_ee[:3, :3]), open_frac]
        return proprio
