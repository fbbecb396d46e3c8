"""A training that is really killed, with SIGKILL, at any moment: 200 steps in one go, and 120 + kill + 80."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.doubles.training import RECIPE, trainer_of, weights_of
from xwam.training.log import read_log
from xwam.training.trainer import LOG, STATE

ROOT = Path(__file__).resolve().parents[2]
LONG = replace(RECIPE, num_steps=200, warmup_steps=20, save_every=40, validate_every=0)
TRAIN = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.doubles.training import trainer_of
from tests.unit.test_xwam_training_kill import LONG
trainer_of(Path(sys.argv[1]), Path(sys.argv[2]), LONG).run()
"""


def start(data: Path, folder: Path) -> subprocess.Popen:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", TRAIN, str(data), str(folder)], env=environ)


def kill_after(process: subprocess.Popen, log: Path, *, step: int) -> None:
    deadline = time.monotonic() + 200
    while not any(line["step"] >= step for line in read_log(log)):
        assert process.poll() is None, f"it ended by itself with {process.returncode}"
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_a_kill_leaves_no_trace(shared_root: Path, tmp_path: Path) -> None:
    assert start(shared_root, tmp_path / "whole").wait(timeout=200) == 0
    killed = start(shared_root, tmp_path / "killed")
    kill_after(killed, tmp_path / "killed" / LOG, step=120)
    assert killed.returncode == -signal.SIGKILL
    assert trainer_of(shared_root, tmp_path / "killed", LONG).step in (80, 120, 160)
    assert start(shared_root, tmp_path / "killed").wait(timeout=200) == 0
    whole, resumed = (weights_of(tmp_path / name) for name in ("whole", "killed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert (tmp_path / "whole" / STATE).read_bytes() == (tmp_path / "killed" / STATE).read_bytes()
    steps = [line["step"] for line in read_log(tmp_path / "killed" / LOG)]
    assert steps == list(range(10, 201, 10))
