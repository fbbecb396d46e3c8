"""Demonstrations of the scripted experts as a data set: `python -m baselines.scripted.record DIR Lift=200 Door=200`.

In: tasks with their numbers of episodes. Out: a data set in the released layout; run again, it does what is missing.
Read next: `plan.py`, what is missing; `workers.py`, which records it; `evalkit/dataset/writer.py`, the layout.

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
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from baselines.arguments import configured, count
from evalkit.contracts.errors import BadConfig, EvalkitError
from evalkit.contracts.plugins import load_bench, load_policy
from evalkit.record.demonstrate import NO_DISTURBANCE, Disturbance
from evalkit.record.plan import EXPERT, Actor, Job, jobs
from evalkit.record.refusals import ANYTHING
from evalkit.record.workers import record


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status: 1 if a simulator failed, 2 for what stopped it."""
    options = _parser().parse_args(arguments)
    try:
        recorded = record(options.root, _todo(options), workers=options.workers)
    except EvalkitError as error:
        print(f"record: {error}", file=sys.stderr)
        return 2
    for fault in recorded.faults:
        print(f"not recorded: {fault}")
    print(
        f"{options.root}: {recorded.kept} of {recorded.tried} recorded now; {len(recorded.lengths)} episodes in all, "
        f"{recorded.num_failed} seeds gave nothing"
    )
    print(json.dumps({"frames": sum(recorded.lengths.values())}))
    return 1 if recorded.faults else 0


def _parser() -> argparse.ArgumentParser:
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
    parser.add_argument(
        "tasks",
        nargs="+",
        metavar="TASK=EPISODES",
        help="a task of the bench, and how many episodes of it there are to be in all",
    )
    parser.add_argument("--bench", default="robosuite", help="where the tasks are from (default: %(default)s)")
    parser.add_argument("--setting", default="default", help="one of the bench's settings (default: %(default)s)")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of the bench, e.g. art=placeholder"
    )
    parser.add_argument(
        "--first-seed", type=int, default=0, help="seed of each task's first episode (default: %(default)s)"
    )
    parser.add_argument(
        "--first-number",
        type=int,
        default=0,
        help="where each task's numbers of episodes begin, to add what is recorded otherwise to a data set",
    )
    parser.add_argument(
        "--workers", type=count, default=1, metavar="N", help="simulators side by side (default: %(default)s)"
    )
    parser.add_argument(
        "--policy",
        default=EXPERT,
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
    return parser


def _todo(options: argparse.Namespace) -> list[Job]:
    """Return what is asked for and missing; raises as `jobs` does, and BadConfig for what is no pair."""
    policy = None
    if options.policy != EXPERT:
        policy = configured(options.policy, load_policy(options.policy).config_type, options.policy_set)
    return jobs(
        options.root,
        configured(options.bench, load_bench(options.bench).config_type, options.set),
        _wanted(options.tasks),
        setting=options.setting,
        first_seed=options.first_seed,
        first_number=options.first_number,
        disturbance=NO_DISTURBANCE if options.calm else Disturbance(),
        refuse=options.refuse,
        actor=Actor(policy=policy, max_steps=options.max_steps, take_over=options.take_over),
    )


def _wanted(pairs: Sequence[str]) -> dict[str, int]:
    wanted = {}
    for pair in pairs:
        task, found, number = pair.partition("=")
        if not found or not number.isdigit():
            raise BadConfig(f"'{pair}' must be a task and its number of episodes, for example Lift=200.")
        wanted[task] = int(number)
    return wanted


if __name__ == "__main__":
    raise SystemExit(main())
