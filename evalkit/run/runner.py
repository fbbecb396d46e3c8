"""The runner: runs the episodes of a plan that have no record yet.

In: a run folder, a bench, a policy, settings. Out: `episodes.jsonl`, clips and videos.
Read next: `executors/`, what carries the episodes; `lane.py`, one lane of a run; `episode.py`, the loop of one episode.

Each lane owns one env process; all lanes share the policy through its host. An episode's actions depend on the
episode only, so neither the number of workers nor a restart changes them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.contracts.types import Episode
from evalkit.run.choice import WHOLE, Shard, longest_first
from evalkit.run.equal_errors import EqualErrors, stopped_early
from evalkit.run.executors import Ended
from evalkit.run.executors.choice import MakeExecutor
from evalkit.run.executors.threads import Threads
from evalkit.run.lane import Job, OnRecord
from evalkit.run.settings import RunSettings
from evalkit.store.about import begin_session, end_session
from evalkit.store.run_folder import RunFolder

if TYPE_CHECKING:
    from evalkit.run.rollouts import Rollouts


def missing_episodes(folder: RunFolder, shard: Shard = WHOLE) -> list[Episode]:
    """Return the planned episodes of a shard without a record, in the plan's order."""
    done = {record.key for record in folder.records()}
    return [episode for episode in shard.of(folder.plan.episodes) if episode.key not in done]


def run_session(job: Job, on_record: OnRecord, make_executor: MakeExecutor = Threads, **facts: Any) -> None:
    """Run what is missing and note the session in `run.json`; errors are those of `run_missing`.

    Args:
        job: As for `run_missing`.
        on_record: As for `run_missing`.
        make_executor: As for `run_missing`.
        facts: Facts about the session for `run.json`, JSON values.
    """
    _check_rollouts(job)
    begin_session(job.folder, job.settings, shard=None if job.shard == WHOLE else str(job.shard), **facts)
    run_missing(job, on_record, make_executor)
    end_session(job.folder, worker_memory=job.memory.to_json(job.settings.worker_memory_bytes))


def write_rollouts(folder: RunFolder, settings: RunSettings) -> Rollouts | None:
    """Write the data set of `run.rollouts` and return what it holds; None where it is not asked for.

    Raises:
        DataSetError: As `export_rollouts`.
    """
    if settings.rollouts is None:
        return None
    from evalkit.run.rollouts import export_rollouts

    return export_rollouts(folder, Path(settings.rollouts))


def _check_rollouts(job: Job) -> None:
    """Raise EvalkitError if rollouts are asked for and the bench cannot be recorded, before anything runs."""
    if job.settings.rollouts is not None:
        from evalkit.run.rollouts import recording_for

        for task in job.folder.plan.tasks:
            recording_for(job.bench, job.folder.plan.env_spec(task))


def run_missing(job: Job, on_record: OnRecord, make_executor: MakeExecutor = Threads) -> None:
    """Run every planned episode of the shard that has no record yet, those that are expected to take longest first.

    Args:
        job: The run folder, bench, policy and settings.
        on_record: Called after each record is on the disk, one call at a time.
        make_executor: Makes what carries the episodes.

    Raises:
        StoppedEarly: If `run.stop_after_equal_errors` episodes in a row ended in the same error; records are kept, and
            episodes that other workers have begun are not recorded.
        EvalkitError: If the run cannot continue (no space, an env that cannot be built); records are kept.
    """
    episodes = longest_first(missing_episodes(job.folder, job.shard), job.folder.records())
    if episodes:
        keeper = _Keeper(job, on_record)
        make_executor(job, keeper.note_worker).run(episodes, keeper.on_end)


class _Keeper:
    """Keeps what an executor reports: records in the order in which they come, each on the disk before the next."""

    def __init__(self, job: Job, on_record: OnRecord) -> None:
        self._folder, self._shard, self._on_record = job.folder, job.shard, on_record
        self._limit = job.settings.stop_after_equal_errors
        self._equal_errors = EqualErrors(self._limit)
        self._lock = threading.Lock()
        self._stopped = False

    def on_end(self, ended: Ended) -> None:
        """Keep a record.

        Raises:
            StoppedEarly: If it is the last of too many equal errors; later records are not kept.
            RunFolderError: If it cannot be written.
        """
        with self._lock:
            if self._stopped:
                return
            self._folder.append(ended.record)
            self._on_record(ended.record)
            if not self._equal_errors.reached(ended.record, ended.fault) or ended.fault is None:
                return
            if num_missing := len(missing_episodes(self._folder, self._shard)):
                self._stopped = True
                raise stopped_early(ended.fault, self._folder.path, num_equal=self._limit, num_missing=num_missing)

    def note_worker(self, env_id: str, about: Mapping[str, str]) -> None:
        """Note what an env process reports about itself."""
        with self._lock:
            self._folder.note_worker(env_id, about)
