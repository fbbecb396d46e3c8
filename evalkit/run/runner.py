"""The runner: carries out what a plan still lacks, one record an episode.

In: a plan's folder, a bench, a policy, settings. Out: `episodes.jsonl`, clips and videos; faults as records.
Read next: `episode.py`, the loop of one episode; `evalkit/contracts/worker/client.py`, the process that it talks to.

Each thread owns one env worker; the policy is shared, one call at a time. An episode's actions depend on the episode
alone, so neither the number of workers nor a restart changes them.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

from evalkit.contracts.bound import BoundBench
from evalkit.contracts.errors import EpisodeFault, EvalkitError
from evalkit.contracts.policy import Policy
from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.types import Episode, PolicyReply, PolicyRequest, Prediction
from evalkit.contracts.worker.client import EnvWorker
from evalkit.run.episode import Listener, Tally, run_episode
from evalkit.run.recorder import ClipRecorder, VideoRecorder
from evalkit.run.settings import RunSettings
from evalkit.store.about import begin_session, end_session
from evalkit.store.records import EpisodeRecord, Outcome
from evalkit.store.run_folder import RunFolder

OnRecord = Callable[[EpisodeRecord], None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every thread of a run shares."""

    folder: RunFolder
    bench: BoundBench
    policy: Policy
    settings: RunSettings


def missing_episodes(folder: RunFolder) -> list[Episode]:
    """Return the planned episodes without a record, in the plan's order."""
    done = {record.key for record in folder.records()}
    return [episode for episode in folder.plan.episodes if episode.key not in done]


def run_session(job: Job, on_record: OnRecord) -> None:
    """Run what is missing and note the session in `run.json`; arguments and errors are those of `run_missing`."""
    begin_session(job.folder, job.settings)
    run_missing(job, on_record)
    end_session(job.folder)


def run_missing(job: Job, on_record: OnRecord) -> None:
    """Run every planned episode that has no record yet.

    Args:
        job: What to run, and how.
        on_record: Called after each record is on the disk, one call at a time.

    Raises:
        EvalkitError: If the run cannot go on (no space, an env that cannot be built); what is recorded stays.
    """
    episodes: queue.SimpleQueue[Episode] = queue.SimpleQueue()
    for episode in missing_episodes(job.folder):
        episodes.put(episode)
    num_workers = min(job.settings.workers, episodes.qsize())
    if num_workers == 0:
        return
    shared = replace(job, policy=_OneAtATime(job.policy))
    stop, writing = threading.Event(), threading.Lock()

    def record(entry: EpisodeRecord) -> None:
        with writing:
            job.folder.append(entry)
            on_record(entry)

    def note_worker(worker: EnvWorker) -> None:
        with writing:
            job.folder.note_worker(worker.env_spec.env_id, worker.about)

    with ThreadPoolExecutor(num_workers) as pool:
        lanes = [_Lane(shared, worker_idx, stop, note_worker) for worker_idx in range(num_workers)]
        futures = [pool.submit(lane.run, episodes, record) for lane in lanes]
        try:
            _wait(futures)
        except BaseException:
            stop.set()
            for lane in lanes:
                lane.interrupt()
            raise


