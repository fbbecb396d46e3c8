"""A learned decoder that makes a future of the pixels that static cameras see: it says where each one comes from.

In: what the cameras see now, what the codec shows of the future, how the hand is predicted to move. Out: RGB and depth.
Read next: `xwam/serving/engine.py`, which asks for it; `xwam/training/decoder.py`, which trains it;
`xwam/codecs/codec.py`, whose pictures it sharpens.

A codec of few numbers shows where things move to, but not what they look like. Here a small network (a U-Net:
Ronneberger et al. 2015, arXiv 1505.04597) reads that, and gives for each pixel the place in the seen picture that it
comes from (a backward flow: Liu et al. 2017, arXiv 1702.02463). Nothing is painted: what the future is unsure of would
be painted as a blur. What comes to light where it was hidden looks like something that is seen.

Letters: N pictures, F future frames, V views, H W rows and columns, C channels.
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

SEEN, CHANGE, HINTS = 4, 4, 5
"""Channels of the present (RGB and depth video, -1 to 1), of the codec's change, of `gripper_motion_features`."""

FLOW_PX = 8.0
"""Pixels that an output of 1 stands for."""

LONGEST_PX = 64.0
"""What no flow is longer than: without a bound, some grow until training is lost."""

STILL_PX = 0.5
"""What a trained decoder takes off the length of every flow."""

FARTHEST_PX = 32.0
"""Displacements are hinted at up to here."""

NEAR_M = 0.1
"""Distance from the hand at which its nearness falls to 1/e."""

UNKNOWN_M = 5.0
"""Depth that counts where none was measured."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """What static cameras measure now, and where they and the hand are.

    Attributes:
        depth_vhw_m: V,H,W, metres, 0 where there is none.
        intrinsics_v33_px: V,3,3.
        T_base_cam_v44: V,4,4.
        T_base_ee: 4,4, the hand.
    """

    depth_vhw_m: np.ndarray
    intrinsics_v33_px: np.ndarray
    T_base_cam_v44: np.ndarray
    T_base_ee: np.ndarray


class DecodedFrames(NamedTuple):
    """Future pictures, N,4,H,W: RGB and depth video; blended between pixels, for losses, and as they were seen."""

    blended_NCHW: Tensor
    sharp_NCHW: Tensor


class PixelDecoder(nn.Module):
    """The network; see the top of this file.

    Args:
        widths: Channels at a half, a quarter, an eighth and a sixteenth of the picture's size.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.widths = tuple(widths)
        half, quarter, eighth, sixteenth = self.widths
        self.enter = _Conv(4 * (SEEN + CHANGE + HINTS), half)
        self.down = nn.ModuleList(
            nn.Sequential(_Conv(a, b, stride=2), _Conv(b, b))
            for a, b in ((half, quarter), (quarter, eighth), (eighth, sixteenth))
        )
        self.deepest = _Conv(sixteenth, sixteenth)
        self.up = nn.ModuleList(_Conv(a + b, b) for a, b in ((sixteenth, eighth), (eighth, quarter), (quarter, half)))
        self.leave = nn.Conv2d(half, 4 * 3, 3, padding=1)
        for weight in self.leave.parameters():  # so that a fresh one shows what is seen
            nn.init.zeros_(weight)

    def forward(self, seen_NCHW: Tensor, change_NCHW: Tensor, hints_NCHW: Tensor) -> DecodedFrames:
        """Return future pictures.

        Args:
            seen_NCHW: RGB and depth video as seen now, N,4,H,W in [-1, 1]; H and W multiples of 16.
            change_NCHW: What the codec adds to them, N,4,H,W.
            hints_NCHW: See `gripper_motion_features`, N,5,H,W.
        """
        x = F.pixel_unshuffle(torch.cat([seen_NCHW, change_NCHW, hints_NCHW], dim=1), 2)
        kept = [self.enter(x)]
        for step in self.down:
            kept.append(step(kept[-1]))
        x = self.deepest(kept.pop())
        for step in self.up:
            x = step(torch.cat([F.interpolate(x, scale_factor=2.0), kept.pop()], dim=1))
        flow, nearer = F.pixel_shuffle(self.leave(x), 2).float().split([2, 1], dim=1)
        flow_px = bounded(flow * FLOW_PX)
        grid = _grid(flow_px if self.training else _shortened(flow_px))

        def sample(mode: str) -> Tensor:
            picture = F.grid_sample(seen_NCHW, grid, mode=mode, padding_mode="border", align_corners=True)
            return torch.cat([picture[:, :3], (picture[:, 3:] + nearer).clamp(-1, 1)], dim=1)

        return DecodedFrames(sample("bilinear"), sample("nearest"))

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
        return decoder.float().eval().requires_grad_(False)


