"""Moving pixels: where the ground truth changes, errors there, and how far points move.

In: RGB and depth images of one view. Out: masks, mean squared errors, and end-point errors in pixels.
Read next: `evalkit/score/extra.py`, whose rows these are; `image.py` and `depth.py`, the same over whole images.

Most pixels of a manipulation scene stand still, so that a prediction which repeats its first image scores well over
whole images. Over moving pixels it does not.
"""

from __future__ import annotations

import cv2
import numba
import numpy as np

from evalkit.score.metrics.depth import MAX_DEPTH_M, MIN_DEPTH_M

COLOUR_CHANGE_U8 = 25
"""A pixel moves if one of its channels changes by more grey levels than this (a tenth of the range), ..."""

DEPTH_CHANGE_FRAC = 0.02
"""... or its depth by more than this share, both depths in the range of the depth metrics."""

MIN_PIXELS = 16
"""Fewer pixels of a mask give no value."""


def moving_mask(
    before_rgb_u8: np.ndarray, rgb_u8: np.ndarray, before_depth_m: np.ndarray, depth_m: np.ndarray
) -> np.ndarray:
    """Return which pixels of a ground-truth image differ from an earlier one in colour or depth, H,W bool.

    Args:
        before_rgb_u8: H,W,3, the earlier image.
        rgb_u8: H,W,3.
        before_depth_m: H,W metres; 0 where there is none.
        depth_m: H,W metres; 0 where there is none.

    Example:
        >>> black, depth_m = np.zeros((1, 3, 3), np.uint8), np.ones((1, 3))
        >>> lighter = black + np.array([[[30], [20], [0]]], np.uint8)
        >>> moving_mask(black, lighter, depth_m, depth_m * [[1.0, 1.0, 1.1]]).tolist()
        [[True, False, True]]
    """
    return np.asarray(_moving(before_rgb_u8, rgb_u8, before_depth_m, depth_m))


@numba.njit(cache=True, nogil=True)
def _moving(before_u8: np.ndarray, rgb_u8: np.ndarray, before_m: np.ndarray, depth_m: np.ndarray) -> np.ndarray:
    height, width = depth_m.shape
    moving = np.zeros((height, width), np.bool_)
    for v in range(height):
        for u in range(width):
            for c in range(3):
                if abs(np.int64(before_u8[v, u, c]) - np.int64(rgb_u8[v, u, c])) > COLOUR_CHANGE_U8:
                    moving[v, u] = True
            before, after = before_m[v, u], depth_m[v, u]
            if MIN_DEPTH_M < before < MAX_DEPTH_M and MIN_DEPTH_M < after < MAX_DEPTH_M:
                moving[v, u] |= abs(after - before) > DEPTH_CHANGE_FRAC * before
    return moving


def masked_mse(true_u8: np.ndarray, pred_u8: np.ndarray, mask: np.ndarray) -> float:
    """Return the mean squared difference of uint8 images over the pixels of a mask and the channels, of a range of 1.

    Example:
        >>> true = np.full((2, 2, 3), 90, np.uint8)
        >>> masked_mse(true, true + np.uint8(51), np.array([[True, False], [False, False]]))
        0.04
    """
    difference = true_u8[mask].astype(np.int32) - pred_u8[mask]
    return float(np.mean(difference * difference) / 255.0**2)


def flow_px(before_rgb_u8: np.ndarray, rgb_u8: np.ndarray) -> np.ndarray:
    """Return how far each pixel of an image has moved in a later one, H,W,2 pixels: OpenCV's DIS, preset medium."""
    before, after = (cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY) for image in (before_rgb_u8, rgb_u8))
    start = np.zeros((*before.shape, 2), np.float32)
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(before, after, start)
    return np.asarray(flow)


def endpoint_error_px(true_flow_px: np.ndarray, pred_flow_px: np.ndarray, mask: np.ndarray) -> float:
    """Return the mean distance between the ends of true and predicted motion over a mask, pixels.

    Example:
        >>> still = np.zeros((2, 2, 2))
        >>> endpoint_error_px(still, still + [3.0, 4.0], np.ones((2, 2), bool))
        5.0
    """
    return float(np.linalg.norm(true_flow_px[mask] - pred_flow_px[mask], axis=-1).astype(np.float64).mean())
