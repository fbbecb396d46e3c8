"""Real-time chunking: the next chunk is denoised while the present one is executed, and joins it smoothly.

In: the present chunk, how much of it is executed by when. Out: the target of the next chunk, and the strength of the
pull towards it.
Read next: `sampler.py`, which applies the pull at every pass of the action phase.

After Black et al., "Real-time execution of action chunking flow policies" (2025): the clean guess of the new chunk is
pulled towards the old one by the gradient of their difference: fully for committed actions, less and less for later
ones. Letters: B batch, K actions, A numbers in an action.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MAX_PULL = 5.0
"""Largest weight of the gradient (their beta); it grows without bound at full noise."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Commitment:
    """The part of the old chunk that the new one must join.

    Attributes:
        action_BKA: The old chunk as seen from the new one's start, normalised; zero beyond its end.
        weight_K: 1 for committed actions, falling to 0 where the old chunk ends.
        delay: Actions that will be executed before the new chunk is ready; they stay exactly as they are.
    """

    action_BKA: Tensor
    weight_K: Tensor
    delay: int


def commit(action_BKA: Tensor, *, executed: int, delay: int) -> Commitment:
    """Return the part of a chunk that the next one must join.

    Args:
        action_BKA: The chunk under execution, clean and normalised.
        executed: Actions of it that are executed when the next chunk is asked for.
        delay: Actions of it that will be executed while the next chunk is denoised.

    Raises:
        ValueError: If the chunk ends before the next one is ready.
    """
    num_actions = action_BKA.shape[1]
    if executed < 0 or delay < 0 or executed + delay > num_actions:
        raise ValueError(
            f"A chunk of {num_actions} actions cannot bridge {delay} more after {executed} are executed; "
            f"ask for the next chunk earlier."
        )
    left = torch.zeros_like(action_BKA)
    left[:, : num_actions - executed] = action_BKA[:, executed:]
    return Commitment(action_BKA=left, weight_K=soft_mask(num_actions, executed=executed, delay=delay), delay=delay)


def soft_mask(num_actions: int, *, executed: int, delay: int) -> Tensor:
    """Return the pull on each action: 1 up to the delay, falling exponentially to 0 where the old chunk ends.

    Example:
        >>> soft_mask(6, executed=2, delay=1).double().numpy().round(3).tolist()
        [1.0, 0.488, 0.189, 0.041, 0.0, 0.0]
    """
    index = torch.arange(num_actions, dtype=torch.float64)
    end = num_actions - executed
    share = ((end - index) / (end - delay + 1)).clamp(0, 1)
    falling = share * torch.expm1(share) / torch.expm1(torch.ones(1, dtype=torch.float64))
    return torch.where(index < delay, 1.0, torch.where(index < end, falling, 0.0)).float()


def pull(sigma: float) -> float:
    """Return the weight of the gradient at a noise level.

    With tau = 1 - sigma it is (1 - tau) / (tau r^2), r^2 = (1 - tau)^2 / (tau^2 + (1 - tau)^2), at most `MAX_PULL`.

    Example:
        >>> pull(0.999), round(pull(0.5), 3)
        (5.0, 2.0)
    """
    tau = 1.0 - sigma
    if tau <= 0 or sigma <= 0:
        return MAX_PULL
    return min(MAX_PULL, (tau**2 + sigma**2) / (tau * sigma))
