"""Files of demonstrations: what they state is read, what does not fit is refused in one sentence, the rest is quiet.

In: files as robosuite's recorder, robomimic and RoboCasa write them, and changed ones. Out: a verdict.
Read next: `evalkit/replay/statement.py`, `evalkit/replay/demos.py`; `tests/sim/test_replay.py`, which renders some.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from evalkit.contracts.errors import BadConfig
from evalkit.replay.demos import BrokenDemo, Demo, fingerprint, leaves_range, read_demo, read_file
from evalkit.replay.jobs import ReplayJob, about_now, plan_replay, replay_job
from evalkit.replay.render import actions_of
from evalkit.replay.statement import Statement
from tests.doubles.configured import bench_of
from tests.doubles.demos import OSC_POSE, arguments, of_robomimic, of_robosuite, write_demos

BENCHES = {"robosuite": bench_of("robosuite"), "robocasa": bench_of("robocasa", art="real")}
ROBOCASA = {
    "env_name": "OpenDrawer",
    "robots": "PandaMobile",
    "controller_configs": {"type": "HYBRID_MOBILE_BASE", "body_parts": {"arms": {"right": OSC_POSE}, "base": {}}},
    "control_freq": 20,
}


def warnings_of(tmp_path: Path, attributes: dict[str, Any], bench: str = "robosuite", **options: Any) -> list[str]:
    path = write_demos(tmp_path / "demo.hdf5", attributes)
    plan = plan_replay(tmp_path / "data", [path], BENCHES[bench], **options)
    assert [job.name for job in plan.jobs] == ["demo_1", "demo_2"]
    assert all(warning.startswith(f"{path}: ") for warning in plan.warnings)
    return [warning.removeprefix(f"{path}: ") for warning in plan.warnings]


def refusal_of(tmp_path: Path, attributes: dict[str, Any], bench: str = "robosuite", **options: Any) -> str:
    path = write_demos(tmp_path / "demo.hdf5", attributes)
    with pytest.raises(BadConfig) as caught:
        plan_replay(tmp_path / "data", [path], BENCHES[bench], **options)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("attributes", "bench"),
    [
        (of_robosuite(), "robosuite"),
        (of_robosuite(version="1.5.0"), "robosuite"),
        (of_robosuite(version="v1.5.1"), "robosuite"),
        (of_robosuite(arguments() | {"robots": "Panda", "gripper_types": "default"}), "robosuite"),
        (of_robosuite(arguments(output_max=[0.05] * 3 + [0.5] * 3, interpolation="null")), "robosuite"),
        (of_robosuite(arguments(input_ref_frame="world")), "robosuite"),
        (of_robomimic(), "robosuite"),
        (of_robomimic(env_kwargs=arguments() | {"controller_configs": OSC_POSE, "gripper_types": None}), "robosuite"),
        (of_robomimic(env_kwargs=arguments() | {"controller_configs": [OSC_POSE]}), "robosuite"),
        (of_robosuite() | of_robomimic(), "robosuite"),
        ({name: np.bytes_(value) for name, value in of_robosuite().items()}, "robosuite"),
        ({name: np.array([value], object) for name, value in of_robosuite().items()}, "robosuite"),
        (of_robomimic("0.2.0", ROBOCASA, env_name="OpenDrawer", robosuite_version="1.5.1"), "robocasa"),
        (of_robomimic("1.5.0", ROBOCASA | {"robots": ["PandaOmron"]}, env_name="OpenDrawer"), "robocasa"),
    ],
)
def test_files_that_fit_are_quiet(tmp_path: Path, attributes: dict[str, Any], bench: str) -> None:
    assert warnings_of(tmp_path, attributes, bench) == []


@pytest.mark.parametrize(
    ("arm", "sentence"),
    [
        ({"input_type": "absolute"}, "has input_type absolute, the bench's has delta, so its actions mean something"),
        ({"control_delta": False}, "has control_delta False, the bench's has True"),
        ({"type": "JOINT_VELOCITY"}, "has type JOINT_VELOCITY, the bench's has OSC_POSE"),
        ({"type": "OSC_POSITION"}, "has type OSC_POSITION, the bench's has OSC_POSE"),
        ({"type": "IK_POSE"}, "has type IK_POSE"),
        ({"input_max": 10}, "has input_max 10, the bench's has 1"),
        (
            {"output_max": [0.1] * 6},
            "has output_max [0.1, 0.1, 0.1, 0.1, 0.1, 0.1], the bench's has [0.05, 0.05, 0.05,",
        ),
        ({"output_min": -0.05}, "has output_min -0.05"),
        ({"impedance_mode": "variable_kp"}, "has impedance_mode variable_kp, the bench's has fixed"),
        ({"input_ref_frame": "eef"}, "has input_ref_frame eef, the bench's has base or world"),
    ],
)
def test_actions_of_another_meaning_are_refused(tmp_path: Path, arm: dict[str, Any], sentence: str) -> None:
    assert f"its arm's controller {sentence}" in refusal_of(tmp_path, of_robosuite(arguments(**arm)))
    assert f"its arm's controller {sentence}" in refusal_of(tmp_path, of_robomimic(env_kwargs=arguments(**arm)))


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        (of_robosuite(version="1.4.1"), "it was recorded with robosuite 1.4.1, whose models differ from those of"),
        (of_robomimic("1.2.0"), "it was recorded with robosuite 1.2.0"),
        (of_robomimic("1.51.0"), "it was recorded with robosuite 1.51.0"),
        (of_robosuite(version=b"1.4.0"), "it was recorded with robosuite 1.4.0"),
        (of_robomimic(type=2), "its env_args state the simulator type 2, robosuite's is 1"),
        (of_robosuite(arguments() | {"robots": "Sawyer"}), "its robot is Sawyer, one Panda can be replayed"),
        (of_robosuite(arguments() | {"robots": ["Panda", "Panda"]}), "its robot is Panda and Panda, one Panda can"),
        (
            of_robosuite(arguments() | {"gripper_types": "RethinkGripper"}),
            "its gripper is RethinkGripper, the bench's is",
        ),
        (
            of_robomimic(env_kwargs=arguments() | {"control_freq": 10}),
            "its control rate is 10 Hz, the bench's is 20 Hz",
        ),
        (
            of_robosuite(arguments() | {"controller_configs": {"type": "WHOLE_BODY_IK", "body_parts": {"right": {}}}}),
            "its composite controller is WHOLE_BODY_IK",
        ),
        (of_robosuite(arguments() | {"controller_configs": [OSC_POSE, OSC_POSE]}), "the controller of one robot"),
        (of_robosuite(arguments() | {"controller_configs": {"body_parts": {"left": OSC_POSE}}}), "of the arm 'right'"),
        (of_robosuite(task="TwoArmLift", env_info={}), "is of TwoArmLift, a task of two arms"),
        (of_robosuite(task="Stack"), "it states 2 tasks, Lift and Stack"),
        (of_robosuite(task="Wipe", env_info={}), "is of the task Wipe, which 'robosuite' does not have"),
        ({"env_args": "{"}, "its attribute env_args is not JSON"),
        ({"env_args": "[1]"}, "its attribute env_args must hold a JSON object, got [1]"),
        ({"env": "Lift", "env_info": '{"control_freq": "20"}'}, "its control_freq must be a number, got '20'"),
        ({}, "does not state its task; give it with --task"),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path: Path, attributes: dict[str, Any], sentence: str) -> None:
    assert sentence in refusal_of(tmp_path, attributes)


def test_what_a_file_leaves_open_is_a_warning(tmp_path: Path) -> None:
    (said,) = warnings_of(tmp_path, {"env": b"Lift"})
    assert said == (
        "it does not state its robot, controller, version of robosuite; a Panda with OSC_POSE deltas of 0.05 m and "
        "0.5 rad and robosuite 1.5 are assumed."
    )
    (said,) = warnings_of(tmp_path, of_robosuite(arguments(kp=300)))
    assert said.startswith("its controller has kp 300 in place of 150: the same actions move the bench's robot")
    (said,) = warnings_of(
        tmp_path, of_robomimic(env_name="Lift_D0", env_kwargs={**arguments(), "env_name": None}), task="Lift"
    )
    assert said == "it states the task Lift_D0, and is replayed as Lift (--task)."


def changed_demo(tmp_path: Path, change: Any) -> Demo:
    path = write_demos(tmp_path / "demo.hdf5", of_robosuite(), steps=8, change=change)
    return read_demo(path, "demo_1", control_hz=20)


def put(name: str, value: Any) -> Any:
    """Return a change of a file that replaces a data set of `demo_1`."""

    def change(data: Any) -> None:
        del data[f"demo_1/{name}"]
        data[f"demo_1/{name}"] = value

    return change


def states(times_s: Any) -> np.ndarray:
    return np.hstack([np.asarray(times_s, float)[:, None], np.zeros((len(times_s), 31))])


CLOCK = 0.05 * np.arange(8)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            put("states", states(2 * CLOCK)),
            "0.1 s in place of 0.05 s pass after step 0, at 7 of 7 steps in all; it was r",
        ),
        (put("states", states(CLOCK / 2)), "it was recorded at 40 Hz, or not every step was kept"),
        (
            put("states", states(CLOCK[[0, 1, 2, 4, 3, 5, 6, 7]])),
            "pass after step 2, at 3 of 7 steps in all; states are",
        ),
        (put("states", states(CLOCK[::-1])), "states are repeated or in another order"),
        (put("states", states(CLOCK[[0, 1, 2, 3, 3, 4, 5, 6]])), "states are repeated or in another order"),
        (put("states", states(0 * CLOCK)), "states are repeated or in another order"),
        (
            put("states", states(CLOCK + 0.05 * (np.arange(8) > 5))),
            "pass after step 5, at 1 of 7 steps in all; steps were",
        ),
        (put("states", np.full((8, 32), np.nan)), "its states are not finite at 8 of 8 steps, first at step 0"),
        (put("actions", np.full((8, 7), np.inf)), "its actions are not finite at 8 of 8 steps"),
        (put("actions", np.zeros((7, 7))), "its parts must be equally long, they are {'states': 8, 'actions': 7,"),
        (put("obs/robot0_eef_pos", np.zeros((8, 4))), "obs/robot0_eef_pos must have 3 numbers, it has 4"),
        (put("actions", np.zeros((8, 14))), "an action must have 7 or 12 numbers, of one arm, it has 14"),
        (put("actions", np.zeros(8)), "its actions must be a table of one row a step, they have the shape (8,)"),
        (put("actions", np.array([[b"x"] * 7] * 8)), "its actions are no numbers"),
        (lambda data: data["demo_1"].attrs.__delitem__("model_file"), "it has no attribute model_file"),
        (lambda data: data["demo_1"].attrs.__setitem__("ep_meta", "{"), "its attribute ep_meta is not JSON"),
        (lambda data: data["demo_1"].attrs.__setitem__("ep_meta", "[]"), "ep_meta must hold a JSON object, got []"),
        (lambda data: data["demo_1"].__delitem__("states"), "it has no data set 'states'"),
    ],
)
def test_demonstrations_that_cannot_be_replayed_are_named(tmp_path: Path, change: Any, sentence: str) -> None:
    with pytest.raises(BrokenDemo) as caught:
        changed_demo(tmp_path, change)
    assert sentence in str(caught.value)


def test_demonstrations_without_a_step_are_named(tmp_path: Path) -> None:
    path = write_demos(tmp_path / "demo.hdf5", of_robosuite(), steps=0)
    with pytest.raises(BrokenDemo, match="it has no step"):
        read_demo(path, "demo_1", control_hz=20)


@pytest.mark.parametrize("start_s", [0.0, 0.004, 1234.5])
def test_a_clock_may_start_anywhere_and_be_stored_in_32_bits(tmp_path: Path, start_s: float) -> None:
    demo = changed_demo(tmp_path, put("states", states(CLOCK + start_s).astype(np.float32)))
    assert len(demo.states) == 8


def test_actions_outside_the_range_are_counted_and_clipped(tmp_path: Path) -> None:
    actions = np.zeros((8, 7))
    actions[[2, 5], [0, 4]] = 1.5, -1.25
    actions[:, 6] = 3.0  # a gripper's sign counts alone
    demo = changed_demo(tmp_path, put("actions", actions))
    assert leaves_range(demo) == (
        "its arm's actions leave [-1, 1] at 2 of 8 steps, first at step 2, by up to 1.5; they are stored clipped, as "
        "the controller clips them"
    )
    stored = actions_of(demo, np.eye(3))
    assert (stored[2, 0], stored[5, 4], stored[0, 6]) == (1.0, -1.0, -1.0)
    assert leaves_range(changed_demo(tmp_path, put("actions", np.ones((8, 7))))) is None
    actions[:5, 3] = 3.1
    with pytest.raises(BrokenDemo, match=r"at 6 of 8 steps, first at step 0, by up to 3\.1: they are no deltas"):
        leaves_range(changed_demo(tmp_path, put("actions", actions)))


def test_deltas_along_the_world_are_turned_into_the_bases_axes(tmp_path: Path) -> None:
    actions = np.zeros((8, 7))
    actions[:, :6] = [1.5, 0, 0.25, 0, 0.5, 0]
    R_base_world = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    stored = actions_of(changed_demo(tmp_path, put("actions", actions)), R_base_world)
    np.testing.assert_allclose(stored[0, :6], [0, -1, 0.25, 0.5, 0, 0], atol=1e-7)  # clipped first


def test_unreadable_files_are_named_without_hdf5s_text(tmp_path: Path) -> None:
    whole = write_demos(tmp_path / "whole.hdf5", of_robosuite(), steps=200)
    other = tmp_path / "other.hdf5"
    contents: list[tuple[bytes, str]] = [
        (b"", "it is no HDF5 file, it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is no HDF5 file"),
        (whole.read_bytes()[:4000], "it is cut off or damaged; copy or download it again"),
    ]
    for content, sentence in contents:
        other.write_bytes(content)
        with pytest.raises(BadConfig) as caught:
            read_file(other)
        assert str(caught.value) == f"{other}: {sentence}."
    with h5py.File(other, "w") as file:
        file["x"] = 1
    with pytest.raises(BadConfig, match=r"it has no group 'data', it holds x\.$"):
        read_file(other)
    with pytest.raises(BadConfig, match=r"it is a folder\.$"):
        read_file(tmp_path)
    named = write_demos(tmp_path / "named.hdf5", of_robosuite(), change=lambda data: data.move("demo_1", "demo1"))
    assert read_file(named).names == ("demo_2",)
    assert read_file(named).others == ("demo1",)
    only = write_demos(tmp_path / "only.hdf5", {}, change=lambda data: data.clear())
    with pytest.raises(BadConfig, match=r"there is no demonstration 'data/demo_N' in it, it is empty"):
        read_file(only)


def test_a_data_set_in_the_place_of_a_demonstration_is_named(tmp_path: Path) -> None:
    def change(data: Any) -> None:
        del data["demo_1"]
        data["demo_1"] = np.zeros(3)

    with pytest.raises(BrokenDemo, match="it is no group with states and actions"):
        changed_demo(tmp_path, change)


def test_the_fingerprint_changes_with_everything_that_counts(tmp_path: Path) -> None:
    def edit_meta(data: Any) -> None:
        data["demo_1"].attrs["ep_meta"] = json.dumps({"lang": "open it"})

    def edit_model(data: Any) -> None:
        data["demo_1"].attrs["model_file"] = "<mujoco></mujoco>"

    changes = [
        *(None, edit_meta, edit_model, put("states", states(CLOCK)), put("actions", np.zeros((8, 7)))),
        lambda data: data.__delitem__("demo_1/obs"),
    ]
    hashes = [fingerprint(changed_demo(tmp_path, change), Statement()) for change in changes]
    hashes.append(fingerprint(changed_demo(tmp_path, None), Statement(controller={"input_ref_frame": "world"})))
    assert len(set(hashes)) == len(hashes)
    assert hashes[0] == fingerprint(changed_demo(tmp_path, None), Statement())


def test_two_files_of_the_same_numbers_are_not_mixed(tmp_path: Path) -> None:
    paths = [write_demos(tmp_path / f"{name}.hdf5", of_robosuite()) for name in "ab"]
    with pytest.raises(BadConfig, match="would be the same episode; replay the files one after the other"):
        plan_replay(tmp_path / "data", paths, BENCHES["robosuite"])


def test_a_number_written_twice_in_one_file_is_named(tmp_path: Path) -> None:
    path = write_demos(tmp_path / "a.hdf5", of_robosuite(), change=lambda data: data.copy("demo_1", "demo_01"))
    with pytest.raises(BadConfig, match=r"a\.hdf5: demo_0?1 and demo_0?1 would be the same episode; rename one"):
        plan_replay(tmp_path / "data", [path], BENCHES["robosuite"])


def test_another_tolerance_tries_again(tmp_path: Path) -> None:
    root = tmp_path / "data"
    path = write_demos(tmp_path / "a.hdf5", of_robosuite(), change=lambda data: data["demo_1"].pop("states"))
    (job, _) = plan_replay(root, [path], BENCHES["robosuite"]).jobs
    assert "it has no data set 'states'" in str(replay_job(job).reason)
    assert plan_replay(root, [path], BENCHES["robosuite"]).unreproduced == [job]
    other = plan_replay(root, [path], BENCHES["robosuite"], ee_tolerance_m=0.003)
    assert (len(other.jobs), other.unreproduced) == (2, [])


def stored(job: ReplayJob, **changes: Any) -> Path:
    """Write the JSON of a job's episode, as far as it says where the episode comes from."""
    path = job.root / "data" / f"{job.key}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"num_frames": 5, "about": replace(about_now(job), **changes).to_json()}))
    return path


