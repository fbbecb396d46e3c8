"""What is minimised: a module that owns the weights and turns a batch and its draws into named losses.

In: a network, a batch, its draws. Out: losses by name, `total` among them.
Read next: `../losses.py` for equations 5 and 6, `trainer.py`, which knows nothing but this interface.

A rival model trains in the same loop by bringing an objective of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xwam.flow.losses import Batch, losses
from xwam.network.transformer import XwamNetwork
from xwam.training.batches import Draws
from xwam.training.recipes import Recipe


class Objective(Protocol):
    """What the trainer asks for; an `nn.Module` whose parameters are trained."""

    @property
    def network(self) -> nn.Module:
        """Return the weights that a checkpoint holds."""
        ...

    def __call__(self, batch: Batch, draws: Draws) -> Mapping[str, Tensor]:
        """Return losses by name; `total` is the one to follow."""
        ...


class XwamObjective(nn.Module):
    """The losses of equation 6, weighted.

    Args:
        network: The model; its weights become trainable.
        recipe: Weights of the terms, which weights are trained, whether activations are recomputed, whether blocks are
            compiled.

    Raises:
        ValueError: If the recipe trains only weights that the network does not have.
    """

    def __init__(self, network: XwamNetwork, recipe: Recipe) -> None:
        super().__init__()
        self.network = network.train().requires_grad_(not recipe.train_only)
        for start in recipe.train_only:
            chosen = [weight for name, weight in network.named_parameters() if name.startswith(start)]
            if not chosen:
                raise ValueError(f"train_only: the network has no weights whose names begin with '{start}'.")
            for weight in chosen:
                weight.requires_grad_(True)
        self._weights = {
            "video": 1.0,
            "action": recipe.weight_action,
            "proprio": recipe.weight_proprio,
            "depth": recipe.weight_depth,
        }
        for part in (network.time_embedding, network.time_projection):
            _keep_exact(part)
        for block in (*network.main_blocks(), *network.depth_blocks()):
            if recipe.checkpointing:
                _recompute(block)
            if recipe.compile:
                block.compile()

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """Return the four terms and their weighted sum."""
        text = self.network.encode_text(draws.text_BNW)
        found = losses(self.network, batch, draws.noise, draws.levels, text)._asdict()
        total = sum((self._weights[name] * value for name, value in found.items()), torch.zeros(()).to(found["video"]))
        return {**found, "total": total}


def _recompute(block: nn.Module) -> None:
    """Let a block forget its activations and compute them again on the way back; names of weights do not change."""
    forward: Any = block.forward
    block.forward = lambda *inputs, **named: checkpoint(  # type: ignore[method-assign]
        forward, *inputs, use_reentrant=False, preserve_rng_state=False, **named
    )


def _keep_exact(part: nn.Module) -> None:
    """Let a part compute in float32 even where matrices are cast: timesteps are too fine for bfloat16."""
    forward: Any = part.forward

    def exact(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return forward(x.float())

    part.forward = exact  # type: ignore[method-assign]
