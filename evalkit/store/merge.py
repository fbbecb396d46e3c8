"""Merging runs of one plan: shards that other machines ran, or a run that was continued elsewhere.

In: run folders of equal plans. Out: one run folder with the records of all, their clips, videos and logs.
Read next: `run_folder.py`, what a run folder holds; `evalkit/cli/merge.py`, the verb.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evalkit.contracts.errors import RunFolderError, cannot_write
from evalkit.contracts.files import whole_file
from evalkit.contracts.text import count_of
from evalkit.contracts.types import Episode
from evalkit.store.plan import Plan
from evalkit.store.records import EpisodeRecord
from evalkit.store.run_folder import HeldRun, RunFolder, open_run

SAME = (
    "outcome",
    "seed",
    "steps",
    "num_chunks",
    "actions_sha256",
    "first_state_sha256",
    "first_frame_sha256",
    "reason",
)
"""Fields in which two records of one episode must agree; times, attempts and files may differ."""


@dataclass(frozen=True, kw_only=True)
class Merged:
    """What a merge gave.

    Attributes:
        num_added: Records that the merged run did not hold before.
        num_equal: Records that several runs held, equal.
        missing: Planned episodes that no run has recorded.
    """

    num_added: int
    num_equal: int
    missing: list[Episode]


def merge(out: Path, runs: Sequence[Path]) -> Merged:
    """Merge runs into a folder, new or one that an earlier merge or run of the same plan filled.

    A clip or video is copied before its record is appended, so a merge that was stopped goes on where it stopped.

    Args:
        out: The merged run.
        runs: Run folders, at least one.

    Raises:
        RunFolderError: If a folder holds no run, plans differ, an episode is recorded twice with different results, a
            file that a record names is not there, or the merged run cannot be written. Plans and records are compared
            before anything is written.
    """
    if len({path.resolve() for path in [out, *runs]}) <= len(runs):
        raise RunFolderError("A merge needs different folders: the merged run, then each run once.")
    folders = [open_run(path) for path in runs]
    for folder in folders[1:]:
        _check_same_plan(folders[0], folder)
    by_key: dict[str, tuple[RunFolder, EpisodeRecord]] = {}
    num_equal = 0
    for folder in [*([open_run(out)] if (out / "plan.json").exists() else []), *folders]:
        for record in folder.records():
            first = by_key.setdefault(record.key, (folder, record))
            if first[0] is not folder:
                _check_equal(first, (folder, record))
                num_equal += 1
    with HeldRun(out, folders[0].plan) as target:
        done = {record.key for record in target.records()}
        for episode in target.plan.episodes:
            if episode.key in by_key and episode.key not in done:
                source, record = by_key[episode.key]
                _copy_files(source, target, episode, record)
                target.append(record)
        _merge_about(target, folders)
        missing = [episode for episode in target.plan.episodes if episode.key not in by_key]
    return Merged(num_added=len(by_key) - len(done), num_equal=num_equal, missing=missing)


def _check_same_plan(one: RunFolder, other: RunFolder) -> None:
    """Raise RunFolderError if two runs carry out different plans."""
    if one.plan.sha256 != other.plan.sha256:
        raise RunFolderError(
            f"{one.path} and {other.path} carry out different plans ({one.plan.sha256[:12]} and "
            f"{other.plan.sha256[:12]}: different {_differing(one.plan, other.plan)}). Merge shards of one plan; "
            "`evalkit report` compares runs of different plans."
        )


def _check_equal(first: tuple[RunFolder, EpisodeRecord], second: tuple[RunFolder, EpisodeRecord]) -> None:
    """Raise RunFolderError if two runs recorded an episode with different results."""
    (one, ours), (other, theirs) = first, second
    for name in SAME:
        a, b = getattr(ours, name), getattr(theirs, name)
        if a != b:
            raise RunFolderError(
                f"{ours.key} is recorded with different results: {name} is {a!r} in {one.path} and {b!r} in "
                f"{other.path}. Delete the line of the one that must not count from its episodes.jsonl; merge again."
            )


def _differing(one: Plan, other: Plan) -> str:
    ours, theirs = asdict(one), asdict(other)
    return ", ".join(name for name in ours if ours[name] != theirs[name])


def _copy_files(source: RunFolder, target: RunFolder, episode: Episode, record: EpisodeRecord) -> None:
    """Copy the files that a record names, and the episode's step rows where they are."""
    steps = str(source.steps_path(episode).relative_to(source.path))
    for relative in (record.clip, record.video, steps):
        if relative is None or (relative == steps and not (source.path / steps).exists()):
            continue
        path, to = source.path / relative, target.path / relative
        if not path.is_file():
            raise RunFolderError(
                f"{path} is missing, which the record of {episode.key} names. Restore it, or run the episode again."
            )
        try:
            temporary = to.with_name(f".{to.name}.{os.getpid()}.part")
            with whole_file(to, temporary=temporary, durable=True) as partial:
                shutil.copyfile(path, partial)
        except OSError as error:
            raise cannot_write(to, error) from error


def _merge_about(target: RunFolder, folders: Sequence[RunFolder]) -> None:
    """Add the sessions and env processes of runs to those of the merged run; each once."""
    about = target.read_about()
    for folder in folders:
        theirs = folder.read_about()
        for name, value in theirs.items():
            if name not in ("sessions", "workers", "other_workers"):
                about.setdefault(name, value)
        sessions: list[Any] = about.setdefault("sessions", [])
        sessions += [session for session in theirs.get("sessions", []) if session not in sessions]
    if about:
        target.write_about(about)
    for folder in folders:
        theirs = folder.read_about()
        for env_id, worker in theirs.get("workers", {}).items():
            target.note_worker(env_id, worker)
        for env_id, workers in theirs.get("other_workers", {}).items():
            for worker in workers:
                target.note_worker(env_id, worker)


def missing_sentence(missing: Sequence[Episode], out: Path) -> str:
    """Return what a merged run lacks, and what to do."""
    tasks: dict[str, int] = {}
    for episode in missing:
        tasks[episode.task] = tasks.get(episode.task, 0) + 1
    listed = ", ".join(f"{task} {number}" for task, number in tasks.items())
    return (
        f"The merged run is not complete: {count_of(len(missing), 'planned episode')} without a record ({listed}; the "
        f"first is {missing[0].key}). Merge the runs that hold them into {out} too, or add --out {out} to the "
        "`evalkit run` command of this plan, without --shard."
    )
