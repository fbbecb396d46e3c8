"""Figures `denoise_step_depth_off` and `denoise_step_depth_on`: a denoising step against a straight reading of it.

In: one set of weights, float32, one request of the released number of tokens. Out: these figures, and `async_speedup`.
Read next: `xwam/network.py` and `xwam/layers.py`, which are measured.

The straight reading multiplies complex float64 numbers for rotary positions, embeds the prompt and makes its keys and
values in every step, and carries timestep and modulation of every token, as the released code does.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from tests.bench.figure import Figure, compare
from xwam.checkpoints import fresh_network
from xwam.config import RELEASE_GEOMETRY, Geometry, NetworkConfig
from xwam.layers import Attention, Block, Head, rope_axes, timestep_code, token_positions
from xwam.network import XwamNetwork
from xwam.sampler import SamplerState, Schedule, begin, run

CONFIG = NetworkConfig(width=512, ffn_width=2048, num_heads=4, num_blocks=12, num_depth_blocks=4)
GEOMETRY = RELEASE_GEOMETRY
STEP_ROUNDS = 7


# ---- the straight reading


def straight_rope(geometry: Geometry) -> Tensor:
    """Return one complex float64 number a token and pair."""
    positions, angles = token_positions(CONFIG, geometry), []
    for axis, size in enumerate(rope_axes(CONFIG.head_width)):
        angles.append(positions[:, axis, None] / 10000.0 ** (torch.arange(0, size, 2).double() / size))
    angle = torch.cat(angles, dim=1)
    return torch.polar(torch.ones_like(angle), angle)


def straight_rotate(x_BLJE: Tensor, turn_LP: Tensor) -> Tensor:
    """Return queries or keys turned in complex float64."""
    pairs = torch.view_as_complex(x_BLJE.double().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn_LP[:, None]).flatten(-2).float()


def straight_heads(x_BLD: Tensor) -> Tensor:
    return x_BLD.unflatten(-1, (CONFIG.num_heads, -1))


def straight_attend(attention: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    q, k, v = (part.transpose(1, 2) for part in (query, key, value))
    return attention.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def straight_block(
    block: Block,
    x: Tensor,
    e_BL6D: Tensor,
    turn_LP: Tensor,
    text_BND: Tensor,
    other: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return the tokens after a layer and the keys and values it made."""
    e = (block.modulation.unsqueeze(0) + e_BL6D).chunk(6, dim=2)
    seen = block.norm1(x).float() * (1 + e[1].squeeze(2)) + e[0].squeeze(2)
    attention = block.self_attn
    q = straight_rotate(straight_heads(attention.norm_q(attention.q(seen))), turn_LP)
    k = straight_rotate(straight_heads(attention.norm_k(attention.k(seen))), turn_LP)
    v = straight_heads(attention.v(seen))
    keys, values = (k, v) if other is None else (torch.cat([k, other[0]], 1), torch.cat([v, other[1]], 1))
    x = x + straight_attend(attention, q, keys, values) * e[2].squeeze(2)
    cross = block.cross_attn
    text_k = straight_heads(cross.norm_k(cross.k(text_BND)))
    text_v = straight_heads(cross.v(text_BND))
    x = x + straight_attend(cross, straight_heads(cross.norm_q(cross.q(block.norm3(x)))), text_k, text_v)
    fed = block.ffn(block.norm2(x).float() * (1 + e[4].squeeze(2)) + e[3].squeeze(2))
    return x + fed * e[5].squeeze(2), (k, v)


def straight_head(head: Head, x: Tensor, e_BLD: Tensor) -> Tensor:
    e = (head.modulation.unsqueeze(0) + e_BLD.unsqueeze(2)).chunk(2, dim=2)
    return head.head(head.norm(x) * (1 + e[1].squeeze(2)) + e[0].squeeze(2))


