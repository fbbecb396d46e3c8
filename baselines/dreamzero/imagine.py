"""What a DreamZero in training imagines from the first frame of clips: their first block.

In: first frames, states and prompts. Out: clean latents and actions.
Read next: `xwam/training/validation.py`, which compares them with the clips; `engine.py` for the policy.
"""

from __future__ import annotations

import torch

from baselines.dreamzero.sampler import BlockSchedule, Context, begin, run
from xwam.checkpoints.bundle import Bundle
from xwam.codecs.codec import encode_views
from xwam.flow.noise import draw_noise
from xwam.flow.sampler import Latents, Schedule
from xwam.serving.imagine import Imagined, Observations


@torch.no_grad()
def imagine_first_block(bundle: Bundle, observations: Observations, schedule: Schedule, *, seed: int) -> Imagined:
    """Return the first latent frame and the first block after it, and the block's actions.

    Args:
        bundle: The model.
        observations: Its inputs.
        schedule: Denoising steps; both numbers must be equal unless actions have levels of their own.
        seed: Fixes all of the noise.
    """
    network, config = bundle.network, bundle.network.config
    first = encode_views(bundle.codec, observations.seen_BCVHW[:, :, None]).to(network.device)
    count, channels, _, *cells = first.shape
    video, action = draw_noise(
        seed,
        (count, channels, config.latents_per_block, *cells),
        (count, config.actions_per_block, config.action_dim),
    )
    num_steps = schedule.num_video_steps
    state = begin(
        BlockSchedule(
            num_video_steps=num_steps,
            num_action_steps=schedule.num_action_steps if config.independent_levels else num_steps,
        ),
        noise_video_BCTVHW=video.to(network.device),
        noise_action_BKA=action.to(network.device),
        proprio_BNS=observations.proprio_BS[:, None].to(network.device),
        seen=Context(network.remember(first, None, observations.text), observations.text),
    )
    done = run(network, state)
    return Imagined(
        Latents(torch.cat([first, done.video.x], dim=2), None), done.action.x, observations.proprio_BS[:, None]
    )
