"""The robosuite env against its own simulator: frames, units, cameras, repeatability.

In: the real simulator, rendered in software. Out: checks against MuJoCo's numbers, ray casts and known poses.
Read next: `tests/sim/test_robosuite_experts.py`, where tasks are solved.
"""

import hashlib
import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import closing
from importlib import metadata
from typing import Any

import numpy as np
import pytest

from envs.gymnasium_env import GymnasiumEnv
from envs.mujoco import views
from envs.robosuite import scene
from envs.robosuite.env import RobosuiteEnv
from envs.robosuite.tasks import T_EE_CAM, TASKS
from evalkit.contracts import geometry
from evalkit.contracts.errors import EvalkitError
from evalkit.contracts.spec import check_observation
from evalkit.contracts.types import Observation
from tests.doubles.simulators import needs_robosuite

pytestmark = needs_robosuite()

SEED = 1_000_000
HOLD = np.array([0, 0, 0, 0, 0, 0, 1] * 2, np.float32)


def digest(observation: Any) -> Any:
    arrays = {**{k: v for k, v in observation.items() if isinstance(v, np.ndarray)}, **observation["privileged"]}
    return {name: hashlib.sha256(value.tobytes()).hexdigest() for name, value in sorted(arrays.items())}


def wiggle(env: Any, num_steps: Any, seed: Any = 0) -> None:
    """Move at random, which takes the arm and the camera to poses of no symmetry."""
    for action in np.random.default_rng(seed).uniform(-1, 1, (num_steps, 14)).astype(np.float32):
        env.advance(action)


CASES = [("Lift", "default"), ("PickPlaceCan", "randomized")]

IN_ANOTHER_PROCESS = """
import json, sys
from tests.sim.test_robosuite_env import CASES, SEED, digest
from envs.robosuite.env import RobosuiteEnv
found = []
for task, setting in CASES:
    env = RobosuiteEnv(task=task, setting=setting)
    env.begin(seed=SEED, max_steps=10)
    found.append(digest(env.observe(render=True)))
    env.close()
print(json.dumps(found))
"""


def test_same_seed_gives_the_same_first_frame() -> None:
    done = subprocess.run([sys.executable, "-c", IN_ANOTHER_PROCESS], capture_output=True, text=True, check=True)
    for (task, setting), elsewhere in zip(CASES, json.loads(done.stdout.splitlines()[-1]), strict=True):
        with closing(RobosuiteEnv(task=task, setting=setting)) as env:
            env.begin(seed=SEED + 1, max_steps=10)
            wiggle(env, 3)
            other = digest(env.observe(render=True))
            np.random.rand(7)  # noqa: NPY002 - a library that draws from the global generator
            env.begin(seed=SEED, max_steps=10)
            here = digest(env.observe(render=True))
        assert here == elsewhere, f"{task}, {setting}"
        assert here["rgb"] != other["rgb"]


