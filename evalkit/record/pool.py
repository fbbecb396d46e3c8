"""Jobs in processes of their own, several at a time, and the sentence for what stops them.

In: jobs, and what does one. Out: each job with its result, as they end.
Read next: `scripted/workers.py` and `replay/jobs.py`, whose jobs those are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from baselines.env_process import EnvProcessError

J = TypeVar("J")
R = TypeVar("R")


def finished(
    work: Callable[[J], R], jobs: Iterable[J], *, workers: int, jobs_per_process: int | None = None
) -> Iterator[tuple[J, R | EnvProcessError]]:
    """Yield each job with what came of it, or with the error of its simulator, which costs that job alone.

    A job is handed on when a process is free for it: whatever stops the work, what was begun is brought to its end, and
    nothing else is begun.

    Args:
        work: Does one job; it and its jobs must be fit to be sent to another process.
        jobs: What is to be done.
        workers: Processes side by side.
        jobs_per_process: Jobs after which a fresh process takes over; None to keep it.

    Raises:
        BrokenProcessPool: If a process was killed.
        Exception: Any other of `work`.
    """
    waiting = iter(jobs)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), max_tasks_per_child=jobs_per_process) as pool:
        running = {pool.submit(work, job): job for job in islice(waiting, workers)}
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                try:
                    result: R | EnvProcessError = future.result()
                except EnvProcessError as error:
                    result = error
                running |= {pool.submit(work, following): following for following in islice(waiting, 1)}
                yield job, result


def why_stopped(error: Exception, root: Path) -> str:
    """Return, as a sentence, what ended work on a data set, and what to do where that is known."""
    if isinstance(error, OSError):
        return f"{root}: {error}. Whole episodes are kept; mend this, and the same command goes on."
    if isinstance(error, BrokenProcessPool):
        return "a process was killed, perhaps for memory; fewer --workers, and the same command again."
    return str(error)
