"""The VAE of Wan2.2 as a codec; diffusers does the work.

In: an `AutoencoderKLWan` of diffusers. Out: a `Codec`.
Read next: `codec.py` for the interface, `xwam/checkpoints/wan.py` for the weights.

Letters: B batch, C channels, T frames, H W rows and columns.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor

VAE_TYPE = torch.float32
"""Type in which the VAE computes, as in Wan's own code, whatever the type of its transformer."""


class WanVae:
    """The causal VAE: the first frame alone, then four frames a latent frame, decoded chunk by chunk.

    diffusers keeps the causal memory inside the module, so calls run one after another.

    Args:
        vae: diffusers' `AutoencoderKLWan`; its configuration holds mean and spread of the latents.
        videos_per_pass: Videos (views) that are encoded or decoded at once; limits the memory.
    """

    def __init__(self, vae: Any, *, videos_per_pass: int = 4) -> None:
        self.vae, self.videos_per_pass = vae, videos_per_pass
        self.channels: int = vae.config.z_dim
        self._mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
        self._std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
        self._alone = threading.Lock()

    def to(self, device: str | torch.device) -> WanVae:
        """Move the weights; results return to the device of their input."""
        self.vae.to(device)
        return self

    def encode(self, video_BCTHW: Tensor) -> Tensor:
        """Return the normalised means of the latents of a video in [-1, 1]."""
        with self._alone:
            passes = [self.vae.encode(self._fit(part)).latent_dist.mode() for part in self._parts(video_BCTHW)]
        latent = torch.cat(passes).float().to(video_BCTHW.device)
        return (latent - self._mean.to(latent)) / self._std.to(latent)

    def decode(self, latent_BCTHW: Tensor, seen_BCHW: Tensor | None = None) -> Tensor:
        """Return the video in [-1, 1]; the present frame is not needed."""
        latent = latent_BCTHW * self._std.to(latent_BCTHW) + self._mean.to(latent_BCTHW)
        with self._alone:
            passes = [self.vae.decode(self._fit(part)).sample for part in self._parts(latent)]
        return torch.cat(passes).float().to(latent_BCTHW.device)

    def _parts(self, videos: Tensor) -> tuple[Tensor, ...]:
        return videos.split(self.videos_per_pass)

    def _fit(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.vae.device, self.vae.dtype)
