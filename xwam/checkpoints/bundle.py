"""A whole model from disk: our layout, the released container, folders of Wan and of diffusers.

In: a path, or an id on the hub. Out: a `Bundle` ready for inference; errors name the wrong file or tensor.
Read next: `metadata.py` for configurations, `released.py` and `wan.py` for the layouts of others, `fresh.py` for
untrained models, `convert.py` for the command that rewrites a checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from xwam.checkpoints.hub import locate
from xwam.checkpoints.metadata import (
    ADDITIONS_FILE,
    FORMAT,
    MODEL_FILE,
    MODEL_JSON,
    RELEASED_WEIGHTS,
    TEXT_CONFIG,
    CheckpointError,
    read_model,
    read_yaml,
    stated_sizes,
)
from xwam.checkpoints.released import read_container, sizes_of
from xwam.checkpoints.tensors import fill, read_tensors, stored_type, under, without_values, write_tensors
from xwam.checkpoints.wan import (
    load_diffusers_vae,
    load_transformers_umt5,
    load_wan,
    umt5_from_wan,
    umt5_text,
    vae_from_wan,
)
from xwam.codecs.codec import Codec
from xwam.codecs.mosaic import Mosaic
from xwam.codecs.patch_dct import PatchDCT
from xwam.config import PRECISIONS, ModelConfig, ParameterCount, count_parameters
from xwam.families import family_of
from xwam.network.transformer import Trunk, is_exact
from xwam.text.encoders import HashedText, StoredText, TextEncoder

DECODER = "decoder."
"""Prefix of the names of the pixel decoder's weights, in one file with those of the network."""


@runtime_checkable
class Movable(Protocol):
    """A codec or text encoder with weights, which keep their own type."""

    def to(self, device: str | torch.device) -> object:
        """Move the weights in place."""
        ...


class DecoderWeights(NamedTuple):
    """The pixel decoder of a nano model as a checkpoint holds it; `xwam.nano.pixel_decoder` builds it from this.

    Attributes:
        widths: Channels of its layers.
        tensors: Its weights by name.
    """

    widths: tuple[int, ...]
    tensors: Mapping[str, Tensor]


class Bundle(NamedTuple):
    """A whole model: everything that a request needs.

    Attributes:
        model: Its configuration.
        network: A `Trunk` of the model's family; X-WAM's is an `XwamNetwork`.
        codec: Frames to latents.
        text_encoder: Prompts to text tokens.
        decoder: The pixel decoder of a nano model.
    """

    model: ModelConfig
    network: Any
    codec: Codec
    text_encoder: TextEncoder
    decoder: DecoderWeights | None = None

    def to(self, device: str | torch.device, dtype: torch.dtype | None = None) -> Bundle:
        """Return the bundle after moving its weights to a device; the pixel decoder's follow when it is built.

        Args:
            device: For example `cuda`.
            dtype: Type of the network's matrices; None to leave it. The VAE computes in float32 and the text encoder
                in its stored type in any case.
        """
        if dtype is not None:
            self.network.cast(dtype)
        self.network.to(device)
        if torch.device(device).type == "cpu":
            self.network.join_projections()
        for part in (self.codec, self.text_encoder):
            if isinstance(part, Movable):
                part.to(device)
        return self


