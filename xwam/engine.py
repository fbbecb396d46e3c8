"""One request through the whole model: observation in, actions out, and the imagined future when asked.

In: pictures, a state, a prompt, a seed. Out: a state of denoising, which any number of passes may carry on.
Read next: `sampler.py` for the passes, `policy.py` for the caller.

Letters: B batch (1 here), C channels, F future frames, V views, H W pixels, K actions.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from xwam import actions, codecs, noise, sampler
from xwam.config import ModelConfig
from xwam.network import TextContext, XwamNetwork
from xwam.text import make_text_encoder

MAX_PROMPTS = 64
"""Prompts whose keys and values are kept."""


class Future(NamedTuple):
    """What a request imagines: RGB F,V,H,W,3 uint8, depth F,V,H,W float32 metres or None, states F,16 float32."""

    rgb: np.ndarray
    depth: np.ndarray | None
    proprio: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """A request under way.

    Attributes:
        state: Where its denoising stands.
        seen_BCVHW: The pictures it was asked with, in [-1, 1].
    """

    state: sampler.SamplerState
    seen_BCVHW: Tensor


class Engine:
    """Network, codec and text encoder of one model; stateless but for a store of prompts."""

    def __init__(self, model: ModelConfig, network: XwamNetwork, schedule: sampler.Schedule) -> None:
        self.model, self.network, self.schedule = model, network, schedule
        self.codec = codecs.make_codec(model.codec, channels=model.network.latent_channels)
        self.text_encoder = make_text_encoder(model.text, model.network)
        self._prompts: OrderedDict[str, TextContext] = OrderedDict()

    @torch.inference_mode()
    def begin(self, rgb_vhwc_u8: np.ndarray, proprio: np.ndarray, instruction: str, *, seed: int) -> Request:
        """Return a request before its first pass.

        Args:
            rgb_vhwc_u8: V,H,W,3, what the cameras show now.
            proprio: 16 numbers, the state now.
            instruction: The prompt.
            seed: Fixes all of its noise.
        """
        model, low, high = self.model, self.model.bounds.proprio_low, self.model.bounds.proprio_high
        seen = video_from_rgb(rgb_vhwc_u8)
        video, action, states = noise.draw_noise(
            seed,
            (1, *model.latent_shape),
            (1, model.num_actions, model.network.action_dim),
            (1, 1 + model.num_future_frames, model.network.proprio_dim),
        )
        state = sampler.begin(
            self.schedule,
            noise_video_BCTVHW=video,
            noise_action_BKA=action,
            noise_proprio_BPS=states,
            seen_latent_BCVHW=codecs.encode_views(self.codec, seen[:, :, None])[:, :, 0],
            seen_proprio_BS=torch.from_numpy(actions.normalise(proprio, low, high))[None],
            text=self.prompt(instruction),
            null_text=self.prompt("") if self.schedule.guidance else None,
        )
        return Request(state=state, seen_BCVHW=seen)

    @torch.inference_mode()
    def act(self, request: Request) -> tuple[np.ndarray, Request]:
        """Return the clean actions, K,14 float32 in the units of the data, and the request as it stands then."""
        state = sampler.run(self.network, request.state, stop_after_actions=True, depth=False)
        bounds = self.model.bounds
        clean = actions.denormalise(state.action.x[0].numpy(), bounds.action_low, bounds.action_high)
        return clean, Request(state=state, seen_BCVHW=request.seen_BCVHW)

    @torch.inference_mode()
    def imagine(self, request: Request) -> Future:
        """Return the future; the passes that are left run now, the last one with the depth branch on."""
        model = self.model
        state = sampler.run(self.network, request.state)
        video, depth = self._latents(state)
        rgb = codecs.decode_views(self.codec, video, request.seen_BCVHW)[0, :, 1:]
        proprio = actions.denormalise(
            state.proprio.x[0, 1:].numpy(), model.bounds.proprio_low, model.bounds.proprio_high
        )
        return Future(
            rgb=rgb_from_video(rgb),
            depth=None if depth is None else self._metres(depth),
            proprio=actions.tidy_quaternions(proprio, model.arms),
        )

    def prompt(self, text: str) -> TextContext:
        """Return a prompt as the blocks read it; the most recent ones are kept."""
        context = self._prompts.pop(text, None)
        if context is None:
            context = self.network.encode_text(self.text_encoder.encode(text)[None])
            context = self.network.with_depth_text(context)
        self._prompts[text] = context
        if len(self._prompts) > MAX_PROMPTS:
            self._prompts.popitem(last=False)
        return context

    def _latents(self, state: sampler.SamplerState) -> tuple[Tensor, Tensor | None]:
        """Return the clean latents of video and, where there is one, of depth."""
        network = self.model.network
        if network.depth in ("sequence", "channel"):
            video, depth = state.video.x.chunk(2, dim=1)
            return video, depth
        return state.video.x, state.depth_BCTVHW

    def _metres(self, latent_BCTVHW: Tensor) -> np.ndarray:
        grey_FVHW = codecs.decode_views(self.codec, latent_BCTVHW)[0, :, 1:].mean(0)
        return codecs.depth_from_video(grey_FVHW.numpy(), self.model.depth_range)


def video_from_rgb(rgb_vhwc_u8: np.ndarray) -> Tensor:
    """Return pictures as B,3,V,H,W in [-1, 1]."""
    return torch.from_numpy(np.array(rgb_vhwc_u8)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def rgb_from_video(video_CFVHW: Tensor) -> np.ndarray:
    """Return a video in [-1, 1] as F,V,H,W,3 uint8."""
    bytes_CFVHW = ((video_CFVHW + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return bytes_CFVHW.permute(1, 2, 3, 4, 0).contiguous().numpy()
