"""The transformer against slow and obvious counterparts, and what must not change its outputs."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.doubles.known import known
from tests.doubles.networks import ACTIONS, STATES, TINY, inputs_of, network_of
from xwam.checkpoints.fresh import fresh_network
from xwam.checkpoints.tensors import fill
from xwam.config import WAN22_5B, DepthMode, count_parameters
from xwam.network import layers
from xwam.network.layers import by_token, head_runs, modulate
from xwam.network.reference import ReferenceNetwork
from xwam.network.rope import Rope, rope_axes, rope_table, rotate, token_positions
from xwam.network.transformer import TextContext, XwamNetwork, free_timesteps, shared_timesteps


def forward(
    network: Any, inputs: Any, *, depth: Any = True, t_video: Any = (700.0, 300.0), t_action: Any = (400.0, 0.0)
) -> Any:
    video, action, proprio, text = inputs
    batch = video.shape[0]
    geometry = network.geometry(video, ACTIONS, STATES)
    times = network.timesteps(torch.tensor(t_video[:batch]), torch.tensor(t_action[:batch]), geometry)
    return network(video, action, proprio, times, network.encode_text(text), depth=depth)


def test_rope_is_a_complex_rotation() -> None:
    network, (video, *_) = network_of(), inputs_of()
    geometry = network.geometry(video, ACTIONS, STATES)
    x = torch.randn(2, geometry.num_tokens, 2, TINY.head_width)
    positions, angles = token_positions(TINY, geometry), []
    for axis, size in enumerate(rope_axes(TINY.head_width)):
        angles.append(positions[:, axis, None] / 10000.0 ** (torch.arange(0, size, 2).double() / size))
    turn = torch.polar(torch.ones(1, dtype=torch.float64), torch.cat(angles, dim=1))[:, None]
    expected = torch.view_as_real(torch.view_as_complex(x.double().unflatten(-1, (-1, 2))) * turn).flatten(-2)
    got = rotate(x, rope_table(TINY, geometry, torch.device("cpu")))
    torch.testing.assert_close(got.double(), expected, atol=2e-6, rtol=0)


def test_without_gradients_heads_lie_in_a_row_and_hold_the_same() -> None:
    attention: Any = network_of().blocks[0].self_attn
    x = torch.randn(2, 7, 48)
    rope = Rope(torch.randn(7, 1, 12), torch.randn(7, 1, 12))
    query, memory = attention.query_key_value(x, rope)
    with torch.no_grad():
        fast = attention.query_key_value(x, rope)
    for part, same in zip((fast[0], *fast[1]), (query, *memory), strict=True):
        assert part.is_contiguous()
        torch.testing.assert_close(part, same, atol=1e-6, rtol=1e-6)


def test_mlp_in_parts_equals_mlp_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    network, inputs = network_of(), inputs_of()
    with torch.no_grad():
        whole = forward(network, inputs)
        monkeypatch.setattr(layers, "MLP_TOKENS", 10)
        for one, two in zip(forward(network, inputs), whole, strict=True):
            torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("released", [True, False])
@pytest.mark.parametrize("depth", [False, True])
def test_the_reference_network_agrees(depth: bool, released: bool) -> None:
    config = TINY if released else replace(TINY, video_prediction="clean", proprio_prediction="change")
    network, inputs = network_of(config), inputs_of()
    geometry = network.geometry(inputs[0], ACTIONS, STATES)
    times = network.timesteps(torch.tensor([700.0, 300.0]), torch.tensor([400.0, 0.0]), geometry)
    reading = ReferenceNetwork(network, geometry)
    inputs[3][:, 3:] = 0
    video, action, proprio, text = inputs
    got = reading(video, action, proprio, times, reading.encode_text(text), depth=depth)
    expected = network(video, action, proprio, times, network.encode_text(inputs[3]), depth=depth)
    if not released:  # there the velocities of the present mean nothing
        got, expected = (
            out._replace(video_BCTVHW=out.video_BCTVHW[:, :, 1:], proprio_BPS=out.proprio_BPS[:, 1:])
            for out in (got, expected)
        )
    for one, two in zip(got, expected, strict=True):
        assert (one is None) == (two is None)
        if one is not None:
            torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)


def test_action_and_state_positions_lie_between_frames() -> None:
    network, (video, *_) = network_of(), inputs_of()
    geometry = network.geometry(video, 32, 9)
    positions = token_positions(TINY, geometry)[geometry.num_video_tokens :]
    assert positions[[0, 1, 16, 31], 0].tolist() == [0, 1 / 16, 1, 31 / 16]
    assert positions[32:, 0].tolist() == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]
    assert not positions[:, 1:].any()


def test_depth_branch_leaves_the_other_outputs_alone() -> None:
    network, inputs = network_of(), inputs_of()
    on, off = forward(network, inputs, depth=True), forward(network, inputs, depth=False)
    assert off.depth_BCTVHW is None
    assert on.depth_BCTVHW.shape == inputs[0].shape
    assert all(torch.equal(a, b) for a, b in zip(on[:3], off[:3], strict=True))


def test_depth_reads_the_main_branch() -> None:
    network, inputs = network_of(), inputs_of()
    before = forward(network, inputs).depth_BCTVHW
    network.get_parameter(f"blocks.{len(network.blocks) - 1}.self_attn.v.weight").mul_(2)
    assert not torch.allclose(before, forward(network, inputs).depth_BCTVHW, atol=1e-3)


def test_requests_in_a_batch_do_not_touch_each_other() -> None:
    network, inputs = network_of(), inputs_of(batch=2)
    both = forward(network, inputs)
    turned = forward(network, [tensor.flip(0) for tensor in inputs], t_video=(300.0, 700.0), t_action=(0.0, 400.0))
    alone = forward(network, [tensor[:1] for tensor in inputs])
    for together, swapped, single in zip(both, turned, alone, strict=True):
        torch.testing.assert_close(together, swapped.flip(0), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(together[:1], single, atol=1e-5, rtol=1e-4)


def test_view_order_moves_with_the_view_embedding() -> None:
    network, inputs = network_of(), inputs_of()
    order = [2, 0, 1]
    before = forward(network, inputs)
    network.view_embedding.weight.copy_(network.view_embedding.weight[order].clone())
    after = forward(network, [inputs[0][:, :, :, order], *inputs[1:]])
    for name in ("action_BKA", "proprio_BPS"):
        torch.testing.assert_close(getattr(before, name), getattr(after, name), atol=1e-4, rtol=1e-4)
    for name in ("video_BCTVHW", "depth_BCTVHW"):
        torch.testing.assert_close(getattr(before, name)[:, :, :, order], getattr(after, name), atol=1e-4, rtol=1e-4)


def test_shared_timesteps_are_free_ones_that_happen_to_agree() -> None:
    network, (video, action, proprio, text) = network_of(), inputs_of()
    geometry, context = network.geometry(video, ACTIONS, STATES), network.encode_text(text)
    t_video, t_action = torch.tensor([700.0, 300.0]), torch.tensor([400.0, 0.0])
    video_BT = torch.stack([torch.zeros(2), t_video], 1)
    state_BP = torch.cat([torch.zeros(2, 1), t_action[:, None].expand(2, STATES - 1)], 1)
    free = free_timesteps(video_BT, t_action[:, None].expand(2, ACTIONS), state_BP, geometry)
    one = network(video, action, proprio, shared_timesteps(t_video, t_action, geometry), context, depth=True)
    two = network(video, action, proprio, free, context, depth=True)
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["none", "sequence", "channel"])
def test_rivals_of_the_depth_branch(mode: DepthMode) -> None:
    config = replace(TINY, depth=mode)
    network, inputs = network_of(config), inputs_of(channels=config.state_channels)
    out = forward(network, inputs)
    assert out.video_BCTVHW.shape == inputs[0].shape
    assert out.depth_BCTVHW is None
    geometry = network.geometry(inputs[0], ACTIONS, STATES)
    runs = network.timesteps(torch.zeros(2), torch.zeros(2), geometry).runs
    extra = geometry.num_video_tokens if mode == "sequence" else 0
    assert sum(length for _, length in runs) == geometry.num_tokens + extra
    assert sum(weight.numel() for weight in network.parameters()) == sum(count_parameters(config))
    if mode != "none":  # video reads depth and depth reads video: the price of both rivals
        changed = [torch.cat([inputs[0][:, :4], inputs[0][:, 4:] + 1], dim=1), *inputs[1:]]
        assert not torch.allclose(forward(network, changed).video_BCTVHW[:, :4], out.video_BCTVHW[:, :4], atol=1e-3)


def test_places_are_told_apart_by_their_embeddings() -> None:
    inputs = inputs_of()
    *_, rows, cols = inputs[0].shape
    places = (rows // TINY.patch_hw[0], cols // TINY.patch_hw[1])
    config = replace(TINY, place_grid=places)
    network, plain = network_of(config), network_of()
    assert sum(weight.numel() for weight in network.parameters()) == sum(count_parameters(config))
    weights = network.state_dict()
    plain.load_state_dict({name: value for name, value in weights.items() if name != "place_embedding"})
    with torch.no_grad():
        changed = forward(network, inputs).action_BKA
        network.place_embedding.zero_()
    torch.testing.assert_close(forward(network, inputs).action_BKA, forward(plain, inputs).action_BKA)
    assert not torch.allclose(changed, forward(plain, inputs).action_BKA, atol=1e-4)
    with pytest.raises(ValueError, match="the network has embeddings for 1x1 positions"):
        network_of(replace(TINY, place_grid=(1, 1))).geometry(inputs[0], ACTIONS, STATES)


def test_without_depth_the_rival_is_the_main_branch() -> None:
    network, inputs = network_of(), inputs_of()
    plain = XwamNetwork(replace(TINY, depth="none"))
    plain.load_state_dict({name: value for name, value in network.state_dict().items() if "extra_" not in name})
    for one, two in zip(forward(network, inputs)[:3], forward(plain.eval(), inputs)[:3], strict=True):
        torch.testing.assert_close(one, two)  # sizes differ from here to there, and with them the last digits


def test_modulation_of_runs_is_modulation_of_tokens() -> None:
    x, shift, scale = torch.randn(2, 9, 4), torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    runs = ((0, 2), (2, 3), (1, 4))
    groups = torch.tensor([0, 0, 2, 2, 2, 1, 1, 1, 1])
    expected = x * (1 + scale[:, groups]) + shift[:, groups]
    torch.testing.assert_close(modulate(x, shift, scale, runs), expected)
    with torch.no_grad():
        values, none = by_token(torch.stack([shift, scale], dim=2), runs, x)
        assert torch.equal(modulate(x, values[:, :, 0], values[:, :, 1], none), modulate(x, shift, scale, runs))
    assert head_runs(runs, 4) == ((0, 2), (2, 2))


def test_joined_contexts_are_the_context_of_a_batch() -> None:
    network, inputs = network_of(), inputs_of()
    whole = network.with_depth_text(network.encode_text(inputs[3]))
    parts = [network.with_depth_text(network.encode_text(inputs[3][index : index + 1])) for index in range(2)]
    joined = TextContext.cat(parts)
    torch.testing.assert_close(joined.depth[1].key, whole.depth[1].key, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(joined.main[2].value, whole.main[2].value, atol=1e-5, rtol=1e-4)


def test_padding_is_read_as_often_as_it_is_there() -> None:
    network, (video, action, proprio, text) = network_of(), inputs_of()
    text[:, 2:], text[1, 1] = 0, 0
    geometry = network.geometry(video, ACTIONS, STATES)
    times = network.timesteps(torch.tensor([700.0, 300.0]), torch.tensor([400.0, 0.0]), geometry)
    short = network.encode_text(text)
    embedded = network.text_embedding(text)
    long = TextContext(
        embedded_BND=embedded,
        bias_BN=torch.zeros(2, 5),
        main=tuple(block.cross_attn.key_value(embedded) for block in network.main_blocks()),
    )
    assert short.main[0].key.shape[2] == 3
    one, two = (network(video, action, proprio, times, context, depth=True) for context in (short, long))
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_a_prompt_without_padding_adds_nothing_to_the_logits() -> None:
    network, inputs = network_of(), inputs_of()
    full = [network.encode_text(inputs[3][index : index + 1]) for index in range(2)]
    assert full[0].bias_BN is None
    assert TextContext.cat(full).bias_BN is None
    inputs[3][0, 2:] = 0
    short = network.encode_text(inputs[3][:1])
    assert known(TextContext.cat([short, full[1]]).bias_BN)[1].tolist() == [0] * 5


def test_prompts_of_different_lengths_share_a_batch() -> None:
    network, inputs = network_of(), inputs_of()
    inputs[3][0, 2:] = 0
    parts = [network.with_depth_text(network.encode_text(inputs[3][index : index + 1])) for index in range(2)]
    geometry = network.geometry(inputs[0], ACTIONS, STATES)
    times = network.timesteps(torch.tensor([700.0, 300.0]), torch.tensor([400.0, 0.0]), geometry)
    out = network(*inputs[:3], times, TextContext.cat(parts), depth=True)
    for index, part in enumerate(parts):
        one = [tensor[index : index + 1] for tensor in inputs[:3]]
        alone = network(*one, replace(times, t_BG=times.t_BG[index : index + 1]), part, depth=True)
        for a, b in zip(out, alone, strict=True):
            torch.testing.assert_close(a[index : index + 1], b, atol=1e-5, rtol=1e-4)


def test_gradients_reach_every_weight() -> None:
    network = network_of().requires_grad_(True)
    sum(output.square().mean() for output in forward(network, inputs_of())).backward()
    assert [name for name, weight in network.named_parameters() if weight.grad is None] == []


def test_training_after_inference_in_one_process() -> None:
    config = replace(TINY, num_blocks=2, num_depth_blocks=1)
    network, inputs = network_of(config).requires_grad_(True), inputs_of()
    with torch.inference_mode():
        before = forward(network, inputs)
    out = forward(network, inputs)
    out.video_BCTVHW.sum().backward()
    torch.testing.assert_close(out.video_BCTVHW, before.video_BCTVHW, atol=1e-5, rtol=1e-4)


def test_weights_are_taken_over_and_not_copied() -> None:
    weights = network_of().state_dict()
    with torch.device("meta"):
        network = XwamNetwork(TINY)
    fill(network, weights, source="test")
    assert all(value.data_ptr() == weights[name].data_ptr() for name, value in network.state_dict().items())


def test_latents_that_do_not_divide_into_patches_are_refused() -> None:
    network, inputs = network_of(), inputs_of()
    with pytest.raises(ValueError, match="3 views with 3x6 cells do not fit"):
        network.geometry(inputs[0][..., :3, :], ACTIONS, STATES)
    with pytest.raises(ValueError, match="must have 5 text places of 8 numbers, got 4 of 8"):
        network.encode_text(inputs[3][:, :4])


def test_released_size_has_the_released_parameter_count() -> None:
    with torch.device("meta"):
        network = XwamNetwork(WAN22_5B)
    counts = count_parameters(WAN22_5B)
    assert counts.wan == 4_999_787_712
    assert counts.views == 3 * 3072
    assert sum(weight.numel() for weight in network.parameters()) == sum(counts)
    additions = ("view_embedding", "action_", "proprio_", "extra_")
    wan = [weight.numel() for name, weight in network.named_parameters() if not name.startswith(additions)]
    assert sum(wan) == counts.wan


def test_fresh_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    one, two = fresh_network(TINY, seed=5), fresh_network(TINY, seed=5)
    other = fresh_network(TINY, seed=6)
    assert torch.equal(one.head.head.weight, two.head.head.weight)
    assert not torch.equal(one.head.head.weight, other.head.head.weight)
    weights = one.state_dict()
    assert torch.equal(weights["extra_blocks.0.1.ffn.0.weight"], weights["blocks.2.ffn.0.weight"])
    assert torch.equal(torch.get_rng_state(), state)


def test_states_are_the_current_one_and_the_last_layers() -> None:
    network, inputs = network_of(), inputs_of()
    change = forward(network, inputs).proprio_BPS
    network.config = replace(TINY, proprio_prediction="change")
    later = inputs[2] - torch.tensor([0.4, 0.0]).view(2, 1, 1) * forward(network, inputs).proprio_BPS
    torch.testing.assert_close(later[0, 1:], (inputs[2][:, :1] + change)[0, 1:], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["interleaved", "none", "sequence", "channel"])
def test_clean_video_is_what_lies_behind_its_velocities(mode: DepthMode) -> None:
    """noisy - sigma * velocity is what the last layer gave, frame for frame at its own noise level."""
    config = replace(TINY, depth=mode)
    network, inputs = network_of(config), inputs_of(channels=config.state_channels)
    clean = forward(network, inputs).video_BCTVHW
    network.config = replace(config, video_prediction="clean")
    velocity = forward(network, inputs).video_BCTVHW
    sigma = torch.tensor([0.7, 0.3]).view(2, 1, 1, 1, 1, 1)
    later = inputs[0] - sigma * velocity
    torch.testing.assert_close(later[:, :, 1:], clean[:, :, 1:], atol=1e-5, rtol=1e-5)
    if mode == "channel":  # depth is denoised in the first latent frame too
        torch.testing.assert_close(later[:, 4:, :1], clean[:, 4:, :1], atol=1e-5, rtol=1e-5)
    assert velocity.isfinite().all()
