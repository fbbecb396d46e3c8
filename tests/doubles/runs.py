"""Runs of the fake bench with the fake policy, in real worker processes.

In: a run folder, overrides. Out: the records.
Read next: `bench.py` and `policy.py`, the doubles.
"""

from __future__ import annotations

from pathlib import Path

from evalkit.config import load_config
from evalkit.contracts.policy import PolicyPlugin
from evalkit.run.lane import Job
from evalkit.run.runner import missing_episodes, run_missing
from evalkit.store.plan import make_plan
from evalkit.store.records import EpisodeRecord
from evalkit.store.run_folder import HeldRun
from tests.doubles.bench import FakeBench
from tests.doubles.policy import FakePolicyPlugin


def run_fake(
    path: Path,
    *overrides: str,
    episodes: int = 3,
    tasks: tuple[str, ...] = (),
    policy: PolicyPlugin | None = None,
) -> list[EpisodeRecord]:
    """Run what is missing and return what was recorded by this call."""
    config = load_config(FakeBench(), policy or FakePolicyPlugin(), overrides)
    plan = make_plan(config.bench, config.policy, tasks=tasks, num_episodes=episodes, execution=config.execution)
    recorded: list[EpisodeRecord] = []
    with HeldRun(path, plan) as folder:
        job = Job(folder=folder, bench=config.bench, policy=config.policy.load(), settings=config.run)
        run_missing(job, recorded.append)
        assert missing_episodes(folder) == []
    return recorded
