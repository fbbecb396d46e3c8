"""What a policy gets to know of an episode, in every place that asks one; and the seeds of noise.

In: doubles of benches and policies that keep what they are given. Out: a verdict.
Read next: `evalkit/contracts/requests.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from copy import copy
from dataclasses import fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baselines.floors import HoldPlugin, RandomPlugin
from baselines.scripted.policy import ScriptedPlugin
from envs.robocasa.bench import RobocasaBench
from envs.robosuite.bench import RobosuiteBench
from evalkit.contracts.env import WorkerLaunch
from evalkit.contracts.requests import EpisodeRequests, noise_seed, seed_of, visible_env
from evalkit.contracts.spec import EPISODE as READS_EPISODE
from evalkit.contracts.spec import EVERYTHING, PolicySpec, reads_episode
from evalkit.contracts.types import Episode, PolicyReply, PolicyRequest, Prediction
from evalkit.contracts.worker.client import EnvWorker
from evalkit.record.demonstrate import rollout
from evalkit.run.episode import Tally, run_episode
from evalkit.score.chunk import ScoreOptions
from evalkit.score.dataset import score_dataset
from evalkit.store.plan import Plan
from tests.doubles.point import PointEnv
from tests.doubles.scene import write_scene_run
from xwam.policy import XwamPlugin

SEED = 987_654_321
SECRET = Episode(
    bench="point",
    setting="default",
    protocol="p",
    task="SecretTask",
    index=3,
    seed=SEED,
    instruction="go",
    max_steps=6,
)


class Spy:
    """Keeps everything that it is given; does nothing."""

    def __init__(self, *privileged_keys: str) -> None:
        self.spec = PolicySpec(
            policy_id="spy",
            action_layouts=("osc_delta_base",),
            chunk_len=8,
            execute_steps=2,
            predicts=("rgb",),
            num_future_frames=2,
            privileged_keys=privileged_keys,
        )
        self.given: list[Any] = []
        self.requests: list[PolicyRequest] = []

    def reset(self, episode_id: str, env: Any) -> None:
        self.given += [episode_id, env]

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        self.given += requests
        self.requests += requests
        futures = [Prediction(rgb=np.stack([r.observation.rgb] * 2), depth=None, proprio=None) for r in requests]
        return [PolicyReply(actions=np.zeros((8, 14), np.float32), prediction=partial(copy, f)) for f in futures]


def leaves(value: Any) -> Iterator[Any]:
    """Yield every text and number in a value, however deep."""
    if is_dataclass(value):
        for entry in fields(value):
            yield from leaves(getattr(value, entry.name))
    elif isinstance(value, Mapping):
        yield from leaves(list(value.items()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, np.ndarray):
        yield from np.unique(value).tolist()
    else:
        yield value


def reveals(given: Any, *, task: str, seed: int) -> bool:
    return any((isinstance(leaf, str) and task in leaf) or leaf == seed for leaf in leaves(given))


def run_spy(spy: Spy) -> None:
    launch = WorkerLaunch(target="tests.doubles.point:PointEnv", kwargs={"task": SECRET.task})
    with closing(EnvWorker(launch, PointEnv(SECRET.task).spec).build()) as worker:
        run_episode(SECRET, worker, spy, [], Tally(), render=False, predict=False)


def rollout_spy(spy: Spy) -> None:
    rollout(PointEnv(SECRET.task), spy, SECRET)


@pytest.mark.parametrize("ask", [run_spy, rollout_spy], ids=["run", "record"])
def test_a_policy_sees_neither_task_nor_seed(ask: Any) -> None:
    spy, oracle = Spy("goal"), Spy("goal", READS_EPISODE)
    ask(spy)
    ask(oracle)
    assert [request.step_idx for request in spy.requests][:3] == [0, 2, 4]
    assert not reveals(spy.given, task="SecretTask", seed=SEED)
    assert reveals(oracle.given, task="SecretTask", seed=SEED)
    assert {request.episode for request in spy.requests} == {None}
    assert {request.episode for request in oracle.requests} == {SECRET}
    assert len({request.episode_id for request in spy.requests + oracle.requests}) == 2
    assert [r.noise_seed for r in spy.requests] == [r.noise_seed for r in oracle.requests]


def test_open_loop_scoring_tells_no_more(tmp_path: Path) -> None:
    write_scene_run(tmp_path / "run", outcomes=["success"], image_hw_px=(24, 32), num_chunks=2)
    (episode,) = Plan.from_bytes((tmp_path / "run/plan.json").read_bytes(), where="plan").episodes
    spy = Spy()
    score_dataset(tmp_path / "run", spy, tmp_path / "s.parquet", options=ScoreOptions(lpips_nets=()))
    assert spy.given[1].env_id == episode.bench
    assert {request.episode for request in spy.requests} == {None}
    seeds = [noise_seed(episode, chunk_idx=r.chunk_idx, step_idx=r.step_idx) for r in spy.requests]
    assert [request.noise_seed for request in spy.requests] == seeds


@pytest.mark.parametrize("bench", [RobosuiteBench(), RobocasaBench()], ids=lambda bench: bench.name)
def test_the_spec_of_an_env_does_not_name_its_task(bench: Any) -> None:
    """Every task of a bench with the same arms looks the same to a policy that requests no simulator state."""
    whole = [bench.env_spec(bench.config_type(), task=task, setting="default") for task in bench.tasks]
    seen = {visible_env(spec, Spy().spec) for spec in whole}
    assert len(seen) == len({spec.arms for spec in whole}) < len(whole)
    key = whole[0].privileged_keys[0]
    assert visible_env(whole[0], Spy(key).spec).privileged_keys == (key,)
    assert visible_env(whole[0], Spy(READS_EPISODE).spec) == whole[0]


def test_only_oracles_read_the_episode() -> None:
    plugins: list[Any] = [HoldPlugin(), RandomPlugin(), XwamPlugin()]
    for spec in [plugin.spec(plugin.config_type()) for plugin in plugins]:
        assert not reads_episode(spec)
        assert visible_env(PointEnv().spec, spec).env_id == "point"
    assert ScriptedPlugin().spec(ScriptedPlugin.config_type()).privileged_keys == (EVERYTHING,)


def test_release_noise_is_the_md5_of_rank_rollout_step() -> None:
    released = replace(SECRET, noise_key="3_14")
    assert noise_seed(released, chunk_idx=1, step_idx=32) == 3_501_555_843  # md5 -s 3_14_32, modulo 2^32
    assert noise_seed(released, chunk_idx=7, step_idx=32) == 3_501_555_843
    assert noise_seed(replace(released, noise_key="0_0"), chunk_idx=0, step_idx=0) == seed_of(0, 0, 0)


def test_other_noise_is_the_md5_of_episode_and_chunk() -> None:
    assert noise_seed(SECRET, chunk_idx=2, step_idx=16) == seed_of("point_default_SecretTask_3_987654321_chunk2")
    assert noise_seed(SECRET, chunk_idx=2, step_idx=16) == noise_seed(SECRET, chunk_idx=2, step_idx=99)
    ids = {EpisodeRequests(SECRET, Spy().spec).episode_id for _ in range(3)}
    assert len(ids) == 3


def test_a_noise_key_is_planned_and_old_plans_are_read() -> None:
    assert "noise_key" not in SECRET.to_json()
    keyed = replace(SECRET, noise_key="3_14")
    assert Episode(**keyed.to_json()) == keyed
    assert Episode(**SECRET.to_json()) == SECRET
