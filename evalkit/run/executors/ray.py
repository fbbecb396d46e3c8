"""Lanes and policies as Ray actors: a run on several machines.

In: a job, policies in actors, episodes. Out: records, as the episodes end; clips and videos in the run folder.
Read next: `ray_lane.py` and `ray_policy.py`, the actors; `__init__.py`, the seam; docs/ray.md.

An episode whose lane is lost starts again in another lane. Records and files come from finished episodes alone, so each
planned episode is recorded once, as in a run on one machine.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

try:
    import ray
    from ray.exceptions import RayError
except ImportError as error:
    from evalkit.contracts.errors import BadConfig

    raise BadConfig(
        "--execution ray needs Ray on every machine; run `pip install -c constraints.txt -e '.[ray]'`."
    ) from error

from evalkit.contracts.errors import BadConfig, EpisodeFault, EvalkitError
from evalkit.contracts.types import Episode
from evalkit.run.executors import Ended, NoteWorker, OnEnd
from evalkit.run.executors.ray_lane import LaneActor, LaneResult
from evalkit.run.executors.ray_policy import LOST, RayPolicy
from evalkit.run.lane import Job, Lane
from evalkit.store.files import write_whole

POLL_S = 0.5
"""Seconds after which Ctrl-C and lost nodes are noticed at the latest."""

CONNECT_S = 10.0

NO_PLACE_S = 120.0
"""Seconds without any lane on a node after which a run gives up."""


@contextmanager
def ray_cluster(address: str | None) -> Iterator[str]:
    """Connect to a Ray cluster and yield a sentence about it; the connection ends with the block.

    Args:
        address: `host:port` of its head, `auto` for the cluster of this machine; None for `RAY_ADDRESS`, or else a
            cluster of this machine alone, which ends with the block.

    Raises:
        BadConfig: If there is no such cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        _check_answers(address or os.environ.get("RAY_ADDRESS"))
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        raise BadConfig(
            f"No Ray cluster at run.ray_address={address}: {str(error).splitlines()[0].rstrip('.')}. Start one with "
            "`ray start --head`, or leave run.ray_address out to use this machine alone."
        ) from error
    try:
        resources = ray.cluster_resources()
        num_nodes = sum(node["Alive"] for node in ray.nodes())
        cpus, gpus = (int(resources.get(name, 0)) for name in ("CPU", "GPU"))
        yield f"{num_nodes} nodes, {cpus} CPUs, {gpus} GPUs" if num_nodes > 1 else f"1 node, {cpus} CPUs, {gpus} GPUs"
    finally:
        ray.shutdown()


def _check_answers(address: str | None) -> None:
    """Raise OSError if nothing answers at `host:port`; Ray itself would try for minutes."""
    host, colon, port = (address or "").rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()


@dataclass(eq=False)
class _Lane:
    """One lane: its actor, the episode it runs, and the reference of its result."""

    actor: Any
    episode: Episode
    result: Any


class Ray:
    """Runs `run.workers` lanes in actors; each reserves one CPU of its node.

    Args:
        job: What all lanes share.
        note_worker: Called with `env_id` and self-description of each env process that has built its env.
        policies: The policies in actors; lanes are spread over them.
    """

    def __init__(self, job: Job, note_worker: NoteWorker, *, policies: Sequence[RayPolicy]) -> None:
        self._job, self._note_worker, self._policies = job, note_worker, policies
        self._waiting: deque[Episode] = deque()
        self._lanes: list[_Lane] = []
        self._num_started = 0
        self._deaths: Counter[str] = Counter()

    def run(self, episodes: Sequence[Episode], on_end: OnEnd) -> None:
        """Run every episode once, as `Executor.run`."""
        self._waiting.extend(episodes)
        try:
            for _ in range(min(self._job.settings.workers, len(episodes))):
                self._start(self._actor(), self._waiting.popleft())
            self._run(on_end)
        finally:
            for lane in self._lanes:
                self._end(lane.actor)

    def _run(self, on_end: OnEnd) -> None:
        last_progress_s = time.monotonic()
        while self._lanes:
            done, _ = ray.wait([lane.result for lane in self._lanes], timeout=POLL_S)
            if done or ray.cluster_resources().get("CPU", 0) >= 1:
                last_progress_s = time.monotonic()
            elif time.monotonic() - last_progress_s > NO_PLACE_S:
                raise EvalkitError(f"The Ray cluster has had no CPU for {NO_PLACE_S:g} s; run the same command again.")
            for lane in [lane for lane in self._lanes if lane.result in done]:
                self._lanes.remove(lane)
                self._finish(lane, on_end)

    def _finish(self, lane: _Lane, on_end: OnEnd) -> None:
        """Keep what a lane gives, and give it or its successor the next episode."""
        actor, episode = lane.actor, lane.episode
        try:
            result: LaneResult = ray.get(lane.result)
        except LOST as error:
            actor = self._actor()
            fault = self._death(episode, error)
            if fault is None:
                self._waiting.appendleft(episode)
            else:
                on_end(Lane(self._job, 0, threading.Event(), lambda _: None).ended_in(episode, fault))
        else:
            try:
                self._keep(result)
                if result.record is None:
                    raise EvalkitError(result.fatal)
                on_end(Ended(result.record, result.fault))
            except BaseException:
                self._end(actor)
                raise
        if self._waiting:
            self._start(actor, self._waiting.popleft())
        else:
            self._end(actor)

    def _death(self, episode: Episode, error: RayError) -> EpisodeFault | None:
        """Return the fault of an episode whose lanes keep dying; None if another lane may try it."""
        self._deaths[episode.key] += 1
        number, most = self._deaths[episode.key], self._job.settings.max_attempts
        reason = str(error).strip().splitlines()[0].rstrip(".")
        if number > most:
            return EpisodeFault("harness", f"{number} Ray actors died while they ran this episode; the last: {reason}.")
        self._job.on_retry(f"{episode.key} starts again in another lane: {reason}")
        return None

    def _keep(self, result: LaneResult) -> None:
        """Write the files of an episode into the run folder."""
        folder = self._job.folder.path
        for name, data in result.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
        for name, data in result.logs.items():
            path = folder / name
            with suppress(OSError):  # a log never costs a result
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("ab") as log:
                    log.write(data)
        for env_id, about in result.workers:
            self._note_worker(env_id, about)
        for sentence in result.retries:
            self._job.on_retry(sentence)
        self._job.memory.peak_bytes = max(self._job.memory.peak_bytes, result.peak_bytes)

    def _actor(self) -> Any:
        """Start a lane on a node with a free CPU."""
        number, job = self._num_started, self._job
        self._num_started += 1
        lane_idx = number % job.settings.workers
        return (
            ray.remote(LaneActor)
            .options(num_cpus=1, scheduling_strategy="SPREAD")
            .remote(
                job.folder.plan.to_bytes(),
                job.bench,
                self._policies[lane_idx % len(self._policies)],
                job.settings,
                job.shard,
                lane_idx,
            )
        )

    def _start(self, actor: Any, episode: Episode) -> None:
        self._lanes.append(_Lane(actor, episode, actor.end_of.remote(episode)))

    def _end(self, actor: Any) -> None:
        """End a lane with its env process; one that is busy or lost is killed."""
        with suppress(Exception):
            ray.get(actor.close.remote(), timeout=POLL_S)
        with suppress(Exception):
            ray.kill(actor)
