"""The official DreamZero weights: every tensor loads or is named with the reason; what is loaded computes the same."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from baselines.dreamzero.network import DreamZeroNetwork
from baselines.dreamzero.official import is_official, read_official
from tests.doubles.official_dreamzero import (
    ACTION_SLOTS,
    SMALL_14B,
    STATE_SLOTS,
    adapted,
    other_parts,
    transformer,
    write_official,
)
from xwam.checkpoints.metadata import CheckpointError
from xwam.checkpoints.tensors import fill, without_values


def loaded(folder: Path) -> DreamZeroNetwork:
    official = read_official(folder)
    with without_values():
        network = DreamZeroNetwork(official.network)
    fill(network, official.weights, source="here")
    return network


def numbers(tensors: dict[str, Tensor]) -> int:
    return sum(value.numel() for value in tensors.values())


@pytest.mark.parametrize("shards", [1, 3])
def test_every_tensor_loads_or_is_named(tmp_path: Path, shards: int) -> None:
    official = read_official(write_official(tmp_path, shards=shards))
    held = sum(numbers(dict(part)) for part in (official.weights, official.text_encoder, official.vae))
    left = sum(part.numbers for part in official.left_out)
    assert held + left == numbers(transformer()) + numbers(other_parts())
    assert [part.what.split(" (")[0] for part in official.left_out] == [
        "CLIP image encoder",
        "CLIP image branch of the transformer",
    ]
    assert all("start for a fine-tuning" in str(part) for part in official.left_out)
    loaded(tmp_path)


def test_the_sizes_are_those_of_the_tensors(tmp_path: Path) -> None:
    config = read_official(write_official(tmp_path)).network
    assert (config.width, config.ffn_width, config.num_heads, config.num_blocks) == (24, 32, 2, 2)
    assert (config.latent_channels, config.latents_per_block, config.actions_per_block) == (48, 2, 24)
    assert (config.action_slots, config.state_slots, config.action_hidden) == (ACTION_SLOTS, STATE_SLOTS, 5)


def test_encoders_and_decoder_compute_as_the_official_ones(tmp_path: Path) -> None:
    official, network = transformer(), loaded(write_official(tmp_path))

    def layer(name: str, x: Tensor) -> Tensor:
        return torch.bmm(x, official[f"{name}.W"]) + official[f"{name}.b"][:, None]

    state, action, code = torch.randn(1, 2, STATE_SLOTS), torch.randn(1, 3, ACTION_SLOTS), torch.randn(1, 3, 24)
    expected = layer("state_encoder.layer2", F.relu(layer("state_encoder.layer1", state)))
    torch.testing.assert_close(network.proprio_encoder(state), expected)
    hidden = layer("action_encoder.W2", torch.cat([layer("action_encoder.W1", action), code], dim=-1))
    tokens = layer("action_encoder.W3", hidden * hidden.sigmoid())
    torch.testing.assert_close(network.action_encoder(torch.cat([action, code], dim=-1)), tokens)
    out = layer("action_decoder.layer2", F.relu(layer("action_decoder.layer1", tokens)))
    torch.testing.assert_close(network.action_decoder(tokens), out)


def test_a_14b_layout_loads_without_first_frame_channels(tmp_path: Path) -> None:
    official = read_official(write_official(tmp_path, sizes=SMALL_14B))
    assert official.network.latent_channels == 16
    patches = official.weights["patch_embedding.weight"]
    assert torch.equal(patches, transformer(SMALL_14B)["patch_embedding.weight"][:, :16])
    assert not official.vae
    named = {part.what.split(" (")[0]: part for part in official.left_out}
    assert named["input channels of patch_embedding for the first frame"].numbers == 24 * 20 * 4
    assert "16x16 of Wan2.2" in named["VAE"].reason
    loaded(tmp_path)


def test_adapters_are_added_to_the_weights(tmp_path: Path) -> None:
    plain, changed = transformer(), adapted(transformer())
    weights = read_official(write_official(tmp_path, changed)).weights
    name = "blocks.1.self_attn.q"
    down, up = (changed[f"base_model.model.{name}.lora_{part}.default.weight"] for part in "AB")
    torch.testing.assert_close(weights[f"{name}.weight"], plain[f"{name}.weight"] + 6 / 3 * up @ down)
    assert torch.equal(weights[f"{name}.bias"], plain[f"{name}.bias"])
    assert torch.equal(weights["blocks.1.self_attn.k.weight"], plain["blocks.1.self_attn.k.weight"])


def test_adapters_alone_are_refused(tmp_path: Path) -> None:
    alone = {name: value for name, value in adapted(transformer()).items() if "lora_" in name}
    with pytest.raises(CheckpointError, match="low-rank adapters of a training without the weights"):
        read_official(write_official(tmp_path, alone))


def test_what_is_no_dreamzero_is_refused(tmp_path: Path) -> None:
    assert not is_official(tmp_path)
    with pytest.raises(CheckpointError, match=r"There is no .*config\.json"):
        read_official(tmp_path)
    write_official(tmp_path, others={"value_head.weight": torch.ones(1)})
    assert is_official(tmp_path)
    with pytest.raises(CheckpointError, match=r"'value_head.weight', which is no tensor of DreamZero"):
        read_official(tmp_path)
    several = transformer() | {"action_encoder.W1.W": torch.ones(2, ACTION_SLOTS, 24)}
    with pytest.raises(CheckpointError, match="2 kinds of robots"):
        read_official(write_official(tmp_path, several, others={}))


def test_a_tensor_too_many_is_named_on_loading(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'blocks.0.gate' is not part of the network"):
        loaded(write_official(tmp_path, transformer() | {"blocks.0.gate": torch.ones(1)}))