def straight_forward(
    network: XwamNetwork, inputs: tuple[Tensor, ...], t_BL: Tensor, text_BNW: Tensor, turn_LP: Tensor, *, depth: bool
) -> list[Tensor]:
    """Return video, actions, states and, with `depth`, depth of one step."""
    video, action, proprio = inputs
    patches = network.patch_embedding(rearrange(video, "b c t v h w -> (b v) c t h w"))
    tokens = rearrange(patches, "(b v) d t h w -> b t v (h w) d", v=video.shape[3])
    tokens = (tokens + network.view_embedding.weight[:, None]).flatten(1, 3)
    x = torch.cat([tokens, network.action_encoder(action), network.proprio_encoder(proprio)], dim=1)
    e_BLD = network.time_embedding(timestep_code(t_BL, CONFIG.time_width))
    e_BL6D = network.time_projection(e_BLD).unflatten(2, (6, -1))
    text = network.text_embedding(text_BNW)
    count, first = tokens.shape[1], CONFIG.first_depth_block
    branch = None
    for index, block in enumerate(network.main_blocks()):
        before = x
        x, keys = straight_block(block, x, e_BL6D, turn_LP, text)
        if depth and index >= first:
            branch = before[:, :count] if branch is None else branch
            twin = network.depth_blocks()[index - first]
            branch, _ = straight_block(twin, branch, e_BL6D[:, :count], turn_LP[:count], text, other=keys)
    out = [straight_head(network.head, x[:, :count], e_BLD[:, :count])]
    out += [network.action_decoder(x[:, count : -GEOMETRY.num_proprios])]
    out += [network.proprio_decoder(x[:, -GEOMETRY.num_proprios :])]
    if branch is not None:
        out.append(straight_head(network.extra_heads[0], branch, e_BLD[:, :count]))  # type: ignore[arg-type, index]
    for index in (0, 3)[: len(out) - 2 if len(out) > 3 else 1]:
        out[index] = network._unpatch(out[index], GEOMETRY)
    return out


# ---- the figures


def inputs_of(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return video, actions, states and a prompt of 512 tokens of which 12 are words."""
    generator, g = torch.Generator().manual_seed(seed), GEOMETRY
    high, wide = CONFIG.patch_hw
    shape = (1, CONFIG.latent_channels, g.num_frames, g.num_views, g.rows * high, g.cols * wide)
    text = torch.zeros(1, CONFIG.text_len, CONFIG.text_width)
    text[:, :12] = torch.randn(1, 12, CONFIG.text_width, generator=generator)
    sizes = (shape, (1, g.num_actions, CONFIG.action_dim), (1, g.num_proprios, CONFIG.proprio_dim))
    video, action, proprio = (torch.randn(size, generator=generator) for size in sizes)
    return video, action, proprio, text


@torch.inference_mode()
def step_figure(network: XwamNetwork, name: str, *, depth: bool) -> Figure:
    """Return our time for one step over that of the straight reading, after checking that both agree."""
    video, action, proprio, prompt = inputs_of()
    times = network.timesteps(torch.tensor([700.0]), torch.tensor([300.0]), GEOMETRY)
    context = network.with_depth_text(network.encode_text(prompt))
    t_BL = torch.cat([times.t_BG[:, group, None].expand(-1, length) for group, length in times.runs], dim=1)
    turn_LP = straight_rope(GEOMETRY)

    def ours() -> list[Tensor]:
        return [part for part in network(video, action, proprio, times, context, depth=depth) if part is not None]

    def straight() -> list[Tensor]:
        return straight_forward(network, (video, action, proprio), t_BL, prompt, turn_LP, depth=depth)

    for one, two in zip(ours(), straight(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-3)
    return compare(name, ("ours", ours), ("straight reading", straight), goal="<= 0.85", rounds=STEP_ROUNDS)


def started(network: XwamNetwork, schedule: Schedule) -> SamplerState:
    """Return a request before its first pass."""
    video, action, proprio, prompt = inputs_of()
    return begin(
        schedule,
        noise_video_BCTVHW=video,
        noise_action_BKA=action,
        noise_proprio_BPS=proprio,
        seen_latent_BCVHW=video[:, :, 0],
        seen_proprio_BS=proprio[:, 0],
        text=network.encode_text(prompt),
    )


@torch.inference_mode()
def async_figure(network: XwamNetwork) -> Figure:
    """Return how much sooner actions are clean with 10 than with 50 of 50 steps; the paper has 4.5 for 5 of 25."""

    def until_actions(num_action_steps: int) -> Callable[[], SamplerState]:
        state = started(network, Schedule(num_video_steps=50, num_action_steps=num_action_steps))
        return lambda: run(network, state, stop_after_actions=True, depth=False)

    synchronous, asynchronous = ("synchronous 50", until_actions(50)), ("asynchronous 10 of 50", until_actions(10))
    return compare("async_speedup", synchronous, asynchronous, goal=">= 4.5", rounds=1)


def figures() -> list[Figure]:
    """Time one step with the depth branch off and on, then the way to clean actions, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network = fresh_network(CONFIG, seed=0)
        return [
            step_figure(network, "denoise_step_depth_off", depth=False),
            step_figure(network, "denoise_step_depth_on", depth=True),
            async_figure(network),
        ]
    finally:
        torch.set_num_threads(threads)
