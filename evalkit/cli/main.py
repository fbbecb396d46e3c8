"""The verbs: list, plan, check, run, doctor; and score, report, view.

In: a command line. Out: a run folder and what people read; exit code 0, or one sentence and exit code 2.
Read next: `evalkit/store/plan.py`, `evalkit/run/runner.py`, in the order in which `run` calls them;
`results.py` for the verbs that only read a run.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from evalkit.cli import results
from evalkit.config import Config, load_config
from evalkit.console import err, out, progress_bar
from evalkit.contracts import plugins
from evalkit.contracts.env import Bench
from evalkit.contracts.errors import BadConfig, EpisodeFault, EvalkitError
from evalkit.contracts.policy import PolicyPlugin
from evalkit.run.settings import RunSettings
from evalkit.store.plan import Plan, make_plan
from evalkit.store.records import EpisodeRecord

app = typer.Typer(
    name="evalkit",
    help="Evaluate world action models: how well they act, and how well they imagine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.command()(results.score)
app.command()(results.report)
app.command()(results.view)

PolicyName = Annotated[str, typer.Option("--policy", help="A policy's name, or module:attribute of a plugin.")]
BenchName = Annotated[str, typer.Option("--bench", help="A bench's name, or module:attribute of a plugin.")]
Setting = Annotated[str | None, typer.Option("--setting", help="One of the bench's settings; the first if not given.")]
Tasks = Annotated[str, typer.Option("--tasks", help="Task names with commas between; all if not given.")]
Episodes = Annotated[int, typer.Option("--episodes", help="Episodes a task.")]
Seed = Annotated[int, typer.Option("--seed", help="Derives every episode's seed.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Hydra overrides, for example `run.workers=2`.", show_default=False),
]


class Interrupted(EvalkitError):
    """The user stopped a run."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"Interrupted. What is recorded in {path} stays; run the same command again to go on.")


@dataclass(frozen=True, kw_only=True)
class _Call:
    """What a command line asks for, looked up and planned."""

    bench: Bench
    policy: PolicyPlugin
    config: Config
    plan: Plan


def _call(
    policy: str,
    bench: str,
    setting: str | None,
    tasks: str,
    episodes: int,
    seed: int,
    overrides: list[str] | None,
) -> _Call:
    bench_plugin, policy_plugin = plugins.load_bench(bench), plugins.load_policy(policy)
    config = load_config(bench_plugin, policy_plugin, overrides or [])
    plan = make_plan(
        bench_plugin,
        config.bench,
        policy_plugin,
        config.policy,
        tasks=_names(tasks),
        setting=setting,
        num_episodes=episodes,
        seed=seed,
        max_steps=config.max_steps,
    )
    return _Call(bench=bench_plugin, policy=policy_plugin, config=config, plan=plan)


def _names(tasks: str) -> list[str]:
    names = [name.strip() for name in tasks.split(",")] if tasks else []
    if "" in names:
        raise BadConfig(f"--tasks takes names with commas between, got '{tasks}'.")
    return names


@app.command("list")
def list_(
    bench: Annotated[str | None, typer.Option("--bench", help="Show this bench's tasks and settings.")] = None,
    policy: Annotated[str | None, typer.Option("--policy", help="Show this policy's settings.")] = None,
) -> None:
    """Show benches and policies; with --bench or --policy, what each offers.

    Examples: `evalkit list` · `evalkit list --bench robosuite` · `evalkit list --policy xwam`
    """
    if bench is None and policy is None:
        for kind, group, load in (
            ("bench", plugins.BENCHES, plugins.load_bench),
            ("policy", plugins.POLICIES, plugins.load_policy),
        ):
            table = Table(kind, "what it is", box=None, pad_edge=False)
            for name in plugins.names(group):
                table.add_row(name, _summary(load, name))
            out.print(table)
            out.print()
        return
    if bench is not None:
        found = plugins.load_bench(bench)
        out.print(f"{found.name}: {found.summary}", style="bold")
        out.print(f"protocol  {found.protocol}")
        out.print(f"settings  {', '.join(found.settings)}")
        out.print(f"tasks     {', '.join(found.tasks)}")
        _print_settings(f"bench.{found.name}", found.config_type)
    if policy is not None:
        plugin = plugins.load_policy(policy)
        out.print(f"{plugin.name}: {plugin.summary}", style="bold")
        _print_settings(f"policy.{plugin.name}", plugin.config_type)
    out.print("for every bench and policy", style="bold")
    out.print("key       bench.max_steps=null")
    _print_settings("run", RunSettings)


