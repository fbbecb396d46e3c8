"""Episodes that a simulator recorded with images, imported as a data set; no simulator runs.

In: files of an `ImportableBench`. Out: a data set; a sentence for each episode that cannot be imported.
Read next: `evalkit/dataset/recorded.py`, what a bench's reader gives; `jobs.py`, which renders again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from evalkit.contracts.bound import BoundBench
from evalkit.contracts.errors import BadConfig
from evalkit.contracts.plugins import resolve
from evalkit.contracts.recording import ImportableBench
from evalkit.contracts.text import count_of
from evalkit.dataset.about import EpisodeAbout
from evalkit.dataset.recorded import EpisodeReader, RecordedEpisode, RecordedFile, UnusableEpisode
from evalkit.dataset.writer import read_about, write_episode, write_metadata
from evalkit.record.pool import explained, run_jobs
from evalkit.record.refusals import EPISODES_PER_TASK
from evalkit.replay.job import OTHER_NUMBERS, EpisodeJob, describe_changes

EPISODES_PER_SETTING = 10_000
"""Episode numbers that each setting of a task has to itself in a data set."""

WITHOUT_DEPTH = {"depth": "left out"}
"""What an episode says about itself that was imported without depth."""


@dataclass(frozen=True, kw_only=True)
class ImportJob(EpisodeJob):
    """One episode to be imported.

    Attributes:
        file: The episode's file.
        with_depth: Whether depth is needed.
    """

    file: RecordedFile
    with_depth: bool


class ImportResult(NamedTuple):
    """Why an episode was not imported, None if it was; and what a reader should know about it."""

    reason: str | None
    warnings: tuple[str, ...] = ()


class ImportPlan(NamedTuple):
    """What is to be imported.

    Attributes:
        jobs: Episodes that the data set lacks.
        unusable: Files that cannot be imported, and why.
    """

    jobs: list[ImportJob]
    unusable: list[tuple[Path, str]]


@dataclass(frozen=True, kw_only=True)
class Imported:
    """The result of an import.

    Attributes:
        written: Episodes that were written.
        unusable: Files that were not imported, and why.
        warnings: Files by what a reader should know about them.
        lengths: Frames of every episode of the data set, by key.
    """

    written: int
    unusable: list[tuple[Path, str]]
    warnings: dict[str, list[Path]]
    lengths: dict[str, int]

    def describe_warnings(self) -> Iterator[str]:
        """Yield a sentence for each kind of warning, with the number of its episodes and the first file."""
        for sentence, paths in self.warnings.items():
            more = f" ({count_of(len(paths), 'episode')})" if len(paths) > 1 else ""
            yield f"{paths[0]}{more}: {sentence}."


def plan_import(
    root: Path,
    paths: Sequence[Path],
    bench: BoundBench,
    *,
    task: str | None = None,
    setting: str | None = None,
    first_number: int = 0,
    with_depth: bool = True,
) -> ImportPlan:
    """Return the episodes that a data set lacks.

    Args:
        root: The data set.
        paths: Files and folders of one bench.
        bench: The bench.
        task: Task of the files; None for the one that each file's folder names.
        setting: Setting of the files; None for the one that each file's folder names.
        first_number: Added to the numbers of episodes.
        with_depth: Whether episodes without depth are refused; otherwise depth is left out of all.

    Raises:
        BadConfig: If there is no file, a task or setting does not exist, two files would be the same episode, or
            another episode is there under a file's number.
    """
    for name, value, known in (("--task", task, bench.tasks), ("--setting", setting, bench.settings)):
        if value is not None and value not in known:
            raise BadConfig(f"{name} {value}: '{bench.name}' has {', '.join(known)}.")
    reader = reader_of(bench)
    planned: dict[int, ImportJob] = {}
    for file in (file for path in paths for file in reader.find(path, task=task, setting=setting)):
        number = _number(bench, file, first_number)
        if number in planned and planned[number].file.path.resolve() != file.path.resolve():
            raise BadConfig(
                f"{file.path} and {planned[number].file.path} would be the same episode; import them one after the "
                "other, the second with --first-number."
            )
        planned[number] = ImportJob(root=root, bench=bench, file=file, number=number, with_depth=with_depth)
    jobs, unusable = [], []
    for job in planned.values():
        try:
            if not _is_written(job, reader):
                reader.check(job.file, with_depth=with_depth)
                jobs.append(job)
        except UnusableEpisode as error:
            unusable.append((job.file.path, str(error)))
    return ImportPlan(jobs, unusable)


def reader_of(bench: BoundBench) -> EpisodeReader:
    """Return the reader of a bench's files."""
    assert isinstance(bench.plugin, ImportableBench), "the caller has checked it"
    reader: EpisodeReader = resolve(bench.plugin.episode_reader)()
    return reader


