"""What is to be recorded: which episodes a data set lacks, their seeds and numbers, and who acts in them.

In: tasks with their numbers of episodes, and what is there. Out: jobs, each some episodes of one task.
Read next: `workers.py`, which does them.

What an episode says of itself is known before it is recorded, so that one that is there and was recorded otherwise is
not taken for the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from baselines.arguments import configured
from baselines.floors import HoldPlugin
from baselines.scripted.policy import ScriptedPlugin
from evalkit.contracts.env import Bench
from evalkit.contracts.errors import BadConfig
from evalkit.contracts.plugins import load_bench, load_policy, make_policy
from evalkit.contracts.policy import Policy
from evalkit.dataset.about import EpisodeAbout
from evalkit.dataset.writer import episode_key, read_about
from evalkit.record.demonstrate import Disturbance
from evalkit.record.refusals import ANYTHING, EPISODES_PER_TASK, FIRST_REFUSAL, REFUSALS, impossible

DEMONSTRATION_SEEDS = range(1_000_000)
"""Env seeds below those of our evaluations; see docs/conventions.md."""

PUBLISHED_SEEDS: Mapping[str, Callable[[int], bool]] = {"robocasa": lambda seed: seed < 100_000 or seed % 256 == 0}
"""Which of them a bench's published protocols evaluate on all the same; none where a bench is not named."""

BLOCK = 20
SHORT_BLOCK = {"robocasa": 4}
"""Episodes that one process records before a fresh one takes over; fewer where an episode takes half a minute."""

FAILED = "failed"
"""Folder with an empty file for each seed that gave nothing, mostly because its expert failed; none is tried again."""


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who acts.

    Attributes:
        policy: Its name: `scripted`, whose failures are not kept, or any other, whose are.
        settings: Changes to its configuration.
        max_steps: Longest episode; None for the bench's own.
        take_over: Most steps of it before the task's scripted expert takes over; None where nobody does.
    """

    policy: str = ScriptedPlugin.name
    settings: tuple[tuple[str, Any], ...] = ()
    max_steps: int | None = None
    take_over: int | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without loading the policy."""
        if self.max_steps is not None and self.max_steps < 1:
            raise BadConfig(f"--max-steps {self.max_steps} must be 1 or more.")
        if self.take_over is not None and (self.policy == ScriptedPlugin.name or self.take_over < 1):
            raise BadConfig(f"--take-over {self.take_over} must be 1 or more, and --policy say from whom.")

    @property
    def shows_expert(self) -> bool:
        """Return whether what is recorded is done by the task's scripted expert."""
        return self.policy == ScriptedPlugin.name or self.take_over is not None

    def config(self) -> Any:
        """Return the policy's configuration.

        Raises:
            BadConfig: If there is no policy of that name, or it has no such setting.
        """
        return configured(f"Policy '{self.policy}'", load_policy(self.policy).config_type, dict(self.settings))

    def make(self) -> Policy:
        """Return the policy; raises as `config` does, and EvalkitError if its weights cannot be had."""
        return make_policy(load_policy(self.policy), self.config())


@dataclass(frozen=True, kw_only=True)
class Job:
    """Some episodes of one task.

    Attributes:
        root: The data set.
        bench: Name of the bench.
        protocol: The bench's.
        task: The task.
        setting: Setting of the bench.
        settings: Changes to the bench's configuration.
        numbers: Number of each episode in the data set.
        seeds: Seed of each.
        disturbance: How hard the expert is pushed.
        refused: What the robot is told, and does not do because it cannot; empty to be told the task and do it.
        actor: Who acts.
    """

    root: Path
    bench: str
    protocol: str
    task: str
    setting: str
    settings: tuple[tuple[str, Any], ...]
    numbers: tuple[int, ...]
    seeds: tuple[int, ...]
    disturbance: Disturbance
    refused: tuple[str, ...] = ()
    actor: Actor = Actor()


def jobs(
    root: Path,
    bench_name: str,
    wanted: dict[str, int],
    *,
    setting: str,
    settings: Mapping[str, Any] | None = None,
    first_seed: int = 0,
    first_number: int = 0,
    disturbance: Disturbance,
    refuse: str | None = None,
    actor: Actor = Actor(),
) -> list[Job]:
    """Return what is missing in a data set, in blocks, the tasks in turn.

    Args:
        root: The data set.
        bench_name: Name of the bench.
        wanted: Tasks and their numbers of episodes.
        setting: Setting of the bench.
        settings: Changes to the bench's configuration.
        first_seed: Where seeds begin.
        first_number: Where a task's numbers of episodes begin, to add to a data set what is recorded otherwise.
        disturbance: How hard the expert is pushed.
        refuse: `ANYTHING` to record refusals of what cannot be done, a task to record refusals of that one alone; None
            for demonstrations.
        actor: Who acts.

    Raises:
        BadConfig: If there are not so many seeds, the bench evaluates on some of them, or does not know a setting; or
            if what is to be refused can be done there, or nobody knows what can.
    """
    bench, changes = load_bench(bench_name), dict(settings or {})
    config = _config(bench, changes)
    actor.config()
    if first_number < 0:
        raise BadConfig(f"--first-number {first_number} must be 0 or more.")
    if refuse is not None and actor.policy != ScriptedPlugin.name:
        raise BadConfig(f"Refusals begin on the scripted expert's way; leave out --refuse, or --policy {actor.policy}.")
    of_tasks: list[list[Job]] = []
    for task, count in wanted.items():
        (first,) = bench.plan_episodes(config, task=task, setting=setting, num_episodes=1, seed=0)
        if first.seed in DEMONSTRATION_SEEDS:
            raise BadConfig(f"Bench '{bench.name}' evaluates on seed {first.seed}, which belongs to demonstrations.")
        most = (FIRST_REFUSAL if refuse is None else REFUSALS) - first_number
        seeds = _seeds(bench_name, task, first_seed, count, most)
        refused = impossible(bench, config, task, setting, refuse) if refuse is not None else ()
        start = _first_number(bench, task, refuse) + first_number
        whole = Job(
            root=root,
            bench=bench_name,
            protocol=first.protocol,
            task=task,
            setting=setting,
            settings=tuple(changes.items()),
            numbers=tuple(range(start, start + count)),
            seeds=tuple(seeds),
            disturbance=disturbance if actor.take_over is None else replace(disturbance, displaced_frac=0.0),
            refused=refused,
            actor=actor,
        )
        of_tasks.append(_blocks(whole))
    longest = max(map(len, of_tasks), default=0)
    return [blocks[place] for place in range(longest) for blocks in of_tasks if place < len(blocks)]


