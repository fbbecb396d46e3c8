"""Images from the size of a bench to the size of a model, and the inverse; intrinsics follow.

In: images B,C,H,W as the bench delivers them, intrinsics in their pixels. Out: resized, cropped, resized again.
Read next: `interfaces.py` for the pipeline of each bench.

Letters: B images, C channels, H W rows and columns. Pixel centres lie at whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def crop_size(size_hw_px: tuple[int, int], crop_frac: float) -> tuple[int, int]:
    """Return the rows and columns that a crop keeps.

    Example:
        >>> crop_size((256, 320), 0.95)
        (243, 304)
    """
    return max(1, int(crop_frac * size_hw_px[0])), max(1, int(crop_frac * size_hw_px[1]))


def centred(size_hw_px: tuple[int, int], crop_hw_px: tuple[int, int]) -> tuple[int, int]:
    """Return top and left of the crop in the middle; an odd rest goes below and to the right.

    Example:
        >>> centred((256, 320), (243, 304)), centred((18, 18), (3, 3))
        ((6, 8), (7, 7))
    """
    return (size_hw_px[0] - crop_hw_px[0]) // 2, (size_hw_px[1] - crop_hw_px[1]) // 2


@dataclass(frozen=True, kw_only=True)
class ImagePipeline:
    """Resize to the model's size (bilinear, no antialiasing), crop the centre, resize back.

    The released server does this (evaluation/policy_server.py, commit 72cfb86).

    Attributes:
        env_hw_px: Size of the bench's images.
        model_hw_px: Size of the model's images.
        crop_frac: Share of rows and columns that the crop keeps; 1 for none.

    Example:
        >>> ImagePipeline(env_hw_px=(256, 256), model_hw_px=(256, 320), crop_frac=0.95).crop_px
        (6, 8, 243, 304)
    """

    env_hw_px: tuple[int, int]
    model_hw_px: tuple[int, int]
    crop_frac: float = 1.0

    @property
    def crop_px(self) -> tuple[int, int, int, int]:
        """Return top, left, height and width of the crop, in pixels of the model's size."""
        kept = crop_size(self.model_hw_px, self.crop_frac)
        return *centred(self.model_hw_px, kept), *kept

    def to_model(self, image_BCHW: Tensor, mode: Literal["bilinear", "nearest-exact"] = "bilinear") -> Tensor:
        """Return the images as the model sees them.

        Args:
            image_BCHW: Float images of the bench's size.
            mode: Interpolation from the crop to full size; the released server has `nearest-exact` for depth.
        """
        if tuple(image_BCHW.shape[-2:]) != self.model_hw_px:
            image_BCHW = F.interpolate(image_BCHW, self.model_hw_px, mode="bilinear", align_corners=False)
        top, left, rows, cols = self.crop_px
        if (rows, cols) == self.model_hw_px:
            return image_BCHW
        crop = image_BCHW[..., top : top + rows, left : left + cols]
        return F.interpolate(crop, self.model_hw_px, mode=mode, align_corners=False if mode == "bilinear" else None)

    def to_env(self, image_BCHW: Tensor, mode: Literal["bilinear", "nearest"] = "bilinear") -> Tensor:
        """Return the model's images in the bench's pixels; the rim outside the crop repeats its neighbours."""
        if self.env_hw_px == self.model_hw_px and self.crop_frac == 1.0:
            return image_BCHW
        A = self.pixels_model_env()
        height, width = self.env_hw_px
        rows = (torch.arange(height) * A[1, 1] + A[1, 2] + 0.5) / self.model_hw_px[0] * 2 - 1
        cols = (torch.arange(width) * A[0, 0] + A[0, 2] + 0.5) / self.model_hw_px[1] * 2 - 1
        grid_HW2 = torch.stack(torch.meshgrid(cols, rows, indexing="xy"), dim=-1).to(image_BCHW)
        grid_BHW2 = grid_HW2.expand(len(image_BCHW), -1, -1, -1)
        return F.grid_sample(image_BCHW, grid_BHW2, mode=mode, padding_mode="border", align_corners=False)

    def pixels_model_env(self) -> np.ndarray:
        """Return the 3x3 matrix from the bench's pixels (u, v, 1) to the model's."""
        (height, width), (top, left, rows, cols) = self.model_hw_px, self.crop_px
        resize = _resize(width / self.env_hw_px[1], height / self.env_hw_px[0])
        crop = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top], [0.0, 0.0, 1.0]])
        return _resize(width / cols, height / rows) @ crop @ resize

    def intrinsics(self, intrinsics_px: np.ndarray) -> np.ndarray:
        """Return camera matrices, ...,3,3, in the model's pixels; rows and columns change by different factors."""
        return self.pixels_model_env() @ np.asarray(intrinsics_px, np.float64)


def _resize(factor_u: float, factor_v: float) -> np.ndarray:
    """Return the 3x3 matrix of a resize; edges stay edges, so pixel centres move by half a pixel."""
    return np.array([[factor_u, 0.0, (factor_u - 1) / 2], [0.0, factor_v, (factor_v - 1) / 2], [0.0, 0.0, 1.0]])
