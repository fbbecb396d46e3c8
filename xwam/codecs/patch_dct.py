"""The codec without weights: cosine transforms of blocks, cut to their strongest coefficients.

In: videos in [-1, 1], B,3,T,H,W with T = 1 + 4n. Out: latents B,C,1+n,H/16,W/16; and videos again.
Read next: `codec.py` for the interface.

Letters: B batch, C channels, T frames, V views, H W rows and columns, X numbers of a block.
"""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from xwam.config import LATENT_STRIDES


def change_of_views(
    codec: PatchDCT,
    video_CTVHW: Float[Tensor, "c lt v lh lw"],
    depth_CTVHW: Float[Tensor, "c lt v lh lw"],
    num_frames: int | None = None,
) -> Float[Tensor, "f v 4 h w"]:
    """Return the changes that latents after the first one stand for, RGB and depth video, of all views.

    Args:
        codec: The codec.
        video_CTVHW: Latents after the first one.
        depth_CTVHW: The same of depth.
        num_frames: Only the first frames; all if not given.
    """
    rgb, grey = (
        rearrange(
            codec.change(rearrange(latent.float(), "c t v h w -> v c t h w"), num_frames), "v c f h w -> f v c h w"
        )
        for latent in (video_CTVHW, depth_CTVHW)
    )
    return torch.cat([rgb, grey.mean(2, keepdim=True)], dim=2)


COLOURS = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
"""Orthonormal: brightness, red against blue, green against both."""


COLOUR_STD = (1.0, 0.1, 0.07)
"""Spread of the three, relative to brightness."""


def still_std(row: np.ndarray, col: np.ndarray) -> np.ndarray:
    """Return the spread of a brightness coefficient of one frame; fitted to renderings of robosuite's tasks."""
    return 18.0 / (1 + 2.1 * (row + col)) ** 1.3


def motion_std(time: np.ndarray, row: np.ndarray, col: np.ndarray) -> np.ndarray:
    """Return the spread of a brightness coefficient of four frames minus the first; fitted in the same way."""
    return 12.0 / (1 + 1.3 * (row + col) + 0.9 * time) ** 1.3


SHRINKAGE = 0.2
"""Decoding reduces the root mean square of a block's change by this; blocks that change less stand still."""


class PatchDCT:
    """The cosine transform of blocks, cut to its strongest coefficients: the codec of nano.

    The first frame is transformed in blocks of 16x16; every later group of four frames in blocks of 4x16x16, after
    subtraction of the first frame, so that static regions are zero. The C coefficients of largest spread are the
    channels. Each is divided by the root of its spread, all by a common factor: the mean square of a latent is about 1,
    and large coefficients keep a large weight. Divided by the spread itself, a loss would be mostly texture.
    Decoding shrinks every change a little, so that a block of four frames that hardly changes stands still.

    Args:
        channels: C, at most 768.
    """

    def __init__(self, channels: int) -> None:
        frames, rows, cols = LATENT_STRIDES
        if not 1 <= channels <= len(COLOURS) * rows * cols:
            raise ValueError(f"PatchDCT keeps 1 to {len(COLOURS) * rows * cols} coefficients, not {channels}.")
        self.channels = channels
        self.still_CX, self.still_unit_C = _basis(channels, 1)
        self.motion_CX, self.motion_unit_C = _basis(channels, frames)

    def encode(self, video_BCTHW: Float[Tensor, "b 3 t h w"]) -> Float[Tensor, "b c lt lh lw"]:
        """Return the latents of a video of 1 + 4n frames.

        Raises:
            ValueError: If frames, rows or columns do not divide.
        """
        frames, rows, cols = LATENT_STRIDES
        count, height, width = video_BCTHW.shape[2:]
        if count % frames != 1 or height % rows or width % cols:
            raise ValueError(
                f"A video must have 1 + {frames}n frames and multiples of {rows}x{cols} pixels, "
                f"got {count} frames of {height}x{width}."
            )
        first, rest = video_BCTHW[:, :, :1], video_BCTHW[:, :, 1:]
        latents = [_analyse(first, self.still_CX, self.still_unit_C, 1)]
        if count > 1:
            latents.append(_analyse(rest - first, self.motion_CX, self.motion_unit_C, frames))
        return torch.cat(latents, dim=2)

    def decode(self, latent_BCTHW: Tensor, seen_BCHW: Tensor | None = None) -> Tensor:
        """Return the video; static regions keep the full detail of a given first frame."""
        first = _synthesise(latent_BCTHW[:, :, :1], self.still_CX, self.still_unit_C, 1)
        if seen_BCHW is not None:
            first = seen_BCHW[:, :, None]
        rest = self.change(_shrunk(latent_BCTHW[:, :, 1:]))
        return torch.cat([first, first + rest], dim=2).clamp(-1, 1)

    def change(self, motion_BCTHW: Tensor, num_frames: int | None = None) -> Tensor:
        """Return the changes of the first frame that the latents after the first one stand for, B,3,4T,H,W.

        Args:
            motion_BCTHW: Latents.
            num_frames: Only the first frames; all if not given.
        """
        frames, (_, rows, cols) = LATENT_STRIDES[0], LATENT_STRIDES
        if num_frames is None or num_frames > frames:
            return _synthesise(motion_BCTHW, self.motion_CX, self.motion_unit_C, frames)[:, :, :num_frames]
        basis = self.motion_CX.view(self.channels, 3, frames, rows * cols)[:, :, :num_frames].flatten(1)
        return _synthesise(motion_BCTHW[:, :, :1], basis, self.motion_unit_C, num_frames)