def _blocks(job: Job) -> list[Job]:
    """Return what is missing of a job, in blocks; raises as `_is_done` does."""
    size = SHORT_BLOCK.get(job.bench, BLOCK)
    pairs = zip(job.numbers, job.seeds, strict=True)
    missing = [(number, seed) for number, seed in pairs if not _is_done(job, number, seed)]
    parts = [missing[place : place + size] for place in range(0, len(missing), size)]
    return [replace(job, numbers=tuple(n for n, _ in part), seeds=tuple(seed for _, seed in part)) for part in parts]


def _is_done(job: Job, number: int, seed: int) -> bool:
    """Return whether an episode is there, or is known to give nothing; one with a broken JSON is recorded again.

    Raises:
        BadConfig: If one is there under its number that was recorded otherwise.
    """
    path = job.root / "data" / f"{episode_key(number)}.json"
    if (stored := read_about(path)) is None:
        return (job.root / FAILED / episode_key(number)).exists()
    for name, (was, now) in stored.differences(about_of(job, seed), ignore=("env", "success")).items():
        raise BadConfig(
            f"{path} was recorded otherwise: {name} was {was!r}, and is {now!r} now. "
            f"Record into another folder, or beside it, under other numbers (--first-number)."
        )
    return True


def about_of(job: Job, seed: int) -> EpisodeAbout:
    """Return what an episode says about itself, as far as it is known before it is recorded."""
    actor = job.actor
    return EpisodeAbout(
        bench=job.bench,
        protocol=job.protocol,
        task=job.task,
        setting=job.setting,
        settings=dict(job.settings),
        seed=seed,
        policy=HoldPlugin.name if job.refused else ScriptedPlugin.name if actor.shows_expert else actor.policy,
        disturbance=asdict(job.disturbance) if actor.shows_expert else None,
        policy_settings=dict(actor.settings) if actor.policy != ScriptedPlugin.name else None,
        takes_over_from=actor.policy if actor.take_over is not None else None,
        after_up_to=actor.take_over,
    )


def _config(bench: Bench, settings: Mapping[str, Any]) -> Any:
    """Return the bench's configuration.

    Raises:
        BadConfig: If it has no such setting; or if it has art to choose, which demonstrations show, and none is chosen.
    """
    config = configured(f"Bench '{bench.name}'", bench.config_type, settings)
    if hasattr(config, "art") and "art" not in settings:
        raise BadConfig(f"Say what the demonstrations of '{bench.name}' show: --set art=real, or art=placeholder.")
    return config


def demonstration_seeds(bench_name: str, first_seed: int) -> Iterator[int]:
    """Yield the seeds for demonstrations of a bench, from one on.

    Example:
        >>> list(islice(demonstration_seeds("robocasa", 100_095), 3)), next(demonstration_seeds("robosuite", 0))
        ([100095, 100097, 100098], 0)
    """
    published = PUBLISHED_SEEDS.get(bench_name, lambda seed: False)
    return (seed for seed in range(first_seed, DEMONSTRATION_SEEDS.stop) if not published(seed))


def _seeds(bench_name: str, task: str, first_seed: int, count: int, most: int) -> list[int]:
    """Return so many seeds.

    Raises:
        BadConfig: If there are fewer.
    """
    if not (0 < count <= most and first_seed in DEMONSTRATION_SEEDS):
        raise BadConfig(f"{task}: 1 to {most} episodes can be recorded, {count} from seed {first_seed} cannot.")
    seeds = list(islice(demonstration_seeds(bench_name, first_seed), count))
    if len(seeds) < count:
        raise BadConfig(f"{task}: {count} seeds from {first_seed} on leave those of demonstrations.")
    return seeds


def _first_number(bench: Bench, task: str, refuse: str | None) -> int:
    """Return the number of the first episode of a task's demonstrations, or of its refusals of one kind."""
    tasks = sorted(bench.tasks)
    start = tasks.index(task) * EPISODES_PER_TASK
    if refuse is None:
        return start
    return start + FIRST_REFUSAL + REFUSALS * [ANYTHING, *tasks].index(refuse)
