"""Replay of recorded demonstrations: images equal those of the env that made the states; differences are named."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from envs.robosuite.env import RobosuiteEnv
from envs.robosuite.replay import RobosuiteReplay
from evalkit.contracts.bound import BoundBench
from evalkit.contracts.errors import BadConfig, EpisodeFault, EvalkitError
from evalkit.contracts.types import Observation
from evalkit.dataset.layout import read_track, scan
from evalkit.dataset.videos import read_frames
from evalkit.replay import render
from evalkit.replay.demos import BrokenDemo, Demo, read_demo
from evalkit.replay.jobs import UNREPRODUCED, Replayed, ReplayJob, ReplayJobResult, plan_replay, replay, replay_job
from tests.doubles.configured import bench_of
from tests.doubles.known import known
from tests.doubles.simulators import needs_robosuite

pytestmark = needs_robosuite()

LENGTH, SIZE = 5, [64, 64]


Recorded = tuple[Path, list[tuple[int, list[dict[str, Any]], np.ndarray]]]
"""A file, and for each demonstration: number, observations, actions."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Return a robomimic file with two demonstrations of Lift, and what the env saw in each state."""
    path, rng = tmp_path_factory.mktemp("demos") / "lift.hdf5", np.random.default_rng(0)
    seen = []
    env = RobosuiteEnv(task="Lift", image_hw_px=SIZE)
    with h5py.File(path, "w") as file:
        file.create_group("data").attrs["env_args"] = json.dumps({"env_name": "Lift"})
        for number in (10, 2):
            env.begin(seed=number, max_steps=LENGTH)
            states, actions, positions, frames = [], [], [], []
            for _ in range(LENGTH):
                frames.append(env.observe(render=True))
                states.append(env._sim.sim.get_state().flatten())
                positions.append(np.array(env._data.site("gripper0_right_grip_site").xpos))
                action = np.zeros(14, np.float32)
                action[:7] = rng.uniform(-1, 1, 7)
                actions.append(action[:7] * [1, 1, 1, 1, 1, 1, -1])
                env.advance(action)
            group = file.create_group(f"data/demo_{number}")
            model = env._sim.sim.model.get_xml().replace("/site-packages/robosuite/", "/another/machine/robosuite/")
            group.attrs["model_file"] = model
            group["states"], group["actions"], group["obs/robot0_eef_pos"] = states, actions, positions
            seen.append((number, frames, np.array(actions)))
    env.close()
    return path, seen


def changed(recorded: Any, tmp_path: Path, change: Any) -> Any:
    path = tmp_path / "changed.hdf5"
    shutil.copyfile(recorded[0], path)
    with h5py.File(path, "r+") as file:
        change(file["data"])
    return path


SMALL = bench_of("robosuite", image_hw_px=SIZE)


def replayed(path: Path, root: Path) -> Replayed:
    return replay(root, jobs(root, [path], SMALL))


def jobs(root: Path, files: list[Path], bench: BoundBench, **arguments: Any) -> list[ReplayJob]:
    return plan_replay(root, files, bench, **arguments).jobs


