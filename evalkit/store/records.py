"""Episode records: one JSON line an episode, appended and synced.

In: how an episode ended. Out: `episodes.jsonl`, which survives a kill at any byte.
Read next: `run_folder.py`, which owns the file; `evalkit/report/`, which reads it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from evalkit.contracts.errors import RunFolderError, cannot_write
from evalkit.contracts.files import append_line, read_lines
from evalkit.store.files import write_whole

Outcome = Literal["success", "failure", "error", "skipped"]
OUTCOMES: tuple[Outcome, ...] = ("success", "failure", "error", "skipped")


@dataclass(frozen=True, kw_only=True)
class EpisodeRecord:
    """The outcome of one planned episode.

    Attributes:
        outcome: `success` or `failure`, which count in success rates; `error` or `skipped`, which do not.
        task: Task name.
        index: Position among the task's episodes.
        seed: Seed of the env.
        instruction: The instruction that the policy received; None if the episode ended before.
        steps: Control steps executed.
        num_chunks: Executed chunks.
        actions_sha256: Hash of all executed actions, float32, in order; for `error`, of those before the fault.
        blame: For `error`: `env`, `policy` or `harness`.
        reason: For `error` and `skipped`: one sentence.
        attempts: Number of times the episode was started.
        timings_s: Seconds by name.
        clip: Path of the clip, relative to the run folder.
        video: Path of the video, relative to the run folder.
        details: Details that the policy added, JSON values.
        warnings: Sentences about what is missing of the episode, for example its video.
        scene: What the seed drew, as the env says, JSON values; None if the episode did not start or the env does not
            say.
        first_state_sha256: Hash of the env's state before the first step; None as for `scene`.
        first_frame_sha256: Hash of the first RGB-D frame of all views; None if the episode did not start or nothing
            can be rendered. Equal hashes of state and frame show that two episodes met the same scene.
        settle_steps: For an episode that met its goal: control steps without action that followed; 0 if
            `run.settle_steps` was 0. Such an episode is a `failure` if the plan counts success after settling
            (`success_after_steps`) and the goal was lost.
        success_after_settling: Whether the goal was still met after these steps; None if there were none, a fault
            ended them, or it is not known how to leave the robot alone; the warnings say which.
        counters: What the env counted, for example `failed_plans`.
        realtime: What a run in real-time mode counted and measured of the episode (`RobotClock.to_json`): late chunks,
            steps without motion, error in the delay zone, jerk. None in other runs.
    """

    outcome: Outcome
    task: str
    index: int
    seed: int
    instruction: str | None
    steps: int = 0
    num_chunks: int = 0
    actions_sha256: str | None = None
    blame: str | None = None
    reason: str | None = None
    attempts: int = 1
    timings_s: Mapping[str, float] = field(default_factory=dict)
    clip: str | None = None
    video: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    scene: Mapping[str, Any] | None = None
    first_state_sha256: str | None = None
    first_frame_sha256: str | None = None
    settle_steps: int | None = None
    success_after_settling: bool | None = None
    counters: Mapping[str, int] = field(default_factory=dict)
    realtime: Mapping[str, float | None] | None = None

    @property
    def key(self) -> str:
        """Return the key of the planned episode, for example `Lift/0003`."""
        return f"{self.task}/{self.index:04d}"


def append_record(path: Path, record: EpisodeRecord) -> None:
    """Append one line and bring it to the disk before returning; a line that does not fit whole is taken back.

    Raises:
        RunFolderError: If it cannot be written; the lines before it are untouched.
    """
    try:
        append_line(path, json.dumps(asdict(record), allow_nan=False))
    except OSError as error:
        raise cannot_write(path, error) from error


def move_records(path: Path, to: Path, outcomes: Collection[Outcome]) -> int:
    """Move the records that have one of these outcomes to the end of another file; return how many.

    A kill in between leaves records in both files, and none in neither.

    Raises:
        RunFolderError: If a file cannot be read or written.
    """
    records = read_records(path, repair=True)
    moved = [record for record in records if record.outcome in outcomes]
    if moved:
        for record in moved:
            append_record(to, record)
        kept = [json.dumps(asdict(record), allow_nan=False) + "\n" for record in records if record not in moved]
        write_whole(path, "".join(kept).encode())
    return len(moved)


def read_records(path: Path, *, repair: bool = False) -> list[EpisodeRecord]:
    """Return the records of a run, in the order in which they were written; an unfinished last line is left out.

    Args:
        path: The `episodes.jsonl`; a missing file holds no records.
        repair: Remove an unfinished last line from the file; only for the run that owns it.

    Raises:
        RunFolderError: If a finished line is no record, or an episode has two.
    """
    records: dict[str, EpisodeRecord] = {}
    for number, line in enumerate(read_lines(path, repair=repair), start=1):
        try:
            record = EpisodeRecord(**json.loads(line))
            _check_types(record)
        except (ValueError, TypeError) as error:
            raise RunFolderError(f"Line {number} of {path} is not an episode record: {error}.") from error
        if record.key in records:
            raise RunFolderError(f"Line {number} of {path} records {record.key} a second time.")
        records[record.key] = record
    return list(records.values())


def _check_types(record: EpisodeRecord) -> None:
    """Raise ValueError if a field that other code relies on has the wrong type."""
    if record.outcome not in OUTCOMES:
        raise ValueError(f"outcome is {record.outcome!r}, not one of {', '.join(OUTCOMES)}")
    for name in ("index", "seed", "steps", "num_chunks", "attempts"):
        if type(getattr(record, name)) is not int:
            raise ValueError(f"{name} is {getattr(record, name)!r}, not a whole number")
    if record.settle_steps is not None and type(record.settle_steps) is not int:
        raise ValueError(f"settle_steps is {record.settle_steps!r}, not a whole number")
    if record.success_after_settling not in (True, False, None):
        raise ValueError(f"success_after_settling is {record.success_after_settling!r}, not true, false or null")
    if not isinstance(record.task, str):
        raise ValueError(f"task is {record.task!r}, not text")
