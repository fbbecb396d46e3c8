"""Jobs in processes of their own, several at a time.

In: jobs, and a function that does one. Out: each job with its result, as they end.
Read next: `workers.py` and `evalkit/replay/jobs.py`, which use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from evalkit.contracts.errors import EvalkitError

J = TypeVar("J")
R = TypeVar("R")


def run_jobs(
    work: Callable[[J], R], jobs: Iterable[J], *, workers: int, jobs_per_process: int | None = None
) -> Iterator[tuple[J, R]]:
    """Yield each job with its result.

    A job is handed out when a process is free for it. If an error ends the work, running jobs are completed and no
    other job begins.

    Args:
        work: Does one job; it, its jobs and its results must be picklable.
        jobs: The jobs.
        workers: Number of processes.
        jobs_per_process: Jobs after which a fresh process takes over; None to keep it.

    Raises:
        BrokenProcessPool: If a process was killed.
        Exception: Whatever `work` raises.
    """
    waiting = iter(jobs)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), max_tasks_per_child=jobs_per_process) as pool:
        running = {pool.submit(work, job): job for job in islice(waiting, workers)}
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(future)
                result = future.result()
                running |= {pool.submit(work, following): following for following in islice(waiting, 1)}
                yield job, result


@contextmanager
def explained(root: Path) -> Iterator[None]:
    """Turn what can end work on a data set into a sentence that says what to do.

    Raises:
        EvalkitError: If a file cannot be written, or a process was killed.
    """
    try:
        yield
    except OSError as error:
        raise EvalkitError(
            f"{root}: {error}. Whole episodes are kept; remove the cause and run the same command again."
        ) from error
    except BrokenProcessPool as error:
        raise EvalkitError(
            "A process was killed, perhaps for lack of memory; run the same command again with fewer --workers."
        ) from error
