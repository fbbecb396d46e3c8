"""Small models and inputs with known outputs, in the layout of the released code's reference values.

In: a folder of safetensors files, `tools/gpu_check/goldens` or one of reference values of the released code. Out: for
each part of X-WAM, what it gives on a device next to what it should give.
Read next: `parity.py`, which compares; `make_goldens.py`, which writes `goldens`.

A folder of the released code holds the weights; `goldens` does not: they are drawn with numpy's `RandomState`, whose
numbers no later numpy changes, and depend on the name of each tensor.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from xwam.checkpoints.tensors import fill
from xwam.checkpoints.wan import umt5_from_wan, vae_from_wan
from xwam.codecs.wan_vae import WanVae
from xwam.config import network_from_release
from xwam.flow.losses import Batch, Noise, losses
from xwam.flow.noise import NoiseLevels, shift
from xwam.flow.sampler import Denoiser, Schedule, begin, run
from xwam.network.transformer import Denoised, XwamNetwork, free_timesteps

GOLDENS = Path(__file__).with_name("goldens")
MODALITIES = ("video", "actions", "proprios", "depth")
Tensors = dict[str, Tensor]


class Pair(NamedTuple):
    """A result and what it should be."""

    item: str
    found: Tensor
    expected: Tensor


def settings_of(path: Path) -> dict[str, Any]:
    """Return the settings in a file's metadata, which hold JSON."""
    with safe_open(path, "pt") as file:
        texts = file.metadata() or {}
    return {name: json.loads(text) for name, text in texts.items() if text[:1] in '{["0123456789'}


def seeded(shape: tuple[int, ...], name: str) -> Tensor:
    """Return standard normal numbers that depend on the name, float32."""
    return torch.from_numpy(np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32))


def with_seeded_weights(module: nn.Module) -> nn.Module:
    """Return a module, built on the meta device, with weights of a size at which signals keep their scale."""
    weights: Tensors = {}
    for name, tensor in module.state_dict().items():
        drawn = seeded(tuple(tensor.shape), name)
        if tensor.dim() > 1 and not name.endswith("gamma"):
            weights[name] = drawn / math.sqrt(drawn[0].numel())
        else:
            weights[name] = 0.1 * drawn + float(name.endswith(("weight", "gamma")))
    module.load_state_dict(weights, strict=True, assign=True)
    return module.eval().requires_grad_(False)


# ---- models


def network_of(folder: Path) -> XwamNetwork:
    """Return the network of a folder, float32 on the CPU."""
    stored = folder / "dit_weights.safetensors"
    path = stored if stored.is_file() else folder / "dit_forward.safetensors"
    with torch.device("meta"):
        network = XwamNetwork(network_from_release(settings_of(path)["config"]))
    if not stored.is_file():
        with_seeded_weights(network)
        return network
    fill(network, load_file(stored), source=stored.name)
    return network.eval().requires_grad_(False)


def vae_of(folder: Path) -> WanVae:
    """Return the VAE of a folder; needs diffusers."""
    path, stored = folder / "vae22_forward.safetensors", folder / "vae22_weights.safetensors"
    if stored.is_file():
        data = load_file(path)
        return vae_from_wan(load_file(stored), mean=data["mean"], std=data["std"])
    return wan_vae(settings_of(path)["config"])


def wan_vae(config: Mapping[str, Any]) -> WanVae:
    """Return a VAE of these sizes with seeded weights; needs diffusers."""
    from diffusers import AutoencoderKLWan

    with torch.device("meta"):
        vae: Any = AutoencoderKLWan(**config)
    return WanVae(with_seeded_weights(vae))


def umt5_of(folder: Path) -> Any:
    """Return the text encoder of a folder; needs transformers."""
    stored = folder / "t5_weights.safetensors"
    if stored.is_file():
        return umt5_from_wan(load_file(stored))
    return umt5(settings_of(folder / "t5_forward.safetensors")["config"])


def umt5(config: Mapping[str, Any]) -> Any:
    """Return a umT5 encoder of these sizes with seeded weights; needs transformers."""
    from transformers import UMT5Config, UMT5EncoderModel

    with torch.device("meta"):
        model = UMT5EncoderModel(UMT5Config(**config))
    return with_seeded_weights(model)


# ---- what they give


def network_forward(model: Denoiser, data: Tensors, encode: Callable[[Tensor], Any]) -> Tensors:
    """Return one pass with the depth branch, under the names of the file's outputs."""
    out = one_pass(model, data, encode(data["context"]), depth=True)
    return {f"out_{name}": part for name, part in zip(MODALITIES, out, strict=True) if part is not None}


def one_pass(model: Denoiser, data: Tensors, text: Any, *, depth: bool) -> Denoised:
    """Return one pass of a network, with a timestep of its own for each latent frame, action and state."""
    geometry = model.geometry(data["video"], data["actions"].shape[1], data["proprios"].shape[1])
    t_action_BK = data["t_actions"][:, None].expand(-1, geometry.num_actions)
    times = free_timesteps(data["t_video"], t_action_BK, data["t_proprios"], geometry)
    return model(data["video"], data["actions"], data["proprios"], times, text, depth=depth)


def denoised(
    model: Denoiser, data: Tensors, runs: Mapping[str, Mapping[str, Any]], encode: Callable[[Tensor], Any]
) -> Tensors:
    """Return the end of every run of the whole denoising loop."""
    found: Tensors = {}
    for name, steps in runs.items():
        state = begin(
            Schedule(num_video_steps=steps["video_steps"], num_action_steps=steps["action_steps"]),
            noise_video_BCTVHW=data["noise_video"],
            noise_action_BKA=data["noise_actions"],
            noise_proprio_BPS=data["noise_proprios"],
            seen_latent_BCVHW=data["cond_latents"][:, :, 0],
            seen_proprio_BS=data["cond_proprios"][:, 0],
            text=encode(data["context"]),
        )
        state = run(model, state, stop_after_actions=bool(steps.get("stop_after_actions")))
        ends = (state.video.x, state.action.x, state.proprio.x, state.depth_BCTVHW)
        found |= {f"{name}_{part}": end for part, end in zip(MODALITIES, ends, strict=True) if end is not None}
    return found


def training_losses(model: Any, data: Tensors, encode: Callable[[Tensor], Any]) -> Tensors:
    """Return the losses of one training step with every random draw given."""
    batch = Batch(
        video_BCTVHW=data["latents"],
        depth_BCTVHW=data["depth_latents"],
        action_BKA=data["actions"],
        proprio_BPS=data["proprios"],
        action_mask_BKA=data["action_mask"],
        proprio_mask_BPS=data["proprio_mask"],
        executed_BKA=data["actions"],
    )
    noise = Noise(data["noise_video"], data["noise_actions"], data["noise_proprios"])
    sigma_video, sigma_action = (shift(data[f"t_{name}_unshifted"]) for name in ("video", "action"))
    levels = NoiseLevels(sigma_video, sigma_action, data["clean_action"].bool())
    found = losses(model, batch, noise, levels, encode(data["context"]))
    return {f"loss_{name}": value for name, value in found._asdict().items()} | {"loss": found.total}