def run_import(
    root: Path,
    jobs: Sequence[ImportJob],
    *,
    workers: int = 1,
    on_job: Callable[[ImportJob, ImportResult], None] | None = None,
) -> Imported:
    """Import episodes, several at a time, and list the data set's episodes.

    Args:
        root: The data set.
        jobs: What to import.
        workers: Number of episodes at a time.
        on_job: Called after each episode.

    Raises:
        EvalkitError: If an episode cannot be written, or a process was killed. Whole episodes are kept and listed.
    """
    written, unusable = 0, []
    warnings: dict[str, list[Path]] = {}
    with explained(root):
        try:
            for job, result in run_jobs(import_job, jobs, workers=workers):
                written += result.reason is None
                if result.reason is not None:
                    unusable.append((job.file.path, result.reason))
                for sentence in result.warnings:
                    warnings.setdefault(sentence, []).append(job.file.path)
                if on_job is not None:
                    on_job(job, result)
        finally:
            lengths = write_metadata(root)
    return Imported(written=written, unusable=unusable, warnings=warnings, lengths=lengths)


def import_job(job: ImportJob) -> ImportResult:
    """Import one episode.

    Raises:
        OSError: If it cannot be written, for example on a full disk.
    """
    reader = reader_of(job.bench)
    try:
        about = _about(job, reader.fingerprint(job.file))
        episode = reader.read(job.file, with_depth=job.with_depth)
        write_episode(
            job.root,
            job.number,
            episode.steps,
            episode.recording,
            instructions=episode.instructions,
            about=_completed(about, episode),
        )
    except ValueError as error:  # UnusableEpisode, or what the writer refuses
        return ImportResult(str(error).rstrip("."))
    return ImportResult(None, episode.warnings)


def _about(job: ImportJob, sha256: str) -> EpisodeAbout:
    """Return what an episode says about itself before its file is read."""
    return EpisodeAbout(
        bench=job.bench.address,
        task=job.file.task,
        setting=job.file.setting,
        settings=job.bench.given_settings,
        imported_from=job.file.path.name,
        demonstration=job.file.path.stem,
        demonstration_sha256=sha256,
        other={} if job.with_depth else WITHOUT_DEPTH,
    )


def _completed(about: EpisodeAbout, episode: RecordedEpisode) -> EpisodeAbout:
    """Return what an episode says about itself, with what only its file says."""
    return replace(about, seed=episode.seed, other={**episode.about, **about.other})


def _number(bench: BoundBench, file: RecordedFile, first_number: int) -> int:
    if not 0 <= file.number + first_number < EPISODES_PER_SETTING:
        raise BadConfig(
            f"{file.path} would be episode {file.number + first_number} of its task and setting; numbers go from 0 to "
            f"{EPISODES_PER_SETTING - 1}."
        )
    task, setting = sorted(bench.tasks).index(file.task), list(bench.settings).index(file.setting)
    return task * EPISODES_PER_TASK + setting * EPISODES_PER_SETTING + file.number + first_number


def _is_written(job: ImportJob, reader: EpisodeReader) -> bool:
    """Return whether an episode is in the data set; one with a broken JSON is not.

    Raises:
        BadConfig: If another episode is there under its number.
        UnusableEpisode: If its file cannot be read.
    """
    if (stored := read_about(job.path)) is None:
        return False
    now = _about(job, reader.fingerprint(job.file))
    differing = _differing(stored, now)
    if not differing:
        return True
    raise BadConfig(
        f"{job.path} holds another episode than {job.file.path}: {describe_changes(differing)}. Import {OTHER_NUMBERS}"
    )


def _differing(stored: EpisodeAbout, now: EpisodeAbout) -> dict[str, tuple[Any, Any]]:
    """Return the fields that decide an episode and differ; what its file adds to them follows from its hash."""
    compared = ("bench", "task", "setting", "demonstration", "demonstration_sha256", *WITHOUT_DEPTH)
    differing = stored.differences(now)
    return {name: differing[name] for name in compared if name in differing}
