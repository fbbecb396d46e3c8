"""A run folder: where everything that a run leaves behind lies.

In: a plan and a path. Out: the folder, made or found again, held by one run at a time.
Read next: `plan.py`, `records.py`, `clips.py` for the files in it; `evalkit/run/runner.py`, which fills it.

`plan.json`, `run.json`, `episodes.jsonl`, `clips/<task>/<index>.h5`, `videos/<task>/<index>.mp4`, `logs/`,
`scores.parquet`, `report/`.
"""

from __future__ import annotations

import fcntl
import json
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from evalkit.contracts.errors import RunFolderError, cannot_write
from evalkit.contracts.types import Episode
from evalkit.store.files import find_unfinished, write_whole
from evalkit.store.plan import Plan
from evalkit.store.records import EpisodeRecord, append_record, read_records


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """Paths of a run, its plan and its records."""

    path: Path
    plan: Plan

    @property
    def records_path(self) -> Path:
        """Return where the records lie."""
        return self.path / "episodes.jsonl"

    @property
    def scores_path(self) -> Path:
        """Return where `evalkit score` writes."""
        return self.path / "scores.parquet"

    @property
    def report_path(self) -> Path:
        """Return where `evalkit report` writes."""
        return self.path / "report"

    def clip_path(self, episode: Episode) -> Path:
        """Return where an episode's clip lies."""
        return self.path / "clips" / episode.task / f"{episode.index:04d}.h5"

    def video_path(self, episode: Episode) -> Path:
        """Return where an episode's video lies."""
        return self.path / "videos" / episode.task / f"{episode.index:04d}.mp4"

    def log_path(self, worker_idx: int) -> Path:
        """Return where what a worker prints goes."""
        return self.path / "logs" / f"worker-{worker_idx}.log"

    def records(self, *, mend: bool = False) -> list[EpisodeRecord]:
        """Return the records so far.

        Args:
            mend: Cut an unfinished last line off the file; only for the run that owns it.

        Raises:
            RunFolderError: If one of them is no record, or of no planned episode.
        """
        records = read_records(self.records_path, mend=mend)
        planned = {episode.key: episode.seed for episode in self.plan.episodes}
        for record in records:
            if planned.get(record.key) != record.seed:
                raise RunFolderError(
                    f"{self.records_path} records {record.key} with seed {record.seed}, which the plan does not hold; "
                    f"take that line out, or choose another --out."
                )
        return records

    def append(self, record: EpisodeRecord) -> None:
        """Add a record; it is on the disk when this returns."""
        append_record(self.records_path, record)

    def log_traceback(self, episode: Episode, error: BaseException) -> None:
        """Keep the traceback of a fault of the harness's own."""
        path = self.path / "logs" / "harness.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as log:
            log.write(f"{utc_now()} {episode.key}\n{''.join(traceback.format_exception(error))}\n")

    def read_about(self) -> dict[str, Any]:
        """Return what `run.json` holds; empty before the first session."""
        path = self.path / "run.json"
        try:
            about = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise RunFolderError(f"{path} is broken: {error}. Delete it, and the next run writes it anew.") from error
        if not isinstance(about, dict):
            raise RunFolderError(f"{path} holds no object. Delete it, and the next run writes it anew.")
        return about

    def write_about(self, about: Mapping[str, Any]) -> None:
        """Write `run.json`."""
        write_whole(self.path / "run.json", (json.dumps(about, indent=1) + "\n").encode())

    def note_worker(self, env_id: str, worker: Mapping[str, str]) -> None:
        """Keep in `run.json` what a worker told of itself: its interpreter, its renderer."""
        about = self.read_about()
        workers = about.setdefault("workers", {})
        if workers.get(env_id) != dict(worker):
            workers[env_id] = dict(worker)
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
    """A run folder that is being filled; no second run can hold it, and a killed one lets go of it.

    Example:
        with HeldRun(Path("results/runs/mine"), plan) as folder:
            folder.append(record)
    """

    def __init__(self, path: Path, plan: Plan) -> None:
        self.folder = RunFolder(path=path, plan=plan)
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> RunFolder:
        """Make the folder, or find it again, and mend what a kill left unfinished.

        Raises:
            RunFolderError: If it cannot be written, holds another plan, or is held by another run.
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
            found = open_run(path).plan
            if found.sha256 != plan.sha256:
                raise RunFolderError(
                    f"{path} holds another plan ({found.sha256[:12]}, not {plan.sha256[:12]}: "
                    f"{_difference(found, plan)}); choose another --out, or give the arguments that it was made with."
                )
        elif any(entry.name != ".lock" for entry in path.iterdir()):
            (path / ".lock").unlink()
            raise RunFolderError(f"{path} holds files but no plan.json, so it is no run folder; choose another --out.")
        else:
            write_whole(path / "plan.json", plan.to_bytes())
        self.folder.records(mend=True)


def utc_now() -> str:
    """Return the time as ISO text, seconds, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _difference(found: Plan, wanted: Plan) -> str:
    ours, theirs = json.loads(wanted.to_bytes()), json.loads(found.to_bytes())
    return "different " + ", ".join(name for name in ours if name != "sha256" and ours[name] != theirs[name])
