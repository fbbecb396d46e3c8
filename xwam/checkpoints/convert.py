"""Conversion of a checkpoint into another layout: ours, the released container, a folder of Wan or of diffusers.

In: a `Bundle`, a folder. Out: files, which give the same numbers when read again.
Read next: `xwam/cli/checkpoints.py` for the verb, `bundle.py` for the readers.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from xwam.checkpoints.bundle import Bundle, save_checkpoint, without_decoder
from xwam.checkpoints.fresh import start_from_wan
from xwam.checkpoints.metadata import (
    ADDITIONS_FILE,
    MODEL_FILE,
    MODEL_JSON,
    RELEASED_WEIGHTS,
    CheckpointError,
    start_model,
)
from xwam.checkpoints.tensor_names import diffusers_dit_name, is_addition, wan_umt5_name, wan_vae_name
from xwam.checkpoints.wan import load_wan, load_wan_text, load_wan_vae
from xwam.codecs.mosaic import Mosaic
from xwam.codecs.wan_vae import WanVae
from xwam.config import ModelConfig, NetworkConfig, release_from_network
from xwam.families import OWN
from xwam.robots.actions import statistics_from_bounds
from xwam.text.umt5 import UmT5Text


def write(bundle: Bundle, target: Path, layout: str, *, notes: Mapping[str, str] | None = None) -> None:
    """Write a model in a layout; the folder appears whole or not at all.

    Args:
        bundle: The model.
        target: A folder that does not exist yet.
        layout: `ours`, or a key of `WRITERS`.
        notes: Notes of training; only our own layout has a place for them.

    Raises:
        CheckpointError: If the target exists, or the model does not fit the layout or the disk.
    """
    if target.exists():
        raise CheckpointError(f"{target} exists already; give a folder that does not.")
    if layout != "ours" and bundle.model.family != OWN:
        raise CheckpointError(
            f"{bundle.model.name} is of the family '{bundle.model.family}', for which only the layout 'ours' exists."
        )
    partial = target.with_name(f"{target.name}.partial")
    if partial.exists():
        raise CheckpointError(
            f"{partial} belongs to a conversion that was interrupted or is still running; remove it first."
        )
    try:
        partial.mkdir(parents=True)
        if layout == "ours":
            write_ours(bundle, partial, notes=notes)
        else:
            WRITERS[layout](bundle, partial)
        partial.rename(target)
    except (OSError, RuntimeError, SafetensorError) as error:  # the writers report a full disk with the latter two
        raise CheckpointError(f"{target} could not be written: {str(error).splitlines()[0]}.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_ours(bundle: Bundle, folder: Path, *, notes: Mapping[str, str] | None = None) -> None:
    """Write `model.safetensors`, with VAE and text encoder in the layouts of diffusers and transformers."""
    save_checkpoint(folder / MODEL_FILE, bundle.network, bundle.model, decoder=bundle.decoder, notes=notes)
    (folder / MODEL_JSON).write_text(json.dumps(bundle.model.to_json(), indent=2))
    _write_parts(bundle, folder)


def averaged(first: Bundle, second: Bundle, *, share: float, second_only: Sequence[str] = ()) -> Bundle:
    """Return the weighted average of two networks, with the configuration of the second, in float32, without a decoder.

    If the second was fine-tuned from the first, the average keeps more abilities of both (Wortsman et al. 2022,
    arXiv 2109.01903).

    Args:
        first: A network, for example before a fine-tuning.
        second: Another of the same sizes, for example after it.
        share: Weight of the second network, 0 to 1.
        second_only: Weights whose names start with one of these are taken from the second, which is needed if their
            meaning has changed.

    Raises:
        CheckpointError: If the share is not in 0 to 1, or weights of the two differ in name or size.
    """
    if not 0 <= share <= 1:
        raise CheckpointError(f"The share of the second network must lie between 0 and 1, got {share}.")
    one, two = first.network.state_dict(), second.network.state_dict()
    sizes = [{name: tuple(weight.shape) for name, weight in weights.items()} for weights in (one, two)]
    different = sorted(set(sizes[0].items()) ^ set(sizes[1].items()))
    if different:
        raise CheckpointError(f"The two networks cannot be averaged: only one has {different[0]}.")
    second = without_decoder(second)
    second.network.cast(torch.float32)
    start = tuple(second_only)
    second.network.load_state_dict(
        {
            name: weight.float()
            if start and name.startswith(start)
            else torch.lerp(one[name].float(), weight.float(), share)
            for name, weight in two.items()
        }
    )
    return second


def write_released(bundle: Bundle, folder: Path) -> None:
    """Write `config.yaml` and the container of a released experiment.

    Raises:
        CheckpointError: If the model has no Wan VAE and no umT5, which the container needs.
    """
    import yaml

    _refuse_denoised_depth(bundle.model)
    network = bundle.model.network
    if (network.video_prediction, network.proprio_prediction) != ("velocity", "velocity"):
        raise CheckpointError(
            f"{bundle.model.name} predicts clean video or changes of states, which no released model does; use "
            "`--to ours`."
        )
    vae, text = _wan_parts(bundle)
    num_res_blocks = vae.vae.config.num_res_blocks
    module: dict[str, Tensor] = {f"model.{name}": value for name, value in bundle.network.state_dict().items()}
    module |= {
        "vae.mean": torch.tensor(vae.vae.config.latents_mean),
        "vae.std": torch.tensor(vae.vae.config.latents_std),
    }
    for name, value in vae.vae.state_dict().items():
        module[f"vae.model.{wan_vae_name(name, num_res_blocks=num_res_blocks)}"] = value
    for name, value in text.model.state_dict().items():
        if name != "encoder.embed_tokens.weight":  # the same tensor as shared.weight
            module[f"text_encoder.model.{wan_umt5_name(name)}"] = value
    path = folder / RELEASED_WEIGHTS
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"module": module, "global_steps": 0}, path)
    (folder / "config.yaml").write_text(yaml.safe_dump(_release_settings(bundle.model), sort_keys=False))
    _write_tokenizer(text, folder)


def write_wan(bundle: Bundle, folder: Path) -> None:
    """Write Wan's part of the network under Wan's names, and X-WAM's additions in another file."""
    _write_network(bundle, folder, rename=lambda name: name, settings=release_from_network(bundle.model.network))
    _write_parts(bundle, folder)


