"""Real-time chunking: the next chunk joins the one under execution."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from evalkit.contracts.errors import EpisodeFault
from evalkit.contracts.types import CommittedActions
from tests.doubles.networks import TINY, started
from xwam.checkpoints.fresh import fresh_bundle, fresh_network
from xwam.config import NANO, Geometry
from xwam.flow.losses import Batch, Noise, losses
from xwam.flow.noise import NoiseLevels
from xwam.flow.realtime_chunking import MAX_PULL, commit, pull, soft_mask
from xwam.flow.sampler import Schedule, advance, run
from xwam.network.transformer import shared_timesteps, with_clean_actions
from xwam.serving.engine import Engine
from xwam.serving.imagine import read_prompts
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
    with pytest.raises(ValueError, match="8 actions of which 2 are left cannot bridge a delay of 3"):
        commit(torch.zeros(1, 2, 14), num_actions=8, delay=3)


def joining(weight: Any = None, *, as_prefix: bool = False) -> Any:
    network = fresh_network(TINY, seed=0)  # smooth: a gradient tells where to go
    return joining_with(network, weight, as_prefix=as_prefix)


def joining_with(network: Any, weight: Any = None, *, as_prefix: bool = False) -> Any:
    state = started(network, steps=(8, 6))
    old = torch.randn(state.action.x.shape, generator=torch.Generator().manual_seed(9)) * 0.3
    commitment = commit(old[:, 1:], num_actions=old.shape[1], delay=2, as_prefix=as_prefix)
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


def test_free_actions_are_kept_beside_the_committed() -> None:
    network, _, bound = joining()
    with torch.no_grad():
        done = run(network, bound, depth=False)
    assert done.free_action_BKA is not None
    assert torch.equal(done.free_action_BKA[:, 2:], done.action.x[:, 2:])
    assert not torch.equal(done.free_action_BKA[:, :2], done.action.x[:, :2])


# ---- a prefix of clean actions


def test_prefix_tokens_stand_at_timestep_zero() -> None:
    geometry = Geometry(num_frames=2, num_views=1, rows=1, cols=2, num_actions=4, num_proprios=3)
    t_video, t_action = torch.tensor([700.0, 600.0]), torch.tensor([300.0, 200.0])

    def of_tokens(num_clean: Any) -> list[list[float]]:
        times = with_clean_actions(shared_timesteps(t_video, t_action, geometry), geometry, num_clean)
        columns = [group for group, length in times.runs for _ in range(length)]
        return times.t_BG[:, columns].tolist()

    video, states = [[0, 0, 700, 700], [0, 0, 600, 600]], [[0, 300, 300], [0, 200, 200]]
    actions = [[0, 0, 300, 300], [0, 0, 200, 200]]
    assert of_tokens(2) == [v + a + s for v, a, s in zip(video, actions, states, strict=True)]
    actions = [[0, 300, 300, 300], [0, 0, 0, 200]]
    assert of_tokens([1, 3]) == [v + a + s for v, a, s in zip(video, actions, states, strict=True)]
    actions = [[300] * 4, [200] * 4]
    assert of_tokens(0) == [v + a + s for v, a, s in zip(video, actions, states, strict=True)]


class Watched:
    """A network that keeps the actions of every pass and their timesteps."""

    def __init__(self, network: Any) -> None:
        self.network, self.passes = network, list[tuple[Any, Any]]()
        self.geometry, self.timesteps, self.parameters = network.geometry, network.timesteps, network.parameters

    def __call__(self, *tensors: Any, **options: Any) -> Any:
        self.passes.append((tensors[1], tensors[3]))
        return self.network(*tensors, **options)


def test_every_pass_sees_the_prefix_clean() -> None:
    network, _, bound = joining(as_prefix=True)
    watched: Any = Watched(network)
    target = bound.commitment.action_BKA
    with torch.no_grad():
        done = run(watched, bound, depth=False)
    assert len(watched.passes) == 8
    for index, (action, times) in enumerate(watched.passes):
        assert torch.equal(action[:, :2], target[:, :2]), index
        assert ((3, 2) in times.runs) == (index < 6)  # later all actions are clean
    assert torch.equal(done.action.x[:, :2], target[:, :2])
    assert done.free_action_BKA is None


def test_an_empty_prefix_changes_no_bit() -> None:
    network, free, bound = joining(as_prefix=True)
    empty = replace(bound, commitment=replace(bound.commitment, delay=0))
    with torch.no_grad():
        alone, joined = (run(network, state, stop_after_actions=True, depth=False) for state in (free, empty))
    assert torch.equal(alone.action.x, joined.action.x)


def test_only_equal_prefixes_share_a_pass() -> None:
    network, free, bound = joining(as_prefix=True)
    with pytest.raises(ValueError, match=r"clean actions of \(2,\), state 0 of \(0,\)"):
        advance(network, [free, bound])


def test_prefix_actions_carry_no_loss() -> None:
    bundle = fresh_bundle(NANO, seed=0)
    batch, noise, text = random_batch(bundle)
    levels = NoiseLevels(torch.tensor([0.9, 0.8]), torch.tensor([0.7, 0.6]), torch.tensor([False, False]))

    def action_loss(changed: Any, num_clean: Any) -> float:
        return losses(bundle.network, changed, noise, levels, text, num_clean=num_clean).action.item()

    other = batch.action_BKA.clone()
    other[0, :3] = 9.0  # what was to be learnt of the prefix no longer counts
    assert action_loss(replace(batch, action_BKA=other), [3, 0]) == action_loss(batch, [3, 0])
    assert action_loss(replace(batch, action_BKA=other), [2, 0]) != action_loss(batch, [2, 0])
    executed = batch.executed_BKA.clone()
    executed[0, :3] = 0.5  # and what was executed is what the network sees
    assert action_loss(replace(batch, executed_BKA=executed), [3, 0]) != action_loss(batch, [3, 0])
    assert action_loss(batch, [0, 0]) == losses(bundle.network, batch, noise, levels, text).action.item()


def random_batch(bundle: Any) -> Any:
    generator = torch.Generator().manual_seed(3)
    shapes = ((2, *NANO.latent_shape), (2, 32, 14), (2, 9, 16))
    video, action, proprio = (torch.randn(shape, generator=generator) for shape in shapes)
    ones = [torch.ones_like(action), torch.ones_like(proprio)]
    batch = Batch(
        video_BCTVHW=video,
        depth_BCTVHW=video,
        action_BKA=action,
        proprio_BPS=proprio,
        action_mask_BKA=ones[0],
        proprio_mask_BPS=ones[1],
        executed_BKA=action.clone(),
    )
    noise = Noise(*(torch.randn(shape, generator=generator) for shape in shapes))
    return batch, noise, read_prompts(bundle, ["lift", "open"])


# ---- the engine

STRATEGIES = pytest.mark.parametrize("strategy", ["guided", "prefix"])


@STRATEGIES
def test_the_engine_joins_chunks(strategy: Any) -> None:
    bundle = fresh_bundle(NANO, seed=0)
    engine = Engine(bundle, Schedule(num_video_steps=2, num_action_steps=2))
    rgb, proprio = torch.zeros(3, 128, 128, 3, dtype=torch.uint8).numpy(), torch.zeros(16).numpy()
    proprio[3] = 1.0
    old, _ = engine.act(engine.begin(Seen(rgb, proprio, "lift"), seed=1))
    committed = CommittedActions(actions=old[8:], delay=3, last=old[7], strategy=strategy)
    actions, second = engine.act(engine.begin(Seen(rgb, proprio, "lift"), seed=2, committed=committed))
    joined = engine.numbers.plain_actions(second.state.action.x[0])
    np.testing.assert_allclose(joined[:3], old[8:11], atol=1e-6)
    assert actions.shape == (32, 14)
    assert np.allclose(actions[:3], old[8:11], atol=1e-6) == (strategy == "prefix")  # guided: what it would have done


@STRATEGIES
def test_absolute_poses_do_not_jump_at_the_hand_over(strategy: Any) -> None:
    arms, bound = ("left", "right"), 0.02
    bounds = replace(NANO.bounds, action_low=(-bound,) * 14, action_high=(bound,) * 14)
    bundle = fresh_bundle(NANO, seed=0)
    bundle = bundle._replace(model=replace(NANO, bench="robotwin", arms=arms, bounds=bounds))
    engine = Engine(bundle, Schedule(num_video_steps=2, num_action_steps=2))
    rgb, proprio = np.zeros((3, 240, 320, 3), np.uint8), np.zeros(16)
    proprio[[3, 11]] = 1.0
    old, _ = engine.act(engine.begin(Seen(rgb, proprio, "lift"), seed=1))
    lagging = proprio + np.eye(16)[0] * 0.05  # the arm is 5 cm from the commanded pose
    committed = CommittedActions(actions=old[8:], delay=3, last=old[7], strategy=strategy)
    new, second = engine.act(engine.begin(Seen(rgb, lagging, "lift"), seed=2, committed=committed))
    one_step = np.abs(np.diff(np.vstack([old[10], new[3]])[:, [0, 1, 2, 7, 8, 9]], axis=0))
    largest = np.abs(engine.numbers.plain_actions(second.state.action.x[0])[3, [0, 1, 2, 7, 8, 9]]).max()
    assert one_step.max() <= largest + 1e-5
    halted, _ = engine.act(engine.begin(Seen(rgb, lagging, "lift"), seed=2))
    assert abs(halted[0, 0] - lagging[0]) < 0.04


def test_a_chunk_that_ends_too_early_is_the_harness_s_fault() -> None:
    engine = Engine(fresh_bundle(NANO, seed=0), Schedule(num_video_steps=2, num_action_steps=2))
    rgb, proprio, old = np.zeros((3, 128, 128, 3), np.uint8), np.eye(16)[3], np.zeros((2, 14), np.float32)
    committed = CommittedActions(actions=old, delay=3, last=old[0], strategy="guided")
    with pytest.raises(EpisodeFault, match="of which 2 are left cannot bridge a delay of 3"):
        engine.begin(Seen(rgb, proprio, "lift"), seed=1, committed=committed)
