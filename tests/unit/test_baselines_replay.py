"""The policy `replay`: recorded actions of the episode's own seed, from data sets and runs.

In: recordings of the painted world. Out: a verdict.
Read next: `baselines/replay.py`, `evalkit/dataset/executed.py`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines.replay import ReplayConfig, ReplayPlugin, ReplayPolicy
from evalkit.contracts.errors import BadConfig, EpisodeFault
from evalkit.contracts.requests import EpisodeRequests
from evalkit.contracts.spec import EE_POSE_BASE, JOINT_POSITION, OSC_DELTA_BASE
from evalkit.contracts.types import Episode, Observation
from evalkit.dataset.about import EpisodeAbout
from evalkit.dataset.depth_video import DepthRange
from evalkit.dataset.executed import EpisodeId, ExecutedEpisodes
from evalkit.dataset.writer import Recording, Steps, View, write_episode, write_metadata
from evalkit.store.clips import ClipReader
from tests.doubles.known import known
from tests.doubles.painted import PaintedBench, PaintedEnv
from tests.doubles.scene import write_scene_run

BENCH = PaintedBench()
EPISODES = BENCH.plan_episodes(PaintedBench.config_type(), task="Slide", setting="default", num_episodes=3, seed=0)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Episodes 0 and 1 of the plan, as a data set."""
    return write_data(tmp_path / "data")


def write_data(folder: Path, *, layout: str = OSC_DELTA_BASE, **stated: str | None) -> Path:
    """Return the folder, with the data set in it; `stated` is what its episodes say about themselves."""
    env = PaintedEnv(task="Slide", drift_m=0.0)
    recording = Recording(
        views=(View(name="0_front", kind="static"),),
        arms=("left",),
        layout=layout,
        control_hz=20.0,
        depth_range=DepthRange(),
    )
    for episode in EPISODES[:2]:
        env.begin(seed=episode.seed, max_steps=20)
        observations, actions = [], np.random.default_rng(episode.seed).uniform(-1, 1, (20, 14)).astype(np.float32)
        actions[:, 7:] = 0
        for action in actions:
            observations.append(Observation(**env.observe(render=True)))
            env.advance(action)
        about = EpisodeAbout(bench=BENCH.name, task="Slide", setting="default", seed=episode.seed, success=True)
        write_episode(
            folder,
            episode.index,
            Steps.of(observations, actions),
            recording,
            instructions=["slide"],
            about=replace(about, **stated),  # type: ignore[arg-type]
        )
    write_metadata(folder)
    return folder


def loaded(data: Path) -> ReplayPolicy:
    return ReplayPlugin().make(ReplayConfig(data=str(data), execute_steps=8))


def played(
    policy: ReplayPolicy, episode: Episode, *, drift_m: float = 0.0, num_chunks: int = 4, **spec: Any
) -> np.ndarray:
    """Return the actions of some chunks, executed one after another; `spec` changes what the env states."""
    env = PaintedEnv(task=episode.task, drift_m=drift_m)
    env.spec = replace(env.spec, **spec)
    env.begin(seed=episode.seed, max_steps=episode.max_steps)
    requests, executed = EpisodeRequests(episode, policy.spec), list[np.ndarray]()
    requests.reset(policy, env.spec)
    for chunk_idx in range(num_chunks):
        observation = Observation(**env.observe(render=False))
        (reply,) = policy.infer([requests.request(observation, chunk_idx=chunk_idx, step_idx=len(executed))])
        for action in reply.actions:
            env.advance(action)
            executed.append(action)
    return np.stack(executed)


def test_each_episode_gets_the_actions_of_its_own_seed(data: Path) -> None:
    policy, recorded = loaded(data), ExecutedEpisodes(data)
    for episode in EPISODES[:2]:
        actions = played(policy, episode)
        known_actions = recorded.read(EpisodeId(BENCH.name, "default", "Slide", episode.seed)).actions_nd
        np.testing.assert_array_equal(actions[:20], known_actions)
        assert not actions[20:, :6].any()
        np.testing.assert_array_equal(actions[20:, 6], np.repeat(known_actions[-1, 6], 12))


def test_an_episode_without_a_recording_is_an_error(data: Path) -> None:
    with pytest.raises(
        EpisodeFault, match=r"holds no recording of .*/Slide, setting default, seed 2; it holds 2 of seeds 0 to 1"
    ):
        played(loaded(data), EPISODES[2])
    with pytest.raises(EpisodeFault, match="setting wide, seed 0; it holds none of this task"):
        played(loaded(data), replace(EPISODES[0], setting="wide"))


