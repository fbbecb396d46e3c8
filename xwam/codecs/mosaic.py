"""All views as tiles of one image, which the codec encodes as a whole.

In: videos of all views, B,3,T,V,H,W in [-1, 1]. Out: latents of one view of the tiled size, B,C,1+n,1,LH,LW; and the
inverse.
Read next: `codec.py`, whose `encode_views` and `decode_views` call it.

A codec with convolutions sees across the borders of tiles, so the tiles must be joined before it, not after.

Letters: B batch, C channels, T frames, V views, H W rows and columns of a view, LH LW latent rows and columns.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from xwam.codecs.codec import Codec

BLACK = -1.0
"""Pixels of tiles without a view."""


class Mosaic:
    """A codec for tiled views. View v is the tile in row v % rows and column v // rows, as in DreamZero.

    DreamZero tiles three views as [first, third; second, black] (transform/dreamzero_cotrain.py, commit ab790c1).

    Args:
        codec: Encodes the tiled image.
        grid: Rows and columns of tiles.
        num_views: Views, at most the number of tiles.

    Raises:
        ValueError: If there are more views than tiles.
    """

    def __init__(self, codec: Codec, grid: tuple[int, int], num_views: int) -> None:
        if not 1 <= num_views <= grid[0] * grid[1]:
            raise ValueError(f"A mosaic of {grid[0]}x{grid[1]} tiles cannot hold {num_views} views.")
        self.codec, self.grid, self.num_views = codec, grid, num_views
        self.channels = codec.channels

    @property
    def vae(self) -> Any:
        """Return the module with the codec's weights; None for a codec without."""
        return getattr(self.codec, "vae", None)

    def to(self, device: str | torch.device) -> Mosaic:
        """Move the weights of the codec, if it has any."""
        move = getattr(self.codec, "to", None)
        if move is not None:
            move(device)
        return self

    def encode(self, video_BCTHW: Tensor) -> Tensor:
        """Return the latents of videos that are already tiled."""
        return self.codec.encode(video_BCTHW)

    def decode(self, latent_BCTHW: Tensor, seen_BCHW: Tensor | None = None) -> Tensor:
        """Return tiled videos."""
        return self.codec.decode(latent_BCTHW, seen_BCHW)

    def encode_views(self, video_BCTVHW: Float[Tensor, "b 3 t v h w"]) -> Float[Tensor, "b c lt 1 lh lw"]:
        """Return the latents of all views as one."""
        return self.codec.encode(self.join(video_BCTVHW))[:, :, :, None]

    def decode_views(self, latent_BCTVHW: Tensor, seen_BCVHW: Tensor | None = None) -> Tensor:
        """Return the video of all views, B,3,T,V,H,W."""
        seen = None if seen_BCVHW is None else self.join(seen_BCVHW[:, :, None])[:, :, 0]
        return self.split(self.codec.decode(latent_BCTVHW[:, :, :, 0], seen))

    def join(self, video_BCTVHW: Tensor) -> Tensor:
        """Return the tiled video, B,C,T,rows*H,cols*W.

        Raises:
            ValueError: If the number of views is another one.
        """
        if video_BCTVHW.shape[3] != self.num_views:
            raise ValueError(f"The mosaic needs {self.num_views} views, got {video_BCTVHW.shape[3]}.")
        rows, cols = self.grid
        height, width = video_BCTVHW.shape[-2:]
        tiled = video_BCTVHW.new_full((*video_BCTVHW.shape[:3], rows * height, cols * width), BLACK)
        for view in range(self.num_views):
            self._tile(tiled, view).copy_(video_BCTVHW[:, :, :, view])
        return tiled

    def split(self, tiled_BCTHW: Tensor) -> Tensor:
        """Return the views of a tiled video, B,C,T,V,H,W: the inverse of `join`."""
        return torch.stack([self._tile(tiled_BCTHW, view) for view in range(self.num_views)], dim=3)

    def _tile(self, tiled_BCTHW: Tensor, view: int) -> Tensor:
        """Return the tile of a view; writing to it changes the tiled video."""
        rows, cols = self.grid
        height, width = tiled_BCTHW.shape[-2] // rows, tiled_BCTHW.shape[-1] // cols
        row, col = view % rows, view // rows
        return tiled_BCTHW[..., row * height : (row + 1) * height, col * width : (col + 1) * width]
