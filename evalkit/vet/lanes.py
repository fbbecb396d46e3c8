"""Threads that let experts try seeds, each with one env process.

In: the searches of several tasks. Out: vettings, in whatever order they end; each search with its final state.
Read next: `search.py`, which chooses seeds; `evalkit/contracts/worker/client.py`, the env process.

A worker that dies or hangs, and an env that raises an error, are no verdicts: the seed is tried again in a fresh
process, and after some attempts its task ends as `not vetted`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from evalkit.contracts.bound import BoundBench
from evalkit.contracts.errors import EnvRaised, EpisodeFault, EvalkitError, RunFolderError
from evalkit.contracts.manifest import Vetting
from evalkit.contracts.worker.client import EnvWorker, Timeouts
from evalkit.contracts.worker.memory import MemoryWatch, ProcessMemory
from evalkit.contracts.worker.slot import WorkerSlot
from evalkit.run.settings import RunSettings
from evalkit.vet.search import Search, State

SEEDS_PER_WORKER = RunSettings.episodes_per_worker
"""Seeds after which an env process is replaced, to limit memory leaks; as many as episodes in a run."""

MAX_ATTEMPTS = RunSettings.max_attempts
"""Attempts of a seed that fails for a technical reason; as many as of an episode in a run."""

START_S = 600.0
"""Time limit for an env process to build its env: with all workers, the first images can take minutes."""


@dataclass(frozen=True, kw_only=True)
class Experts:
    """Where experts run.

    Attributes:
        bench: A bench whose envs can vet.
        setting: Setting of the scenes.
        workers: Env processes in parallel.
        timeout_s: Time limit to vet one seed.
        logs: Folder for the output of the env processes; None for none.
    """

    bench: BoundBench
    setting: str
    workers: int = 1
    timeout_s: float = 600.0
    logs: Path | None = None


class Listener(Protocol):
    """Follows the searches; one call at a time, from several threads. A RunFolderError of any call ends all tasks."""

    def on_worker(self, search: Search, about: Mapping[str, str]) -> None:
        """Take note of a worker that has started for a task, before its first seed.

        Raises:
            EvalkitError: If its vettings cannot be used; the task is then not vetted.
        """
        ...

    def on_vetting(self, search: Search, vetting: Vetting) -> None:
        """Take note of a verdict, which is in `search.known`."""
        ...

    def on_retry(self, search: Search, sentence: str) -> None:
        """Take note of a seed that is tried again after a technical failure."""
        ...

    def on_end(self, search: Search) -> None:
        """Take note of a task that has its final state."""
        ...


class Work(NamedTuple):
    """What a thread does next: vet a seed of a task, or only start a worker for it."""

    search: Search
    seed: int | None


def run_searches(searches: Sequence[Search], experts: Experts, listener: Listener) -> None:
    """Let experts try seeds until each search has its final state.

    Raises:
        EvalkitError: If the listener cannot write; vettings so far are kept.
        KeyboardInterrupt: If the user stops it; the env processes are ended.
    """
    board = _Board(searches, listener)
    memory, limit = MemoryWatch(), RunSettings(workers=experts.workers).worker_memory_bytes
    lanes = [_Lane(experts, board, index, ProcessMemory(memory, limit)) for index in range(experts.workers)]
    with ThreadPoolExecutor(experts.workers) as pool:
        pending = {pool.submit(lane.run) for lane in lanes}
        try:
            while pending:  # a short timeout keeps Ctrl-C alive
                done, pending = wait(pending, timeout=0.5, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
        except BaseException:
            board.stop()
            for lane in lanes:
                lane.interrupt()
            raise


class _Board:
    """The searches, shared by all threads."""

    def __init__(self, searches: Sequence[Search], listener: Listener) -> None:
        self._searches, self._listener = searches, listener
        self._changed = threading.Condition()
        self._stopped = False

    def take(self, present: Search | None) -> Work | None:
        """Return what to do next, or None if nothing is left; wait while that is not known.

        Args:
            present: The task of the thread's env process, which is preferred, because another task needs a new one.
        """
        with self._changed:
            while not self._stopped and any(search.state == "open" for search in self._searches):
                work = self._choose(present)
                if work is not None:
                    if work.seed is None:
                        work.search.starting = True
                    else:
                        work.search.running.add(work.seed)
                    return work
                self._changed.wait()
            return None

    def _choose(self, present: Search | None) -> Work | None:
        """Return the best work that there is now: what is needed for certain comes first."""
        if present is not None and (seed := present.next_seed(certain=True)) is not None:
            return Work(present, seed)
        for search in self._searches:
            if search.about is None and not search.starting and search.state == "open":
                return Work(search, None)
        started = [search for search in self._searches if search.about is not None]
        started.sort(key=lambda search: search is not present)
        for certain in (True, False):
            for search in started:
                if (seed := search.next_seed(certain=certain)) is not None:
                    return Work(search, seed)
        return None

    def started(self, search: Search, about: Mapping[str, str]) -> None:
        """Take note of a worker that has started for a task."""
        with self._update(search):
            if search.about is None or search.about != about:
                self._listener.on_worker(search, about)
                search.about = dict(about)

    def vetted(self, search: Search, vetting: Vetting) -> None:
        """Take note of a verdict."""
        with self._update(search):
            search.running.discard(vetting.seed)
            search.known[vetting.seed] = vetting
            self._listener.on_vetting(search, vetting)

    def failed(self, work: Work, reason: str) -> None:
        """Take note of a technical failure; the seed is tried again, or its task ends."""
        search, seed = work
        with self._update(search):
            self._free(work)
            search.attempts[seed] += 1
            where = "" if seed is None else f"seed {seed}: "
            if search.state != "open":
                return
            if search.attempts[seed] >= MAX_ATTEMPTS:
                search.end("not vetted", f"{where}{reason.rstrip('.')} ({MAX_ATTEMPTS} attempts)")
            else:
                attempt = f"attempt {search.attempts[seed] + 1} of {MAX_ATTEMPTS}"
                self._listener.on_retry(search, f"{search.task} starts again, {attempt}: {where}{reason}")

    def ended(self, work: Work, state: State, reason: str) -> None:
        """End a task for a reason that trying again does not change."""
        with self._update(work.search):
            self._free(work)
            if work.search.state == "open":
                work.search.end(state, reason)

    def stop(self) -> None:
        """Let all threads end."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    @property
    def stopped(self) -> bool:
        """Return whether the threads are to end."""
        return self._stopped

    @staticmethod
    def _free(work: Work) -> None:
        if work.seed is None:
            work.search.starting = False
        else:
            work.search.running.discard(work.seed)

    def _update(self, search: Search) -> _Update:
        return _Update(self._changed, search, self._listener)


