"""The verb `vet`: freeze the episodes of a bench that evaluates only seeds which its expert solves.

In: a bench, a setting, or lists that others publish. Out: a manifest, or how often the expert here agrees with one.
Read next: `evalkit/vet/`, which does the work; `plan.py` for what plans make of a manifest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from evalkit.cli.options import Setting, split_names
from evalkit.cli.run import Interrupted, duration
from evalkit.console import out, progress_bar
from evalkit.contracts.errors import BadConfig, EvalkitError
from evalkit.contracts.manifest import Manifest
from evalkit.contracts.text import count_of, sentence_kind

if TYPE_CHECKING:
    from evalkit.contracts.bound import BoundBench
    from evalkit.vet.lanes import Experts
    from evalkit.vet.run import TaskOutcome, Vet
    from evalkit.vet.search import Search
    from evalkit.vet.verify import Agreement, Verification

COLOURS = {"open": "blue", "vetted": "green", "skipped": "blue", "not vetted": "red"}

BenchToVet = Annotated[
    str, typer.Option("--bench", metavar="NAME", help="Bench whose seeds are vetted.", show_default=False)
]
TasksToVet = Annotated[
    str,
    typer.Option("--tasks", metavar="NAME,NAME", help="Tasks, separated by commas. [default: all]", show_default=False),
]
EpisodesToVet = Annotated[
    int | None,
    typer.Option(
        "--episodes",
        metavar="N",
        min=1,
        help="Accepted seeds per task. With --verify: accepted seeds that are tried again. "
        "[default: as many as the protocol has; with --verify, all in the manifest]",
        show_default=False,
    ),
]
MaxTries = Annotated[
    int | None,
    typer.Option(
        "--max-tries",
        metavar="N",
        min=1,
        help="Seeds of a task that are tried at most. [default: 25 for each episode]",
        show_default=False,
    ),
]
WorkersToVet = Annotated[int, typer.Option("--workers", metavar="N", min=1, max=1024, help="Simulators in parallel.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="Manifest, new or to be extended. With --verify: the manifest of the episodes that both sides accept. "
        "[default: the one that plans of the bench read; with --verify, none is written]",
        show_default=False,
    ),
]
Import = Annotated[
    list[Path] | None,
    typer.Option(
        "--import",
        metavar="FILE",
        help="Vet nothing; add the vetted episodes in FILE, which others publish. For robotwin: a list of vla-eval, "
        "the folder of its lists, or `vla-eval` for the installed package.",
        show_default=False,
    ),
]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify",
        help="Try the seeds of a manifest or a published list again and count how often they agree. With --out, write "
        "the episodes on which both agree, with the hashes of their scenes.",
    ),
]
Rejected = Annotated[
    int,
    typer.Option("--rejected", metavar="N", min=0, help="With --verify: also try N rejected seeds of each task."),
]
TimeoutS = Annotated[float, typer.Option("--timeout-s", metavar="S", min=1, help="Time limit to vet one seed.")]
DryVet = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be done; try two seeds and estimate the time.")
]
Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FILE|KEY=VALUE",
        help="With --import: further files. With --verify: the manifest or list. Then Hydra overrides of the bench's "
        "settings, for example `bench.robotwin.planner=cpu`.",
        show_default=False,
    ),
]


def vet(
    bench: BenchToVet,
    setting: Setting = None,
    tasks: TasksToVet = "",
    episodes: EpisodesToVet = None,
    max_tries: MaxTries = None,
    workers: WorkersToVet = 1,
    to: Out = None,
    imports: Import = None,
    verify: Verify = False,
    rejected: Rejected = 0,
    timeout_s: TimeoutS = 600.0,
    dry_run: DryVet = False,
    words: Words = None,
) -> None:
    """Freeze the episodes of a bench: find the seeds that its expert solves, and fix their instructions.

    Write a manifest: every seed that was tried, from the protocol's first one upward, with the verdict and its reason,
    the instructions, the length of the expert's motion, the hash of the first state; who vetted, and with what. Runs
    read it. It depends neither on --workers nor on their timing. The same command again continues; technical faults
    are never rejections. Exit with 2 if a task is not vetted; with 130 if interrupted.

    Examples:

    - `evalkit vet --bench robotwin --setting randomized --workers 8`
    - `evalkit vet --bench robotwin --tasks lift_pot,click_bell --episodes 20 bench.robotwin.planner=cpu`
    - `evalkit vet --bench robotwin --import demo_clean.json --import demo_randomized.json`
    - `evalkit vet --bench robotwin --verify --tasks click_bell --episodes 20 --rejected 5`
    - `evalkit vet --bench robotwin --verify demo_clean.json --out results/manifests/tied.json`
    - `evalkit vet --bench robotwin --setting randomized --dry-run`
    """
    from evalkit.config import bind_bench
    from evalkit.vet.lanes import Experts
    from evalkit.vet.run import vettable

    files = [Path(word) for word in words or [] if "=" not in word]
    bound = bind_bench(bench, [word for word in words or [] if "=" in word])
    path = to or vettable(bound).manifest_path(bound.config)
    _check_mode(files, to, imports, verify, dry_run)
    experts = Experts(
        bench=bound,
        setting=setting or bound.settings[0],
        workers=workers,
        timeout_s=timeout_s,
        logs=None if verify else _logs(path),
    )
    names = split_names("--tasks", tasks)
    if imports:
        _import(bound, [*imports, *files], path)
    elif verify:
        source = files[0] if files else vettable(bound).manifest_path(bound.config)
        _verify(experts, source, to, names, episodes, rejected)
    else:
        from evalkit.vet.run import make_vet

        _vet(make_vet(experts, tasks=names, episodes=episodes, max_tries=max_tries, out=path), dry_run=dry_run)


def _check_mode(
    files: Sequence[Path], to: Path | None, imports: Sequence[Path] | None, verify: bool, dry: bool
) -> None:
    """Raise BadConfig for arguments that do not go together."""
    if imports and verify:
        raise BadConfig("--import and --verify are two calls: import first, then verify.")
    if (imports or verify) and dry:
        raise BadConfig("--dry-run is for vetting; leave it out with --import and --verify.")
    if verify and len(files) > 1:
        raise BadConfig("--verify takes one manifest or list: evalkit vet --verify FILE.")
    if files and not imports and not verify:
        raise BadConfig(f"'{files[0]}' is no override KEY=VALUE; tasks are given as --tasks {files[0]}.")


def _logs(path: Path) -> Path:
    """Return the folder for the output of env processes."""
    return path.with_name(f"{path.stem}-logs")


def _import(bench: BoundBench, paths: Sequence[Path], to: Path) -> None:
    from evalkit.vet.import_lists import import_lists

    manifest = import_lists(bench, paths, to)
    _print_manifest(manifest, to)


def _print_manifest(manifest: Manifest, path: Path) -> None:
    """Print what a manifest holds, with its hash."""
    table = Table("setting", "tasks", "episodes", "vetted by", box=None, pad_edge=False)
    counts: Counter[tuple[str, str]] = Counter()
    episodes: Counter[tuple[str, str]] = Counter()
    for entry in manifest.entries:
        key = (entry.setting, _who(entry.vetted_by))
        counts[key] += 1
        episodes[key] += len(entry.accepted)
    for (setting, who), count in counts.items():
        table.add_row(setting, str(count), str(episodes[setting, who]), who)
    out.print(table)
    out.print(f"manifest {manifest.sha256[:16]}  {path}", soft_wrap=True)


def _who(facts: Mapping[str, str]) -> str:
    """Return who vetted, with which planner and renderer, in one line."""
    names = ("planner", "shader", "vulkan_device", "gpu", "robotwin")  # lists of others name a `gpu`
    return "; ".join([facts.get("by", "not stated"), *(f"{name} {facts[name]}" for name in names if name in facts)])


def _vet(call: Vet, *, dry_run: bool) -> None:
    from evalkit.vet.estimate import missing_tasks
    from evalkit.vet.run import present_manifest, run_vet

    missing = missing_tasks(call)
    out.print(
        f"{call.experts.bench.name}, setting '{call.experts.setting}': {count_of(call.episodes, 'accepted seed')} of "
        f"{count_of(len(call.tasks), 'task')}, from seed {call.first_seed} upward, at most "
        f"{count_of(call.max_tries, 'seed')} of each; {count_of(len(missing), 'task')} missing in {call.out}",
        soft_wrap=True,
    )
    for departure in call.experts.bench.departures():
        out.print(Text.assemble(("departure from the protocol: ", "yellow"), departure), soft_wrap=True)
    if dry_run:
        _estimate(call, missing)
        return
    with progress_bar("{task.fields[tried]} tried") as progress:
        try:
            outcomes = run_vet(call, _on_outcome(progress, call), _on_retry(progress))
        except KeyboardInterrupt:
            raise Interrupted(f"The verdicts next to {call.out}") from None
    out.print(_outcome_table(outcomes))
    if call.out.exists():
        out.print(f"manifest {present_manifest(call).sha256[:16]}  {call.out}", soft_wrap=True)
    unfinished = [outcome.task for outcome in outcomes if outcome.state == "not vetted"]
    if all(outcome.state == "skipped" for outcome in outcomes):
        raise EvalkitError(f"Every task is skipped, the first because {str(outcomes[0].reason).rstrip('.')}.")
    if unfinished:
        raise EvalkitError(f"{count_of(len(unfinished), 'task')} not vetted: {', '.join(unfinished)}; see the table.")


def _estimate(call: Vet, missing: Sequence[str]) -> None:
    """Try the first and the last missing task, and print how long the vetting would take."""
    from evalkit.vet.estimate import try_task

    seconds = []
    for task in dict.fromkeys((*missing[:1], *missing[-1:])):
        trial = try_task(call, task)
        if trial.seconds is None:
            out.print(Text.assemble(("cannot be tried ", "yellow"), f"{task}: {trial.reason}"), soft_wrap=True)
        else:
            out.print(f"tried    {task}: {trial.seconds:.1f} s per seed")
            seconds.append(trial.seconds)
    if not missing:
        out.print("Every task is vetted; nothing to do.")
    elif seconds:
        each = sum(seconds) / len(seconds) * len(missing) / call.experts.workers
        out.print(
            f"estimate {duration(each * call.episodes)} with --workers {call.experts.workers} if every seed is "
            f"accepted, at most {duration(each * call.max_tries)}"
        )


def _on_outcome(progress: Progress, call: Vet) -> Callable[[TaskOutcome], None]:
    """Return a listener that moves the bar and prints a line for each task that ends."""
    bar = progress.add_task("accepted", total=len(call.tasks) * call.episodes, tried=0)
    latest: dict[str, TaskOutcome] = {}

    def on_outcome(outcome: TaskOutcome) -> None:
        latest[outcome.task] = outcome
        progress.update(
            bar,
            completed=sum(each.accepted for each in latest.values()),
            tried=sum(each.tried for each in latest.values()),
        )
        if outcome.state != "open":
            tail = outcome.reason or f"{outcome.accepted} of {count_of(outcome.tried, 'seed')} accepted"
            line = Text.assemble((f"{outcome.state:<11}", COLOURS[outcome.state]), f"{outcome.task}: {tail}")
            progress.console.print(line, soft_wrap=True)

    return on_outcome


def _on_retry(progress: Progress) -> Callable[[str], None]:
    """Return a listener that prints why a seed is tried again."""
    return lambda sentence: progress.console.print(Text(sentence, style="yellow"), soft_wrap=True)


def _outcome_table(outcomes: Sequence[TaskOutcome]) -> Table:
    table = Table("task", "accepted", "tried", "rejected because", box=None, pad_edge=False)
    for outcome in outcomes:
        reasons: Counter[str] = Counter()
        for reason, count in outcome.rejections.items():
            reasons[sentence_kind(reason, task=outcome.task)] += count
        why = ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common())
        note = "" if outcome.state == "vetted" else f"{outcome.state}: {outcome.reason}"
        table.add_row(outcome.task, str(outcome.accepted), str(outcome.tried), "; ".join(filter(None, (note, why))))
    return table


def _verify(
    experts: Experts, path: Path, to: Path | None, tasks: Sequence[str], episodes: int | None, rejected: int
) -> None:
    from evalkit.vet.import_lists import read_vettings
    from evalkit.vet.verify import verify

    if to is not None and to.exists() and path.exists() and to.samefile(path):
        raise BadConfig(f"--out {to} is the file that is verified; name another one.")
    manifest = read_vettings(experts.bench, path)
    with progress_bar() as progress:
        try:
            found = verify(
                manifest,
                experts,
                tasks=tasks,
                episodes=episodes,
                rejected=rejected,
                on_change=_on_search(progress),
                on_retry=_on_retry(progress),
            )
        except KeyboardInterrupt:
            raise EvalkitError("Interrupted. A verification keeps nothing; give fewer --tasks or --episodes.") from None
    _print_verification(found, path, manifest, experts.setting)
    if to is not None:
        _write_tied(experts, path, manifest, found, to)
    lacking = [each.task for each in found.agreements if each.state != "vetted"]
    if len(lacking) == len(found.agreements):
        raise EvalkitError(f"No task could be verified: {', '.join(lacking)}; see the table.")


def _write_tied(experts: Experts, path: Path, manifest: Manifest, found: Verification, to: Path) -> None:
    """Write the episodes on which both sides agree, and print how many they are."""
    from evalkit.vet.import_lists import add_to_manifest
    from evalkit.vet.verify import tied_manifest

    tied = tied_manifest(manifest, found, experts.setting)
    if not tied.entries:
        raise EvalkitError(f"No listed episode is accepted here, so {to} is not written; see the table.")
    kept, listed = sum(len(entry.accepted) for entry in tied.entries), sum(each.accepted for each in found.agreements)
    written = add_to_manifest(experts.bench, [(f"What was verified of {path}", tied)], to)
    out.print(
        f"wrote    {kept} of {count_of(listed, 'episode')} that were tried, tied to their scenes: manifest "
        f"{written.sha256[:16]}  {to}",
        soft_wrap=True,
    )


def _on_search(progress: Progress) -> Callable[[Search], None]:
    """Return a listener that shows one bar per task."""
    bars: dict[str, int] = {}

    def on_search(search: Search) -> None:
        if search.task not in bars:
            bars[search.task] = int(progress.add_task(search.task, total=len(list(search.seeds))))
        progress.update(bars[search.task], completed=len(search.known))  # type: ignore[arg-type]

    return on_search


def _print_verification(found: Verification, path: Path, manifest: Manifest, setting: str) -> None:
    """Print a row per task, the sum, and with what both sides vetted."""
    columns = ("task", "accepted here", "rejected here", "same state", "sentences", "differing seeds")
    table = Table(*columns, box=None, pad_edge=False)
    for each in found.agreements:
        table.add_row(each.task, *_counts([each]), _differing(each))
    table.add_row("all", *_counts(found.agreements), "")
    out.print(table)
    for here in sorted({_who(facts) for facts in found.vetted_by.values()}):
        out.print(f"here     {here}", soft_wrap=True)
    entries = [entry for entry in manifest.entries if entry.setting == setting]
    for listed in sorted(
        {_who(entry.vetted_by) for entry in entries if entry.task in {a.task for a in found.agreements}}
    ):
        out.print(f"listed   {listed}", soft_wrap=True)
    out.print(f"manifest {manifest.sha256[:16]}  {path}, not changed", soft_wrap=True)


def _counts(agreements: Sequence[Agreement]) -> tuple[str, str, str, str]:
    """Return the columns of numbers: agreements of all that were tried."""
    pairs = [
        *(("accepted_here", "accepted"), ("rejected_here", "rejected")),
        *(("same_state", "known_states"), ("sentences_here", "sentences")),
    ]
    sums = [[sum(getattr(each, name) for each in agreements) for name in pair] for pair in pairs]
    return tuple(f"{agreed} of {total}" if total else "" for agreed, total in sums)  # type: ignore[return-value]


def _differing(agreement: Agreement) -> str:
    note = "" if agreement.state == "vetted" else f"{agreement.state}: {agreement.reason}"
    shown = [f"{seed}: {reason}" for seed, reason in list(agreement.differing.items())[:3]]
    more = len(agreement.differing) - len(shown)
    return "; ".join(filter(None, [note, *shown, f"{more} more" if more else ""]))
