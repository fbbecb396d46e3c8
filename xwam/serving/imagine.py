"""From the present to the imagined future: noise, the passes of the network, clean latents.

In: images, states and prompts as the network takes them, a seed. Out: clean latents, actions and states.
Read next: `engine.py`, which answers one request with the same steps; `xwam/flow/sampler.py` for the passes.

Letters: B requests, C channels, T latent frames, V views, H W rows and columns, K actions, A numbers in an action,
P states, S numbers in a state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from xwam.checkpoints.bundle import Bundle
from xwam.codecs.codec import encode_views
from xwam.flow import noise, sampler
from xwam.flow.realtime_chunking import Commitment
from xwam.network.transformer import TextContext
from xwam.text.tokens import TextTokens


@dataclass(frozen=True, kw_only=True, eq=False)
class Observations:
    """Inputs of the network, one row for each request.

    Attributes:
        seen_BCVHW: RGB images in [-1, 1].
        proprio_BS: Present states, normalised.
        text: Prompts.
    """

    seen_BCVHW: Tensor
    proprio_BS: Tensor
    text: TextContext


class Imagined(NamedTuple):
    """Outputs of the network: clean latents, actions B,K,A and states B,P,S, both normalised."""

    latents: sampler.Latents
    action_BKA: Tensor
    proprio_BPS: Tensor


def read_prompts(bundle: Bundle, prompts: Sequence[str]) -> TextContext:
    """Return prompts as the blocks of the network read them."""
    text = TextTokens.cat([bundle.text_encoder.encode(prompt) for prompt in prompts])
    return bundle.network.with_depth_text(bundle.network.encode_text(text))


def start(
    bundle: Bundle,
    observations: Observations,
    schedule: sampler.Schedule,
    *,
    seed: int,
    null_text: TextContext | None = None,
    commitment: Commitment | None = None,
    given_action_BKA: Tensor | None = None,
) -> sampler.SamplerState:
    """Return the state before the first pass; noise is drawn on the CPU, so that it is the same on every device.

    Args:
        bundle: The model.
        observations: Its inputs.
        schedule: Step counts and guidance.
        seed: Fixes all of the noise.
        null_text: The empty prompt; needed for guidance.
        commitment: The part of the previous chunk that the new one must join; None without real-time chunking.
        given_action_BKA: Actions that are known, normalised; None to let the model act.
    """
    model, device, count = bundle.model, bundle.network.device, len(observations.seen_BCVHW)
    video, action, proprio = noise.draw_noise(
        seed,
        (count, *model.latent_shape),
        (count, model.num_actions, model.network.action_dim),
        (count, 1 + model.num_future_frames, model.network.proprio_dim),
    )
    return sampler.begin(
        schedule,
        noise_video_BCTVHW=video.to(device),
        noise_action_BKA=action.to(device),
        noise_proprio_BPS=proprio.to(device),
        seen_latent_BCVHW=encode_views(bundle.codec, observations.seen_BCVHW[:, :, None])[:, :, 0].to(device),
        seen_proprio_BS=observations.proprio_BS.to(device),
        text=observations.text,
        null_text=null_text,
        commitment=commitment,
        given_action_BKA=given_action_BKA,
    )


@torch.no_grad()
def imagine(bundle: Bundle, observations: Observations, schedule: sampler.Schedule, *, seed: int) -> Imagined:
    """Return what the model imagines after all passes."""
    state = sampler.run(bundle.network, start(bundle, observations, schedule, seed=seed))
    return Imagined(sampler.latents_of(state), state.action.x, state.proprio.x)
