"""Which recorded demonstrations a data set lacks, and their replay, several at a time.

In: HDF5 files, a bench. Out: a data set; under `unreproduced/`, why a demonstration is not in it.
Read next: `render.py`, one demonstration; `demos.py`, the files; `statement.py`, what a file must state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from evalkit.contracts.bound import BoundBench
from evalkit.contracts.errors import BadConfig, EnvRaised, EpisodeFault, EvalkitError
from evalkit.contracts.recording import REPLAY_STATE
from evalkit.contracts.spec import OSC_DELTA_BASE, EnvSpec
from evalkit.contracts.worker.client import EnvWorker
from evalkit.dataset.about import EpisodeAbout
from evalkit.dataset.writer import read_about, recording_of, write_episode, write_metadata
from evalkit.record.notes import is_noted, write_note
from evalkit.record.pool import explained, run_jobs
from evalkit.record.refusals import EPISODES_PER_TASK
from evalkit.replay.demos import BrokenDemo, Demo, DemoFile, fingerprint, leaves_range, number_of, read_demo, read_file
from evalkit.replay.job import OTHER_NUMBERS, EpisodeJob, describe_changes
from evalkit.replay.render import EE_TOLERANCE_M, Rendered, render
from evalkit.replay.statement import Statement, Unfit, check_statement

UNREPRODUCED = "unreproduced"
"""Folder with a reason for each demonstration that could not be reproduced; none is tried again until it changes."""


@dataclass(frozen=True, kw_only=True)
class ReplayJob(EpisodeJob):
    """One demonstration to be replayed.

    Attributes:
        source: The HDF5 file.
        name: The demonstration.
        statement: What the file states.
        task: The task.
        ee_tolerance_m: Largest allowed distance of the end effector from its recorded position.
    """

    source: Path
    name: str
    statement: Statement
    task: str
    ee_tolerance_m: float = EE_TOLERANCE_M

    @property
    def spec(self) -> EnvSpec:
        """Return what the bench's env of the task gives."""
        return self.bench.env_spec(task=self.task, setting=self.bench.settings[0])


@dataclass(frozen=True, kw_only=True)
class ReplayJobResult:
    """The result of one job.

    Attributes:
        reason: Why the demonstration is not in the data set; None if it is.
        interrupted: Whether its process failed, so that the same command tries the demonstration again.
        warning: What was clipped in a demonstration that was written; None for nothing.
    """

    reason: str | None = None
    interrupted: bool = False
    warning: str | None = None


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """The result of a replay.

    Attributes:
        written: Demonstrations that were written.
        reasons: A sentence for each demonstration that cannot be reproduced.
        interruptions: A sentence for each demonstration whose process failed.
        warnings: A sentence for each written demonstration whose actions were clipped.
        lengths: Frames of every episode of the data set, by key.
        num_unreproduced: Demonstrations of the data set that cannot be reproduced.
    """

    written: int
    reasons: tuple[str, ...]
    interruptions: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    lengths: dict[str, int]
    num_unreproduced: int


class ReplayPlan(NamedTuple):
    """What is to be replayed.

    Attributes:
        jobs: Demonstrations that the data set lacks, except those that cannot be reproduced.
        unreproduced: Demonstrations that could not be reproduced before, and are what they were then.
        warnings: A sentence for each thing that a file leaves open, or that is ignored in it.
    """

    jobs: list[ReplayJob]
    unreproduced: list[ReplayJob]
    warnings: list[str]


def plan_replay(
    root: Path,
    files: Sequence[Path],
    bench: BoundBench,
    *,
    task: str | None = None,
    first_number: int = 0,
    ee_tolerance_m: float = EE_TOLERANCE_M,
) -> ReplayPlan:
    """Return the demonstrations that a data set lacks.

    Args:
        root: The data set.
        files: HDF5 files of one bench.
        bench: The bench.
        task: Task of the files; None for the one that each file states.
        first_number: Added to the numbers of demonstrations.
        ee_tolerance_m: Largest allowed distance of the end effector from its recorded position.

    Raises:
        BadConfig: If a file is no such file, states an env that the bench cannot replay, two demonstrations would be
            the same episode, or another demonstration is there under its number.
        EvalkitError: If the bench cannot replay states.
    """
    if bench.recordable.replay is None:
        raise EvalkitError(f"Bench '{bench.name}' cannot replay states: its plugin says so (its `replay` is None).")
    planned: dict[int, ReplayJob] = {}
    warnings: list[str] = []
    for path in files:
        file = read_file(path)
        template = _template(root, file, bench, task)
        warnings += [f"{path}: {sentence}." for sentence in _open_questions(file, template, task)]
        for name in file.names:
            number = template.number + first_number + number_of(name)
            if number in planned:
                raise BadConfig(_same_episode(planned[number], path, name))
            planned[number] = replace(template, name=name, number=number, ee_tolerance_m=ee_tolerance_m)
    missing = [job for job in planned.values() if not _is_written(job)]
    warnings += [sentence for job in planned.values() if (sentence := _beyond_tolerance(job)) is not None]
    unreproduced = [job for job in missing if _is_unreproduced(job)]
    return ReplayPlan([job for job in missing if job not in unreproduced], unreproduced, warnings)


