"""The verbs `check`, `check policy` and `check bench`: whether a pair works, and whether a plugin keeps its contract.

In: a bench and a policy, or one of them, with settings. Out: lines on the screen.
Read next: `evalkit/run/trial.py`, which tries a pair; `evalkit/testing/`, which checks a plugin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from evalkit.cli.options import BenchName, Call, Overrides, PolicyName, Seed, Setting, Tasks, plan_call
from evalkit.cli.plan import print_left_out, print_nothing_predicted
from evalkit.console import out, progress_bar
from evalkit.contracts.errors import EpisodeFault, EvalkitError
from evalkit.contracts.text import count_of

if TYPE_CHECKING:
    from evalkit.testing.suite import Check

PAIR = "pair"
"""The form that `evalkit check --policy NAME --bench NAME` means."""

_STYLES = {"passed": "green", "doubtful": "yellow", "failed": "red", "untried": "yellow", "skipped": "dim"}


class CheckForms(TyperGroup):
    """The three forms of `check`; without one, the arguments are those of `check pair`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Return the remaining arguments, which begin with a form."""
        if not args or args[0] not in (*self.commands, "--help"):
            args = [PAIR, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=CheckForms,
    rich_markup_mode="markdown",
    help="Check that a policy can run on a bench, or that a plugin keeps its contract.\n\n"
    "`evalkit check --policy NAME --bench NAME` is short for `evalkit check pair`. `evalkit check policy NAME` and "
    "`evalkit check bench NAME` are for authors: docs/write_a_policy.md, docs/write_a_bench.md.",
)


@app.command(PAIR)
def check_pair(
    policy: PolicyName = "xwam",
    bench: BenchName = "robosuite",
    setting: Setting = None,
    tasks: Tasks = "",
    seed: Seed = 0,
    static: Annotated[bool, typer.Option("--static", help="Compare the specs only; start no simulator.")] = False,
    overrides: Overrides = None,
) -> None:
    """Check that a policy can run on a bench.

    First compare their specs: views, image sizes, state and action layouts, rates. Then, for each task, start the env,
    reset it and execute one chunk of the policy's actions. Write nothing. Exit with 2 if a task does not work.

    Examples:

    - `evalkit check --policy xwam --bench robosuite --tasks Lift,Door`
    - `evalkit check pair --policy random --static`
    """
    call = plan_call(policy, bench, setting, tasks, 1, seed, overrides)
    out.print(f"The specs fit: policy '{policy}' on {count_of(len(call.plan.tasks), 'task')} of '{bench}'.")
    print_left_out(call)
    print_nothing_predicted(call)
    if static:
        return
    failed = _try_tasks(call)
    if failed:
        for problem, names in failed.items():
            out.print(Text.assemble(("error  ", "red"), f"{', '.join(names)}: {problem}"), soft_wrap=True)
        every = [task for names in failed.values() for task in names]
        raise EvalkitError(f"{len(every)} of {count_of(len(call.plan.tasks), 'task')} failed: {', '.join(every)}.")


@app.command("policy")
def check_policy(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Name of a policy, or module:attribute of its plugin.", show_default=False),
    ],
    overrides: Overrides = None,
) -> None:
    """Check that a policy keeps its contract.

    Load it and ask it on images of noise: shapes, units, equal replies to equal requests, independence of other
    episodes, reset, predictions that come late, frames between requests, envs that do not fit, bad input. Print what
    passed, what failed and why, and the next step; name what cannot be tried without a simulator. Start no simulator.
    Exit with 1 if a check failed.

    Examples:

    - `evalkit check policy random`
    - `evalkit check policy xwam policy.xwam.checkpoint=nano`
    - `evalkit check policy hold policy.hold.execute_steps=16`
    """
    from evalkit.config import bind_policy
    from evalkit.testing import policy_checks

    _print_verdicts("policy", name, policy_checks(bind_policy(name, overrides or [])))
    out.print(f"Next: evalkit check --policy {name} --bench NAME tries it in a simulator.", style="dim")


@app.command("bench")
def check_bench(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Name of a bench, or module:attribute of its plugin.", show_default=False),
    ],
    task: Annotated[
        str | None,
        typer.Option("--task", metavar="NAME", help="Task that is started. [default: the first]", show_default=False),
    ] = None,
    setting: Setting = None,
    overrides: Overrides = None,
) -> None:
    """Check that a bench keeps its contract.

    Compare its plans and specs, then start the env of one task in several processes: the same scene for the same seed,
    states, cameras, units, rendering that changes nothing, a robot that stands still after a chunk. Print what passed,
    what failed and why, and the next step. Exit with 1 if a check failed.

    Examples:

    - `evalkit check bench robosuite`
    - `evalkit check bench robosuite --task Door bench.robosuite.image_hw_px=[64,64]`
    """
    from evalkit.config import bind_bench
    from evalkit.testing import bench_checks

    bound = bind_bench(name, overrides or [])
    _check_known("task", task, bound.tasks, name)
    _check_known("setting", setting, bound.settings, name)
    _print_verdicts("bench", name, bench_checks(bound, task=task, setting=setting))
    out.print(f"Next: evalkit run --policy random --bench {name} --episodes 2 --out DIR runs episodes.", style="dim")


def _check_known(kind: str, name: str | None, known: Sequence[str], bench: str) -> None:
    from evalkit.contracts.errors import UnknownName

    if name is not None and name not in known:
        raise UnknownName(kind, name, known, see=f"evalkit list --bench {bench}")


def _print_verdicts(kind: str, name: str, checks: Sequence[Check]) -> None:
    """Run checks and print a line for each; exit with 1 if one failed."""
    from evalkit.testing import judge

    width = max(len(check.name) for check in checks)
    verdicts = []
    for verdict in judge(checks):
        verdicts.append(verdict)
        state = (f"{verdict.state:<9}", _STYLES[verdict.state])
        out.print(Text.assemble(state, f"{verdict.name:<{width}}  {verdict.found}"), soft_wrap=True)
        if verdict.advice:
            out.print(Text(f"{'':9}{'':{width}}  {verdict.advice}", style="dim"), soft_wrap=True)
    counts = Counter[str](verdict.state for verdict in verdicts)
    numbers = ", ".join(f"{counts[state]} {state}" for state in _STYLES if counts[state])
    if counts["failed"]:
        absent = verdicts[0].state == "failed"  # of the requirements
        out.print(f"The {kind} '{name}' {'cannot be checked here' if absent else 'breaks its contract'}: {numbers}.")
        raise typer.Exit(1)
    untried = [verdict.name for verdict in verdicts if verdict.state == "untried"]
    if untried:
        out.print(f"Of the {kind} '{name}' only a part can be checked here: {numbers} ({', '.join(untried)}).")
    else:
        out.print(f"The {kind} '{name}' keeps its contract: {numbers}.")


def _try_tasks(call: Call) -> dict[str, list[str]]:
    """Try one chunk of every task, print a line per task that works, and return the others by their problem."""
    from evalkit.run.trial import Trial, try_task

    trial = Trial(bench=call.bench, plan=call.plan, policy=call.policy.load(), settings=call.run)
    failed: dict[str, list[str]] = {}
    with progress_bar() as progress:
        bar = progress.add_task("check", total=len(call.plan.episodes))
        for episode in call.plan.episodes:
            progress.update(bar, description=f"check {episode.task}")
            try:
                seconds = try_task(trial, episode)
                out.print(
                    Text.assemble(("ok     ", "green"), f"{episode.task}: reset and one chunk in {seconds:.1f} s")
                )
            except (EpisodeFault, EvalkitError) as problem:
                env_id = call.plan.env_spec(episode.task).env_id
                failed.setdefault(str(problem).replace(env_id, "the env"), []).append(episode.task)
            progress.advance(bar)
    return failed
