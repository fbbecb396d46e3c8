"""Real-time chunking: the next chunk joins the one under execution."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.doubles.networks import TINY, started
from xwam.checkpoints.fresh import fresh_bundle, fresh_network
from xwam.config import NANO
from xwam.flow.realtime_chunking import MAX_PULL, commit, pull, soft_mask
from xwam.flow.sampler import Schedule, advance, run
from xwam.serving.engine import Engine, Underway
from xwam.serving.seen import Seen


def test_mask_by_hand() -> None:
    mask = soft_mask(8, executed=3, delay=2)
    assert mask[:2].tolist() == [1, 1]
    assert (mask[:-1] >= mask[1:]).all()
    assert mask[5:].tolist() == [0, 0, 0]
    e = torch.e
    assert mask[2].item() == pytest.approx(0.75 * (e**0.75 - 1) / (e - 1))


def test_pull_is_bounded_and_two_in_the_middle() -> None:
    assert pull(1.0) == pull(0.9999) == MAX_PULL
    assert pull(0.5) == pytest.approx(2.0)


def test_a_chunk_too_short_to_bridge_the_delay_is_refused() -> None:
    with pytest.raises(ValueError, match="8 actions cannot bridge 3 more after 6 are executed"):
        commit(torch.zeros(1, 8, 14), executed=6, delay=3)


def joining(weight: Any = None) -> Any:
    return joining_with(fresh_network(TINY, seed=0), weight)  # smooth: a gradient tells where to go


def joining_with(network: Any, weight: Any = None) -> Any:
    state = started(network, steps=(8, 6))
    old = torch.randn(state.action.x.shape, generator=torch.Generator().manual_seed(9)) * 0.3
    commitment = commit(old, executed=1, delay=2)
    if weight is not None:
        commitment = replace(commitment, weight_K=torch.full_like(commitment.weight_K, weight), delay=0)
    return network, state, replace(state, commitment=commitment)


def test_the_new_chunk_is_pulled_towards_the_old() -> None:
    network, free, bound = joining()
    with torch.no_grad():
        alone, joined = (run(network, state, stop_after_actions=True, depth=False) for state in (free, bound))
    target, weight = bound.commitment.action_BKA, bound.commitment.weight_K
    assert torch.equal(joined.action.x[:, :2], target[:, :2])
    soft = slice(2, int((weight > 0).sum()))
    miss = [((state.action.x - target).square().mean((0, 2)) * weight)[soft].sum() for state in (alone, joined)]
    assert miss[1] < 0.5 * miss[0]
    assert not joined.action.x.requires_grad


def test_no_weight_is_no_pull() -> None:
    network, free, bound = joining(weight=0.0)
    with torch.no_grad():
        alone, joined = (run(network, state, stop_after_actions=True, depth=False) for state in (free, bound))
    torch.testing.assert_close(alone.action.x, joined.action.x, atol=1e-5, rtol=1e-5)


def test_bound_and_free_requests_share_a_pass() -> None:
    network, free, bound = joining()
    with torch.no_grad():
        together = advance(network, [free, bound])
        for got, state in zip(together, (free, bound), strict=True):
            (alone,) = advance(network, [state])
            torch.testing.assert_close(got.action.x, alone.action.x, atol=1e-4, rtol=1e-4)


def test_inference_mode_is_as_good_as_no_grad() -> None:
    network, _, bound = joining()
    with torch.no_grad():
        (expected,) = advance(network, [bound])
    with torch.inference_mode():
        _, _, made_inside = joining_with(network)
        for state in (bound, made_inside):
            (got,) = advance(network, [state])
            torch.testing.assert_close(got.action.x, expected.action.x, atol=1e-5, rtol=1e-5)


def test_inference_mode_weights_are_refused() -> None:
    with torch.inference_mode():
        network, _, bound = joining()
        with pytest.raises(ValueError, match="this network was loaded under"):
            advance(network, [bound])


def test_the_engine_joins_chunks() -> None:
    bundle = fresh_bundle(NANO, seed=0)
    engine = Engine(bundle, Schedule(num_video_steps=2, num_action_steps=2))
    rgb, proprio = torch.zeros(3, 128, 128, 3, dtype=torch.uint8).numpy(), torch.zeros(16).numpy()
    proprio[3] = 1.0
    _, first = engine.act(engine.begin(Seen(rgb, proprio, "lift"), seed=1))
    after = Underway(request=first, executed=8, delay=3)
    actions, second = engine.act(engine.begin(Seen(rgb, proprio, "lift"), seed=2, after=after))
    assert torch.equal(second.state.action.x[:, :3], first.state.action.x[:, 8:11])
    assert actions.shape == (32, 14)


def test_absolute_poses_do_not_jump_at_the_hand_over() -> None:
    arms, bound = ("left", "right"), 0.02
    bounds = replace(NANO.bounds, action_low=(-bound,) * 14, action_high=(bound,) * 14)
    bundle = fresh_bundle(NANO, seed=0)
    bundle = bundle._replace(model=replace(NANO, bench="robotwin", arms=arms, bounds=bounds))
    engine = Engine(bundle, Schedule(num_video_steps=2, num_action_steps=2))
    rgb, proprio = np.zeros((3, 240, 320, 3), np.uint8), np.zeros(16)
    proprio[[3, 11]] = 1.0
    old, first = engine.act(engine.begin(Seen(rgb, proprio, "lift"), seed=1))
    lagging = proprio + np.eye(16)[0] * 0.05  # the arm is 5 cm from the commanded pose
    for executed, delay in ((8, 3), (0, 2)):
        after = Underway(request=first, executed=executed, delay=delay)
        new, second = engine.act(engine.begin(Seen(rgb, lagging, "lift"), seed=2, after=after))
        np.testing.assert_allclose(new[:delay], old[executed : executed + delay], atol=1e-5)
        one_step = np.abs(np.diff(np.vstack([old[executed + delay - 1], new[delay]])[:, [0, 1, 2, 7, 8, 9]], axis=0))
        largest = np.abs(engine.numbers.plain_actions(second.state.action.x[0])[delay, [0, 1, 2, 7, 8, 9]]).max()
        assert one_step.max() <= largest + 1e-5
    halted, _ = engine.act(engine.begin(Seen(rgb, lagging, "lift"), seed=2))
    assert abs(halted[0, 0] - lagging[0]) < 0.04
