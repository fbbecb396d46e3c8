"""RoboTwin's own numbers next to those of our env; a script for RoboTwin's interpreter, which may have no pytest.

In: the name of a function, a root of RoboTwin, further arguments as JSON. Out: one JSON object of measurements as the
last line of stdout, for `test_robotwin_env.py` and `test_robotwin_scenes.py` to judge.
"""

import contextlib
import copy
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.contracts.worker.start import PlacedPackages

REPOSITORY = Path(__file__).resolve().parents[2]
SEED = 100000


def make(root: Any, task: Any, **changes: Any) -> Any:
    """Return our env of a task; the process is then in RoboTwin's folder, as a worker is."""
    if not any(isinstance(finder, PlacedPackages) for finder in sys.meta_path):
        places = {"envs": f"{root}/envs", "evalkit_envs": str(REPOSITORY / "envs")}
        sys.meta_path.insert(0, PlacedPackages(places))
        os.chdir(root)
    from evalkit_envs.robotwin.env import RobotwinEnv

    settings: dict[str, Any] = {"setting": "clean", "layout": "ee_pose_base", "planner": "cpu", "renderer": "raster"}
    return RobotwinEnv(task=task, root=str(root), **(settings | {"shadows": False, "decimate": "none"} | changes))


def hold(observation: Any, moved_m: Any = (0.0, 0.0, 0.0)) -> Any:
    """Return the action to the present poses, with both arms moved."""
    from evalkit.contracts import geometry

    action = np.zeros(14, np.float32)
    for arm in range(2):
        T_base_ee = geometry.ee_pose_from_proprio(observation["proprio"][8 * arm : 8 * arm + 8])
        action[7 * arm : 7 * arm + 3] = T_base_ee[:3, 3] + moved_m
        action[7 * arm + 3 : 7 * arm + 6] = geometry.rotvec_from_matrix(T_base_ee[:3, :3])
        action[7 * arm + 6] = observation["proprio"][8 * arm + 7]
    return action


def wiggle(env: Any, num_steps: Any = 3) -> Any:
    """Move both arms to poses of no symmetry and return the observation."""
    for move in ((0.02, 0.05, -0.04), (-0.03, 0.06, 0.05), (0.04, -0.05, 0.03))[:num_steps]:
        env.advance(hold(env.observe(render=False), move))
    return env.observe(render=True)


def robotwins_observation(scene: Any) -> Any:
    """Return what RoboTwin's own `get_obs` gives, which renders all its cameras."""
    from envs._base_task import Base_Task

    return Base_Task.get_obs(scene)


def observation(root: Any, task: Any) -> Any:
    """Return how far our observation is from RoboTwin's own, at the start and after moves."""
    env = make(root, task)
    env.begin(seed=SEED, max_steps=10)
    differences = [compare(env, env.observe(render=True))]
    differences.append(compare(env, wiggle(env)))
    return {name: max(each[name] for each in differences) for name in differences[0]} | {"counters": env.counters()}


def compare(env: Any, ours: Any) -> Any:
    from evalkit.contracts import geometry

    theirs, errors = robotwins_observation(env._current), {}
    for view, camera in enumerate(env.spec.cameras):
        own = theirs["observation"][camera.name]
        T_cam_world = geometry.inverse(ours["T_base_cam"][view])[:3]
        centred = own["intrinsic_cv"] - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]
        mm = (ours["depth"][view] * np.float32(1000)).astype(np.float64)
        errors[camera.name] = {
            "rgb": int(np.abs(own["rgb"].astype(int) - ours["rgb"][view]).max()),
            "depth_mm": float(np.abs(own["depth"] - mm).max()),
            "extrinsics": float(np.abs(own["extrinsic_cv"] - T_cam_world).max()),
            "intrinsics": float(np.abs(centred - ours["intrinsics"][view]).max()),
        }
        if camera.arm is not None:
            column = 8 * ("left", "right").index(camera.arm)
            T_base_ee = geometry.ee_pose_from_proprio(ours["proprio"][column : column + 8])
            T_base_cam = T_base_ee @ np.array(camera.T_ee_cam)
            errors[camera.name]["hand_eye"] = float(np.abs(T_base_cam - ours["T_base_cam"][view]).max())
    pose, proprio = theirs["endpose"], []
    for arm in ("left", "right"):
        quat = np.array(pose[f"{arm}_endpose"][3:]) * (-1 if pose[f"{arm}_endpose"][3] < 0 else 1)
        proprio += [*pose[f"{arm}_endpose"][:3], *quat, pose[f"{arm}_gripper"]]
    flat = {name: max(each.get(name, 0) for each in errors.values()) for name in ("rgb", "depth_mm", "hand_eye")}
    flat |= {name: max(each[name] for each in errors.values()) for name in ("extrinsics", "intrinsics")}
    return flat | {"proprio": float(np.abs(np.array(proprio, np.float32) - ours["proprio"]).max())}