def test_worker_says_nothing_on_the_console() -> None:
    code = (
        "from envs.robosuite.env import RobosuiteEnv as E; e = E(task='Lift'); e.begin(seed=0, max_steps=1); e.close()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("task", list(TASKS))
def test_observation_is_what_the_spec_promises(task: str) -> None:
    with closing(RobosuiteEnv(task=task, setting="randomized", image_hw_px=(48, 64))) as env:
        assert not env.begin(seed=SEED + 5, max_steps=10)
        for rendered in (True, False):
            observation = Observation(**env.observe(render=rendered))
            check_observation(observation, env.spec, rendered=rendered)
            assert tuple(observation.privileged) == env.spec.privileged_keys
            assert all(v.dtype == np.float64 and v.ndim == 1 for v in observation.privileged.values())
        assert observation.instruction == TASKS[task].instruction


@pytest.fixture
def lift() -> Iterator[RobosuiteEnv]:
    """An env whose meshes are whole; building it costs little, its episodes are what takes time."""
    with closing(RobosuiteEnv(task="Lift", mesh_cell_m=0.0)) as env:
        yield env


def test_looking_changes_nothing(lift: RobosuiteEnv) -> None:
    ends = []
    for render in (False, True):
        lift.begin(seed=SEED, max_steps=100)
        for step in range(10):
            lift.advance(HOLD * np.float32(np.sin(step)))
            if render:
                lift.observe(render=True)
        ends.append(lift._data.qpos.copy())
    np.testing.assert_array_equal(*ends)


def test_depth_is_what_rays_measure(lift: RobosuiteEnv) -> None:
    """Rays through pixel centres, cast by MuJoCo, end where the depth image says; half a pixel off they would not."""
    import mujoco

    lift.begin(seed=SEED, max_steps=10)
    wiggle(lift, 5)
    observation = lift.observe(render=True)
    T_world_base = geometry.inverse(lift._T_base_world)
    visible = np.array([0, 1, 1, 0, 0, 0], np.uint8)
    for view in range(3):
        T_world_cam = T_world_base @ observation["T_base_cam"][view]
        K, depth = observation["intrinsics"][view], observation["depth"][view]
        errors = []
        for v in range(2, 128, 5):
            for u in range(2, 128, 5):
                ray = T_world_cam[:3, :3] @ [(u - K[0, 2]) / K[0, 0], (v - K[1, 2]) / K[1, 1], 1.0]
                hit = mujoco.mj_ray(
                    lift._model, lift._data, T_world_cam[:3, 3], ray, visible, 1, -1, np.zeros(1, np.int32)
                )
                errors.append(abs(hit - depth[v, u]))  # the ray's z is 1, so its length counts depth
        assert np.median(errors) < 2e-5
        assert np.mean(np.array(errors) > 0.01) < 0.02


def test_cube_is_where_its_pixels_are(lift: RobosuiteEnv) -> None:
    lift.begin(seed=SEED, max_steps=10)
    for _ in range(5):
        lift.advance(HOLD)
    observation = lift.observe(render=True)
    cube_m = observation["privileged"]["cube_pos_m"]
    half_m = observation["privileged"]["cube_half_size_m"]
    for view in range(2):
        rgb = observation["rgb"][view].astype(int)
        red = (rgb[..., 0] > 60) & (rgb[..., 0] > 2 * rgb[..., 1]) & (rgb[..., 0] > 2 * rgb[..., 2])
        depth = np.where(red, observation["depth"][view], 0.0)
        points = geometry.points_from_depth(depth, observation["intrinsics"][view], observation["T_base_cam"][view])
        assert len(points) > 20
        R_base_cube = geometry.matrix_from_quat(observation["privileged"]["cube_quat_wxyz"])
        on_faces = np.abs((points - cube_m) @ R_base_cube) / half_m
        np.testing.assert_allclose(on_faces.max(axis=1), 1.0, atol=0.02)


def test_wrist_camera_hangs_on_the_hand_as_the_spec_says() -> None:
    with closing(RobosuiteEnv(task="TwoArmLift")) as env:
        env.begin(seed=SEED, max_steps=10)
        wiggle(env, 8)
        observation = env.observe(render=True)
        for robot, arm in enumerate(("left", "right")):
            site = env._data.site(f"gripper{robot}_right_grip_site")
            camera = env._data.camera(f"robot{robot}_eye_in_hand")
            T_world_ee = geometry.transform(site.xmat.reshape(3, 3), site.xpos)
            opencv = np.diag([1.0, -1.0, -1.0])
            T_world_cam = geometry.transform(camera.xmat.reshape(3, 3) @ opencv, camera.xpos)
            np.testing.assert_allclose(geometry.inverse(T_world_ee) @ T_world_cam, T_EE_CAM, atol=1e-6)
            proprio = observation["proprio"][8 * robot : 8 * robot + 8]
            (spec,) = [camera for camera in env.spec.cameras if camera.arm == arm]
            predicted = geometry.ee_pose_from_proprio(proprio) @ np.array(spec.T_ee_cam)
            np.testing.assert_allclose(observation["T_base_cam"][1 + robot], predicted, atol=1e-5)


def test_cameras_agree_with_robosuite(lift: RobosuiteEnv) -> None:
    from robosuite.utils.camera_utils import get_camera_extrinsic_matrix, get_camera_intrinsic_matrix

    lift.begin(seed=SEED, max_steps=10)
    observation, sim = lift.observe(render=True), lift._sim.sim
    for view, camera in enumerate(lift.spec.cameras):
        T_world_cam = get_camera_extrinsic_matrix(sim, camera.name)
        np.testing.assert_allclose(observation["T_base_cam"][view], lift._T_base_world @ T_world_cam, atol=1e-9)
        K = get_camera_intrinsic_matrix(sim, camera.name, 128, 128)
        K[:2, 2] -= 0.5  # robosuite puts the origin on the corner of the first pixel
        np.testing.assert_allclose(observation["intrinsics"][view], K, atol=1e-9)


def base_from_world(points_m: Any) -> Any:
    """The base of robot0 in the two-arm lift, written down here: at (0, -0.56, 0.912), facing +y."""
    x, y, z = np.moveaxis(np.asarray(points_m), -1, 0)
    return np.stack([y + 0.56, -x, z - 0.912], axis=-1)


def test_proprio_is_robosuites_own_in_the_base_of_robot0() -> None:
    with closing(RobosuiteEnv(task="TwoArmLift")) as env:
        env.begin(seed=SEED, max_steps=10)
        wiggle(env, 6)
        observation = env.observe(render=False)
        raw = env._sim._get_observations(force_update=True)
        R_base_world = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        for robot in range(2):
            own = observation["proprio"][8 * robot : 8 * robot + 8]
            np.testing.assert_allclose(own[:3], base_from_world(raw[f"robot{robot}_eef_pos"]), atol=1e-6)
            quat = geometry.wxyz_from_xyzw(raw[f"robot{robot}_eef_quat_site"])
            R_base_ee = R_base_world @ geometry.matrix_from_quat(quat)
            np.testing.assert_allclose(geometry.matrix_from_quat(own[3:7]), R_base_ee, atol=1e-5)
            assert own[3] >= 0
            gap = raw[f"robot{robot}_gripper_qpos"] @ [1, -1] / 0.08
            assert own[7] == pytest.approx(np.clip(gap, 0, 1), abs=1e-6)


def test_absent_arm_is_all_zero(lift: RobosuiteEnv) -> None:
    lift.begin(seed=SEED, max_steps=10)
    proprio = lift.observe(render=False)["proprio"]
    assert not proprio[8:].any()
    assert np.linalg.norm(proprio[3:7]) == pytest.approx(1.0, abs=1e-6)


def test_gripper_opens_on_plus_one(lift: RobosuiteEnv) -> None:
    fractions = []
    lift.begin(seed=SEED, max_steps=100)
    for sign in (1, -1):
        for _ in range(25):
            lift.advance(HOLD * sign)
        fractions.append(lift.observe(render=False)["proprio"][7])
    assert fractions[0] > 0.97
    assert fractions[1] < 0.05


def goals_in_base(env: Any) -> Any:
    """Return the goals of each robot's controller, in the base of robot0, as 4x4 poses."""
    found = []
    for robot in env._sim.robots:
        controller = robot.part_controllers["right"]
        T_world_origin = geometry.transform(controller.origin_ori, controller.origin_pos)
        T_origin_goal = geometry.transform(controller.goal_ori, controller.goal_pos)
        found.append(env._T_base_world @ T_world_origin @ T_origin_goal)
    return found


@pytest.mark.parametrize("task", ["Lift", "TwoArmLift"])
def test_unit_actions_move_the_goal_along_the_base_axes(task: str) -> None:
    with closing(RobosuiteEnv(task=task)) as env:
        env.begin(seed=SEED, max_steps=100)
        wiggle(env, 4)
        for arm in range(TASKS[task].num_arms):
            for axis in range(6):
                proprio = env.observe(render=False)["proprio"]
                before = [geometry.ee_pose_from_proprio(proprio[8 * i : 8 * i + 8]) for i in range(2)]
                action = np.zeros(14, np.float32)
                action[7 * arm + axis] = 1.0
                env.advance(action)
                for i, goal in enumerate(goals_in_base(env)):
                    unit = np.eye(6)[axis] * (i == arm)
                    np.testing.assert_allclose(goal[:3, 3] - before[i][:3, 3], 0.05 * unit[:3], atol=1e-5)
                    turned = geometry.rotvec_from_matrix(goal[:3, :3] @ before[i][:3, :3].T)
                    np.testing.assert_allclose(turned, 0.5 * unit[3:], atol=1e-5)


def test_actions_beyond_one_are_clipped(lift: RobosuiteEnv) -> None:
    ends = []
    for size in (1.0, 7.0):
        lift.begin(seed=SEED, max_steps=10)
        for _ in range(3):
            lift.advance(np.array([size, 0, -size, 0, 0, size, 1] + [0] * 7, np.float32))
        ends.append(lift._data.qpos.copy())
    np.testing.assert_array_equal(*ends)


def test_state_for_oracles_is_the_simulators_in_the_base_frame(lift: RobosuiteEnv) -> None:
    lift.begin(seed=SEED, max_steps=10)
    state = lift.observe(render=False)["privileged"]
    body = lift._data.body("cube_main")
    np.testing.assert_allclose(state["cube_pos_m"], body.xpos - [-0.56, 0.0, 0.912], atol=1e-12)
    np.testing.assert_allclose(geometry.matrix_from_quat(state["cube_quat_wxyz"]), body.xmat.reshape(3, 3), atol=1e-9)
    assert (state["cube_half_size_m"] >= 0.02).all()
    assert (state["cube_half_size_m"] <= 0.022).all()


def test_an_episode_that_starts_solved_says_so(lift: RobosuiteEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    built = scene.build

    def lifted(*args: Any, **kwargs: Any) -> Any:
        simulation = built(*args, **kwargs)
        simulation.sim.data._data.joint("cube_joint0").qpos[2] += 0.1
        simulation.sim.forward()
        return simulation

    monkeypatch.setattr(scene, "build", lifted)
    assert lift.begin(seed=SEED, max_steps=10) is True


def test_settings_change_only_what_they_name() -> None:
    seen = {}
    for setting in ("default", "wide", "randomized"):
        with closing(RobosuiteEnv(task="Lift", setting=setting, image_hw_px=(32, 32))) as env:
            observations = []
            for seed in range(SEED, SEED + 3):
                env.begin(seed=seed, max_steps=10)
                observations.append(env.observe(render=True))
            seen[setting] = observations
    cubes = {k: np.array([o["privileged"]["cube_pos_m"] for o in v]) for k, v in seen.items()}
    assert np.abs(cubes["default"][:, :2] - [0.56, 0.0]).max() <= 0.03 + 1e-9
    assert 0.03 < np.abs(cubes["randomized"][:, :2] - [0.56, 0.0]).max() <= 0.2 + 1e-9
    np.testing.assert_allclose(cubes["wide"], cubes["randomized"], atol=1e-12)
    cameras = {k: np.array([o["T_base_cam"][0] for o in v]) for k, v in seen.items()}
    np.testing.assert_array_equal(cameras["default"], cameras["wide"])
    np.testing.assert_array_equal(cameras["default"][0], cameras["default"][1])
    shift_m = np.abs(cameras["randomized"][:, :3, 3] - cameras["default"][0, :3, 3])
    assert 0.0 < shift_m.max() <= scene.CAMERA_SHIFT_M + 1e-9
    corner = {k: np.array([o["rgb"][0, -1, 16] for o in v]) for k, v in seen.items()}
    assert [len(np.unique(corner[setting], axis=0)) for setting in ("wide", "randomized")] == [1, 3]


def test_thinner_meshes_change_pictures_only_and_little() -> None:
    runs = {}
    for cell_m in (0.0, 0.008):
        with closing(RobosuiteEnv(task="Lift", mesh_cell_m=cell_m)) as env:
            env.begin(seed=SEED, max_steps=10)
            wiggle(env, 5)
            runs[cell_m] = (env._data.qpos.copy(), env.observe(render=True), env._model.mesh_facenum.sum())
    (qpos, whole, many), (thin_qpos, thin, few) = runs[0.0], runs[0.008]
    np.testing.assert_array_equal(qpos, thin_qpos)
    assert few < many / 3
    assert np.abs(whole["rgb"].astype(int) - thin["rgb"]).mean() < 4
    assert np.mean(np.abs(whole["depth"] - thin["depth"]) > 0.02) < 0.02


@pytest.mark.parametrize("samples", [0, 4])
def test_geoms_outside_an_image_change_no_pixel(samples: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(RobosuiteEnv(task="PickPlaceCan", image_hw_px=(96, 128), antialias_samples=samples)) as env:
        env.begin(seed=SEED, max_steps=10)
        wiggle(env, 5)
        without = env.observe(render=True)
        groups = env._model.geom_group.copy()
        left_out = [views.outside_image(env._model, env._data, name, (96, 128)) for name in env._camera_names]
        monkeypatch.setattr(views, "outside_image", lambda model, *_: np.zeros(model.ngeom, bool))
        whole = env.observe(render=True)
    assert min(each[groups != 0].mean() for each in left_out) > 0.2
    for name in ("rgb", "depth"):
        np.testing.assert_array_equal(without[name], whole[name])


def test_an_env_says_which_packages_it_runs_on(lift: RobosuiteEnv) -> None:
    for package in ("robosuite", "mujoco", "numpy"):
        assert lift.about[package] == metadata.version(package)


def test_one_env_a_process() -> None:
    with closing(RobosuiteEnv(task="Lift")), pytest.raises(EvalkitError, match="already open in this process"):
        RobosuiteEnv(task="Stack")
    env = RobosuiteEnv(task="Stack")
    env.close()
    env.close()


def test_as_gymnasium_env() -> None:
    from gymnasium.utils.env_checker import check_env

    with closing(GymnasiumEnv(RobosuiteEnv(task="Lift", image_hw_px=(32, 32)), max_steps=3)) as env:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it minds spaces without bounds
            check_env(env, skip_render_check=True)
        observation, info = env.reset(seed=SEED)
        assert env.observation_space.contains(observation)
        assert set(info["privileged"]) == set(env.env.spec.privileged_keys)
        ends = [env.step(HOLD)[2:4] for _ in range(3)]
        assert ends == [(False, False), (False, False), (False, True)]
        env.close()
