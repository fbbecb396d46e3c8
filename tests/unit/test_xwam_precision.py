"""Which modules compute in float32 when the other matrices are bfloat16, in inference and in training.

In: a network of random weights. Out: the types that its modules really get and give.
Read next: `EXACT_MODULES` in `xwam/network/transformer.py`.
"""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from tests.doubles.checkpoints import Released
from tests.doubles.networks import ACTIONS, STATES, TINY, inputs_of, network_of
from tests.doubles.xwam import PLUGIN, RANDOM
from xwam.network.reference import ReferenceNetwork
from xwam.network.transformer import XwamNetwork, is_exact
from xwam.policy import XwamPolicyConfig
from xwam.training.objective import XwamObjective
from xwam.training.recipes import FINETUNING

FULL = {"time_embedding", "time_projection", "action_encoder", "action_decoder", "proprio_encoder", "proprio_decoder"}
FULL |= {"head.head", "extra_heads.head"}
"""What lies in the release's regions of `autocast(dtype=float32)` (modules/wan_model.py, commit 72cfb86)."""

HALF = {"text_embedding", "blocks.ffn", "extra_blocks.ffn"}
HALF |= {
    f"{blocks}.{attention}.{name}"
    for blocks in ("blocks", "extra_blocks")
    for attention in ("self_attn", "cross_attn")
    for name in "qkvo"
}
"""The linear layers outside these regions."""


def owner(name: str) -> str:
    """Return the name of a linear layer without numbers: `blocks.2.ffn.0` is part of `blocks.ffn`."""
    return re.sub(r"\.\d+", "", name)


def watched(network: XwamNetwork) -> dict[str, set[torch.dtype]]:
    """Return a dict that fills with the types that linear layers give, by name without numbers."""
    seen: dict[str, set[torch.dtype]] = {}
    for name, module in network.named_modules():
        if isinstance(module, nn.Linear):

            def note(module: Any, inputs: Any, output: torch.Tensor, name: str = owner(name)) -> None:
                seen.setdefault(name, set()).add(output.dtype)

            module.register_forward_hook(note)
    return seen


def forward(network: Any, reading: Any = None) -> Any:
    video, action, proprio, text = inputs_of()
    times = network.timesteps(
        torch.tensor([700.0, 300.0]), torch.tensor([400.0, 0.0]), network.geometry(video, ACTIONS, STATES)
    )
    model = reading or network
    return model(video, action, proprio, times, model.encode_text(text), depth=True)


def test_inference_in_bfloat16_keeps_what_the_release_keeps() -> None:
    network = network_of().cast(torch.bfloat16)
    seen = watched(network)
    forward(network)
    assert {name for name, types in seen.items() if types == {torch.float32}} == FULL
    assert {name for name, types in seen.items() if types == {torch.bfloat16}} == HALF
    assert network.patch_embedding.weight.dtype == network.view_embedding.weight.dtype == torch.bfloat16


def test_training_in_bfloat16_keeps_the_same() -> None:
    network = network_of()
    objective = XwamObjective(network, replace(FINETUNING, checkpointing=False))
    seen = watched(objective.network)
    with torch.autocast("cpu", torch.bfloat16):
        forward(network)
    assert {name for name, types in seen.items() if types == {torch.float32}} == FULL
    assert {name for name, types in seen.items() if types == {torch.bfloat16}} == HALF


def test_the_residual_stream_is_float32() -> None:
    network = network_of().cast(torch.bfloat16)
    types = set()
    for block in (*network.main_blocks(), *network.depth_blocks()):
        block.register_forward_hook(lambda module, inputs, output: types.add((inputs[0].dtype, output[0].dtype)))
    forward(network)
    assert types == {(torch.float32, torch.float32)}


def test_heads_and_decoders_round_nothing() -> None:
    """In bfloat16 they equal a float64 computation of their float32 inputs to seven digits, not to three."""
    network = network_of().cast(torch.bfloat16)
    layers = {"action": network.action_decoder, "proprio": network.proprio_decoder, "video": network.head.head}
    calls: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda _, inputs, output, name=name: calls.update({name: (inputs[0], output)}))
    forward(network)
    for name, layer in layers.items():
        given, got = calls[name]
        exact = layer.double()(given.double())
        assert (got - exact).abs().max() < 1e-5 * exact.abs().max(), name


def test_the_reference_network_agrees_in_bfloat16() -> None:
    network = network_of().cast(torch.bfloat16)
    video = inputs_of()[0]
    reading = ReferenceNetwork(network, network.geometry(video, ACTIONS, STATES))
    for ours, theirs in zip(forward(network), forward(network, reading), strict=True):
        assert ours.dtype == theirs.dtype == torch.float32
        assert (ours - theirs).abs().mean() < 0.02 * theirs.std()


@pytest.mark.parametrize("depth", ["none", "interleaved", "sequence", "channel"])
def test_exact_parameters_are_of_exact_modules(depth: Any) -> None:
    network = network_of(replace(TINY, depth=depth))
    inside = {id(weight) for module in network.exact_modules() for weight in module.parameters()}
    for name, weight in network.named_parameters():
        assert is_exact(name) == (id(weight) in inside or "modulation" in name or ".norm3." in name), name


def test_precision_follows_the_device() -> None:
    assert PLUGIN.provenance(RANDOM)["precision"].startswith("float32;")
    on_gpu = PLUGIN.provenance(replace(RANDOM, device="cuda:0"))
    assert on_gpu["precision"] == "bfloat16; heads, timesteps, actions and states in float32"
    departed = "departures from the model's own precision"
    assert on_gpu[departed] == "matrices in bfloat16 instead of float32"
    chosen = replace(RANDOM, device="cuda", precision="float32")
    assert departed not in PLUGIN.provenance(chosen)
    assert PLUGIN.provenance(chosen)["precision"].startswith("float32;")
    assert XwamPolicyConfig().precision == "auto"


def test_departures_from_the_released_server_are_listed(released: Released) -> None:
    config = XwamPolicyConfig(checkpoint=str(released.folder))
    key = "departures from the released server"
    assert PLUGIN.provenance(config)[key].endswith("not rounded to bfloat16; float32 in place of bfloat16")
    assert PLUGIN.provenance(replace(config, device="cuda"))[key].endswith("not rounded to bfloat16")
    assert "departures from the model's own precision" not in PLUGIN.provenance(replace(config, device="cuda"))
    assert key not in PLUGIN.provenance(RANDOM)
