"""Which episodes a data set lacks: their numbers, their seeds, and who acts in them.

In: tasks with their numbers of episodes, and the data set as it is. Out: jobs, each some episodes of one task.
Read next: `workers.py`, which records them.

What an episode's JSON says about it is known before the episode is recorded. An episode that is there and was recorded
with other settings is therefore refused, not mistaken for the planned one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice, zip_longest
from pathlib import Path

from evalkit.contracts.bound import BoundBench, BoundPolicy
from evalkit.contracts.errors import BadConfig
from evalkit.contracts.recording import DEMONSTRATION_SEEDS, RecordableBench
from evalkit.dataset.about import EpisodeAbout
from evalkit.dataset.writer import episode_key, read_about
from evalkit.record.demonstrate import Disturbance
from evalkit.record.notes import is_noted
from evalkit.record.refusals import FIRST_REFUSAL, REFUSALS, impossible, number_of_first

EXPERT, HOLD = "scripted", "hold"
"""Names under which episodes state that the task's expert acted, or that the robot stood still."""

FAILED = "failed"
"""Folder with a note for each seed that gave no episode, mostly because its expert failed; none is repeated."""


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who acts.

    Attributes:
        policy: The policy; None for the task's expert. Failures of a policy are recorded, those of an expert are not.
        max_steps: Longest episode; None for the bench's own limit.
        take_over: Most steps of the policy before the task's expert takes over; None if it does not.
    """

    policy: BoundPolicy | None = None
    max_steps: int | None = None
    take_over: int | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without loading the policy."""
        if self.max_steps is not None and self.max_steps < 1:
            raise BadConfig(f"--max-steps {self.max_steps} must be 1 or more.")
        if self.take_over is not None and self.policy is None:
            raise BadConfig("--take-over has no effect alone: --policy must name the policy.")
        if self.take_over is not None and self.take_over < 1:
            raise BadConfig(f"--take-over {self.take_over} must be 1 or more.")

    @property
    def shows_expert(self) -> bool:
        """Return whether the recorded actions are those of the task's expert."""
        return self.policy is None or self.take_over is not None


@dataclass(frozen=True, kw_only=True)
class RecordJob:
    """Some episodes of one task.

    Attributes:
        root: The data set.
        bench: The bench.
        protocol: The bench's protocol.
        task: The task.
        setting: Setting of the bench.
        numbers: Number of each episode in the data set.
        seeds: Seed of each episode.
        disturbance: Strength of the disturbances.
        refused: Instructions that the robot is given and refuses; empty for the task's own instruction.
        actor: Who acts.
        policy_provenance: What identifies the actor's policy; None without one.
    """

    root: Path
    bench: BoundBench
    protocol: str
    task: str
    setting: str
    numbers: tuple[int, ...]
    seeds: tuple[int, ...]
    disturbance: Disturbance
    refused: tuple[str, ...] = ()
    actor: Actor = Actor()
    policy_provenance: Mapping[str, str] | None = None


def jobs(
    root: Path,
    bench: BoundBench,
    wanted: Mapping[str, int],
    *,
    setting: str,
    first_seed: int = 0,
    first_number: int = 0,
    disturbance: Disturbance,
    refuse: str | None = None,
    actor: Actor = Actor(),
) -> list[RecordJob]:
    """Return the episodes that a data set lacks, in blocks, the tasks in turn.

    Args:
        root: The data set.
        bench: The bench.
        wanted: Tasks and their numbers of episodes.
        setting: Setting of the bench.
        first_seed: Smallest seed.
        first_number: Number of each task's first episode, to append a recording made with other settings.
        disturbance: Strength of the disturbances of an expert.
        refuse: `ANYTHING` or a task, to record refusals of these; None for demonstrations.
        actor: Who acts.

    Raises:
        BadConfig: If there are not enough seeds, the bench evaluates on some of them, a setting must be chosen, or
            what is to be refused can be done in the scene.
    """
    plugin = bench.recordable
    _check_chosen(bench)
    if first_number < 0:
        raise BadConfig(f"--first-number {first_number} must be 0 or more.")
    if refuse is not None and actor.policy is not None:
        raise BadConfig(
            f"Refusals begin on the path of the task's expert; leave out --refuse, or --policy {actor.policy.address}."
        )
    if actor.take_over is not None:
        disturbance = replace(disturbance, displaced_frac=0.0)
    provenance = None if actor.policy is None else actor.policy.provenance()
    of_tasks = []
    for task, count in wanted.items():
        job = RecordJob(
            root=root,
            bench=bench,
            protocol=_protocol(bench, task, setting),
            task=task,
            setting=setting,
            refused=() if refuse is None else impossible(bench, task, setting, refuse),
            numbers=_numbers(plugin, task, refuse, first_number, count),
            seeds=_seeds(plugin, task, first_seed, count),
            disturbance=disturbance,
            actor=actor,
            policy_provenance=provenance,
        )
        of_tasks.append(_blocks(job, plugin.episodes_per_process))
    return [block for row in zip_longest(*of_tasks) for block in row if block is not None]


