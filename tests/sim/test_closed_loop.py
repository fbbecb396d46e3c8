"""The whole way on real physics: X-WAM in robosuite, killed again and again, scored and reported.

In: robosuite and a renderer. Out: nothing; skips with a reason where either is missing.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from evalkit.store.run_folder import open_run

pytest.importorskip("robosuite", reason="robosuite is not installed")
ROOT = Path(__file__).resolve().parents[2]


def evalkit(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "evalkit.cli", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def hashes(path: Path) -> dict[str, str | None]:
    return {record.key: record.actions_sha256 for record in open_run(path).records()}


@pytest.mark.sim
def test_x_wam_acts_imagines_is_scored_and_reported(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    plan = ["--policy", "xwam", "--bench", "robosuite", "--tasks", "Lift,Door", "--episodes", "1", "--seed", "5"]
    done = evalkit("run", *plan, "policy.xwam.checkpoint=random-nano", "bench.max_steps=16", "--out", str(folder))
    assert done.returncode == 0, done.stderr
    records = open_run(folder).records()
    assert [(r.outcome, r.steps, r.num_chunks) for r in records] == [("failure", 16, 2)] * 2
    assert all((folder / str(r.clip)).exists() and (folder / str(r.video)).exists() for r in records)
    assert evalkit("score", "run", str(folder)).returncode == 0
    done = evalkit("report", str(folder))
    assert done.returncode == 0, done.stderr
    text = (folder / "report" / "report.md").read_text()
    for expected in ("Lift", "Door", "psnr", "absrel", "chamfer", "Episodes are cut at 16 steps", "untrained"):
        assert expected in text, expected
    about = json.loads((folder / "run.json").read_text())
    assert about["workers"]["robosuite/Lift"]["renderer"] not in ("", "none")


@pytest.mark.sim
@pytest.mark.slow
def test_ten_kills_change_no_action(tmp_path: Path) -> None:
    command = [
        *(
            sys.executable,
            "-m",
            "evalkit.cli",
            "run",
            "--policy",
            "xwam",
            "--tasks",
            "Lift,Door",
            "--episodes",
            "3",
        ),
        *("bench.max_steps=32", "run.workers=2", "run.max_attempts=9"),
    ]
    undisturbed = subprocess.run([*command, "--out", str(tmp_path / "a")], cwd=ROOT, check=False)
    assert undisturbed.returncode == 0
    rng = np.random.default_rng(1)
    for kill in range(10):
        process = subprocess.Popen([*command, "--out", str(tmp_path / "b")], cwd=ROOT, stdout=subprocess.DEVNULL)
        time.sleep(rng.uniform(1, 14))
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
        workers = [int(pid) for pid in children.stdout.split()]
        for pid in [[process.pid], workers, [*workers, process.pid]][kill % 3]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if kill % 3 == 1:
            time.sleep(3)
            process.kill()
        process.wait()
    assert subprocess.run([*command, "--out", str(tmp_path / "b")], cwd=ROOT, check=False).returncode == 0
    assert len(open_run(tmp_path / "b").records()) == 6
    assert hashes(tmp_path / "b") == hashes(tmp_path / "a")