def record(root: Any, task: Any, path: Any, sentences: Any) -> Any:
    """Write frames as RoboTwin's data collection writes them, and our observations of the same moments to an .npz."""
    env = make(root, task)
    from envs.utils import pkl2hdf5 as writer

    env.begin(seed=SEED, max_steps=10)
    merged, ours = None, []
    for num_steps in range(4):
        ours.append(wiggle(env, 1) if num_steps else env.observe(render=True))
        theirs = {**robotwins_observation(env._current), "pointcloud": []}
        merged = writer.parse_dict_structure(theirs) if merged is None else merged
        writer.append_data_to_structure(merged, theirs)
    Path(path).parent.mkdir(parents=True)
    if hasattr(writer, "create_xpolicylab_hdf5"):
        writer.create_xpolicylab_hdf5(merged, path, sentences, 15)
    else:
        import h5py

        with h5py.File(path, "w") as file:
            writer.create_hdf5_from_dict(file, merged)
    names = ("rgb", "depth", "intrinsics", "T_base_cam", "proprio")
    np.savez(f"{path}.npz", **{name: np.stack([observation[name] for observation in ours]) for name in names})
    return len(ours)


def expert_motion(root: Any, task: Any, seed: Any) -> Any:
    """Return the expert's measured states, T,16, and joint targets, T,14, every 15 physics steps of an episode."""
    env, joints = make(root, task, expert=True), []
    from evalkit_envs.robotwin import expert
    from evalkit_envs.robotwin.env import joint_position

    measured = expert.measured_poses

    def noting(scene: Any) -> Any:
        joints.append(joint_position(scene).tolist())
        return measured(scene)

    expert.measured_poses = noting
    env.begin(seed=seed, max_steps=10)
    states = env.observe(render=False)["privileged"]["expert_ee_world"]
    return {"states": np.asarray(states).reshape(len(joints), -1).tolist(), "joints": joints}


def pixels(root: Any) -> Any:
    """Return where known points are drawn: SAPIEN's positions of all pixels, and the middle of a red block's top."""
    env = make(root, "stack_blocks_two")
    env.begin(seed=SEED, max_steps=10)
    seen = env.observe(render=True)
    camera, K = env._current.cameras.static_camera_list[0], seen["intrinsics"][0]
    position = np.array(camera.get_picture("Position")[..., :3], np.float64)
    rows, columns = np.indices(position.shape[:2])
    u = K[0, 0] * position[..., 0] / -position[..., 2] + K[0, 2]
    v = K[1, 1] * -position[..., 1] / -position[..., 2] + K[1, 2]
    x, y, z = env._current.block1.get_pose().p
    x, y, z, _ = np.linalg.inv(seen["T_base_cam"][0]) @ [x, y, z + 0.025, 1.0]
    row, column = round(K[1, 1] * y / z + K[1, 2]), round(K[0, 0] * x / z + K[0, 2])
    return {
        "u_error_px": float(np.abs(u - columns).max()),
        "v_error_px": float(np.abs(v - rows).max()),
        "block_rgb": seen["rgb"][0, row, column].tolist(),
        "block_depth_error_m": float(abs(seen["depth"][0, row, column] - z)),
    }


def hashes(root: Any, task: Any, seeds: Any, setting: Any = "clean", watched: Any = False) -> Any:
    """Return hashes of state, first frame and a later frame of some seeds in this order in one process.

    With `watched`, the scene is observed between the steps too.
    """
    from evalkit.contracts.worker.fingerprint import hash_arrays

    env, result = make(root, task, setting=setting), {}
    for seed in seeds:
        env.begin(seed=seed, max_steps=10)
        state, first = hash_arrays(env.state()), env.observe(render=True)
        unchanged = hash_arrays(env.state()) == state
        for _ in range(2):
            env.advance(hold(env.observe(render=watched), (0.01, 0.02, -0.02)))
        frames = [
            hash_arrays({k: o[k] for k in ("rgb", "depth", "T_base_cam", "proprio")})
            for o in (first, env.observe(render=True))
        ]
        result[str(seed)] = [state, *frames, hash_arrays(env.state()), unchanged]
    return result


