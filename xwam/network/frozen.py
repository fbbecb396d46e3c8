"""Passes over actions and states alone, against the keys and values of a video that stands still.

In: keys of the video's tokens from a whole pass, noisy actions and states. Out: velocities of actions and states.
Read next: `xwam/flow/frozen.py`, which makes these passes; `transformer.py` for the whole pass.

A whole pass with the same numbers gives the same velocities; what departs from the model is that the video neither
moves on nor reads the actions as they become clean. Letters are those of `transformer.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from xwam.config import Geometry
from xwam.network.attention import KeyValue
from xwam.network.layers import head_runs, timestep_code
from xwam.network.rope import Rope
from xwam.network.transformer import Denoised, TextContext, Timesteps, XwamNetwork

VideoKeys = tuple[KeyValue, ...]
"""Keys and values of the video's tokens in each block."""


class KeepingKeys:
    """A network as the sampler calls it, which keeps the keys and values of its last pass."""

    def __init__(self, network: XwamNetwork) -> None:
        self.network, self.keys = network, list[KeyValue]()

    def geometry(self, video_BCTVHW: Tensor, num_actions: int, num_proprios: int) -> Geometry:
        """Return the tokens behind tensors of these sizes."""
        return self.network.geometry(video_BCTVHW, num_actions, num_proprios)

    def timesteps(self, t_video_B: Tensor, t_action_B: Tensor, geometry: Geometry) -> Timesteps:
        """Return which tokens stand at which timestep."""
        return self.network.timesteps(t_video_B, t_action_B, geometry)

    def parameters(self) -> Iterator[Tensor]:
        """Return the weights."""
        return self.network.parameters()

    def __call__(
        self,
        video_BCTVHW: Tensor,
        action_BKA: Tensor,
        proprio_BPS: Tensor,
        times: Timesteps,
        text: TextContext,
        *,
        depth: bool = False,
    ) -> Denoised:
        """Return what the network gives."""
        self.keys.clear()
        return self.network.whole_pass(
            video_BCTVHW, action_BKA, proprio_BPS, times, text, depth=depth, video_keys=self.keys
        )

    def of_row(self, row: int) -> VideoKeys:
        """Return the keys and values of one row of the last pass, copied: the others need not stay in memory."""
        return tuple(KeyValue(*(part[row : row + 1].clone() for part in layer)) for layer in self.keys)


def all_keys(rows: Sequence[VideoKeys]) -> VideoKeys:
    """Return the keys and values of several requests as one batch."""
    if len(rows) == 1:
        return rows[0]
    return tuple(
        KeyValue(*(torch.cat(parts) for parts in zip(*layer, strict=True))) for layer in zip(*rows, strict=True)
    )


def act(
    network: XwamNetwork,
    keys: VideoKeys,
    action_BKA: Tensor,
    proprio_BPS: Tensor,
    times: Timesteps,
    text: TextContext,
    geometry: Geometry,
) -> tuple[Tensor, Tensor]:
    """Return the velocities of actions and states.

    Args:
        network: The model.
        keys: Of the video.
        action_BKA: Noisy actions.
        proprio_BPS: Noisy states.
        times: Those of the whole pass; the video's are not read.
        text: The prompts.
        geometry: The tokens of the whole pass.
    """
    num_tail = geometry.num_actions + geometry.num_proprios
    rope = Rope(*(table[-num_tail:] for table in network._rope(geometry, action_BKA.device)))
    runs = head_runs(times.runs[::-1], num_tail)[::-1]
    x_BLD = torch.cat([network.action_encoder(action_BKA.float()), network.proprio_encoder(proprio_BPS.float())], dim=1)
    time_BGD = network.time_embedding(timestep_code(times.t_BG, network.config.time_width))
    time_BG6D = network.time_projection(time_BGD).unflatten(-1, (6, -1)).float()
    for index, (block, other) in enumerate(zip(network.main_blocks(), keys, strict=True)):
        x_BLD, _ = block(x_BLD, time_BG6D, runs, rope, text.main[index], text.bias_BN, other=other)
    action_BKD, proprio_BPD = x_BLD.split([geometry.num_actions, geometry.num_proprios], dim=1)
    return network.action_decoder(action_BKD), network._decode_proprio(proprio_BPD, proprio_BPS, times)
