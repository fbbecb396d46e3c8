"""RoboCasa's own numbers next to those of our env; a script for RoboCasa's interpreter, which may have no pytest.

In: a task. Out: one JSON object of measured differences on stdout, for `test_robocasa_env.py` to judge.
"""

import json
import sys
from typing import Any

import mujoco
import numpy as np

from envs.mujoco.views import ViewRenderer
from envs.robocasa import scene
from envs.robocasa.bench import RobocasaBench, RobocasaConfig
from envs.robocasa.env import RobocasaEnv
from envs.robocasa.protocols import PROTOCOLS
from envs.robocasa.tasks import CAMERAS
from evalkit.contracts import geometry
from evalkit.contracts.errors import EvalkitError
from tests.doubles.planes import plane_errors

SEED = 1_000_003
SIZE_PX = 96

COUNTER_HEIGHT_M = 0.92
"""Top of RoboCasa's counters above its floor, which is at 0."""


def make(task: Any, **changes: Any) -> Any:
    settings: dict[str, Any] = {"protocol": "standard", "art": "placeholder", "image_hw_px": (SIZE_PX, SIZE_PX)}
    return RobocasaEnv(task=task, **(settings | {"antialias_samples": 4} | changes))


def wiggle(env: Any, num_steps: Any) -> None:
    """Move at random, which takes arm and wrist camera to poses of no symmetry."""
    for action in np.random.default_rng(0).uniform(-1, 1, (num_steps, 14)).astype(np.float32):
        env.advance(action)


def controller(env: Any) -> Any:
    return env._sim.robots[0].composite_controller.part_controllers["right"]


def cameras(env: Any, observation: Any) -> Any:
    """Return how far poses and matrices are from robosuite's getters, and the wrist's from the hand-eye constant."""
    from robosuite.utils.camera_utils import get_camera_extrinsic_matrix, get_camera_intrinsic_matrix

    sim, poses, matrices = env._sim.sim, [], []
    for view, camera in enumerate(CAMERAS):
        theirs = env._T_base_world @ get_camera_extrinsic_matrix(sim, camera.name)
        poses.append(np.abs(observation["T_base_cam"][view] - theirs).max())
        K = get_camera_intrinsic_matrix(sim, camera.name, SIZE_PX, SIZE_PX)
        K[:2, 2] -= 0.5  # robosuite puts the origin on the corner of the first pixel
        matrices.append(np.abs(observation["intrinsics"][view] - K).max())
    site = env._data.site("gripper0_right_grip_site")
    T_world_ee = geometry.transform(site.xmat.reshape(3, 3), site.xpos)
    raw = env._data.camera("robot0_eye_in_hand")
    T_world_cam = geometry.transform(raw.xmat.reshape(3, 3) @ np.diag([1.0, -1.0, -1.0]), raw.xpos)
    hand_eye = geometry.inverse(T_world_ee) @ T_world_cam
    predicted = geometry.ee_pose_from_proprio(observation["proprio"][:8]) @ np.array(CAMERAS[2].T_ee_cam)
    return {
        "camera_pose": max(poses),
        "intrinsics": max(matrices),
        "fovy": [float(env._model.camera(camera.name).fovy[0]) for camera in CAMERAS],
        "hand_eye": np.abs(hand_eye - np.array(CAMERAS[2].T_ee_cam)).max(),
        "wrist_from_proprio": np.abs(predicted - observation["T_base_cam"][2]).max(),
    }


def origin(env: Any) -> Any:
    """Return the pose of the controller's origin in the world: where the release puts the base frame."""
    pose = env._sim.robots[0].composite_controller.get_controller_base_pose("right")
    return geometry.transform(pose[1], pose[0])


def proprio(env: Any, observation: Any) -> Any:
    """Return how far the state is from what the arm's controller says, in the base frame of the reset."""
    arm = controller(env)
    arm.update(force=True)
    T_base_ee = env._T_base_world @ geometry.transform(arm.ref_ori_mat, arm.ref_pos)
    ours = geometry.ee_pose_from_proprio(observation["proprio"][:8])
    fingers = env._sim.robots[0].composite_controller.part_controllers["right_gripper"]
    fingers.update(force=True)
    return {
        "ee_pose": np.abs(ours - T_base_ee).max(),
        "gripper": abs(observation["proprio"][7] - fingers.joint_pos[0] / fingers.actuator_max[0]),
        "absent_arm": np.abs(observation["proprio"][8:]).max(),
    }


