"""A future that starts from what cameras measure now: surfaces move, they do not blur into one another.

In: predicted depth, what cameras see and measure, where they are and will be. Out: pictures and depth of what was seen.
Read next: `xwam/policy.py`, which asks for it; `xwam/codecs/codec.py`, whose decoded depth is blurred.

A codec of few numbers blurs the edge between a near hand and a far wall into depths at which nothing is. So predicted
depth only chooses: a pixel keeps the surface that was measured in it until the prediction is clearly nearer to another
one that was measured beside it. A camera that moves carries its measurement along to where its hand is predicted to be,
but for the hand itself, which comes along; what comes into its view is taken for the surface beside it.

Letters: F future frames, V views, H W rows and columns. Depths are z along the axis, metres, 0 where there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt, maximum_filter, minimum_filter

STILL_M = 0.3
"""A prediction that departs less than this from the surface in its pixel means that surface."""

SURE_FRAC = 0.4
"""A surface beside the pixel must be nearer to the prediction than this share of how far the pixel's own is off."""

REACH_PX = 5
"""How far beside the pixel, in rows and in columns."""

HAND_M = 0.1
"""What is nearer than this to a camera on a hand is the hand, or held by it."""


class Carried(NamedTuple):
    """What each view will show if nothing moves but the hand and its cameras: F,V,H,W,3 uint8 and F,V,H,W metres."""

    rgb_fvhwc_u8: np.ndarray
    depth_fvhw_m: np.ndarray


class Elsewhere(NamedTuple):
    """What a camera sees from elsewhere: metres, 0 where none of its surfaces is; the pixels that it was seen in."""

    depth_hw_m: np.ndarray
    rows_hw: np.ndarray
    cols_hw: np.ndarray


def carried_along(
    rgb_vhwc_u8: np.ndarray,
    depth_vhw_m: np.ndarray,
    intrinsics_v33_px: np.ndarray,
    T_cam_future_fv44: np.ndarray,
    moving: Sequence[int],
) -> Carried:
    """Return what is seen now, as each view will show it if nothing moves but the hand and its cameras.

    What a moving view will see for the first time looks like the nearest pixel that was seen.

    Args:
        rgb_vhwc_u8: V,H,W,3, seen now.
        depth_vhw_m: V,H,W, measured now.
        intrinsics_v33_px: V,3,3.
        T_cam_future_fv44: F,V,4,4, future poses of the cameras, each in its present frame.
        moving: Views that move with the hand.
    """
    rgb = np.repeat(rgb_vhwc_u8[None], len(T_cam_future_fv44), 0)
    depth = np.repeat(depth_vhw_m[None].astype(np.float64), len(T_cam_future_fv44), 0)
    for view in moving:
        depth_m = depth_vhw_m[view]
        hand = (depth_m > 0) & (depth_m < HAND_M)
        scene = np.where(hand, 0.0, depth_m)
        for frame_idx, T_cam_future in enumerate(T_cam_future_fv44[:, view]):
            seen = _without_holes(seen_from(scene, intrinsics_v33_px[view], T_cam_future))
            depth[frame_idx, view] = np.where(hand, depth_m, seen.depth_hw_m)
            same = hand | (seen.depth_hw_m == 0)  # where nothing that was seen comes into view, nobody knows better
            colours = rgb_vhwc_u8[view][seen.rows_hw, seen.cols_hw]
            rgb[frame_idx, view] = np.where(same[..., None], rgb_vhwc_u8[view], colours)
    return Carried(rgb, depth)


def _without_holes(seen: Elsewhere) -> Elsewhere:
    hole = seen.depth_hw_m <= 0
    if hole.all():
        return seen
    nearest = tuple(distance_transform_edt(hole, return_distances=False, return_indices=True))
    return Elsewhere(*(part[nearest] for part in seen))