def write_diffusers(bundle: Bundle, folder: Path) -> None:
    """Write a folder that diffusers' `WanTransformer3DModel` reads, and X-WAM's additions in another file."""
    settings = diffusers_settings(bundle.model.network)
    _write_network(bundle, folder, rename=diffusers_dit_name, settings=settings, inside="transformer")
    _write_parts(bundle, folder)


WRITERS: dict[str, Callable[[Bundle, Path], None]] = {
    "released": write_released,
    "wan": write_wan,
    "diffusers": write_diffusers,
}
"""Writers of the layouts of others."""


def from_wan(
    folder: Path,
    *,
    bench: str,
    statistics: Mapping[str, Any],
    num_depth_blocks: int = 10,
    tokenizer: str | None = None,
) -> Bundle:
    """Return a model to be fine-tuned, from the video model (a folder of Wan or of diffusers).

    Args:
        folder: Wan2.2-TI2V-5B.
        bench: `robocasa` or `robotwin`.
        statistics: Quantiles of its data, in the released layout.
        num_depth_blocks: M, blocks copied for depth.
        tokenizer: Where umT5's tokenizer lies if the folder holds none (`find_tokenizer`).
    """
    sizes, weights = load_wan(folder)
    sizes = replace(sizes, depth="interleaved" if num_depth_blocks else "none")
    model = start_model(sizes, bench=bench, statistics=statistics, num_depth_blocks=num_depth_blocks)
    model = replace(model, depth_known=False)  # the map becomes that of the training data
    network = start_from_wan(model.network, weights)
    text = load_wan_text(folder, num_tokens=model.network.text_len, tokenizer=tokenizer)
    return Bundle(model, network, load_wan_vae(folder), text)


