"""Folders of Wan2.2, its own and those of diffusers: transformer, VAE, text encoder and tokenizer.

In: a folder. Out: tensors under Wan's names, a `WanVae`, a `UmT5Text`.
Read next: `tensor_names.py` for the names, `bundle.py` for who asks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from xwam.checkpoints import tensor_names as keys
from xwam.checkpoints.metadata import CheckpointError
from xwam.checkpoints.tensors import fill, read_tensors, stored_type
from xwam.codecs.wan_vae import VAE_TYPE, WanVae, vae_from_wan
from xwam.config import NetworkConfig, network_from_release
from xwam.text.umt5 import UmT5Text, umt5_from_wan


def load_wan(folder: Path) -> tuple[NetworkConfig, dict[str, Tensor]]:
    """Return sizes and tensors (Wan's names) of a Wan2.2 transformer, from Wan's own folder or one of diffusers.

    Raises:
        CheckpointError: If the folder holds neither.
    """
    for place in (folder, folder / "transformer"):
        for file in ("diffusion_pytorch_model.safetensors.index.json", "diffusion_pytorch_model.safetensors"):
            if (place / file).is_file() and (place / "config.json").is_file():
                settings = json.loads((place / "config.json").read_text())
                weights = read_tensors(place / file)
                if keys.is_diffusers_dit(weights):
                    return _diffusers_sizes(settings), {keys.wan_dit_name(name): t for name, t in weights.items()}
                return network_from_release(settings), weights
    raise CheckpointError(f"{folder} holds no transformer: neither Wan's files nor 'transformer' of diffusers.")


def load_wan_vae(folder: Path) -> WanVae:
    """Return the VAE of a Wan2.2 folder: `Wan2.2_VAE.pth`, or `vae/` of diffusers."""
    if (folder / "Wan2.2_VAE.pth").is_file():
        return vae_from_wan(read_tensors(folder / "Wan2.2_VAE.pth"))
    return load_diffusers_vae(folder / "vae")


def load_wan_text(folder: Path, *, num_tokens: int) -> UmT5Text:
    """Return the text encoder of a Wan2.2 folder: `models_t5_*.pth`, or `text_encoder/` of transformers."""
    originals = sorted(folder.glob("models_t5_*.pth"))
    model = umt5_from_wan(read_tensors(originals[0])) if originals else load_transformers_umt5(folder / "text_encoder")
    return UmT5Text(model, load_tokenizer(folder), num_tokens=num_tokens)


def load_diffusers_vae(folder: Path) -> WanVae:
    """Return the VAE of diffusers' folder `vae`."""
    from diffusers import AutoencoderKLWan

    settings = _settings(folder)
    with torch.device("meta"):
        vae: Any = AutoencoderKLWan.from_config(settings)
    fill(vae, read_tensors(folder / "diffusion_pytorch_model.safetensors"), source=str(folder))
    return WanVae(nn.Module.to(vae.eval(), VAE_TYPE).requires_grad_(False))


def load_transformers_umt5(folder: Path) -> Any:
    """Return the encoder of a folder of transformers."""
    from transformers import UMT5Config, UMT5EncoderModel

    settings = _settings(folder)
    with torch.device("meta"):
        model = UMT5EncoderModel(UMT5Config(**settings))
    index = folder / "model.safetensors.index.json"
    weights = read_tensors(index if index.is_file() else folder / "model.safetensors")
    shared = weights.get("shared.weight", weights.get("encoder.embed_tokens.weight"))
    if shared is not None:
        weights |= {"shared.weight": shared, "encoder.embed_tokens.weight": shared}
    fill(model, weights, source=str(folder))
    model = model.eval().requires_grad_(False)
    return cast(nn.Module, model).to(stored_type(weights))


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer beside the weights, or None; its absence matters only to who encodes a new prompt."""
    for place in (folder / "tokenizer", folder / "google" / "umt5-xxl"):
        if place.is_dir():
            from transformers import AutoTokenizer

            return AutoTokenizer.from_pretrained(place)
    return None


def _settings(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"There is no {folder / 'config.json'}, which this model needs.")
    return json.loads((folder / "config.json").read_text())


def _diffusers_sizes(settings: Mapping[str, Any]) -> NetworkConfig:
    return network_from_release(
        {
            "dim": settings["num_attention_heads"] * settings["attention_head_dim"],
            "ffn_dim": settings["ffn_dim"],
            "num_heads": settings["num_attention_heads"],
            "num_layers": settings["num_layers"],
            "in_dim": settings["in_channels"],
            "out_dim": settings["out_channels"],
            "text_dim": settings["text_dim"],
            "freq_dim": settings["freq_dim"],
            "eps": settings["eps"],
            "patch_size": settings["patch_size"],
        }
    )
