"""Real-time chunking: the next chunk is denoised while the present one is executed, and joins it smoothly.

In: the rest of the present chunk, how much of it is executed by when. Out: the target of the next chunk, and the
strength of the pull towards it.
Read next: `sampler.py`, which applies the pull, or holds the first actions clean, at every pass of the action phase.

By guidance, after Black et al., "Real-time execution of action chunking flow policies" (2025): the clean guess of the
new chunk is pulled towards the old one by the gradient of their difference: fully for committed actions, less and less
for later ones. By a prefix, after Black et al., "Training-time action conditioning for efficient real-time chunking"
(2025): the committed actions are clean tokens at timestep 0, as in training, and the others are denoised behind them.
Letters: B batch, K actions, R actions left of the present chunk, A numbers in an action.
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
        as_prefix: Whether the network gets the committed actions clean, in place of guidance.
    """

    action_BKA: Tensor
    weight_K: Tensor
    delay: int
    as_prefix: bool = False


def commit(left_BRA: Tensor, *, num_actions: int, delay: int, as_prefix: bool = False) -> Commitment:
    """Return the part of a chunk that the next one must join.

    Args:
        left_BRA: What is left of the chunk when the next one is asked for, clean and normalised.
        num_actions: Actions of a chunk.
        delay: Actions that will be executed while the next chunk is denoised.
        as_prefix: Whether the network gets them clean, in place of guidance.

    Raises:
        ValueError: If the chunk ends before the next one is ready.
    """
    num_left = left_BRA.shape[1]
    if not 0 <= delay <= num_left <= num_actions:
        raise ValueError(
            f"A chunk of {num_actions} actions of which {num_left} are left cannot bridge a delay of {delay}; ask for "
            f"the next chunk earlier."
        )
    target = left_BRA.new_zeros(left_BRA.shape[0], num_actions, left_BRA.shape[2])
    target[:, :num_left] = left_BRA
    mask = soft_mask(num_actions, executed=num_actions - num_left, delay=delay)
    return Commitment(action_BKA=target, weight_K=mask, delay=delay, as_prefix=as_prefix)


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