def test_an_episode_beyond_a_smaller_tolerance_is_named(tmp_path: Path) -> None:
    root, path = tmp_path / "data", write_demos(tmp_path / "a.hdf5", of_robosuite())
    episode = stored(plan_replay(root, [path], BENCHES["robosuite"]).jobs[0], end_effector_error_mm=1.5)
    assert plan_replay(root, [path], BENCHES["robosuite"]).warnings == []
    (warning,) = plan_replay(root, [path], BENCHES["robosuite"], ee_tolerance_m=0.001).warnings
    assert warning.startswith(f"{episode} is there, and its end effector is up to 1.5 mm from its recorded positions")


@pytest.mark.parametrize(
    ("changes", "harm", "sentence"),
    [
        ({"demonstration_sha256": None}, False, "an older version wrote it, which stored no hash of the demonstration"),
        ({}, True, "the demonstration cannot be read now"),
    ],
)
def test_what_cannot_be_compared_says_why(tmp_path: Path, changes: Any, harm: bool, sentence: str) -> None:
    root, path = tmp_path / "data", write_demos(tmp_path / "a.hdf5", of_robosuite())
    episode = stored(plan_replay(root, [path], BENCHES["robosuite"]).jobs[0], **changes)
    if harm:
        write_demos(path, of_robosuite(), change=lambda data: data["demo_1"].pop("states"))
    with pytest.raises(BadConfig) as caught:
        plan_replay(root, [path], BENCHES["robosuite"])
    assert f"{episode} cannot be compared with demo_1 of {path}: {sentence}. Replay into" in str(caught.value)
