"""Trial episodes: what `evalkit check` does beyond comparing specs, and how long a run would take.

In: planned episodes. Out: seconds, what cannot be tried, or an `EpisodeFault`.
Read next: `episode.py`, the loop that a trial runs.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from evalkit.contracts.bound import BoundBench
from evalkit.contracts.errors import EnvNotBuilt, EnvRaised
from evalkit.contracts.noise import noise_observation
from evalkit.contracts.policy import Policy
from evalkit.contracts.requests import EpisodeRequests
from evalkit.contracts.types import Episode
from evalkit.contracts.worker.client import EnvWorker
from evalkit.run.episode import (
    Clock,
    Tally,
    ask_policy,
    complete_prediction,
    num_reachable_frames,
    run_episode,
)
from evalkit.run.settings import RunSettings
from evalkit.store.plan import Plan

NUM_TRIAL_CHUNKS = 2
"""Chunks of an episode that is run only to measure its time, or more where they have few steps."""

NUM_TRIAL_STEPS = 16
"""Least control steps of such an episode."""

MAX_TASKS = 6
"""Tasks from each end of a plan that are tried until one misses no assets."""


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
        start_s: Seconds that the first episode of an env process takes longer than a later one.
        reset_s: Seconds until the first observation.
        steps: Control steps executed.
        policy_s: Seconds in the policy, which the workers share: actions and predictions.
        wall_s: Seconds of all steps, including the policy's.
    """

    start_s: float
    reset_s: float
    steps: int
    policy_s: float
    wall_s: float


@dataclass(frozen=True)
class Paces:
    """What trying episodes of a plan gave.

    Attributes:
        measured: Paces by episode.
        reasons: Why episodes cannot be tried here: a sentence, and the episodes that it is about.
    """

    measured: dict[Episode, Pace] = field(default_factory=dict)
    reasons: dict[str, list[Episode]] = field(default_factory=dict)


def try_ends(trial: Trial) -> Paces:
    """Return the paces of an episode near each end of a plan.

    Tasks of which assets are missing are passed over, at most `MAX_TASKS` at each end. If this machine lacks what every
    env of the bench needs, nothing else is tried.

    Raises:
        EpisodeFault: If the env or the policy breaks its spec.
        EvalkitError: If the env cannot be built for a reason that is not this machine's.
    """
    paces = Paces()
    for candidates in _ends(trial.plan):
        for episode in candidates[:MAX_TASKS]:
            if episode in paces.measured:
                break
            try:
                paces.measured[episode] = measure_pace(trial, episode)
                break
            except EnvRaised as fault:
                if not fault.misses_assets:
                    raise
                paces.reasons.setdefault(fault.text, []).append(episode)
            except EnvNotBuilt as error:
                if not error.fault.is_machines:
                    raise
                paces.reasons.setdefault(error.fault.text, []).append(episode)
                return paces
    return paces


def _ends(plan: Plan) -> tuple[list[Episode], list[Episode]]:
    """Return the first episode of each task, and the last one of each task, the last task first."""
    first: dict[str, Episode] = {}
    last: dict[str, Episode] = {}
    for episode in plan.episodes:
        first.setdefault(episode.task, episode)
        last[episode.task] = episode
    return list(first.values()), list(reversed(last.values()))


