"""One RoboCasa task as an env: begin, advance, observe, close. It runs in RoboCasa's own interpreter.

In: 14-number actions along the base axes, seeds. Out: RGB-D, camera matrices, proprio, more states of the robot, state
for oracles.
Read next: `scene.py`, how an episode is built; `state.py`, what oracles may read; `../mujoco/observed.py`,
how it is observed.

Needs numpy and msgpack in addition to RoboCasa, Python 3.10 or 3.11. The base frame is that of the arm's controller,
the foot of the Panda, when the episode begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from envs.mujoco.observed import ObservedEnv
from envs.mujoco.views import ViewRenderer, check_gl
from envs.robocasa import scene
from envs.robocasa.protocols import PROTOCOLS
from envs.robocasa.robot_state import read_robot_state
from envs.robocasa.state import read_state
from envs.robocasa.tasks import TASKS, env_spec
from evalkit.contracts import geometry
from evalkit.contracts.types import ARM_ACTION, ARM_PROPRIO, PROPRIO_DIM

GRIP_SITE = "gripper0_right_grip_site"
BASE_SITE = "robot0_right_center"
FINGER_JOINT = "gripper0_right_finger_joint1"

FINGER_OPEN_M = 0.04
"""Where a finger's actuator stops; the state's gripper number is the first finger's position over it, not clipped."""


class RobocasaEnv(ObservedEnv):
    """One task; satisfies `evalkit.contracts.env.Env`. There is one per process.

    The action's gripper number acts by its sign: positive opens and negative closes by a fifth of the range per step.
    The base and the torso stand still, as in every published protocol.

    Args:
        task: Name of a task.
        protocol: Name of a protocol.
        art: `real`, or `placeholder` for stand-ins.
        image_hw_px: Height and width of every view.
        antialias_samples: Samples per pixel.
    """

    def __init__(
        self, *, task: str, protocol: str, art: str, image_hw_px: Sequence[int], antialias_samples: int
    ) -> None:
        check_gl()  # without the library, importing RoboCasa fails with an error that does not name it
        robocasa = scene.import_robocasa()
        if art == "real":
            scene.check_art()
        height, width = image_hw_px
        renderer = ViewRenderer(image_hw_px=(height, width), antialias_samples=antialias_samples, as_robosuite=True)
        super().__init__(env_spec(task, image_hw_px=(height, width)), renderer)
        self._task, self._protocol, self._placeholder = task, PROTOCOLS[protocol], art == "placeholder"
        self._solved_at_start = False
        self.about |= {"robocasa": robocasa.__version__, "art": art}

    def begin(self, *, seed: int, max_steps: int) -> bool:
        """Build the episode of this seed; return whether it starts solved and the protocol does not run it then."""
        self._drop_simulation()
        self._sim = scene.build(self._task, protocol=self._protocol, placeholder=self._placeholder, seed=seed)
        self._instruction = str(self._sim.get_ep_meta()["lang"])
        self._update_kinematics()
        self._T_base_world = geometry.inverse(self._base_pose())
        self._check_stable()
        self._solved_at_start = bool(self._sim._check_success())
        return self._solved_at_start and not self._protocol.may_start_solved

    @property
    def scene(self) -> dict[str, Any]:
        """The kitchen and what stands in it, JSON values; whether the goal was met at the start, if so."""
        drawn = scene.describe(self._sim.get_ep_meta())
        return {**drawn, "solved_at_start": True} if self._solved_at_start else drawn

    def advance(self, action: np.ndarray) -> bool:
        """Execute one action for 50 ms; return whether the goal is met."""
        self._sim.step(self._simulator_action(np.asarray(action, np.float64)))
        self._check_stable()
        return bool(self._sim._check_success())

    def _check_stable(self) -> None:
        """Fail on an unstable simulation; MuJoCo itself only counts a warning and resets.

        Raises:
            FloatingPointError: With the step at which it happened.
        """
        import mujoco

        for kind in ("BADQPOS", "BADQVEL", "BADQACC"):
            warning = self._data.warning[int(getattr(mujoco.mjtWarning, f"mjWARN_{kind}"))]
            if warning.number:
                raise FloatingPointError(
                    f"the simulation became unstable at {self._data.time:.2f} s "
                    f"({kind}, degree of freedom {warning.lastinfo})"
                )

    def _simulator_action(self, action: np.ndarray) -> np.ndarray:
        """Return RoboCasa's 12 numbers: arm 6, gripper (+1 closes), base 3, torso 1, mode 1."""
        move = action[ARM_ACTION["left"]]
        return np.concatenate([move[:6], [-move[6]], self._protocol.base_action])

    def _update_kinematics(self) -> None:
        if self._protocol.observes == "current":
            super()._update_kinematics()

    def _base_pose(self) -> np.ndarray:
        """Return 4,4 `T_world_base`."""
        if self._protocol.observes != "controller":
            return self._site_pose(BASE_SITE)
        arm = self._controllers["right"]
        return geometry.transform(arm.origin_ori, arm.origin_pos)

    def _proprio(self) -> np.ndarray:
        if self._protocol.observes == "controller":
            arm, fingers = self._controllers["right"], self._controllers["right_gripper"]
            T_world_ee = geometry.transform(arm.ref_ori_mat, arm.ref_pos)
            open_frac = fingers.joint_pos[0] / fingers.actuator_max[0]
        else:
            T_world_ee = self._site_pose(GRIP_SITE)
            open_frac = self._data.joint(FINGER_JOINT).qpos[0] / FINGER_OPEN_M
        T_base_ee = self._T_base_world @ T_world_ee
        proprio = np.zeros(PROPRIO_DIM, np.float32)
        proprio[ARM_PROPRIO["left"]] = [*T_base_ee[:3, 3], *geometry.quat_from_matrix(T_base_ee[:3, :3]), open_frac]
        return proprio

    @property
    def _controllers(self) -> Any:
        """The controllers of the robot's parts, by name; they hold what they read before the last substep."""
        return self._sim.robots[0].composite_controller.part_controllers

    def _privileged(self) -> dict[str, np.ndarray]:
        items = TASKS[self._task].state
        return {**read_state(self._sim, items, self._T_base_world), **read_robot_state(self._data)}
