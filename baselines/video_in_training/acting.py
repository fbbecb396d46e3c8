"""Acts without imagining: the present frame is read once, then actions and states are denoised against it.

In: a `TwoStreamNetwork` whose actions do not see the future, the present latent frame. Out: velocities of actions.
Read next: `engine.py`, which calls it; `baselines/joint_attention/network.py` for the mask in training.

Without future video, the pass equals the masked pass with it, because under the mask neither the present frame nor
actions and states read the future video (Fast-WAM, arXiv 2603.16666). The keys of the present frame are the same in all
denoising steps, so they are computed once a request, as they are there.

Letters as in `xwam/network/transformer.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from baselines.joint_attention.network import TwoStreamNetwork
from xwam.config import Geometry
from xwam.network.attention import KeyValue
from xwam.network.rope import rope_table
from xwam.network.transformer import Denoised, TextContext, Timesteps

Present = tuple[KeyValue, ...]
"""Keys and values of the present frame in each block."""


def read_present(network: TwoStreamNetwork, seen_BCVHW: Tensor, text: TextContext) -> Present:
    """Return the keys and values of the present latent frame, in a pass of the video stream over that frame alone.

    Args:
        network: Its actions must not see the future.
        seen_BCVHW: The present latent frame, clean.
        text: The prompt, which the tokens of the frame read.

    Raises:
        ValueError: If the network's actions read the future video.
    """
    if network.config.actions_see_future:
        raise ValueError("The actions of this network read the future video, which cannot be left out.")
    video_BCTVHW = seen_BCVHW[:, :, None]
    geometry = network.geometry(video_BCTVHW, 0, 0)
    t_B = torch.zeros(len(seen_BCVHW), device=seen_BCVHW.device)
    rope = rope_table(network.config, geometry, seen_BCVHW.device)
    _, stream = network.video_stream(network.timesteps(t_B, t_B, geometry), text, rope, geometry)
    x_BLD, keys = network.embed_video(video_BCTVHW), []
    for index, block in enumerate(network.two_stream_blocks()):
        x_BLD, own = block.look(x_BLD, stream, index)
        keys.append(own)
    return tuple(keys)


def present_of_all(frames: Sequence[Present]) -> Present:
    """Return the keys and values of several requests' frames as one batch."""
    if len(frames) == 1:
        return frames[0]
    return tuple(
        KeyValue(*(torch.cat(parts) for parts in zip(*layer, strict=True))) for layer in zip(*frames, strict=True)
    )


class ActingNetwork:
    """The network as the sampler calls it, for a video of the present frame alone.

    Args:
        network: The weights.
        present: What `read_present` returned for the requests of a pass.
    """

    def __init__(self, network: TwoStreamNetwork, present: Present) -> None:
        self.network, self.present = network, present

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
        """Return the velocities of actions and states; the present frame is clean and has none.

        Raises:
            ValueError: If the video holds more than the present frame, or depth is asked for.
        """
        if video_BCTVHW.shape[2] != 1 or depth:
            raise ValueError("Acting takes the present latent frame alone and predicts no depth.")
        geometry = self.geometry(video_BCTVHW, action_BKA.shape[1], proprio_BPS.shape[1])
        rope = rope_table(self.network.config, geometry, video_BCTVHW.device)
        stream = self.network.action_stream(times, text, rope, geometry)
        x_BLD = self.network.embed_actions(action_BKA, proprio_BPS)
        for index, (block, keys) in enumerate(zip(self.network.two_stream_blocks(), self.present, strict=True)):
            x_BLD = block.act(x_BLD, stream, index, keys)
        action, proprio = self.network.decode_actions(x_BLD, proprio_BPS, times)
        return Denoised(torch.zeros_like(video_BCTVHW), action, proprio, None)
