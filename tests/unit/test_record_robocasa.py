"""Which demonstrations of RoboCasa are recorded, and how an env in another process is driven; no simulator.

In: seeds counted by hand as the published protocols count, a double of an env. Out: what record writes down.
Read next: `tests/sim/test_robocasa_demonstrations.py`, the same with the simulator.
"""

from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines.scripted import record
from baselines.scripted.remote_env import RemoteEnv
from evalkit.contracts.env import WorkerLaunch
from evalkit.contracts.errors import BadConfig, EvalkitError
from evalkit.contracts.types import PolicyReply
from evalkit.record import plan
from evalkit.record.demonstrate import CALM, demonstrate
from tests.doubles.bench import FakeBench, FakeBenchConfig, FakeEnv

ART = {"art": "placeholder"}


def jobs(root: Any, *, count: Any = 30, settings: Any = ART, **changes: Any) -> Any:
    arguments = {"setting": "default", "disturbance": CALM} | changes
    return plan.jobs(root, "robocasa", {"CloseDrawer": count}, settings=settings, **arguments)


def test_demonstrations_use_no_seed_of_an_evaluation() -> None:
    """X-WAM: rank x episodes + i, 96 ranks (four workers a task) of 100 episodes. Cosmos: seed x i x 256, i < 50."""
    xwam = {rank * 100 + i for rank in range(96) for i in range(100)}
    cosmos = {seed * i * 256 for seed in (195, 196, 197) for i in range(50)}
    ours = set(plan.demonstration_seeds("robocasa", 0))
    assert min(cosmos - {0}) < 100_000 < max(cosmos) < 3_000_000, "they do lie among a million seeds"
    assert not ours & (xwam | cosmos)
    assert (min(ours), max(ours), len(ours)) == (100_000, 999_999, 900_000 - (3906 - 390)), "390 x 256 < 100,000"


def test_robosuites_seeds_are_all_there() -> None:
    assert list(islice(plan.demonstration_seeds("robosuite", 250), 10)) == list(range(250, 260))


def test_episodes_have_consecutive_numbers_and_descriptions(tmp_path: Path) -> None:
    todo = jobs(tmp_path, first_seed=100_090)
    numbers = [number for job in todo for number in job.numbers]
    seeds = [seed for job in todo for seed in job.seeds]
    assert numbers == list(range(numbers[0], numbers[0] + 30))
    assert len(set(seeds)) == 30
    assert 100_096 not in seeds, "391 x 256"
    assert all(dict(job.settings) == ART and len(job.seeds) <= 4 for job in todo)


def test_mistakes_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BadConfig, match="--set art=real, or art=placeholder"):
        jobs(tmp_path, settings={})
    with pytest.raises(BadConfig, match="no setting 'arts'; it has protocol, art"):
        jobs(tmp_path, settings={"arts": "real"})
    with pytest.raises(BadConfig, match="leave those of demonstrations"):
        jobs(tmp_path, first_seed=999_980)
    with pytest.raises(BadConfig, match="evaluates on seed 13, which belongs to demonstrations"):
        jobs(tmp_path, settings={**ART, "protocol": "xwam"})
    arguments = [str(tmp_path), "CloseDrawer=1", "--bench", "robocasa", "--set", "art"]
    assert record.main(arguments) == 2
    assert "'art' must be a setting and its value" in capsys.readouterr().err


class Straight:
    """Goes along x; never looks."""

    def reset(self, episode: Any, env: Any) -> None:
        pass

    def infer(self, requests: Any) -> Any:
        return [PolicyReply(actions=np.float32([[0.7] + [0] * 13]))]


class BlowsUp(FakeEnv):
    """Blows up at the third step."""

    def advance(self, action: Any) -> Any:
        if self._step == 2:
            raise FloatingPointError("the simulation blew up at 0.10 s")
        return super().advance(action)


def launch(**changes: Any) -> Any:
    made = FakeBench().launch(FakeBenchConfig(**changes), task="Near", setting="default")
    return made


def planned() -> Any:
    (episode,) = FakeBench().plan_episodes(FakeBenchConfig(), task="Near", setting="default", num_episodes=1, seed=0)
    return episode


def test_an_env_in_another_process_gives_the_same_demonstration() -> None:
    here = demonstrate(FakeEnv(**launch().kwargs), Straight(), planned(), CALM)
    with closing(RemoteEnv(launch())) as env:
        there = demonstrate(env, Straight(), planned(), CALM)
        assert env.observe(render=False)["rgb"].shape == (0, 16, 24, 3)
        assert env.observe(render=False)["instruction"] == "go Near"
        assert env.about["renderer"] == "none"
    for name in ("rgb", "depth", "proprio", "action", "executed"):
        np.testing.assert_array_equal(getattr(there, name), getattr(here, name))


def test_an_episode_that_starts_solved_is_no_demonstration() -> None:
    with closing(RemoteEnv(launch(fault="solved", fault_seed=-1))) as env:
        assert demonstrate(env, Straight(), planned(), CALM) is None


def test_what_goes_wrong_in_another_process_is_told() -> None:
    blows_up = WorkerLaunch(target="tests.unit.test_record_robocasa:BlowsUp", kwargs=launch().kwargs)
    with closing(RemoteEnv(blows_up)) as env, pytest.raises(FloatingPointError, match=r"^the simulation blew up"):
        demonstrate(env, Straight(), planned(), CALM)
    with closing(RemoteEnv(launch(fault="die", fault_seed=-1))) as env, pytest.raises(EvalkitError, match="last words"):
        demonstrate(env, Straight(), planned(), CALM)
    with pytest.raises(EvalkitError, match=r"cannot be built by .*python.*: ImportError: no module named 'simulator'"):
        RemoteEnv(launch(fault="start_raise"))
    with pytest.raises(EvalkitError, match="Cannot start the interpreter /nowhere/python"):
        RemoteEnv(WorkerLaunch(target="x:y", kwargs={}, python="/nowhere/python"))
