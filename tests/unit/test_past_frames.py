"""The frames between two requests, in every place that asks a policy: equal to frames rendered at every step.

In: a policy that keeps its requests; envs whose images differ at every step. Out: a verdict.
Read next: `evalkit/contracts/requests.py`, `evalkit/run/episode.py`; `tests/sim/test_past_frames.py` for simulators.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.contracts.errors import SpecMismatch
from evalkit.contracts.spec import OSC_DELTA_BASE, PolicySpec, check
from evalkit.contracts.types import PolicyReply, PolicyRequest, Prediction
from evalkit.contracts.worker.client import EnvWorker
from evalkit.record.demonstrate import NO_DISTURBANCE, Learner, demonstrate, rollout
from evalkit.run.episode import ExecutedChunk, Tally, run_episode
from evalkit.score.chunk import ScoreOptions
from evalkit.score.dataset import score_dataset
from evalkit.store.clips import ClipReader
from tests.doubles.bench import FakeBench, FakeBenchConfig, FakeEnv, fake_spec
from tests.doubles.point import EPISODE, PointEnv, PointExpert
from tests.doubles.scene import write_scene_run

BENCH, CONFIG = FakeBench(), FakeBenchConfig(max_steps=20)
NO_LPIPS = ScoreOptions(lpips_nets=())


class Watcher:
    """Keeps its requests, creeps forward, predicts that nothing moves."""

    def __init__(self, stride: int | None, *, chunk_len: int = 8, frame_stride: int = 4) -> None:
        self.spec = PolicySpec(
            policy_id="watcher",
            action_layouts=(OSC_DELTA_BASE,),
            chunk_len=chunk_len,
            execute_steps=chunk_len,
            predicts=("rgb",),
            num_future_frames=chunk_len // frame_stride,
            frame_stride=frame_stride,
            past_frame_stride=stride,
        )
        self.requests: list[PolicyRequest] = []

    def reset(self, episode_id: str, env: Any) -> None:
        pass

    def infer(self, requests: Sequence[PolicyRequest]) -> list[PolicyReply]:
        self.requests += requests
        actions = np.zeros((self.spec.chunk_len, 14), np.float32)
        actions[:, 0] = 0.01
        return [PolicyReply(actions=actions, prediction=partial(still, request)) for request in requests]


def still(request: PolicyRequest) -> Prediction:
    """Return the current images as the predicted ones."""
    rgb = np.repeat(request.observation.rgb[None], request.num_predicted_frames, axis=0)
    return Prediction(rgb=rgb, depth=None, proprio=None)


class Kept:
    """A listener that keeps the chunks."""

    def __init__(self) -> None:
        self.chunks: list[ExecutedChunk] = []

    def on_chunk(self, chunk: ExecutedChunk) -> None:
        self.chunks.append(chunk)

    def on_end(self, outcome: str) -> None:
        pass

    def abandon(self) -> None:
        pass


def watched(policy: Watcher, *, render: bool) -> Kept:
    """Run one episode of 20 steps."""
    (episode,) = BENCH.plan_episodes(CONFIG, task="Far", setting="default", num_episodes=1, seed=3)
    kept = Kept()
    with closing(EnvWorker(BENCH.launch(CONFIG, task="Far", setting="default"), fake_spec("Far")).build()) as worker:
        run_episode(episode, worker, policy, [kept], Tally(), render=render, predict=render)
    return kept


def every_step(num_steps: int) -> list[np.ndarray]:
    """Return the images of the same episode, rendered after every step."""
    env = FakeEnv(task="Far", fault="none", fault_seed=0, step_s=0.0)
    env.begin(seed=300, max_steps=20)
    images = [env.observe(render=True)["rgb"]]
    for _ in range(num_steps):
        env.advance(np.full(14, 0.01, np.float32))
        images.append(env.observe(render=True)["rgb"])
    return images


def given(requests: Sequence[PolicyRequest]) -> list[np.ndarray]:
    return [request.past_rgb for request in requests if request.past_rgb is not None]


@pytest.mark.parametrize("render", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_a_run_gives_the_frames_of_the_steps_between(stride: int, render: bool) -> None:
    policy, images = Watcher(stride), every_step(20)
    watched(policy, render=render)
    first, *later = given(policy.requests)
    assert first.shape == (0, *images[0].shape)
    assert first.dtype == np.uint8
    assert [len(past) for past in later] == [8 // stride] * 2
    for past, request in zip(later, policy.requests[1:], strict=True):
        steps = range(request.step_idx - 8 + stride, request.step_idx + 1, stride)
        np.testing.assert_array_equal(past, [images[step] for step in steps])
        np.testing.assert_array_equal(past[-1], request.observation.rgb)


def test_a_policy_that_needs_none_is_given_and_costs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    send = EnvWorker.send_actions

    def noted(*args: Any, **kwargs: Any) -> None:
        asked.append(kwargs["render_at"])
        send(*args, **kwargs)

    monkeypatch.setattr(EnvWorker, "send_actions", noted)
    policy = Watcher(None)
    watched(policy, render=False)
    assert given(policy.requests) == []
    assert [list(offsets) for offsets in asked] == [[], [], []]
    assert "past_frame_stride" not in policy.spec.to_json()
    assert Watcher(2).spec.to_json()["past_frame_stride"] == 2


@pytest.mark.parametrize("frame_stride", [4, 8])
def test_clips_and_videos_are_shown_the_same_frames(frame_stride: int) -> None:
    plain, past = (watched(Watcher(stride, frame_stride=frame_stride), render=True) for stride in (None, 1))
    for one, other in zip(plain.chunks, past.chunks, strict=True):
        assert [offset for offset, _ in one.outcome.frames] == [offset for offset, _ in other.outcome.frames]
        for (_, frame), (_, same) in zip(one.outcome.frames, other.outcome.frames, strict=True):
            np.testing.assert_array_equal(frame.rgb, same.rgb)
    unseen = watched(Watcher(1), render=False)
    assert [[offset for offset, _ in chunk.outcome.frames] for chunk in unseen.chunks] == [[8], [8], [4]]


def test_rollouts_and_learners_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The point's images hold the number of executed steps."""
    policies = [Watcher(2), Watcher(2)]
    rollout(PointEnv(), policies[0], replace(EPISODE, max_steps=30))
    monkeypatch.setattr("evalkit.record.demonstrate.islice", lambda actions, _: (next(actions) for _ in range(20)))
    demonstrate(
        PointEnv(), PointExpert(), EPISODE, NO_DISTURBANCE, learner=Learner(policies[1], most_steps=20)
    )  # the learner acts for a random number of steps; here for 20
    for policy in policies:
        first, second, third, *_ = given(policy.requests)
        assert first.shape == (0, 2, 32, 32, 3)
        assert second[:, 0, 0, 0, 0].tolist() == [2, 4, 6, 8]
        assert third[:, 0, 0, 0, 0].tolist() == [10, 12, 14, 16]


