"""The policy `replay`: recorded actions of the episode's own seed, from data sets and runs.

In: recordings of the painted world. Out: a verdict.
Read next: `baselines/replay.py`, `evalkit/dataset/executed.py`.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from baselines.replay import ReplayConfig, ReplayPlugin, ReplayPolicy
from evalkit.contracts.errors import BadConfig, EpisodeFault
from evalkit.contracts.requests import EpisodeRequests
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
    env = PaintedEnv(task="Slide", drift_m=0.0)
    recording = Recording(
        views=(View(name="0_front", kind="static"),),
        arms=("left",),
        layout="osc_delta_base",
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
            tmp_path / "data",
            episode.index,
            Steps.of(observations, actions),
            recording,
            instructions=["slide"],
            about=about,
        )
    write_metadata(tmp_path / "data")
    return tmp_path / "data"


def loaded(data: Path) -> ReplayPolicy:
    return ReplayPlugin().make(ReplayConfig(data=str(data), execute_steps=8))


def played(policy: ReplayPolicy, episode: Episode, *, drift_m: float = 0.0, num_chunks: int = 4) -> np.ndarray:
    """Return the actions of some chunks, executed one after another."""
    env = PaintedEnv(task=episode.task, drift_m=drift_m)
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
        EpisodeFault, match=r"holds no recording of .*/Slide, setting default, seed 2; it holds 2 of seeds 0"
    ):
        played(loaded(data), EPISODES[2])
    with pytest.raises(EpisodeFault, match="setting wide, seed 0; it holds none of this task"):
        played(loaded(data), replace(EPISODES[0], setting="wide"))


def test_a_recording_that_starts_elsewhere_is_an_error(data: Path) -> None:
    with pytest.raises(EpisodeFault, match=r"starts from another state: its left end effector is 50.0 mm"):
        played(loaded(data), EPISODES[0], drift_m=0.05)


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
        actions, seed = known(clip.read_actions()), clip.header.episode.seed
    executed = episodes.read(EpisodeId("scene", "default", "ball", seed))
    np.testing.assert_array_equal(executed.actions_nd, actions)
    assert executed.first_proprio.shape == (16,)
