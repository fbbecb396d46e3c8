"""Building one seeded robosuite simulation: our cameras added, placement and looks drawn from the seed.

In: a task, a setting, a seed. Out: a running robosuite environment without a renderer.
Read next: `env.py`, which steps and observes it.

robosuite draws from Python's and numpy's global generators as well as from its own `seed=`, so both are seeded just
before every build. A new build in place of `reset` makes an episode independent of the one before; it costs 0.2 s.
"""

from __future__ import annotations

import functools
import logging
import random
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np

from envs.mujoco.views import look_at, mujoco_quat_from_camera
from envs.robosuite.control import ArmControl
from envs.robosuite.tasks import CONTROL_HZ, TASKS, Spread, StaticCamera, Task
from evalkit.contracts import geometry

CAMERA_SHIFT_M = 0.03
"""How far the setting `randomized` moves a static camera, and the point it looks at, along each axis."""

_BACKDROP = ("floorplane", "table", "walls", "light-wood", "dark-wood")


def build(task: str, *, setting: str, seed: int) -> Any:
    """Return a robosuite environment at the start of the episode of this seed."""
    info = TASKS[task]
    random.seed(seed)
    state = np.random.SeedSequence(seed).generate_state(8)  # legacy seeds are 32 bits, and ours are longer
    np.random.seed(state)  # noqa: NPY002 - robosuite reads the global generator
    env = _scene_class(task, setting != "default")(
        robots=["Panda"] * info.num_arms if info.num_arms > 1 else "Panda",
        has_renderer=False,
        has_offscreen_renderer=False,
        use_camera_obs=False,
        use_object_obs=False,
        control_freq=int(CONTROL_HZ),
        ignore_done=True,
        renderer="mujoco",  # the default one opens a window
        seed=seed,
    )
    if setting == "randomized":
        randomize_looks(env.sim.model._model, info, np.random.default_rng([seed, 1]))
    env.sim.forward()
    return env


@functools.cache
def _scene_class(task: str, wide: bool) -> type:
    """Return robosuite's class of a task, with our cameras and, if asked for, a wider placement."""
    base = _robosuite_class(task)
    info = TASKS[task]

    class Scene(base):  # type: ignore[valid-type,misc]
        def edit_model_xml(self, xml_str: str) -> str:
            return add_cameras(super().edit_model_xml(xml_str), info.cameras)

        def _load_model(self) -> None:
            super()._load_model()
            if wide:
                _widen(self.placement_initializer, info.spread)

        def _reset_internal(self) -> None:
            super()._reset_internal()
            self._arm_controls = [ArmControl(self.sim, robot) for robot in self.robots]

        def _pre_action(self, action: Any, policy_step: bool = False) -> None:
            if policy_step:  # the first of the 25 substeps of a step: robosuite sets the goals
                super()._pre_action(action, policy_step)
                return
            for arm_control in self._arm_controls:
                arm_control.apply_torques()

        def reward(self, action: Any = None) -> float:
            return 0.0  # nothing reads it, and robosuite would judge success for it once more

        def _update_observables(self, force: bool = False) -> None:
            if force:  # robosuite also updates them in each of the 25 substeps of a step; nothing here reads them
                super()._update_observables(force=force)

    Scene.__name__ = f"{task}{'Wide' if wide else ''}Scene"
    return Scene


def _robosuite_class(task: str) -> Any:
    """Import robosuite, which writes to the console at import and afterwards, and return a task's class."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        import robosuite
    finally:
        logging.disable(previous)
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    return robosuite.environments.base.REGISTERED_ENVS[task]


def add_cameras(xml: str, cameras: tuple[StaticCamera, ...]) -> str:
    """Return the model's XML with static cameras added to its world."""
    root = ElementTree.fromstring(xml)
    world = root.find("worldbody")
    assert world is not None
    for camera in cameras:
        quat_wxyz = mujoco_quat_from_camera(look_at(camera.eye_m, camera.target_m))
        attributes = {
            "name": camera.name,
            "mode": "fixed",
            "pos": " ".join(map(repr, camera.eye_m)),
            "quat": " ".join(repr(float(value)) for value in quat_wxyz),
            "fovy": repr(camera.fovy_deg),
        }
        ElementTree.SubElement(world, "camera", attributes)
    return ElementTree.tostring(root, encoding="unicode")


