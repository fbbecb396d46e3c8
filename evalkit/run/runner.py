"""The runner: runs the episodes of a plan that have no record yet.

In: a run folder, a bench, a policy, settings. Out: `episodes.jsonl`, clips and videos.
Read next: `lane.py`, one thread of a run; `episode.py`, the loop of one episode.

Each thread owns one env process; all threads share the policy, one call at a time. An episode's actions depend on the
episode only, so neither the number of workers nor a restart changes them.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import replace

from evalkit.contracts.policy import Policy
from evalkit.contracts.spec import EnvSpec, PolicySpec
from evalkit.contracts.types import Episode, PolicyReply, PolicyRequest, Prediction
from evalkit.contracts.worker.client import EnvWorker
from evalkit.run.lane import Job, Lane, OnRecord
from evalkit.store.about import begin_session, end_session
from evalkit.store.records import EpisodeRecord
from evalkit.store.run_folder import RunFolder


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
        job: The run folder, bench, policy and settings.
        on_record: Called after each record is on the disk, one call at a time.

    Raises:
        EvalkitError: If the run cannot continue (no space, an env that cannot be built); records are kept.
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
        lanes = [Lane(shared, worker_idx, stop, note_worker) for worker_idx in range(num_workers)]
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


class _OneAtATime:
    """A policy that several threads share: one call runs at a time, including the completion of a prediction."""

    def __init__(self, policy: Policy) -> None:
        self.spec: PolicySpec = policy.spec
        self._policy = policy
        self._lock = threading.Lock()

    def reset(self, episode_id: str, env: EnvSpec) -> None:
        with self._lock:
            self._policy.reset(episode_id, env)

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        with self._lock:
            replies = self._policy.infer(requests)
        if not isinstance(replies, list):
            return replies  # `run_episode` reports it
        return [self._guarded(reply) if isinstance(reply, PolicyReply) else reply for reply in replies]

    def _guarded(self, reply: PolicyReply) -> PolicyReply:
        complete = reply.prediction
        if complete is None:
            return reply

        def locked() -> Prediction:
            with self._lock:
                return complete()

        return replace(reply, prediction=locked)