def _same_episode(job: ReplayJob, path: Path, name: str) -> str:
    """Return what to do about a demonstration that would be the episode of a job."""
    if job.source == path:
        return f"{path}: {job.name} and {name} would be the same episode; rename one of them, to another number."
    return (
        f"{name} of {path} and of {job.source} would be the same episode; replay the files one after the other, the "
        f"second with --first-number."
    )


def _template(root: Path, file: DemoFile, bench: BoundBench, task: str | None) -> ReplayJob:
    """Return the job of a file without its demonstration; its number is that of the task's first episode.

    Raises:
        BadConfig: If the bench does not have the file's task, or the task has two arms.
    """
    path, name = file.path, task or file.statement.task
    if name is None:
        raise BadConfig(f"{path} does not state its task; give it with --task.")
    if name not in bench.tasks:
        raise BadConfig(f"{path} is of the task {name}, which '{bench.name}' does not have; --task names another one.")
    number = sorted(bench.tasks).index(name) * EPISODES_PER_TASK
    job = ReplayJob(root=root, source=path, name="", statement=file.statement, bench=bench, task=name, number=number)
    if job.spec.arms != ("left",) or job.spec.action_layout != OSC_DELTA_BASE:
        raise BadConfig(f"{path} is of {name}, a task of two arms; only one arm with deltas can be replayed.")
    return job


def _open_questions(file: DemoFile, template: ReplayJob, task: str | None) -> list[str]:
    """Return a sentence for each thing that a file leaves open, or that is ignored in it.

    Raises:
        BadConfig: If it states an env that the bench cannot replay.
    """
    replay = template.bench.recordable.replay
    assert replay is not None  # `plan_replay` checks it
    try:
        sentences = check_statement(file.statement, replay, template.spec)
    except Unfit as error:
        raise BadConfig(f"{file.path}: {error}. Leave the file out of the command.") from error
    if task is not None and file.statement.task not in (None, task):
        sentences.append(f"it states the task {file.statement.task}, and is replayed as {task} (--task)")
    if file.others:
        sentences.append(f"ignored is what is not named demo_N: {', '.join(file.others[:5])}")
    return sentences


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
        EvalkitError: If an env cannot be built, an episode cannot be written, or a process was killed. Whole episodes
            are kept and listed.
    """
    results: list[ReplayJobResult] = []
    with explained(root):
        try:
            for job, result in run_jobs(replay_job, jobs, workers=workers):
                results.append(result)
                if on_job is not None:
                    on_job(job, result)
        finally:
            lengths = write_metadata(root)
    return Replayed(
        written=sum(result.reason is None for result in results),
        reasons=tuple(result.reason for result in results if result.reason and not result.interrupted),
        interruptions=tuple(result.reason for result in results if result.reason and result.interrupted),
        warnings=tuple(result.warning for result in results if result.warning),
        lengths=lengths,
        num_unreproduced=sum(1 for _ in (root / UNREPRODUCED).rglob("*.txt")),
    )


def replay_job(job: ReplayJob) -> ReplayJobResult:
    """Replay and write one demonstration; a reason why it cannot be reproduced is noted in the data set.

    Raises:
        EvalkitError: If the env cannot be built or rendered on this machine.
        OSError: If it cannot be written, for example on a full disk.
    """
    about = None
    try:
        demo = read_demo(job.source, job.name, control_hz=job.spec.control_hz)
        about, warning = _about(job, demo), leaves_range(demo)
        _write(job, _render(job, demo), about)
        _note(job).unlink(missing_ok=True)
    except ValueError as error:
        reason = f"{job.source}, {job.name}: {error}."
        write_note(_note(job), _noted(job, about or _about(job)), reason)
        return ReplayJobResult(reason=reason)
    except EpisodeFault as fault:
        if isinstance(fault, EnvRaised) and fault.is_machines:
            raise EvalkitError(fault.reason) from fault
        return ReplayJobResult(reason=f"{job.source}, {job.name}: {fault.reason.rstrip('.')}.", interrupted=True)
    except EvalkitError as error:
        raise EvalkitError(str(error)) from error  # a plain one passes from one process to another
    return ReplayJobResult(warning=None if warning is None else f"{job.source}, {job.name}: {warning}.")


def _render(job: ReplayJob, demo: Demo) -> Rendered:
    """Return a rendered demonstration; raises as `render` and `EnvWorker.build` do."""
    bench, replay = job.bench, job.bench.recordable.replay
    assert replay is not None  # `plan_replay` checks it
    launch = bench.launch(task=job.task, setting=bench.settings[0])
    kwargs = {**launch.kwargs, "model_file": demo.model_file, "ep_meta": demo.ep_meta}
    worker = EnvWorker(
        replace(launch, target=replay.target, kwargs=kwargs), replace(job.spec, privileged_keys=REPLAY_STATE)
    )
    try:
        return render(
            worker.build(), demo, in_world_axes=job.statement.in_world_axes, ee_tolerance_m=job.ee_tolerance_m
        )
    finally:
        worker.kill()


def _write(job: ReplayJob, rendered: Rendered, about: EpisodeAbout) -> None:
    recording = recording_of(rendered.spec, job.bench.recordable.dataset_axes())
    error_mm = None if rendered.ee_error_m is None else round(1000 * rendered.ee_error_m, 4)
    about = replace(about, end_effector_error_mm=error_mm)
    write_episode(job.root, job.number, rendered.steps, recording, instructions=[rendered.instruction], about=about)


def _about(job: ReplayJob, demo: Demo | None = None) -> EpisodeAbout:
    """Return where an episode comes from; without a fingerprint if its demonstration cannot be read."""
    setting = job.bench.settings[0]
    (planned,) = job.bench.plan_episodes(task=job.task, setting=setting, num_episodes=1, seed=0)
    return EpisodeAbout(
        bench=job.bench.address,
        protocol=planned.protocol,
        task=job.task,
        setting=setting,
        settings=job.bench.given_settings,
        replayed_from=job.source.name,
        demonstration=job.name,
        demonstration_sha256=None if demo is None else fingerprint(demo, job.statement),
    )


def about_now(job: ReplayJob) -> EpisodeAbout:
    """Return what a demonstration's episode says about itself if it is replayed from the file as it is."""
    try:
        return _about(job, read_demo(job.source, job.name, control_hz=job.spec.control_hz))
    except BrokenDemo:
        return _about(job)


