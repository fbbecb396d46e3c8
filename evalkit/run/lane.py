"""One thread of a run: it takes episodes from a queue and gives each a record.

In: a job, a queue of episodes. Out: records; faults of envs and policies become `error` records.
Read next: `episode.py`, the loop of one episode; `evalkit/contracts/worker/client.py`, the env process.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from evalkit.contracts.bound import BoundBench
from evalkit.contracts.errors import EpisodeFault, EvalkitError
from evalkit.contracts.policy import Policy
from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.types import Episode
from evalkit.contracts.worker.client import EnvWorker
from evalkit.run.episode import Listener, Tally, run_episode
from evalkit.run.recorder import ClipRecorder, VideoRecorder
from evalkit.run.settings import RunSettings
from evalkit.store.records import EpisodeRecord, Outcome
from evalkit.store.run_folder import RunFolder

OnRecord = Callable[[EpisodeRecord], None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all threads of a run share."""

    folder: RunFolder
    bench: BoundBench
    policy: Policy
    settings: RunSettings


class Lane:
    """One thread of the run; it owns at most one env process."""

    def __init__(
        self, job: Job, worker_idx: int, stop: threading.Event, note_worker: Callable[[EnvWorker], None]
    ) -> None:
        self._job, self._worker_idx, self._stop, self._note_worker = job, worker_idx, stop, note_worker
        self._worker: EnvWorker | None = None
        self._episodes_of_worker = 0

    def run(self, episodes: queue.SimpleQueue[Episode], record: OnRecord) -> None:
        """Run episodes until the queue is empty or the run stops."""
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
        """Kill the env process from another thread, so that this thread stops waiting for it."""
        if self._worker is not None:
            self._worker.kill()

    def _record_of(self, episode: Episode) -> EpisodeRecord:
        """Return the record of one episode; repeat it while its env process dies or hangs and attempts are left."""
        for attempt in itertools.count(1):
            tally = Tally()
            try:
                success = self._attempt(episode, tally)
                return self._record(episode, tally, attempt, "success" if success else "failure")
            except EpisodeFault as fault:
                if not fault.retriable or attempt >= self._job.settings.max_attempts or self._stop.is_set():
                    return self._record(episode, tally, attempt, "error", self._logged(episode, fault))
            except EvalkitError:
                raise
            except Exception as error:
                self._job.folder.log_traceback(episode, error, "harness.log")
                ours = EpisodeFault("harness", f"{type(error).__name__}: {error} (traceback in logs/harness.log)")
                return self._record(episode, tally, attempt, "error", ours)
        raise AssertionError("unreachable")

    def _attempt(self, episode: Episode, tally: Tally) -> bool:
        folder, settings, policy = self._job.folder, self._job.settings, self._job.policy
        env_spec, predicts = folder.plan.env_spec(episode.task), bool(policy.spec.predicts)
        listeners = _listeners(folder, settings, episode, env_spec, policy.spec)
        try:
            success = run_episode(
                episode,
                self._worker_for(episode, env_spec),
                policy,
                listeners,
                tally,
                render=settings.video or (settings.clips and predicts),
                predict=predicts and (settings.clips or settings.video),
            )
            for listener in listeners:
                listener.on_end("success" if success else "failure")
        except BaseException:
            self._drop_worker()
            for listener in listeners:
                listener.abandon()
            raise
        return success

    def _logged(self, episode: Episode, fault: EpisodeFault) -> EpisodeFault:
        """Return the fault; where the policy raised, its traceback goes to a log that the reason names."""
        if fault.blame != "policy" or fault.__cause__ is None:
            return fault
        self._job.folder.log_traceback(episode, fault.__cause__, "policy.log")
        return EpisodeFault("policy", f"{fault.reason} (traceback in logs/policy.log)")

    def _record(
        self, episode: Episode, tally: Tally, attempt: int, outcome: Outcome, fault: EpisodeFault | None = None
    ) -> EpisodeRecord:
        folder = self._job.folder
        paths = {"clip": folder.clip_path(episode), "video": folder.video_path(episode)} if fault is None else {}
        written = {name: str(path.relative_to(folder.path)) for name, path in paths.items() if path.exists()}
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
            clip=written.get("clip"),
            video=written.get("video"),
        )

    def _worker_for(self, episode: Episode, env_spec: EnvSpec) -> EnvWorker:
        """Return an env process for the episode's task: the present one, or a new one."""
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