@app.command()
def plan(
    policy: PolicyName = "xwam",
    bench: BenchName = "robosuite",
    setting: Setting = None,
    tasks: Tasks = "",
    episodes: Episodes = 100,
    seed: Seed = 0,
    to: Annotated[Path | None, typer.Option("--out", help="Write plan.json here instead of showing it.")] = None,
    overrides: Overrides = None,
) -> None:
    """Fix every choice of a run and show it; the same arguments give the same hash.

    Example: `evalkit plan --policy scripted --bench robosuite --tasks Lift --episodes 10`
    """
    call = _call(policy, bench, setting, tasks, episodes, seed, overrides)
    _print_plan(call.plan)
    if to is not None:
        from evalkit.store.files import write_whole

        write_whole(to, call.plan.to_bytes())
        out.print(f"written to {to}")


@app.command()
def check(
    policy: PolicyName = "xwam",
    bench: BenchName = "robosuite",
    setting: Setting = None,
    tasks: Tasks = "",
    seed: Seed = 0,
    static: Annotated[bool, typer.Option("--static", help="Compare the specs only; start no simulator.")] = False,
    overrides: Overrides = None,
) -> None:
    """Check that a policy fits a bench: specs first, then one env a task started, reset, and moved by one chunk.

    Example: `evalkit check --policy xwam --bench robosuite --tasks Lift,Door`
    """
    call = _call(policy, bench, setting, tasks, 1, seed, overrides)
    out.print(f"The specs fit: policy '{policy}' on {len(call.plan.tasks)} tasks of '{bench}'.")
    if static:
        return
    from evalkit.run.trial import try_task

    loaded = plugins.make_policy(call.policy, call.config.policy)
    failed = []
    for episode in call.plan.episodes:
        try:
            seconds = try_task(call.bench, call.config.bench, call.plan, episode, loaded, call.config.run)
            out.print(Text.assemble(("ok     ", "green"), f"{episode.task}: reset and one chunk in {seconds:.1f} s"))
        except (EpisodeFault, EvalkitError) as problem:
            failed.append(episode.task)
            out.print(Text.assemble(("error  ", "red"), f"{episode.task}: {problem}"), soft_wrap=True)
    if failed:
        raise EvalkitError(f"{len(failed)} of {len(call.plan.tasks)} tasks do not work: {', '.join(failed)}.")


