"""Weights on disk.

In: a path. Out: a network and its configuration; or one sentence that names what is wrong with the file.
Read next: `header.py` for what a file says about itself, `network.py` for what is filled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from xwam.config import ModelConfig, NetworkConfig
from xwam.header import FORMAT, CheckpointError, read_model
from xwam.network import XwamNetwork


def save_checkpoint(
    path: Path, network: XwamNetwork, model: ModelConfig, *, notes: Mapping[str, str] | None = None
) -> None:
    """Write weights and configuration into one safetensors file; it appears whole or not at all.

    Args:
        path: Where to.
        network: The weights, which must be those of `model.network`.
        model: The configuration.
        notes: Anything else worth keeping, for example what it was trained on.
    """
    metadata = {"format": FORMAT, "model": json.dumps(model.to_json()), "notes": json.dumps(dict(notes or {}))}
    partial = path.with_name(path.name + ".partial")
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, partial, metadata)
    partial.replace(path)


def load_checkpoint(path: Path) -> tuple[XwamNetwork, ModelConfig]:
    """Return network and configuration of a checkpoint of our own, ready for inference."""
    model = read_model(path)
    with torch.device("meta"):
        network = XwamNetwork(model.network)
    fill(network, load_file(path), source=str(path))
    return network.eval().requires_grad_(False), model


def fill(network: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Put weights into a network built on the meta device, without a second copy.

    Raises:
        CheckpointError: Names every missing, unexpected or misshapen tensor.
    """
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    problems = [f"'{name}' is missing" for name in expected if name not in weights]
    problems += [f"'{name}' is not part of the network" for name in weights if name not in expected]
    problems += [
        f"'{name}' has shape {tuple(weights[name].shape)} in place of {shape}"
        for name, shape in expected.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointError(f"{source} does not fit the network: {', '.join(problems[:5])}{more}.")
    network.load_state_dict(dict(weights), strict=True, assign=True)


def fresh_network(config: NetworkConfig, *, seed: int) -> XwamNetwork:
    """Return an untrained network, ready for inference."""
    with torch.device("meta"):
        network = XwamNetwork(config)
    return init_weights(network.to_empty(device="cpu"), seed).eval().requires_grad_(False)


def init_weights(network: XwamNetwork, seed: int) -> XwamNetwork:
    """Return the network with fresh weights: matrices by Xavier, what X-WAM adds by N(0, 0.02), depth copied.

    The global random state is left as it was.
    """
    config = network.config
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for name, weight in sorted(network.named_parameters()):
            if name.endswith("modulation"):
                weight.normal_(0, config.width**-0.5)
            elif weight.dim() == 1:
                weight.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            elif "blocks." in name or name.startswith("patch_embedding"):
                nn.init.xavier_uniform_(weight.flatten(1))
            else:
                weight.normal_(0, 0.02)
        if config.depth == "interleaved":
            start_depth_branch(network)
    return network


def start_depth_branch(network: XwamNetwork) -> None:
    """Copy the last main blocks into the depth branch, as fine-tuning begins."""
    for twin, block in zip(
        network.depth_blocks(), network.main_blocks()[network.config.first_depth_block :], strict=True
    ):
        twin.load_state_dict(block.state_dict())