def measure_policy(trial: Trial) -> Pace | None:
    """Return how long the policy alone takes for a chunk on an observation of noise; None if it reads more than that.

    Raises:
        EpisodeFault: If the policy breaks its spec.
    """
    spec, policy, episode = trial.policy.spec, trial.policy, trial.plan.episodes[0]
    if spec.privileged_keys:
        return None
    env_spec = trial.plan.env_spec(episode.task)
    observation = noise_observation(env_spec, np.random.default_rng(0), episode.instruction or "")
    steps = min(spec.execute_steps, episode.max_steps)
    renders = trial.settings.video or bool(trial.settings.clips)
    num_frames = num_reachable_frames(steps, spec) if spec.predicts and renders else 0
    for _ in range(2):  # the first request takes longer
        requests, clock = EpisodeRequests(episode, spec), Clock()
        requests.reset(policy, env_spec)
        request = requests.request(observation, chunk_idx=0, step_idx=0, num_predicted_frames=num_frames)
        with clock.span("policy"):
            complete_prediction(ask_policy(policy, request, env_spec), request, spec, env_spec)
    policy_s = clock.seconds()["policy"]
    return Pace(start_s=0.0, reset_s=0.0, steps=steps, policy_s=policy_s, wall_s=policy_s)


def estimate_seconds(plan: Plan, paces: Sequence[Pace], settings: RunSettings) -> float:
    """Return how many seconds a plan would take if every episode reached its step limit.

    The policy counts as answering one request at a time: more workers help until it is always busy. Shared passes and
    decoding next to them make a run shorter than that.

    Args:
        plan: The plan.
        paces: Paces of some of its episodes, at least one.
        settings: Workers, and episodes after which an env process is replaced.
    """
    workers = min(settings.workers, len(plan.episodes))
    steps = sum(episode.max_steps for episode in plan.episodes)
    tried = sum(pace.steps for pace in paces)
    start_s = sum(pace.start_s for pace in paces) / len(paces) * _num_processes(plan, settings)
    reset_s = sum(pace.reset_s for pace in paces) / len(paces) * len(plan.episodes)
    wall_s = sum(pace.wall_s for pace in paces) / tried * steps
    policy_s = sum(pace.policy_s for pace in paces) / tried * steps
    return max((start_s + reset_s + wall_s) / workers, policy_s)


def _num_processes(plan: Plan, settings: RunSettings) -> int:
    """Return how many env processes a run starts: each serves one task, and a limited number of episodes."""
    counts = Counter(episode.task for episode in plan.episodes)
    return sum(max(-(-n // settings.episodes_per_worker), min(settings.workers, n)) for n in counts.values())


def measure_pace(trial: Trial, episode: Episode) -> Pace:
    """Return how long the first chunks of an episode take where its env and the policy have run before.

    Raises as `try_task` does.
    """
    settings, predicts = trial.settings, bool(trial.policy.spec.predicts)
    steps = max(NUM_TRIAL_STEPS, NUM_TRIAL_CHUNKS * trial.policy.spec.execute_steps)
    short = replace(episode, max_steps=min(episode.max_steps, steps))
    render = settings.video or (bool(settings.clips) and predicts)
    tally, ends = Tally(), [time.perf_counter()]
    with _worker(trial, episode) as worker:
        for each in (Tally(), tally):
            run_episode(
                short,
                worker,
                trial.policy,
                [],
                each,
                render=render,
                predict=predicts and render,
                execution=trial.plan.execution,
            )
            ends.append(time.perf_counter())
    begun, first, second = ends
    spent = tally.clock.seconds()
    policy_s = spent.get("policy", 0.0) + spent.get("imagine", 0.0)
    return Pace(
        start_s=max(0.0, (first - begun) - (second - first)),
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
    short = replace(episode, max_steps=trial.policy.spec.execute_steps)
    with _worker(trial, episode) as worker:
        predicts = bool(trial.policy.spec.predicts)
        execution = trial.plan.execution
        run_episode(short, worker, trial.policy, [], Tally(), render=True, predict=predicts, execution=execution)
    return time.perf_counter() - started


@contextmanager
def _worker(trial: Trial, episode: Episode) -> Iterator[EnvWorker]:
    """Yield an env process for an episode's task, which ends with the `with` block."""
    launch = trial.bench.launch(task=episode.task, setting=episode.setting)
    worker = EnvWorker(launch, trial.plan.env_spec(episode.task), timeouts=trial.settings.timeouts)
    try:
        yield worker.build()
    finally:
        worker.close()
