"""The VAE of Wan2.2 as a codec; diffusers does the work.

In: weights under Wan's names or those of diffusers. Out: a `Codec`.
Read next: `codec.py` for the interface, `xwam/checkpoints/tensor_names.py` for the names.

Letters: B batch, C channels, T frames, H W rows and columns.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from xwam.checkpoints import tensor_names as keys
from xwam.checkpoints.metadata import CheckpointError
from xwam.checkpoints.tensors import fill

# fmt: off
LATENT_MEAN = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891,
    0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502,
    -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723,
    -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
)
"""Mean of each latent channel of the published Wan2.2 VAE; its own file does not hold it."""

LATENT_STD = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
    0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
    0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)
"""Standard deviation of each latent channel."""
# fmt: on

VAE_TYPE = torch.float32
"""What the VAE computes in; Wan's own code does, whatever the type of its transformer."""


class WanVae:
    """The causal VAE: the first frame alone, then four frames a latent frame, decoded chunk by chunk.

    diffusers keeps the causal memory inside the module, so calls are taken one after another.

    Args:
        vae: diffusers' `AutoencoderKLWan`; its configuration holds mean and spread of the latents.
        videos_per_pass: How many videos (views) are encoded or decoded at once; bounds the memory.
    """

    def __init__(self, vae: Any, *, videos_per_pass: int = 4) -> None:
        self.vae, self.videos_per_pass = vae, videos_per_pass
        self.channels: int = vae.config.z_dim
        self._mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
        self._std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
        self._alone = threading.Lock()

    def to(self, device: str | torch.device) -> WanVae:
        """Move the weights; what is encoded and decoded comes back to where it came from."""
        self.vae.to(device)
        return self

    def encode(self, video_BCTHW: Tensor) -> Tensor:
        """Return the normalised means of the latents of a video in [-1, 1]."""
        with self._alone:
            passes = [self.vae.encode(self._fit(part)).latent_dist.mode() for part in self._parts(video_BCTHW)]
        latent = torch.cat(passes).float().to(video_BCTHW.device)
        return (latent - self._mean.to(latent)) / self._std.to(latent)

    def decode(self, latent_BCTHW: Tensor, seen_BCHW: Tensor | None = None) -> Tensor:
        """Return the video in [-1, 1]; what was seen is not needed."""
        latent = latent_BCTHW * self._std.to(latent_BCTHW) + self._mean.to(latent_BCTHW)
        with self._alone:
            passes = [self.vae.decode(self._fit(part)).sample for part in self._parts(latent)]
        return torch.cat(passes).float().to(latent_BCTHW.device)

    def _parts(self, videos: Tensor) -> tuple[Tensor, ...]:
        return videos.split(self.videos_per_pass)

    def _fit(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.vae.device, self.vae.dtype)


def vae_config(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the arguments of `AutoencoderKLWan` for weights under Wan's names, read off their shapes.

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
        mean: Mean of each latent channel; the published one if not given.
        std: Standard deviation of each latent channel; likewise.
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
    renamed = {keys.diffusers_vae_name(name): value for name, value in weights.items()}
    fill(vae, renamed, source="The weights of the VAE")
    return WanVae(nn.Module.to(vae.eval(), VAE_TYPE).requires_grad_(False))


def _stages(weights: Mapping[str, Tensor]) -> list[str]:
    names = sorted({name.rsplit(".downsamples.", 1)[0] for name in weights if name.count(".downsamples.") == 2})
    if not names:
        raise CheckpointError("These are not the weights of a Wan2.2 VAE: there is no 'encoder.downsamples.0'.")
    return names
