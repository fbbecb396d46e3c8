"""One chunk of a run as a job for any process.

In: a recorded clip. Out: its chunks as jobs, and the scores of each; an unreadable clip or chunk gives one row.
Read next: `run.py`, which spreads the jobs over cores; `chunk.py`, which scores a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from evalkit.contracts.errors import RunFolderError
from evalkit.contracts.types import Episode
from evalkit.score.chunk import ScoreOptions, score_chunk
from evalkit.score.references import CodecChoice, load_codec
from evalkit.score.results.coverage import clip_row, failure_row
from evalkit.score.results.outcome import Score
from evalkit.score.results.table import ClipScores
from evalkit.score.results.totals import Totals
from evalkit.store.clips import ClipReader


class ForeignClip(RunFolderError):
    """A clip at the path of a planned episode that belongs to another episode or plan."""


@dataclass(frozen=True, kw_only=True)
class ClipJob:
    """One clip to score, with the episode and plan that it must belong to.

    Attributes:
        task: The record's task.
        index: The record's index.
        outcome: The record's outcome.
        path: The clip's file.
        planned: The episode that it must hold.
        plan_sha256: Hash of the plan that it must belong to.
        options: What is scored.
        codec: The policy's codec, or why it is unavailable; None leaves the ceiling out.
    """

    task: str
    index: int
    outcome: str
    path: Path
    planned: Episode
    plan_sha256: str
    options: ScoreOptions
    codec: CodecChoice | str | None = None


@dataclass(frozen=True, kw_only=True)
class ChunkJob:
    """One chunk of a clip; `done` holds the scores if there is nothing left to compute."""

    clip: ClipJob
    chunk_idx: int
    is_last: bool
    done: ClipScores | None = None


def chunk_jobs(clip: ClipJob) -> Iterator[ChunkJob]:
    """Yield one job a chunk; a clip that is missing, broken or foreign gives one job that is already done."""
    try:
        with ClipReader(clip.path) as reader:
            _check_belongs(reader, clip)
            count = len(reader)
    except ForeignClip as error:
        yield _lost(clip, "foreign_clip", str(error))
    except RunFolderError as error:
        yield _lost(clip, "broken_clip" if clip.path.exists() else "missing_clip", str(error))
    else:
        if count == 0:
            yield ChunkJob(clip=clip, chunk_idx=0, is_last=True, done=clip_scores(clip, []))
        for chunk_idx in range(count):
            yield ChunkJob(clip=clip, chunk_idx=chunk_idx, is_last=chunk_idx == count - 1)


def score_job(job: ChunkJob) -> ClipScores:
    """Return the scores of a job."""
    if job.done is not None:
        return job.done
    clip = job.clip
    codec = load_codec(clip.codec) if isinstance(clip.codec, CodecChoice) else clip.codec
    try:
        with ClipReader(clip.path) as reader:
            chunk, env = reader.read(job.chunk_idx), reader.header.env_spec
        totals: Totals = {}
        scores = score_chunk(chunk, env, clip.options, codec=codec, totals=totals)
        return replace(clip_scores(clip, scores), totals=totals)
    except RunFolderError as error:
        return clip_scores(clip, [clip_row("broken_chunk", str(error), chunk_idx=job.chunk_idx)])
    except Exception as error:
        return clip_scores(clip, [failure_row(error, chunk_idx=job.chunk_idx)])


def clip_scores(clip: ClipJob, scores: list[Score]) -> ClipScores:
    """Return scores with the task, index and outcome of their episode."""
    return ClipScores(task=clip.task, index=clip.index, outcome=clip.outcome, scores=scores)


def _lost(clip: ClipJob, status: str, reason: str) -> ChunkJob:
    return ChunkJob(clip=clip, chunk_idx=-1, is_last=True, done=clip_scores(clip, [clip_row(status, reason)]))


def _check_belongs(reader: ClipReader, clip: ClipJob) -> None:
    header = reader.header
    if header.plan_sha256 not in (None, clip.plan_sha256):
        raise ForeignClip(
            f"{clip.path} belongs to another plan: its hash is {str(header.plan_sha256)[:12]}, not "
            f"{clip.plan_sha256[:12]}."
        )
    if header.episode != clip.planned:
        pairs = [(name, value, getattr(clip.planned, name)) for name, value in vars(header.episode).items()]
        wrong = ", ".join(f"{name} is {ours!r}, not {theirs!r}" for name, ours, theirs in pairs if ours != theirs)
        raise ForeignClip(f"{clip.path} belongs to another plan: {wrong}.")
