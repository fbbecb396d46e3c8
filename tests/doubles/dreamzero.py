"""A DreamZero so small that a pass takes milliseconds, its inputs, and its inference without a cache.

In: nothing. Out: networks, tensors, and the velocities of a block from one pass over the whole window.
Read next: `tests/unit/test_dreamzero_network.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from baselines.dreamzero.config import DreamZeroConfig
from baselines.dreamzero.network import ClipTimes, DreamZeroNetwork, Flows, FrameCache
from xwam.network.transformer import TextContext

TINY = DreamZeroConfig(
    width=24,
    ffn_width=32,
    num_heads=2,
    num_blocks=3,
    latent_channels=4,
    patch_hw=(2, 2),
    place_grid=(2, 2),
    text_width=8,
    text_len=5,
    time_width=8,
    actions_per_block=3,
    action_dim=14,
    proprio_dim=16,
    state_hidden=10,
    action_hidden=12,
    action_slots=14,
    state_slots=16,
)
ROWS = COLS = 4


def network_of(config: DreamZeroConfig = TINY, seed: int = 0) -> DreamZeroNetwork:
    """Return a network whose weights are all far from zero, so that nothing cancels by accident."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DreamZeroNetwork(config)
        with torch.no_grad():
            for weight in network.parameters():
                weight.normal_(0, 0.35 if weight.dim() > 1 else 0.5)
    return network.eval().requires_grad_(False)


def clip_of(
    num_blocks: int,
    *,
    batch: int = 1,
    seed: int = 0,
    config: DreamZeroConfig = TINY,
    cells: Sequence[int] = (ROWS, COLS),
) -> dict[str, Tensor]:
    """Return the tensors of a clip: clean and noisy frames, actions, states at the start of each block."""
    draw = torch.Generator().manual_seed(seed)
    frames = 1 + num_blocks * config.latents_per_block
    shape = (batch, config.latent_channels, frames, 1, *cells)
    return {
        "clean_BCTVHW": torch.randn(shape, generator=draw),
        "noisy_BCTVHW": torch.randn(shape, generator=draw),
        "action_BKA": torch.randn(batch, num_blocks * config.actions_per_block, config.action_dim, generator=draw),
        "proprio_BNS": torch.randn(batch, num_blocks, config.proprio_dim, generator=draw),
    }


def text_of(network: DreamZeroNetwork, *, batch: int = 1, seed: int = 5) -> TextContext:
    draw = torch.Generator().manual_seed(seed)
    return network.encode_text(torch.randn(batch, network.config.text_len, network.config.text_width, generator=draw))


def cached(network: DreamZeroNetwork, frames_BCTVHW: Tensor, text: TextContext) -> FrameCache:
    """Return the cache of a window: the first frame, then block after block."""
    step = network.config.latents_per_block
    cache = network.remember(frames_BCTVHW[:, :, :1], None, text)
    for first in range(1, frames_BCTVHW.shape[2], step):
        cache = network.remember(frames_BCTVHW[:, :, first : first + step], cache, text)
    return cache


def flows_without_cache(
    network: DreamZeroNetwork,
    frames_BCTVHW: Tensor,
    noisy_BCTVHW: Tensor,
    action_BKA: Tensor,
    proprio_BNS: Tensor,
    t_video_B: Tensor,
    t_action_B: Tensor,
    text: TextContext,
) -> Flows:
    """Return the velocities of the block after the observed frames, from one pass over the whole clip with the mask.

    Everything that this block must not read is noise of size 9: later frames of the clean half, and earlier frames,
    actions and states of the noisy half.
    """
    config = network.config
    step, per_block = config.latents_per_block, config.actions_per_block
    block = (frames_BCTVHW.shape[2] - 1) // step
    cells = noisy_BCTVHW.shape[-2:]
    unread = clip_of(block + 1, batch=len(action_BKA), seed=99, config=config, cells=cells)
    clip = {name: 9 * value for name, value in unread.items()}
    clip["clean_BCTVHW"][:, :, :-step] = frames_BCTVHW
    clip["noisy_BCTVHW"][:, :, -step:] = noisy_BCTVHW
    clip["action_BKA"][:, -per_block:] = action_BKA
    clip["proprio_BNS"][:, -1:] = proprio_BNS
    first_B = torch.full_like(t_video_B, 123.0)
    block_BN = torch.cat([torch.full((len(first_B), block), 321.0), t_video_B[:, None]], dim=1)
    action_BK = t_action_B[:, None].expand(-1, clip["action_BKA"].shape[1])
    out = network(**clip, times=ClipTimes(first_B, block_BN, action_BK), text=text)
    return Flows(out.video_BCTVHW[:, :, -step:], out.action_BKA[:, -per_block:])


def with_settings(**changes: object) -> DreamZeroNetwork:
    """Return a network of other settings."""
    return network_of(replace(TINY, **changes))  # type: ignore[arg-type]


def same(one: Sequence[Tensor], two: Sequence[Tensor], *, atol: float = 1e-4) -> None:
    """Check that tensors are equal to float tolerance."""
    for left, right in zip(one, two, strict=True):
        torch.testing.assert_close(left, right, atol=atol, rtol=1e-4)
