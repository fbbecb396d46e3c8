"""What is to be replayed, and the doing of it: demonstrations of several files, several at a time.

In: HDF5 files, a bench. Out: a data set; under `unreproduced/`, why a demonstration is not in it.
Read next: `render.py`, one demonstration; `__main__.py`, the command.

A bench takes part by an env that plays states back (`PLAYERS`), made with the arguments of the bench's own env and the
demonstration's `model_file` and `ep_meta`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.progress import Progress

from baselines.arguments import configured
from baselines.env_process import EnvProcessError
from baselines.replay.player import Player
from evalkit.contracts.errors import BadConfig
from evalkit.contracts.files import write_whole
from evalkit.contracts.plugins import load_bench
from evalkit.dataset.about import EpisodeAbout
from evalkit.dataset.writer import episode_key, read_about, write_episode
from evalkit.record.pool import finished
from evalkit.record.refusals import EPISODES_PER_TASK
from evalkit.record.workers import recording_of
from evalkit.replay.demos import list_demos, number_of, read_demo
from evalkit.replay.render import HAND_TOLERANCE_M, Rendered, render
from xwam.robots.interfaces import INTERFACES

PLAYERS = {
    "robosuite": "envs.robosuite.replay:RobosuiteReplay",
    "robocasa": "envs.robocasa.replay:RobocasaReplay",
}
"""The env of each bench that plays states back, as its worker imports it."""

UNREPRODUCED = "unreproduced"
"""Folder with a reason for each demonstration that could not be replayed, so that it is not tried again."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One demonstration to be replayed.

    Attributes:
        root: The data set.
        path: The HDF5 file.
        name: The demonstration.
        bench: Name of the bench.
        settings: Changes to the bench's settings.
        task: The task.
        number: Number of the episode in the data set.
        hand_tolerance_m: How far the hand may be from where the demonstration saw it.
    """

    root: Path
    path: Path
    name: str
    bench: str
    settings: tuple[tuple[str, Any], ...]
    task: str
    number: int
    hand_tolerance_m: float

    @property
    def key(self) -> str:
        """Return the name of the episode in the data set."""
        return episode_key(self.number)


def jobs(
    root: Path,
    files: Sequence[Path],
    bench_name: str,
    *,
    settings: dict[str, Any],
    task: str | None = None,
    first: int = 0,
    hand_tolerance_m: float = HAND_TOLERANCE_M,
) -> list[Job]:
    """Return what is not there yet, and was not found to be beyond reproduction.

    Raises:
        BadConfig: If a file is none of robomimic's, its task is none of the bench's, two demonstrations would be the
            same episode, or the bench has no such setting.
    """
    bench = load_bench(bench_name)
    if bench_name not in PLAYERS:
        raise BadConfig(f"Bench '{bench_name}' cannot play states back; {', '.join(PLAYERS)} can.")
    configured(f"Bench '{bench_name}'", bench.config_type, settings)
    found: dict[int, Job] = {}
    for path in files:
        stated, names = list_demos(path)
        chosen = task or stated or "nobody knows which"
        if chosen not in bench.tasks:
            raise BadConfig(f"{path} is of the task {chosen}, which is none of '{bench_name}'; --task names one.")
        start = sorted(bench.tasks).index(chosen) * EPISODES_PER_TASK + first
        for name in names:
            number = start + number_of(name)
            if number in found:
                raise BadConfig(
                    f"{name} of {path} and of {found[number].path} would be the same episode; replay the files one "
                    f"after the other, the second with --first."
                )
            found[number] = Job(
                root=root,
                path=path,
                name=name,
                bench=bench_name,
                settings=tuple(settings.items()),
                task=chosen,
                number=number,
                hand_tolerance_m=hand_tolerance_m,
            )
    return [job for job in found.values() if not _done(job)]


def replay_one(job: Job) -> str | None:
    """Replay and write one demonstration; return why not, if not.

    Raises:
        EnvProcessError: If the simulator failed, which may pass: nothing is noted.
    """
    bench = load_bench(job.bench)
    config = bench.config_type(**dict(job.settings))
    try:
        demo = read_demo(job.path, job.name)
        launch = bench.launch(config, task=job.task, setting=bench.settings[0])
        kwargs = {**launch.kwargs, "model_file": demo.model_file, "ep_meta": demo.ep_meta}
        with Player(replace(launch, target=PLAYERS[job.bench], kwargs=kwargs)) as player:
            _write(job, render(player, demo, hand_tolerance_m=job.hand_tolerance_m))
    except ValueError as error:
        reason = f"{job.path}, {job.name}: {error}."
        write_whole(_note(job), reason + "\n")
        return reason
    return None


def _write(job: Job, rendered: Rendered) -> None:
    recording = replace(recording_of(rendered.spec), axes=INTERFACES[job.bench].axes)
    error_mm = None if rendered.hand_error_m is None else round(1000 * rendered.hand_error_m, 4)
    about = replace(_about(job), end_effector_error_mm=error_mm)
    write_episode(job.root, job.number, rendered.steps, recording, instructions=[rendered.instruction], about=about)


def _about(job: Job) -> EpisodeAbout:
    """Return where an episode comes from; files of one name differ in size."""
    return EpisodeAbout(
        bench=job.bench,
        task=job.task,
        settings=dict(job.settings),
        replayed_from=job.path.name,
        replayed_from_bytes=job.path.stat().st_size,
        demonstration=job.name,
    )


def _done(job: Job) -> bool:
    """Return whether a demonstration is there, or is known to be beyond reproduction; a broken JSON is written again.

    Raises:
        BadConfig: If another demonstration is there under its number.
    """
    path = job.root / "data" / f"{job.key}.json"
    if (stored := read_about(path)) is None:
        return _note(job).exists()
    differing = stored.differences(_about(job), ignore=("end_effector_error_mm",))
    if differing:
        was = ", ".join(f"{name} {there!r}" for name, (there, _) in differing.items())
        raise BadConfig(
            f"{path} holds another demonstration than {job.name} of {job.path}: {was}. "
            f"Replay into another folder, or beside it, under other numbers (--first)."
        )
    return True


def _note(job: Job) -> Path:
    return job.root / UNREPRODUCED / f"{job.key}.txt"


def replay(todo: Sequence[Job], *, workers: int) -> tuple[int, list[str]]:
    """Replay all, several at a time; return how many were written, and why others were not.

    Raises:
        OSError: If an episode cannot be written, for example on a full disk.
        BrokenProcessPool: If a process was killed.
    """
    written, reasons = 0, list[str]()
    with Progress() as progress:
        bar = progress.add_task("demonstrations", total=len(todo))
        for job, found in finished(replay_one, todo, workers=workers):
            if isinstance(found, EnvProcessError):
                reasons.append(f"{job.path}, {job.name}: {found}. It will be tried again.")
            elif found is None:
                written += 1
            else:
                reasons.append(found)
            progress.advance(bar)
    return written, reasons
