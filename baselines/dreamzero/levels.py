"""Noise levels of training, and the weight of the loss at each.

In: numbers of blocks and actions, a source of randomness. Out: levels (0 data, 1 noise); weights.
Read next: `objective.py`, which uses both.

Levels lie on a grid of 1000: u = 1, 0.999, ..., 0.001, each shifted by 5 (official FlowMatchScheduler, commit ab790c1).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from xwam.config import NUM_TRAIN_TIMESTEPS
from xwam.flow.noise import shift

FLASH_BETA = 7.0
"""First shape of the video's Beta distribution in the Flash variant; the second is 1. The official code has 3."""


class BlockLevels(NamedTuple):
    """Noise levels of clips, after the shift.

    Attributes:
        first_B: Of the first noisy frame.
        block_BN: Of the frames of each block.
        action_BK: Of each action.
    """

    first_B: Tensor
    block_BN: Tensor
    action_BK: Tensor


def draw_block_levels(
    num_clips: int,
    *,
    num_blocks: int,
    actions_per_block: int,
    flash_beta: float | None = None,
    generator: torch.Generator | None = None,
) -> BlockLevels:
    """Return the levels of clips: one for the first frame and one for each block, which its actions share.

    Args:
        num_clips: Clips.
        num_blocks: Blocks of a clip.
        actions_per_block: Actions of a block.
        flash_beta: Of the Flash variant: u of the frames is drawn from Beta(flash_beta, 1), near noise, and that of
            each action uniformly, by itself. None for uniform levels that actions share.
        generator: Source of randomness.
    """
    drawn = torch.rand(num_clips, 1 + num_blocks, generator=generator)
    ratio = drawn if flash_beta is None else drawn ** (1 / flash_beta)  # the inverse of the distribution function
    video = _on_grid(ratio)
    action = video[:, 1:].repeat_interleave(actions_per_block, dim=1)
    if flash_beta is not None:
        action = _on_grid(torch.rand(num_clips, num_blocks * actions_per_block, generator=generator))
    return BlockLevels(video[:, 0], video[:, 1:], action)


def _on_grid(ratio: Tensor) -> Tensor:
    """Return the levels of the grid for u in [0, 1): the highest one is noise alone, the lowest nearly clean."""
    index = ((1 - ratio) * NUM_TRAIN_TIMESTEPS).floor().clamp(0, NUM_TRAIN_TIMESTEPS - 1)
    return shift(1 - index / NUM_TRAIN_TIMESTEPS)


def loss_weight(sigma: Tensor) -> Tensor:
    """Return the weight of the loss at levels: exp(-2 ((t - 500) / 1000)^2) less its least value, of mean 1.

    Least value and mean are those over the grid. It is 0 at noise alone.

    Example:
        >>> loss_weight(torch.tensor([1.0, 0.5])).round(decimals=3).tolist()
        [0.0, 2.0759999752044678]
    """
    low, mean = _bell_of_grid()
    return (_bell(sigma) - low).clamp(min=0) / mean


def _bell(sigma: Tensor) -> Tensor:
    return torch.exp(-2 * (sigma - 0.5) ** 2)


@lru_cache(maxsize=1)
def _bell_of_grid() -> tuple[float, float]:
    """Return the least value over the grid, and the mean after it is taken off."""
    grid = shift(torch.arange(1, NUM_TRAIN_TIMESTEPS + 1, dtype=torch.float64) / NUM_TRAIN_TIMESTEPS)
    values = _bell(grid)
    low = float(values.min())
    return low, math.fsum((values - low).tolist()) / NUM_TRAIN_TIMESTEPS