def unit_actions(env: Any) -> Any:
    """Return how far the controller's goal is from where a unit action should put it, m and rad, over six axes."""
    errors = []
    for axis in range(6):
        env.observe(render=False)  # brings kinematics up to date
        site = env._data.site("gripper0_right_grip_site")
        T_world_ee = geometry.transform(site.xmat.reshape(3, 3), site.xpos)
        before = geometry.inverse(origin(env)) @ T_world_ee
        action = np.zeros(14, np.float32)
        action[axis] = 1.0
        env.advance(action)
        arm, unit = controller(env), np.eye(6)[axis]
        turned = geometry.rotvec_from_matrix(np.asarray(arm.goal_ori) @ before[:3, :3].T)
        errors.append(np.abs(np.r_[arm.goal_pos - before[:3, 3] - 0.05 * unit[:3], turned - 0.5 * unit[3:]]).max())
    return max(errors)


def opacity(model: Any, geom: Any) -> Any:
    material = model.geom_matid[geom]
    return model.mat_rgba[material, 3] if material >= 0 else model.geom_rgba[geom, 3]


def depth(env: Any, observation: Any) -> Any:
    """Return how far depth is from rays that MuJoCo casts through pixel centres: median, and share beyond 1 cm.

    Rays that end on glass are left out: images and depth show the surface behind it.
    """
    T_world_base, errors = geometry.inverse(env._T_base_world), []
    drawn = np.array([0, 1, 1, 0, 0, 0], np.uint8)
    for view in range(3):
        T_world_cam = T_world_base @ observation["T_base_cam"][view]
        K, metres = observation["intrinsics"][view], observation["depth"][view]
        for v in range(3, SIZE_PX, 7):
            for u in range(3, SIZE_PX, 7):
                ray = T_world_cam[:3, :3] @ [(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], 1.0]
                geom = np.zeros(1, np.int32)
                hit = mujoco.mj_ray(env._model, env._data, T_world_cam[:3, 3], ray, drawn, 1, -1, geom)
                if hit < 0:
                    errors.append(float(metres[v, u]))  # nothing there: 0
                elif opacity(env._model, geom[0]) == 1:
                    errors.append(abs(hit - metres[v, u]))  # the ray's z is 1, so its length counts depth
    return {"median": float(np.median(errors)), "beyond_1cm": float(np.mean(np.array(errors) > 0.01))}


def planes(env: Any) -> Any:
    """Return the errors of depth on RoboCasa's counters and floor, in closed form, by number of colour samples."""
    R_base_world, errors = env._T_base_world[:3, :3], {}
    for samples in (0, 2, 4, 8):
        env._renderer.close()
        env._renderer = ViewRenderer(image_hw_px=(SIZE_PX, SIZE_PX), antialias_samples=samples, as_robosuite=True)
        observation = env.observe(render=True)
        errors[samples] = [
            plane_errors(
                observation["depth"][view],
                observation["intrinsics"][view],
                observation["T_base_cam"][view],
                normal=R_base_world @ [0.0, 0.0, 1.0],
                point_m=env._T_base_world[:3, 3] + R_base_world @ [0.0, 0.0, height_m],
            )._asdict()
            for view in range(3)
            for height_m in (COUNTER_HEIGHT_M, 0.0)
        ]
    return errors


def joints_move_their_parts(env: Any, task: Any) -> Any:
    """Return how far parts are from where their published joints and axes put them after a small move, metres."""
    from envs.robocasa.state import _Reader
    from envs.robocasa.tasks import TASKS

    errors, state = [], TASKS[task].state
    parts = {item.name: item for item in state if item.kind == "geom"}
    for item in (item for item in state if item.kind == "joint"):
        part = parts.get(item.name) or parts[f"{item.name}_handle"]
        before = env.observe(render=False)["privileged"]
        name = _Reader(env._sim, env._T_base_world)._name(item, env._model.joint)
        turn, axis = 0.01, before[f"{item.name}_axis"]
        env._data.joint(name).qpos[0] += turn
        after = env.observe(render=False)["privileged"]
        env._data.joint(name).qpos[0] -= turn
        arm = before[f"{part.name}_pos_m"] - before[f"{item.name}_axis_pos_m"]
        slides = env._model.joint(name).type[0] == mujoco.mjtJoint.mjJNT_SLIDE
        expected = (
            axis * turn
            if slides
            else np.cross(axis, arm) * np.sin(turn) + (1 - np.cos(turn)) * np.cross(axis, np.cross(axis, arm))
        )
        errors.append(np.abs(after[f"{part.name}_pos_m"] - before[f"{part.name}_pos_m"] - expected).max())
        errors.append(abs(after[f"{item.name}_joint"][0] - before[f"{item.name}_joint"][0] - turn))
    return max(errors)


def gripper(env: Any) -> Any:
    """Return the open fraction after closing and after opening for two seconds."""
    fractions = []
    for sign in (-1, 1):
        for _ in range(40):
            env.advance(np.array([0, 0, 0, 0, 0, 0, sign] + [0] * 7, np.float32))
        fractions.append(float(env.observe(render=False)["proprio"][7]))
    return fractions


