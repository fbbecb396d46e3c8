"""A learned decoder for static cameras: for each pixel of a future image it says where to copy it from.

In: the present images, the codec's change of them, the predicted motion of the end effector. Out: RGB and depth images.
Read next: `finisher.py`, which runs it; `xwam/training/decoder.py`, which trains it; `xwam/codecs/patch_dct.py`, whose
images it sharpens.

A codec with few numbers shows where things move to, but not what they look like. A small network (a U-Net: Ronneberger
et al. 2015, arXiv 1505.04597) reads its output and gives, for each pixel, the position in the present image that it
comes from (a backward flow: Liu et al. 2017, arXiv 1702.02463). The decoder only copies pixels from the current frame,
so uncertain regions stay sharp. Regions that come into view take the look of something already visible.

Letters: N images, F future frames, V views, H W rows and columns, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xwam.checkpoints.bundle import DecoderWeights
from xwam.checkpoints.tensors import fill

SEEN, CHANGE, FEATURES = 4, 4, 5
"""Channels of the present (RGB and depth video, -1 to 1), of the codec's change, of `gripper_motion_features`."""

FLOW_PX = 8.0
"""Pixels that an output of 1 stands for."""

LONGEST_PX = 64.0
"""Longest flow; without a bound, some grow until training diverges."""

STILL_PX = 0.5
"""The length of every flow of a trained decoder is reduced by this."""

FARTHEST_PX = 32.0
"""Longest displacement among the features."""

NEAR_M = 0.1
"""Distance from the end effector at which the feature of nearness falls to 1/e."""

UNKNOWN_M = 5.0
"""Depth that stands for pixels without measured depth."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """The present of the static cameras: their depth and poses, and the pose of the end effector.

    Attributes:
        depth_vhw_m: V,H,W, metres, 0 where there is none.
        intrinsics_v33_px: V,3,3.
        T_base_cam_v44: V,4,4.
        T_base_ee: 4,4, the end effector.
    """

    depth_vhw_m: np.ndarray
    intrinsics_v33_px: np.ndarray
    T_base_cam_v44: np.ndarray
    T_base_ee: np.ndarray


class DecodedFrames(NamedTuple):
    """Future images, N,4,H,W: RGB and depth video; interpolated between pixels (for losses), and copied pixels."""

    blended_NCHW: Tensor
    sharp_NCHW: Tensor


class PixelDecoder(nn.Module):
    """The network; see the top of this file.

    Args:
        widths: Channels at a half, a quarter, an eighth and a sixteenth of the image size.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = tuple(widths)
        half, quarter, eighth, sixteenth = self.widths
        self.enter = _Conv(4 * (SEEN + CHANGE + FEATURES), half)
        self.down = nn.ModuleList(
            nn.Sequential(_Conv(a, b, stride=2), _Conv(b, b))
            for a, b in ((half, quarter), (quarter, eighth), (eighth, sixteenth))
        )
        self.deepest = _Conv(sixteenth, sixteenth)
        self.up = nn.ModuleList(_Conv(a + b, b) for a, b in ((sixteenth, eighth), (eighth, quarter), (quarter, half)))
        self.leave = nn.Conv2d(half, 4 * 3, 3, padding=1)
        for weight in self.leave.parameters():  # an untrained decoder shows the present images
            nn.init.zeros_(weight)

    def forward(self, seen_NCHW: Tensor, change_NCHW: Tensor, features_NCHW: Tensor) -> DecodedFrames:
        """Return future images.

        Args:
            seen_NCHW: Present RGB and depth video, N,4,H,W in [-1, 1]; H and W multiples of 16.
            change_NCHW: The change that the codec adds to them, N,4,H,W.
            features_NCHW: See `gripper_motion_features`, N,5,H,W.
        """
        grid, nearer_N1HW = self._motion(seen_NCHW, change_NCHW, features_NCHW)

        def sample(mode: str) -> Tensor:
            image = _sampled(seen_NCHW, grid, mode)
            return torch.cat([image[:, :3], (image[:, 3:] + nearer_N1HW).clamp(-1, 1)], dim=1)

        return DecodedFrames(sample("bilinear"), sample("nearest"))

    def images(self, seen_NCHW: Tensor, change_NCHW: Tensor, features_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return the parts of `forward` that a prediction shows: blended RGB, N,3,H,W; sharp depth video, N,H,W."""
        grid, nearer_N1HW = self._motion(seen_NCHW, change_NCHW, features_NCHW)
        depth_N1HW = _sampled(seen_NCHW[:, 3:], grid, "nearest") + nearer_N1HW
        return _sampled(seen_NCHW[:, :3], grid, "bilinear"), depth_N1HW.clamp(-1, 1)[:, 0]

    def _motion(self, seen_NCHW: Tensor, change_NCHW: Tensor, features_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return where each pixel comes from, as a grid N,H,W,2, and what is added to its depth, N,1,H,W."""
        skips = [self.enter(_unshuffled(seen_NCHW, change_NCHW, features_NCHW))]
        for step in self.down:
            skips.append(step(skips[-1]))
        x = self.deepest(skips.pop())
        for step in self.up:
            x = step(torch.cat([F.interpolate(x, scale_factor=2.0), skips.pop()], dim=1))
        flow, nearer_N1HW = F.pixel_shuffle(self.leave(x), 2).float().split([2, 1], dim=1)
        flow_px = bounded(flow * FLOW_PX)
        return _grid(flow_px if self.training else _shortened(flow_px)), nearer_N1HW

    def weights(self) -> DecoderWeights:
        """Return the weights as a checkpoint holds them."""
        return DecoderWeights(self.widths, self.state_dict())

    @classmethod
    def from_weights(cls, weights: DecoderWeights) -> PixelDecoder:
        """Return the decoder of a checkpoint, in float32, ready for inference.

        Raises:
            CheckpointError: If the weights do not fit a decoder of these widths.
        """
        with torch.device("meta"):
            decoder = cls(weights.widths)
        fill(decoder, weights.tensors, source="The pixel decoder of the checkpoint")
        # on a CPU, convolutions with the channels next to each other in memory take two thirds of the time
        return decoder.float().eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


class _Conv(nn.Sequential):
    def __init__(self, channels_in: int, channels_out: int, *, stride: int = 1) -> None:
        super().__init__(nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1), nn.SiLU())


