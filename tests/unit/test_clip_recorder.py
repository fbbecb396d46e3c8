"""The thread that compresses clips: order, completeness, and its errors.

In: chunks without a simulator. Out: clips on disk.
Read next: `evalkit/run/recorder.py`.
"""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.contracts.types import Observation, PolicyReply, PolicyRequest
from evalkit.contracts.worker.client import ChunkOutcome
from evalkit.run.episode import ExecutedChunk
from evalkit.run.recorder import MAX_WAITING_CHUNKS, ClipRecorder
from evalkit.store.clips import ClipReader, ClipWriter
from tests.doubles.bench import FakeBench, FakeBenchConfig, FakeEnv
from tests.doubles.policy import FakePolicyConfig, FakePolicyPlugin

NUM_CHUNKS = 3 * MAX_WAITING_CHUNKS


def recorder(path: Path) -> ClipRecorder:
    bench, config = FakeBench(), FakeBenchConfig()
    (episode,) = bench.plan_episodes(config, task="Near", setting="default", num_episodes=1, seed=0)
    spec = FakePolicyPlugin().spec(FakePolicyConfig())
    return ClipRecorder(
        path, episode, bench.env_spec(config, task="Near", setting="default"), spec, plan_sha256="0" * 64
    )


def chunk(index: int) -> ExecutedChunk:
    """Return a chunk of one action, whose number is its index."""
    env = FakeEnv(task="Near", fault="none", fault_seed=0, step_s=0)
    env.begin(seed=index, max_steps=10)
    seen = Observation(**env.observe(render=True))
    request = PolicyRequest(episode_id="x", chunk_idx=index, step_idx=index, noise_seed=0, observation=seen)
    outcome = ChunkOutcome(num_executed=1, success=False, frames=[(1, seen)], last=seen, sim_s=0, render_s=0)
    actions = np.full((1, 14), index, np.float32)
    return ExecutedChunk(
        request=request, actions=actions, predicted=None, outcome=outcome, reply=PolicyReply(actions=actions)
    )


def slow_down(monkeypatch: pytest.MonkeyPatch, *, fail_at: int = -1) -> list[int]:
    """Let each chunk take a while to compress, and one fail; return the list that notes those that began."""
    add, begun = ClipWriter.add, list[int]()

    def slowly(self: ClipWriter, chunk: Any) -> None:
        begun.append(chunk.chunk_idx)
        time.sleep(0.01)
        if chunk.chunk_idx == fail_at:
            raise MemoryError("no room for the chunk")
        add(self, chunk)

    monkeypatch.setattr(ClipWriter, "add", slowly)
    return begun


def test_a_slow_thread_loses_no_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_down(monkeypatch)
    clip = recorder(tmp_path / "x.h5")
    for index in range(NUM_CHUNKS):
        clip.on_chunk(chunk(index))
    assert not (tmp_path / "x.h5").exists()
    clip.on_end("success")
    with ClipReader(tmp_path / "x.h5") as written:
        chunks = list(written)
    assert [each.chunk_idx for each in chunks] == list(range(NUM_CHUNKS))
    for each in chunks:
        assert each.actions_nd is not None
        assert set(each.actions_nd.ravel()) == {each.chunk_idx}
        np.testing.assert_array_equal(each.start.rgb_fvhwc_u8[0], chunk(each.chunk_idx).request.observation.rgb)


def test_an_error_of_the_thread_is_raised_by_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow_down(monkeypatch, fail_at=1)
    for num_more in (1, 0):
        clip = recorder(tmp_path / "x.h5")
        clip.on_chunk(chunk(0))
        clip.on_chunk(chunk(1))
        time.sleep(0.5)
        with pytest.raises(MemoryError, match="no room"):
            clip.on_chunk(chunk(2)) if num_more else clip.on_end("success")
        clip.abandon()
    assert not (tmp_path / "x.h5").exists()


def test_waiting_chunks_are_abandoned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = slow_down(monkeypatch)
    clip = recorder(tmp_path / "x.h5")
    for index in range(MAX_WAITING_CHUNKS):
        clip.on_chunk(chunk(index))
    clip.abandon()
    assert len(begun) < MAX_WAITING_CHUNKS
    assert not (tmp_path / "x.h5").exists()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("clip")]
