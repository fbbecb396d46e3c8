"""How long a plan would take, from what a few episodes took."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from evalkit.config import load_config
from evalkit.run.trial import Pace, estimate_seconds
from evalkit.store.plan import Plan, make_plan
from tests.doubles.bench import FakeBench
from tests.doubles.policy import FakePolicyPlugin

ROOT = Path(__file__).resolve().parents[2]


def plan(num_episodes: int) -> Plan:
    config = load_config(FakeBench(), FakePolicyPlugin(), [])
    return make_plan(config.bench, config.policy, num_episodes=num_episodes)


PACE = Pace(reset_s=10.0, steps=4, policy_s=1.0, wall_s=4.0)


def test_hours_are_resets_and_steps_spread_over_the_workers() -> None:
    planned = plan(5)  # ten episodes of 20 steps
    assert estimate_seconds(planned, [PACE], workers=1) == pytest.approx(10 * 10 + 200 * 1.0)
    assert estimate_seconds(planned, [PACE, PACE], workers=2) == pytest.approx(150)


def test_more_workers_help_until_the_policy_never_rests() -> None:
    assert estimate_seconds(plan(5), [PACE], workers=100) == pytest.approx(200 * 0.25)


def test_a_dry_run_runs_nothing_but_two_trials(tmp_path: Path) -> None:
    doubles = ["--bench", "tests.doubles.bench:FakeBench", "--policy", "tests.doubles.policy:FakePolicyPlugin"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "evalkit.cli",
            "run",
            "--dry-run",
            *doubles,
            "--episodes",
            "3",
            "--out",
            tmp_path / "run",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(r"estimate at most \d+ s with run.workers=1.*Near/0000.*Far/0002", done.stdout, re.DOTALL)
    assert not (tmp_path / "run").exists()
