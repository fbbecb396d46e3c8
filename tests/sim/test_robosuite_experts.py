"""The experts solve their tasks, the floors do not; a few seeds by default, a hundred when asked for slow tests.

In: the real simulator, never rendered. Out: success counts.
Read next: `baselines/scripted/experts.py`.
"""

from contextlib import closing
from typing import Any

import numpy as np
import pytest

from baselines.floors import HoldConfig, HoldPlugin, RandomConfig, RandomPlugin
from baselines.scripted.experts import CLOSING_STEPS, EXPERTS
from baselines.scripted.motion import CLOSED
from baselines.scripted.policy import ScriptedConfig, ScriptedPlugin
from envs.robosuite.bench import RobosuiteBench, RobosuiteConfig
from envs.robosuite.env import RobosuiteEnv
from evalkit.contracts.requests import EpisodeRequests
from evalkit.contracts.spec import check_actions
from evalkit.contracts.types import ARM_ACTION, Observation
from tests.doubles.simulators import needs_robosuite

pytestmark = needs_robosuite()

BENCH = RobosuiteBench()


def run_episode(policy: Any, env: Any, episode: Any) -> Any:
    """Return whether the episode succeeded, and every action executed."""
    assert not env.begin(seed=episode.seed, max_steps=episode.max_steps)
    requests = EpisodeRequests(episode, policy.spec)
    requests.reset(policy, env.spec)
    executed: list[np.ndarray] = []
    while len(executed) < episode.max_steps:
        request = requests.request(
            Observation(**env.observe(render=False)),
            chunk_idx=len(executed) // policy.spec.execute_steps,
            step_idx=len(executed),
        )
        (reply,) = policy.infer([request])
        check_actions(reply.actions, env.spec, policy.spec)
        assert np.abs(reply.actions).max() <= 1.0
        for action in reply.actions:
            executed.append(action)
            if env.advance(action):
                return True, np.array(executed)
    return False, np.array(executed)


def count(policy: Any, task: Any, *, setting: Any, num_episodes: Any, seed: Any) -> Any:
    episodes = BENCH.plan_episodes(RobosuiteConfig(), task=task, setting=setting, num_episodes=num_episodes, seed=seed)
    with closing(RobosuiteEnv(task=task, setting=setting)) as env:
        return sum(run_episode(policy, env, episode)[0] for episode in episodes)


def scripted() -> Any:
    return ScriptedPlugin().make(ScriptedConfig())


@pytest.mark.parametrize("task", list(EXPERTS))
def test_experts_solve_a_few_seeds(task: str) -> None:
    assert count(scripted(), task, setting="default", num_episodes=2, seed=41) == 2


def test_experts_repeat_themselves() -> None:
    (episode,) = BENCH.plan_episodes(RobosuiteConfig(), task="Stack", setting="default", num_episodes=1, seed=42)
    runs = []
    for _ in range(2):
        with closing(RobosuiteEnv(task="Stack")) as env:
            runs.append(run_episode(scripted(), env, episode))
    assert runs[0][0]
    np.testing.assert_array_equal(runs[0][1], runs[1][1])


@pytest.mark.parametrize("task", ["Lift", "Stack", "Door", "PickPlaceCan"])
def test_experts_go_on_with_what_another_holds(task: str) -> None:
    (episode,) = BENCH.plan_episodes(RobosuiteConfig(), task=task, setting="default", num_episodes=1, seed=45)
    with closing(RobosuiteEnv(task=task)) as env:
        solved, actions = run_episode(scripted(), env, episode)
        assert solved
        gripper = actions[:, ARM_ACTION["left"]][:, 6]
        grasped = int(np.argmax(gripper == CLOSED)) + CLOSING_STEPS
        holding = slice(grasped, grasped + 4)
        assert (gripper[holding] == CLOSED).all()
        env.begin(seed=episode.seed, max_steps=episode.max_steps)
        for action in actions[:grasped]:
            assert not env.advance(action)
        policy = scripted()
        requests = EpisodeRequests(episode, policy.spec)
        requests.reset(policy, env.spec)
        for step_idx, action in enumerate(actions[holding]):
            seen = Observation(**env.observe(render=False))
            request = requests.request(seen, chunk_idx=step_idx, step_idx=step_idx)
            (reply,) = policy.infer([request])
            np.testing.assert_allclose(reply.actions[0], action, atol=1e-5)
            env.advance(action)


@pytest.mark.parametrize(
    "policy", [HoldPlugin().make(HoldConfig()), RandomPlugin().make(RandomConfig())], ids=["hold", "random"]
)
def test_floors_do_not_lift(policy: Any) -> None:
    assert count(policy, "Lift", setting="default", num_episodes=1, seed=43) == 0


@pytest.mark.parametrize("task", ["Lift", "Door"])
def test_what_solves_one_scene_of_wide_solves_few_others(task: str) -> None:
    first, *others = BENCH.plan_episodes(RobosuiteConfig(), task=task, setting="wide", num_episodes=9, seed=44)
    with closing(RobosuiteEnv(task=task, setting="wide")) as env:
        solved, actions = run_episode(scripted(), env, first)
        assert solved
        met = 0
        for episode in others:
            env.begin(seed=episode.seed, max_steps=episode.max_steps)
            met += any(env.advance(action) for action in actions)
    assert met <= 3


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("task", "at_least"), [("Lift", 98), ("Stack", 95), ("Door", 95), ("PickPlaceCan", 90), ("NutAssemblySquare", 90)]
)
@pytest.mark.parametrize("seed", [44, 45])
def test_experts_solve_a_hundred_seeds(task: str, at_least: int, seed: int) -> None:
    assert count(scripted(), task, setting="default", num_episodes=100, seed=seed) >= at_least


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("task", list(EXPERTS))
def test_experts_solve_most_randomized_scenes(task: str) -> None:
    assert count(scripted(), task, setting="randomized", num_episodes=50, seed=46) >= 42


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("task", list(EXPERTS))
def test_holding_still_solves_nothing(task: str) -> None:
    assert count(HoldPlugin().make(HoldConfig()), task, setting="default", num_episodes=100, seed=47) == 0
