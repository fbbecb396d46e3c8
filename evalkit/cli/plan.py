"""The verb `plan`: what a run would do.

In: a bench, a policy, settings. Out: lines on the screen; with `--out` a file.
Read next: `evalkit/store/plan.py`; `check.py` for the next verb.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
from evalkit.contracts.text import count_of


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