def _is_unreproduced(job: ReplayJob) -> bool:
    """Return whether a demonstration could not be reproduced, and is what it was then."""
    return _note(job).exists() and is_noted(_note(job), _noted(job, about_now(job)))


def _noted(job: ReplayJob, about: EpisodeAbout) -> EpisodeAbout:
    """Return what a note holds: what the episode would say about itself, and the tolerance of the replay."""
    return replace(about, other={"end_effector_tolerance_mm": round(1000 * job.ee_tolerance_m, 6)})


def _beyond_tolerance(job: ReplayJob) -> str | None:
    """Return a sentence if the episode that is there was replayed with a larger tolerance, and needed it."""
    path = job.path
    stored, tolerance_mm = read_about(path), 1000 * job.ee_tolerance_m
    if stored is None or stored.end_effector_error_mm is None or stored.end_effector_error_mm <= tolerance_mm:
        return None
    return (
        f"{path} is there, and its end effector is up to {stored.end_effector_error_mm:g} mm from its recorded "
        f"positions, {tolerance_mm:g} mm are allowed now; remove it to leave it out."
    )


def _is_written(job: ReplayJob) -> bool:
    """Return whether a demonstration is in the data set; one with a broken JSON is not.

    Raises:
        BadConfig: If another demonstration is there under its number, or one that cannot be compared.
    """
    path = job.path
    if (stored := read_about(path)) is None:
        return False
    now = about_now(job)
    differing = stored.differences(now, ignore=_NOT_COMPARED)
    if not differing:
        return True
    advice = f"Replay {OTHER_NUMBERS}"
    if "demonstration_sha256" in differing and None in differing["demonstration_sha256"]:
        reason = "an older version wrote it, which stored no hash of the demonstration"
        if now.demonstration_sha256 is None:
            reason = "the demonstration cannot be read now"
        raise BadConfig(f"{path} cannot be compared with {job.name} of {job.source}: {reason}. {advice}")
    changes = describe_changes(differing)
    raise BadConfig(f"{path} holds another demonstration than {job.name} of {job.source}: {changes}. {advice}")


_NOT_COMPARED = ("end_effector_error_mm", "replayed_from")
"""What may differ for the same episode: a file with the same demonstration may have another name."""


def _note(job: ReplayJob) -> Path:
    return job.root / UNREPRODUCED / f"{job.key}.txt"
