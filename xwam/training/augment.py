"""Crops and colour jitter: drawn once per clip, the same for all its frames.

In: images F,3,H,W in [-1, 1] and drawn numbers. Out: images of the same size.
Read next: `clips.py`, which draws and applies them.

Letters: F frames, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xwam.robots.image_pipeline import centred, crop_size

GREY = (0.2989, 0.587, 0.114)
"""Brightness of red, green and blue, as in torchvision, which the release uses."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Ranges of the colour jitter: factors from 1 - x to 1 + x, and a rotation of the hue.

    Attributes:
        brightness: Range of the factor on all colours.
        contrast: Range of the factor on the distance from the mean brightness.
        saturation: Range of the factor on the distance from grey.
        hue: Largest rotation of the hue in either direction, as a share of the circle.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.05


@dataclass(frozen=True, kw_only=True)
class ClipAugmentation:
    """The crops and the changes of colour of one clip.

    Attributes:
        positions: Position of each view's crop between top and bottom, left and right, from 0 to below 1; see `crop`.
        order: Order of the four changes of colour.
        factors: Factors of brightness, contrast and saturation, and the rotation of the hue.
    """

    positions: tuple[tuple[float, float], ...]
    order: tuple[int, ...]
    factors: tuple[float, float, float, float]

    def jitter(self, rgb_FCHW: Tensor) -> Tensor:
        """Return images with changed colours; values stay in [-1, 1]."""
        changes: tuple[Callable[[Tensor, float], Tensor], ...] = (brighten, contrast, saturate, rotate_hue)
        unit = (rgb_FCHW + 1) / 2
        for index in self.order:
            unit = changes[index](unit, self.factors[index])
        return unit * 2 - 1


def draw_augmentation(settings: Augmentation, num_views: int, rng: np.random.Generator) -> ClipAugmentation:
    """Return random crops and changes of colour for one clip."""
    spread = (settings.brightness, settings.contrast, settings.saturation)
    factors = [float(rng.uniform(1 - by, 1 + by)) for by in spread]
    return ClipAugmentation(
        positions=tuple((float(row), float(col)) for row, col in rng.random((num_views, 2))),
        order=tuple(rng.permutation(4).tolist()),
        factors=(factors[0], factors[1], factors[2], float(rng.uniform(-settings.hue, settings.hue))),
    )


def crop(
    rgb_FCHW: Tensor, depth_FCHW: Tensor, crop_frac: float, position: tuple[float, float] | None = None
) -> tuple[Tensor, Tensor]:
    """Return a crop, resized to full size: RGB bilinear, depth by `nearest`, as in the release (data/augmentation.py).

    Args:
        rgb_FCHW: Images.
        depth_FCHW: Depth of the same size.
        crop_frac: Share of rows and columns that is kept.
        position: Two numbers from 0 to below 1; uniform ones choose each possible crop equally often. None for the crop
            in the middle, as at inference.
    """
    size = (rgb_FCHW.shape[-2], rgb_FCHW.shape[-1])
    rows, cols = crop_size(size, crop_frac)
    if (rows, cols) == size:
        return rgb_FCHW, depth_FCHW
    top, left = centred(size, (rows, cols)) if position is None else corner(size, (rows, cols), position)
    rgb, depth = (frames[..., top : top + rows, left : left + cols] for frames in (rgb_FCHW, depth_FCHW))
    return F.interpolate(rgb, size, mode="bilinear", align_corners=False), F.interpolate(depth, size, mode="nearest")


def corner(size_hw_px: tuple[int, int], crop_hw_px: tuple[int, int], position: tuple[float, float]) -> tuple[int, int]:
    """Return top and left of a crop; the last possible ones are as likely as all others.

    Example:
        >>> [corner((256, 320), (243, 304), (share, share)) for share in (0.0, 0.999)]
        [(0, 0), (13, 16)]
    """
    free = (size_hw_px[0] - crop_hw_px[0], size_hw_px[1] - crop_hw_px[1])
    return int(position[0] * (free[0] + 1)), int(position[1] * (free[1] + 1))


# ---- colours, on images in [0, 1]


def brighten(unit_FCHW: Tensor, factor: float) -> Tensor:
    """Return colours multiplied by a factor."""
    return (unit_FCHW * factor).clamp(0, 1)


def contrast(unit_FCHW: Tensor, factor: float) -> Tensor:
    """Return colours with their distance from each frame's mean brightness multiplied by a factor."""
    mean = _grey(unit_FCHW).mean(dim=(1, 2, 3), keepdim=True)
    return (mean + (unit_FCHW - mean) * factor).clamp(0, 1)


def saturate(unit_FCHW: Tensor, factor: float) -> Tensor:
    """Return colours with their distance from grey multiplied by a factor."""
    grey = _grey(unit_FCHW)
    return (grey + (unit_FCHW - grey) * factor).clamp(0, 1)


def rotate_hue(unit_FCHW: Tensor, turn: float) -> Tensor:
    """Return colours with rotated hue; the brightest and the darkest channel keep their values.

    Example:
        >>> rotate_hue(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1), 1 / 3).flatten().round(decimals=4).tolist()
        [0.0, 1.0, 0.0]
    """
    high, low = unit_FCHW.amax(1, keepdim=True), unit_FCHW.amin(1, keepdim=True)
    span = high - low
    red, green, blue = unit_FCHW.split(1, dim=1)
    safe = torch.where(span > 0, span, 1.0)
    sixth = torch.where(
        high == red,
        (green - blue) / safe,
        torch.where(high == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    sixth = (sixth + 6 * turn) % 6
    steps = torch.tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1)  # positions of red, green and blue on the circle
    position = (steps + sixth) % 6
    return high - span * torch.minimum(position, 4 - position).clamp(0, 1)


def _grey(unit_FCHW: Tensor) -> Tensor:
    weights = torch.tensor(GREY).view(1, 3, 1, 1)
    return (unit_FCHW * weights).sum(1, keepdim=True)
