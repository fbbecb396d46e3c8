"""Workers share X-WAM's passes in a run, and no action or prediction depends on how many there are.

In: robosuite and the shipped nano weights. Out: nothing; skips with a reason where robosuite is missing.
Read next: `tests/unit/test_serve_xwam.py`, the same without a simulator.
"""

from pathlib import Path

import numpy as np
import pytest

import evalkit
from evalkit.contracts.types import Prediction
from evalkit.store.clips import ClipReader
from evalkit.store.run_folder import open_run

pytest.importorskip("robosuite", reason="robosuite is not installed")

SHARED_S = {"policy/queue", "policy/prepare", "policy/passes", "policy/video_queue", "policy/video_passes"}


def run(path: Path, *, width: int, workers: int) -> tuple[dict[str, str | None], list[Prediction]]:
    """Run four episodes of two chunks and return the hashes of the actions and all predictions."""
    bench, policy = evalkit.load_bench("robosuite"), evalkit.load_policy("xwam", width=width)
    plan = evalkit.make_plan(bench, policy, tasks=["Lift"], num_episodes=4, seed=3, max_steps=16)
    evalkit.run_plan(plan, bench, policy, path, workers=workers, video=False)
    folder = open_run(path)
    records = sorted(folder.records(), key=lambda record: record.index)
    predictions = list[Prediction]()
    for record in records:
        assert {*SHARED_S, "policy/decode"} <= set(record.timings_s)
        with ClipReader(folder.path / str(record.clip)) as clip:
            predictions += [chunk.predicted for chunk in clip if chunk.predicted is not None]
    return {record.key: record.actions_sha256 for record in records}, predictions


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize("width", [1, 4])
def test_results_are_those_of_one_worker(tmp_path: Path, width: int) -> None:
    actions, predictions = run(tmp_path / "1", width=width, workers=1)
    assert len(actions) == 4
    assert len(predictions) == 8
    for workers in (2, 4):
        other_actions, other_predictions = run(tmp_path / str(workers), width=width, workers=workers)
        assert other_actions == actions
        for one, other in zip(predictions, other_predictions, strict=True):
            for name in ("rgb", "depth", "proprio"):
                assert np.array_equal(getattr(one, name), getattr(other, name)), name
