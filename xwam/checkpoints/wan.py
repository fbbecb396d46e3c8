"""Folders of Wan2.2, its own and those of diffusers: transformer, VAE and text encoder.

In: a folder, or tensors under Wan's names. Out: tensors under Wan's names, a `WanVae`, a `UmT5Text`.
Read next: `tensor_names.py` for the names, `bundle.py` for the caller.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from xwam.checkpoints.metadata import CheckpointError
from xwam.checkpoints.tensor_names import diffusers_vae_name, is_diffusers_dit, transformers_umt5_name, wan_dit_name
from xwam.checkpoints.tensors import fill, read_tensors, stored_type
from xwam.checkpoints.tokenizer import find_tokenizer, load_tokenizer
from xwam.codecs.wan_vae import VAE_TYPE, WanVae
from xwam.config import NetworkConfig, network_from_release
from xwam.text.umt5 import UmT5Text

# fmt: off
LATENT_MEAN = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
    0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
    -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
    -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)
"""Mean of each latent channel of the published Wan2.2 VAE, whose file does not contain it."""

LATENT_STD = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
    0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
    0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)
"""Standard deviation of each latent channel."""
# fmt: on


def load_wan(folder: Path) -> tuple[NetworkConfig, dict[str, Tensor]]:
    """Return sizes and tensors (Wan's names) of a Wan2.2 transformer, from Wan's own folder or one of diffusers.

    Raises:
        CheckpointError: If the folder holds neither.
    """
    for subfolder in (folder, folder / "transformer"):
        for file in ("diffusion_pytorch_model.safetensors.index.json", "diffusion_pytorch_model.safetensors"):
            if (subfolder / file).is_file() and (subfolder / "config.json").is_file():
                settings = json.loads((subfolder / "config.json").read_text())
                weights = read_tensors(subfolder / file)
                if is_diffusers_dit(weights):
                    return _diffusers_sizes(settings), {wan_dit_name(name): t for name, t in weights.items()}
                return network_from_release(settings), weights
    raise CheckpointError(f"{folder} holds no transformer: neither Wan's files nor 'transformer' of diffusers.")


def load_wan_vae(folder: Path) -> WanVae:
    """Return the VAE of a Wan2.2 folder: `Wan2.2_VAE.pth`, or `vae/` of diffusers."""
    if (folder / "Wan2.2_VAE.pth").is_file():
        return vae_from_wan(read_tensors(folder / "Wan2.2_VAE.pth"))
    return load_diffusers_vae(folder / "vae")


def load_wan_text(folder: Path, *, num_tokens: int, tokenizer: str | None = None) -> UmT5Text:
    """Return the text encoder of a Wan2.2 folder: `models_t5_*.pth`, or `text_encoder/` of transformers."""
    originals = sorted(folder.glob("models_t5_*.pth"))
    model = umt5_from_wan(read_tensors(originals[0])) if originals else load_transformers_umt5(folder / "text_encoder")
    return umt5_text(model, folder, num_tokens=num_tokens, tokenizer=tokenizer)


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


def umt5_text(model: Any, folder: Path, *, num_tokens: int, tokenizer: str | None = None) -> UmT5Text:
    """Return a text encoder with its tokenizer, if the folder of the checkpoint or the setting gives one.

    Args:
        model: transformers' encoder.
        folder: The folder of the checkpoint.
        num_tokens: Text places.
        tokenizer: See `find_tokenizer`; only read if the checkpoint has none.
    """
    found = find_tokenizer(folder, tokenizer)
    loaded = None if found is None else load_tokenizer(found, num_embeddings=model.config.vocab_size)
    return UmT5Text(model, loaded, num_tokens=num_tokens)


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


def vae_config(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of `AutoencoderKLWan` for weights under Wan's names, from their shapes.

    Raises:
        CheckpointError: If the tensors are not those of a Wan2.2 VAE.
    """
    try:
        base = weights["encoder.conv1.weight"].shape[0]
        stages = _stages(weights)
        widths = [weights[f"{stage}.downsamples.0.residual.2.weight"].shape[0] for stage in stages]
        blocks = sum(f"{stages[0]}.downsamples.{index}.residual.0.gamma" in weights for index in range(99))
        return {
            "base_dim": base,
            "decoder_base_dim": weights["decoder.head.0.gamma"].shape[0],
            "z_dim": weights["conv2.weight"].shape[0],
            "dim_mult": [width // base for width in widths],
            "num_res_blocks": blocks,
            "temperal_downsample": [f"{s}.downsamples.{blocks}.time_conv.weight" in weights for s in stages[:-1]],
            "is_residual": True,
            "in_channels": weights["encoder.conv1.weight"].shape[1],
            "out_channels": weights["decoder.head.2.weight"].shape[0],
            "patch_size": 2,
            "scale_factor_spatial": 2 ** len(stages),
        }
    except KeyError as error:
        raise CheckpointError(f"These are not the weights of a Wan2.2 VAE: {error} is missing.") from error


def vae_from_wan(weights: Mapping[str, Tensor], *, mean: Tensor | None = None, std: Tensor | None = None) -> WanVae:
    """Return the codec of weights under Wan's names.

    Args:
        weights: The content of `Wan2.2_VAE.pth`, or of `vae.model.*` in the released container.
        mean: Mean of each latent channel; None for the published one.
        std: Standard deviation of each latent channel; None for the published one.
    """
    from diffusers import AutoencoderKLWan

    config = vae_config(weights)
    config["latents_mean"] = list(LATENT_MEAN) if mean is None else mean.float().tolist()
    config["latents_std"] = list(LATENT_STD) if std is None else std.float().tolist()
    for name, values in (("mean", config["latents_mean"]), ("std", config["latents_std"])):
        if len(values) != config["z_dim"]:
            raise CheckpointError(
                f"The VAE has {config['z_dim']} latent channels, its 'vae.{name}' holds {len(values)} numbers."
            )
    with torch.device("meta"):
        vae: Any = AutoencoderKLWan(**config)
    renamed = {diffusers_vae_name(name): value for name, value in weights.items()}
    fill(vae, renamed, source="The weights of the VAE")
    return WanVae(nn.Module.to(vae.eval(), VAE_TYPE).requires_grad_(False))


def _stages(weights: Mapping[str, Tensor]) -> list[str]:
    names = sorted({name.rsplit(".downsamples.", 1)[0] for name in weights if name.count(".downsamples.") == 2})
    if not names:
        raise CheckpointError("These are not the weights of a Wan2.2 VAE: there is no 'encoder.downsamples.0'.")
    return names


def umt5_config(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of `UMT5Config` for weights under Wan's names, from their shapes.

    Raises:
        CheckpointError: If the tensors are not those of umT5.
    """
    try:
        vocab, width = weights["token_embedding.weight"].shape
        buckets, heads = weights["blocks.0.pos_embedding.embedding.weight"].shape
        return {
            "vocab_size": vocab,
            "d_model": width,
            "d_kv": weights["blocks.0.attn.q.weight"].shape[0] // heads,
            "d_ff": weights["blocks.0.ffn.fc1.weight"].shape[0],
            "num_heads": heads,
            "num_layers": sum(name.endswith(".norm1.weight") for name in weights),
            "relative_attention_num_buckets": buckets,
            "relative_attention_max_distance": 128,
            "feed_forward_proj": "gated-gelu",
            "dropout_rate": 0.0,
        }
    except KeyError as error:
        raise CheckpointError(f"These are not the weights of Wan's umT5: {error} is missing.") from error


def umt5_from_wan(weights: Mapping[str, Tensor]) -> Any:
    """Return transformers' encoder holding weights under Wan's names."""
    from transformers import UMT5Config, UMT5EncoderModel

    with torch.device("meta"):
        model = UMT5EncoderModel(UMT5Config(**umt5_config(weights)))
    renamed = {transformers_umt5_name(name): value for name, value in weights.items()}
    renamed["encoder.embed_tokens.weight"] = renamed["shared.weight"]
    fill(model, renamed, source="The weights of the text encoder")
    model = model.eval().requires_grad_(False)
    return cast(nn.Module, model).to(stored_type(weights))
