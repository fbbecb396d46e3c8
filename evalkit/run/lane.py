"""One lane of a run: it runs one episode at a time, in one env process, and gives each a record.

In: a job, episodes. Out: records; faults of envs and policies become `error` records.
Read next: `executors/threads.py`, which runs lanes; `episode.py`, the loop of one episode;
`evalkit/contracts/worker/client.py`, the env process.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from evalkit.contracts.bound import BoundBench
from evalkit.contracts.errors import EnvRaised, EpisodeFault, EvalkitError, MissingAssets, WorkerNotStarted
from evalkit.contracts.policy import Policy
from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.types import Episode
from evalkit.contracts.worker.client import EnvWorker, EpisodeStart
from evalkit.contracts.worker.memory import MemoryWatch, ProcessMemory
from evalkit.contracts.worker.slot import WorkerSlot
from evalkit.run.choice import WHOLE, Shard, kept_clips
from evalkit.run.episode import Listener, Settling, Tally, run_episode
from evalkit.run.executors import Ended
from evalkit.run.policies import policy_of_episode
from evalkit.run.recorder import ClipRecorder, OptionalListener, VideoRecorder
from evalkit.run.settings import RunSettings
from evalkit.serve.pool import PolicyPool
from evalkit.store.records import EpisodeRecord, Outcome
from evalkit.store.run_folder import RunFolder

OnRecord = Callable[[EpisodeRecord], None]

MAX_LOST_VIDEOS = 3
"""Videos in a row that may fail in a session; later ones are not tried."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all lanes of a run share.

    Attributes:
        folder: The run folder.
        bench: The bench with its settings.
        policy: The policy, or the pool of its processes.
        settings: Workers, limits and outputs.
        lost_videos: Keys of the last episodes in a row whose video could not be written.
        missing_assets: What the env of a task said that could not be built for lack of assets, by `env_id`.
        memory: The memory of the env processes.
        built: Set once an env of the session has been built.
        shard: Which part of the plan runs.
        on_retry: Called with a sentence when an episode is tried again.
    """

    folder: RunFolder
    bench: BoundBench
    policy: Policy | PolicyPool
    settings: RunSettings
    lost_videos: list[str] = field(default_factory=list)
    missing_assets: dict[str, str] = field(default_factory=dict)
    memory: MemoryWatch = field(default_factory=MemoryWatch)
    built: threading.Event = field(default_factory=threading.Event)
    shard: Shard = WHOLE
    on_retry: Callable[[str], None] = lambda _: None

    @cached_property
    def kept_clips(self) -> frozenset[str]:
        """Return the keys of the episodes whose clips are kept; none where nothing is predicted."""
        if not self.policy.spec.predicts or not self.folder.plan.may_predict:
            return frozenset()
        return kept_clips(self.folder.plan.episodes, self.settings.clips_share)


class Attempt(NamedTuple):
    """An episode that ran to its end: whether the goal was met, what is missing of it, its files in the run folder."""

    success: bool
    warnings: Sequence[str]
    files: Mapping[str, str]


class Lane:
    """Runs episodes one after another; it owns at most one env process, which `close` ends."""

    def __init__(
        self, job: Job, worker_idx: int, stop: threading.Event, note_worker: Callable[[EnvWorker], None]
    ) -> None:
        self._job, self._worker_idx, self._stop, self._note_worker = job, worker_idx, stop, note_worker
        memory = ProcessMemory(job.memory, job.settings.worker_memory_bytes)
        self._slot: WorkerSlot[EnvSpec] = WorkerSlot(memory, max_uses=job.settings.episodes_per_worker)

    def interrupt(self) -> None:
        """Kill the env process from another thread, so that this thread stops waiting for it."""
        self._slot.kill()

    def close(self) -> None:
        """End the env process."""
        self._slot.drop()

    def end_of(self, episode: Episode) -> Ended:
        """Return an episode's record and fault; repeat it while its env process dies or hangs and attempts are left.

        Raises:
            EvalkitError: If the run cannot go on.
        """
        counted = 0
        for attempt in itertools.count(1):
            tally = Tally()
            try:
                done = self._attempt(episode, tally)
                outcome: Outcome = "success" if done.success else "failure"
                return Ended(self._record(episode, tally, attempt, outcome, done), None)
            except EpisodeFault as fault:
                if isinstance(fault, EnvRaised) and fault.misses_assets:
                    return Ended(self._record(episode, tally, attempt, "skipped", fault=fault), fault)
                most = self._job.settings.max_attempts
                counted += fault.counts
                if not fault.retriable or counted >= most or self._stop.is_set():
                    return Ended(self._record(episode, tally, attempt, "error", fault=fault), fault)
                number = f", attempt {counted + 1} of {most}" if fault.counts else " (this attempt does not count)"
                self._job.on_retry(f"{episode.key} starts again{number}: {fault.reason}")
            except EvalkitError:
                raise
            except Exception as error:
                ours = EpisodeFault("harness", f"{type(error).__name__}: {error}")
                ours.__cause__ = error
                return Ended(self._record(episode, tally, attempt, "error", fault=ours), ours)
        raise AssertionError("unreachable")

    def ended_in(self, episode: Episode, fault: EpisodeFault) -> Ended:
        """Return the end of an episode that no lane could finish."""
        return Ended(self._record(episode, Tally(), self._job.settings.max_attempts, "error", fault=fault), fault)

    def _attempt(self, episode: Episode, tally: Tally) -> Attempt:
        """Run an episode once; files of an earlier run of it are removed first."""
        folder, settings, policy = self._job.folder, self._job.settings, self._job.policy
        env_spec, keeps_clip = folder.plan.env_spec(episode.task), episode.key in self._job.kept_clips
        paths = {"clip": folder.clip_path(episode), "video": folder.video_path(episode)}
        for path in [*paths.values(), folder.steps_path(episode)]:
            with suppress(OSError):
                path.unlink()
        clip = [_clip_recorder(folder, episode, env_spec, policy.spec)] if keeps_clip else []
        video = self._video_recorder(episode, env_spec)
        listeners: list[Listener] = [*clip, *video, *self._on_request(episode, env_spec)]
        try:
            worker = self._worker_for(episode, env_spec)
            with policy_of_episode(policy) as acting:
                success = run_episode(
                    episode,
                    worker,
                    acting,
                    listeners,
                    tally,
                    render=settings.video or keeps_clip,
                    predict=bool(policy.spec.predicts) and (settings.video or keeps_clip),
                    render_all=settings.rollouts is not None,
                    execution=folder.plan.execution,
                )
            warnings = self._settle(worker, tally) if success else []
            if folder.plan.success_after_steps and tally.settling is not None:
                success = bool(tally.settling.success)
            for listener in listeners:
                listener.on_end("success" if success else "failure")
        except BaseException:
            self._slot.drop()
            for listener in listeners:
                listener.abandon()
            raise
        self._slot.used()
        written = {"clip": bool(clip), "video": any(recorder.problem is None for recorder in video)}
        files = {name: str(path.relative_to(folder.path)) for name, path in paths.items() if written[name]}
        return Attempt(success, [*warnings, *self._why_no_video(episode, video)], files)

    def _settle(self, worker: EnvWorker, tally: Tally) -> list[str]:
        """Leave the robot alone after a success, and return why it is not known whether the goal still holds.

        Raises:
            EpisodeFault: For the same reason, where the plan counts success after settling; elsewhere it costs nothing.
        """
        counts = self._job.folder.plan.success_after_steps
        num_steps = counts or self._job.settings.settle_steps
        tally.settling = Settling(num_steps=num_steps)
        try:
            if num_steps:
                with tally.clock.span("settle"):
                    tally.settling = Settling(num_steps=num_steps, success=worker.settle(num_steps))
        except EpisodeFault as fault:
            if counts:
                raise
            self._slot.drop()
            return [f"Not known whether the goal still holds: {fault.reason}"]
        if not num_steps or tally.settling.success is not None:
            return []
        reason = (
            "Not known whether the goal still holds: the env does not state which action holds its robot in the "
            f"layout '{worker.env_spec.action_layout}' (HoldingEnv in evalkit/contracts/env.py)."
        )
        if counts:
            raise EpisodeFault("env", reason)
        return [reason]

    def _on_request(self, episode: Episode, env_spec: EnvSpec) -> Iterator[Listener]:
        """Yield the recorders of what is written on request alone: step rows, rollouts."""
        job = self._job
        if job.settings.steps:
            from evalkit.run.step_rows import StepRecorder

            yield StepRecorder(job.folder.steps_path(episode), episode)
        if job.settings.rollouts is not None:
            from evalkit.run.rollouts import RolloutRecorder

            yield RolloutRecorder(job.folder, job.bench, episode, env_spec)

    def _video_recorder(self, episode: Episode, env_spec: EnvSpec) -> list[OptionalListener]:
        """Return the recorder of the episode's video; none where videos are not asked for or keep failing."""
        folder, spec = self._job.folder, self._job.policy.spec
        if not self._job.settings.video or len(self._job.lost_videos) >= MAX_LOST_VIDEOS:
            return []
        return [OptionalListener(lambda: VideoRecorder(folder.video_path(episode), episode, env_spec, spec))]

    def _why_no_video(self, episode: Episode, video: list[OptionalListener]) -> list[str]:
        """Return why the video is missing that the settings ask for; empty if it is there."""
        lost = self._job.lost_videos
        if not self._job.settings.video:
            return []
        problem = video[0].problem if video else None
        if video and problem is None:
            if len(lost) < MAX_LOST_VIDEOS:  # another thread may have given up meanwhile
                lost.clear()
            return []
        if problem is None:
            return [f"No video: none is tried after {len(lost)} failed in a row, the first of {lost[0]}."]
        lost.append(episode.key)
        where = self._job.folder.log_traceback(episode.key, problem, "video.log")
        text = str(problem) if isinstance(problem, EvalkitError) else f"{type(problem).__name__}: {problem}"
        return [f"No video: {text.rstrip('.')}{where}."]

    def _reason(self, episode: Episode, fault: EpisodeFault) -> str:
        """Return a fault's reason; where the policy or the harness raised, it names the log with the traceback."""
        if fault.blame == "env" or fault.__cause__ is None:
            return fault.reason
        return fault.reason + self._job.folder.log_traceback(episode.key, fault.__cause__, f"{fault.blame}.log")

    def _record(
        self,
        episode: Episode,
        tally: Tally,
        attempt: int,
        outcome: Outcome,
        done: Attempt | None = None,
        fault: EpisodeFault | None = None,
    ) -> EpisodeRecord:
        files: Mapping[str, str] = done.files if done else {}
        start, settling = tally.start, tally.settling if fault is None else None
        return EpisodeRecord(
            outcome=outcome,
            task=episode.task,
            index=episode.index,
            seed=episode.seed,
            instruction=tally.instruction or episode.instruction,
            steps=tally.steps,
            num_chunks=tally.num_chunks,
            actions_sha256=tally.actions_sha256,
            blame=fault.blame if fault and outcome == "error" else None,
            reason=self._reason(episode, fault) if fault else None,
            attempts=attempt,
            timings_s=tally.clock.seconds(),
            details=tally.details,
            clip=files.get("clip"),
            video=files.get("video"),
            warnings=[*(done.warnings if done else ()), *_missing_of_scene(start)],
            scene=start.scene if start else None,
            first_state_sha256=start.first_state_sha256 if start else None,
            first_frame_sha256=start.first_frame_sha256 if start else None,
            settle_steps=settling.num_steps if settling else None,
            success_after_settling=settling.success if settling else None,
            counters=tally.counters,
            realtime=None if tally.robot is None or self._job.folder.plan.execution.is_plain else tally.robot.to_json(),
        )

    def _worker_for(self, episode: Episode, env_spec: EnvSpec) -> EnvWorker:
        """Return an env process for the episode's task: the present one, or a new one."""

        def launch() -> EnvWorker:
            self._check_assets(env_spec.env_id)
            return EnvWorker(
                self._job.bench.launch(task=episode.task, setting=episode.setting),
                env_spec,
                timeouts=self._job.settings.timeouts,
                log_path=self._job.folder.log_path(self._worker_idx),
            )

        worker, is_new = self._slot.take(env_spec, launch)
        if is_new and not self._stop.is_set():
            self._note_worker(self._build(worker))
        return worker

    def _build(self, worker: EnvWorker) -> EnvWorker:
        """Return a worker with its env; remember what an env misses, so that it is not built for each episode.

        Raises:
            EpisodeFault: If this costs one episode.
            EvalkitError: If no env can be built here.
        """
        try:
            worker.build()
        except EnvRaised as fault:
            self._job.missing_assets[fault.env_id] = fault.text
            raise
        except WorkerNotStarted as fault:
            if self._job.built.is_set():
                raise
            raise EvalkitError(f"{fault.reason} {fault.advice}") from fault
        self._job.built.set()
        return worker

    def _check_assets(self, env_id: str) -> None:
        """Raise EnvRaised if an env of this task could not be built for lack of assets."""
        if env_id in self._job.missing_assets:
            raise EnvRaised(env_id, kind=MissingAssets.__name__, text=self._job.missing_assets[env_id])


def _missing_of_scene(start: EpisodeStart | None) -> list[str]:
    """Return a sentence if an episode started and its record cannot say which scene it met."""
    if start is None:
        return []
    parts = {
        "scene": start.scene,
        "hash of the first state": start.first_state_sha256,
        "hash of the first frame": start.first_frame_sha256,
    }
    missing = [f"no {name}" for name, value in parts.items() if value is None]
    return [f"The record has {' and '.join(missing)}, because the env does not give it."] if missing else []


def _clip_recorder(folder: RunFolder, episode: Episode, env_spec: EnvSpec, policy_spec: PolicySpec) -> ClipRecorder:
    """Return the recorder of the episode's clip."""
    return ClipRecorder(folder.clip_path(episode), episode, env_spec, policy_spec, plan_sha256=folder.plan.sha256)