def diffusers_settings(config: NetworkConfig) -> dict[str, Any]:
    """Return the `config.json` from which diffusers builds the same transformer."""
    return {
        "_class_name": "WanTransformer3DModel",
        "patch_size": [1, *config.patch_hw],
        "num_attention_heads": config.num_heads,
        "attention_head_dim": config.head_width,
        "in_channels": config.latent_channels,
        "out_channels": config.latent_channels,
        "text_dim": config.text_width,
        "freq_dim": config.time_width,
        "ffn_dim": config.ffn_width,
        "num_layers": config.num_blocks,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "eps": config.eps,
        "rope_max_seq_len": 1024,
    }


def _write_network(
    bundle: Bundle, folder: Path, *, rename: Callable[[str], str], settings: Mapping[str, Any], inside: str = ""
) -> None:
    _refuse_denoised_depth(bundle.model)
    weights = bundle.network.state_dict()
    added = {name: value.contiguous() for name, value in weights.items() if is_addition(name)}
    wan = {rename(name): value.contiguous() for name, value in weights.items() if name not in added}
    target = folder / inside
    target.mkdir(parents=True, exist_ok=True)
    save_file(wan, target / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    (target / "config.json").write_text(json.dumps(settings, indent=2))
    save_file(added, folder / ADDITIONS_FILE, {"format": "pt"})
    (folder / MODEL_JSON).write_text(json.dumps(without_decoder(bundle).model.to_json(), indent=2))


def _refuse_denoised_depth(model: ModelConfig) -> None:
    if model.network.depth in ("sequence", "channel"):
        raise CheckpointError(
            f"A network with depth by {model.network.depth} does not fit a layout of Wan; use `--to ours`."
        )


def _write_parts(bundle: Bundle, folder: Path) -> None:
    """Write VAE, text encoder and tokenizer, if the model has them."""
    codec = bundle.codec.codec if isinstance(bundle.codec, Mosaic) else bundle.codec
    if isinstance(codec, WanVae):
        codec.vae.save_pretrained(folder / "vae")
    if isinstance(bundle.text_encoder, UmT5Text):
        bundle.text_encoder.model.save_pretrained(folder / "text_encoder")
        _write_tokenizer(bundle.text_encoder, folder)


def _write_tokenizer(text: UmT5Text, folder: Path) -> None:
    if text.tokenizer is not None:
        text.tokenizer.save_pretrained(folder / "tokenizer")


def _wan_parts(bundle: Bundle) -> tuple[WanVae, UmT5Text]:
    if not isinstance(bundle.codec, WanVae) or not isinstance(bundle.text_encoder, UmT5Text):
        raise CheckpointError(
            f"The released container holds a Wan VAE and umT5; '{bundle.model.name}' has the codec "
            f"'{bundle.model.codec.kind}' and the text encoder '{bundle.model.text.kind}'."
        )
    return bundle.codec, bundle.text_encoder


def _release_settings(model: ModelConfig) -> dict[str, Any]:
    """Return the part of a released `config.yaml` that describes the weights.

    `network`, `execute_steps` and `depth_range` are our additions; the authors' files do not have them.
    """
    settings: dict[str, Any] = {
        "exp_name": model.name,
        "text_len": model.network.text_len,
        "num_extra_layers": model.network.num_depth_blocks,
        "use_depth": model.network.depth == "interleaved",
        "action_dim": model.network.action_dim,
        "proprio_dim": model.network.proprio_dim,
        "sample_steps": model.num_video_steps,
        "use_decoupled_inference": model.num_action_steps != model.num_video_steps,
        "action_denoise_steps": model.num_action_steps,
        "execute_steps": model.execute_steps,
        "network": release_from_network(model.network),
        "dataset": {
            "dataset_path": f"./{model.bench}/",
            "sequence_length": model.num_future_frames + 1,
            "frame_skip": model.frame_stride,
            "action_skip": model.num_future_frames * model.frame_stride // model.num_actions,
            "video_size": list(model.image_hw_px),
            "statistics": statistics_from_bounds(model.bounds, model.arms),
        },
    }
    return settings | ({"depth_range": asdict(model.depth_range)} if model.depth_known else {})