def actions(root: Any) -> Any:
    """Return what single actions do: an unreachable pose, success and settling, joint angles."""
    env = make(root, "click_bell")
    env.begin(seed=SEED, max_steps=10)
    start = env.observe(render=False)
    before = env._current.physics_steps
    env.advance(hold(start, (5.0, 0.0, 0.0)))
    failed = {"counters": env.counters(), "steps": env._current.physics_steps - before}
    task = sys.modules["envs.click_bell"].click_bell
    task.check_success = lambda scene: True
    before = env._current.physics_steps
    met = env.advance(hold(start, (0.0, 0.05, 0.0)))
    at_success = env._current.physics_steps - before
    settled = env.advance(hold(env.observe(render=False)))
    fell = env._current.physics_steps - before - at_success
    task.check_success = lambda scene: False
    lost = env.advance(hold(env.observe(render=False)))
    return {"failed": failed, "met": met, "at_success": at_success, "settled": settled, "settling": fell, "lost": lost}


def remembered(root: Any, task: Any) -> Any:
    """Return what a settling step says of a goal that RoboTwin remembers as met, with the arms far from it."""
    env = make(root, task)
    env.begin(seed=SEED, max_steps=10)
    action = hold(env.observe(render=False))
    env._current.stage_success_tag = True
    met = env.advance(action)
    return {"met": met, "holds": env.advance(action)}


def ray_tracing(root: Any) -> Any:
    """Return what SAPIEN is set to in a scene of RoboTwin, and what the record says; no image is rendered."""
    import sapien

    env = make(root, "click_bell", renderer="rt")
    env.begin(seed=SEED, max_steps=10)
    names = ("samples_per_pixel", "path_depth", "denoiser")
    values = [getattr(sapien.render, f"get_ray_tracing_{name}")() for name in names]
    return {"set": values, "shader": env.about["shader"], "denoiser": env.about["denoiser"]}


def joints(root: Any) -> Any:
    """Return how joints follow the layout `joint_position`."""
    env = make(root, "click_bell", layout="joint_position")
    env.begin(seed=SEED, max_steps=10)
    start = env.observe(render=False)
    commanded = start["privileged"]["joint_position"]
    env.advance(commanded.astype(np.float32))
    held = env.observe(render=False)
    target = commanded.astype(np.float32)
    target[[1, 8]] += 0.2
    env.advance(target)
    end, counters = env.observe(render=False), env.counters()
    target[1:3] += 1e-6
    env.advance(target)
    return {
        "held_m": float(np.abs(held["proprio"] - start["proprio"]).max()),
        "reached_rad": float(np.abs(end["privileged"]["joint_position"] - target).max()),
        "moved_m": float(np.abs(end["proprio"][:3] - start["proprio"][:3]).max()),
        "counters": counters,
        "after_short": env.counters(),
    }


def memory(root: Any, resets: Any) -> Any:
    """Return the growth of resident memory over resets with one image each, after the first two, MB."""
    env = make(root, "click_bell")
    for index in range(resets + 2):
        env.begin(seed=SEED + index % 3, max_steps=10)
        env.observe(render=True)
        if index == 1:
            first = resident_mb()
    return {"growth_mb": resident_mb() - first}


def resident_mb() -> Any:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def tasks(root: Any, setting: Any, names: Any, tries: Any = 1) -> Any:
    """Return, by task, the objects of the first scene that is stable, or the error that its first seed ends with."""
    result = {}
    for name in names:
        for seed in range(SEED, SEED + tries):
            env = None
            try:
                env = make(root, name, setting=setting)
                env.begin(seed=seed, max_steps=10)
                result[name] = {"info": env._info, "clutter": len(env.scene["clutter"])}
            except Exception as error:
                result[name] = {"error": type(error).__name__, "text": str(error)}
            finally:
                if env is not None:
                    env.close()
            if result[name].get("error") != "UnStableError":
                break
    return result


def sentences(root: Any, task: Any, setting: Any, episodes: Any) -> Any:
    """Return for how many (seed, sentence) of a list the sentence can be said of the scene; nothing comes to rest."""
    env = make(root, task, setting=setting)
    env._scenes._class.check_stable = lambda scene: (True, [])
    fit = 0
    for seed, sentence in episodes:
        env.begin(seed=seed, max_steps=10)
        try:
            env.instruct(sentence)
            fit += 1
        except ValueError:
            pass
    return {"fit": fit, "of": len(episodes)}


def about(root: Any, task: Any) -> Any:
    """Return what an env that hides parts states of itself."""
    return make(root, task, decimate="background").about


def splits(root: Any, task: Any, seed: Any) -> Any:
    """Return which of a seed's own sentences an env of the split `unseen` takes, and which a vetting keeps."""
    env = make(root, task, split="unseen")
    own = env.vet(seed)["instructions"]
    taken = []
    env.begin(seed=seed, max_steps=9)
    for split, sentence in own.items():
        with contextlib.suppress(ValueError):
            env.instruct(sentence)
            taken.append(split)
    swapped = {"seen": own["unseen"], "unseen": own["seen"]}
    return {"taken": taken, "kept": sorted(env.vet(seed, own)["instructions"]), "swapped": env.vet(seed, swapped)}


