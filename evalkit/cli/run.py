"""The verb `run`: carry out a plan.

In: a bench, a policy, settings. Out: a run folder with records, clips and videos.
Read next: `evalkit/run/runner.py`, which runs the episodes; `score.py` for the next verb.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress
from rich.text import Text

from evalkit.cli.options import (
    BenchName,
    Call,
    Episodes,
    Overrides,
    PolicyName,
    Seed,
    Setting,
    Tasks,
    plan_call,
)
from evalkit.cli.plan import print_plan
from evalkit.console import out, progress_bar
from evalkit.contracts import plugins
from evalkit.contracts.errors import BadConfig, EpisodeFault, EvalkitError
from evalkit.contracts.text import count_of, sentence_kind

if TYPE_CHECKING:
    from evalkit.run.choice import Shard
    from evalkit.run.trial import Trial
    from evalkit.store.plan import Plan
    from evalkit.store.records import EpisodeRecord, Outcome
    from evalkit.store.run_folder import RunFolder

COLOURS = {"success": "green", "failure": "yellow", "error": "red", "skipped": "blue"}

RETRIABLE: dict[str, Outcome] = {"error": "error", "skipped": "skipped"}
"""Outcomes that are no results, so that their episodes may run again."""


class Interrupted(EvalkitError):
    """The user stopped a run or a vetting.

    Args:
        kept: What is kept, for example `The records in results/runs/mine`.
    """

    def __init__(self, kept: str) -> None:
        super().__init__(f"Interrupted. {kept} are kept; run the same command again to continue.")


def run(
    policy: PolicyName = "xwam",
    bench: BenchName = "robosuite",
    setting: Setting = None,
    tasks: Tasks = "",
    episodes: Episodes = 100,
    seed: Seed = 0,
    to: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Run folder. [default: results/runs/ and a name derived from the plan]",
            show_default=False,
        ),
    ] = None,
    retry: Annotated[
        str,
        typer.Option(
            "--retry",
            metavar="OUTCOME,...",
            help="Run episodes again that ended as `error`, `skipped` or both (`error,skipped`); their records move to "
            "`retried.jsonl`.",
            show_default=False,
        ),
    ] = "",
    shard: Annotated[
        str,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Run only part I of N parts of the plan, for example 1/4; `evalkit merge` joins them. [default: all]",
            show_default=False,
        ),
    ] = "",
    execution: Annotated[
        str,
        typer.Option(
            "--execution",
            metavar="WHERE",
            help="`local`: processes of this machine; `ray`: actors of a Ray cluster (run.ray_address).",
        ),
    ] = "local",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show the plan, try two episodes, estimate the total time; keep nothing."),
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Run a policy on a bench and record every episode.

    Write a run folder: `plan.json`, `run.json`, one record per episode (`episodes.jsonl`), clips that hold predictions
    and ground truth (`clips/`), and videos (`videos/`). The same command again runs only the missing episodes. An
    episode that fails for a technical reason gets an `error` record; the run continues, unless
    `run.stop_after_equal_errors` episodes in a row end in the same error. An episode whose scene needs a file that is
    not installed gets a `skipped` record. `--retry` runs both kinds again. Exit with 0 only if every planned episode
    (with `--shard`, of that part) has a record; with 2 if the arguments are wrong, the run stopped early, or no episode
    ended in success or failure; with 130 if the run was interrupted.

    Examples:

    - `evalkit run --tasks Lift --episodes 2 --out results/runs/mine`
    - `evalkit run --policy scripted --bench robosuite --tasks Lift,Door --episodes 10 --out results/runs/theirs`
    - `evalkit run --policy xwam --bench robosuite --tasks Lift --setting randomized run.workers=2`
    - `evalkit run --policy remote --bench robosuite --tasks Lift policy.remote.url=ws://host:8000`
    - `evalkit run --tasks Lift --episodes 2 --out results/runs/mine --retry error,skipped`
    - `evalkit run --tasks Lift,Door --episodes 50 --shard 1/4 --out results/runs/part1`
    - `evalkit run --tasks Lift --episodes 100 run.clips=0.1 run.video=false`
    - `evalkit run --tasks Lift,Door --execution ray run.ray_address=10.0.0.1:6379 run.workers=16 run.servers=2`
    - `evalkit run --dry-run`
    """
    from evalkit.run.choice import WHOLE, Shard
    from evalkit.run.executors.choice import check_execution

    check_execution(execution)
    outcomes, part = _outcomes(retry), Shard.parse(shard) if shard else WHOLE
    call = plan_call(policy, bench, setting, tasks, episodes, seed, overrides, dry_run=dry_run)
    path = to or default_path(call.plan)
    print_plan(call)
    if shard:
        out.print(f"shard    {part}, {count_of(len(part.of(call.plan.episodes)), 'episode')}")
    if dry_run:
        _estimate(call)
    else:
        out.print(f"folder   {path}", soft_wrap=True)
        _run(call, path, outcomes, part, execution)


