"""A run folder: all files of a run.

In: a plan and a path. Out: the folder, new or existing, held by one run at a time.
Read next: `plan.py`, `records.py`, `clips.py` for the files in it; `evalkit/run/runner.py`, which fills it.

`plan.json`, `run.json`, `episodes.jsonl`, `retried.jsonl`, `clips/<task>/<index>.h5`, `videos/<task>/<index>.mp4`,
`steps/<task>/<index>.parquet`, `logs/`, `scores.parquet`, `report/`.
"""

from __future__ import annotations

import fcntl
import json
import traceback
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from evalkit.contracts.errors import RunFolderError, cannot_write
from evalkit.contracts.types import Episode
from evalkit.store.files import find_unfinished, write_whole
from evalkit.store.plan import Plan
from evalkit.store.records import EpisodeRecord, Outcome, append_record, move_records, read_records


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """Paths of a run, its plan and its records."""

    path: Path
    plan: Plan

    @property
    def records_path(self) -> Path:
        """Return the path of the records."""
        return self.path / "episodes.jsonl"

    @property
    def scores_path(self) -> Path:
        """Return the path that `evalkit score run` writes."""
        return self.path / "scores.parquet"

    def clip_path(self, episode: Episode) -> Path:
        """Return the path of an episode's clip."""
        return self.path / "clips" / episode.task / f"{episode.index:04d}.h5"

    def video_path(self, episode: Episode) -> Path:
        """Return the path of an episode's video."""
        return self.path / "videos" / episode.task / f"{episode.index:04d}.mp4"

    def steps_path(self, episode: Episode) -> Path:
        """Return the path of an episode's step rows."""
        return self.path / "steps" / episode.task / f"{episode.index:04d}.parquet"

    def log_path(self, worker_idx: int) -> Path:
        """Return the path of an env process's output."""
        return self.path / "logs" / f"worker-{worker_idx}.log"

    def records(self, *, repair: bool = False) -> list[EpisodeRecord]:
        """Return the records so far.

        Args:
            repair: Remove an unfinished last line from the file; only for the run that owns it.

        Raises:
            RunFolderError: If a line is not a record, or its episode is not planned.
        """
        records = read_records(self.records_path, repair=repair)
        planned = {episode.key: episode.seed for episode in self.plan.episodes}
        for record in records:
            if planned.get(record.key) != record.seed:
                raise RunFolderError(
                    f"{self.records_path} records {record.key} with seed {record.seed}, which the plan does not hold; "
                    f"delete that line, or choose another --out."
                )
        return records

    def retry(self, outcomes: Collection[Outcome]) -> int:
        """Make episodes with these outcomes missing again; their records move to `retried.jsonl`. Return how many.

        Only for the run that owns the folder.

        Raises:
            RunFolderError: If the records cannot be read or written.
        """
        return move_records(self.records_path, self.path / "retried.jsonl", outcomes)

    def append(self, record: EpisodeRecord) -> None:
        """Append a record; it is on the disk when this returns."""
        append_record(self.records_path, record)

    def log_traceback(self, what: str, error: BaseException, name: str) -> str:
        """Append the traceback of a fault to the log of this name; return words that say where it is.

        They are empty where the log cannot be written, because a log never costs a result.

        Args:
            what: What ended in the fault: the key of an episode, or `load`.
            error: The fault.
            name: Name of the log's file.
        """
        path = self.path / "logs" / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as log:
                log.write(f"{utc_now()} {what}\n{''.join(traceback.format_exception(error))}\n")
        except OSError:
            return ""
        return f" (traceback in logs/{name})"

    def read_about(self) -> dict[str, Any]:
        """Return the content of `run.json`; empty before the first session."""
        path = self.path / "run.json"
        try:
            about = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise RunFolderError(f"{path} is broken: {error}. Delete it; the next run writes it again.") from error
        if not isinstance(about, dict):
            raise RunFolderError(f"{path} does not hold a JSON object. Delete it; the next run writes it again.")
        return about

    def write_about(self, about: Mapping[str, Any]) -> None:
        """Write `run.json`."""
        write_whole(self.path / "run.json", (json.dumps(about, indent=1) + "\n").encode())

    def note_worker(self, env_id: str, worker: Mapping[str, str]) -> None:
        """Note in `run.json` what an env process reports about itself: interpreter, renderer, versions.

        `workers` holds the first report of each env, `other_workers` those that differ from it, for example because
        another GPU rendered.
        """
        about, told = self.read_about(), dict(worker)
        known = [about.setdefault("workers", {}).setdefault(env_id, told)]
        known += about.get("other_workers", {}).get(env_id, [])
        if told not in known:
            about.setdefault("other_workers", {}).setdefault(env_id, []).append(told)
        self.write_about(about)


def open_run(path: Path) -> RunFolder:
    """Return an existing run for reading.

    Raises:
        RunFolderError: If there is no run.
    """
    plan_path = path / "plan.json"
    try:
        data = plan_path.read_bytes()
    except OSError as error:
        raise RunFolderError(
            f"{path} is not a run folder: cannot read {plan_path} ({error.strerror}). `evalkit run` makes one."
        ) from error
    return RunFolder(path=path, plan=Plan.from_bytes(data, where=str(plan_path)))


class HeldRun:
    """A run folder in use; no second run can hold it at the same time, and a killed run releases it.

    Example:
        with HeldRun(Path("results/runs/mine"), plan) as folder:
            folder.append(record)
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self.folder = RunFolder(path=path, plan=plan)
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> RunFolder:
        """Create or open the folder, and remove unfinished files of a killed run.

        Raises:
            RunFolderError: If it cannot be written, holds another plan, or another run holds it.
        """
        path = self.folder.path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = (path / ".lock").open("wb")
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            self._claim()
        except BaseException:
            self._lock.close()
            raise
        return self.folder

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()

    def _claim(self) -> None:
        path, plan = self.folder.path, self.folder.plan
        assert self._lock is not None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunFolderError(f"Another run is filling {path}; wait for it, or choose another --out.") from error
        for unfinished in find_unfinished(path):
            unfinished.unlink(missing_ok=True)
        if (path / "plan.json").exists():
            present = open_run(path).plan
            if present.sha256 != plan.sha256:
                raise RunFolderError(
                    f"{path} holds another plan ({present.sha256[:12]}, not {plan.sha256[:12]}: "
                    f"{_difference(present, plan)}); choose another --out, or repeat the arguments of that plan."
                )
        elif any(entry.name != ".lock" for entry in path.iterdir()):
            (path / ".lock").unlink()
            raise RunFolderError(
                f"{path} holds files but no plan.json, so it is not a run folder; choose another --out."
            )
        else:
            write_whole(path / "plan.json", plan.to_bytes())
        self.folder.records(repair=True)


def utc_now() -> str:
    """Return the time as ISO text, seconds, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _difference(present: Plan, wanted: Plan) -> str:
    ours, theirs = json.loads(wanted.to_bytes()), json.loads(present.to_bytes())
    return "different " + ", ".join(name for name in ours if name != "sha256" and ours[name] != theirs[name])
