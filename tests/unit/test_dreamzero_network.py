"""DreamZero's network: the mask query by query, and inference with a cache against one pass with the mask."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines.dreamzero.attention import by_dense_mask, by_flex_mask, by_mask
from baselines.dreamzero.config import DreamZeroConfig, count_dreamzero
from baselines.dreamzero.layout import Layout, block_layout, mask_of, rope_of, training_layout
from baselines.dreamzero.models import MODELS
from baselines.dreamzero.network import ClipTimes, DreamZeroNetwork
from tests.doubles.dreamzero import (
    COLS,
    ROWS,
    TINY,
    cached,
    clip_of,
    flows_without_cache,
    network_of,
    same,
    text_of,
    with_settings,
)
from tests.doubles.known import known
from xwam.network.attention import KeyValue

# ---- the mask


def names_of(num_blocks: int, per_frame: int, per_block: int) -> list[str]:
    """Return a name for every token of a training sequence; frames of a block share a name."""
    blocks = range(num_blocks)
    frames = ["0", *(str(block + 1) for block in blocks for _ in range(2))]
    clean = [f"clean {frame}" for frame in frames for _ in range(per_frame)]
    noisy = [f"noisy {frame}" for frame in frames for _ in range(per_frame)]
    actions = [f"action {block + 1}" for block in blocks for _ in range(per_block)]
    return clean + noisy + actions + [f"state {block + 1}" for block in blocks]


TABLE = {
    "clean 0": "clean 0",
    "clean 1": "clean 0, clean 1",
    "clean 2": "clean 0, clean 1, clean 2",
    "clean 3": "clean 0, clean 1, clean 2, clean 3",
    "noisy 0": "noisy 0",
    "noisy 1": "clean 0, noisy 1, action 1, state 1",
    "noisy 2": "clean 0, clean 1, noisy 2, action 2, state 2",
    "noisy 3": "clean 0, clean 1, clean 2, noisy 3, action 3, state 3",
    "action 1": "clean 0, noisy 1, action 1, state 1",
    "action 2": "clean 0, clean 1, noisy 2, action 2, state 2",
    "action 3": "clean 0, clean 1, clean 2, noisy 3, action 3, state 3",
    "state 1": "state 1",
    "state 2": "state 2",
    "state 3": "state 3",
}
"""Teacher forcing over three blocks, written out: frame 0 is the first frame, block n has two frames."""


def test_the_mask_is_the_table_query_by_query() -> None:
    layout = training_layout(TINY, 7, 2, 3)
    names, mask_LL = names_of(3, 6, TINY.actions_per_block), mask_of(layout)
    assert len(names) == layout.num_tokens == len(mask_LL)
    for query, row in zip(names, mask_LL, strict=True):
        keys = TABLE[query].split(", ")
        assert row.tolist() == [key in keys for key in names], query


def test_flex_and_dense_mask_give_the_same_attention() -> None:
    layout, draw = training_layout(TINY, 9, 2, 2), torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 2, layout.num_tokens, 16, generator=draw) for _ in range(3))
    device = torch.device("cpu")
    dense = by_dense_mask(layout, device)(query, KeyValue(key, value))
    same([by_flex_mask(layout, device, compiled=False)(query, KeyValue(key, value))], [dense], atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device: FlexAttention compiles only there")
@pytest.mark.parametrize(("model", "dtype", "atol"), [("nano", torch.float32, 1e-4), ("5b", torch.bfloat16, 2e-2)])
def test_compiled_flex_equals_the_dense_mask_on_a_gpu(model: str, dtype: torch.dtype, atol: float) -> None:
    """Outputs and gradients of a whole window; the dense mask computes in float32 on the same numbers."""
    config, device = MODELS[model].network, torch.device("cuda")
    assert isinstance(config, DreamZeroConfig)
    rows, cols = (4, 4) if model == "nano" else (16, 20)
    layout = training_layout(config, 9, rows, cols)
    heads = 2 if model == "5b" else config.num_heads  # a dense mask of 6,000 tokens needs 140 MB a head
    draw, shape = torch.Generator().manual_seed(0), (1, heads, layout.num_tokens, config.head_width)
    drawn = [torch.randn(shape, generator=draw).to(device, dtype) for _ in range(4)]
    found = []
    for attend, kind in ((by_mask(layout, device), dtype), (by_dense_mask(layout, device), torch.float32)):
        query, key, value = (each.to(kind).requires_grad_() for each in drawn[:3])
        out = attend(query, KeyValue(key, value))
        out.backward(drawn[3].to(kind))
        gradients = [known(each.grad).float() for each in (query, key, value)]
        found.append([out.detach().float(), *gradients])
    for flex, dense in zip(*found, strict=True):
        torch.testing.assert_close(flex, dense, atol=atol, rtol=10 * atol)


@pytest.mark.parametrize("frames", [1, 2, 4, 11])
def test_clips_that_are_no_blocks_or_too_long_are_refused(frames: int) -> None:
    with pytest.raises(ValueError, match=rf"1 to 4 blocks of 2 latent frames after its first one, got {frames}"):
        training_layout(TINY, frames, 1, 1)


def test_a_block_after_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match="The window has 4 blocks, there is no block 4"):
        block_layout(TINY, 4, 1, 1)


# ---- positions


def angles(layout: Layout, head_width: int = 12) -> Tensor:
    rope = rope_of(layout, head_width, torch.device("cpu"))
    return torch.atan2(rope.sin_L1P, rope.cos_L1P)[:, 0]


def test_positions_of_video_actions_and_states() -> None:
    layout = training_layout(TINY, 5, 2, 3)
    angle = angles(layout)
    frame, row, col = 3, 1, 2
    token = 5 * 6 + frame * 6 + row * 3 + col  # in the noisy half
    expected = [frame, frame * 10000**-0.5, row, row * 10000**-0.5, col, col * 10000**-0.5]
    torch.testing.assert_close(angle[token], torch.tensor(expected), atol=1e-5, rtol=0)
    torch.testing.assert_close(angle[token - 5 * 6], angle[token]), "the clean half has the same positions"
    whole_head = 10000 ** -(torch.arange(6) / 6)
    rope = rope_of(layout, 12, torch.device("cpu"))
    torch.testing.assert_close(rope.cos_L1P[60 + 4, 0], (4 * whole_head).cos())
    torch.testing.assert_close(rope.cos_L1P[66 + 1, 0], (1 * whole_head).cos())


def test_the_code_of_an_action_is_sine_then_cosine() -> None:
    """GR00T's SinusoidalPositionalEncoding, which the official code uses: Wan's own codes begin with the cosine."""
    network, clip, seen = network_of(), clip_of(1), list[Tensor]()
    network.action_encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    text = text_of(network)
    cache = cached(network, clip["clean_BCTVHW"][:, :, :1], text)
    noisy, action, proprio = (clip[name] for name in ("noisy_BCTVHW", "action_BKA", "proprio_BNS"))
    network.denoise(noisy[:, :, 1:], action, proprio, torch.tensor([900.0]), torch.tensor([137.0]), cache, text)
    code = seen[0][0, 0, TINY.action_slots :].double().numpy()
    half = TINY.width // 2
    angles_of_137 = [137.0 * math.exp(-math.log(10000.0) * index / half) for index in range(half)]
    expected = [math.sin(angle) for angle in angles_of_137] + [math.cos(angle) for angle in angles_of_137]
    np.testing.assert_allclose(code, expected, atol=1e-5)


def test_a_block_at_inference_has_its_positions_of_training() -> None:
    training, inference = training_layout(TINY, 9, 2, 2), block_layout(TINY, 2, 2, 2)
    whole, alone = angles(training), angles(inference)
    video, actions, states = 36 + 5 * 4, 72 + 2 * 3, 72 + 12 + 2
    picked = torch.cat([whole[video : video + 8], whole[actions : actions + 3], whole[states : states + 1]])
    torch.testing.assert_close(alone, picked)


# ---- the cache


@pytest.mark.parametrize("settings", [{}, {"video_prediction": "clean"}, {"place_grid": None}])
@pytest.mark.parametrize("block", [0, 1, 3])
def test_a_block_with_the_cache_equals_one_pass_with_the_mask(block: int, settings: dict[str, object]) -> None:
    network, clip = with_settings(**settings), clip_of(block + 1, batch=2)
    text = text_of(network, batch=2)
    frames, noisy = clip["clean_BCTVHW"][:, :, :-2], clip["noisy_BCTVHW"][:, :, -2:]
    action, proprio = clip["action_BKA"][:, -3:], clip["proprio_BNS"][:, -1:]
    t_video_B, t_action_B = torch.tensor([700.0, 40.0]), torch.tensor([300.0, 0.0])
    out = network.denoise(noisy, action, proprio, t_video_B, t_action_B, cached(network, frames, text), text)
    whole = flows_without_cache(network, frames, noisy, action, proprio, t_video_B, t_action_B, text)
    same(out, whole)
    assert out.video_BCTVHW.std() > 0.1
    assert out.action_BKA.std() > 0.1


def test_observed_frames_change_later_blocks_and_nothing_else() -> None:
    network, clip = network_of(), clip_of(4)
    text, times = text_of(network), ClipTimes(torch.tensor([500.0]), torch.tensor([[900.0, 600.0, 300.0, 100.0]]))
    other = dict(clip)
    other["clean_BCTVHW"] = clip["clean_BCTVHW"].clone()
    other["clean_BCTVHW"][:, :, 3:5] += 1.0  # the frames of block 1 as observed instead of predicted
    one, two = (network(**each, times=times, text=text) for each in (clip, other))
    changed = (one.video_BCTVHW != two.video_BCTVHW).flatten(3).any(3)[0].any(0).tolist()
    assert changed == [False] * 5 + [True] * 4
    changed_actions = (one.action_BKA != two.action_BKA).any(2)[0].tolist()
    assert changed_actions == [False] * 6 + [True] * 6


def test_the_cache_grows_block_by_block_and_never_changes() -> None:
    network, clip = network_of(), clip_of(2)
    text, frames = text_of(network), clip["clean_BCTVHW"]
    first = network.remember(frames[:, :, :1], None, text)
    before = [layer.key.clone() for layer in first.layers]
    longer = network.remember(frames[:, :, 1:3], first, text)
    assert (first.num_frames, longer.num_frames, longer.block(2)) == (1, 3, 1)
    same([layer.key for layer in first.layers], before, atol=0)
    for short, long in zip(first.layers, longer.layers, strict=True):
        assert torch.equal(long.key[:, :, :4], short.key)
    with pytest.raises(ValueError, match="begins with 1 latent frame and grows by 2; got 2 after 0"):
        network.remember(frames[:, :, 1:3], None, text)
    with pytest.raises(ValueError, match="got 1 after 3"):
        network.remember(frames[:, :, 1:2], longer, text)


def test_states_read_themselves_unless_the_model_says_block() -> None:
    itself, block = network_of(), with_settings(state_reads="block")
    clip = clip_of(1)
    for network, differs in ((itself, False), (block, True)):
        text = text_of(network)
        cache = cached(network, clip["clean_BCTVHW"][:, :, :1], text)
        noisy, action = clip["noisy_BCTVHW"][:, :, 1:], clip["action_BKA"]
        t_B = torch.tensor([500.0])
        out = network.denoise(noisy, action, clip["proprio_BNS"], t_B, t_B, cache, text)
        whole = flows_without_cache(
            network, clip["clean_BCTVHW"][:, :, :1], noisy, action, clip["proprio_BNS"], t_B, t_B, text
        )
        assert (not torch.allclose(out.action_BKA, whole.action_BKA, atol=1e-4)) == differs


def test_what_the_state_reads_at_inference_is_in_the_mask_too() -> None:
    mask_LL = mask_of(block_layout(TINY, 0, 1, 1), "block")
    assert mask_LL.all()
    alone = mask_of(block_layout(TINY, 0, 1, 1))
    assert alone[-1].tolist() == [False] * 5 + [True]


# ---- timesteps


def test_a_level_of_one_action_changes_its_block_alone() -> None:
    network, clip, text = network_of(), clip_of(2), text_of(network_of())
    coupled = ClipTimes(torch.tensor([500.0]), torch.tensor([[900.0, 600.0]]))
    spread = coupled._replace(action_BK=torch.tensor([[900.0] * 3 + [600.0] * 3]))
    same(network(**clip, times=coupled, text=text), network(**clip, times=spread, text=text))
    one = coupled._replace(action_BK=torch.tensor([[900.0] * 3 + [600.0, 10.0, 600.0]]))
    flows, other = network(**clip, times=coupled, text=text), network(**clip, times=one, text=text)
    assert (flows.action_BKA != other.action_BKA).any(2)[0].tolist() == [False] * 3 + [True] * 3
    assert (flows.video_BCTVHW != other.video_BCTVHW).flatten(3).any(3)[0].any(0).tolist() == [False] * 3 + [True] * 2


def test_velocity_of_a_network_that_predicts_clean_video() -> None:
    clean, plain = with_settings(video_prediction="clean"), network_of()
    clip, text = clip_of(1), text_of(plain)
    times = ClipTimes(torch.tensor([250.0]), torch.tensor([[500.0]]))
    flow = clean(**clip, times=times, text=text).video_BCTVHW
    guess = plain(**clip, times=times, text=text).video_BCTVHW
    sigma = torch.tensor([0.25, 0.5, 0.5]).view(1, 1, 3, 1, 1, 1)
    same([flow], [(clip["noisy_BCTVHW"] - guess) / sigma], atol=1e-3)


# ---- sizes


def test_latents_of_another_size_are_refused() -> None:
    network = network_of()
    with pytest.raises(ValueError, match=r"2 views with 4x4 cells do not fit a network of one mosaic image"):
        network.remember(torch.zeros(1, 4, 1, 2, ROWS, COLS), None, text_of(network))
    with pytest.raises(ValueError, match=r"1 views with 8x8 cells .* \(2, 2\) positions"):
        network.remember(torch.zeros(1, 4, 1, 1, 8, 8), None, text_of(network))


@pytest.mark.parametrize("config", [TINY, replace(TINY, place_grid=None, action_slots=32, state_slots=64)])
def test_parameters_are_those_of_the_network(config: DreamZeroConfig) -> None:
    with torch.device("meta"):
        network = DreamZeroNetwork(config)
    assert sum(count_dreamzero(config)) == sum(weight.numel() for weight in network.parameters())


def test_a_network_with_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="DreamZero predicts RGB alone"):
        replace(TINY, num_views=3)
    with pytest.raises(ValueError, match="must hold the 14 numbers of an action"):
        replace(TINY, action_slots=7)