def default_path(plan: Plan) -> Path:
    """Return the run folder of a plan that was given none; the name holds what follows a + in the protocol's name."""
    mark = "".join(f"-{part}" for part in plan.protocol.split("+")[1:])
    return Path("results/runs") / f"{plan.bench.name}-{plan.policy.name}-{plan.setting}{mark}-{plan.sha256[:8]}"


def duration(seconds: float) -> str:
    """Return a duration in the largest unit of which it holds one.

    Example:
        >>> duration(12.3), duration(90), duration(5400)
        ('12 s', '1.5 minutes', '1.5 hours')
    """
    for name, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {name}"
    return f"{max(seconds, 1):.0f} s"


def _outcomes(retry: str) -> list[Outcome]:
    """Return the outcomes that `--retry` names.

    Raises:
        BadConfig: If one is not an outcome that can be tried again.

    Example:
        >>> _outcomes("error,skipped"), _outcomes("")
        (['error', 'skipped'], [])
    """
    outcomes: list[Outcome] = []
    for name in filter(None, (part.strip() for part in retry.split(","))):
        if name not in RETRIABLE:
            raise BadConfig(f"--retry takes error and skipped, got '{name}': successes and failures are results.")
        outcomes.append(RETRIABLE[name])
    return outcomes


def _estimate(call: Call) -> None:
    """Try an episode near each end of the plan, and print how long the whole plan would take."""
    from evalkit.run.trial import Trial, estimate_seconds, try_ends

    trial = Trial(bench=call.bench, plan=call.plan, policy=call.policy.load(), settings=call.run)
    with progress_bar() as progress:
        progress.add_task("trial episodes", total=None)
        try:
            paces = try_ends(trial)
        except EpisodeFault as fault:
            raise EvalkitError(f"A trial episode failed: {fault.reason}") from fault
    for reason, episodes in paces.reasons.items():
        keys = ", ".join(episode.key for episode in episodes)
        out.print(Text.assemble(("cannot be tried ", "yellow"), f"{keys}: {reason}"), soft_wrap=True)
    if not paces.measured:
        _estimate_policy(trial)
        return
    seconds = estimate_seconds(call.plan, list(paces.measured.values()), call.run)
    out.print(
        f"estimate at most {duration(seconds)} with run.workers={call.run.workers} if every episode reaches its step "
        "limit; tried "
        + ", ".join(f"{e.key} ({p.wall_s / p.steps:.2f} s per step)" for e, p in paces.measured.items()),
        soft_wrap=True,
    )


def _estimate_policy(trial: Trial) -> None:
    """Print how long the policy alone would take, where no episode can be tried."""
    from evalkit.run.trial import estimate_seconds, measure_policy

    try:
        pace = measure_policy(trial)
    except EpisodeFault as fault:
        raise EvalkitError(f"The policy failed on an observation of noise: {fault.reason}") from fault
    if pace is None:
        sentence = "hours are unknown: no episode could be tried, and the policy reads the simulator's state"
        out.print(f"estimate {sentence}", soft_wrap=True)
        return
    out.print(
        f"estimate at most {duration(estimate_seconds(trial.plan, [pace], trial.settings))} for the policy alone "
        f"({pace.policy_s:.2f} s per chunk of {pace.steps} steps, on an observation of noise) if every episode reaches "
        "its step limit; the simulator's share is unknown, because no episode could be tried",
        soft_wrap=True,
    )


