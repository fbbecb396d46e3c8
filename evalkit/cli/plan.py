"""The verbs `list` and `plan`: what there is, and what a run would do.

In: a bench, a policy, settings. Out: lines on the screen; `plan --out` writes a plan.
Read next: `evalkit/store/plan.py`; `check.py` for the next verb.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
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
from evalkit.console import out
from evalkit.contracts.errors import EvalkitError
from evalkit.contracts.text import count_of


def list_(
    bench: Annotated[
        str | None, typer.Option("--bench", metavar="NAME", help="Show this bench's tasks, settings and keys.")
    ] = None,
    policy: Annotated[str | None, typer.Option("--policy", metavar="NAME", help="Show this policy's keys.")] = None,
) -> None:
    """List benches and policies; with --bench or --policy, list what each offers.

    A bench is a simulator with tasks. A policy acts in it. The keys can be overridden as `key=value`.

    Examples:

    - `evalkit list`
    - `evalkit list --bench robosuite --policy xwam`
    """
    from evalkit.contracts import plugins

    if bench is None and policy is None:
        _print_plugins("bench", plugins.names(plugins.BENCHES), plugins.load_bench)
        _print_plugins("policy", plugins.names(plugins.POLICIES), plugins.load_policy)
        return
    from evalkit.run.settings import RunSettings

    if bench is not None:
        bench_plugin = plugins.load_bench(bench)
        out.print(f"{bench_plugin.name}: {bench_plugin.summary}", style="bold")
        out.print(f"protocol  {bench_plugin.protocol}")
        out.print(f"settings  {', '.join(bench_plugin.settings)}")
        out.print(f"tasks     {', '.join(bench_plugin.tasks)}")
        _print_keys(f"bench.{bench_plugin.name}", bench_plugin.config_type)
    if policy is not None:
        policy_plugin = plugins.load_policy(policy)
        out.print(f"{policy_plugin.name}: {policy_plugin.summary}", style="bold")
        _print_keys(f"policy.{policy_plugin.name}", policy_plugin.config_type)
    out.print("for every bench and policy", style="bold")
    out.print("key       bench.max_steps=null")
    out.print("          Shortens every episode to this many steps; a departure from the protocol.", style="dim")
    _print_keys("run", RunSettings)


def plan(
    policy: PolicyName = "xwam",
    bench: BenchName = "robosuite",
    setting: Setting = None,
    tasks: Tasks = "",
    episodes: Episodes = 100,
    seed: Seed = 0,
    to: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Also write the plan to this JSON file.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Show what a run would do, without starting it.

    A plan fixes every choice of a run: protocol, tasks, seeds, instructions, step limits, weights. The same arguments
    give the same plan with the same hash. The plan lists every departure from the bench's protocol.

    Examples:

    - `evalkit plan`
    - `evalkit plan --policy scripted --bench robosuite --tasks Lift --episodes 10`
    - `evalkit plan --tasks Lift --out plan.json policy.xwam.num_video_steps=25`
    """
    call = plan_call(policy, bench, setting, tasks, episodes, seed, overrides)
    print_plan(call)
    if to is not None:
        from evalkit.store.files import write_whole

        write_whole(to, call.plan.to_bytes())
        out.print(f"plan written to {to}", soft_wrap=True)


def print_plan(call: Call) -> None:
    """Print a plan: hash, protocol, policy, episodes, departures."""
    plan = call.plan
    counts = {task: sum(episode.task == task for episode in plan.episodes) for task in plan.tasks}
    what = f"{plan.protocol}, setting '{plan.setting}', seed {plan.seed}"
    out.print(f"plan     {plan.sha256[:16]}  {what}", soft_wrap=True)
    out.print(f"policy   {plan.policy.name}")
    for name, fact in plan.policy.provenance.items():
        out.print(f"         {name}: {fact}", soft_wrap=True)
    out.print(f"episodes {len(plan.episodes)}: " + ", ".join(f"{task} x {count}" for task, count in counts.items()))
    if plan.success_after_steps:
        steps = count_of(plan.success_after_steps, "control step")
        out.print(f"success  counts if the goal is still met after {steps} without action")
    else:
        out.print("success  counts at the first step at which the goal is met")
    if call.stand_in:
        out.print(Text(call.stand_in, style="yellow"), soft_wrap=True)
    print_left_out(call)
    print_nothing_predicted(call)
    for departure in plan.departures:
        out.print(Text.assemble(("departure from the protocol: ", "yellow"), departure))


def print_left_out(call: Call) -> None:
    """Print the tasks on which the policy cannot run, where no task was named, with the reason of the first."""
    if call.left_out:
        first, *_ = call.left_out.values()
        out.print(Text(f"left out {', '.join(call.left_out)}: {first}", style="yellow"), soft_wrap=True)


def print_nothing_predicted(call: Call) -> None:
    """Print why nothing is predicted, where the policy could predict."""
    from evalkit.store.plan import nothing_predicted

    if sentence := nothing_predicted(call.plan):
        out.print(Text(sentence, style="yellow"), soft_wrap=True)


def _print_plugins(kind: str, names: list[str], load: Callable[[str], Any]) -> None:
    from rich.table import Table

    table = Table(kind, "description", box=None, pad_edge=False)
    for name in names:
        table.add_row(name, _summary(load, name))
    out.print(table)
    out.print()


def _summary(load: Callable[[str], Any], name: str) -> str:
    try:
        return str(load(name).summary)
    except EvalkitError as error:
        return str(error)


def _print_keys(prefix: str, config_type: type) -> None:
    meanings = field_meanings(inspect.getdoc(config_type) or "")
    for entry in fields(config_type):
        default = getattr(config_type(), entry.name)
        shown = json.dumps(list(default) if isinstance(default, tuple) else default, separators=(",", ":"))
        out.print(f"key       {prefix}.{entry.name}={shown.strip(chr(34))}")
        if entry.name in meanings:
            meaning = re.sub(r"\bNone\b", "null", meanings[entry.name])
            out.print(f"          {meaning}", style="dim", soft_wrap=True)


def field_meanings(docstring: str) -> dict[str, str]:
    """Return what a docstring in Google form says about each attribute.

    Example:
        >>> field_meanings("Settings.\\n\\nAttributes:\\n    gl: Renderer,\\n        or auto.\\n    seed: Seed.")
        {'gl': 'Renderer, or auto.', 'seed': 'Seed.'}
    """
    meanings: dict[str, str] = {}
    name = ""
    for line in docstring.partition("Attributes:\n")[2].splitlines():
        if match := re.fullmatch(r"    (\w+): (.+)", line):
            name = match[1]
            meanings[name] = match[2]
        elif name and line.startswith("        "):
            meanings[name] += " " + line.strip()
        else:
            name = ""
    return meanings