def test_a_recording_that_starts_elsewhere_is_an_error(data: Path) -> None:
    with pytest.raises(EpisodeFault, match=r"starts from another state: its left end effector is 50.0 mm"):
        played(loaded(data), EPISODES[0], drift_m=0.05)


@pytest.mark.parametrize("source", ["data set", "run"])
def test_another_action_layout_is_refused(data: Path, tmp_path: Path, source: str) -> None:
    episode = EPISODES[0]
    if source == "run":
        write_scene_run(tmp_path / "run", outcomes=["success"], image_hw_px=(24, 32))
        data = tmp_path / "run"
        with ClipReader(data / "clips/ball/0000.h5") as clip:
            episode = clip.header.episode
    for layout in (EE_POSE_BASE, JOINT_POSITION):
        with pytest.raises(
            EpisodeFault,
            match=rf"with another action layout than .* has: osc_delta_base in the recording, {layout} in the env",
        ):
            played(loaded(data), episode, action_layout=layout)


def test_poses_are_not_replayed_as_changes(tmp_path: Path) -> None:
    """A recording of absolute poses has no raw commands, by which its layout is known."""
    write_data(tmp_path / "data", layout=EE_POSE_BASE)
    assert len(played(loaded(tmp_path / "data"), EPISODES[0], action_layout=EE_POSE_BASE)) == 32
    with pytest.raises(EpisodeFault, match="ee_pose_base in the recording, osc_delta_base in the env"):
        played(loaded(tmp_path / "data"), EPISODES[0])


def test_another_arm_is_refused(data: Path) -> None:
    with pytest.raises(EpisodeFault, match=r"other arms than .*: left in the recording, left and right in the env"):
        played(loaded(data), EPISODES[0], arms=("left", "right"))


def test_a_recording_without_a_setting_is_refused(tmp_path: Path) -> None:
    write_data(tmp_path / "data", setting=None)
    for setting in ("default", "wide"):
        with pytest.raises(EpisodeFault, match=r"does not say of which setting it is \(`setting` under `about`"):
            played(loaded(tmp_path / "data"), replace(EPISODES[0], setting=setting))


def test_another_protocol_is_refused(tmp_path: Path) -> None:
    write_data(tmp_path / "data", protocol="painted/v1+dim")
    played(loaded(tmp_path / "data"), replace(EPISODES[0], protocol="painted/v1+bright"))
    with pytest.raises(EpisodeFault, match="its recording is of the protocol painted/v1, not of painted/v2"):
        played(loaded(tmp_path / "data"), replace(EPISODES[0], protocol="painted/v2"))


def test_it_is_an_oracle_that_names_its_recording(data: Path) -> None:
    plugin, config = ReplayPlugin(), ReplayConfig(data=str(data))
    assert plugin.spec(config).privileged_keys == ("episode",)
    assert plugin.provenance(config)["recording"].startswith("2 episodes (Slide 2), sha256")
    assert [finding.ok for finding in plugin.examine(config)] == [True]


def test_a_folder_without_episodes_is_refused(tmp_path: Path) -> None:
    plugin = ReplayPlugin()
    with pytest.raises(BadConfig, match=r"policy\.replay.data is not given"):
        plugin.make(ReplayConfig())
    assert [finding.ok for finding in plugin.examine(ReplayConfig())] == [False]
    with pytest.raises(BadConfig, match="cannot be replayed: The data set"):
        plugin.make(ReplayConfig(data=str(tmp_path / "none")))
    (tmp_path / "clips").mkdir()
    with pytest.raises(BadConfig, match="holds no episode that states its bench, task and seed"):
        plugin.make(ReplayConfig(data=str(tmp_path)))


def test_the_clips_of_a_run_hold_actions_too(tmp_path: Path) -> None:
    write_scene_run(tmp_path / "run", outcomes=["failure", "success"], image_hw_px=(24, 32), num_chunks=2)
    episodes = ExecutedEpisodes(tmp_path / "run")
    assert [identity.seed for identity in episodes] == [0, 1]
    with ClipReader(tmp_path / "run/clips/ball/0001.h5") as clip:
        actions, episode = known(clip.read_actions()), clip.header.episode
    executed = episodes.read(EpisodeId("scene", "default", "ball", episode.seed, episode.protocol))
    np.testing.assert_array_equal(executed.actions_nd, actions)
    assert executed.first_proprio.shape == (16,)
