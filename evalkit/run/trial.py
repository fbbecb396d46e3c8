"""Trial episodes: what `evalkit check` does beyond comparing specs, and how long a run would take.

In: planned episodes. Out: seconds, or an `EpisodeFault`.
Read next: `episode.py`, the loop that a trial runs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from evalkit.contracts.bound import BoundBench
from evalkit.contracts.policy import Policy
from evalkit.contracts.types import Episode
from evalkit.contracts.worker.client import EnvWorker
from evalkit.run.episode import Tally, run_episode
from evalkit.run.settings import RunSettings
from evalkit.store.plan import Plan

NUM_TRIAL_CHUNKS = 2
"""Chunks of an episode that is run only to measure its time."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What the trial episodes of a plan share."""

    bench: BoundBench
    plan: Plan
    policy: Policy
    settings: RunSettings


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long an episode took.

    Attributes:
        reset_s: Seconds until the first observation.
        steps: Control steps executed.
        policy_s: Seconds in the policy, which the workers share: actions and predictions.
        wall_s: Seconds of all steps, including the policy's.
    """

    reset_s: float
    steps: int
    policy_s: float
    wall_s: float


def estimate_seconds(plan: Plan, paces: Sequence[Pace], *, workers: int) -> float:
    """Return how many seconds a plan would take if every episode reached its step limit.

    The policy answers one request at a time; more workers help until the policy is always busy.

    Args:
        plan: The plan.
        paces: Paces of some of its episodes, at least one.
        workers: Env processes in parallel.
    """
    steps = sum(episode.max_steps for episode in plan.episodes)
    tried = sum(pace.steps for pace in paces)
    reset_s = sum(pace.reset_s for pace in paces) / len(paces) * len(plan.episodes)
    wall_s = sum(pace.wall_s for pace in paces) / tried * steps
    policy_s = sum(pace.policy_s for pace in paces) / tried * steps
    return max((reset_s + wall_s) / min(workers, len(plan.episodes)), policy_s)


def measure_pace(trial: Trial, episode: Episode) -> Pace:
    """Return how long the first chunks of an episode took; raises as `try_task` does."""
    tally = Tally()
    steps = min(episode.max_steps, NUM_TRIAL_CHUNKS * trial.policy.spec.execute_steps)
    try_episode(trial, replace(episode, max_steps=steps), tally)
    spent = tally.clock.seconds()
    policy_s = spent.get("policy", 0.0) + spent.get("imagine", 0.0)
    return Pace(
        reset_s=spent["reset"],
        steps=tally.steps,
        policy_s=policy_s,
        wall_s=policy_s + spent.get("wait", 0.0) + spent.get("record", 0.0),
    )


def try_task(trial: Trial, episode: Episode) -> float:
    """Return how many seconds it took to start a task's env, reset it and execute one chunk of the policy's actions.

    Raises:
        EpisodeFault: If the env or the policy breaks its spec.
        EvalkitError: If the env cannot be built.
    """
    started = time.perf_counter()
    try_episode(trial, replace(episode, max_steps=trial.policy.spec.execute_steps), Tally())
    return time.perf_counter() - started


def try_episode(trial: Trial, episode: Episode, tally: Tally) -> None:
    """Run an episode in an env process of its own and keep nothing but the tally; raises as `try_task` does."""
    launch = trial.bench.launch(task=episode.task, setting=episode.setting)
    predicts = bool(trial.policy.spec.predicts)
    worker = EnvWorker(launch, trial.plan.env_spec(episode.task), timeouts=trial.settings.timeouts)
    try:
        worker.build()
        run_episode(episode, worker, trial.policy, [], tally, render=True, predict=predicts)
    finally:
        worker.close()
