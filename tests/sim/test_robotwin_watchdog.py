"""RoboTwin's env process, stopped as by a renderer that hangs: one retry, the same episode, and the run goes on.

In: EVALKIT_ROBOTWIN_ROOT and EVALKIT_ROBOTWIN_PYTHON; `../shared` for the published lists. Out: a verdict.
Read next: `tests/unit/test_run_watchdog.py`, the same with a double; `evalkit/contracts/worker/process.py`.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

import evalkit
from envs.robotwin.vetted_lists import read_vetted_list
from evalkit.contracts.manifest import write_manifest
from evalkit.contracts.worker.client import EnvWorker
from evalkit.store.records import EpisodeRecord
from evalkit.store.run_folder import open_run
from tests.doubles.robotwin import LISTS, needs_vetted_lists

pytestmark = [*needs_vetted_lists(), pytest.mark.timeout(900)]


def run(path: Path, manifest: Path, *, workers: int) -> list[EpisodeRecord]:
    settings = {"planner": "cpu", "renderer": "raster", "shadows": "off", "manifest": str(manifest)}
    bench, policy = evalkit.load_bench("robotwin", **settings), evalkit.load_policy("hold")
    plan = evalkit.make_plan(bench, policy, tasks=["stack_blocks_two"], setting="clean", num_episodes=2, max_steps=16)
    evalkit.run_plan(plan, bench, policy, path, workers=workers, clips=False, video=False, chunk_timeout_s=60.0)
    return open_run(path).records()


def test_a_hanging_renderer_costs_one_retry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = tmp_path / "robotwin.json"
    write_manifest(manifest, read_vetted_list(LISTS))
    plain = run(tmp_path / "plain", manifest, workers=1)
    send, stopped = EnvWorker.send_actions, list[int]()

    def stopping(worker: EnvWorker, actions: np.ndarray, **asked: object) -> None:
        """Stop the first process in the middle of its chunk, with its children, and shorten the wait."""
        send(worker, actions, **asked)  # type: ignore[arg-type]
        if not stopped:
            stopped.append(worker.pid)
            threading.Timer(0.2, os.killpg, (worker.pid, signal.SIGSTOP)).start()

    monkeypatch.setattr(EnvWorker, "send_actions", stopping)
    hung = run(tmp_path / "hung", manifest, workers=2)
    assert sorted(record.attempts for record in hung) == [1, 2]
    assert not Path(f"/proc/{stopped[0]}").exists()
    for name in ("outcome", "first_state_sha256", "first_frame_sha256", "actions_sha256", "instruction"):
        assert {r.key: getattr(r, name) for r in hung} == {r.key: getattr(r, name) for r in plain}
