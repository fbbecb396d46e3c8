"""The published evaluations' own way to draw, step and read a kitchen, next to ours; for RoboCasa's interpreter.

In: `xwam` or `cosmos`, a task, an index. Out: one JSON object on stdout, for `test_robocasa_published.py` to judge.

Both evaluations make an env with robosuite's own renderer, reset it once and step it with 12 numbers. X-WAM's release
(evaluation/robocasa_client.py, commit 72cfb86) then reads the pose and the fingers from the robot's controllers and
renders the simulation as it is. Cosmos Policy takes what `step` returns. Only the placeholder art is ours here.
"""

import json
import sys
from typing import Any

import numpy as np
import robosuite
from robosuite.controllers import load_composite_controller_config

from envs.robocasa import scene
from envs.robocasa.bench import RobocasaBench, RobocasaConfig
from envs.robocasa.env import RobocasaEnv
from envs.robocasa.protocols import PROTOCOLS
from envs.robocasa.tasks import CAMERAS
from evalkit.contracts import geometry

SEED = {"xwam": 0, "cosmos": 195}
NUM_EPISODES = {"xwam": 100, "cosmos": 50}
NUM_STEPS = 8
NAMES = [camera.name for camera in CAMERAS]


def moves() -> np.ndarray:
    """Return fast arm motions, N,14, with the gripper closing."""
    actions = np.zeros((NUM_STEPS, 14), np.float32)
    actions[:, :6] = np.random.default_rng(3).uniform(-1, 1, (NUM_STEPS, 6))
    actions[:, 6] = -1
    return actions


def planned_seed(protocol: str, task: str, index: int) -> int:
    config = RobocasaConfig(protocol=protocol)
    episodes = RobocasaBench().plan_episodes(
        config, task=task, setting="default", num_episodes=NUM_EPISODES[protocol], seed=SEED[protocol]
    )
    return episodes[index].seed


def ours(protocol: str, task: str, seed: int) -> dict[str, Any]:
    """Return what our env gives before the first and after every step."""
    size = PROTOCOLS[protocol].image_hw_px
    env = RobocasaEnv(task=task, protocol=protocol, art="placeholder", image_hw_px=size, antialias_samples=4)
    env.begin(seed=seed, max_steps=100)
    seen = [env.observe(render=True)]
    for action in moves():
        env.advance(action)
        seen.append(env.observe(render=True))
    facts = {"seen": seen, "qpos": env._data.qpos.copy(), **drawn(env._sim)}
    env.close()
    return facts


def drawn(env: Any) -> dict[str, Any]:
    meta = env.get_ep_meta()
    return {
        "sentence": meta["lang"],
        "kitchen": [meta["layout_id"], meta["style_id"]],
        "objects": [config["info"]["mjcf_path"] for config in meta["object_cfgs"]],
        "num_positions": int(env.sim.model.nq),
    }


def made(task: str, seed: int, kitchens: Any, **settings: Any) -> Any:
    """Return robosuite's env of a task, made as both evaluations make it."""
    kitchen = scene._scene_class(task, True)
    return robosuite.make(
        env_name=next(name for name, known in robosuite.environments.REGISTERED_ENVS.items() if known is kitchen),
        robots="PandaOmron",
        controller_configs=load_composite_controller_config(controller=None, robot="PandaOmron"),
        camera_names=NAMES,
        has_renderer=False,
        has_offscreen_renderer=True,
        ignore_done=True,
        use_object_obs=True,
        camera_depths=False,
        seed=seed,
        obj_instance_split="B",
        generative_textures=None,
        randomize_cameras=False,
        layout_and_style_ids=kitchens,
        translucent_robot=False,
        **settings,
    )


def xwams(task: str, seed: int) -> dict[str, Any]:
    """Return what X-WAM's release draws and reads; it seeds nothing but the env."""
    kitchens = ((1, 1), (2, 2), (4, 4), (6, 9), (7, 10))
    env = made(task, seed, kitchens, camera_widths=256, camera_heights=256, use_camera_obs=False)
    env.reset()
    parts = env.robots[0].composite_controller.part_controllers
    base2world = np.eye(4)
    base2world[:3, :3], base2world[:3, 3] = parts["right"].origin_ori, parts["right"].origin_pos
    seen = [read(env, base2world)]
    for action in moves():
        env.step(np.r_[action[:6], -action[6], np.zeros(5)])
        seen.append(read(env, base2world))
    return {"seen": seen, "qpos": np.array(env.sim.data.qpos), **drawn(env)}


