"""The interface of codecs: frames to latents and latents to frames, for all views.

In: videos in [-1, 1], B,3,T,H,W with T = 1 + 4n. Out: latents B,C,1+n,H/16,W/16 of variance 1; and the inverse.
Read next: `patch_dct.py` and `wan_vae.py`, the two codecs; `mosaic.py`, views as tiles of one image;
`xwam/network/transformer.py`, which denoises latents.

Letters: B batch (or batch times views), C channels, T frames, V views, H W rows and columns.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from einops import rearrange
from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Codec(Protocol):
    """Turns frames into latents; the first frame alone, then groups of four."""

    channels: int

    def encode(self, video_BCTHW: Tensor) -> Tensor:
        """Return the latents of a video of 1 + 4n frames in [-1, 1]."""
        ...

    def decode(self, latent_BCTHW: Tensor, seen_BCHW: Tensor | None = None) -> Tensor:
        """Return the video in [-1, 1]; a codec may use the first frame, if the caller has it."""
        ...


@runtime_checkable
class JoinsViews(Protocol):
    """A codec that encodes all views together, as one."""

    def encode_views(self, video_BCTVHW: Tensor) -> Tensor:
        """Return the latents, B,C,LT,1,LH,LW."""
        ...

    def decode_views(self, latent_BCTVHW: Tensor, seen_BCVHW: Tensor | None = None) -> Tensor:
        """Return the video of all views, B,3,T,V,H,W."""
        ...


def encode_views(codec: Codec, video_BCTVHW: Float[Tensor, "b 3 t v h w"]) -> Float[Tensor, "b c lt lv lh lw"]:
    """Return the latents of all views, each encoded by itself; one latent view where the codec joins them."""
    if isinstance(codec, JoinsViews):
        return codec.encode_views(video_BCTVHW)
    latent = codec.encode(rearrange(video_BCTVHW, "b c t v h w -> (b v) c t h w"))
    return rearrange(latent, "(b v) c t h w -> b c t v h w", v=video_BCTVHW.shape[3])


def decode_views(codec: Codec, latent_BCTVHW: Tensor, seen_BCVHW: Tensor | None = None) -> Tensor:
    """Return the video of all views, B,3,T,V,H,W in [-1, 1]."""
    if isinstance(codec, JoinsViews):
        return codec.decode_views(latent_BCTVHW, seen_BCVHW)
    latent = rearrange(latent_BCTVHW, "b c t v h w -> (b v) c t h w")
    seen = None if seen_BCVHW is None else rearrange(seen_BCVHW, "b c v h w -> (b v) c h w")
    return rearrange(codec.decode(latent, seen), "(b v) c t h w -> b c t v h w", v=latent_BCTVHW.shape[3])
