"""RoboCasa's experts solve their tasks in the real simulator, through the harness's own worker; art is placeholder.

In: RoboCasa v0.2 in an interpreter of its own. Out: success counts; of a hundred seeds when asked for slow tests.
Read next: `baselines/scripted/robocasa.py`; docs/robocasa.md for the counts.
"""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from baselines.floors import HoldConfig, HoldPlugin
from baselines.scripted.policy import ScriptedConfig, ScriptedPlugin
from baselines.scripted.robocasa import EXPERTS
from envs.robocasa.bench import RobocasaBench, RobocasaConfig
from evalkit.contracts.requests import EpisodeRequests
from evalkit.contracts.spec import check_actions
from evalkit.contracts.worker.client import EnvWorker
from tests.doubles.simulators import ROBOCASA_TIMEOUTS, needs_robocasa

pytestmark = needs_robocasa()
BENCH = RobocasaBench()

CONFIG = RobocasaConfig(art="placeholder")


def run_episode(policy: Any, worker: Any, episode: Any) -> Any:
    """Return whether the episode succeeded; nothing is rendered."""
    observation = worker.begin(episode, render=False).observation
    requests = EpisodeRequests(episode, policy.spec)
    requests.reset(policy, worker.env_spec)
    step_idx, chunk_idx = 0, 0
    while step_idx < episode.max_steps:
        request = requests.request(observation, chunk_idx=chunk_idx, step_idx=step_idx)
        (reply,) = policy.infer([request])
        check_actions(reply.actions, worker.env_spec, policy.spec)
        worker.send_actions(reply.actions, render_at=(), render_last=False, render_success=False)
        outcome = worker.receive_outcome()
        if outcome.success:
            return True
        step_idx, chunk_idx, observation = step_idx + outcome.num_executed, chunk_idx + 1, outcome.last
    return False


def count(policy: Any, task: Any, tmp_path: Path, *, num_episodes: Any, seed: Any) -> Any:
    launch = BENCH.launch(CONFIG, task=task, setting="default")
    spec = BENCH.env_spec(CONFIG, task=task, setting="default")
    episodes = BENCH.plan_episodes(CONFIG, task=task, setting="default", num_episodes=num_episodes, seed=seed)
    with closing(EnvWorker(launch, spec, timeouts=ROBOCASA_TIMEOUTS, log_path=tmp_path / "log").build()) as worker:
        return sum(run_episode(policy, worker, episode) for episode in episodes)


def scripted() -> Any:
    return ScriptedPlugin().make(ScriptedConfig())


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "task", ["OpenDrawer", "TurnSinkSpout", "TurnOnStove", "TurnOnSinkFaucet", "CoffeePressButton"]
)
def test_experts_solve_a_seed(task: str, tmp_path: Path) -> None:
    assert count(scripted(), task, tmp_path, num_episodes=1, seed=0) == 1


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [17, 900])
@pytest.mark.parametrize("task", ["OpenDrawer", "TurnSinkSpout"])
def test_experts_solve_eight_of_ten(task: str, seed: int, tmp_path: Path) -> None:
    assert count(scripted(), task, tmp_path, num_episodes=10, seed=seed) >= 8


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("task", ["CoffeePressButton", "TurnOnMicrowave", "TurnOffMicrowave", "CloseDrawer"])
def test_experts_solve_a_hundred_seeds(task: str, tmp_path: Path) -> None:
    assert count(scripted(), task, tmp_path, num_episodes=100, seed=0) >= 80


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("task", list(EXPERTS))
def test_holding_still_solves_nothing(task: str, tmp_path: Path) -> None:
    assert count(HoldPlugin().make(HoldConfig()), task, tmp_path, num_episodes=5, seed=0) == 0