@app.command()
def run(
    policy: PolicyName = "xwam",
    bench: BenchName = "robosuite",
    setting: Setting = None,
    tasks: Tasks = "",
    episodes: Episodes = 100,
    seed: Seed = 0,
    to: Annotated[
        Path | None, typer.Option("--out", help="Run folder; a name made of the plan under results/runs if not given.")
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Show the plan, try two of its episodes, tell how long all would take, and keep nothing."
        ),
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Run a plan; the same command again does only what is missing.

    Examples: `evalkit run --policy scripted --bench robosuite --tasks Lift,Door --episodes 10` ·
    `evalkit run --policy xwam --bench robosuite --tasks Lift --setting randomized run.workers=2` ·
    `evalkit run --policy xwam --bench robocasa --dry-run bench.robocasa.protocol=xwam`
    """
    call = _call(policy, bench, setting, tasks, episodes, seed, overrides)
    path = to or _default_path(call.plan)
    _print_plan(call.plan)
    out.print(f"folder   {path}")
    if dry_run:
        _estimate(call)
    else:
        _run(call, path)


def _estimate(call: _Call) -> None:
    """Try the first episode and the last, and say what the whole plan would take."""
    from evalkit.run.trial import estimate_hours, measure_pace

    tried = list(dict.fromkeys((call.plan.episodes[0], call.plan.episodes[-1])))
    loaded, workers = plugins.make_policy(call.policy, call.config.policy), call.config.run.workers
    paces = []
    for episode in tried:
        try:
            paces.append(measure_pace(call.bench, call.config.bench, call.plan, episode, loaded, call.config.run))
        except EpisodeFault as fault:
            raise EvalkitError(f"{episode.key} cannot be tried: {fault.reason}") from fault
    hours = estimate_hours(call.plan, paces, workers=workers)
    out.print(
        f"estimate at most {hours:.1f} hours with run.workers={workers}, every episode up to its limit; tried "
        + ", ".join(f"{e.key} ({p.wall_s / p.steps:.2f} s a step)" for e, p in zip(tried, paces, strict=True))
    )


def _run(call: _Call, path: Path) -> None:
    from evalkit.report.read import read_run
    from evalkit.report.render_console import renderables
    from evalkit.run.runner import Job, missing_episodes, run_missing
    from evalkit.store.about import begin_session, end_session
    from evalkit.store.run_folder import HeldRun

    with HeldRun(path, call.plan) as folder:
        missing = missing_episodes(folder)
        if not missing:
            out.print("Every planned episode is recorded; nothing to do.")
        else:
            begin_session(folder, call.config.run)
            job = Job(
                folder=folder,
                bench=call.bench,
                bench_config=call.config.bench,
                policy=plugins.make_policy(call.policy, call.config.policy),
                settings=call.config.run,
            )
            with progress_bar("successes {task.fields[successes]}") as progress:
                try:
                    run_missing(job, _on_record(progress, folder.records(), len(call.plan.episodes)))
                except KeyboardInterrupt:
                    raise Interrupted(folder.path) from None
            end_session(folder)
        out.print(*renderables([read_run(folder.path)]))
        out.print(f"records, clips and videos: {folder.path}")
        if all(record.outcome in ("error", "skipped") for record in folder.records()):
            raise EvalkitError("No planned episode gave a result; the reasons stand above.")


def _on_record(progress: Progress, done: list[EpisodeRecord], total: int) -> Callable[[EpisodeRecord], None]:
    """Return a listener that moves the bar and prints a line for each record."""
    successes = sum(record.outcome == "success" for record in done)
    bar = progress.add_task("episodes", total=total, completed=len(done), successes=successes)
    colours = {"success": "green", "failure": "yellow", "error": "red", "skipped": "blue"}

    def on_record(record: EpisodeRecord) -> None:
        nonlocal successes
        successes += record.outcome == "success"
        progress.update(bar, advance=1, successes=successes)
        tail = f" ({record.blame}) {record.reason}" if record.reason else ""
        seconds = record.timings_s.get("wall", 0.0)
        line = f"{record.key}  {record.steps} steps, {seconds:.1f} s{tail}"
        progress.console.print(Text.assemble((f"{record.outcome:<8}", colours[record.outcome]), line), soft_wrap=True)

    return on_record


@app.command()
def doctor(
    bench: Annotated[str | None, typer.Argument(help="A bench's name: tell what it needs beyond the rest.")] = None,
) -> None:
    """Tell what this machine has, what it lacks, and how to get it; exits 1 if something needed is missing.

    Examples: `evalkit doctor` · `evalkit doctor robocasa`
    """
    from evalkit.doctor import examine, examine_bench

    table = Table("what", "state", "what to do", box=None, pad_edge=False)
    findings = examine() if bench is None else examine_bench(bench)
    if not findings:
        out.print(f"Bench '{bench}' needs nothing but what `evalkit doctor` looks at.")
        return
    for finding in findings:
        state = ("ok", "green") if finding.ok else ("missing", "red") if finding.needed else ("absent", "yellow")
        table.add_row(finding.what, Text.assemble(state, " " + finding.found), "" if finding.ok else finding.remedy)
    out.print(table)
    if any(finding.needed and not finding.ok for finding in findings):
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; a user's mistake is one sentence on stderr and exit code 2."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except EvalkitError as error:
        err.print(Text.assemble(("error: ", "red"), str(error)), soft_wrap=True)
        sys.exit(130 if isinstance(error, Interrupted) else 2)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _summary(load: Callable[[str], Any], name: str) -> str:
    try:
        return str(load(name).summary)
    except EvalkitError as error:
        return str(error)


def _print_settings(prefix: str, config_type: type) -> None:
    for entry in fields(config_type):
        default = getattr(config_type(), entry.name)
        shown = json.dumps(list(default) if isinstance(default, tuple) else default, separators=(",", ":"))
        out.print(f"key       {prefix}.{entry.name}={shown.strip(chr(34))}")


def _print_plan(plan: Plan) -> None:
    counts = {task: sum(episode.task == task for episode in plan.episodes) for task in plan.tasks}
    out.print(f"plan     {plan.sha256[:16]}  {plan.protocol}, setting '{plan.setting}', seed {plan.seed}")
    out.print(f"policy   {plan.policy.name}  " + ", ".join(f"{k} {v}" for k, v in plan.policy.provenance.items()))
    out.print(f"episodes {len(plan.episodes)}: " + ", ".join(f"{task} x {count}" for task, count in counts.items()))
    for departure in plan.departures:
        out.print(Text.assemble(("departs from the protocol: ", "yellow"), departure))


def _default_path(plan: Plan) -> Path:
    """Return where a run goes that was given no place; what a protocol's name says behind a + is in it."""
    mark = "".join(f"-{part}" for part in plan.protocol.split("+")[1:])
    return Path("results/runs") / f"{plan.bench.name}-{plan.policy.name}-{plan.setting}{mark}-{plan.sha256[:8]}"


if __name__ == "__main__":
    main()