def positions(root: Any, task: Any, member: Any) -> Any:
    """Return where the record says that a task's object is, and where RoboTwin's own object of the task is."""
    env = make(root, task)
    env.begin(seed=SEED, max_steps=0)
    actor = getattr(env._current, member)
    said = {each["name"]: each["position_m"] for each in env.scene["objects"]}
    return {"said": said[actor.get_name()], "theirs": [float(x) for x in actor.get_pose().p]}


def expert_info(root: Any, task: Any, seeds: Any) -> Any:
    """Return whether the objects read without motion are those that the expert states when it has played."""
    env, equal = make(root, task), []
    for seed in seeds:
        env.begin(seed=seed, max_steps=10)
        scene = env._scenes.build(seed)
        scene.play_once()
        equal.append({str(key): str(value) for key, value in scene.info["info"].items()} == env._info)
    return {"equal": equal}


def own_scene(root: Any, task: Any) -> Any:
    """Return a maker of RoboTwin's own scenes of a task: its loop, rasterized without shadows like ours."""
    import sapien

    env = make(root, task)
    base: Any = getattr(sys.modules[f"envs.{task}"], task)

    class Own(base):  # type: ignore[misc]
        def setup_scene(self, **kwargs: Any) -> None:
            super().setup_scene(**kwargs, shadow=False)
            sapien.render.set_camera_shader_dir("default")

    def build() -> Any:
        scene = Own()
        scene.setup_demo(now_ep_num=0, seed=SEED, **copy.deepcopy(env._scenes._arguments))
        return scene

    return build


def path(observation: Any) -> Any:
    """Return 32 actions along smooth lines, about 1 cm each, as a policy gives them in one chunk."""
    turns = np.linspace(0, np.pi, 33)[1:]
    moves = np.stack([0.04 * np.sin(2 * turns), 0.10 * np.sin(turns), -0.08 * np.sin(turns)], axis=1)
    return [hold(observation, move) for move in moves]


def chunk(root: Any, rounds: Any) -> Any:
    """Return CPU seconds of a chunk of 32 actions, ours and RoboTwin's own loop in turn, and whether they end alike.

    Ours renders three cameras without what no camera sees: at the end for a policy, at every fourth step for a clip.
    RoboTwin's loop observes with all its cameras after each step.
    """
    task: Any = "stack_blocks_two"
    env, build = make(root, task, decimate="background"), own_scene(root, task)
    from evalkit_envs.robotwin.env import ee_action
    from evalkit_envs.robotwin.rendering import hiding_error

    env.begin(seed=SEED, max_steps=40)
    actions, kept = path(env.observe(render=True)), build()
    robotwins_observation(kept)
    seconds: dict[str, list[float]] = {"policy": [], "own": [], "clip": []}
    for _ in range(rounds):
        own = build()
        robotwins_observation(own)
        started = time.process_time()
        for action in actions:
            own.take_action(ee_action(action.astype(np.float64)), "ee")
            robotwins_observation(own)
        seconds["own"].append(time.process_time() - started)
        for name, stride in (("clip", 4), ("policy", 32)):
            env.begin(seed=SEED, max_steps=40)
            env.observe(render=True)
            started = time.process_time()
            for step, action in enumerate(actions, start=1):
                env.advance(action)
                if step % stride == 0:
                    env.observe(render=True)
            seconds[name].append(time.process_time() - started)
        ours, theirs = (scene.robot.left_entity.get_qpos() for scene in (env._current, own))
    rgb, depth_m = hiding_error(env._current, (240, 320))
    same = bool(np.array_equal(ours, theirs))
    return {"seconds": seconds, "same": same, "hiding_rgb": rgb, "hiding_depth_m": depth_m}


def episodes(root: Any, num: Any) -> Any:
    """Return CPU seconds of each of some episodes of one chunk, after one to warm up."""
    env, seconds = make(root, "stack_blocks_two", decimate="background"), []
    for _ in range(num + 1):
        started = time.process_time()
        env.begin(seed=SEED, max_steps=40)
        for step, action in enumerate(path(env.observe(render=True)), start=1):
            env.advance(action)
            if step % 4 == 0:
                env.observe(render=True)
        seconds.append(time.process_time() - started)
    return {"seconds": seconds[1:]}


if __name__ == "__main__":
    print("\n" + json.dumps(globals()[sys.argv[1]](*json.loads(sys.argv[2]))))