def _wait(futures: Sequence[Future[None]]) -> None:
    pending = set(futures)
    while pending:  # a short timeout keeps Ctrl-C alive
        done, pending = wait(pending, timeout=0.5, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()


class _Lane:
    """One thread of the run: takes episodes from the queue and owns at most one worker."""

    def __init__(
        self, job: Job, worker_idx: int, stop: threading.Event, note_worker: Callable[[EnvWorker], None]
    ) -> None:
        self._job, self._worker_idx, self._stop, self._note_worker = job, worker_idx, stop, note_worker
        self._worker: EnvWorker | None = None
        self._episodes_of_worker = 0

    def run(self, episodes: queue.SimpleQueue[Episode], record: OnRecord) -> None:
        try:
            while not self._stop.is_set():
                try:
                    episode = episodes.get_nowait()
                except queue.Empty:
                    break
                entry = self._record_of(episode)
                if not self._stop.is_set():
                    record(entry)
        finally:
            self._drop_worker()

    def interrupt(self) -> None:
        """Kill the worker from another thread, so that this one stops waiting for it."""
        if self._worker is not None:
            self._worker.kill()

    def _record_of(self, episode: Episode) -> EpisodeRecord:
        """Run one episode, again while its worker dies or hangs and attempts are left; return its record."""
        for attempt in itertools.count(1):
            tally = Tally()
            try:
                success = self._attempt(episode, tally)
                return self._record(episode, tally, attempt, "success" if success else "failure")
            except EpisodeFault as fault:
                if not fault.retriable or attempt >= self._job.settings.max_attempts or self._stop.is_set():
                    return self._record(episode, tally, attempt, "error", fault)
            except EvalkitError:
                raise
            except Exception as error:
                self._job.folder.log_traceback(episode, error)
                ours = EpisodeFault("harness", f"{type(error).__name__}: {error} (traceback in logs/harness.log)")
                return self._record(episode, tally, attempt, "error", ours)
        raise AssertionError("unreachable")

    def _attempt(self, episode: Episode, tally: Tally) -> bool:
        folder, settings, policy = self._job.folder, self._job.settings, self._job.policy
        env_spec, imagines = folder.plan.env_spec(episode.task), bool(policy.spec.predicts)
        listeners = _listeners(folder, settings, episode, env_spec, policy.spec)
        try:
            success = run_episode(
                episode,
                self._worker_for(episode, env_spec),
                policy,
                listeners,
                tally,
                render=settings.video or (settings.clips and imagines),
                imagine=imagines and (settings.clips or settings.video),
            )
            for listener in listeners:
                listener.on_end("success" if success else "failure")
        except BaseException:
            self._drop_worker()
            for listener in listeners:
                listener.abandon()
            raise
        return success

    def _record(
        self, episode: Episode, tally: Tally, attempt: int, outcome: Outcome, fault: EpisodeFault | None = None
    ) -> EpisodeRecord:
        folder = self._job.folder
        paths = {"clip": folder.clip_path(episode), "video": folder.video_path(episode)} if fault is None else {}
        kept = {name: str(path.relative_to(folder.path)) for name, path in paths.items() if path.exists()}
        return EpisodeRecord(
            outcome=outcome,
            task=episode.task,
            index=episode.index,
            seed=episode.seed,
            instruction=tally.instruction or episode.instruction,
            steps=tally.steps,
            num_chunks=tally.num_chunks,
            actions_sha256=tally.actions_sha256,
            blame=fault.blame if fault else None,
            reason=fault.reason if fault else None,
            attempts=attempt,
            timings_s=tally.clock.seconds(),
            details=tally.details,
            clip=kept.get("clip"),
            video=kept.get("video"),
        )

    def _worker_for(self, episode: Episode, env_spec: EnvSpec) -> EnvWorker:
        """Return a worker for the episode's task: the one there is, or a fresh one."""
        settings = self._job.settings
        used_up = self._episodes_of_worker >= settings.episodes_per_worker
        if self._worker is not None and (self._worker.env_spec != env_spec or used_up):
            self._drop_worker()
        if self._worker is None:
            self._worker = EnvWorker(
                self._job.bench.launch(task=episode.task, setting=episode.setting),
                env_spec,
                timeouts=settings.timeouts,
                log_path=self._job.folder.log_path(self._worker_idx),
            )
            self._episodes_of_worker = 0
            if not self._stop.is_set():
                self._note_worker(self._worker.build())
        self._episodes_of_worker += 1
        return self._worker

    def _drop_worker(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None


class _OneAtATime:
    """A policy that many threads may ask: one call runs at a time, the end of an imagination too."""

    def __init__(self, policy: Policy) -> None:
        self.spec: PolicySpec = policy.spec
        self._policy = policy
        self._lock = threading.Lock()

    def reset(self, episode: Episode, env: EnvSpec) -> None:
        with self._lock:
            self._policy.reset(episode, env)

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        with self._lock:
            replies = self._policy.infer(requests)
        if not isinstance(replies, list):
            return replies  # the episode says what is wrong with it
        return [self._guarded(reply) if isinstance(reply, PolicyReply) else reply for reply in replies]

    def _guarded(self, reply: PolicyReply) -> PolicyReply:
        imagine = reply.prediction
        if imagine is None:
            return reply

        def locked() -> Prediction:
            with self._lock:
                return imagine()

        return replace(reply, prediction=locked)


def _listeners(
    folder: RunFolder, settings: RunSettings, episode: Episode, env_spec: EnvSpec, policy_spec: PolicySpec
) -> list[Listener]:
    listeners: list[Listener] = []
    if settings.clips and policy_spec.predicts:
        listeners.append(
            ClipRecorder(folder.clip_path(episode), episode, env_spec, policy_spec, plan_sha256=folder.plan.sha256)
        )
    if settings.video:
        listeners.append(VideoRecorder(folder.video_path(episode), episode, env_spec, policy_spec))
    return listeners
