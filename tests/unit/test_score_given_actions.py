"""X-WAM as a world simulator: actions that are given come back unchanged, and decide what is predicted.

In: a denoiser whose answer is known, the nano model with random weights. Out: a verdict.
Read next: `xwam/serving/engine.py`, `xwam/flow/sampler.py`; `test_score_dataset.py` for the scores of both modes.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.doubles.known import known
from tests.doubles.xwam import PLUGIN, QUICK, request_of
from xwam.config import LEAST_STATE_STEPS
from xwam.flow import sampler
from xwam.flow.realtime_chunking import commit
from xwam.flow.unipc import unipc_grid
from xwam.network.transformer import Denoised
from xwam.policy import XwamPolicy
from xwam.robots.axes import accumulate, differences
from xwam.robots.interfaces import INTERFACES
from xwam.serving.seen import Seen

GRID = unipc_grid(3)


class Painter:
    """A denoiser that knows the ground truth: the video is as bright as the mean of the actions that it sees."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def geometry(self, video_BCTVHW: Any, num_actions: Any, num_proprios: Any) -> Any:
        return None

    def timesteps(self, t_video_B: Any, t_action_B: Any, geometry: Any) -> Any:
        return t_video_B, t_action_B

    def parameters(self) -> Any:
        return iter(())

    def __call__(
        self, video_BCTVHW: Any, action_BKA: Any, proprio_BPS: Any, times: Any, text: Any, *, depth: Any = False
    ) -> Any:
        self.seen.append((float(times[0]), float(times[1]), action_BKA.clone()))
        sigma = GRID.sigmas[GRID.timesteps.index(int(times[0]))]
        clean = torch.full_like(video_BCTVHW, float(action_BKA.mean()))
        still = torch.zeros_like(action_BKA), torch.zeros_like(proprio_BPS)
        return Denoised((video_BCTVHW - clean) / sigma, *still, None)


class NoText:
    @staticmethod
    def cat(texts: Any) -> Any:
        return None


def _begin(given: Any, **more: Any) -> Any:
    shapes = (1, 2, 3, 1, 4, 4), (1, 8, 14), (1, 3, 16)
    noise = [torch.randn(shape, generator=torch.Generator().manual_seed(3)) for shape in shapes]
    return sampler.begin(
        sampler.Schedule(num_video_steps=3, num_action_steps=2),
        noise_video_BCTVHW=noise[0],
        noise_action_BKA=noise[1],
        noise_proprio_BPS=noise[2],
        seen_latent_BCVHW=torch.zeros(1, 2, 1, 4, 4),
        seen_proprio_BS=torch.zeros(1, 16),
        text=None,  # type: ignore[arg-type]
        given_action_BKA=given,
        **more,
    )


def test_given_actions_follow_the_noise_and_end_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "TextContext", NoText)
    given, painter = torch.full((1, 8, 14), 0.4), Painter()
    start = _begin(given)
    state = sampler.run(painter, start, stop_after_actions=True, depth=False)
    assert torch.equal(state.action.x, given)
    sigma = unipc_grid(2).sigmas[1]
    noise = start.given.noise_BKA
    torch.testing.assert_close(painter.seen[1][2], (1 - sigma) * given + sigma * noise)


@pytest.mark.parametrize("brightness", [0.4, -0.7])
def test_every_pass_of_the_video_sees_the_given_actions_clean(
    monkeypatch: pytest.MonkeyPatch, brightness: float
) -> None:
    monkeypatch.setattr(sampler, "TextContext", NoText)
    given, painter = torch.full((1, 8, 14), brightness), Painter()
    start = _begin(given)
    state = sampler.run(painter, start, stop_after_actions=True, depth=False)
    painter.seen.clear()
    state = sampler.run(painter, replace(state, video=start.video))
    assert [t_action for _, t_action, _ in painter.seen] == [0.0] * 3
    assert all(torch.equal(action, given) for _, _, action in painter.seen)
    torch.testing.assert_close(state.video.x[:, :, 1:], torch.full((1, 2, 2, 1, 4, 4), brightness))


