"""UWM's training loss: velocities of video, actions and states under independent noise levels.

In: a network, a batch, its random draws. Out: losses by name, including `total`.
Read next: `xwam/flow/losses.py` for the parts that it shares with X-WAM; `sampling.py` for the use of the levels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from baselines.uwm.levels import PURE_NOISE_SIGMA, UwmLevels
from baselines.uwm.network import UwmNetwork
from xwam.config import NUM_TRAIN_TIMESTEPS
from xwam.flow.losses import Batch, Noise, masked_mean_square, mix
from xwam.network.transformer import TextContext
from xwam.training.objective import prepare_network

if TYPE_CHECKING:
    from xwam.training.batches import Draws
    from xwam.training.recipes import Recipe


class UwmLosses(NamedTuple):
    """The three terms, weighted equally in the original."""

    video: Tensor
    action: Tensor
    proprio: Tensor


def action_levels(sigma_action_B: Tensor, action_mask_BKA: Tensor) -> Tensor:
    """Return the levels of the actions: the last one where a sample has none to learn, as in action-free video.

    Example:
        >>> action_levels(torch.tensor([0.5, 0.5]), torch.tensor([[[1.0]], [[0.0]]])).tolist()
        [0.5, 0.9997998476028442]
    """
    action_free_B = ~action_mask_BKA.flatten(1).any(dim=1)
    return sigma_action_B.masked_fill(action_free_B, PURE_NOISE_SIGMA)


def uwm_losses(network: UwmNetwork, batch: Batch, noise: Noise, levels: UwmLevels, text: TextContext) -> UwmLosses:
    """Return the losses of one batch; the present frame, the present state and groups at level 0 carry none.

    Args:
        network: The model.
        batch: Clean samples.
        noise: The noise to mix in.
        levels: Noise levels; that of the video is also that of the future states.
        text: The prompts.
    """
    sigma_video_B = levels.sigma_video_B
    sigma_action_B = action_levels(levels.sigma_action_B, batch.action_mask_BKA)
    video = mix(batch.video_BCTVHW, noise.video_BCTVHW, sigma_video_B)
    video = torch.cat([batch.video_BCTVHW[:, :, :1], video[:, :, 1:]], dim=2)
    action = mix(batch.action_BKA, noise.action_BKA, sigma_action_B)
    proprio = mix(batch.proprio_BPS, noise.proprio_BPS, sigma_video_B)
    proprio = torch.cat([batch.proprio_BPS[:, :1], proprio[:, 1:]], dim=1)
    geometry = network.geometry(video, action.shape[1], proprio.shape[1])
    times = network.timesteps(sigma_video_B * NUM_TRAIN_TIMESTEPS, sigma_action_B * NUM_TRAIN_TIMESTEPS, geometry)
    out = network(video, action, proprio, times, text)
    video_error = out.video_BCTVHW - (noise.video_BCTVHW - batch.video_BCTVHW)
    proprio_error = out.proprio_BPS - (noise.proprio_BPS - batch.proprio_BPS)
    if network.config.video_prediction == "clean":  # the error of the clean latents is sigma times that of velocities
        video_error = video_error * sigma_video_B.view(-1, 1, 1, 1, 1, 1).to(video_error)
    if network.config.proprio_prediction == "change":
        proprio_error = proprio_error * sigma_video_B.view(-1, 1, 1).to(proprio_error)
    action_error = out.action_BKA - (noise.action_BKA - batch.action_BKA)
    acting, showing = ((sigma > 0).to(video_error)[:, None, None] for sigma in (sigma_action_B, sigma_video_B))
    return UwmLosses(
        video=masked_mean_square(video_error[:, :, 1:], showing[..., None, None, None]),
        action=masked_mean_square(action_error, batch.action_mask_BKA * acting),
        proprio=masked_mean_square(proprio_error[:, 1:], batch.proprio_mask_BPS[:, 1:] * showing),
    )


class UwmObjective(nn.Module):
    """The losses, weighted by the recipe (1:1:1 in UWM's).

    Args:
        network: The network; its weights become trainable.
        recipe: Weights of the loss terms, the weights to train, recomputation of activations, compilation of blocks.

    Raises:
        ValueError: If the recipe's `train_only` names weights that the network does not have, or its noise levels are
            not independent.
    """

    def __init__(self, network: UwmNetwork, recipe: Recipe) -> None:
        super().__init__()
        if recipe.noise != "decoupled":
            raise ValueError(f"UWM needs independent noise levels: noise must be 'decoupled', got '{recipe.noise}'.")
        self.network = network
        prepare_network(network, network.main_blocks(), recipe)
        self._weights = UwmLosses(1.0, recipe.weight_action, recipe.weight_proprio)  # type: ignore[arg-type]

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """Return the terms and their weighted sum."""
        text = self.network.encode_text(draws.text)
        terms = uwm_losses(self.network, batch, draws.noise, draws.levels, text)
        total = sum((weight * term for weight, term in zip(self._weights, terms, strict=True)), torch.zeros(()))
        return {**terms._asdict(), "total": total}
