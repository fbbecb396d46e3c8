"""A UWM so small that a pass takes milliseconds, and what it denoises.

In: a seed. Out: networks and tensors.
Read next: `tests/unit/test_uwm.py`.
"""

import torch
from torch import Tensor

from baselines.uwm.config import UwmConfig
from baselines.uwm.network import UwmNetwork
from baselines.uwm.sampling import Denoising, Groups, begin
from baselines.uwm.uses import USES

TINY = UwmConfig(
    width=24, ffn_width=32, num_heads=2, num_blocks=2, num_depth_blocks=0, num_views=2, latent_channels=4, text_width=8,
    text_len=5, time_width=8, depth="none",
)  # fmt: skip

FRAMES, VIEWS, ROWS, COLS, ACTIONS, STATES = 3, 2, 2, 4, 5, 4


def network_of(config: UwmConfig = TINY, seed: int = 0) -> UwmNetwork:
    """Return a network whose weights are all far from zero, so that nothing cancels by accident."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UwmNetwork(config)
        with torch.no_grad():
            for weight in network.parameters():
                weight.normal_(0, 0.3)
    return network.eval().requires_grad_(False)


def groups_of(seed: int, batch: int = 1) -> Groups:
    draw = torch.Generator().manual_seed(seed)
    shapes = ((batch, 4, FRAMES, VIEWS, ROWS, COLS), (batch, ACTIONS, 14), (batch, STATES, 16))
    return Groups(*(torch.randn(shape, generator=draw) for shape in shapes))


def text_rows(batch: int = 1) -> Tensor:
    return torch.randn(batch, 5, 8, generator=torch.Generator().manual_seed(7))


def started(network: UwmNetwork, use: str, *, seed: int = 1, num_steps: int = 4, guidance: float = 0.0) -> Denoising:
    """Return a denoising that has begun; the given tensors are those of seed 2, the present that of seed 3."""
    known, present = groups_of(2), groups_of(3)
    return begin(
        USES[use],
        num_steps,
        groups_of(seed),
        present=(present.video_BCTVHW[:, :, 0], present.proprio_BPS[:, 0]),
        text=network.encode_text(text_rows()),
        given=known,
        null_text=network.encode_text(text_rows() * 0),
        guidance=guidance,
    )
