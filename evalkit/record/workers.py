"""The recording of jobs, several at a time, each in a process of its own.

In: jobs. Out: episodes in the data set, a note for each seed that gave none, and counts.
Read next: `demonstrate.py`, one episode; `evalkit/contracts/worker/remote_env.py`, the env in its own process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evalkit.contracts.bound import BoundBench
from evalkit.contracts.env import Env
from evalkit.contracts.errors import EnvRaised, EpisodeFault, EvalkitError
from evalkit.contracts.plugins import load_expert
from evalkit.contracts.policy import ExpertPlugin, Policy
from evalkit.contracts.spec import check
from evalkit.contracts.types import Episode
from evalkit.contracts.worker.remote_env import RemoteEnv
from evalkit.dataset.writer import episode_key, recording_of, write_episode, write_metadata
from evalkit.record.demonstrate import Learner, Rollout, demonstrate, refuse, rollout
from evalkit.record.notes import write_note
from evalkit.record.plan import FAILED, RecordJob, about_of
from evalkit.record.pool import explained, run_jobs


@dataclass(frozen=True, kw_only=True)
class RecordJobResult:
    """The result of one job.

    Attributes:
        kept: Episodes that were recorded.
        tried: Episodes that were tried.
        faults: Errors of the env, each with the seeds on which it was raised; they would be met again.
        interruption: Why the process ended before the last episode; None if it did not. The rest is missing.
    """

    kept: int
    tried: int
    faults: tuple[str, ...] = ()
    interruption: str | None = None


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """The result of a recording.

    Attributes:
        kept: Episodes that were recorded.
        tried: Episodes that were tried.
        faults: A sentence for each error of an env, which would be met again.
        interruptions: A sentence for each job whose process ended, so that the same command may complete it.
        lengths: Frames of every episode of the data set, by key.
        num_failed: Seeds of the data set that gave no episode.
    """

    kept: int
    tried: int
    faults: tuple[str, ...] = ()
    interruptions: tuple[str, ...] = ()
    lengths: dict[str, int]
    num_failed: int


OnJob = Callable[[RecordJob, RecordJobResult], None]


def record(root: Path, jobs: Sequence[RecordJob], *, workers: int = 1, on_job: OnJob | None = None) -> Recorded:
    """Record jobs, several at a time, each in a process of its own, and list the data set's episodes.

    Args:
        root: The data set.
        jobs: What to record.
        workers: Number of jobs at a time.
        on_job: Called after each job.

    Raises:
        EvalkitError: If an env cannot be built, a policy fails or does not fit, an episode cannot be written, or a
            process was killed. Whole episodes are kept and listed.
    """
    results: list[RecordJobResult] = []
    faults: list[str] = []
    interruptions: list[str] = []
    with explained(root):
        try:
            for job, result in run_jobs(record_job, jobs, workers=workers, jobs_per_process=1):
                results.append(result)
                faults += [f"{job.task}, {fault}" for fault in result.faults]
                if result.interruption is not None:
                    interruptions.append(f"{job.task}, from seed {job.seeds[0]} on: {result.interruption}")
                if on_job is not None:
                    on_job(job, result)
        finally:
            lengths = write_metadata(root)
    return Recorded(
        kept=sum(result.kept for result in results),
        tried=sum(result.tried for result in results),
        faults=tuple(faults),
        interruptions=tuple(interruptions),
        lengths=lengths,
        num_failed=sum(1 for _ in (root / FAILED).rglob("episode_*")),
    )


def record_job(job: RecordJob) -> RecordJobResult:
    """Record a job and return its result; errors are plain, so that they pass from one process to another.

    Raises:
        EvalkitError: As `record` does.
        OSError: If an episode cannot be written, for example on a full disk.
    """
    results: list[bool] = []
    seeds_by_fault: dict[str, list[int]] = {}
    interruption = None
    try:
        for is_recorded in record_episodes(job, seeds_by_fault):
            results.append(is_recorded)
    except EpisodeFault as fault:
        if not fault.retriable:
            raise EvalkitError(fault.reason) from fault
        interruption = f"{fault.reason.rstrip('.')}."
    except (EvalkitError, ValueError) as error:
        raise EvalkitError(str(error)) from error
    faults = tuple(f"seed {', '.join(map(str, seeds))}: {fault}." for fault, seeds in seeds_by_fault.items())
    return RecordJobResult(kept=sum(results), tried=len(results), faults=faults, interruption=interruption)


def record_episodes(job: RecordJob, seeds_by_fault: dict[str, list[int]]) -> Iterator[bool]:
    """Record the episodes of a job; yield whether each was kept.

    Args:
        job: The job.
        seeds_by_fault: Takes up what an env raised, with the seeds; the other episodes are recorded.

    Raises:
        EvalkitError: If the env cannot be built, or the policy does not fit it.
        EpisodeFault: If the env's process or the policy fails, or this machine lacks what the env needs.
    """
    bench, axes = job.bench, job.bench.recordable.dataset_axes()
    policy = None if job.actor.policy is None else job.actor.policy.load()
    cast = _Cast(job, _expert(job), policy)
    (model,) = bench.plan_episodes(task=job.task, setting=job.setting, num_episodes=1, seed=0)
    with closing(_env(bench, job.task, job.setting)) as env:
        if policy is not None:
            check(env.spec, policy.spec)
        recording = recording_of(env.spec, axes)
        for number, seed in zip(job.numbers, job.seeds, strict=True):
            limit = job.actor.max_steps or model.max_steps
            episode = replace(model, index=number, seed=seed, max_steps=limit)
            note = job.root / FAILED / episode_key(number)
            try:
                result = _try_episode(cast, env, episode)
            except EnvRaised as error:
                if error.is_machines:
                    raise
                seeds_by_fault.setdefault(error.reason.rstrip("."), []).append(seed)
                yield False
                continue
            if result is None:
                write_note(note, about_of(job, seed), "no episode: the expert failed, or nothing was left to do")
            else:
                note.unlink(missing_ok=True)
                instructions = job.refused or (str(env.observe(render=False)["instruction"]),)
                about = replace(about_of(job, seed), env=dict(env.about), success=result.success)
                write_episode(job.root, number, result.steps, recording, instructions=instructions, about=about)
            yield result is not None


@dataclass(frozen=True)
class _Cast:
    """Who acts in the episodes of a job."""

    job: RecordJob
    expert: ExpertPlugin | None
    policy: Policy | None


def _expert(job: RecordJob) -> ExpertPlugin | None:
    """Return the bench's experts if the job needs them.

    Raises:
        EvalkitError: If there is none for the task.
    """
    if not job.actor.shows_expert:
        return None
    plugin = load_expert(job.bench.name)
    if job.task not in plugin.tasks:
        raise EvalkitError(
            f"There is no expert for task '{job.task}' of bench '{job.bench.name}'; it has experts for "
            f"{', '.join(plugin.tasks)}."
        )
    return plugin


def _env(bench: BoundBench, task: str, setting: str) -> Any:
    return RemoteEnv(bench.launch(task=task, setting=setting), bench.env_spec(task=task, setting=setting))


def _try_episode(cast: _Cast, env: Env, episode: Episode) -> Rollout | None:
    """Return the recorded episode; None if the expert failed, nothing was to do, or the simulation became unstable."""
    job = cast.job
    try:
        if cast.expert is None:
            assert cast.policy is not None
            return rollout(env, cast.policy, episode)
        expert = cast.expert.start(job.task)
        if job.refused:
            steps = refuse(env, expert, episode, job.disturbance)
        else:
            learner = None if cast.policy is None else Learner(cast.policy, job.actor.take_over or 0)
            steps = demonstrate(env, expert, episode, job.disturbance, learner=learner)
    except FloatingPointError:
        return None
    return None if steps is None else Rollout(steps, success=not job.refused)