class _Update:
    """A change of a search under the board's lock; the listener hears if the task has ended by it."""

    def __init__(self, changed: threading.Condition, search: Search, listener: Listener) -> None:
        self._changed, self._search, self._listener = changed, search, listener

    def __enter__(self) -> None:
        self._changed.acquire()
        self._was_open = self._search.state == "open"

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._search.settle()
                if self._was_open and self._search.state != "open":
                    self._listener.on_end(self._search)
        finally:
            self._changed.notify_all()
            self._changed.release()


class _Lane:
    """One thread; it owns at most one env process."""

    def __init__(self, experts: Experts, board: _Board, index: int, memory: ProcessMemory) -> None:
        self._experts, self._board, self._index = experts, board, index
        self._slot: WorkerSlot[Search] = WorkerSlot(memory, max_uses=SEEDS_PER_WORKER)

    def run(self) -> None:
        """Do what the board asks until nothing is left."""
        try:
            while (work := self._board.take(self._slot.task)) is not None:
                self._do(work)
        except BaseException:
            if not self._board.stopped:
                self._board.stop()
                raise
        finally:
            self._slot.drop()

    def interrupt(self) -> None:
        """Kill the env process from another thread, so that this thread stops waiting for it."""
        self._slot.kill()

    def _do(self, work: Work) -> None:
        """Vet one seed, or start a worker, and note on the board how it ended."""
        try:
            worker = self._worker_for(work.search)
            if work.seed is None:
                self._board.started(work.search, worker.about)
            else:
                vetting = worker.vet(work.seed, work.search.sentences(work.seed))
                self._board.vetted(work.search, _read(vetting, work.seed))
                self._slot.used()
        except EnvRaised as raised:
            self._slot.drop()
            if raised.misses_assets:
                self._board.ended(work, "skipped", raised.said)
            else:
                self._board.failed(work, raised.reason)
        except EpisodeFault as fault:
            self._slot.drop()
            if not self._board.stopped:
                self._board.failed(work, fault.reason)
        except RunFolderError:
            raise
        except EvalkitError as error:
            self._slot.drop()
            self._board.ended(work, "not vetted", str(error))

    def _worker_for(self, search: Search) -> EnvWorker:
        """Return an env process for a task: the present one, or a new one, which the board has taken note of."""
        worker, is_new = self._slot.take(search, lambda: self._launch(search.task))
        if is_new:
            if self._board.stopped:  # `interrupt` came before there was a process
                raise EpisodeFault("harness", "the vetting was stopped")
            worker.build()
            if search.about is not None:
                self._board.started(search, worker.about)
        return worker

    def _launch(self, task: str) -> EnvWorker:
        bench, setting, logs = self._experts.bench, self._experts.setting, self._experts.logs
        return EnvWorker(
            bench.launch(task=task, setting=setting),
            bench.env_spec(task=task, setting=setting),
            timeouts=Timeouts(start_s=START_S, vet_s=self._experts.timeout_s),
            log_path=None if logs is None else logs / f"vet-{self._index}.log",
        )


def _read(values: Mapping[str, Any], seed: int) -> Vetting:
    """Return the vetting that an env sent.

    Raises:
        EvalkitError: If it is none, or of another seed.
    """
    try:
        vetting = Vetting.from_json(values)
    except ValueError as error:
        raise EvalkitError(f"The env sent no vetting for seed {seed}: {error}.") from error
    if vetting.seed != seed:
        raise EvalkitError(f"The env sent the vetting of seed {vetting.seed} for seed {seed}.")
    return vetting
