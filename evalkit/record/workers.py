"""The recording of jobs, several at a time, each in a process of its own.

In: jobs. Out: episodes in the data set, an empty file for each seed that gave nothing, and how many were kept.
Read next: `demonstrate.py`, one episode; `remote_env.py`, an env whose simulator needs another interpreter.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import NamedTuple

from rich.progress import Progress

from baselines.env_process import EnvProcessError
from baselines.scripted.policy import ScriptedConfig, ScriptedPlugin
from baselines.scripted.remote_env import RemoteEnv
from evalkit.contracts.env import Env, WorkerLaunch
from evalkit.contracts.errors import EpisodeFault, EvalkitError
from evalkit.contracts.plugins import load_bench
from evalkit.contracts.policy import Policy
from evalkit.contracts.spec import EnvSpec, check
from evalkit.contracts.types import Episode
from evalkit.dataset.writer import Recording, View, episode_key, write_episode
from evalkit.record.demonstrate import Learner, Rollout, demonstrate, refuse, rollout
from evalkit.record.plan import FAILED, Job, about_of
from evalkit.record.pool import finished
from xwam.config import NANO
from xwam.robots.interfaces import INTERFACES


class Recorded(NamedTuple):
    """How many episodes were kept, how many tried, and which simulators failed, whose rest is left for another time."""

    kept: int
    tried: int
    reasons: list[str]


def record(todo: Sequence[Job], *, workers: int) -> Recorded:
    """Record all jobs, several at a time, each in a process of its own; return what came of it.

    Raises:
        EvalkitError: As `record_block` does.
        OSError: If an episode cannot be written, for example on a full disk.
        BrokenProcessPool: If a process was killed.
    """
    kept = tried = 0
    reasons: list[str] = []
    with Progress() as progress:
        bar = progress.add_task("episodes", total=sum(len(job.seeds) for job in todo))
        for job, found in finished(_count_block, todo, workers=workers, jobs_per_process=1):
            if isinstance(found, EnvProcessError):
                reasons.append(f"{job.task}, from seed {job.seeds[0]} on: {found}. It will be tried again.")
            else:
                kept, tried = kept + found[0], tried + found[1]
            progress.update(bar, advance=len(job.seeds))
    return Recorded(kept, tried, reasons)


def _count_block(job: Job) -> tuple[int, int]:
    """Record a job; return how many succeeded, and how many there were.

    Some faults are made of more than a sentence, and would not pass from this process to the one that waits.
    """
    try:
        results = list(record_block(job))
    except EnvProcessError:
        raise
    except (EvalkitError, EpisodeFault) as error:
        raise EvalkitError(str(error)) from error
    return sum(results), len(results)


def record_block(job: Job) -> Iterator[bool]:
    """Record the episodes of a job; yield whether each was kept.

    Raises:
        EvalkitError: If the env cannot be built, its process fails, or the policy does not fit it.
    """
    bench = load_bench(job.bench)
    config = bench.config_type(**dict(job.settings))
    policy, learner = job.actor.make(), None
    if job.actor.take_over is not None:
        policy, learner = ScriptedPlugin().make(ScriptedConfig()), Learner(policy, job.actor.take_over)
    (model,) = bench.plan_episodes(config, task=job.task, setting=job.setting, num_episodes=1, seed=0)
    with closing(_env(bench.launch(config, task=job.task, setting=job.setting))) as env:
        check(env.spec, policy.spec)
        if learner:
            check(env.spec, learner.policy.spec)
        recording = replace(recording_of(env.spec), axes=INTERFACES[job.bench].axes)
        for number, seed in zip(job.numbers, job.seeds, strict=True):
            episode = replace(model, index=number, seed=seed, max_steps=job.actor.max_steps or model.max_steps)
            done = _done_by(policy, learner, env, episode, job)
            if done is None:
                failed = job.root / FAILED / episode_key(number)
                failed.parent.mkdir(parents=True, exist_ok=True)
                failed.touch()
            else:
                told = job.refused or (str(env.observe(render=False)["instruction"]),)
                about = replace(about_of(job, seed), env=dict(env.about), success=done.success)
                write_episode(job.root, number, done.steps, recording, instructions=told, about=about)
            yield done is not None


def _env(launch: WorkerLaunch) -> Env:
    """Return an env in this process, or in one of the interpreter that its simulator needs."""
    if launch.python != sys.executable:
        return RemoteEnv(launch)
    os.environ.update(launch.environ)
    module, _, attribute = launch.target.partition(":")
    try:
        env: Env = getattr(importlib.import_module(module), attribute)(**launch.kwargs)
    except (ImportError, RuntimeError) as error:
        raise EvalkitError(f"The env cannot be built: {error}.") from error
    return env


def _done_by(policy: Policy, learner: Learner | None, env: Env, episode: Episode, job: Job) -> Rollout | None:
    """Return what to keep of an episode; None if the expert failed, nothing was to do, or the simulation blew up."""
    try:
        if job.refused:
            steps = refuse(env, policy, episode, job.disturbance)
        elif job.actor.shows_expert:
            steps = demonstrate(env, policy, episode, job.disturbance, learner=learner)
        else:
            return rollout(env, policy, episode)
    except FloatingPointError:
        return None
    return None if steps is None else Rollout(steps, success=not job.refused)


def recording_of(spec: EnvSpec) -> Recording:
    """Return how an env is recorded; views are numbered, because data sets are read in the order of their names."""
    kinds = {"static": "static", "wrist": "dynamic"}
    return Recording(
        views=tuple(
            View(name=f"{index}_{camera.name}", kind=kinds[camera.kind])  # type: ignore[arg-type]
            for index, camera in enumerate(spec.cameras)
        ),
        arms=spec.arms,
        layout=spec.action_layout,
        control_hz=spec.control_hz,
        depth_range=NANO.depth_range,
    )
