"""The network with two streams: against X-WAM's with tied weights, and which tokens reach which."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.joint_attention.config import count_two_streams
from baselines.joint_attention.network import TwoStreamNetwork
from tests.doubles.networks import ACTIONS, COLS, FRAMES, ROWS, STATES, TINY, VIEWS, inputs_of
from tests.doubles.two_streams import TINY_STREAMS, tied, two_streams_of
from xwam.network.layers import KeyValue
from xwam.network.transformer import Denoised, XwamNetwork

PER_FRAME = VIEWS * (ROWS // 2) * (COLS // 2)
VIDEO = FRAMES * PER_FRAME
ALL = VIDEO + ACTIONS + STATES


def forward(network: XwamNetwork, inputs: list[Tensor], *, depth: bool = False) -> Denoised:
    video, action, proprio, text = inputs
    geometry = network.geometry(video, ACTIONS, STATES)
    times = network.timesteps(torch.tensor([700.0, 300.0]), torch.tensor([400.0, 50.0]), geometry)
    return network(video, action, proprio, times, network.encode_text(text), depth=depth)


def same(got: Denoised, expected: Denoised) -> None:
    for one, two in zip(got, expected, strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            torch.testing.assert_close(one, two, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("nano", [False, True])
def test_tied_streams_are_one_stream(nano: bool) -> None:
    config = replace(TINY, video_prediction="clean", proprio_prediction="change") if nano else TINY
    both, single = tied(config)
    inputs = inputs_of()
    same(forward(both, inputs, depth=True), forward(single, inputs, depth=True))


def dense_mask() -> Tensor:
    """Return which tokens (columns) each token (rows) reads if actions do not see the future."""
    mask = torch.zeros(ALL, ALL, dtype=torch.bool)
    present, future, rest = slice(0, PER_FRAME), slice(PER_FRAME, VIDEO), slice(VIDEO, ALL)
    for query, key in ((present, present), (future, present), (future, future), (rest, present), (rest, rest)):
        mask[query, key] = True
    return mask


def test_tied_streams_with_a_mask_are_one_masked_stream() -> None:
    both, single = tied(sees_future=False)
    inputs, mask = inputs_of(), dense_mask()
    for block in single.main_blocks():

        def read(query: Tensor, memory: KeyValue, _: Any = None, o: Any = block.self_attn.o, **__: Any) -> Tensor:
            seen = F.scaled_dot_product_attention(query, *memory, attn_mask=mask)
            return o(seen.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

        block.self_attn.read = read  # type: ignore[method-assign, assignment]
    same(forward(both, inputs), forward(single, inputs))


def test_the_future_reaches_actions_only_where_they_see_it() -> None:
    inputs = inputs_of()
    changed = [inputs[0].clone(), *inputs[1:]]
    changed[0][:, :, 1:] += 1
    for sees_future in (True, False):
        network = two_streams_of(replace(TINY_STREAMS, actions_see_future=sees_future))
        before, after = forward(network, inputs, depth=True), forward(network, changed, depth=True)
        assert torch.equal(before.action_BKA, after.action_BKA) is not sees_future
        assert torch.equal(before.proprio_BPS, after.proprio_BPS) is not sees_future
        assert not torch.equal(before.video_BCTVHW, after.video_BCTVHW)


def test_actions_reach_the_video_only_where_they_see_it() -> None:
    inputs = inputs_of()
    changed = [inputs[0], inputs[1] + 1, *inputs[2:]]
    for sees_future in (True, False):
        network = two_streams_of(replace(TINY_STREAMS, actions_see_future=sees_future))
        before, after = forward(network, inputs, depth=True), forward(network, changed, depth=True)
        assert torch.equal(before.video_BCTVHW, after.video_BCTVHW) is not sees_future
        assert before.depth_BCTVHW is not None
        assert after.depth_BCTVHW is not None
        assert torch.equal(before.depth_BCTVHW, after.depth_BCTVHW) is not sees_future


def trained_by(network: TwoStreamNetwork, loss: Tensor) -> dict[str, bool]:
    """Return whether a loss reaches the blocks of each stream."""
    network.zero_grad()
    loss.backward()
    moved = {name for name, weight in network.named_parameters() if weight.grad is not None and weight.grad.any()}
    blocks = {name for name in moved if name.startswith("blocks.")}
    return {
        "action": any(".action." in name for name in blocks),
        "video": any(".action." not in name for name in blocks),
    }


def test_each_loss_trains_the_streams_it_depends_on() -> None:
    for sees_future in (True, False):
        network = two_streams_of(replace(TINY_STREAMS, actions_see_future=sees_future)).requires_grad_(True)
        out = forward(network, inputs_of())
        of_actions = trained_by(network, out.action_BKA.square().mean())
        of_video = trained_by(network, forward(network, inputs_of()).video_BCTVHW[:, :, 1:].square().mean())
        assert of_actions == {"action": True, "video": True}
        assert of_video == {"action": sees_future, "video": True}


def test_parameters_are_counted_without_building() -> None:
    for config in (TINY_STREAMS, replace(TINY_STREAMS, depth="none", place_grid=(2, 3))):
        with torch.device("meta"):
            network = TwoStreamNetwork(config)
        assert sum(weight.numel() for weight in network.parameters()) == sum(count_two_streams(config))


def test_depth_in_the_video_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="a branch of its own"):
        replace(TINY_STREAMS, depth="sequence")
