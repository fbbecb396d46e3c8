"""The official weights of DreamZero: which of their tensors load into our network, and why the others do not.

In: a folder with `config.json` and `model.safetensors`, or its shards (dreamzero0/dreamzero, commit ab790c1).
Out: sizes, tensors under our names, and every tensor that is left out with its reason.
Read next: `network.py`, which the weights fill; `docs/baselines.md` for what a loaded model can do.

Names begin with the part of the policy that they belong to: `action_head.model.` the transformer,
`action_head.text_encoder.` umT5, `action_head.vae.model.` the VAE, `action_head.image_encoder.` CLIP. Encoders of
actions and states have one set of weights for each kind of robot; the official code builds one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from baselines.dreamzero.config import DreamZeroConfig
from xwam.checkpoints.metadata import CheckpointError
from xwam.checkpoints.tensors import read_tensors, under
from xwam.config import LATENT_STRIDES

CONFIG, WEIGHTS, SHARDS = "config.json", "model.safetensors", "model.safetensors.index.json"

NETWORK, TEXT, VAE, IMAGE = (
    "action_head.model.",
    "action_head.text_encoder.",
    "action_head.vae.model.",
    "action_head.image_encoder.",
)

WAN22_CHANNELS = 48
"""Latent channels of Wan2.2's VAE."""

ADAPTED = "base_model.model."
"""Follows `NETWORK` where the transformer was trained by low-rank adapters (peft)."""

_BY_ROBOT = (
    (r"^state_encoder\.layer1\.", "proprio_encoder.0."),
    (r"^state_encoder\.layer2\.", "proprio_encoder.2."),
    (r"^action_decoder\.layer1\.", "action_decoder.0."),
    (r"^action_decoder\.layer2\.", "action_decoder.2."),
    (r"^action_encoder\.(W[123])\.", r"action_encoder.\1."),
)
"""Layers with one set of weights for each kind of robot: official name to ours."""

CLIP_REASON = (
    "our network has no image branch: it sees the first frame as a clean latent frame. The weights were trained with "
    "that branch, so they are a start for a fine-tuning"
)
FIRST_FRAME_REASON = (
    "our network takes the first frame as a clean latent frame of its own, not as a mask and latents in more channels"
)
VAE_REASON = (
    "it is Wan2.1's, whose latent cells cover 8x8 pixels; the codecs here have the 16x16 of Wan2.2, so this network "
    "loads, but cannot be run on images"
)


class LeftOut(NamedTuple):
    """Tensors that do not load.

    Attributes:
        what: Which they are.
        tensors: How many.
        numbers: How many numbers they hold.
        reason: Why they are left out.
    """

    what: str
    tensors: int
    numbers: int
    reason: str

    def __str__(self) -> str:
        return f"left out: {self.what} ({self.tensors} tensors, {self.numbers:,} numbers): {self.reason}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Official:
    """The content of an official folder.

    Attributes:
        network: Sizes of the transformer.
        weights: Its tensors under our names.
        text_encoder: Tensors of umT5 under Wan's names; empty if the folder has none.
        vae: Tensors of the VAE under Wan's names; empty if the folder has none.
        left_out: Everything else.
    """

    network: DreamZeroConfig
    weights: Mapping[str, Tensor]
    text_encoder: Mapping[str, Tensor]
    vae: Mapping[str, Tensor]
    left_out: tuple[LeftOut, ...]

    @property
    def settings(self) -> Mapping[str, int]:
        """Return the sizes of encoders and decoder, which Wan's transformer does not have."""
        names = ("state_hidden", "action_hidden", "action_slots", "state_slots")
        return {name: getattr(self.network, name) for name in names}


def is_official(folder: Path) -> bool:
    """Return whether a folder is in the layout of the official weights; reads no weights."""
    try:
        return "action_head_cfg" in json.loads((folder / CONFIG).read_text())
    except (OSError, TypeError, ValueError):
        return False


def read_official(folder: Path) -> Official:
    """Return the content of a folder in the official layout.

    Raises:
        CheckpointError: If files are missing, the configuration is another one, or a tensor is unknown.
    """
    settings = _settings(folder)
    tensors = read_tensors(folder / SHARDS if (folder / SHARDS).is_file() else folder / WEIGHTS)
    adapted = under(tensors, NETWORK)
    network = {name.removeprefix(ADAPTED): value for name, value in adapted.items()}
    network = merge_adapters(network, alpha=settings.get("lora_alpha"), source=folder)
    image = {name: value for name, value in network.items() if _is_image_branch(name)}
    weights = {_our_name(name): _our_shape(name, value) for name, value in network.items() if name not in image}
    config = _sizes(settings, weights, source=folder)
    weights, cut = _without_first_frame(weights, config)
    parts = (NETWORK, TEXT, VAE, IMAGE)
    unknown = sorted(name for name in tensors if not name.startswith(parts))
    if unknown:
        raise CheckpointError(f"{folder} holds '{unknown[0]}', which is no tensor of DreamZero.")
    vae = under(tensors, VAE)
    foreign_vae = {} if config.latent_channels == WAN22_CHANNELS else vae
    left_out = [
        _left_out("VAE", foreign_vae, VAE_REASON),
        _left_out("CLIP image encoder", under(tensors, IMAGE), CLIP_REASON),
        _left_out("CLIP image branch of the transformer (img_emb, k_img, v_img, norm_k_img)", image, CLIP_REASON),
        _left_out("input channels of patch_embedding for the first frame", cut, FIRST_FRAME_REASON),
    ]
    return Official(
        network=config,
        weights=weights,
        text_encoder=under(tensors, TEXT),
        vae={} if foreign_vae else vae,
        left_out=tuple(part for part in left_out if part.tensors),
    )