def read(env: Any, base2world: np.ndarray) -> dict[str, Any]:
    parts = env.robots[0].composite_controller.part_controllers
    eef2world = np.eye(4)
    eef2world[:3, :3], eef2world[:3, 3] = parts["right"].ref_ori_mat, parts["right"].ref_pos
    fingers = parts["right_gripper"]
    images = [env.sim.render(height=256, width=256, camera_name=name)[::-1] for name in NAMES]
    eef2base = np.linalg.inv(base2world) @ eef2world
    return {
        "rgb": np.stack(images),
        "position_m": eef2base[:3, 3],
        "rotation": eef2base[:3, :3],
        "gripper": fingers.joint_pos[0] / fingers.actuator_max[0],
    }


def cosmoss(task: str, index: int) -> dict[str, Any]:
    """Return what Cosmos Policy's evaluation draws and reads; it seeds numpy once, before the first episode."""
    np.random.seed(SEED["cosmos"])  # noqa: NPY002
    size = {"camera_widths": 224, "camera_heights": 224, "use_camera_obs": True}
    for episode in range(index + 1):
        kitchens = (PROTOCOLS["cosmos"].start(planned_seed("cosmos", task, episode)).scenes[0],)
        env = made(task, SEED["cosmos"] * episode * 256, kitchens, **size)
        env.reset()
        if episode < index:
            env.close()
    tail = [0.0, 0.0, 0.0, 0.0, -1.0]
    for _ in range(10):
        observed = env.step(np.zeros(12))[0]
    data = env.sim.data._data.site("robot0_right_center")
    T_base_world = geometry.inverse(geometry.transform(data.xmat.reshape(3, 3), data.xpos))
    seen = [returned(observed, T_base_world)]
    for action in moves():
        seen.append(returned(env.step(np.r_[action[:6], -action[6], tail])[0], T_base_world))
    return {"seen": seen, "qpos": np.array(env.sim.data.qpos), **drawn(env)}


def returned(observed: Any, T_base_world: np.ndarray) -> dict[str, Any]:
    return {
        "rgb": np.stack([observed[f"{name}_image"][::-1] for name in NAMES]),
        "position_m": (T_base_world @ np.r_[observed["robot0_eef_pos"], 1.0])[:3],
        "rotation": None,  # that of another site
        "gripper": observed["robot0_gripper_qpos"][0] / 0.04,
    }


def compared(mine: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Return how far the two are apart, over all observations."""
    pairs = list(zip(mine["seen"], theirs["seen"], strict=True))
    turned = [(geometry.ee_pose_from_proprio(one["proprio"][:8]), two["rotation"]) for one, two in pairs]
    return {
        "same_draw": [mine[key] == theirs[key] for key in ("sentence", "kitchen", "objects", "num_positions")],
        "drawn": {key: mine[key] for key in ("sentence", "kitchen", "num_positions")},
        "same_motion": bool((mine["qpos"] == theirs["qpos"]).all()),
        "different_pixels": [int((one["rgb"] != two["rgb"]).any(-1).sum()) for one, two in pairs],
        "different_grippers": int(sum(np.float32(two["gripper"]) != one["proprio"][7] for one, two in pairs)),
        "position_error_m": max(np.abs(np.float32(two["position_m"]) - one["proprio"][:3]).max() for one, two in pairs),
        "wrist_camera_error": max(
            np.abs(pose @ np.array(CAMERAS[2].T_ee_cam) - one["T_base_cam"][2]).max()
            for (one, _), (pose, _) in zip(pairs, turned, strict=True)
        ),
        "rotation_error": max(
            np.abs(ours[:3, :3] - theirs).max() if theirs is not None else 0 for ours, theirs in turned
        ),
    }


def measure(protocol: str, task: str, index: int) -> dict[str, Any]:
    seed = planned_seed(protocol, task, index)
    mine = ours(protocol, task, seed)
    return compared(mine, xwams(task, seed) if protocol == "xwam" else cosmoss(task, index))


if __name__ == "__main__":
    facts = measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    print(json.dumps({"robosuite": robosuite.__version__, **facts}, default=float))
