"""The recording of jobs, several at a time, each in a process of its own.

In: jobs. Out: episodes in the data set, an empty file for each seed that gave none, and counts.
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
from evalkit.contracts.errors import EpisodeFault, EvalkitError
from evalkit.contracts.plugins import load_expert
from evalkit.contracts.policy import ExpertPlugin, Policy
from evalkit.contracts.spec import EnvSpec, check
from evalkit.contracts.types import Episode
from evalkit.contracts.worker.remote_env import RemoteEnv
from evalkit.dataset.axes import Axes
from evalkit.dataset.depth_video import DepthRange
from evalkit.dataset.layout import CAMERA_KINDS
from evalkit.dataset.writer import Recording, View, episode_key, write_episode, write_metadata
from evalkit.record.demonstrate import Learner, Rollout, demonstrate, refuse, rollout
from evalkit.record.plan import FAILED, RecordJob, about_of
from evalkit.record.pool import explained, run_jobs


@dataclass(frozen=True, kw_only=True)
class RecordJobResult:
    """The result of one job.

    Attributes:
        kept: Episodes that were recorded.
        tried: Episodes that were tried.
        fault: Why the simulator failed before the end; None if it did not. The rest is missing and can be repeated.
    """

    kept: int
    tried: int
    fault: str | None = None


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """The result of a recording.

    Attributes:
        kept: Episodes that were recorded.
        tried: Episodes that were tried.
        faults: A sentence for each job whose simulator failed.
        lengths: Frames of every episode of the data set, by key.
        num_failed: Seeds of the data set that gave no episode.
    """

    kept: int
    tried: int
    faults: tuple[str, ...]
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
    with explained(root):
        try:
            for job, result in run_jobs(record_job, jobs, workers=workers, jobs_per_process=1):
                results.append(result)
                if result.fault is not None:
                    faults.append(f"{job.task}, from seed {job.seeds[0]} on: {result.fault} It can be tried again.")
                if on_job is not None:
                    on_job(job, result)
        finally:
            lengths = write_metadata(root)
    return Recorded(
        kept=sum(result.kept for result in results),
        tried=sum(result.tried for result in results),
        faults=tuple(faults),
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
    try:
        for is_recorded in record_episodes(job):
            results.append(is_recorded)
    except EpisodeFault as fault:
        if fault.blame != "env":
            raise EvalkitError(fault.reason) from fault
        return RecordJobResult(kept=sum(results), tried=len(results), fault=f"{fault.reason.rstrip('.')}.")
    except (EvalkitError, ValueError) as error:
        raise EvalkitError(str(error)) from error
    return RecordJobResult(kept=sum(results), tried=len(results))


def record_episodes(job: RecordJob) -> Iterator[bool]:
    """Record the episodes of a job; yield whether each was kept.

    Raises:
        EvalkitError: If the env cannot be built, or the policy does not fit it.
        EpisodeFault: If the env's process or the policy fails.
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
            result = _try_episode(cast, env, episode)
            if result is None:
                _note_failed(job.root, number)
            else:
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


def _note_failed(root: Path, number: int) -> None:
    path = root / FAILED / episode_key(number)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def recording_of(spec: EnvSpec, axes: Axes) -> Recording:
    """Return how the episodes of an env are written; views are numbered, because data sets are read in name order."""
    return Recording(
        views=tuple(
            View(name=f"{index}_{camera.name}", kind=CAMERA_KINDS[camera.kind])
            for index, camera in enumerate(spec.cameras)
        ),
        arms=spec.arms,
        layout=spec.action_layout,
        control_hz=spec.control_hz,
        depth_range=DepthRange(),
        axes=axes,
    )