@pytest.mark.slow
def test_a_state_looks_as_it_did(recorded: Recorded, tmp_path: Path) -> None:
    path, seen = recorded
    result = replayed(path, tmp_path)
    assert (result.written, result.reasons, sum(result.lengths.values())) == (2, (), 10)
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
            depth_m = read_frames(known(camera.depth_mm_path), range(LENGTH), "gray16le") / 1000
            expected = np.stack([frame["depth"][view_idx] for frame in frames])
            assert np.abs(rgb - np.stack([frame["rgb"][view_idx] for frame in frames])).mean() < 0.1
            assert (np.abs(depth_m - expected) > 6e-4).mean() < 1e-3  # silhouettes
    stamps = [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*.mp4"))]
    again = replayed(path, tmp_path)
    assert (again.written, again.lengths) == (0, result.lengths)
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*.mp4"))] == stamps


@pytest.mark.slow
def test_what_cannot_be_reproduced_is_named_and_not_kept(recorded: Recorded, tmp_path: Path) -> None:
    def change(data: Any) -> None:
        positions = data["demo_10/obs/robot0_eef_pos"]
        positions[4] = positions[4] + [0.0, 0.003, 0.004]
        states = data["demo_2/states"][:]
        del data["demo_2/states"]
        data["demo_2/states"] = states[:, :-1]

    root = tmp_path / "data"
    path = changed(recorded, tmp_path, change)
    result = replayed(path, root)
    assert sorted(reason.partition(", ")[2] for reason in result.reasons) == [
        "demo_10: frame 4: the end effector is 5.0 mm from its recorded position, 2 mm are allowed.",
        "demo_2: after frame 0: a state of its model has 32 numbers, the recorded one has 31.",
    ]
    assert not (root / "metadata.json").exists()
    assert result.num_unreproduced == len(list((root / UNREPRODUCED).rglob("*.txt"))) == 2
    assert jobs(root, [path], SMALL) == []


def observed(demo: Demo, depth: float, base_world_m: Any = (0, 0, 0), turned_rad: float = 0.0) -> Observation:
    assert demo.ee_world_m is not None
    turn = Rotation.from_rotvec([0, 0, turned_rad]).as_matrix()
    return Observation(
        rgb=np.zeros((3, 4, 4, 3), np.uint8),
        depth=np.full((3, 4, 4), depth, np.float32),
        intrinsics=np.zeros((3, 3, 3)),
        T_base_cam=np.zeros((3, 4, 4)),
        proprio=np.zeros(16, np.float32),
        instruction="",
        privileged={
            "ee_world_m": demo.ee_world_m[0],
            "base_world_m": np.array(base_world_m, float),
            "base_world_rotation": turn,
        },
    )


def test_frames_that_differ_from_the_recording_are_refused(recorded: Recorded) -> None:
    demo = read_demo(recorded[0], "demo_2", control_hz=20)
    with pytest.raises(BrokenDemo, match="frame 0: view 0 has no depth"):
        render._check(0, observed(demo, 0.0), demo, 1.0, first=None)
    first = observed(demo, 1.0)
    for moved in (observed(demo, 1.0, (0, 2e-3, 0)), observed(demo, 1.0, turned_rad=0.01)):
        with pytest.raises(BrokenDemo, match="frame 0: the robot's base has moved"):
            render._check(0, moved, demo, 1.0, first=first)
    render._check(0, observed(demo, 1.0, (0, 5e-4, 0), turned_rad=1e-3), demo, 1.0, first=first)


@pytest.mark.parametrize("retriable", [False, True])
def test_only_a_worker_that_died_can_be_tried_again(recorded: Recorded, retriable: bool) -> None:
    demo = read_demo(recorded[0], "demo_2", control_hz=20)

    def play(states: np.ndarray) -> Iterator[Observation]:
        yield observed(demo, 1.0)
        raise EpisodeFault("env", "depth holds values that are not finite.", retriable=retriable)

    expected = (EpisodeFault, "^depth") if retriable else (BrokenDemo, "after frame 1: depth holds values that are not")
    with pytest.raises(expected[0], match=expected[1]):
        render._play(SimpleNamespace(play=play), demo, 1.0)  # type: ignore[arg-type]


def test_files_that_are_none_of_robomimics(recorded: Recorded, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="would be the same episode"):
        jobs(tmp_path, [recorded[0], changed(recorded, tmp_path, lambda data: None)], SMALL)
    path = changed(recorded, tmp_path, lambda data: data.attrs.modify("env_args", json.dumps({"env_name": "Pour"})))
    with pytest.raises(BadConfig, match="is of the task Pour, which 'robosuite' does not have; --task"):
        jobs(tmp_path, [path], SMALL)
    (tmp_path / "x.hdf5").write_bytes(b"nothing")
    with pytest.raises(BadConfig, match=r"x.hdf5: it is no HDF5 file\.$"):
        jobs(tmp_path, [tmp_path / "x.hdf5"], SMALL)
    short = changed(recorded, tmp_path, lambda data: data["demo_2"].__delitem__("actions"))
    todo = jobs(tmp_path, [short], SMALL)
    assert [job.name for job in todo] == ["demo_2", "demo_10"]
    assert "demo_2: it has no data set 'actions'" in str(replay_job(todo[0]).reason)


def test_another_file_is_not_taken_for_the_one_that_is_there(recorded: Recorded, tmp_path: Path) -> None:
    root = tmp_path / "data"
    todo = jobs(root, [recorded[0]], SMALL)
    assert replay_job(todo[0]) == ReplayJobResult()
    assert jobs(root, [recorded[0]], SMALL) == todo[1:]
    same = changed(recorded, tmp_path, lambda data: data.create_dataset("more", data=np.zeros(9)))
    assert [job.name for job in jobs(root, [same], SMALL)] == ["demo_10"]
    for name in ("states", "actions", "obs/robot0_eef_pos"):
        other = changed(recorded, tmp_path, lambda data: data[f"demo_2/{name}"].__setitem__((2, 1), 1e-9))  # noqa: B023
        with pytest.raises(BadConfig, match=r"another demonstration than demo_2 of .*demonstration_sha256.*--first"):
            jobs(root, [other], SMALL)
    with pytest.raises(BadConfig, match=r"field 'settings' was \{'image_hw_px': \[64, 64\]\}"):
        jobs(root, [recorded[0]], bench_of("robosuite", image_hw_px=[32, 32]))
    assert len(jobs(root, [other], SMALL, first_number=50)) == 2


def test_what_cannot_be_written_is_named_and_not_tried_again(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("chunk-0100/episode_0100002: depth of 70 m does not fit into 16 bits of millimetres")

    todo = jobs(tmp_path, [recorded[0]], SMALL)
    monkeypatch.setattr("evalkit.replay.jobs.write_episode", refuse)
    assert "demo_2: chunk-0100/episode_0100002: depth of 70 m does not fit" in str(replay_job(todo[0]).reason)
    assert jobs(tmp_path, [recorded[0]], SMALL) == todo[1:]


@pytest.mark.slow
def test_where_nothing_can_be_written_one_sentence_says_so(recorded: Recorded, tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (root / "video").write_text("a file in the place of a folder")
    with pytest.raises(EvalkitError, match=f"{root / 'video'}.* run the same command again"):
        replayed(recorded[0], root)
    (root / "video").unlink()
    assert replayed(recorded[0], root).written == 2
    assert len(scan(root).lengths) == 2


def test_the_env_that_plays_back_keeps_to_states(recorded: Recorded) -> None:
    demo = read_demo(recorded[0], "demo_10", control_hz=20)
    env = RobosuiteReplay(model_file=demo.model_file, ep_meta={}, task="Lift", image_hw_px=SIZE)
    try:
        env.begin(seed=0, max_steps=0)
        for index in (3, 0):  # in any order
            env.play(demo.states[index])
            np.testing.assert_allclose(
                env.observe(render=False)["privileged"]["ee_world_m"], known(demo.ee_world_m)[index], atol=1e-9
            )
        with pytest.raises(ValueError, match="holds numbers that are not finite"):
            env.play(np.full_like(demo.states[0], np.nan))
    finally:
        env.close()