def dtype_of(name: str) -> torch.dtype:
    """Return the type of that name.

    Raises:
        CheckpointError: If it is not one of `PRECISIONS`.

    Example:
        >>> dtype_of("bfloat16")
        torch.bfloat16
    """
    if name not in PRECISIONS:
        raise CheckpointError(f"The precision must be one of {', '.join(PRECISIONS)}, got '{name}'.")
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def load_bundle(name: str, *, num_heads: int | None = None, tokenizer: str | None = None) -> Bundle:
    """Return the model of a checkpoint.

    Args:
        name: A file or folder of ours, a released experiment, or an id on the hub.
        num_heads: Attention heads of a released network whose heads are not 128 wide, as Wan's are.
        tokenizer: Where the tokenizer of umT5 lies if the checkpoint has none (`find_tokenizer`).

    Raises:
        CheckpointError: Names the file or tensor that is missing, cut off, of the wrong shape or unknown.
    """
    path = locate(name)
    if (path / "config.yaml").is_file():
        return load_released(path, num_heads=num_heads, tokenizer=tokenizer)
    if (path / MODEL_JSON).is_file() and not (path / MODEL_FILE).is_file():
        return load_with_additions(path, tokenizer=tokenizer)
    file = path / MODEL_FILE if path.is_dir() else path
    network, model = load_checkpoint(file)
    text = load_text_encoder(model, path, tokenizer=tokenizer)
    return Bundle(model, network, load_codec(model, path), text, load_decoder(file, model))


def parameter_counts(path: Path) -> Mapping[str, int] | None:
    """Return the numbers of parameters of a checkpoint's network, counted without loading the weights.

    Args:
        path: From `locate`.

    Returns:
        None if only the weights tell and they are not on disk, as after a download of the metadata.

    Raises:
        CheckpointError: If the checkpoint cannot be used.
    """
    if not (path / "config.yaml").is_file():
        model = read_model(path)
        return family_of(model.family).count_parameters(model.network)
    if not (path / RELEASED_WEIGHTS).is_file():
        sizes = stated_sizes(read_yaml(path / "config.yaml"))
        return None if sizes is None else count_parameters(sizes)._asdict()
    counts = dict.fromkeys(ParameterCount._fields, 0)
    for name, weight in read_container(path).network.items():
        counts[_owner(name)] += weight.numel()
    return counts


def num_embeddings(path: Path) -> int | None:
    """Return how many tokens the text encoder of a checkpoint knows, without loading it.

    Args:
        path: From `locate`.

    Returns:
        None if only weights tell that cannot be read here, as after a download of the metadata.
    """
    try:
        if (path / TEXT_CONFIG).is_file():
            return json.loads((path / TEXT_CONFIG).read_text())["vocab_size"]  # type: ignore[no-any-return]
        if (path / RELEASED_WEIGHTS).is_file():
            return len(read_container(path).text_encoder["token_embedding.weight"])
    except (KeyError, TypeError, ValueError):  # loading names what is wrong with the weights
        return None
    return None


def load_checkpoint(path: Path) -> tuple[Trunk, ModelConfig]:
    """Return network and configuration of a safetensors file of ours."""
    model, tensors = read_model(path), read_tensors(path)
    weights = {name: weight for name, weight in tensors.items() if not name.startswith(DECODER)}
    return network_of(model, weights, source=str(path)), model


def load_decoder(path: Path, model: ModelConfig) -> DecoderWeights | None:
    """Return the pixel decoder's weights in a safetensors file of ours; None where its model has none."""
    widths = model.codec.warp_widths
    return None if widths is None else DecoderWeights(widths, under(read_tensors(path), DECODER))


def load_released(folder: Path, *, num_heads: int | None = None, tokenizer: str | None = None) -> Bundle:
    """Return a released experiment; see `load_bundle`."""
    model, container = read_model(folder), read_container(folder)
    stated = stated_sizes(read_yaml(folder / "config.yaml"))
    sizes = sizes_of(
        container.network,
        num_heads=num_heads or (stated.num_heads if stated else None),
        num_blocks=stated.num_blocks if stated else None,
        like=model.network,
    )
    model = replace(model, network=sizes)
    network = network_of(model, container.network, source=str(folder / RELEASED_WEIGHTS))
    codec = vae_from_wan(container.vae, mean=container.vae_mean.flatten(), std=container.vae_std.flatten())
    umt5 = umt5_from_wan(container.text_encoder)
    text = umt5_text(umt5, folder, num_tokens=sizes.text_len, tokenizer=tokenizer)
    return Bundle(model, network, codec, text)