def _unshuffled(*parts_NCHW: Tensor) -> Tensor:
    """Return the channels of all parts, four neighbouring pixels as channels of one (`F.pixel_unshuffle`).

    They are written once, in the order in which a CPU's convolutions read them.
    """
    num_images, _, height, width = parts_NCHW[0].shape
    sizes = [part.shape[1] for part in parts_NCHW]
    x = parts_NCHW[0].new_empty(num_images, height // 2, width // 2, sum(sizes), 4)
    for part, place in zip(parts_NCHW, x.split(sizes, dim=3), strict=True):
        for neighbour in range(4):
            row, col = divmod(neighbour, 2)
            place[..., neighbour].copy_(part[:, :, row::2, col::2].permute(0, 2, 3, 1))
    return x.flatten(3).permute(0, 3, 1, 2)


def _sampled(image_NCHW: Tensor, grid_NHW2: Tensor, mode: str) -> Tensor:
    return F.grid_sample(image_NCHW, grid_NHW2, mode=mode, padding_mode="border", align_corners=True)


def bounded(flow_N2HW: Tensor) -> Tensor:
    """Return flows of at most `LONGEST_PX`; short ones hardly change."""
    return flow_N2HW / (1 + (flow_N2HW / LONGEST_PX).square().sum(dim=1, keepdim=True)).sqrt()


def _shortened(flow_N2HW: Tensor) -> Tensor:
    """Return flows reduced by `STILL_PX`, so that regions that hardly move stand still and stay sharp."""
    length = flow_N2HW.square().sum(dim=1, keepdim=True).sqrt()  # on a CPU a hundred times as fast as `norm`
    return flow_N2HW * (1 - STILL_PX / length.clamp(min=STILL_PX))


def _grid(flow_N2HW: Tensor) -> Tensor:
    """Return the grid of `grid_sample`, N,H,W,2, for flows in pixels (columns, rows)."""
    height, width = flow_N2HW.shape[2:]
    rows, cols = (torch.arange(size, device=flow_N2HW.device) for size in (height, width))
    x = (cols + flow_N2HW[:, 0]) * (2 / (width - 1)) - 1
    y = (rows[:, None] + flow_N2HW[:, 1]) * (2 / (height - 1)) - 1
    return torch.stack([x, y], dim=-1)


def gripper_motion_features(scene: Scene, T_base_eefuture_f44: np.ndarray, frames: Sequence[float]) -> np.ndarray:
    """Return F,V,5,H,W float32: how each pixel would move with the end effector, and how near it is to it.

    For every pixel: the columns and rows by which its surface moves if it is attached to the end effector, in units of
    `FARTHEST_PX`; its nearness to the present and to the future end effector (1 to 0); the time of the frame.

    Args:
        scene: The present.
        T_base_eefuture_f44: F,4,4, predicted poses of the end effector.
        frames: Time of each of these frames as a share of the horizon, above 0 to 1.
    """
    num_views, height, width = scene.depth_vhw_m.shape
    features = np.empty((len(frames), num_views, FEATURES, height, width), np.float32)
    cols, rows = (axis.ravel().astype(np.float32) for axis in np.meshgrid(np.arange(width), np.arange(height)))
    moves_f44 = T_base_eefuture_f44 @ np.linalg.inv(scene.T_base_ee)
    for view in range(num_views):
        K, T_base_cam = scene.intrinsics_v33_px[view], scene.T_base_cam_v44[view]
        T_cam_base = np.linalg.inv(T_base_cam)
        z = np.where(scene.depth_vhw_m[view] > 0, scene.depth_vhw_m[view], UNKNOWN_M).ravel()
        points_3n = np.stack([(cols - K[0, 2]) / K[0, 0] * z, (rows - K[1, 2]) / K[1, 1] * z, z]).astype(np.float32)
        near_now = _nearness(points_3n, T_cam_base @ scene.T_base_ee[:, 3])
        for index, (move, T_base_future) in enumerate(zip(moves_f44, T_base_eefuture_f44, strict=True)):
            T = (T_cam_base @ move @ T_base_cam).astype(np.float32)
            x, y, ahead = T[:3, :3] @ points_3n + T[:3, 3:]
            ahead = np.maximum(ahead, 0.02)
            shift = np.stack([K[0, 0] * x / ahead + K[0, 2] - cols, K[1, 1] * y / ahead + K[1, 2] - rows])
            shift = np.clip(shift, -FARTHEST_PX, FARTHEST_PX) / FARTHEST_PX
            near_later = _nearness(points_3n, T_cam_base @ T_base_future[:, 3])
            when = np.full_like(near_later, frames[index])
            features[index, view] = np.stack([*shift, near_now, near_later, when]).reshape(FEATURES, height, width)
    return features


def _nearness(points_3n: np.ndarray, position_4: np.ndarray) -> np.ndarray:
    distance_m: np.ndarray = np.linalg.norm(points_3n - position_4[:3, None].astype(np.float32), axis=0)
    return np.exp(-distance_m / NEAR_M)
