"""The network with two streams: against X-WAM's with tied weights, and which tokens reach which."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.joint_attention.config import count_two_streams
from baselines.joint_attention.network import TwoStreamNetwork
from tests.doubles.networks import ACTIONS, COLS, FRAMES, ROWS, STATES, TINY, VIEWS, inputs_of
from tests.doubles.two_streams import TINY_STREAMS, tied, two_streams_of
from xwam.checkpoints.bundle import load_bundle, save_checkpoint
from xwam.checkpoints.fresh import fresh_bundle, start_from_wan
from xwam.checkpoints.tensor_names import is_addition
from xwam.config import NANO, WAN22_5B, DepthMode, count_parameters
from xwam.families import family_of, model_named
from xwam.network.attention import KeyValue
from xwam.network.transformer import Denoised, XwamNetwork, is_exact

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
            torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)  # velocities are divided by small noise levels


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


@pytest.mark.parametrize("family", ["joint_attention", "video_in_training"])
def test_nano_has_as_many_parameters_as_xwam(family: str) -> None:
    depths: tuple[DepthMode, ...] = ("interleaved", "none")
    for depth in depths:
        xwam = sum(count_parameters(replace(NANO.network, depth=depth)))
        model = model_named(f"{family}/nano")
        assert sum(family_of(family).count_parameters(replace(model.network, depth=depth)).values()) == pytest.approx(
            xwam, rel=0.05
        )


def test_5b_is_wan_and_a_stream_of_one_billion() -> None:
    counts = family_of("joint_attention").count_parameters(model_named("joint_attention/5b").network)
    assert counts["wan"] == count_parameters(WAN22_5B).wan == 4_999_787_712
    assert counts["depth"] == count_parameters(WAN22_5B).depth
    assert counts["actions_and_states"] == pytest.approx(1e9, rel=0.03)  # OpenWAM: "1B-parameter ActionDiT"


@pytest.mark.parametrize("name", ["joint_attention/nano", "video_in_training/nano-robotwin"])
def test_a_checkpoint_comes_back(name: str, tmp_path: Path) -> None:
    bundle = fresh_bundle(model_named(name), seed=3)
    save_checkpoint(tmp_path / "model.safetensors", bundle.network.cast(torch.bfloat16), bundle.model)
    loaded = load_bundle(str(tmp_path / "model.safetensors"))
    assert loaded.model == bundle.model
    assert {weight.dtype for name, weight in loaded.network.named_parameters() if is_exact(name)} == {torch.float32}
    for (key, one), (_, two) in zip(bundle.network.named_parameters(), loaded.network.named_parameters(), strict=True):
        assert one.equal(two), key


def test_wan_starts_the_video_stream_and_leaves_the_other_fresh() -> None:
    config = replace(TINY_STREAMS, depth="interleaved")
    wan = {name: weight for name, weight in two_streams_of(config).state_dict().items() if not is_addition(name)}
    network = start_from_wan(config, wan, family="joint_attention")
    held = network.state_dict()
    assert all(held[name].equal(weight) for name, weight in wan.items())
    assert held["blocks.0.action.ffn.0.weight"].any()
    assert held["extra_blocks.0.0.ffn.0.weight"].equal(held["blocks.1.ffn.0.weight"])