def load_with_additions(folder: Path, *, tokenizer: str | None = None) -> Bundle:
    """Return a model whose transformer is in the layout of Wan or diffusers, with X-WAM's additions in another file."""
    model, (_, wan) = read_model(folder), load_wan(folder)
    weights = {**wan, **read_tensors(folder / ADDITIONS_FILE)}
    network = network_of(model, weights, source=str(folder))
    text = load_text_encoder(model, folder, tokenizer=tokenizer)
    return Bundle(model, network, load_codec(model, folder), text)


def save_checkpoint(
    path: Path,
    network: Trunk,
    model: ModelConfig,
    *,
    decoder: DecoderWeights | None = None,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write weights and configuration into one safetensors file, whole or not at all.

    Args:
        path: The file.
        network: The weights, which must fit `model.network`.
        model: The configuration; the widths of the pixel decoder are taken from `decoder`.
        decoder: The pixel decoder; its weights take the type of the network's matrices.
        notes: More texts, for example the hash of the training data.
    """
    widths = None if decoder is None else decoder.widths
    model = replace(model, codec=replace(model.codec, warp_widths=widths))
    metadata = {"format": FORMAT, "model": json.dumps(model.to_json()), "notes": json.dumps(dict(notes or {}))}
    weights = network.state_dict()
    if decoder is not None:
        weights |= {DECODER + name: weight.to(network.dtype) for name, weight in decoder.tensors.items()}
    write_tensors(path, {name: value.contiguous() for name, value in weights.items()}, metadata)


def without_decoder(bundle: Bundle) -> Bundle:
    """Return a bundle without its pixel decoder."""
    model = replace(bundle.model, codec=replace(bundle.model.codec, warp_widths=None))
    return bundle._replace(model=model, decoder=None)


def with_stored_text(bundle: Bundle, folder: Path, *, identity: str) -> Bundle:
    """Return the bundle with encoded prompts stored in a folder.

    Args:
        bundle: The model.
        folder: Folder of encoded prompts.
        identity: Identity of the weights.
    """
    network, encoder = bundle.model.network, bundle.text_encoder
    shape = (network.text_len, network.text_width)
    return bundle._replace(text_encoder=StoredText(folder, identity=identity, make=lambda: encoder, shape=shape))


def network_of(model: ModelConfig, weights: Mapping[str, Tensor], *, source: str) -> Trunk:
    """Return the network of a model with these weights, ready for inference.

    Raises:
        CheckpointError: Names missing, unexpected and misshapen tensors; begins with the source.
    """
    with without_values():
        network = family_of(model.family).build(model.network)
    fill(network, weights, source=source)
    matrices = {name: weight for name, weight in weights.items() if not is_exact(name)}
    return network.cast(stored_type(matrices)).eval().requires_grad_(False)


def load_codec(model: ModelConfig, folder: Path) -> Codec:
    """Return the codec of a model; one with weights is read from the folder of the checkpoint."""
    codec: Codec
    if model.codec.kind == "patch_dct":
        codec = PatchDCT(model.network.latent_channels)
    else:
        codec = load_diffusers_vae(folder / "vae")
    return codec if model.codec.mosaic is None else Mosaic(codec, model.codec.mosaic, len(model.views))


def load_text_encoder(model: ModelConfig, folder: Path, *, tokenizer: str | None = None) -> TextEncoder:
    """Return the text encoder of a model; one with weights is read from the folder of the checkpoint."""
    network = model.network
    if model.text.kind == "hashed":
        return HashedText(num_tokens=network.text_len, width=network.text_width)
    umt5 = load_transformers_umt5(folder / "text_encoder")
    return umt5_text(umt5, folder, num_tokens=network.text_len, tokenizer=tokenizer)


def _owner(name: str) -> str:
    """Return the field of `ParameterCount` that a tensor belongs to."""
    owners = {"view_": "views", "place_": "views", "extra_": "depth"}
    owners |= dict.fromkeys(("action_", "proprio_"), "actions_and_states")
    return next((part for start, part in owners.items() if name.startswith(start)), "wan")
