"""One lane of a run in a Ray actor, on whatever node has a free core.

In: a plan, a bench, a policy, episodes. Out: for each episode its record, its fault and its files as bytes.
Read next: `ray.py`, which keeps them; `evalkit/run/lane.py`, the lane.

Nodes need not share a file system: a lane writes to a temporary folder of its node, and what it wrote travels with the
record.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from evalkit.contracts.bound import BoundBench
from evalkit.contracts.errors import EpisodeFault, EvalkitError
from evalkit.contracts.types import Episode
from evalkit.contracts.worker.client import EnvWorker
from evalkit.run.choice import Shard
from evalkit.run.executors.ray_policy import RayPolicy
from evalkit.run.lane import Job, Lane
from evalkit.run.settings import RunSettings
from evalkit.store.plan import Plan
from evalkit.store.records import EpisodeRecord
from evalkit.store.run_folder import RunFolder

LOGS = "logs"


@dataclass(frozen=True, kw_only=True)
class LaneResult:
    """What a lane did with one episode.

    Attributes:
        record: Its record; None if the run cannot go on.
        fault: Its fault, for `error` and `skipped`.
        fatal: Why the run cannot go on.
        files: What the episode wrote, by path in the run folder.
        logs: What was appended to logs, by path in the run folder.
        workers: `env_id` and self-description of each env process that was started.
        retries: Why attempts were repeated.
        peak_bytes: Largest env process so far.
    """

    record: EpisodeRecord | None
    fault: EpisodeFault | None
    fatal: str | None
    files: Mapping[str, bytes]
    logs: Mapping[str, bytes]
    workers: list[tuple[str, dict[str, str]]]
    retries: list[str]
    peak_bytes: int


class LaneActor:
    """A lane on its node; `ray.remote` makes it an actor."""

    def __init__(
        self, plan: bytes, bench: BoundBench, policy: RayPolicy, settings: RunSettings, shard: Shard, lane_idx: int
    ) -> None:
        self._path = Path(tempfile.mkdtemp(prefix="evalkit-lane-"))
        self._retries: list[str] = []
        self._workers: list[tuple[str, dict[str, str]]] = []
        self._job = Job(
            folder=RunFolder(path=self._path, plan=Plan.from_bytes(plan, where="the run's plan")),
            bench=bench,
            policy=policy,
            settings=settings,
            shard=shard,
            on_retry=self._retries.append,
        )
        self._lane = Lane(self._job, lane_idx, threading.Event(), self._note_worker)

    def _note_worker(self, worker: EnvWorker) -> None:
        self._workers.append((worker.env_spec.env_id, dict(worker.about)))

    def end_of(self, episode: Episode) -> LaneResult:
        """Run an episode to its end."""
        record, fault, fatal = None, None, None
        try:
            record, fault = self._lane.end_of(episode)
        except EvalkitError as error:
            fatal = str(error)
        written: dict[str, bytes] = {}
        try:
            written = dict(self._taken())
        except OSError as error:
            record, fault, fatal = None, None, f"A lane cannot read what it wrote in {self._path}: {error}."
        result = LaneResult(
            record=record,
            fault=fault,
            fatal=fatal,
            files={path: data for path, data in written.items() if not path.startswith(f"{LOGS}/")},
            logs={path: data for path, data in written.items() if path.startswith(f"{LOGS}/")},
            workers=list(self._workers),
            retries=list(self._retries),
            peak_bytes=self._job.memory.peak_bytes,
        )
        self._workers.clear()
        self._retries.clear()
        return result

    def _taken(self) -> Iterator[tuple[str, bytes]]:
        """Yield all files of the lane's folder; a log is emptied and stays open, any other file is removed."""
        for path in sorted(each for each in self._path.rglob("*") if each.is_file()):
            name = str(path.relative_to(self._path))
            yield name, path.read_bytes()
            if name.startswith(f"{LOGS}/"):
                with path.open("r+b") as log:
                    log.truncate()
            else:
                path.unlink()

    def close(self) -> None:
        """End the env process and remove the folder."""
        self._lane.close()
        shutil.rmtree(self._path, ignore_errors=True)
