"""Replay of recorded demonstrations: pictures equal to those of the env that made the states; what differs is named."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from envs.robosuite.env import RobosuiteEnv
from envs.robosuite.replay import RobosuiteReplay
from evalkit.contracts.errors import BadConfig
from evalkit.dataset.layout import read_track, scan
from evalkit.dataset.videos import read_frames
from evalkit.replay import render
from evalkit.replay.demos import BrokenDemo, read_demo
from evalkit.replay.jobs import UNREPRODUCED, jobs, replay_one
from tests.doubles.simulators import needs_robosuite

pytestmark = needs_robosuite()

ROOT = Path(__file__).resolve().parents[2]
LENGTH, SIZE = 5, [64, 64]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a robomimic file with two demonstrations of Lift, and what the env saw in each state."""
    path, rng = tmp_path_factory.mktemp("demos") / "lift.hdf5", np.random.default_rng(0)
    seen = []
    env = RobosuiteEnv(task="Lift", image_hw_px=SIZE)
    with h5py.File(path, "w") as file:
        file.create_group("data").attrs["env_args"] = json.dumps({"env_name": "Lift"})
        for number in (10, 2):
            env.begin(seed=number, max_steps=LENGTH)
            states, actions, hands, frames = [], [], [], []
            for _ in range(LENGTH):
                frames.append(env.observe(render=True))
                states.append(env._sim.sim.get_state().flatten())
                hands.append(np.array(env._data.site("gripper0_right_grip_site").xpos))
                action = np.zeros(14, np.float32)
                action[:7] = rng.uniform(-1, 1, 7)
                actions.append(action[:7] * [1, 1, 1, 1, 1, 1, -1])
                env.advance(action)
            group = file.create_group(f"data/demo_{number}")
            model = env._sim.sim.model.get_xml().replace("/site-packages/robosuite/", "/another/machine/robosuite/")
            group.attrs["model_file"] = model
            group["states"], group["actions"], group["obs/robot0_eef_pos"] = states, actions, hands
            seen.append((number, frames, np.array(actions)))
    env.close()
    return path, seen


def changed(recorded: Any, tmp_path: Path, change: Any) -> Any:
    path = tmp_path / "changed.hdf5"
    shutil.copyfile(recorded[0], path)
    with h5py.File(path, "r+") as file:
        change(file["data"])
    return path


