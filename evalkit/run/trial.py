"""Episodes tried in passing: what `evalkit check` does beyond comparing specs, and how long a whole run would take.

In: planned episodes. Out: seconds, or an `EpisodeFault`.
Read next: `episode.py`, the same loop run in earnest.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evalkit.contracts.env import Bench
from evalkit.contracts.policy import Policy
from evalkit.contracts.types import Episode
from evalkit.contracts.worker.client import EnvWorker
from evalkit.run.episode import Tally, run_episode
from evalkit.run.settings import RunSettings
from evalkit.store.plan import Plan

NUM_TRIAL_CHUNKS = 2
"""Chunks of an episode that is run for its time alone."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What one episode took.

    Attributes:
        reset_s: Seconds until the first observation.
        steps: Control steps that were executed.
        policy_s: Seconds in the policy, which workers share: thinking and imagining.
        wall_s: Seconds of all the steps, those of the policy among them.
    """

    reset_s: float
    steps: int
    policy_s: float
    wall_s: float


def estimate_hours(plan: Plan, paces: Sequence[Pace], *, workers: int) -> float:
    """Return how many hours a plan would take if no episode ended before its limit.

    The policy answers one request at a time, so that more workers help until it never rests.

    Args:
        plan: What would be run.
        paces: Of some of its episodes, at least one.
        workers: Env workers at a time.
    """
    steps = sum(episode.max_steps for episode in plan.episodes)
    tried = sum(pace.steps for pace in paces)
    reset_s = sum(pace.reset_s for pace in paces) / len(paces) * len(plan.episodes)
    wall_s = sum(pace.wall_s for pace in paces) / tried * steps
    policy_s = sum(pace.policy_s for pace in paces) / tried * steps
    return max((reset_s + wall_s) / min(workers, len(plan.episodes)), policy_s) / 3600


def measure_pace(
    bench: Bench, bench_config: Any, plan: Plan, episode: Episode, policy: Policy, settings: RunSettings
) -> Pace:
    """Return what the first chunks of an episode took; raises as `try_task` does."""
    tally = Tally()
    steps = min(episode.max_steps, NUM_TRIAL_CHUNKS * policy.spec.execute_steps)
    _try(bench, bench_config, plan, replace(episode, max_steps=steps), policy, settings, tally)
    spent = tally.clock.seconds()
    policy_s = spent.get("policy", 0.0) + spent.get("imagine", 0.0)
    return Pace(
        reset_s=spent["reset"],
        steps=tally.steps,
        policy_s=policy_s,
        wall_s=policy_s + spent.get("wait", 0.0) + spent.get("record", 0.0),
    )


def try_task(
    bench: Bench, bench_config: Any, plan: Plan, episode: Episode, policy: Policy, settings: RunSettings
) -> float:
    """Return how many seconds it took to start a task's env, reset it and execute one chunk of the policy's actions.

    Raises:
        EpisodeFault: If the env or the policy does not do what its spec promises.
        EvalkitError: If the env cannot be built.
    """
    started = time.perf_counter()
    one_chunk = replace(episode, max_steps=policy.spec.execute_steps)
    _try(bench, bench_config, plan, one_chunk, policy, settings, Tally())
    return time.perf_counter() - started


def _try(
    bench: Bench,
    bench_config: Any,
    plan: Plan,
    episode: Episode,
    policy: Policy,
    settings: RunSettings,
    tally: Tally,
) -> None:
    launch = bench.launch(bench_config, task=episode.task, setting=episode.setting)
    with tempfile.TemporaryDirectory() as folder:
        log_path = Path(folder) / "worker.log"
        worker = EnvWorker(launch, plan.env_spec(episode.task), timeouts=settings.timeouts, log_path=log_path)
        try:
            worker.build()
            run_episode(episode, worker, policy, [], tally, render=True, imagine=bool(policy.spec.predicts))
        finally:
            worker.close()