def _shrunk(motion_BCTHW: Tensor) -> Tensor:
    """Return changes after soft thresholding of each block (Donoho and Johnstone 1994)."""
    size = motion_BCTHW.square().mean(1, keepdim=True).sqrt()
    return motion_BCTHW * (1 - SHRINKAGE / size.clamp(min=SHRINKAGE))


def dct_matrix(size: int) -> np.ndarray:
    """Return the orthonormal cosine transform, one row a frequency.

    Example:
        >>> dct_matrix(2).round(4).tolist()
        [[0.7071, 0.7071], [0.7071, -0.7071]]
    """
    frequency, index = np.arange(size)[:, None], np.arange(size)[None]
    matrix = np.cos(np.pi * (index + 0.5) * frequency / size) * np.sqrt(2 / size)
    matrix[0] /= np.sqrt(2)
    return matrix


def _basis(channels: int, frames: int) -> tuple[Tensor, Tensor]:
    """Return the C orthonormal patterns of largest spread over a block (colour, time, row, column), and their units."""
    _, rows, cols = LATENT_STRIDES
    axes = np.meshgrid(*(np.arange(size) for size in (3, frames, rows, cols)), indexing="ij")
    colour, time, row, col = (axis.ravel() for axis in axes)
    std = np.asarray(COLOUR_STD)[colour] * (still_std(row, col) if frames == 1 else motion_std(time, row, col))
    chosen = np.argsort(-std, kind="stable")[:channels]
    dct = {size: dct_matrix(size) for size in (frames, rows, cols)}
    patterns = np.einsum(
        "xc,xt,xh,xw->xcthw",
        COLOURS[colour[chosen]],
        dct[frames][time[chosen]],
        dct[rows][row[chosen]],
        dct[cols][col[chosen]],
    )
    unit = np.sqrt(std[chosen] * std[chosen].mean())
    return torch.tensor(patterns.reshape(channels, -1), dtype=torch.float32), torch.tensor(unit).float()


def _analyse(video_BCTHW: Tensor, basis_CX: Tensor, unit_C: Tensor, frames: int) -> Tensor:
    _, rows, cols = LATENT_STRIDES
    blocks = rearrange(video_BCTHW, "b c (t f) (h p) (w q) -> b t h w (c f p q)", f=frames, p=rows, q=cols)
    return rearrange(blocks @ basis_CX.T.to(blocks) / unit_C.to(blocks), "b t h w c -> b c t h w")


def _synthesise(latent_BCTHW: Tensor, basis_CX: Tensor, unit_C: Tensor, frames: int) -> Tensor:
    _, rows, cols = LATENT_STRIDES
    blocks = (rearrange(latent_BCTHW, "b c t h w -> b t h w c") * unit_C.to(latent_BCTHW)) @ basis_CX.to(latent_BCTHW)
    return rearrange(blocks, "b t h w (c f p q) -> b c (t f) (h p) (w q)", c=3, f=frames, p=rows, q=cols)
