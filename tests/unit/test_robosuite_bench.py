"""The robosuite bench as a plan sees it: names, seeds, specs, launches; no simulator.

In: configs. Out: checks against numbers written down here.
Read next: `tests/sim/test_robosuite_env.py`, the same bench with its simulator.
"""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from envs.mujoco import views
from envs.mujoco.render_probe import find_renderer
from envs.robosuite.bench import NUM_SEEDS, RobosuiteBench, RobosuiteConfig
from envs.robosuite.scene import add_cameras
from envs.robosuite.tasks import T_EE_CAM, TASKS
from evalkit.contracts.errors import BadConfig, EvalkitError, UnknownName
from evalkit.contracts.spec import EnvSpec
from tests.doubles.known import known

BENCH = RobosuiteBench()
CONFIG = RobosuiteConfig()


def plan(**changes: Any) -> Any:
    arguments: dict[str, Any] = {"task": "Lift", "setting": "default", "num_episodes": 3, "seed": 0} | changes
    return BENCH.plan_episodes(CONFIG, **arguments)


def test_seeds_are_as_documented() -> None:
    assert [episode.seed for episode in plan(seed=4)] == [5_000_000, 5_000_001, 5_000_002]


def test_seeds_do_not_move_when_the_number_of_episodes_changes() -> None:
    assert plan(num_episodes=50)[:3] == plan(num_episodes=3)


def test_seeds_of_evaluations_and_demonstrations_differ() -> None:
    used = [episode.seed for seed in (0, 1, 2, 195) for episode in plan(seed=seed, num_episodes=500)]
    assert len(set(used)) == len(used)
    assert min(used) >= NUM_SEEDS == 1_000_000


def test_no_episodes_is_an_empty_plan() -> None:
    assert plan(num_episodes=0) == []


@pytest.mark.parametrize("changes", [{"seed": -1}, {"seed": 2**32}, {"num_episodes": 1_000_001}])
def test_seeds_and_counts_that_run_into_others_are_refused(changes: Any) -> None:
    with pytest.raises(BadConfig, match="need a seed from 0 to 4294967295"):
        plan(**changes)


def test_episodes_say_what_the_policy_is_told() -> None:
    (episode,) = plan(task="Door", num_episodes=1, setting="randomized")
    assert (episode.bench, episode.protocol) == ("robosuite", "robosuite-7/standard-v2")
    assert (episode.setting, episode.key) == ("randomized", "Door/0000")
    assert episode.instruction == "Turn the handle and pull the door open."
    assert episode.max_steps == 400


def test_a_shuffled_instruction_is_a_departure() -> None:
    config = replace(CONFIG, shuffle_instructions=True)
    shuffled = {
        task: BENCH.plan_episodes(config, task=task, setting="wide", num_episodes=1, seed=0)[0] for task in TASKS
    }
    assert all(episode.instruction != TASKS[task].instruction for task, episode in shuffled.items())
    assert sorted(known(episode.instruction) for episode in shuffled.values()) == sorted(
        t.instruction for t in TASKS.values()
    )
    assert shuffled["TwoArmLift"].instruction == TASKS["TwoArmHandover"].instruction
    assert shuffled["Lift"].instruction == BENCH.launch(config, task="Lift", setting="wide").kwargs["instruction"]
    assert BENCH.departures(config) == ["Each task has the instruction of another one."]


def test_unknown_names_come_with_a_suggestion() -> None:
    with pytest.raises(UnknownName, match=r"Unknown task 'Lft'\. Did you mean 'Lift'\?"):
        plan(task="Lft")
    with pytest.raises(UnknownName, match=r"Did you mean 'randomized'\?"):
        BENCH.env_spec(CONFIG, task="Lift", setting="randomised")


def test_task_list_and_instructions() -> None:
    assert BENCH.tasks == (
        "Lift",
        "Stack",
        "Door",
        "PickPlaceCan",
        "NutAssemblySquare",
        "TwoArmLift",
        "TwoArmHandover",
    )
    instructions = [task.instruction for task in TASKS.values()]
    assert len(set(instructions)) == 7
    assert all(text[0].isupper() and text.endswith(".") for text in instructions)


@pytest.mark.parametrize("task", BENCH.tasks)
def test_spec_has_three_views_and_survives_json(task: str) -> None:
    spec = BENCH.env_spec(CONFIG, task=task, setting="default")
    assert EnvSpec.from_json(spec.to_json()) == spec
    two_arms = task.startswith("TwoArm")
    assert spec.arms == (("left", "right") if two_arms else ("left",))
    kinds = [camera.kind for camera in spec.cameras]
    assert kinds == (["static", "wrist", "wrist"] if two_arms else ["static", "static", "wrist"])
    assert [camera.arm for camera in spec.cameras if camera.kind == "wrist"] == list(spec.arms)
    assert spec.env_id == f"robosuite/{task}"
    assert spec.control_hz == 20.0
    assert spec.image_hw_px == (128, 128)


