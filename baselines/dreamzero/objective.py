"""DreamZero's training objective: velocities of video and actions, teacher-forced over a whole clip.

In: a network, a batch, its noise and levels. Out: losses by name, including `total`.
Read next: `levels.py` for the levels and weights; `xwam/training/trainer.py`, which trains with it.

The network predicts neither depth nor states, so the recipe's weights of these have no effect.

Letters: B batch, C latent channels, T latent frames, V views, H W latent rows and columns, K actions, N blocks,
A numbers in an action, S numbers in a state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from baselines.dreamzero.levels import BlockLevels, loss_weight
from baselines.dreamzero.network import ClipTimes, DreamZeroNetwork
from xwam.config import NUM_TRAIN_TIMESTEPS
from xwam.flow.losses import Batch, Noise
from xwam.network.transformer import TextContext
from xwam.training.objective import prepare_network

if TYPE_CHECKING:
    from xwam.training.batches import Draws
    from xwam.training.recipes import Recipe


class DreamZeroLosses(NamedTuple):
    """The two terms, each weighted by the levels of its frames or actions."""

    video: Tensor
    action: Tensor


class DreamZeroObjective(nn.Module):
    """The losses of video and actions, weighted.

    Args:
        network: The network; its weights become trainable.
        recipe: Weights of the losses, the weights to train, recomputation of activations, compilation of blocks.

    Raises:
        ValueError: If the recipe asks for other noise than the network's.
    """

    def __init__(self, network: DreamZeroNetwork, recipe: Recipe) -> None:
        super().__init__()
        check_recipe(network, recipe)
        self.network = network
        prepare_network(network, network.main_blocks(), recipe)
        self._weight_action = recipe.weight_action

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """Return both terms and their weighted sum."""
        text = self.network.encode_text(draws.text)
        found = losses(self.network, batch, draws.noise, draws.levels, text)
        return {**found._asdict(), "total": found.video + self._weight_action * found.action}


def check_recipe(network: DreamZeroNetwork, recipe: Recipe) -> None:
    """Raise ValueError for a recipe that the network cannot be trained with.

    Raises:
        ValueError: Names the setting, what was expected, and what was found.
    """
    flash = network.config.independent_levels
    if recipe.noise != ("decoupled" if flash else "sync"):
        advice = (
            "--recipe dreamzero-flash-nano (at 5B dreamzero-flash-5b), or noise=decoupled and video_beta=7"
            if flash
            else "noise=sync, or train a Flash model such as dreamzero/nano-flash"
        )
        raise ValueError(
            f"Recipe '{recipe.name}' has noise={recipe.noise}, but this DreamZero "
            f"{'has levels of its own for actions' if flash else 'shares its levels between frames and actions'}; "
            f"give {advice}."
        )


def losses(
    network: DreamZeroNetwork, batch: Batch, noise: Noise, levels: BlockLevels, text: TextContext
) -> DreamZeroLosses:
    """Return the losses of one batch.

    Every noisy frame carries loss, the first one too. Actions that are masked carry none. A network that predicts clean
    video is trained on that, not on velocities.

    Args:
        network: The model.
        batch: Clean samples whose clips fill whole blocks.
        noise: The noise to mix in.
        levels: Noise levels.
        text: The prompts; the empty one for a dropped prompt.
    """
    sigma_BT, sigma_BK = frame_levels(network, levels), levels.action_BK
    video = _mix(batch.video_BCTVHW, noise.video_BCTVHW, sigma_BT[:, None, :, None, None, None])
    action = _mix(batch.action_BKA, noise.action_BKA, sigma_BK[..., None])
    out = network(batch.video_BCTVHW, video, action, block_states(network, batch), times_of(network, levels), text)
    error = out.video_BCTVHW - (noise.video_BCTVHW - batch.video_BCTVHW)
    if network.config.video_prediction == "clean":  # the error of the clean latents is sigma times that of velocities
        error = error * sigma_BT[:, None, :, None, None, None]
    action_error = out.action_BKA - (noise.action_BKA - batch.action_BKA)
    video_BT = error.square().mean(dim=(1, 3, 4, 5))
    mask_BKA = batch.action_mask_BKA.expand_as(action_error)
    weighted = loss_weight(sigma_BK)[..., None] * action_error.square() * mask_BKA
    return DreamZeroLosses(
        video=(loss_weight(sigma_BT) * video_BT).mean(), action=weighted.sum() / mask_BKA.sum().clamp(min=1)
    )


def block_states(network: DreamZeroNetwork, batch: Batch) -> Tensor:
    """Return the state at the start of each block, B,N,S; a batch has one for every predicted frame."""
    per_block = network.config.frames_per_block
    num_blocks = batch.action_BKA.shape[1] // network.config.actions_per_block
    return batch.proprio_BPS[:, : num_blocks * per_block : per_block]


def frame_levels(network: DreamZeroNetwork, levels: BlockLevels) -> Tensor:
    """Return the level of each latent frame, B,T."""
    return torch.cat(
        [levels.first_B[:, None], levels.block_BN.repeat_interleave(network.config.latents_per_block, dim=1)], dim=1
    )


def times_of(network: DreamZeroNetwork, levels: BlockLevels) -> ClipTimes:
    """Return the timesteps of levels; those of actions only where they are independent of their block's."""
    first_B, block_BN, action_BK = (level * NUM_TRAIN_TIMESTEPS for level in levels)
    return ClipTimes(first_B, block_BN, action_BK if network.config.independent_levels else None)


def _mix(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    return (1 - sigma) * clean + sigma * noise