def _run(call: Call, path: Path, retry: Collection[Outcome], shard: Shard, where: str) -> None:
    from evalkit.report.render_console import render_console
    from evalkit.report.write import build_report
    from evalkit.run.executors.choice import executing
    from evalkit.run.lane import Job
    from evalkit.run.runner import missing_episodes, run_session, write_rollouts
    from evalkit.store.run_folder import HeldRun

    with HeldRun(path, call.plan) as folder:
        if num_moved := folder.retry(retry):
            out.print(f"{count_of(num_moved, 'record')} moved to {path / 'retried.jsonl'}", soft_wrap=True)
        planned = shard.of(call.plan.episodes)
        if not missing_episodes(folder, shard):
            which = "Every planned episode" if len(planned) == len(call.plan.episodes) else f"Every episode of {shard}"
            out.print(f"{which} is recorded; nothing to do.{_advice(folder)}", soft_wrap=True)
        else:
            with (
                _interruptible(folder),
                executing(where, call.policy, folder, call.run) as execution,
                progress_bar("successes {task.fields[successes]}") as progress,
            ):

                def on_retry(sentence: str) -> None:
                    progress.console.print(Text(sentence, style="yellow"), soft_wrap=True)

                job = Job(
                    folder=folder,
                    bench=call.bench,
                    policy=execution.policy,
                    settings=call.run,
                    shard=shard,
                    on_retry=on_retry,
                )
                done = [record for record in folder.records() if record.key in {each.key for each in planned}]
                run_session(job, _on_record(progress, done, len(planned)), execution.make_executor, **execution.facts)
            for sentence in job.memory.describe(call.run.worker_memory_bytes):
                out.print(Text(sentence, style="yellow"), soft_wrap=True)
        rollouts = write_rollouts(folder, call.run)
        out.print(render_console(build_report([folder.path])))
        if rollouts is not None:
            out.print(Text(rollouts.sentence, style="yellow" if rollouts.gaps else ""), soft_wrap=True)
        lerobot = f"; LeRobot data set: {call.run.rollouts}" if rollouts is not None and rollouts.num_episodes else ""
        out.print(f"{_written(folder)}: {folder.path}{lerobot}", soft_wrap=True)
        if missing := missing_episodes(folder, shard):
            raise EvalkitError(f"{count_of(len(missing), 'planned episode')} without a record; run the command again.")
        _check_results(folder.records(), call.plan.bench.name)


@contextmanager
def _interruptible(folder: RunFolder) -> Iterator[None]:
    """Raise Interrupted on Ctrl-C and SIGTERM."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"The records in {folder.path}") from None


def _check_results(records: Sequence[EpisodeRecord], bench: str) -> None:
    """Raise EvalkitError if no episode ended in success or failure."""
    if any(record.outcome not in RETRIABLE for record in records) or not records:
        return
    skipped = [record for record in records if record.outcome == "skipped"]
    if len(skipped) < len(records):
        raise EvalkitError("No planned episode ended in success or failure; the records above give the reasons.")
    doctor = f"evalkit doctor {bench}" if bench in plugins.names(plugins.BENCHES) else "evalkit doctor"
    raise EvalkitError(
        f"Every episode was skipped, because assets are missing ({skipped[0].key}: {skipped[0].reason}) "
        f"Run `{doctor}` to see what is missing, install it, then add --retry skipped to the same command."
    )


def _advice(folder: RunFolder) -> str:
    """Return how to repeat the episodes without a result; empty where there are none."""
    outcomes = [name for name in RETRIABLE if any(record.outcome == name for record in folder.records())]
    if not outcomes:
        return ""
    number = sum(record.outcome in outcomes for record in folder.records())
    return f" To repeat {count_of(number, 'episode')} without a result, add --retry {','.join(outcomes)}."


OUTPUTS = ("clips", "videos", "steps", "rollouts")
"""Folders of a run folder that its settings ask for."""


def _written(folder: RunFolder) -> str:
    """Return the names of what a run folder holds."""
    names = ["records", *(name for name in OUTPUTS if (folder.path / name).is_dir())]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _on_record(progress: Progress, done: list[EpisodeRecord], total: int) -> Callable[[EpisodeRecord], None]:
    """Return a listener that moves the bar and prints a line for each record, and each kind of warning once."""
    successes = sum(record.outcome == "success" for record in done)
    warned: set[str] = set()
    bar = progress.add_task("episodes", total=total, completed=len(done), successes=successes)

    def on_record(record: EpisodeRecord) -> None:
        nonlocal successes
        successes += record.outcome == "success"
        progress.update(bar, advance=1, successes=successes)
        blame = f" ({record.blame})" if record.blame else ""
        tail = f"{blame} {record.reason}" if record.reason else ""
        if record.success_after_settling is False:
            tail = ", the goal no longer holds after settling"
        seconds = record.timings_s.get("wall", 0.0)
        line = f"{record.key}  {record.steps} steps, {seconds:.1f} s{tail}"
        progress.console.print(Text.assemble((f"{record.outcome:<8}", COLOURS[record.outcome]), line), soft_wrap=True)
        for warning in record.warnings:
            kind = sentence_kind(warning, task=record.task)
            if kind not in warned:
                progress.console.print(Text(warning, style="yellow"), soft_wrap=True)
            warned.add(kind)

    return on_record
