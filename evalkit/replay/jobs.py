"""Which recorded demonstrations a data set lacks, and their replay, several at a time.

In: HDF5 files, a bench. Out: a data set; under `unreproduced/`, why a demonstration is not in it.
Read next: `render.py`, one demonstration; `demos.py`, the files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evalkit.contracts.bound import BoundBench
from evalkit.contracts.env import REPLAY_STATE
from evalkit.contracts.errors import BadConfig, EpisodeFault, EvalkitError
from evalkit.contracts.files import write_whole
from evalkit.contracts.worker.client import EnvWorker
from evalkit.dataset.about import EpisodeAbout
from evalkit.dataset.writer import episode_key, read_about, write_episode, write_metadata
from evalkit.record.pool import explained, run_jobs
from evalkit.record.refusals import EPISODES_PER_TASK
from evalkit.record.workers import recording_of
from evalkit.replay.demos import Demo, list_demos, number_of, read_demo
from evalkit.replay.render import EE_TOLERANCE_M, Rendered, render

UNREPRODUCED = "unreproduced"
"""Folder with a reason for each demonstration that could not be reproduced; none is tried again."""


@dataclass(frozen=True, kw_only=True)
class ReplayJob:
    """One demonstration to be replayed.

    Attributes:
        root: The data set.
        path: The HDF5 file.
        name: The demonstration.
        bench: The bench.
        task: The task.
        number: Number of the episode in the data set.
        ee_tolerance_m: Largest allowed distance of the end effector from its recorded position.
    """

    root: Path
    path: Path
    name: str
    bench: BoundBench
    task: str
    number: int
    ee_tolerance_m: float = EE_TOLERANCE_M

    @property
    def key(self) -> str:
        """Return the name of the episode in the data set."""
        return episode_key(self.number)


@dataclass(frozen=True, kw_only=True)
class ReplayJobResult:
    """The result of one job.

    Attributes:
        reason: Why the demonstration is not in the data set; None if it is.
        can_repeat: Whether the simulator failed, so that the same command tries the demonstration again.
    """

    reason: str | None = None
    can_repeat: bool = False


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """The result of a replay.

    Attributes:
        written: Demonstrations that were written.
        reasons: A sentence for each demonstration that was not.
        lengths: Frames of every episode of the data set, by key.
        num_unreproduced: Demonstrations of the data set that cannot be reproduced.
    """

    written: int
    reasons: tuple[str, ...]
    lengths: dict[str, int]
    num_unreproduced: int


def jobs(
    root: Path,
    files: Sequence[Path],
    bench: BoundBench,
    *,
    task: str | None = None,
    first_number: int = 0,
    ee_tolerance_m: float = EE_TOLERANCE_M,
) -> list[ReplayJob]:
    """Return the demonstrations that a data set lacks, except those that cannot be reproduced.

    Args:
        root: The data set.
        files: robomimic HDF5 files of one bench.
        bench: The bench.
        task: Task of the files; None for the one that each file states.
        first_number: Added to the numbers of demonstrations.
        ee_tolerance_m: Largest allowed distance of the end effector from its recorded position.

    Raises:
        BadConfig: If a file is not robomimic's, its task is not the bench's, two demonstrations would be the same
            episode, or another demonstration is there under its number.
        EvalkitError: If the bench cannot replay states.
    """
    if bench.recordable.replay_target is None:
        raise EvalkitError(f"Bench '{bench.name}' cannot replay states: its plugin has no replay_target.")
    planned: dict[int, ReplayJob] = {}
    for path in files:
        stated, names = list_demos(path)
        start = _first_number(bench, path, task or stated) + first_number
        same = ReplayJob(root=root, path=path, name="", bench=bench, task=str(task or stated), number=start)
        for name in names:
            job = replace(same, name=name, number=start + number_of(name), ee_tolerance_m=ee_tolerance_m)
            if job.number in planned:
                raise BadConfig(
                    f"{name} of {path} and of {planned[job.number].path} would be the same episode; replay the files "
                    f"one after the other, the second with --first-number."
                )
            planned[job.number] = job
    return [job for job in planned.values() if not _is_done(job)]


def _first_number(bench: BoundBench, path: Path, task: str | None) -> int:
    """Return the number of a task's first episode.

    Raises:
        BadConfig: If the bench does not have this task.
    """
    if task is None:
        raise BadConfig(f"{path} does not state its task; give it with --task.")
    if task not in bench.tasks:
        raise BadConfig(f"{path} is of the task {task}, which '{bench.name}' does not have; --task names another one.")
    return sorted(bench.tasks).index(task) * EPISODES_PER_TASK


def replay(
    root: Path,
    jobs: Sequence[ReplayJob],
    *,
    workers: int = 1,
    on_job: Callable[[ReplayJob, ReplayJobResult], None] | None = None,
) -> Replayed:
    """Replay demonstrations, several at a time, and list the data set's episodes.

    Args:
        root: The data set.
        jobs: What to replay.
        workers: Number of demonstrations at a time.
        on_job: Called after each demonstration.

    Raises:
        EvalkitError: If an episode cannot be written, or a process was killed. Whole episodes are kept and listed.
    """
    reasons: list[str] = []
    num_done = 0
    with explained(root):
        try:
            for job, result in run_jobs(replay_job, jobs, workers=workers):
                num_done += 1
                if result.reason is not None:
                    reasons.append(result.reason + (" It can be tried again." if result.can_repeat else ""))
                if on_job is not None:
                    on_job(job, result)
        finally:
            lengths = write_metadata(root)
    return Replayed(
        written=num_done - len(reasons),
        reasons=tuple(reasons),
        lengths=lengths,
        num_unreproduced=sum(1 for _ in (root / UNREPRODUCED).rglob("*.txt")),
    )


def replay_job(job: ReplayJob) -> ReplayJobResult:
    """Replay and write one demonstration; a reason why it cannot be reproduced is noted in the data set.

    Raises:
        OSError: If it cannot be written, for example on a full disk.
    """
    try:
        demo = read_demo(job.path, job.name)
        _write(job, _render(job, demo))
    except ValueError as error:
        reason = f"{job.path}, {job.name}: {error}."
        write_whole(_note(job), reason + "\n")
        return ReplayJobResult(reason=reason)
    except (EvalkitError, EpisodeFault) as error:
        return ReplayJobResult(reason=f"{job.path}, {job.name}: {str(error).rstrip('.')}.", can_repeat=True)
    return ReplayJobResult()


def _render(job: ReplayJob, demo: Demo) -> Rendered:
    bench, target = job.bench, job.bench.recordable.replay_target
    assert target is not None  # `jobs` checks it
    launch = bench.launch(task=job.task, setting=bench.settings[0])
    kwargs = {**launch.kwargs, "model_file": demo.model_file, "ep_meta": demo.ep_meta}
    spec = bench.env_spec(task=job.task, setting=bench.settings[0])
    worker = EnvWorker(replace(launch, target=target, kwargs=kwargs), replace(spec, privileged_keys=REPLAY_STATE))
    try:
        return render(worker.build(), demo, ee_tolerance_m=job.ee_tolerance_m)
    finally:
        worker.kill()


def _write(job: ReplayJob, rendered: Rendered) -> None:
    recording = recording_of(rendered.spec, job.bench.recordable.dataset_axes())
    error_mm = None if rendered.ee_error_m is None else round(1000 * rendered.ee_error_m, 4)
    about = replace(_about(job), end_effector_error_mm=error_mm)
    write_episode(job.root, job.number, rendered.steps, recording, instructions=[rendered.instruction], about=about)


def _about(job: ReplayJob) -> EpisodeAbout:
    """Return where an episode comes from; files of one name differ in size."""
    return EpisodeAbout(
        bench=job.bench.address,
        task=job.task,
        settings=job.bench.given_settings,
        replayed_from=job.path.name,
        replayed_from_bytes=job.path.stat().st_size,
        demonstration=job.name,
    )


def _is_done(job: ReplayJob) -> bool:
    """Return whether a demonstration is there, or cannot be reproduced; one with a broken JSON is replayed again.

    Raises:
        BadConfig: If another demonstration is there under its number.
    """
    path = job.root / "data" / f"{job.key}.json"
    if (stored := read_about(path)) is None:
        return _note(job).exists()
    differing = stored.differences(_about(job), ignore=("end_effector_error_mm",))
    if differing:
        before = ", ".join(f"{name} {value!r}" for name, (value, _) in differing.items())
        raise BadConfig(
            f"{path} holds another demonstration than {job.name} of {job.path}: {before}. "
            f"Replay into another folder, or give other numbers (--first-number)."
        )
    return True


def _note(job: ReplayJob) -> Path:
    return job.root / UNREPRODUCED / f"{job.key}.txt"
