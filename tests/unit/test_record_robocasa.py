"""Which demonstrations of RoboCasa are recorded, and how an env in another process is driven; no simulator.

In: seeds counted as the published protocols count, a double of an env. Out: checks on the recorder's plan.
Read next: `tests/sim/test_robocasa_demonstrations.py`, the same with the simulator.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.contracts.errors import BadConfig, EpisodeFault, EvalkitError, SpecMismatch
from evalkit.contracts.plugins import load_bench, recordable
from evalkit.contracts.types import Observation
from evalkit.contracts.worker.remote_env import RemoteEnv
from evalkit.record import plan
from evalkit.record.demonstrate import NO_DISTURBANCE, demonstrate
from tests.doubles.bench import FakeBench, FakeBenchConfig, FakeEnv
from tests.doubles.configured import bench_of

ART = {"art": "placeholder"}


def jobs(root: Path, *, settings: Mapping[str, Any] = ART, **changes: Any) -> list[plan.RecordJob]:
    arguments: dict[str, Any] = {"setting": "default", "disturbance": NO_DISTURBANCE} | changes
    return plan.jobs(root, bench_of("robocasa", **settings), {"CloseDrawer": 30}, **arguments)


def test_demonstrations_use_no_seed_of_an_evaluation() -> None:
    """X-WAM: rank x episodes + i, 96 ranks (four workers a task) of 100 episodes. Cosmos: seed x i x 256, i < 50."""
    xwam = {rank * 100 + i for rank in range(96) for i in range(100)}
    cosmos = {seed * i * 256 for seed in (195, 196, 197) for i in range(50)}
    ours = set(plan.demonstration_seeds(recordable(load_bench("robocasa")), 0))
    assert min(cosmos - {0}) < 100_000 < max(cosmos) < 3_000_000, "they do lie among a million seeds"
    assert not ours & (xwam | cosmos)
    assert (min(ours), max(ours), len(ours)) == (100_000, 999_999, 900_000 - (3906 - 390)), "390 x 256 < 100,000"


def test_robosuites_seeds_are_all_there() -> None:
    assert list(islice(plan.demonstration_seeds(recordable(load_bench("robosuite")), 250), 10)) == list(range(250, 260))


def test_episodes_have_consecutive_numbers_and_descriptions(tmp_path: Path) -> None:
    todo = jobs(tmp_path, first_seed=100_090)
    numbers = [number for job in todo for number in job.numbers]
    seeds = [seed for job in todo for seed in job.seeds]
    assert numbers == list(range(numbers[0], numbers[0] + 30))
    assert len(set(seeds)) == 30
    assert 100_096 not in seeds, "391 x 256"
    assert all(job.bench.given_settings == ART and len(job.seeds) <= 4 for job in todo)


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"must state its setting 'art': add .* for example bench\.robocasa\.art=real"):
        jobs(tmp_path, settings={})
    with pytest.raises(BadConfig, match="leave those of demonstrations"):
        jobs(tmp_path, first_seed=999_980)
    with pytest.raises(BadConfig, match="evaluates on seed 13, which belongs to demonstrations"):
        jobs(tmp_path, settings={**ART, "protocol": "xwam"})


class Straight:
    """Goes along x."""

    def act(self, observation: Observation) -> np.ndarray:
        return np.array([0.7] + [0] * 13, np.float32)


class UnstableEnv(FakeEnv):
    """Becomes unstable at the third step."""

    def advance(self, action: Any) -> Any:
        if self._step == 2:
            raise FloatingPointError("the simulation became unstable at 0.10 s")
        return super().advance(action)


def remote(target: str | None = None, python: str | None = None, **changes: Any) -> RemoteEnv:
    config = FakeBenchConfig(**changes)
    launch = FakeBench().launch(config, task="Near", setting="default")
    launch = replace(launch, target=target or launch.target, python=python or launch.python)
    return RemoteEnv(launch, FakeBench().env_spec(config, task="Near", setting="default"))


def planned() -> Any:
    (episode,) = FakeBench().plan_episodes(FakeBenchConfig(), task="Near", setting="default", num_episodes=1, seed=0)
    return episode


def test_an_env_in_another_process_gives_the_same_demonstration() -> None:
    local = demonstrate(
        FakeEnv(task="Near", fault="none", fault_seed=1, step_s=0.0), Straight(), planned(), NO_DISTURBANCE
    )
    with closing(remote()) as env:
        other = demonstrate(env, Straight(), planned(), NO_DISTURBANCE)
        assert env.observe(render=False)["rgb"].shape == (0, 16, 24, 3)
        assert env.observe(render=False)["instruction"] == "go Near"
        assert env.about["renderer"] == "none"
    assert local is not None
    assert other is not None
    for name in ("rgb", "depth", "proprio", "action", "executed"):
        np.testing.assert_array_equal(getattr(other, name), getattr(local, name))


def test_an_episode_that_starts_solved_is_no_demonstration() -> None:
    with closing(remote(fault="solved", fault_seed=-1)) as env:
        assert demonstrate(env, Straight(), planned(), NO_DISTURBANCE) is None


def test_an_unstable_simulation_leaves_its_process_usable() -> None:
    with closing(remote(target="tests.unit.test_record_robocasa:UnstableEnv")) as env:
        for _ in range(2):
            with pytest.raises(FloatingPointError, match=r"^the simulation became unstable"):
                demonstrate(env, Straight(), planned(), NO_DISTURBANCE)


def test_faults_of_another_process_are_named() -> None:
    with closing(remote(fault="die", fault_seed=-1)) as env:
        with pytest.raises(EpisodeFault, match=r"ended with exit code 11\. The last line of its output") as caught:
            demonstrate(env, Straight(), planned(), NO_DISTURBANCE)
        assert caught.value.retriable
    with pytest.raises(EvalkitError, match="worker for fake/Near cannot build its env: ImportError: no module"):
        remote(fault="start_raise")
    with pytest.raises(SpecMismatch, match="env_id is fake/Nearer, planned fake/Near"):
        remote(fault="other_spec")
    with pytest.raises(EvalkitError, match="Cannot start the interpreter /nowhere/python"):
        remote(python="/nowhere/python")
