"""Demonstrations of the scripted experts as a data set: `python -m baselines.scripted.record DIR Lift=200 Door=200`.

In: tasks with their numbers of episodes. Out: a data set in the released layout; run again, it does what is missing.
Read next: `demonstrate.py`, one of them; `xwam/data/writer.py`, the layout.

Seeds are none of an evaluation's. An expert that fails costs its seed, which is named and counted; the episode is not
kept. A bench whose simulator needs another interpreter, RoboCasa, is driven in a process there. With `--refuse` the
robot is told what cannot be done in the scene, anything or one task alone, and stands still: from those a learner
learns to listen. With `--policy` another policy acts, and what it does is kept whether or not it succeeds: for what
reads the future off a trained network (`train_only`, `xwam train-decoder`), not to learn actions from. With
`--take-over N` the expert takes over from it after up to N steps, and only what the expert does from there is kept,
to learn actions from: a way back from the policy's own mistakes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.progress import Progress

from baselines.arguments import configured, settings_of
from baselines.env_process import EnvProcessError
from baselines.floors import HoldPlugin
from baselines.scripted.demonstrate import CALM, Disturbance, Learner, Rollout, demonstrate, refuse, rollout
from baselines.scripted.policy import ScriptedConfig, ScriptedPlugin
from baselines.scripted.refusals import ANYTHING, EPISODES_PER_TASK, FIRST_REFUSAL, REFUSALS, impossible
from baselines.scripted.remote_env import RemoteEnv
from evalkit.contracts.env import Bench, Env, WorkerLaunch
from evalkit.contracts.errors import BadConfig, EpisodeFault, EvalkitError
from evalkit.contracts.plugins import load_bench, load_policy, make_policy
from evalkit.contracts.policy import Policy
from evalkit.contracts.spec import EnvSpec, check
from evalkit.contracts.types import Episode
from xwam.benches import BORDERS
from xwam.config import NANO
from xwam.data.writer import Recording, View, episode_key, write_episode, write_metadata

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
            refused=impossible(bench, config, task, setting, refuse) if refuse is not None else (),
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
    """Return whether an episode is there, or is known to give nothing.

    Raises:
        BadConfig: If one is there under its number that was recorded otherwise.
    """
    path = job.root / "data" / f"{episode_key(number)}.json"
    if not path.exists():
        return (job.root / FAILED / episode_key(number)).exists()
    for name, (was, now) in differences(path, about_of(job, seed), besides={"env", "success"}).items():
        raise BadConfig(
            f"{path} was recorded otherwise: {name} was {was!r}, and is {now!r} now. "
            f"Record into another folder, or beside it, under other numbers (--first-number)."
        )
    return True


def differences(path: Path, about: Mapping[str, Any], *, besides: Set[str]) -> dict[str, tuple[Any, Any]]:
    """Return where an episode's JSON says something else of itself than it would now: by name, what was and what is.

    Args:
        path: The JSON.
        about: What it would say, known before it is made.
        besides: What is only known once it is made.
    """
    there, now = json.loads(path.read_text())["about"], json.loads(json.dumps(about))
    names = sorted((there.keys() | now.keys()) - besides)
    return {name: (there.get(name), now.get(name)) for name in names if there.get(name) != now.get(name)}


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


def record_block(job: Job) -> Iterator[bool]:
    """Record the episodes of a job; yield whether each was kept.

    Raises:
        EvalkitError: If the env cannot be built, its process fails, or the policy does not fit it.
    """
    bench = load_bench(job.bench)
    config = bench.config_type(**dict(job.settings))
    policy, learner = job.actor.make(), None
    if job.actor.take_over is not None:
        policy, learner = ScriptedPlugin().make(ScriptedConfig()), Learner(policy, job.actor.take_over)
    (model,) = bench.plan_episodes(config, task=job.task, setting=job.setting, num_episodes=1, seed=0)
    with closing(_env(bench.launch(config, task=job.task, setting=job.setting))) as env:
        check(env.spec, policy.spec)
        if learner:
            check(env.spec, learner.policy.spec)
        recording = replace(recording_of(env.spec), axes=BORDERS[job.bench].axes)
        for number, seed in zip(job.numbers, job.seeds, strict=True):
            episode = replace(model, index=number, seed=seed, max_steps=job.actor.max_steps or model.max_steps)
            done = _done_by(policy, learner, env, episode, job)
            if done is None:
                failed = job.root / FAILED / episode_key(number)
                failed.parent.mkdir(parents=True, exist_ok=True)
                failed.touch()
            else:
                told = job.refused or (str(env.observe(render=False)["instruction"]),)
                about = about_of(job, seed) | {"env": dict(env.about), "success": done.success}
                write_episode(job.root, number, done.steps, recording, instructions=told, about=about)
            yield done is not None


def _env(launch: WorkerLaunch) -> Env:
    """Return an env in this process, or in one of the interpreter that its simulator needs."""
    if launch.python != sys.executable:
        return RemoteEnv(launch)
    os.environ.update(launch.environ)
    module, _, attribute = launch.target.partition(":")
    try:
        env: Env = getattr(importlib.import_module(module), attribute)(**launch.kwargs)
    except (ImportError, RuntimeError) as error:
        raise EvalkitError(f"The env cannot be built: {error}.") from error
    return env


def _done_by(policy: Policy, learner: Learner | None, env: Env, episode: Episode, job: Job) -> Rollout | None:
    """Return what to keep of an episode; None if the expert failed, nothing was to do, or the simulation blew up."""
    try:
        if job.refused:
            steps = refuse(env, policy, episode, job.disturbance)
        elif job.actor.shows_expert:
            steps = demonstrate(env, policy, episode, job.disturbance, learner=learner)
        else:
            return rollout(env, policy, episode)
    except FloatingPointError:
        return None
    return None if steps is None else Rollout(steps, success=not job.refused)


def recording_of(spec: EnvSpec) -> Recording:
    """Return how an env is recorded; views are numbered, because data sets are read in the order of their names."""
    kinds = {"static": "static", "wrist": "dynamic"}
    return Recording(
        views=tuple(
            View(name=f"{index}_{camera.name}", kind=kinds[camera.kind])  # type: ignore[arg-type]
            for index, camera in enumerate(spec.cameras)
        ),
        arms=spec.arms,
        layout=spec.action_layout,
        control_hz=spec.control_hz,
        depth_range=NANO.depth_range,
    )


def about_of(job: Job, seed: int) -> dict[str, Any]:
    """Return what an episode says of itself, known before it is recorded."""
    actor = job.actor
    about: dict[str, Any] = {
        "bench": job.bench,
        "protocol": job.protocol,
        "task": job.task,
        "setting": job.setting,
        "settings": dict(job.settings),
        "seed": seed,
        "policy": HoldPlugin.name if job.refused else ScriptedPlugin.name if actor.shows_expert else actor.policy,
    }
    if actor.shows_expert:
        about["disturbance"] = asdict(job.disturbance)
    if actor.policy != ScriptedPlugin.name:
        about["policy_settings"] = dict(actor.settings)
    if actor.take_over is not None:
        about |= {"takes_over_from": actor.policy, "after_up_to": actor.take_over}
    return about


def _count_block(job: Job) -> tuple[int, int]:
    """Record a job; return how many succeeded, and how many there were."""
    results = list(record_block(job))
    return sum(results), len(results)


def record(todo: Sequence[Job], *, workers: int) -> tuple[int, int, list[str]]:
    """Record all jobs, several at a time, each in a process of its own.

    Returns:
        How many episodes were kept, how many tried, and which simulators failed, whose rest is left for another time.

    Raises:
        EvalkitError: As `record_block` does; what was not begun yet is not begun any more.
        BrokenProcessPool: If a process was killed.
    """
    kept = tried = 0
    reasons: list[str] = []
    with (
        Progress() as progress,
        ProcessPoolExecutor(workers, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool,
    ):
        bar = progress.add_task("episodes", total=sum(len(job.seeds) for job in todo))
        futures = {pool.submit(_count_block, job): job for job in todo}
        try:
            for future in as_completed(futures):
                job = futures[future]
                try:
                    found = future.result()
                except EnvProcessError as error:
                    reasons.append(f"{job.task}, from seed {job.seeds[0]} on: {error}. It will be tried again.")
                else:
                    kept, tried = kept + found[0], tried + found[1]
                progress.update(bar, advance=len(job.seeds))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return kept, tried, reasons


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m baselines.scripted.record",
        description="Record demonstrations of the scripted experts as a data set, or what another policy does; run "
        "again, it does what is missing.",
        epilog="Examples: python -m baselines.scripted.record data/lift Lift=200 Door=200 --workers 2 · "
        "python -m baselines.scripted.record data/lift Lift=100 --refuse anything · "
        "python -m baselines.scripted.record data/kitchen CloseDrawer=100 --bench robocasa --set art=real · "
        "python -m baselines.scripted.record data/own Lift=40 Door=40 --policy xwam --policy-set execute_steps=32 · "
        "python -m baselines.scripted.record data/lift Stack=100 --policy xwam --take-over 200",
    )
    parser.add_argument("root", type=Path, help="folder of the data set")
    parser.add_argument("tasks", nargs="+", metavar="TASK=EPISODES")
    parser.add_argument("--bench", default="robosuite")
    parser.add_argument("--setting", default="default")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of the bench, e.g. art=placeholder"
    )
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument(
        "--first-number",
        type=int,
        default=0,
        help="where each task's numbers of episodes begin, to add what is recorded otherwise to a data set",
    )
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--policy",
        default=ScriptedPlugin.name,
        metavar="NAME",
        help="who acts; what any other than the scripted experts does is kept even where it fails",
    )
    parser.add_argument("--policy-set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of the policy")
    parser.add_argument("--max-steps", type=int, metavar="N", help="longest episode; the bench's own unless given")
    parser.add_argument(
        "--take-over",
        type=int,
        metavar="N",
        help="after up to N steps of the policy the expert takes over; only what the expert does is kept",
    )
    parser.add_argument("--calm", action="store_true", help="do not push the expert about")
    parser.add_argument(
        "--refuse",
        metavar="TASK",
        help=f"tell the robot to do a task that cannot be done in the scene, or {ANYTHING} such; it stands still",
    )
    options = parser.parse_args(arguments)
    try:
        todo = jobs(
            options.root,
            options.bench,
            _wanted(options.tasks),
            setting=options.setting,
            settings=settings_of(options.set),
            first_seed=options.first_seed,
            first_number=options.first_number,
            disturbance=CALM if options.calm else Disturbance(),
            refuse=options.refuse,
            actor=Actor(
                policy=options.policy,
                settings=tuple(settings_of(options.policy_set).items()),
                max_steps=options.max_steps,
                take_over=options.take_over,
            ),
        )
    except (EvalkitError, ValueError) as error:
        print(f"record: {error}", file=sys.stderr)
        return 2
    try:
        kept, tried, reasons = record(todo, workers=options.workers)
    except (EvalkitError, EpisodeFault, ValueError) as error:
        print(f"record: {error}", file=sys.stderr)
        return 2
    except BrokenProcessPool:
        print(
            "record: a process was killed, perhaps for memory; fewer --workers, and the same command again.",
            file=sys.stderr,
        )
        return 2
    finally:
        lengths = write_metadata(options.root)
    for reason in reasons:
        print(f"not recorded: {reason}")
    nothing = sum(1 for path in (options.root / FAILED).rglob("episode_*"))
    print(
        f"{options.root}: {kept} of {tried} recorded now; {len(lengths)} episodes in all, {nothing} seeds gave nothing"
    )
    print(json.dumps({"frames": sum(lengths.values())}))
    return 1 if reasons else 0


def _wanted(pairs: Sequence[str]) -> dict[str, int]:
    wanted = {}
    for pair in pairs:
        task, found, count = pair.partition("=")
        if not found or not count.isdigit():
            raise BadConfig(f"'{pair}' must be a task and its number of episodes, for example Lift=200.")
        wanted[task] = int(count)
    return wanted


if __name__ == "__main__":
    raise SystemExit(main())
