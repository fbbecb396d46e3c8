"""Real-time chunking: the next chunk joins the one under execution."""

from dataclasses import replace

import pytest
import torch

from tests.unit.test_xwam_network import TINY
from tests.unit.test_xwam_noise import started
from xwam import checkpoints
from xwam.chunking import MAX_PULL, commit, pull, soft_mask
from xwam.config import NANO
from xwam.engine import Engine, Underway
from xwam.sampler import Schedule, advance, run


def test_mask_by_hand():
    mask = soft_mask(8, executed=3, delay=2)
    assert mask[:2].tolist() == [1, 1]
    assert (mask[:-1] >= mask[1:]).all()
    assert mask[5:].tolist() == [0, 0, 0]
    e = torch.e
    assert mask[2].item() == pytest.approx(0.75 * (e**0.75 - 1) / (e - 1))


def test_pull_is_bounded_and_two_in_the_middle():
    assert pull(1.0) == pull(0.9999) == MAX_PULL
    assert pull(0.5) == pytest.approx(2.0)


def test_a_chunk_too_short_to_bridge_the_delay_is_refused():
    with pytest.raises(ValueError, match="8 actions cannot bridge 3 more after 6 are executed"):
        commit(torch.zeros(1, 8, 14), executed=6, delay=3)


def joining(weight=None):
    network = checkpoints.fresh_network(TINY, seed=0)  # smooth, so that a gradient tells where to go
    state = started(network, steps=(8, 6))
    old = torch.randn(state.action.x.shape, generator=torch.Generator().manual_seed(9)) * 0.3
    commitment = commit(old, executed=1, delay=2)
    if weight is not None:
        commitment = replace(commitment, weight_K=torch.full_like(commitment.weight_K, weight), delay=0)
    return network, state, replace(state, commitment=commitment)


def test_the_new_chunk_is_pulled_towards_the_old():
    network, free, bound = joining()
    with torch.no_grad():
        alone, joined = (run(network, state, stop_after_actions=True, depth=False) for state in (free, bound))
    target, weight = bound.commitment.action_BKA, bound.commitment.weight_K
    assert torch.equal(joined.action.x[:, :2], target[:, :2])
    soft = slice(2, int((weight > 0).sum()))
    miss = [((state.action.x - target).square().mean((0, 2)) * weight)[soft].sum() for state in (alone, joined)]
    assert miss[1] < 0.5 * miss[0]
    assert not joined.action.x.requires_grad


def test_no_weight_is_no_pull():
    network, free, bound = joining(weight=0.0)
    with torch.no_grad():
        alone, joined = (run(network, state, stop_after_actions=True, depth=False) for state in (free, bound))
    torch.testing.assert_close(alone.action.x, joined.action.x, atol=1e-5, rtol=1e-5)


def test_bound_and_free_requests_share_a_pass():
    network, free, bound = joining()
    with torch.no_grad():
        together = advance(network, [free, bound])
        for got, state in zip(together, (free, bound), strict=True):
            (alone,) = advance(network, [state])
            torch.testing.assert_close(got.action.x, alone.action.x, atol=1e-4, rtol=1e-4)


def test_the_engine_joins_chunks():
    bundle = checkpoints.fresh_bundle(NANO, seed=0)
    engine = Engine(bundle, Schedule(num_video_steps=2, num_action_steps=2))
    rgb, proprio = torch.zeros(3, 128, 128, 3, dtype=torch.uint8).numpy(), torch.zeros(16).numpy()
    proprio[3] = 1.0
    _, first = engine.act(engine.begin(rgb, proprio, "lift", seed=1))
    after = Underway(request=first, executed=8, delay=3)
    actions, second = engine.act(engine.begin(rgb, proprio, "lift", seed=2, after=after))
    assert torch.equal(second.state.action.x[:, :3], first.state.action.x[:, 8:11])
    assert actions.shape == (32, 14)
