"""UWM's noise levels: one of the actions and one of the observation, drawn independently.

In: uniform draws. Out: noise levels, 0 data, 1 noise, after the shift.
Read next: `objective.py`, which mixes noise in at these levels; `xwam/flow/noise.py` for the shift.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from xwam.flow.noise import shift, sigma_grid

PURE_NOISE_SIGMA = float(sigma_grid(1)[0])
"""The last level of training, which is the first of every inference."""


class UwmLevels(NamedTuple):
    """Noise levels of a batch; a group at 0 is given and carries no loss."""

    sigma_video_B: Tensor
    sigma_action_B: Tensor


def draw_uwm_levels(
    num: int, *, given_frac: float = 0.0, start_frac: float = 0.0, generator: torch.Generator | None = None
) -> UwmLevels:
    """Return the levels of `num` samples: independent, uniform, each shifted by 5.

    Args:
        num: Samples.
        given_frac: Share of samples with one group at 0, the actions or the observation in equal parts, as in forward
            and inverse dynamics; 0 in the original. Of shifted levels, only 1 in 100 lies below 0.05, so that a short
            training hardly sees what is given.
        start_frac: Share of samples with both groups at the first level of an inference; 0 in the original.
        generator: Source of randomness.
    """
    pick, action, video = torch.rand(3, num, generator=generator)
    starting = pick > 1 - start_frac
    sigma_action = shift(action).masked_fill(pick < given_frac / 2, 0.0)
    sigma_video = shift(video).masked_fill((pick >= given_frac / 2) & (pick < given_frac), 0.0)
    return UwmLevels(*(sigma.masked_fill(starting, PURE_NOISE_SIGMA) for sigma in (sigma_video, sigma_action)))