def test_hand_eye_transform_is_the_documented_one() -> None:
    T_ee_cam = np.array(T_EE_CAM)
    np.testing.assert_array_equal(T_ee_cam[:3, :3], np.diag([-1.0, -1.0, 1.0]))
    np.testing.assert_array_equal(T_ee_cam[:3, 3], [0.0, 0.05, -0.097])


def test_each_change_of_a_default_is_one_departure() -> None:
    assert BENCH.departures(CONFIG) == []
    changed = RobosuiteConfig(image_hw_px=(64, 96), antialias_samples=4, mesh_cell_mm=0.0, gl="osmesa")
    assert BENCH.departures(changed) == [
        "Images have 64x96 pixels instead of 128x128.",
        "Pixels take 4 samples instead of 0.",
        "Visual meshes are thinned to 0.0 mm instead of 8.0 mm.",
    ]


def test_config_can_be_overridden_as_hydra_does() -> None:
    merged = OmegaConf.merge(OmegaConf.structured(RobosuiteConfig), OmegaConf.from_dotlist(["image_hw_px=[64,96]"]))
    config = OmegaConf.to_object(merged)
    assert isinstance(config, RobosuiteConfig)
    assert BENCH.env_spec(config, task="Lift", setting="default").image_hw_px == (64, 96)
    assert BENCH.launch(config, task="Lift", setting="default").kwargs["image_hw_px"] == [64, 96]


def test_images_that_are_no_images_are_refused() -> None:
    with pytest.raises(BadConfig, match="from 16 to 2048 pixels"):
        BENCH.env_spec(RobosuiteConfig(image_hw_px=(0, 128)), task="Lift", setting="default")


def test_renderer_is_the_one_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert BENCH.launch(CONFIG, task="Lift", setting="default").environ == {"MUJOCO_GL": "osmesa"}
    egl = RobosuiteConfig(gl="egl")
    assert BENCH.launch(egl, task="Lift", setting="default").environ == {"MUJOCO_GL": "egl"}


def test_missing_renderers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(views, "_GL_LIBRARIES", {"egl": "libnowhere.so.1"})
    with pytest.raises(EvalkitError, match="neither is installed; install libegl1"):
        views.choose_gl()


def test_provenance_names_versions() -> None:
    assert set(BENCH.provenance(CONFIG)) == {"robosuite", "mujoco"}


def test_importing_the_bench_starts_no_simulator() -> None:
    modules = "{'mujoco', 'robosuite', 'gymnasium', 'torch'}"
    code = f"import sys, envs.robosuite.bench; print(sorted({modules} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_depth_of_a_reversed_z_buffer() -> None:
    near, far = 0.01, 500.0
    depth = np.array([0.01, 0.5, 2.0, 19.0])
    zbuffer = (near * far / depth - near) / (far - near)  # the perspective divide, solved for z
    np.testing.assert_allclose(views.depth_from_zbuffer(zbuffer, near_m=near, far_m=far), depth, rtol=1e-6)
    beyond = (near * far / 21.0 - near) / (far - near)
    assert views.depth_from_zbuffer(np.array([beyond, 0.0]), near_m=near, far_m=far).tolist() == [0.0, 0.0]


def test_camera_that_looks_down_at_a_slant() -> None:
    T_world_cam = views.look_at([1.0, 2.0, 3.0], [1.0, 3.0, 2.0])
    half = np.sqrt(0.5)
    expected = [[1, 0, 0, 1], [0, -half, half, 2], [0, -half, -half, 3], [0, 0, 0, 1]]
    np.testing.assert_allclose(T_world_cam, expected, atol=1e-12)


def test_cameras_are_added_to_the_world() -> None:
    xml = add_cameras("<mujoco><worldbody><body name='table'/></worldbody></mujoco>", TASKS["Lift"].cameras)
    assert "<body name='table'" in xml.replace('"', "'")
    assert xml.count("<camera") == 2
    assert 'name="view_left"' in xml


def test_doctor_names_each_renderer_and_whether_there_is_one() -> None:
    findings = {finding.what: finding for finding in BENCH.examine(CONFIG)}
    renderers = [findings[f"MuJoCo with MUJOCO_GL={gl}"].ok for gl in ("egl", "osmesa")]
    assert findings["a renderer for MuJoCo"].ok == any(renderers)
    assert [what for what, finding in findings.items() if finding.needed] == [
        "mujoco",
        "robosuite",
        "a renderer for MuJoCo",
    ]


def test_an_interpreter_without_mujoco_cannot_render() -> None:
    finding = find_renderer("/nowhere/python", "egl", what="a renderer", remedy="install it", needed=True)
    assert (finding.ok, finding.remedy) == (False, "install it")
    assert "No such file" in finding.found
