"""Depth that builds on measured surfaces: surfaces move, they do not blend into one another.

In: predicted depth; what the cameras show and measure now, their present and future poses. Out: RGB and depth images of
the future.
Read next: `finisher.py`, which calls both steps; `xwam/codecs/patch_dct.py`, whose decoded depth is blurred.

A codec with few numbers turns the edge between a near end effector and a far wall into depths at which there is no
surface. So predicted depth only selects: a pixel keeps its measured surface until the prediction is clearly closer to
another surface measured near it. A wrist camera's measurement is reprojected to the predicted pose of its end
effector, without the end effector itself, which moves with the camera; new regions get the nearest known surface.

Letters: F future frames, V views, H W rows and columns. Depths are z along the axis, metres, 0 where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt, maximum_filter, minimum_filter

STILL_M = 0.3
"""If predicted and measured depth differ by less than this, keep the measured depth."""

SURE_FRAC = 0.4
"""Take a neighbouring surface only if its distance to the prediction is below this share of the pixel's own."""

REACH_PX = 5
"""How far away a neighbouring surface may be, in rows and in columns."""

END_EFFECTOR_M = 0.1
"""Everything nearer to a wrist camera than this is the end effector, or held by it."""


class Reprojected(NamedTuple):
    """Each view if only the end effector and its cameras move: F,V,H,W,3 uint8 and F,V,H,W metres."""

    rgb_fvhwc_u8: np.ndarray
    depth_fvhw_m: np.ndarray


class ReprojectedView(NamedTuple):
    """A depth image from another pose: metres, 0 where no known surface is; the source pixel of each value."""

    depth_hw_m: np.ndarray
    rows_hw: np.ndarray
    cols_hw: np.ndarray


def reproject_views(
    rgb_vhwc_u8: np.ndarray,
    depth_vhw_m: np.ndarray,
    intrinsics_v33_px: np.ndarray,
    T_cam_future_fv44: np.ndarray,
    moving: Sequence[int],
) -> Reprojected:
    """Return the present images, reprojected to the future poses of the cameras that move.

    A region that a moving view shows for the first time gets the colour and depth of the nearest known pixel.

    Args:
        rgb_vhwc_u8: V,H,W,3, present RGB images.
        depth_vhw_m: V,H,W, present depth images.
        intrinsics_v33_px: V,3,3.
        T_cam_future_fv44: F,V,4,4, future poses of the cameras, each in its present frame.
        moving: Views that move with the end effector.
    """
    rgb = np.repeat(rgb_vhwc_u8[None], len(T_cam_future_fv44), 0)
    depth = np.repeat(depth_vhw_m[None].astype(np.float64), len(T_cam_future_fv44), 0)
    for view in moving:
        depth_m = depth_vhw_m[view]
        end_effector = (depth_m > 0) & (depth_m < END_EFFECTOR_M)
        scene = np.where(end_effector, 0.0, depth_m)
        for frame_idx, T_cam_future in enumerate(T_cam_future_fv44[:, view]):
            image = _without_holes(reproject(scene, intrinsics_v33_px[view], T_cam_future))
            depth[frame_idx, view] = np.where(end_effector, depth_m, image.depth_hw_m)
            unchanged = end_effector | (image.depth_hw_m == 0)  # without any known surface, keep the image
            colours = rgb_vhwc_u8[view][image.rows_hw, image.cols_hw]
            rgb[frame_idx, view] = np.where(unchanged[..., None], rgb_vhwc_u8[view], colours)
    return Reprojected(rgb, depth)


def _without_holes(image: ReprojectedView) -> ReprojectedView:
    hole = image.depth_hw_m <= 0
    if hole.all():
        return image
    nearest = tuple(distance_transform_edt(hole, return_distances=False, return_indices=True))
    return ReprojectedView(*(values[nearest] for values in image))


def reproject(depth_hw_m: np.ndarray, K: np.ndarray, T_now_future: np.ndarray) -> ReprojectedView:
    """Return a depth image as its camera shows the same surfaces from another pose.

    Every point falls into one pixel; where several do, the nearest counts. An empty pixel next to a filled one, as
    where points spread out, takes the nearest surface next to it.

    Args:
        depth_hw_m: H,W, measured now.
        K: 3,3 intrinsics, pixels.
        T_now_future: 4,4, the camera's future pose in its present frame.
    """
    height, width = depth_hw_m.shape
    v, u = np.nonzero(depth_hw_m > 0)
    z = depth_hw_m[v, u].astype(np.float64)
    now = np.stack([(u - K[0, 2]) / K[0, 0] * z, (v - K[1, 2]) / K[1, 1] * z, z])
    x, y, z = T_now_future[:3, :3].T @ (now - T_now_future[:3, 3:])
    ahead = z > 1e-3
    x, y, z = x[ahead], y[ahead], z[ahead]
    u, v = (np.rint(K[axis, axis] * across / z + K[axis, 2]).astype(int) for axis, across in ((0, x), (1, y)))
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    pixels, z, sources = (v * width + u)[inside], z[inside], np.flatnonzero(depth_hw_m > 0)[ahead][inside]
    nearest, source = np.full(height * width, np.inf), np.zeros(height * width, np.int64)
    np.minimum.at(nearest, pixels, z)
    shown = z == nearest[pixels]
    source[pixels[shown]] = sources[shown]
    depth, source = _with_gaps_closed(nearest.reshape(height, width), source.reshape(height, width))
    rows, cols = np.divmod(source, width)
    return ReprojectedView(np.where(np.isfinite(depth), depth, 0.0), rows, cols)