def _widen(placement: Any, spread: Spread) -> None:
    sampler = placement if spread.sampler is None else placement.samplers[spread.sampler]
    sampler.x_range, sampler.y_range = spread.x_m, spread.y_m
    if spread.yaw_rad is not None:
        sampler.rotation = spread.yaw_rad


def randomize_looks(model: Any, task: Task, rng: np.random.Generator) -> None:
    """Draw colours, light and static-camera poses of a compiled model.

    Backdrop (floor, walls, tables, bins) takes any tint; other things keep their hue, because instructions name
    colours, and only get lighter or darker. The robot stays as it is.
    """
    for material in range(model.nmat):
        name = model.material(material).name
        backdrop, shade = rng.uniform(0.35, 1.0, size=3), rng.uniform(0.6, 1.0)
        if name.startswith(_BACKDROP):
            model.mat_rgba[material, :3] = backdrop
        elif not name.startswith("robot"):
            model.mat_rgba[material, :3] *= shade
    model.light_pos[:] += rng.uniform(-0.6, 0.6, size=model.light_pos.shape)
    model.light_dir[:] += rng.uniform(-0.3, 0.3, size=model.light_dir.shape)
    model.light_dir[:] /= np.linalg.norm(model.light_dir, axis=1, keepdims=True)
    model.light_diffuse[:] = rng.uniform(0.45, 0.85)
    model.vis.headlight.diffuse[:] = rng.uniform(0.25, 0.5)
    for camera in task.cameras:
        eye, target = (
            np.array(p) + rng.uniform(-CAMERA_SHIFT_M, CAMERA_SHIFT_M, 3) for p in (camera.eye_m, camera.target_m)
        )
        view = model.camera(camera.name)
        view.pos[:] = eye
        view.quat[:] = mujoco_quat_from_camera(look_at(eye, target))


def read_state(model: Any, data: Any, task: Task, T_base_world: np.ndarray) -> dict[str, np.ndarray]:
    """Return the simulator state that an oracle may read, by key, in the robot base frame."""
    state: dict[str, np.ndarray] = {}
    for item in task.state:
        if item.kind == "pose":
            body = data.body(item.source)
            T_base_body = T_base_world @ geometry.transform(body.xmat.reshape(3, 3), body.xpos)
            values = [T_base_body[:3, 3], geometry.quat_from_matrix(T_base_body[:3, :3])]
        elif item.kind == "site":
            values = [T_base_world[:3, :3] @ data.site(item.source).xpos + T_base_world[:3, 3]]
        elif item.kind == "hinge":
            values = [data.joint(item.source).qpos]
        else:
            values = [model.geom(item.source).size]
        state.update(zip(item.keys, (np.array(value, np.float64) for value in values), strict=True))
    return state


def read_objects(env: Any, T_base_world: np.ndarray) -> dict[str, dict[str, Any]]:
    """Return position, orientation and size of each object of a running robosuite environment, as JSON values.

    Args:
        env: The environment, kinematics up to date.
        T_base_world: 4,4.

    Returns:
        By robosuite's name of the object: `position_m` and `quat_wxyz` in the robot base frame; `radius_m` in the
        plane and `height_m`, as robosuite states them for its placement.
    """
    objects = {}
    for model in env.model.mujoco_objects:
        body = env.sim.data._data.body(model.root_body)
        T_base_body = T_base_world @ geometry.transform(body.xmat.reshape(3, 3), body.xpos)
        objects[model.name] = {
            "position_m": T_base_body[:3, 3].tolist(),
            "quat_wxyz": geometry.quat_from_matrix(T_base_body[:3, :3]).tolist(),
            "radius_m": float(model.horizontal_radius),
            "height_m": float(model.top_offset[2] - model.bottom_offset[2]),
        }
    return objects
