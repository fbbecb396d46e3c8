"""The stage that times the VAE and the text encoder at the released size, with random weights.

In: a device; diffusers, transformers. Out: milliseconds to encode and decode a clip, and to encode a prompt.
Read next: `xwam/codecs/wan_vae.py`, `xwam/text/umt5.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from gpu_check.running import Report
from gpu_check.standins import is_installed
from gpu_check.timing import fastest, free_gib, peak_gib, reset_peak
from xwam.checkpoints.wan import LATENT_MEAN, LATENT_STD
from xwam.codecs.wan_vae import VAE_TYPE, WanVae
from xwam.text.umt5 import encode_ids

WAN22_VAE: dict[str, Any] = {
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "temperal_downsample": [False, True, True],
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_spatial": 16,
    "latents_mean": list(LATENT_MEAN),
    "latents_std": list(LATENT_STD),
}
"""Arguments of diffusers' `AutoencoderKLWan` for the VAE of Wan2.2-TI2V-5B."""

UMT5_XXL: dict[str, Any] = {
    "vocab_size": 256384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_heads": 64,
    "num_layers": 24,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "feed_forward_proj": "gated-gelu",
    "dropout_rate": 0.0,
}
"""Arguments of transformers' `UMT5Config` for umT5-XXL."""

SMALL_VAE = {"base_dim": 8, "decoder_base_dim": 8}
SMALL_UMT5 = {"vocab_size": 64, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_heads": 4, "num_layers": 2}
VIEWS, FRAMES, PLACES = 3, 9, 512


@torch.inference_mode()
def codecs(report: Report) -> None:
    """Time both parts that are installed."""
    for package, what, work in (("diffusers", "the VAE", _vae), ("transformers", "umT5", _umt5)):
        if not is_installed(package):
            report.missing(package, what)
        else:
            work(report)


def _full(report: Report) -> bool:
    return report.settings.on_gpu and not report.settings.quick


def _random(build: Callable[[], Any], device: torch.device, kind: torch.dtype) -> Any:
    """Return a module with random weights, built on the device."""
    with torch.device("meta"):
        module: nn.Module = build()
    module = module.to(kind).to_empty(device=device)
    for weight in module.parameters():
        weight.normal_(0, 0.02)
    return module.eval().requires_grad_(False)


def _vae(report: Report) -> None:
    from diffusers import AutoencoderKLWan

    device = torch.device(report.settings.device)
    config = WAN22_VAE if _full(report) else WAN22_VAE | SMALL_VAE
    height, width = (256, 320) if _full(report) else (32, 48)
    reset_peak(device)
    vae = WanVae(_random(lambda: AutoencoderKLWan(**config), device, VAE_TYPE))
    video = torch.tanh(torch.randn(VIEWS, 3, FRAMES, height, width, device=device))
    latents = vae.encode(video)
    rounds = 3 if _full(report) else 1
    works = {"encode": lambda: vae.encode(video), "encode the present": lambda: vae.encode(video[:, :, :1])}
    for name, work in (works | {"decode": lambda: vae.decode(latents)}).items():
        report.row(part="VAE", work=name, type=str(VAE_TYPE)[6:], ms=1e3 * fastest(work, device, rounds))
    shape = (VIEWS, 48, 1 + FRAMES // 4, height // 16, width // 16)
    report.check("shape of the latents", float(tuple(latents.shape) != shape), 0.0)
    report.fact(vae_clip=f"{VIEWS} views x {FRAMES} frames x {height} x {width}", vae_peak_memory_gib=peak_gib(device))
    report.fact(vae_parameters=sum(weight.numel() for weight in vae.vae.parameters()))


def _umt5(report: Report) -> None:
    from transformers import UMT5Config, UMT5EncoderModel

    device = torch.device(report.settings.device)
    config = UMT5Config(**(UMT5_XXL if _full(report) else UMT5_XXL | SMALL_UMT5))
    free, needed = free_gib(device), 14.0
    if free is not None and free < needed:
        report.left_out("umT5", f"it needs {needed:.0f} GiB, {free:.0f} GiB are free")
        return
    reset_peak(device)
    model = _random(lambda: UMT5EncoderModel(config), device, torch.bfloat16)
    model.set_input_embeddings(model.get_input_embeddings())  # one table for both of its names, as in a checkpoint
    places = torch.arange(PLACES, device=device)[None]
    data = (places % 60 + 1, (places < 20).long())
    found = encode_ids(model, *data)
    report.check("shape of the text tokens", float(tuple(found.shape) != (1, PLACES, config.d_model)), 0.0)
    report.check("text tokens that are not finite", float((~found.isfinite()).sum().item()), 0.0)
    seconds = fastest(lambda: encode_ids(model, *data), device, 3)
    report.row(part="umT5", work=f"prompt of {PLACES} places", type="bfloat16", ms=1e3 * seconds)
    report.fact(umt5_peak_memory_gib=peak_gib(device), umt5_parameters=sum(w.numel() for w in model.parameters()))
