"""Files that robosuite 1.5.2's own recorder writes are replayed; models of other robots and tasks are refused by name.

In: robosuite's DataCollectionWrapper and the conversion of its recording script; faulty files, where they are at hand.
Out: a verdict.
Read next: `test_replay.py`, which compares images; `tests/unit/test_replay_files.py`, what a file states.
"""

import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from envs.robosuite.replay import check_model
from evalkit.cli.main import app
from evalkit.dataset.layout import read_track
from evalkit.dataset.writer import read_about
from evalkit.replay.jobs import plan_replay, replay, replay_job
from tests.doubles.configured import bench_of
from tests.doubles.known import known
from tests.doubles.simulators import needs_robosuite

pytestmark = needs_robosuite()
SMALL = bench_of("robosuite", image_hw_px=[32, 32])
LENGTH = 6
FAULTS = Path(os.environ.get("EVALKIT_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "faults/data"


def make(task: str, **changes: Any) -> tuple[Any, dict[str, Any]]:
    """Return a running env of robosuite and the arguments that its recorder states."""
    import robosuite
    from robosuite.controllers import load_composite_controller_config

    robots = changes.pop("robots", ["Panda"])
    config = {
        "env_name": task,
        "robots": robots,
        "controller_configs": load_composite_controller_config(robot=robots[0]),
        **changes,
    }
    off = dict.fromkeys(("has_renderer", "has_offscreen_renderer", "use_camera_obs"), False)
    return robosuite.make(**config, **off, ignore_done=True, control_freq=20), config


def record(folder: Path, task: str, *, collect_freq: int = 1) -> tuple[Path, np.ndarray]:
    """Return a file of robosuite's own recorder, and the end effector's position as the env observed it."""
    from robosuite.scripts.collect_human_demonstrations import gather_demonstrations_as_hdf5
    from robosuite.wrappers import DataCollectionWrapper

    env, config = make(task)
    wrapped = DataCollectionWrapper(env, str(folder / "raw"), collect_freq=collect_freq)
    rng, positions = np.random.default_rng(0), []
    observation = wrapped.reset()
    for _ in range(LENGTH * collect_freq):
        positions.append(observation["robot0_eef_pos"])
        observation, *_ = wrapped.step(rng.uniform(-0.5, 0.5, 7))
    wrapped.successful = True
    wrapped.close()
    gather_demonstrations_as_hdf5(str(folder / "raw"), str(folder), json.dumps(config))
    return folder / "demo.hdf5", np.array(positions)


def observe(path: Path, task: str) -> np.ndarray:
    """Return the end effector's position in each state of `demo_1`, as robomimic's conversion observes it."""
    env, _ = make(task)
    positions = []
    with h5py.File(path, "r") as file:
        env.reset_from_xml_string(env.edit_model_xml(file["data/demo_1"].attrs["model_file"]))
        env.sim.reset()
        for state in file["data/demo_1/states"]:
            env.sim.set_state_from_flattened(state)
            env.sim.forward()
            positions.append(env._get_observations(force_update=True)["robot0_eef_pos"])
    env.close()
    return np.array(positions)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["Lift", "Door"])
def test_robosuites_own_recorder_is_replayed(tmp_path: Path, task: str) -> None:
    path, seen_live = record(tmp_path, task)
    positions = observe(path, task)
    assert np.abs(positions - seen_live).max() < 2e-3  # robosuite observes one physics step late
    with h5py.File(path, "r+") as file:
        file["data/demo_1/obs/robot0_eef_pos"] = positions
        actions = file["data/demo_1/actions"][:]
    plan = plan_replay(tmp_path / "data", [path], SMALL)
    assert plan.warnings == []
    result = replay(tmp_path / "data", plan.jobs)
    assert (result.written, result.reasons, result.warnings) == (1, (), ())
    (key,) = result.lengths
    assert known(known(read_about(tmp_path / "data/data" / f"{key}.json")).end_effector_error_mm) < 0.01
    track = read_track(tmp_path / "data", key)
    np.testing.assert_allclose(track.action[:, :6], np.float32(actions[:, :6]))
    np.testing.assert_allclose(track.action[:, 6], -np.float32(actions[:, 6]))
    moved_m = np.diff(positions, axis=0)  # no base of these tasks is turned
    np.testing.assert_allclose(np.diff(track.proprio[:, :3], axis=0), moved_m, atol=1e-5)


@pytest.mark.slow
def test_a_subsampled_recording_is_refused(tmp_path: Path) -> None:
    path, _ = record(tmp_path, "Lift", collect_freq=2)
    (job,) = plan_replay(tmp_path / "data", [path], SMALL).jobs
    assert "it was recorded at 10 Hz, or not every step was kept" in known(replay_job(job).reason)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "changes", "sentence"),
    [
        ("Lift", {}, None),
        ("Stack", {}, "its model is not of Lift with a Panda in robosuite 1.5: it has no body 'cube_main'"),
        ("Lift", {"robots": ["Sawyer"]}, "it has no joint 'robot0_joint1'"),
        ("Lift", {"robots": ["XArm7"]}, "its model (is not of Lift|holds more than one Panda)"),
        ("Lift", {"robots": ["PandaOmron"]}, "its model holds more than one Panda on a fixed base: .*a mobile base"),
        ("Lift", {"gripper_types": "RethinkGripper"}, "it has no joint 'gripper0_right_finger_joint1'"),
        ("TwoArmLift", {"robots": ["Panda", "Panda"]}, "it has no body 'cube_main'"),
    ],
)
def test_models_of_another_kind_are_named(task: str, changes: dict[str, Any], sentence: str | None) -> None:
    env, _ = make(task, **changes)
    xml = env.sim.model.get_xml()
    env.close()
    if sentence is None:
        check_model(xml, "Lift")
    else:
        with pytest.raises(ValueError, match=sentence):
            check_model(xml, "Lift")


@pytest.mark.skipif(not FAULTS.exists(), reason="no faulty files: ../shared/faults is absent")
@pytest.mark.parametrize(
    ("name", "exit_code", "sentence"),
    [
        ("robosuite141_lift", 2, "it was recorded with robosuite 1.4.1, whose models differ"),
        ("robosuite_lift_absolute_actions", 2, "its arm's controller has input_type absolute, the bench's has delta"),
        ("robosuite_lift_bytes_attrs", 0, "it does not state its controller"),
    ],
)
def test_faulty_files_are_refused_or_read(tmp_path: Path, name: str, exit_code: int, sentence: str) -> None:
    command = ["replay", str(tmp_path / "data"), str(FAULTS / f"{name}.hdf5"), "--bench", "robosuite"]
    done = CliRunner().invoke(app, [*command, "bench.robosuite.image_hw_px=[32,32]"])
    said = done.output if exit_code == 0 else str(done.exception)
    assert sentence in said
    assert exit_code != 0 or "2 of 2 replayed now; 2 episodes, 7 frames in all" in said
