"""How long a plan would take, from what a few episodes took."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from evalkit.cli.run import duration
from evalkit.config import load_config
from evalkit.run.settings import RunSettings
from evalkit.run.trial import Pace, estimate_seconds
from evalkit.store.plan import Plan, make_plan
from tests.doubles.bench import FakeBench
from tests.doubles.policy import FakePolicyPlugin

ROOT = Path(__file__).resolve().parents[2]


def plan(num_episodes: int) -> Plan:
    config = load_config(FakeBench(), FakePolicyPlugin(), [])
    return make_plan(config.bench, config.policy, num_episodes=num_episodes)


PACE = Pace(start_s=0.0, reset_s=10.0, steps=4, policy_s=1.0, wall_s=4.0)


def test_hours_are_resets_and_steps_spread_over_the_workers() -> None:
    planned = plan(5)  # ten episodes of 20 steps
    assert estimate_seconds(planned, [PACE], RunSettings()) == pytest.approx(10 * 10 + 200 * 1.0)
    assert estimate_seconds(planned, [PACE, PACE], RunSettings(workers=2)) == pytest.approx(150)


def test_more_workers_help_until_the_policy_never_rests() -> None:
    assert estimate_seconds(plan(5), [PACE], RunSettings(workers=100)) == pytest.approx(200 * 0.25)


@pytest.mark.parametrize(
    ("settings", "num_processes"),
    [
        (RunSettings(), 2),
        (RunSettings(episodes_per_worker=2), 6),
        (RunSettings(workers=4), 8),
        (RunSettings(workers=100), 10),
    ],
)
def test_each_env_process_takes_time_to_start(settings: RunSettings, num_processes: int) -> None:
    slow, fast = (replace(PACE, policy_s=0.0, start_s=start_s) for start_s in (7.0, 0.0))
    extra_s = estimate_seconds(plan(5), [slow], settings) - estimate_seconds(plan(5), [fast], settings)
    assert extra_s == pytest.approx(7.0 * num_processes / min(settings.workers, 10))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 s"),
        (59.4, "59 s"),
        (60, "1.0 minutes"),
        (3599, "60.0 minutes"),
        (3600, "1.0 hours"),
        (9e5, "250.0 hours"),
    ],
)
def test_a_duration_has_the_unit_that_it_fills(seconds: float, text: str) -> None:
    assert duration(seconds) == text


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
