"""Lanes on this machine, each in a thread with an env process of its own; one host runs the policy for all of them.

In: a job, episodes. Out: records, as the episodes end.
Read next: `evalkit/run/lane.py`, one lane; `evalkit/serve/local.py`, the host; `__init__.py`, the seam.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace

from evalkit.contracts.policy import Policy
from evalkit.contracts.types import Episode
from evalkit.run.executors import NoteWorker, OnEnd
from evalkit.run.lane import Job, Lane
from evalkit.run.policies import REQUESTS_PER_LANE
from evalkit.serve.client import ServedPolicy
from evalkit.serve.hosted import HostedPolicy
from evalkit.serve.local import PolicyHost
from evalkit.serve.pool import PolicyPool
from evalkit.serve.scheduler import Limits


class Threads:
    """Runs `run.workers` lanes; a lane takes the next episode when it is free.

    Args:
        job: What all lanes share.
        note_worker: Called with `env_id` and self-description of each env process that has built its env.
    """

    def __init__(self, job: Job, note_worker: NoteWorker) -> None:
        self._job = job
        self._note_worker = lambda worker: note_worker(worker.env_spec.env_id, worker.about)

    def run(self, episodes: Sequence[Episode], on_end: OnEnd) -> None:
        """Run every episode once, as `Executor.run`."""
        waiting: queue.SimpleQueue[Episode] = queue.SimpleQueue()
        for episode in episodes:
            waiting.put(episode)
        stop, num_lanes = threading.Event(), min(self._job.settings.workers, len(episodes))
        with self._served() as (policy, end_policy), ThreadPoolExecutor(num_lanes) as pool:
            shared = replace(self._job, policy=policy)
            lanes = [Lane(shared, lane_idx, stop, self._note_worker) for lane_idx in range(num_lanes)]
            futures = [pool.submit(_run_lane, lane, waiting, on_end, stop) for lane in lanes]
            try:
                _wait(futures)
            except BaseException:
                stop.set()
                end_policy()
                for lane in lanes:
                    lane.interrupt()
                raise

    @contextmanager
    def _served(self) -> Iterator[tuple[Policy | PolicyPool, Callable[[], None]]]:
        """Give what the lanes ask, and what frees those that wait for it; a policy in this process gets a host."""
        policy, settings = self._job.policy, self._job.settings
        if isinstance(policy, PolicyPool):
            yield policy, policy.end
            return
        if isinstance(policy, ServedPolicy):  # its server decides what runs together
            yield policy, policy.close
            return
        most = REQUESTS_PER_LANE * settings.workers
        with PolicyHost(policy, Limits(max_jobs=most, max_uncollected=most)) as host:
            yield HostedPolicy(host, settings.policy_timeout_s), host.end


def _run_lane(lane: Lane, waiting: queue.SimpleQueue[Episode], on_end: OnEnd, stop: threading.Event) -> None:
    """Run episodes until none waits or the run stops."""
    try:
        while not stop.is_set():
            try:
                episode = waiting.get_nowait()
            except queue.Empty:
                break
            ended = lane.end_of(episode)
            if not stop.is_set():  # an episode that a stop cut short has not ended
                on_end(ended)
    except BaseException:
        stop.set()
        raise
    finally:
        lane.close()


def _wait(futures: Sequence[Future[None]]) -> None:
    pending = set(futures)
    while pending:  # a short timeout keeps Ctrl-C alive
        done, pending = wait(pending, timeout=0.5, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
