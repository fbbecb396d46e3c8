"""Models with fresh weights: random ones, and those that start from a video model.

In: a configuration and a seed; Wan's tensors. Out: a network, or a `Bundle` whose other parts need no weights.
Read next: `bundle.py` for models read from disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from xwam.checkpoints.bundle import Bundle, load_codec, load_text_encoder
from xwam.checkpoints.tensor_names import is_addition
from xwam.checkpoints.tensors import fill, stored_type
from xwam.config import ModelConfig, NetworkConfig
from xwam.families import OWN, Family, family_of
from xwam.network.transformer import AnyTrunk, Trunk, XwamNetwork, is_exact


def fresh_network(config: NetworkConfig, *, seed: int) -> XwamNetwork:
    """Return an untrained network of X-WAM, ready for inference."""
    return _fresh(family_of(OWN), config, seed)  # type: ignore[return-value]


def _fresh(family: Family, config: NetworkConfig, seed: int) -> Trunk:
    with torch.device("meta"):
        network = family.build(config)
    return init_weights(network.to_empty(device="cpu"), seed).eval().requires_grad_(False)


def init_weights(network: AnyTrunk, seed: int) -> AnyTrunk:
    """Return a network with fresh weights: matrices by Xavier, additions to Wan by N(0, 0.02), a depth branch copied.

    The global random state does not change.
    """
    config = network.config
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for name, weight in sorted(network.named_parameters()):
            if name.endswith("modulation"):
                weight.normal_(0, weight.shape[-1] ** -0.5)
            elif weight.dim() == 1:
                weight.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            elif "blocks." in name or name.startswith("patch_embedding"):
                nn.init.xavier_uniform_(weight.flatten(1))
            else:
                weight.normal_(0, 0.02)
        if isinstance(network, XwamNetwork) and config.depth == "interleaved":
            start_depth_branch(network)
    return network


def start_depth_branch(network: XwamNetwork) -> None:
    """Copy the last main blocks into the depth branch, as fine-tuning begins."""
    for copy, block in zip(
        network.depth_blocks(), network.main_blocks()[network.config.first_depth_block :], strict=True
    ):
        weights = block.state_dict()  # which may hold more, for actions alone
        copy.load_state_dict({name: weights[name] for name in copy.state_dict()})


def start_from_wan(config: NetworkConfig, wan: Mapping[str, Tensor], *, family: str = OWN, seed: int = 0) -> Trunk:
    """Return a network for fine-tuning: Wan's weights, a depth branch copied from them, all others fresh.

    Args:
        config: The network; its main branch must have Wan's sizes.
        wan: Wan's tensors under Wan's names.
        family: The family that builds it.
        seed: Seed of the fresh weights.
    """
    network = _fresh(family_of(family), config, seed)
    fresh = {name: value for name, value in network.state_dict().items() if is_addition(name)}
    fill(network, {**wan, **fresh}, source="The video model to start from")
    network.cast(stored_type({name: weight for name, weight in wan.items() if not is_exact(name)}))
    if isinstance(network, XwamNetwork) and config.depth == "interleaved":
        start_depth_branch(network)
    return network


def fresh_bundle(model: ModelConfig, *, seed: int) -> Bundle:
    """Return an untrained model whose codec and text encoder need no weights."""
    network = _fresh(family_of(model.family), model.network, seed)
    return Bundle(model, network, load_codec(model, Path()), load_text_encoder(model, Path()))