def test_actions_cannot_be_given_and_joined_at_once() -> None:
    given = torch.zeros(1, 8, 14)
    with pytest.raises(ValueError, match="cannot be combined with real-time chunking"):
        _begin(given, commitment=commit(given[:, 1:], num_actions=8, delay=2))


@pytest.fixture(scope="module")
def policy() -> XwamPolicy:
    return PLUGIN.make(QUICK)


def _given(seed: int) -> np.ndarray:
    actions = np.zeros((32, 14), np.float32)
    actions[:, :7] = np.random.default_rng(seed).uniform(-1, 1, (32, 7))
    return actions


def test_the_policy_gives_them_back_and_predicts_their_outcome(policy: XwamPolicy) -> None:
    asked = [replace(request_of(num_predicted_frames=8), given_actions=_given(seed)) for seed in (0, 1)]
    replies = policy.infer([*asked, asked[0]])
    for reply, request in zip(replies, [*asked, asked[0]], strict=True):
        np.testing.assert_array_equal(reply.actions, known(request.given_actions))
    predictions: list[Any] = [known(reply.prediction)() for reply in replies]
    first, second, again = predictions
    assert not np.array_equal(first.depth, second.depth)
    assert not np.array_equal(first.proprio, second.proprio)
    np.testing.assert_array_equal(first.rgb, again.rgb)
    own = policy.infer([request_of(num_predicted_frames=8)])[0]
    assert not np.array_equal(own.actions, _given(0))


def test_the_networks_actions_are_the_given_ones(policy: XwamPolicy) -> None:
    seen = request_of().observation
    under_way = policy.engine.begin(Seen(seen.rgb, seen.proprio, "lift"), seed=0, given_actions=_given(0))
    actions, under_way = policy.engine.act(under_way)
    np.testing.assert_allclose(actions, _given(0), atol=1e-6)
    assert under_way.state.video.step_idx == 0
    assert under_way.state.actions_clean


def test_depth_exists_when_actions_take_all_video_steps() -> None:
    policy = PLUGIN.make(replace(QUICK, num_video_steps=2, num_action_steps=2))
    for given in (None, _given(0)):
        (reply,) = policy.infer([replace(request_of(num_predicted_frames=8), given_actions=given)])
        assert known(reply.prediction)().depth is not None


def test_both_borders_know_the_way_back() -> None:
    rng, arms = np.random.default_rng(0), ("left", "right")
    start = np.zeros(16)
    for arm in (slice(3, 7), slice(11, 15)):
        start[arm] = np.abs(rng.normal(size=4))
        start[arm] /= np.linalg.norm(start[arm])
    start[:3], start[8:11] = rng.normal(size=3), rng.normal(size=3)
    deltas = rng.uniform(-0.1, 0.1, (5, 14))
    deltas[:, [6, 13]] = 0.1
    np.testing.assert_allclose(differences(accumulate(deltas, start, arms), start, arms), deltas, atol=1e-12)
    for name in ("robotwin", "robocasa"):
        interface = INTERFACES[name]
        commands = interface.env_actions(deltas, start, arms)
        back = interface.model_actions(commands, start, arms)
        np.testing.assert_allclose(back, deltas, atol=1e-6)


def test_states_hear_of_given_actions_whatever_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the single pass of nano's schedule actions would stand at all noise, and no state could follow from them."""
    once = PLUGIN.make(replace(QUICK, num_video_steps=2, num_action_steps=1))
    seen, levels = request_of().observation, []

    def spy(network: Any, states: Any, *, depth: Any = False) -> Any:
        levels.append(sampler.timesteps_of(states[0])[1])
        return advance(network, states, depth=depth)

    advance = sampler.advance
    monkeypatch.setattr(sampler, "advance", spy)
    under_way = once.engine.begin(Seen(seen.rgb, seen.proprio, "lift"), seed=0, given_actions=_given(0))
    _, under_way = once.engine.act(under_way)
    assert len(levels) == LEAST_STATE_STEPS
    assert levels == sorted(levels, reverse=True)
    assert levels[-1] < 500
    assert under_way.state.actions_clean
    assert under_way.state.video.step_idx == 0
