"""A video that stands still while its actions are denoised: after K whole passes, only actions and states move on.

In: states of denoising. Out: velocities of their actions and states.
Read next: `xwam/network/frozen.py` for a pass; `sampler.py`, which calls it.

A departure from the model, off unless it is asked for. Once the actions are clean, the video goes on from where it
stood, with whole passes, so that a request takes as many more passes as it made without the video.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from xwam.network.frozen import act, all_keys
from xwam.network.transformer import Denoised, TextContext, XwamNetwork

if TYPE_CHECKING:
    from xwam.flow.sampler import SamplerState


def freezes(state: SamplerState) -> bool:
    """Return whether the video of a state stands still after the coming pass; never with given or committed actions."""
    schedule = state.schedule
    return (
        schedule.freeze_video_after == state.video.step_idx + 1
        and state.passes_to_actions > 1
        and state.given is None
        and state.commitment is None
    )


def frozen_velocities(
    network: XwamNetwork, states: Sequence[SamplerState], levels: Sequence[tuple[float, float]]
) -> list[Denoised]:
    """Return the velocities of actions and states of each state; in place of the video's, the video as it stands.

    Args:
        network: The model.
        states: Requests whose video stands still.
        levels: The timesteps of video and actions of each.
    """
    keys = all_keys([state.video_keys for state in states if state.video_keys is not None])
    action, proprio = (
        torch.cat(parts) for parts in zip(*((state.action.x, state.proprio.x) for state in states), strict=True)
    )
    geometry = network.geometry(states[0].video.x, action.shape[1], proprio.shape[1])
    t_video, t_action = torch.tensor(levels, device=action.device).unbind(1)
    times = network.timesteps(t_video, t_action, geometry)
    text = TextContext.cat([state.text for state in states])
    actions, proprios = act(network, keys, action, proprio, times, text, geometry)
    rows = zip(states, actions.split(1), proprios.split(1), strict=True)
    return [Denoised(state.video.x, action, proprio, None) for state, action, proprio in rows]
