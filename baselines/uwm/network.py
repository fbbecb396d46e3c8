"""UWM's transformer: X-WAM's without the depth branch, with two independent timesteps and optional registers.

In: noisy video, actions and states, two timesteps, a prompt. Out: velocities.
Read next: `xwam/network/transformer.py`, which it extends; `sampling.py` and `objective.py`, which call it.

Future states belong to the next observation and stand at the video's timestep, where X-WAM's stand at that of the
actions: given actions then say what the states will be, and the other way round.

Letters: B batch, C latent channels, T latent frames, V views, H W latent rows and columns, K actions, P states,
A numbers in an action, S numbers in a state, L tokens, D width, G distinct timesteps, E width of a head.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from baselines.uwm.config import UwmConfig
from xwam.config import Geometry, NetworkConfig
from xwam.network.layers import head_runs
from xwam.network.rope import Rope
from xwam.network.transformer import Timesteps, XwamNetwork


class UwmNetwork(XwamNetwork):
    """The whole network; see `XwamNetwork.forward`."""

    config: UwmConfig

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        if self.config.num_registers:
            self.registers = nn.Parameter(torch.zeros(self.config.num_registers, config.width))

    def timesteps(self, t_video_B: Tensor, t_action_B: Tensor, geometry: Geometry) -> Timesteps:
        """Return the timesteps: present frame and state at 0, actions at theirs, all other tokens at the video's."""
        clean, video, action = 0, 1, 2
        runs = (
            (clean, geometry.tokens_per_frame),
            (video, geometry.num_video_tokens - geometry.tokens_per_frame),
            (action, geometry.num_actions),
            (clean, 1),
            (video, geometry.num_proprios - 1 + self.config.num_registers),
        )
        t_BG = torch.stack([torch.zeros_like(t_video_B), t_video_B, t_action_B], dim=1)
        return Timesteps(t_BG, tuple(run for run in runs if run[1]))

    def _rope(self, geometry: Geometry, device: torch.device) -> Rope:
        """Return the rotations; registers have no position and are not turned."""
        rope, count = super()._rope(geometry, device), self.config.num_registers
        if not count:
            return rope
        unturned = rope.cos_L1P.new_zeros(count, *rope.cos_L1P.shape[1:])
        return Rope(torch.cat([rope.cos_L1P, unturned + 1]), torch.cat([rope.sin_L1P, unturned]))

    def _embed(self, video_BCTVHW: Tensor, action_BKA: Tensor, proprio_BPS: Tensor) -> Tensor:
        """Return all tokens, B,L,D float32; the registers are the last ones."""
        x_BLD = super()._embed(video_BCTVHW, action_BKA, proprio_BPS)
        if not self.config.num_registers:
            return x_BLD
        return torch.cat([x_BLD, self.registers.float().expand(len(x_BLD), -1, -1)], dim=1)

    def _split(self, x_BLD: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor, Tensor]:
        """Return the tokens of video, actions and states, without the registers."""
        return super()._split(x_BLD[:, : geometry.num_tokens], geometry)

    def _decode_proprio(self, x_BPD: Tensor, proprio_BPS: Tensor, times: Timesteps) -> Tensor:
        num_tokens = sum(length for _, length in times.runs) - self.config.num_registers
        return super()._decode_proprio(x_BPD, proprio_BPS, replace(times, runs=head_runs(times.runs, num_tokens)))