def replayed(path: Any, root: Any) -> Any:
    """Run the command as a user does; return its exit status and what it says."""
    command = [sys.executable, "-m", "baselines.replay", str(root), str(path), "--bench", "robosuite"]
    done = subprocess.run([*command, "--set", "image_hw_px=[64, 64]"], capture_output=True, text=True, cwd=ROOT)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_a_state_looks_as_it_did(recorded: Any, tmp_path: Path) -> None:
    path, seen = recorded
    status, said = replayed(path, tmp_path)
    assert status == 0, said
    assert "2 of 2 replayed now; 2 episodes, 10 frames in all" in said
    found = scan(tmp_path)
    assert not found.broken
    for number, frames, actions in seen:
        (key,) = [key for key in found.lengths if key.endswith(f"{number:05d}")]
        track = read_track(tmp_path, key)
        np.testing.assert_allclose(track.proprio, [frame["proprio"] for frame in frames], atol=2e-6)
        np.testing.assert_allclose(track.action[:, :6], np.float32(actions[:, :6]))
        np.testing.assert_allclose(track.action[:, 6], -np.float32(actions[:, 6]))  # 1 opens
        assert track.instructions == (frames[0]["instruction"],)
        views = json.loads((tmp_path / "data" / f"{key}.json").read_text())["observations"].values()
        np.testing.assert_allclose([view["intrinsics"] for view in views], frames[0]["intrinsics"])
        for view_idx, camera in enumerate(track.cameras):
            rgb = read_frames(camera.rgb_path, range(LENGTH)).astype(int)
            depth_m = read_frames(camera.depth_mm_path, range(LENGTH), "gray16le") / 1000
            expected = np.stack([frame["depth"][view_idx] for frame in frames])
            assert np.abs(rgb - np.stack([frame["rgb"][view_idx] for frame in frames])).mean() < 0.1
            assert (np.abs(depth_m - expected) > 6e-4).mean() < 1e-3  # silhouettes
    stamps = [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*.mp4"))]
    assert "0 of 0 replayed now; 2 episodes" in replayed(path, tmp_path)[1]
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*.mp4"))] == stamps


@pytest.mark.slow
def test_what_cannot_be_reproduced_is_named_and_not_kept(recorded: Any, tmp_path: Path) -> None:
    def change(data: Any) -> None:
        hands = data["demo_10/obs/robot0_eef_pos"]
        hands[4] = hands[4] + [0.0, 0.003, 0.004]
        states = data["demo_2/states"][:]
        del data["demo_2/states"]
        data["demo_2/states"] = states[:, :-1]

    root = tmp_path / "data"
    path = changed(recorded, tmp_path, change)
    status, out = replayed(path, root)
    assert status == 1
    assert "demo_10: frame 4: the hand is 5.0 mm from where the demonstration saw it, 2 mm are allowed" in out
    assert "demo_2: after frame 0: ValueError: a state of this model has 32 numbers, the recorded one has (31,)" in out
    assert not (root / "metadata.json").exists()
    assert len(list((root / UNREPRODUCED).rglob("*.txt"))) == 2
    assert replayed(path, root)[0] == 0  # what is beyond reproduction is not tried again


def test_depth_that_is_no_number_is_not_kept(recorded: Any) -> None:
    demo = read_demo(recorded[0], "demo_2")
    depth = np.ones((3, 4, 4), np.float32)
    depth[1, 2, 2] = np.nan
    observation = {"depth": depth, "privileged": {"hand_world_m": demo.hand_world_m[0], "base_world_m": np.zeros(3)}}
    with pytest.raises(BrokenDemo, match="frame 0: view 1 has depth that is not finite"):
        render._check(0, observation, demo, 1.0, None)
    observation["depth"] = np.ones((3, 4, 4), np.float32)
    with pytest.raises(BrokenDemo, match="frame 0: the robot's base has moved"):
        render._check(0, observation, demo, 1.0, np.ones(3))
    render._check(0, observation, demo, 1.0, np.zeros(3))


def test_files_that_are_none_of_robomimics(recorded: Any, tmp_path: Path) -> None:
    settings = {"image_hw_px": SIZE}
    with pytest.raises(BadConfig, match="would be the same episode"):
        jobs(tmp_path, [recorded[0], changed(recorded, tmp_path, lambda data: None)], "robosuite", settings=settings)
    path = changed(recorded, tmp_path, lambda data: data.attrs.modify("env_args", json.dumps({"env_name": "Pour"})))
    with pytest.raises(BadConfig, match="is of the task Pour, which is none of 'robosuite'"):
        jobs(tmp_path, [path], "robosuite", settings=settings)
    (tmp_path / "x.hdf5").write_bytes(b"nothing")
    with pytest.raises(BadConfig, match="is no robomimic file"):
        jobs(tmp_path, [tmp_path / "x.hdf5"], "robosuite", settings=settings)
    short = changed(recorded, tmp_path, lambda data: data["demo_2"].__delitem__("actions"))
    todo = jobs(tmp_path, [short], "robosuite", settings=settings)
    assert [job.name for job in todo] == ["demo_2", "demo_10"]
    assert "demo_2: it cannot be read" in str(replay_one(todo[0]))


def test_another_file_is_not_taken_for_the_one_that_is_there(recorded: Any, tmp_path: Path) -> None:
    settings = {"image_hw_px": SIZE}
    root = tmp_path / "data"
    todo = jobs(root, [recorded[0]], "robosuite", settings=settings)
    assert replay_one(todo[0]) is None
    assert jobs(root, [recorded[0]], "robosuite", settings=settings) == todo[1:]
    other = changed(recorded, tmp_path, lambda data: data.create_dataset("more", data=np.zeros(9)))
    with pytest.raises(BadConfig, match=r"another demonstration than demo_2 of .*replayed_from 'lift.hdf5', .*--first"):
        jobs(root, [other], "robosuite", settings=settings)
    with pytest.raises(BadConfig, match=r"settings \{'image_hw_px': \[64, 64\]\}"):
        jobs(root, [recorded[0]], "robosuite", settings={"image_hw_px": [32, 32]})
    assert len(jobs(root, [other], "robosuite", settings=settings, first=50)) == 2
    with pytest.raises(BadConfig, match="Bench 'robosuite' has no setting 'pixels'; it has "):
        jobs(root, [other], "robosuite", settings={"pixels": 3})


def test_what_cannot_be_written_is_named_and_not_tried_again(
    recorded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("chunk-0100/episode_0100002: depth of 70 m does not fit into 16 bits of millimetres")

    todo = jobs(tmp_path, [recorded[0]], "robosuite", settings={"image_hw_px": SIZE})
    monkeypatch.setattr("evalkit.replay.jobs.write_episode", refuse)
    assert "demo_2: chunk-0100/episode_0100002: depth of 70 m does not fit" in str(replay_one(todo[0]))
    assert jobs(tmp_path, [recorded[0]], "robosuite", settings={"image_hw_px": SIZE}) == todo[1:]


@pytest.mark.slow
def test_where_nothing_can_be_written_one_sentence_says_so(recorded: Any, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (root / "video").write_text("a file in the place of a folder")
    code, said = replayed(recorded[0], root)
    assert code == 2
    assert "Traceback" not in said
    assert "the same command goes on" in said
    assert str(root / "video") in said
    (root / "video").unlink()
    assert replayed(recorded[0], root)[0] == 0
    assert len(scan(root).lengths) == 2


def test_the_env_that_plays_back_keeps_to_states(recorded: Any) -> None:
    demo = read_demo(recorded[0], "demo_10")
    env = RobosuiteReplay(model_file=demo.model_file, ep_meta={}, task="Lift", image_hw_px=SIZE)
    try:
        env.begin(seed=0, max_steps=0)
        for index in (3, 0):  # in any order
            env.advance(demo.states[index])
            np.testing.assert_allclose(
                env.observe(render=False)["privileged"]["hand_world_m"], demo.hand_world_m[index], atol=1e-9
            )
        with pytest.raises(ValueError, match="holds numbers that are not finite"):
            env.advance(np.full_like(demo.states[0], np.nan))
    finally:
        env.close()