def merge_adapters(network: Mapping[str, Tensor], *, alpha: float | None, source: Path) -> dict[str, Tensor]:
    """Return weights with their low-rank adapters added: W + alpha / rank * B A, as peft computes.

    Args:
        network: Tensors of the transformer; `.base_layer.`, `.lora_A.default.` and `.lora_B.default.` are peft's.
        alpha: The setting `lora_alpha`; only read if there are adapters.
        source: For the message.

    Raises:
        CheckpointError: If there are adapters without the weights that they change, or without `lora_alpha`.
    """
    plain = {name.replace(".base_layer.", "."): value for name, value in network.items() if ".lora_" not in name}
    for name in sorted(name for name in network if ".lora_A." in name):
        target = name.replace(".lora_A.default.", ".")
        if target not in plain:
            raise CheckpointError(
                f"{source} holds the low-rank adapters of a training without the weights that they change "
                f"('{target}' is missing); save it with save_lora_only=false, or merge it into the full weights."
            )
        if alpha is None:
            raise CheckpointError(f"{source / CONFIG} states no lora_alpha, which its low-rank adapters need.")
        down, up = network[name].float(), network[name.replace(".lora_A.", ".lora_B.")].float()
        plain[target] = (plain[target].float() + alpha / len(down) * up @ down).to(plain[target].dtype)
    return plain


def _settings(folder: Path) -> dict[str, Any]:
    """Return the settings of the action head."""
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"There is no {folder / CONFIG}, which official weights of DreamZero come with.")
    try:
        settings = json.loads((folder / CONFIG).read_text())["action_head_cfg"]
        settings = settings.get("config", settings)
        return dict(settings, diffusion_model_cfg=dict(settings["diffusion_model_cfg"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / CONFIG} is not that of an official DreamZero: {error}.") from error


def _sizes(settings: Mapping[str, Any], weights: Mapping[str, Tensor], *, source: Path) -> DreamZeroConfig:
    """Return the sizes of the transformer: those of the tensors, and what they do not tell from the settings."""
    model = settings["diffusion_model_cfg"]
    try:
        width, _, _, *patch = weights["patch_embedding.weight"].shape
        blocks = max(int(name.split(".")[1]) for name in weights if name.startswith("blocks.")) + 1
        channels = len(weights["head.head.weight"]) // (patch[0] * patch[1])
        window, per_block = model.get("max_chunk_size", -1), model.get("num_frame_per_block", 1)
        return DreamZeroConfig(
            width=width,
            ffn_width=len(weights["blocks.0.ffn.0.weight"]),
            num_heads=model["num_heads"],
            num_blocks=blocks,
            latent_channels=channels,
            patch_hw=(patch[0], patch[1]),
            text_width=weights["text_embedding.0.weight"].shape[1],
            text_len=model.get("text_len", 512),
            time_width=weights["time_embedding.0.weight"].shape[1],
            eps=model.get("eps", 1e-6),
            frames_per_latent=LATENT_STRIDES[0],
            latents_per_block=per_block,
            actions_per_block=model.get("num_action_per_block", 32),
            window_blocks=window if window > 0 else 4,
            state_hidden=len(weights["proprio_encoder.0.weight"]),
            action_hidden=len(weights["action_decoder.0.weight"]),
            action_slots=weights["action_encoder.W1.weight"].shape[1],
            state_slots=weights["proprio_encoder.0.weight"].shape[1],
        )
    except KeyError as error:
        raise CheckpointError(f"{source} is not an official DreamZero: {error} is missing.") from error
    except ValueError as error:
        raise CheckpointError(f"{source} cannot be built as DreamZero: {error}") from error


def _our_name(name: str) -> str:
    """Return our name for an official name of a tensor of the transformer.

    Example:
        >>> [_our_name(name) for name in ("state_encoder.layer2.W", "action_encoder.W1.b", "blocks.3.norm3.bias")]
        ['proprio_encoder.2.weight', 'action_encoder.W1.bias', 'blocks.3.norm3.bias']
    """
    for pattern, ours in _BY_ROBOT:
        if re.match(pattern, name):
            return re.sub(pattern, ours, name).removesuffix("W").removesuffix("b") + ("weight", "bias")[name[-1] == "b"]
    return name


def _our_shape(name: str, value: Tensor) -> Tensor:
    """Return a tensor as our network holds it: of a layer by robot, the first robot's, in the order of `nn.Linear`."""
    if not any(re.match(pattern, name) for pattern, _ in _BY_ROBOT):
        return value
    if len(value) != 1:
        raise CheckpointError(
            f"'{name}' holds the weights of {len(value)} kinds of robots; the official code builds 1."
        )
    return value[0].T.contiguous() if name.endswith(".W") else value[0]


def _is_image_branch(name: str) -> bool:
    return name.startswith("img_emb.") or re.search(r"\.cross_attn\.(k_img|v_img|norm_k_img)\.", name) is not None


def _without_first_frame(
    weights: dict[str, Tensor], config: DreamZeroConfig
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights with patches of noisy latents alone, and the channels that were cut off."""
    name, channels = "patch_embedding.weight", config.latent_channels
    if weights[name].shape[1] == channels:
        return weights, {}
    return weights | {name: weights[name][:, :channels].contiguous()}, {name: weights[name][:, channels:]}


def _left_out(what: str, tensors: Mapping[str, Tensor], reason: str) -> LeftOut:
    return LeftOut(what, len(tensors), sum(value.numel() for value in tensors.values()), reason)