def seen_from(depth_hw_m: np.ndarray, K: np.ndarray, T_now_future: np.ndarray) -> Elsewhere:
    """Return a depth image as its camera sees the same surfaces from elsewhere.

    Every point falls into one pixel; of several the nearest counts. An empty pixel beside a filled one, as where points
    spread out, takes the nearest surface beside it.

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
    points = np.flatnonzero(inside)
    points = points[np.argsort(-z[points], kind="stable")]  # of what is written to one place, the last stays
    nearest, source = np.full((height, width), np.inf), np.zeros((height, width), np.int64)
    nearest[v[points], u[points]] = z[points]
    source[v[points], u[points]] = np.flatnonzero(depth_hw_m > 0)[ahead][points]
    empty = ~np.isfinite(nearest)
    depth = nearest.copy()
    for down, right in BESIDE:
        beside = _moved(nearest, down, right, np.inf)
        better = empty & (beside < depth)
        depth[better] = beside[better]
        source[better] = _moved(source, down, right, 0)[better]
    rows, cols = np.divmod(source, width)
    return Elsewhere(np.where(np.isfinite(depth), depth, 0.0), rows, cols)


BESIDE = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0)]
"""The eight pixels around one, in rows and columns."""


def _moved(image_hw: np.ndarray, down: int, right: int, fill: float) -> np.ndarray:
    """Return an image moved by up to a pixel, filled up with a value at its edge."""
    height, width = image_hw.shape
    padded = np.pad(image_hw, 1, constant_values=fill)
    return padded[1 - down : 1 - down + height, 1 - right : 1 - right + width]


def on_surfaces(pred_fvhw_m: np.ndarray, measured_fvhw_m: np.ndarray) -> np.ndarray:
    """Return F,V,H,W float32: predicted depth, put onto measured surfaces; as predicted where none is near.

    Args:
        pred_fvhw_m: Predicted.
        measured_fvhw_m: Measured in each pixel.
    """
    has_own = measured_fvhw_m > 0
    off = np.abs(measured_fvhw_m - pred_fvhw_m)
    enough = np.where(has_own, SURE_FRAC * off, STILL_M)  # how near another surface must be to be meant
    doubted = ~has_own | (off >= STILL_M)
    doubted &= _distance_to_range_beside(pred_fvhw_m, measured_fvhw_m) < enough
    places = np.nonzero(doubted)
    beside, gap = _nearest_beside(pred_fvhw_m[places], measured_fvhw_m, places)
    own = np.where(has_own, measured_fvhw_m, pred_fvhw_m)
    own[places] = np.where(gap < enough[places], beside, own[places])
    return own.astype(np.float32)


def _distance_to_range_beside(pred_fvhw_m: np.ndarray, measured_fvhw_m: np.ndarray) -> np.ndarray:
    """Return how far each prediction is from the range of depths around it: no surface there can be nearer to it."""
    around = {"size": (1, 1, 2 * REACH_PX + 1, 2 * REACH_PX + 1), "mode": "nearest"}  # an edge repeated adds nothing
    lowest = minimum_filter(np.where(measured_fvhw_m > 0, measured_fvhw_m, np.inf), **around)
    highest = maximum_filter(measured_fvhw_m, **around)
    return np.maximum(0, np.maximum(lowest - pred_fvhw_m, pred_fvhw_m - highest))


def _nearest_beside(
    pred_m: np.ndarray, measured_fvhw_m: np.ndarray, places: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the depth measured around each place that is nearest to its prediction, and how far off it is."""
    frames, views, rows, cols = places
    height, width = measured_fvhw_m.shape[2:]
    best, least = pred_m.astype(np.float64), np.full(pred_m.shape, np.inf)
    steps = range(-REACH_PX, REACH_PX + 1)
    for down in steps:
        beside_rows = np.clip(rows + down, 0, height - 1)
        for right in steps:
            there = measured_fvhw_m[frames, views, beside_rows, np.clip(cols + right, 0, width - 1)]
            gap = np.where(there > 0, np.abs(there - pred_m), np.inf)
            better = gap < least
            best[better], least[better] = there[better], gap[better]
    return best, least
