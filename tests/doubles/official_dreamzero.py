"""Folders in the layout of the official DreamZero weights, at a small size.

In: sizes. Out: `config.json` and safetensors files, with the names and shapes of dreamzero0/dreamzero, commit ab790c1.
Read next: `tests/unit/test_dreamzero_official.py`.

The names were read in CausalWanModel, WanI2VCrossAttention, WANPolicyHead and VLA of the official code; the sizes of
the 5B model are those of its configuration for Wan2.2.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

HEADS, ACTION_SLOTS, STATE_SLOTS, HIDDEN, CLIP = 2, 32, 64, 5, 10


class Sizes(NamedTuple):
    """Sizes of a transformer as the official settings name them."""

    dim: int = 24
    ffn_dim: int = 32
    num_layers: int = 2
    in_dim: int = 48
    out_dim: int = 48
    text_dim: int = 8
    freq_dim: int = 16


SMALL_5B = Sizes()
SMALL_14B = Sizes(in_dim=36, out_dim=16)
"""Of the 36 input channels, 16 are latents, 4 a mask, 16 the first frame's latents."""


def transformer(sizes: Sizes = SMALL_5B, seed: int = 0) -> dict[str, Tensor]:
    """Return the tensors of the transformer under their official names."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.2

    def linear(name: str, inputs: int, outputs: int) -> dict[str, Tensor]:
        return {f"{name}.weight": random(outputs, inputs), f"{name}.bias": random(outputs)}

    def by_robot(name: str, inputs: int, outputs: int) -> dict[str, Tensor]:
        return {f"{name}.W": random(1, inputs, outputs), f"{name}.b": random(1, outputs)}

    d = sizes.dim
    tensors = by_robot("state_encoder.layer1", STATE_SLOTS, HIDDEN) | by_robot("state_encoder.layer2", HIDDEN, d)
    tensors |= by_robot("action_encoder.W1", ACTION_SLOTS, d) | by_robot("action_encoder.W2", 2 * d, d)
    tensors |= by_robot("action_encoder.W3", d, d) | by_robot("action_decoder.layer1", d, HIDDEN)
    tensors |= by_robot("action_decoder.layer2", HIDDEN, ACTION_SLOTS)
    tensors |= {"patch_embedding.weight": random(d, sizes.in_dim, 1, 2, 2), "patch_embedding.bias": random(d)}
    tensors |= linear("text_embedding.0", sizes.text_dim, d) | linear("text_embedding.2", d, d)
    tensors |= linear("time_embedding.0", sizes.freq_dim, d) | linear("time_embedding.2", d, d)
    tensors |= linear("time_projection.1", d, 6 * d) | linear("head.head", d, 4 * sizes.out_dim)
    tensors |= {"head.modulation": random(1, 2, d)}
    for layer in range(sizes.num_layers):
        block = f"blocks.{layer}"
        for attention, more in (("self_attn", ()), ("cross_attn", ("k_img", "v_img"))):
            for name in ("q", "k", "v", "o", *more):
                tensors |= linear(f"{block}.{attention}.{name}", d, d)
            for name in ("norm_q", "norm_k", *(["norm_k_img"] if more else [])):
                tensors[f"{block}.{attention}.{name}.weight"] = random(d)
        tensors |= {f"{block}.norm3.weight": random(d), f"{block}.norm3.bias": random(d)}
        tensors |= linear(f"{block}.ffn.0", d, sizes.ffn_dim) | linear(f"{block}.ffn.2", sizes.ffn_dim, d)
        tensors[f"{block}.modulation"] = random(1, 6, d)
    for index in (0, 4):
        size = CLIP if index == 0 else d
        tensors |= {f"img_emb.proj.{index}.weight": random(size), f"img_emb.proj.{index}.bias": random(size)}
    return tensors | linear("img_emb.proj.1", CLIP, CLIP) | linear("img_emb.proj.3", CLIP, d)


def other_parts() -> dict[str, Tensor]:
    """Return some tensors of umT5, VAE and CLIP under their official names."""
    return {
        "action_head.text_encoder.token_embedding.weight": torch.ones(5, 8),
        "action_head.text_encoder.norm.weight": torch.ones(8),
        "action_head.vae.model.conv2.weight": torch.ones(48, 48, 1, 1, 1),
        "action_head.image_encoder.model.visual.patch_embedding.weight": torch.ones(7, 3, 2, 2),
        "action_head.image_encoder.model.log_scale": torch.ones(()),
    }


def adapted(tensors: Mapping[str, Tensor], *, rank: int = 3) -> dict[str, Tensor]:
    """Return a transformer as peft names it after a training with low-rank adapters of the queries."""
    generator = torch.Generator().manual_seed(7)
    result = {}
    for name, value in tensors.items():
        layer, _, kind = name.rpartition(".")
        if not layer.endswith("self_attn.q"):
            result[name] = value
            continue
        result[f"{layer}.base_layer.{kind}"] = value
        if kind == "weight":
            result[f"{layer}.lora_A.default.weight"] = torch.randn(rank, value.shape[1], generator=generator)
            result[f"{layer}.lora_B.default.weight"] = torch.randn(value.shape[0], rank, generator=generator)
    return {f"base_model.model.{name}": value for name, value in result.items()}


def settings(sizes: Sizes = SMALL_5B, **changes: Any) -> dict[str, Any]:
    """Return the content of `config.json`."""
    model = {
        "_target_": "groot.vla.model.dreamzero.modules.wan_video_dit_action_casual_chunk.CausalWanModel",
        "model_type": "ti2v" if sizes.in_dim == sizes.out_dim else "i2v",
        **sizes._asdict(),
        "num_heads": HEADS,
        "eps": 1e-6,
        "max_chunk_size": 4,
        "num_frame_per_block": 2,
        "num_action_per_block": 24,
        "num_state_per_block": 1,
    }
    head = {"lora_rank": 3, "lora_alpha": 6, "action_dim": ACTION_SLOTS, "diffusion_model_cfg": model | changes}
    return {"model_type": "vla", "action_horizon": 24, "action_head_cfg": {"_target_": "WANPolicyHead", "config": head}}


def write_official(
    folder: Path,
    network: Mapping[str, Tensor] | None = None,
    *,
    sizes: Sizes = SMALL_5B,
    others: Mapping[str, Tensor] | None = None,
    shards: int = 3,
    **changes: Any,
) -> Path:
    """Write a folder of several shards with an index, as transformers' `save_pretrained` does; one file for 1 shard."""
    network = transformer(sizes) if network is None else network
    tensors = {f"action_head.model.{name}": value.contiguous() for name, value in network.items()}
    tensors |= other_parts() if others is None else others
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(settings(sizes, **changes)))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    files = [f"model-{index + 1:05}-of-{shards:05}.safetensors" for index in range(shards)]
    where = {name: files[index % shards] for index, name in enumerate(sorted(tensors))}
    for file in files:
        save_file({name: value for name, value in tensors.items() if where[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder
