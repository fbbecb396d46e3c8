"""Crops and colour jitter: drawn once a clip, the same for all its frames.

In: pictures F,3,H,W in [-1, 1] and drawn numbers. Out: pictures of the same size.
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

GREY = (0.299, 0.587, 0.114)
"""Brightness of red, green and blue."""


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far colours may be off: factors from 1 - x to 1 + x, the hue by a share of the circle.

    Attributes:
        brightness: Of the factor on all colours.
        contrast: Of the distance from the mean brightness.
        saturation: Of the distance from grey.
        hue: Share of the circle, either way.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.05


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One clip's draws.

    Attributes:
        places: Per view, where its crop lies between top and bottom, left and right (0 to 1).
        order: In which order the four changes of colour are made.
        factors: Brightness, contrast, saturation factors and the turn of the hue.
    """

    places: tuple[tuple[float, float], ...]
    order: tuple[int, ...]
    factors: tuple[float, float, float, float]

    def jitter(self, rgb_FCHW: Tensor) -> Tensor:
        """Return pictures in other colours; values stay in [-1, 1]."""
        changes: tuple[Callable[[Tensor, float], Tensor], ...] = (brighten, contrast, saturate, turn_hue)
        unit = (rgb_FCHW + 1) / 2
        for index in self.order:
            unit = changes[index](unit, self.factors[index])
        return unit * 2 - 1


def draw_augmentation(settings: Augmentation, num_views: int, rng: np.random.Generator) -> Drawn:
    """Return the draws of one clip."""
    spread = (settings.brightness, settings.contrast, settings.saturation)
    factors = [float(rng.uniform(1 - by, 1 + by)) for by in spread]
    return Drawn(
        places=tuple((float(row), float(col)) for row, col in rng.random((num_views, 2))),
        order=tuple(rng.permutation(4).tolist()),
        factors=(factors[0], factors[1], factors[2], float(rng.uniform(-settings.hue, settings.hue))),
    )


def crop(
    rgb_FCHW: Tensor, depth_FCHW: Tensor, crop_frac: float, place: tuple[float, float] = (0.5, 0.5)
) -> tuple[Tensor, Tensor]:
    """Return a crop, back at full size: RGB bilinear, depth by the nearest pixel.

    Args:
        rgb_FCHW: Pictures.
        depth_FCHW: Depth of the same size.
        crop_frac: Share of rows and columns that is kept.
        place: Where it lies, (0.5, 0.5) in the middle, as at inference.
    """
    if crop_frac == 1.0:
        return rgb_FCHW, depth_FCHW
    size = rgb_FCHW.shape[-2:]
    rows, cols = (int(crop_frac * length) for length in size)
    top, left = round(place[0] * (size[0] - rows)), round(place[1] * (size[1] - cols))
    rgb, depth = (part[..., top : top + rows, left : left + cols] for part in (rgb_FCHW, depth_FCHW))
    return (
        F.interpolate(rgb, size, mode="bilinear", align_corners=False),
        F.interpolate(depth, size, mode="nearest-exact"),
    )


# ---- colours, on pictures in [0, 1]


def brighten(unit_FCHW: Tensor, factor: float) -> Tensor:
    """Return all colours times a factor."""
    return (unit_FCHW * factor).clamp(0, 1)


def contrast(unit_FCHW: Tensor, factor: float) -> Tensor:
    """Return colours further from, or nearer to, each frame's mean brightness."""
    mean = _grey(unit_FCHW).mean(dim=(1, 2, 3), keepdim=True)
    return (mean + (unit_FCHW - mean) * factor).clamp(0, 1)


def saturate(unit_FCHW: Tensor, factor: float) -> Tensor:
    """Return colours further from, or nearer to, grey."""
    grey = _grey(unit_FCHW)
    return (grey + (unit_FCHW - grey) * factor).clamp(0, 1)


def turn_hue(unit_FCHW: Tensor, turn: float) -> Tensor:
    """Return colours turned on the circle of hues; brightest and darkest channel keep their values.

    Example:
        >>> turn_hue(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1), 1 / 3).flatten().round(decimals=4).tolist()
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
    steps = torch.tensor([5.0, 3.0, 1.0]).view(1, 3, 1, 1)  # where red, green and blue stand on the circle
    place = (steps + sixth) % 6
    return high - span * torch.minimum(place, 4 - place).clamp(0, 1)


def _grey(unit_FCHW: Tensor) -> Tensor:
    weights = torch.tensor(GREY).view(1, 3, 1, 1)
    return (unit_FCHW * weights).sum(1, keepdim=True)