def looking_changes_nothing(env: Any) -> Any:
    ends = []
    for render in (False, True):
        env.begin(seed=SEED, max_steps=50)
        for step in range(6):
            env.advance(np.array([np.sin(step), 0.3, 0, 0, 0, 0.2, 1] + [0] * 7, np.float32))
            if render:
                env.observe(render=True)
        ends.append(env._data.qpos.copy())
    return bool((ends[0] == ends[1]).all())


def blow_up(env: Any) -> Any:
    env._data.qvel[:] = 1e12
    try:
        env.advance(np.zeros(14, np.float32))
    except FloatingPointError as error:
        return str(error)
    return ""


def solved_at_reset(env: Any) -> Any:
    """Return what `begin` says of an episode whose goal is met before the first step, by protocol; then `advance`."""
    built = scene.build

    def solved(*args: Any, **kwargs: Any) -> Any:
        simulation = built(*args, **kwargs)
        simulation._check_success = lambda: True
        return simulation

    scene.build = solved
    try:
        says = []
        for name in ("standard", "xwam"):
            env._protocol = PROTOCOLS[name]
            says.append(env.begin(seed=SEED, max_steps=10))
        return [*says, env.advance(np.zeros(14, np.float32))]
    finally:
        scene.build, env._protocol = built, PROTOCOLS["standard"]


def pixels(env: Any, observation: Any) -> Any:
    """Return how many pixels differ from those of robosuite's own renderer; our context is gone by then."""
    from robosuite.utils.binding_utils import MjRenderContextOffscreen

    simulation, env._sim = env._sim, None
    env.close()
    simulation.sim.model._model.vis.quality.offsamples = 4
    MjRenderContextOffscreen(simulation.sim, device_id=-1)
    simulation.sim._render_context_offscreen.vopt.geomgroup[0] = 0
    different = 0
    for view, camera in enumerate(CAMERAS):
        theirs = simulation.sim.render(height=SIZE_PX, width=SIZE_PX, camera_name=camera.name)[::-1]
        different += int((theirs != observation["rgb"][view]).any(axis=-1).sum())
    return different


def measure(task: Any) -> Any:
    env = make(task)
    try:
        make(task)
        second = ""
    except EvalkitError as error:
        second = str(error)
    started = env.begin(seed=SEED, max_steps=100)
    base_at_reset = np.abs(env._T_base_world @ origin(env) - np.eye(4)).max()
    kitchen = [env._sim.layout_id, env._sim.style_id]
    wiggle(env, 8)
    observation = env.observe(render=True)
    facts = {
        "second_env": second,
        "solved": started,
        "kitchen": kitchen,
        "instruction": [observation["instruction"], env._sim.get_ep_meta()["lang"]],
        "robot": [env._sim.robots[0].name, env._sim.action_dim, env._sim.control_freq],
        "cameras": cameras(env, observation),
        "proprio": proprio(env, observation),
        "base_at_reset": base_at_reset,
        "base_moved": np.abs(env._T_base_world @ origin(env) - np.eye(4)).max(),
        "depth": depth(env, observation),
        "state": {key: value.tolist() for key, value in observation["privileged"].items()},
        "joints_move_their_parts": joints_move_their_parts(env, task),
        "unit_actions": unit_actions(env),
        "gripper": gripper(env),
        "looking_changes_nothing": looking_changes_nothing(env),
        "blow_up": blow_up(env),
        "solved_at_reset": solved_at_reset(env),
    }
    env.begin(seed=SEED, max_steps=10)
    facts["planes"] = planes(env)
    env._renderer.close()
    env._renderer = ViewRenderer(image_hw_px=(SIZE_PX, SIZE_PX), antialias_samples=4, as_robosuite=True)
    facts["different_pixels"] = pixels(env, env.observe(render=True))
    env.close()
    return facts


def saved_kitchens(task: Any) -> Any:
    """Return, for each kitchen, its number and the sizes of its model, and of the same saved and loaded."""
    config = RobocasaConfig(protocol="cosmos", art="placeholder")  # its kitchen changes every ten episodes
    episodes = RobocasaBench().plan_episodes(config, task=task, setting="default", num_episodes=50, seed=195)
    env, sizes = make(task, protocol="cosmos"), []
    for episode in episodes[::10]:
        env.begin(seed=episode.seed, max_steps=10)
        loaded = mujoco.MjModel.from_xml_string(env._sim.sim.model.get_xml())
        sizes.append([env._sim.layout_id, *([model.nq, model.nv, model.nbody] for model in (env._model, loaded))])
    env.close()
    return sizes


if __name__ == "__main__":
    function = {"measure": measure, "saved_kitchens": saved_kitchens}[sys.argv[1]]
    print(json.dumps(function(sys.argv[2]), default=float))