def test_a_run_scored_again_gives_its_frames(tmp_path: Path) -> None:
    write_scene_run(tmp_path / "run", outcomes=["success"], image_hw_px=(24, 32), num_chunks=3)
    policy = Watcher(4)
    score_dataset(tmp_path / "run", policy, tmp_path / "s.parquet", options=NO_LPIPS)
    with ClipReader(tmp_path / "run/clips/ball/0000.h5") as clip:
        chunks = list(clip)
    first, *later = given(policy.requests)
    assert len(first) == 0
    for past, before, chunk in zip(later, chunks, chunks[1:], strict=False):
        np.testing.assert_array_equal(past[:-1], before.true.rgb_fvhwc_u8[:-1])
        np.testing.assert_array_equal(past[-1], chunk.start.rgb_fvhwc_u8[0])


def test_a_run_without_the_frames_is_refused(tmp_path: Path) -> None:
    write_scene_run(tmp_path / "run", outcomes=["success"], image_hw_px=(24, 32), num_chunks=2)
    with pytest.raises(SpecMismatch, match=r"0000.h5 has a frame every 4 steps.*'watcher' needs the frames of every 2"):
        score_dataset(tmp_path / "run", Watcher(2), tmp_path / "s.parquet", options=NO_LPIPS)
    with pytest.raises(SpecMismatch, match=r"chunks of 8 steps.*every 16 steps up to its next request"):
        score_dataset(tmp_path / "run", Watcher(16, chunk_len=16), tmp_path / "s.parquet", options=NO_LPIPS)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"past_frame_stride": 3}, "past_frame_stride is 3, which does not divide the 8 executed"),
        ({"past_frame_stride": 0}, "past_frame_stride is 0"),
        ({"execute_steps": 6, "past_frame_stride": 4}, "does not divide the 6 executed actions and the chunk of 8"),
        ({"needs_images": False}, "says that it needs no images"),
    ],
)
def test_a_spec_that_cannot_be_served_is_refused(changes: dict[str, Any], said: str) -> None:
    check(fake_spec("Far"), Watcher(4).spec)
    with pytest.raises(SpecMismatch, match=said):
        check(fake_spec("Far"), replace(Watcher(4).spec, **changes))
