"""A pass whose actions are pulled towards a chunk under execution: the gradient of real-time chunking.

In: states of denoising, a pass. Out: velocities whose actions are pulled.
Read next: `realtime_chunking.py` for the pull; `sampler.py`, which calls this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xwam.flow.realtime_chunking import pull
from xwam.flow.unipc import unipc_grid
from xwam.network.transformer import Denoised

if TYPE_CHECKING:
    from xwam.flow.sampler import SamplerState


def joined(
    weights: Iterable[Tensor],
    states: Sequence[SamplerState],
    velocities_of: Callable[[Sequence[SamplerState]], list[Denoised]],
) -> list[Denoised]:
    """Return the velocities of each state, with actions pulled towards the commitment; needs gradients.

    Args:
        weights: Those of the network.
        states: Some of them join a chunk.
        velocities_of: Runs the pass.

    Raises:
        ValueError: If the weights were made under `torch.inference_mode`, which leaves them without gradients.
    """
    if any(weight.is_inference() for weight in weights):
        raise ValueError(
            "Real-time chunking needs gradients, and this network was loaded under torch.inference_mode(); load it "
            "outside, or under torch.no_grad()."
        )
    with torch.inference_mode(False), torch.enable_grad():
        leaves = [state.action.x.detach().clone().requires_grad_() for state in states]
        with_leaves = [_recordable(state, leaf) for state, leaf in zip(states, leaves, strict=True)]
        velocities = velocities_of(with_leaves)
        guesses, errors, gains = [], [], []
        for state, leaf, velocity in zip(states, leaves, velocities, strict=True):
            sigma = unipc_grid(state.schedule.num_action_steps).sigmas[state.action.step_idx]  # 0 once clean
            guess = leaf - sigma * velocity.action_BKA
            guesses.append(guess)
            errors.append(_commitment_error(state, guess.detach()))
            gains.append(pull(sigma))
        gradients = torch.autograd.grad(guesses, leaves, errors)
    return [
        _detached(velocity, velocity.action_BKA.detach() - gain * gradient)
        for velocity, gradient, gain in zip(velocities, gradients, gains, strict=True)
    ]


def _detached(velocity: Denoised, action_BKA: Tensor) -> Denoised:
    """Return velocities without their gradients, and with these of the actions."""
    depth = None if velocity.depth_BCTVHW is None else velocity.depth_BCTVHW.detach()
    return Denoised(velocity.video_BCTVHW.detach(), action_BKA, velocity.proprio_BPS.detach(), depth)


def _recordable(state: SamplerState, action_BKA: Tensor) -> SamplerState:
    """Return a state with these actions that gradients can pass through, also where it was made in inference mode."""

    def plain(tensor: Tensor) -> Tensor:
        return tensor.clone() if tensor.is_inference() else tensor

    return replace(
        state,
        action=replace(state.action, x=action_BKA),
        video=replace(state.video, x=plain(state.video.x)),
        proprio=replace(state.proprio, x=plain(state.proprio.x)),
        text=state.text.map(plain),
        null_text=None if state.null_text is None else state.null_text.map(plain),
    )


def _commitment_error(state: SamplerState, guess_BKA: Tensor) -> Tensor:
    """Return the weighted difference of a clean guess from the commitment; zero without one."""
    if state.commitment is None or not state.joining:
        return torch.zeros_like(guess_BKA)
    weight_K1 = state.commitment.weight_K[:, None].to(guess_BKA)
    return weight_K1 * (state.commitment.action_BKA.to(guess_BKA) - guess_BKA)