class _Conv(nn.Sequential):
    def __init__(self, channels_in: int, channels_out: int, *, stride: int = 1) -> None:
        super().__init__(nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1), nn.SiLU())


def bounded(flow_N2HW: Tensor) -> Tensor:
    """Return flows of at most `LONGEST_PX`; short ones stay as they are."""
    return flow_N2HW / (1 + (flow_N2HW / LONGEST_PX).square().sum(dim=1, keepdim=True)).sqrt()


def _shortened(flow_N2HW: Tensor) -> Tensor:
    """Return flows that are shorter by `STILL_PX`, so that what hardly moves stands still, as sharp as it was seen."""
    length = flow_N2HW.norm(dim=1, keepdim=True)
    return flow_N2HW * (1 - STILL_PX / length.clamp(min=STILL_PX))


def _grid(flow_N2HW: Tensor) -> Tensor:
    """Return where `grid_sample` must look, N,H,W,2, for flows in pixels (columns, rows)."""
    height, width = flow_N2HW.shape[2:]
    rows, cols = (torch.arange(size, device=flow_N2HW.device) for size in (height, width))
    x = (cols + flow_N2HW[:, 0]) * (2 / (width - 1)) - 1
    y = (rows[:, None] + flow_N2HW[:, 1]) * (2 / (height - 1)) - 1
    return torch.stack([x, y], dim=-1)


def gripper_motion_features(scene: Scene, T_base_eefuture_f44: np.ndarray, frames: Sequence[float]) -> np.ndarray:
    """Return F,V,5,H,W float32: how each pixel would move with the hand, and how near it is to it.

    Of every pixel: columns and rows that its surface moves by if it moves with the hand, in units of `FARTHEST_PX`; its
    nearness to the hand as it is and as it will be (1 to 0); the frame's place among the future ones.

    Args:
        scene: What is seen.
        T_base_eefuture_f44: F,4,4, the hand as predicted.
        frames: Place of each of these among the future frames, from above 0 to 1.
    """
    num_views, height, width = scene.depth_vhw_m.shape
    hints = np.empty((len(frames), num_views, HINTS, height, width), np.float32)
    cols, rows = (axis.ravel().astype(np.float32) for axis in np.meshgrid(np.arange(width), np.arange(height)))
    moves_f44 = T_base_eefuture_f44 @ np.linalg.inv(scene.T_base_ee)
    for view in range(num_views):
        K, T_base_cam = scene.intrinsics_v33_px[view], scene.T_base_cam_v44[view]
        T_cam_base = np.linalg.inv(T_base_cam)
        z = np.where(scene.depth_vhw_m[view] > 0, scene.depth_vhw_m[view], UNKNOWN_M).ravel()
        points_3n = np.stack([(cols - K[0, 2]) / K[0, 0] * z, (rows - K[1, 2]) / K[1, 1] * z, z]).astype(np.float32)
        near_now = _nearness(points_3n, T_cam_base @ scene.T_base_ee[:, 3])
        for place, (move, T_base_future) in enumerate(zip(moves_f44, T_base_eefuture_f44, strict=True)):
            T = (T_cam_base @ move @ T_base_cam).astype(np.float32)
            x, y, ahead = T[:3, :3] @ points_3n + T[:3, 3:]
            ahead = np.maximum(ahead, 0.02)
            shift = np.stack([K[0, 0] * x / ahead + K[0, 2] - cols, K[1, 1] * y / ahead + K[1, 2] - rows])
            shift = np.clip(shift, -FARTHEST_PX, FARTHEST_PX) / FARTHEST_PX
            near_later = _nearness(points_3n, T_cam_base @ T_base_future[:, 3])
            when = np.full_like(near_later, frames[place])
            hints[place, view] = np.stack([*shift, near_now, near_later, when]).reshape(HINTS, height, width)
    return hints


def _nearness(points_3n: np.ndarray, hand_4: np.ndarray) -> np.ndarray:
    distance_m: np.ndarray = np.linalg.norm(points_3n - hand_4[:3, None].astype(np.float32), axis=0)
    return np.exp(-distance_m / NEAR_M)
