"""The env process of one thread: at most one, replaced for another task, after many uses, or when it has grown.

In: a task, how to launch its env. Out: an env process.
Read next: `client.py`, the env process; `evalkit/run/lane.py` and `evalkit/vet/lanes.py`, the threads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from evalkit.contracts.worker.client import EnvWorker
from evalkit.contracts.worker.memory import ProcessMemory

Task = TypeVar("Task")


class WorkerSlot(Generic[Task]):
    """Holds at most one env process.

    Args:
        memory: The memory of its processes; one that has grown beyond the limit is ended after its use.
        max_uses: Episodes or seeds after which a process is replaced, to limit memory leaks.
    """

    def __init__(self, memory: ProcessMemory, *, max_uses: int) -> None:
        self._memory, self._max_uses = memory, max_uses
        self._worker: EnvWorker | None = None
        self._task: Task | None = None
        self._uses = 0

    @property
    def task(self) -> Task | None:
        """Return the task of the present process; None without one."""
        return self._task

    def take(self, task: Task, launch: Callable[[], EnvWorker]) -> tuple[EnvWorker, bool]:
        """Return the process for a task, and whether it is new, so that its env must still be built."""
        if self._worker is not None and (self._task != task or self._uses >= self._max_uses):
            self.drop()
        if self._worker is not None:
            return self._worker, False
        self._worker, self._task, self._uses = launch(), task, 0
        return self._worker, True

    def used(self) -> None:
        """Take note that an episode or a seed has ended; end the process if it has grown too large."""
        self._uses += 1
        if self._worker is not None and self._memory.is_too_large(self._worker.pid):
            self.drop()

    def kill(self) -> None:
        """Kill the process from another thread, so that its own thread stops waiting for it."""
        if self._worker is not None:
            self._worker.kill()

    def drop(self) -> None:
        """End the process, if there is one."""
        if self._worker is not None:
            self._worker.close()
            self._memory.end()
        self._worker, self._task = None, None
