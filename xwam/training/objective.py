"""The training objective: a module that owns the weights and computes named losses of a batch.

In: a network, a batch, its random draws. Out: losses by name, including `total`.
Read next: `../flow/losses.py` for equations 5 and 6; `trainer.py`, which uses only this interface.

Another model trains in the same loop with its own objective.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from xwam.flow.losses import Batch, losses
from xwam.network.transformer import Trunk, XwamNetwork

if TYPE_CHECKING:
    from xwam.training.batches import Draws
    from xwam.training.recipes import Recipe


class Objective(Protocol):
    """The interface that the trainer uses: an `nn.Module` whose parameters are trained."""

    @property
    def network(self) -> nn.Module:
        """Return the network that a checkpoint holds."""
        ...

    def __call__(self, batch: Batch, draws: Draws) -> Mapping[str, Tensor]:
        """Return losses by name; `total` is minimised."""
        ...


class XwamObjective(nn.Module):
    """The losses of equation 6, weighted, and the spectral loss of actions if the recipe asks for it.

    Args:
        network: The network; its weights become trainable.
        recipe: Weights of the loss terms, the weights to train, recomputation of activations, compilation of blocks.

    Raises:
        ValueError: If the recipe's `train_only` names weights that the network does not have.
    """

    def __init__(self, network: XwamNetwork, recipe: Recipe) -> None:
        super().__init__()
        self.network = network
        prepare_network(network, (*network.main_blocks(), *network.depth_blocks()), recipe)
        self._weights = {
            "video": 1.0,
            "action": recipe.weight_action,
            "proprio": recipe.weight_proprio,
            "depth": recipe.weight_depth,
        }
        if recipe.weight_dct:
            self._weights["dct"] = recipe.weight_dct

    def forward(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """Return the terms that the recipe weighs, and their weighted sum."""
        text = self.network.encode_text(draws.text)
        spectrum = "dct" in self._weights
        found = losses(
            self.network, batch, draws.noise, draws.levels, text, spectrum=spectrum, num_clean=draws.num_clean
        )._asdict()
        terms = {name: found[name] for name in self._weights}
        total = sum((self._weights[name] * value for name, value in terms.items()), torch.zeros(()).to(terms["video"]))
        return {**terms, "total": total}


def prepare_network(network: Trunk, blocks: Sequence[nn.Module], recipe: Recipe) -> None:
    """Make the weights of a network trainable, and its modules compute as the recipe says.

    Args:
        network: The network.
        blocks: Its blocks, which are recomputed or compiled if the recipe says so.
        recipe: The weights to train, recomputation of activations, compilation of blocks.

    Raises:
        ValueError: If the recipe's `train_only` names weights that the network does not have.
    """
    network.train().requires_grad_(not recipe.train_only)
    for start in recipe.train_only:
        chosen = [weight for name, weight in network.named_parameters() if name.startswith(start)]
        if not chosen:
            raise ValueError(f"train_only: the network has no weights whose names begin with '{start}'.")
        for weight in chosen:
            weight.requires_grad_(True)
    for module in network.exact_modules():
        _keep_exact(module)
    for block in blocks:
        if recipe.checkpointing:
            _recompute(block)
        if recipe.compile:
            block.compile()


def _recompute(block: nn.Module) -> None:
    """Make a block recompute its activations in the backward pass; names of weights do not change."""
    forward: Any = block.forward
    block.forward = lambda *inputs, **named: checkpoint(  # type: ignore[method-assign]
        forward, *inputs, use_reentrant=False, preserve_rng_state=False, **named
    )


def _keep_exact(module: nn.Module) -> None:
    """Make a module compute in float32 under autocast."""
    forward: Any = module.forward

    def exact(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return forward(x.float())

    module.forward = exact  # type: ignore[method-assign]
