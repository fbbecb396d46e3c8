"""Exit codes of `evalkit run`: 0 only for a whole run; in processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from evalkit.store.run_folder import open_run

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (
    *(sys.executable, "-m", "evalkit.cli", "run", "--bench", "tests.doubles.bench:FakeBench"),
    *("--policy", "tests.doubles.policy:FakePolicyPlugin", "--episodes", "2", "run.video=false"),
)


def run(path: Path, *arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "--out", str(path), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=timeout_s)


def test_a_policy_that_hangs_in_the_run_ends_it_with_2(tmp_path: Path) -> None:
    done = run(tmp_path, "policy.fake.fault=hang", "policy.fake.fault_seed=-1", "run.policy_timeout_s=1")
    assert done.returncode == 2
    assert "did not answer within 1 s (run.policy_timeout_s)" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_breaker_ends_a_run_with_2(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        *("policy.fake.fault=die", "policy.fake.fault_seed=-1", "run.policy_process=true"),
        *("--tasks", "Far", "--episodes", "3", "run.max_attempts=1", "run.stop_after_equal_errors=2"),
    )
    assert done.returncode == 2
    assert "2 episodes in a row ended in the same error (policy)" in done.stderr
    assert len(open_run(tmp_path).records()) == 2


def test_a_part_ends_with_0_and_says_what_it_is(tmp_path: Path) -> None:
    done = run(tmp_path, "--shard", "1/4", "--tasks", "Near,Far")
    assert done.returncode == 0, done.stderr
    assert "shard    1/4, 1 episode" in done.stdout
    assert "The run is not finished: 3 planned episodes have no record yet." in done.stdout
    again = run(tmp_path, "--shard", "1/4", "--tasks", "Near,Far")
    assert again.returncode == 0
    assert "Every episode of 1/4 is recorded" in again.stdout
    wrong = run(tmp_path, "--shard", "5/4")
    assert (wrong.returncode, "--shard takes i/n" in wrong.stderr) == (2, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_the_policy_loads_ends_with_130(tmp_path: Path, number: signal.Signals) -> None:
    policy = "tests.doubles.policy:SlowPolicyPlugin"
    command = [*COMMAND, "--policy", policy, "--out", str(tmp_path), "run.policy_process=true"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    log = tmp_path / "logs" / "policy-0.log"
    while not (log.exists() and "loading" in log.read_text()):
        assert process.poll() is None, process.communicate()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Interrupted. The records in" in stderr
