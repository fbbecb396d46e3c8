"""A transformer of 48 channels with random weights, and random inputs for it.

In: a seed. Out: a network, its inputs, and a denoising that has begun.
Read next: `tests/unit/test_xwam_network.py`, `tests/unit/test_xwam_noise.py`.
"""

import torch

from xwam.config import NetworkConfig
from xwam.flow.sampler import SamplerState, Schedule, begin
from xwam.network.transformer import XwamNetwork

TINY = NetworkConfig(
    width=48, ffn_width=64, num_heads=2, num_blocks=3, num_depth_blocks=2, latent_channels=4, text_width=8, text_len=5,
    time_width=16,
)  # fmt: skip


FRAMES, VIEWS, ROWS, COLS, ACTIONS, STATES = 2, 3, 4, 6, 7, 3


def network_of(config: NetworkConfig = TINY, seed: int = 0) -> XwamNetwork:
    torch.manual_seed(seed)
    network = XwamNetwork(config).eval().requires_grad_(False)
    for weight in network.parameters():
        weight.normal_(0, 0.2)
    return network


def inputs_of(batch: int = 2, seed: int = 1, channels: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch, channels, FRAMES, VIEWS, ROWS, COLS), (batch, ACTIONS, 14), (batch, STATES, 16), (batch, 5, 8))
    return [torch.randn(shape, generator=generator) for shape in shapes]


def started(
    network: XwamNetwork, seed: int = 1, *, steps: tuple[int, int] = (6, 3), guidance: float = 0.0
) -> SamplerState:
    video, action, proprio, text = inputs_of(batch=1, seed=seed)
    return begin(
        Schedule(num_video_steps=steps[0], num_action_steps=steps[1], guidance=guidance),
        noise_video_BCTVHW=video,
        noise_action_BKA=action,
        noise_proprio_BPS=proprio,
        seen_latent_BCVHW=video[:, :, 0] * 0.5,
        seen_proprio_BS=proprio[:, 0] * 0.5,
        text=network.encode_text(text),
        null_text=network.encode_text(text * 0) if guidance else None,
    )