def count_episodes(
    root: Path,
    bench: BoundBench,
    wanted: Mapping[str, int],
    *,
    refuse: str | None,
    first_number: int,
    missing: Collection[int] = (),
) -> dict[str, tuple[int, int]]:
    """Return for each task how many of its wanted episodes are there, and how many of their seeds gave none.

    Args:
        root: The data set.
        bench: The bench.
        wanted: Tasks and their numbers of episodes.
        refuse: As in `jobs`.
        first_number: As in `jobs`.
        missing: Numbers of episodes that are to be recorded yet, whatever an earlier recording noted of them.
    """
    counts = {}
    for task, count in wanted.items():
        numbers = set(_numbers(bench.recordable, task, refuse, first_number, count))
        num_there = sum((root / "data" / f"{episode_key(number)}.json").exists() for number in numbers)
        num_failed = sum((root / FAILED / episode_key(number)).exists() for number in numbers.difference(missing))
        counts[task] = num_there, num_failed
    return counts


def _check_chosen(bench: BoundBench) -> None:
    """Raise BadConfig if the user did not give a setting that a data set must state."""
    for name in bench.recordable.must_choose:
        if name not in bench.given:
            raise BadConfig(
                f"A data set of '{bench.name}' must state its setting '{name}': "
                f"add bench.{bench.name}.{name}=..., for example bench.{bench.name}.{name}="
                f"{getattr(bench.config, name)}."
            )


def _protocol(bench: BoundBench, task: str, setting: str) -> str:
    """Return the protocol of a task's episodes.

    Raises:
        BadConfig: If the bench evaluates on a seed of demonstrations.
    """
    (first,) = bench.plan_episodes(task=task, setting=setting, num_episodes=1, seed=0)
    if first.seed in DEMONSTRATION_SEEDS:
        raise BadConfig(f"Bench '{bench.name}' evaluates on seed {first.seed}, which belongs to demonstrations.")
    return first.protocol


def _numbers(plugin: RecordableBench, task: str, refuse: str | None, offset: int, count: int) -> tuple[int, ...]:
    """Return the numbers of a task's episodes.

    Raises:
        BadConfig: If the task does not have that many.
    """
    most = (FIRST_REFUSAL if refuse is None else REFUSALS) - offset
    if not 0 < count <= most:
        raise BadConfig(f"{task}: 1 to {most} episodes can be recorded, not {count}.")
    start = number_of_first(plugin, task, refuse) + offset
    return tuple(range(start, start + count))


def demonstration_seeds(plugin: RecordableBench, first_seed: int) -> Iterator[int]:
    """Yield the seeds for demonstrations of a bench, from `first_seed` on."""
    return (seed for seed in range(first_seed, DEMONSTRATION_SEEDS.stop) if not plugin.is_published_seed(seed))


def _seeds(plugin: RecordableBench, task: str, first_seed: int, count: int) -> tuple[int, ...]:
    """Return so many seeds.

    Raises:
        BadConfig: If there are fewer.
    """
    if first_seed not in DEMONSTRATION_SEEDS:
        raise BadConfig(f"{task}: the first seed must lie in 0 to {DEMONSTRATION_SEEDS.stop - 1}, got {first_seed}.")
    seeds = tuple(islice(demonstration_seeds(plugin, first_seed), count))
    if len(seeds) < count:
        raise BadConfig(f"{task}: {count} seeds from {first_seed} on leave those of demonstrations.")
    return seeds


def _blocks(job: RecordJob, size: int) -> list[RecordJob]:
    """Return the missing episodes of a job, in blocks; raises as `_is_done` does."""
    pairs = zip(job.numbers, job.seeds, strict=True)
    missing = [(number, seed) for number, seed in pairs if not _is_done(job, number, seed)]
    blocks = [missing[start : start + size] for start in range(0, len(missing), size)]
    return [replace(job, numbers=tuple(n for n, _ in block), seeds=tuple(s for _, s in block)) for block in blocks]


def _is_done(job: RecordJob, number: int, seed: int) -> bool:
    """Return whether an episode is there, or its seed gave none; one with a broken JSON is recorded again.

    Raises:
        BadConfig: If the episode of this number was recorded with other settings.
    """
    path = job.root / "data" / f"{episode_key(number)}.json"
    if (stored := read_about(path)) is None:
        return is_noted(job.root / FAILED / episode_key(number), about_of(job, seed))
    advice = "Record into another folder, or give other numbers (--first-number)."
    differing = stored.differences(about_of(job, seed), ignore=("env", "success"))
    for name, (before, now) in differing.items():
        if name == "policy_provenance" and before is None:
            raise BadConfig(
                f"{path} cannot be compared: an older version wrote it, which stored no hashes of the policy. {advice}"
            )
        raise BadConfig(
            f"{path} was recorded in another way: its field '{name}' was {before!r}, and is {now!r} now. {advice}"
        )
    return True


def about_of(job: RecordJob, seed: int) -> EpisodeAbout:
    """Return what an episode's JSON says about it, as far as it is known before the recording."""
    actor = job.actor
    policy = EXPERT if actor.policy is None or actor.take_over is not None else actor.policy.address
    return EpisodeAbout(
        bench=job.bench.address,
        protocol=job.protocol,
        task=job.task,
        setting=job.setting,
        settings=job.bench.given_settings,
        seed=seed,
        policy=HOLD if job.refused else policy,
        disturbance=asdict(job.disturbance) if actor.shows_expert else None,
        policy_settings=None if actor.policy is None else actor.policy.given_settings,
        policy_provenance=job.policy_provenance,
        takes_over_from=actor.policy.address if actor.policy is not None and actor.take_over is not None else None,
        after_up_to=actor.take_over,
    )