def _with_gaps_closed(nearest_hw_m: np.ndarray, source_hw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return depth and source pixels where each empty (infinite) pixel takes the nearest of its eight neighbours."""
    rows, cols = np.nonzero(~np.isfinite(nearest_hw_m))
    around_m = np.pad(nearest_hw_m, 1, constant_values=np.inf)
    depths_m = np.stack([around_m[rows + 1 - down, cols + 1 - right] for down, right in NEIGHBOURS])
    which = depths_m.argmin(axis=0)
    depth, source = nearest_hw_m.copy(), source_hw.copy()
    depth[rows, cols] = depths_m[which, np.arange(len(which))]
    is_known = np.isfinite(depth[rows, cols])
    rows, cols, (down, right) = rows[is_known], cols[is_known], np.array(NEIGHBOURS)[which[is_known]].T
    source[rows, cols] = source_hw[rows - down, cols - right]
    return depth, source


NEIGHBOURS = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0)]
"""The eight pixels around one, in rows and columns."""


def snap_to_measured_depth(pred_fvhw_m: np.ndarray, measured_fvhw_m: np.ndarray) -> np.ndarray:
    """Return F,V,H,W float32: predicted depth moved to measured surfaces; unchanged where none is near.

    Args:
        pred_fvhw_m: Predicted.
        measured_fvhw_m: Measured in each pixel; F may be 1, for a measurement that holds for all frames.
    """
    has_own = measured_fvhw_m > 0
    error = np.abs(measured_fvhw_m - pred_fvhw_m)
    limit = np.where(has_own, SURE_FRAC * error, STILL_M)  # how close to the prediction another surface must be
    doubted = ~has_own | (error >= STILL_M)
    if doubted.any():
        doubted &= _distance_to_range_around(pred_fvhw_m, measured_fvhw_m) < limit
    index = np.nonzero(doubted)
    snapped = np.where(has_own, measured_fvhw_m, pred_fvhw_m)
    neighbour, gap = _nearest_neighbour(pred_fvhw_m[index], np.broadcast_to(measured_fvhw_m, doubted.shape), index)
    snapped[index] = np.where(gap < limit[index], neighbour, snapped[index])
    return snapped.astype(np.float32)


def _distance_to_range_around(pred_fvhw_m: np.ndarray, measured_fvhw_m: np.ndarray) -> np.ndarray:
    """Return how far each prediction is from the range of depths around it: no surface there can be closer to it."""
    around = {"size": (1, 1, 2 * REACH_PX + 1, 2 * REACH_PX + 1), "mode": "nearest"}  # a repeated edge adds nothing
    lowest = minimum_filter(np.where(measured_fvhw_m > 0, measured_fvhw_m, np.inf), **around)
    highest = maximum_filter(measured_fvhw_m, **around)
    return np.maximum(0, np.maximum(lowest - pred_fvhw_m, pred_fvhw_m - highest))


def _nearest_neighbour(
    pred_m: np.ndarray, measured_fvhw_m: np.ndarray, index: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return, of the depths measured around each pixel, the one closest to its prediction, and their difference."""
    frames, views, rows, cols = index
    height, width = measured_fvhw_m.shape[2:]
    best, least = pred_m.astype(np.float64), np.full(pred_m.shape, np.inf)
    steps = range(-REACH_PX, REACH_PX + 1)
    neighbour_cols = np.clip(cols + np.arange(-REACH_PX, REACH_PX + 1)[:, None], 0, width - 1)
    for down in steps:
        depths_m = measured_fvhw_m[frames, views, np.clip(rows + down, 0, height - 1), neighbour_cols]
        gaps = np.where(depths_m > 0, np.abs(depths_m - pred_m), np.inf)
        which = gaps.argmin(axis=0), np.arange(len(rows))
        better = gaps[which] < least
        best[better], least[better] = depths_m[which][better], gaps[which][better]
    return best, least
