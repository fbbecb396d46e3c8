"""Noise levels: how training draws them, how inference lowers them; and the noise of a seed.

In: uniform numbers, step counts, seeds. Out: noise levels (0 data, 1 noise), timesteps, noise.
Read next: `sampler.py`, which follows the grids.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from xwam.config import NUM_TRAIN_TIMESTEPS, SIGMA_SHIFT

NoiseMode = Literal["ans", "decoupled", "sync", "sync-beta"]

BETA_SHAPE = 1.5
"""Equation 4 draws b from Beta(1.5, 1), whose distribution function is b to the power of 1.5."""

CLEAN_ACTION_FRAC = 0.5
"""Share p of training samples with clean actions (equation 4)."""


class NoiseLevels(NamedTuple):
    """Noise levels of a batch, after the shift, and which samples have clean actions (those carry no action loss)."""

    sigma_video_B: Tensor
    sigma_action_B: Tensor
    clean_action_B: Tensor


Numbers = TypeVar("Numbers", float, np.ndarray, Tensor)


def shift(u: Numbers, by: float = SIGMA_SHIFT) -> Numbers:
    """Return the noise level of a uniform draw; 0 and 1 stay, all values between move towards noise.

    Example:
        >>> round(shift(0.5), 4)
        0.8333
    """
    return by * u / (1 + (by - 1) * u)


def ans_levels(pick_B: Tensor, action_B: Tensor, video_B: Tensor, clean_frac: float = CLEAN_ACTION_FRAC) -> NoiseLevels:
    """Return coupled noise levels (equation 4, algorithm 2) from three uniform draws in [0, 1).

    Args:
        pick_B: Below `clean_frac` the actions are clean and the video's level is uniform.
        action_B: Level of actions and states before the shift, where they are noisy.
        video_B: Level of the video where actions are clean; elsewhere its position b between the actions' level and 1.
        clean_frac: The paper's p.
    """
    clean = pick_B < clean_frac
    action = torch.where(clean, 0.0, action_B)
    coupled = action + (1 - action) * video_B ** (1 / BETA_SHAPE)
    return NoiseLevels(shift(torch.where(clean, video_B, coupled)), shift(action), clean)


def draw_levels(
    num: int,
    mode: NoiseMode = "ans",
    *,
    clean_frac: float = CLEAN_ACTION_FRAC,
    start_frac: float = 0.0,
    generator: torch.Generator | None = None,
) -> NoiseLevels:
    """Return noise levels of `num` training samples.

    Args:
        num: Samples.
        mode: `ans` couples both levels; `decoupled` draws them independently; `sync` draws one for both, uniformly, and
            `sync-beta` from Beta(1.5, 1), as the release's `rf_distribution: beta`. The shift follows each draw.
        clean_frac: Share of samples with clean actions, `ans` only.
        start_frac: Share of samples at the levels where every inference begins, the only ones of an inference in one
            step; 0 in the paper. With `clean_frac` at most 1.
        generator: Source of randomness.
    """
    pick, action, video = torch.rand(3, num, generator=generator)
    if mode == "ans":
        levels = ans_levels(pick, action, video, clean_frac)
    else:
        video = video ** (1 / BETA_SHAPE) if mode == "sync-beta" else video
        never = torch.zeros(num, dtype=torch.bool)
        levels = NoiseLevels(shift(video), shift(action if mode == "decoupled" else video), never)
    first, starting = sigma_grid(1)[0], pick > 1 - start_frac
    return levels._replace(
        sigma_video_B=levels.sigma_video_B.masked_fill(starting, first),
        sigma_action_B=levels.sigma_action_B.masked_fill(starting, first),
    )


def sigma_grid(num_steps: int) -> np.ndarray:
    """Return the noise levels that an inference of `num_steps` visits, num_steps + 1 float64, ending in 0.

    Example:
        >>> sigma_grid(2).round(4).tolist()
        [0.9998, 0.8331, 0.0]
    """
    if num_steps < 1:
        raise ValueError(f"An inference needs at least one step, got {num_steps}.")
    highest = 1 - 1 / NUM_TRAIN_TIMESTEPS
    grid = np.linspace(highest, 0.0, num_steps + 1)
    return np.append(shift(grid[:-1]), 0.0)


def timestep_grid(num_steps: int) -> np.ndarray:
    """Return the timesteps of all steps: noise levels times 1000, cut to whole numbers.

    Example:
        >>> timestep_grid(4).tolist()
        [999, 937, 833, 624]
    """
    return (sigma_grid(num_steps)[:-1] * NUM_TRAIN_TIMESTEPS).astype(np.int64)


def draw_noise(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Return standard normal tensors of these shapes, drawn on the CPU from one generator in this order."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in shapes]
