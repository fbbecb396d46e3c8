"""Scoring of a run: its clips, spread over cores, into one result file.

In: a run folder with records and clips. Out: `scores.parquet` in it, always made anew from what is there.
Read next: `chunk.py` for what is computed; `table.py` for the file.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import cv2

from evalkit.contracts.errors import BadConfig, RunFolderError
from evalkit.contracts.types import Episode
from evalkit.score.chunk import WHOLE_CHUNK, Score, ScoreOptions, score_chunk
from evalkit.score.coverage import CLIP_METRIC, Coverage
from evalkit.score.table import ClipScores, ScoreWriter
from evalkit.store.clips import ClipReader
from evalkit.store.records import EpisodeRecord
from evalkit.store.run_folder import RunFolder, open_run

OnProgress = Callable[[int, int], None]


class ForeignClip(RunFolderError):
    """A clip that lies where a planned episode's should be, and holds another."""


@dataclass(frozen=True, kw_only=True)
class ClipJob:
    """One clip to be scored, as its record names it, with the episode that it must hold."""

    task: str
    index: int
    outcome: str
    path: Path
    planned: Episode
    options: ScoreOptions


def score_run(
    run_dir: Path,
    *,
    workers: int = 0,
    on_progress: OnProgress | None = None,
    options: ScoreOptions | None = None,
) -> Path:
    """Score every clip of a run and return the path of `scores.parquet`.

    A clip that is missing, broken or another episode's gives one row that says so. The file names the plan and the
    records that it was made of (`coverage.Coverage`), so that a report can tell whether they are still those. Memory
    is bounded by `workers` chunks and the rows of a few clips, whatever the size of the run; the same run gives the
    same file.

    Args:
        run_dir: Run folder; scoring again overwrites what was scored before.
        workers: Processes, each on one core; 1 scores in this process, 0 takes every core.
        on_progress: Called with (clips done, clips in all).
        options: What is scored beside the metrics that every chunk gets.

    Raises:
        BadConfig: If `workers` is negative.
        RunFolderError: If there is no such run, or the result cannot be written.
    """
    check_workers(workers)
    run = open_run(run_dir)
    records = run.records()
    jobs = _jobs(run, records, options or ScoreOptions())
    with ScoreWriter(run.scores_path, Coverage.of(run.plan, records)) as writer:
        for num_done, scored in enumerate(_score_all(jobs, workers or num_cores()), start=1):
            writer.write(scored)
            if on_progress is not None:
                on_progress(num_done, len(jobs))
    return run.scores_path


def score_clip(path: Path, options: ScoreOptions | None = None, *, planned: Episode | None = None) -> list[Score]:
    """Return the scores of one clip, a chunk at a time.

    Args:
        path: The clip's file.
        options: What is scored beside the metrics that every chunk gets.
        planned: The episode that it must hold; None takes whatever it holds.

    Raises:
        ForeignClip: If it holds another episode.
        RunFolderError: If the clip is missing or broken.
    """
    with ClipReader(path) as clip:
        if planned is not None and clip.header.episode != planned:
            raise ForeignClip(f"{path} is the clip of another plan: {_difference(clip.header.episode, planned)}.")
        env = clip.header.env_spec
        return [score for chunk in clip for score in score_chunk(chunk, env, options)]


def check_workers(workers: int) -> None:
    """Return quietly if so many processes can be asked for.

    Raises:
        BadConfig: If not.
    """
    if workers < 0:
        raise BadConfig(f"--workers takes a number of processes, or 0 for every core, got {workers}.")


def num_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _jobs(run: RunFolder, records: Sequence[EpisodeRecord], options: ScoreOptions) -> list[ClipJob]:
    planned = {episode.key: episode for episode in run.plan.episodes}
    jobs = [
        ClipJob(
            task=record.task,
            index=record.index,
            outcome=record.outcome,
            path=run.path / record.clip,
            planned=planned[record.key],
            options=options,
        )
        for record in records
        if record.clip is not None
    ]
    return sorted(jobs, key=lambda job: (job.task, job.index))


def _score_all(jobs: Sequence[ClipJob], workers: int) -> Iterator[ClipScores]:
    """Yield the scores of the jobs in order, at most a few ahead of the reader."""
    if workers <= 1 or len(jobs) <= 1:
        yield from _score_here(jobs)
        return
    remaining = deque(jobs)
    while remaining:
        yield from _score_until_broken(remaining, workers)
        if remaining:
            yield _score_alone(remaining.popleft())


def _score_here(jobs: Sequence[ClipJob]) -> Iterator[ClipScores]:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield from map(_score_job, jobs)
    finally:
        cv2.setNumThreads(threads)


def _score_until_broken(remaining: deque[ClipJob], workers: int) -> Iterator[ClipScores]:
    """Take jobs off the left and yield their scores; stop early, the culprit leftmost or near it, if a process dies."""
    with _pool(workers) as pool:
        waiting: deque[Future[ClipScores]] = deque()
        try:
            while remaining:
                while len(waiting) < min(2 * workers, len(remaining)):
                    waiting.append(pool.submit(_score_job, remaining[len(waiting)]))
                scored = waiting.popleft().result()
                remaining.popleft()
                yield scored
        except BrokenProcessPool:
            return


def _score_alone(job: ClipJob) -> ClipScores:
    """Return the scores of one clip from a process of its own; a row that says so if that process dies.

    Where processes cannot start at all (a script without `if __name__ == "__main__"`), this one scores.
    """
    try:
        with _pool(1) as pool:
            pool.submit(_use_one_core).result()
    except BrokenProcessPool:
        return _score_job(job)
    try:
        with _pool(1) as pool:
            return pool.submit(_score_job, job).result()
    except BrokenProcessPool:
        reason = f"the process that scored {job.path} died, perhaps for want of memory"
        return _clip_scores(job, [_clip_row("scoring_failed", reason)])


def _pool(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_use_one_core)


def _score_job(job: ClipJob) -> ClipScores:
    try:
        scores = score_clip(job.path, job.options, planned=job.planned)
    except ForeignClip as error:
        scores = [_clip_row("foreign_clip", str(error))]
    except RunFolderError as error:
        scores = [_clip_row("broken_clip" if job.path.exists() else "missing_clip", str(error))]
    except Exception as error:
        scores = [_clip_row("scoring_failed", f"{type(error).__name__}: {error}")]
    return _clip_scores(job, scores)


def _clip_scores(job: ClipJob, scores: list[Score]) -> ClipScores:
    return ClipScores(task=job.task, index=job.index, outcome=job.outcome, scores=scores)


def _clip_row(status: str, reason: str) -> Score:
    return Score(
        subject="policy",
        chunk_idx=-1,
        frame_idx=WHOLE_CHUNK,
        view="",
        metric=CLIP_METRIC,
        value=None,
        status=status,
        reason=reason,
    )


def _difference(found: Episode, planned: Episode) -> str:
    pairs = [(name, value, getattr(planned, name)) for name, value in vars(found).items()]
    return ", ".join(f"{name} is {ours!r}, not {theirs!r}" for name, ours, theirs in pairs if ours != theirs)


def _use_one_core() -> None:
    """Keep the libraries from starting threads of their own; torch, imported later, reads the variable."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    cv2.setNumThreads(1)
