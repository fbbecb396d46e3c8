"""Several processes of one policy, one per device: an episode stays with one of them.

In: how to start each. Out: a policy per episode, of the process that has the fewest.
Read next: `process.py`, one process; `evalkit/run/lane.py`, which takes a policy for each episode.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import repeat

from evalkit.contracts.policy import Policy
from evalkit.contracts.spec import PolicySpec
from evalkit.serve.process import PolicyLaunch, PolicyProcess, ProcessLimits


class PolicyPool:
    """Processes of one policy. All give the same actions, so it does not matter which one runs an episode.

    Attributes:
        spec: The policy's spec.
        processes: The processes.
    """

    def __init__(self, launches: Sequence[PolicyLaunch], limits: ProcessLimits | None = None) -> None:
        """Start all at once; raises EvalkitError if one cannot load the policy."""
        self._lock = threading.Lock()
        closed = [threading.Event() for _ in launches]
        with ThreadPoolExecutor(len(launches)) as pool:
            futures = [
                pool.submit(PolicyProcess, *each) for each in zip(launches, repeat(limits), closed, strict=False)
            ]
            try:
                self.processes = [future.result() for future in futures]
            except BaseException:  # Ctrl-C too
                for end in closed:
                    end.set()
                for future in futures:
                    if future.exception() is None:
                        future.result().end()
                raise
        self._episodes = [0] * len(launches)
        self.spec: PolicySpec = self.processes[0].spec

    @contextmanager
    def lease(self) -> Iterator[Policy]:
        """Give the process that has the fewest episodes, the first of several, for one episode."""
        with self._lock:
            chosen = self._episodes.index(min(self._episodes))
            self._episodes[chosen] += 1
        try:
            yield self.processes[chosen]
        finally:
            with self._lock:
                self._episodes[chosen] -= 1

    def end(self) -> None:
        """End all processes."""
        for process in self.processes:
            process.end()
