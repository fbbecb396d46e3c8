"""Builds the optimizers of a network and computes the learning rate of a step.

In: a network, a recipe. Out: one or two optimizers; a factor between 0 and 1.
Read next: `trainer.py`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from xwam.training.recipes import Recipe


def optimizers_of(network: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Return the optimizers of all weights: AdamW, and Muon for the matrices of the blocks if the recipe asks for it.

    Muon's updates are scaled to the size of AdamW's, so that both use the same learning rate.
    """
    named = list(network.named_parameters())
    matrices = [weight for name, weight in named if recipe.optimizer == "muon" and _is_block_matrix(name, weight)]
    of_muon = {id(weight) for weight in matrices}
    rest = [weight for _, weight in named if id(weight) not in of_muon]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay)
    ]
    if matrices:
        optimizers.append(
            torch.optim.Muon(
                matrices, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"
            )
        )
    return optimizers


def _is_block_matrix(name: str, weight: nn.Parameter) -> bool:
    return "blocks." in name and weight.dim() == 2


def rate_at(step: int, recipe: Recipe) -> float:
    """Return the share of the peak learning rate at step number `step`, counted from 0.

    As the release has it (`get_cosine_schedule_with_warmup` of transformers): the first step of a warm-up has rate 0,
    and the step after the warm-up has the peak.

    Example:
        >>> from xwam.training.recipes import FINETUNING
        >>> [round(rate_at(step, FINETUNING), 3) for step in (0, 500, 1000, 10_500, 19_999)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """
    if step < recipe.warmup_steps:
        return step / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, recipe.num_steps - recipe.warmup_steps)
    low = recipe.final_lr_frac
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def set_rate(optimizers: list[torch.optim.Optimizer], step: int, recipe: Recipe) -> float:
    """Set the learning rate of a step; return it."""
    rate = recipe.learning_rate * rate_at(step, recipe)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
    return rate
