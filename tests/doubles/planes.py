"""Depth of a known plane in closed form, for tests of benches; numpy only, because simulators' interpreters run it.

In: a depth image, its camera, a plane. Out: errors of the pixels on the plane.
Read next: `tests/sim/test_depth.py`; docs/decisions/0002-pixel-centres.md.
"""

from typing import NamedTuple

import numpy as np

ON_PLANE_M = 0.02
"""A pixel is on a plane if its depth, and that of its eight neighbours, is this near to the plane's."""


class PlaneErrors(NamedTuple):
    """Errors of depth on a plane, millimetres; positive is too far."""

    share_frac: float
    """Share of the image's pixels that are on the plane."""
    median_mm: float
    p95_mm: float
    """95th percentile of the absolute error."""


def plane_errors(
    depth_hw_m: np.ndarray, K: np.ndarray, T_base_cam: np.ndarray, *, normal: np.ndarray, point_m: np.ndarray
) -> PlaneErrors:
    """Return the errors of depth where a plane is seen.

    The ray through pixel (u, v) is K^-1 (u, v, 1): its z is 1, so that its length to the plane counts depth.

    Args:
        depth_hw_m: H,W metres along the optical axis.
        K: 3,3 pixels, pixel centres at integers.
        T_base_cam: 4,4.
        normal: Of the plane, in the base frame.
        point_m: Any point of the plane.
    """
    height, width = depth_hw_m.shape
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rays = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(K).T @ T_base_cam[:3, :3].T
    with np.errstate(divide="ignore"):
        expected_m = ((point_m - T_base_cam[:3, 3]) @ normal) / (rays @ normal)
    error_m = depth_hw_m - expected_m
    near = np.pad(np.abs(error_m) < ON_PLANE_M, 1)
    inside = np.lib.stride_tricks.sliding_window_view(near, (3, 3)).all(axis=(-2, -1))
    if not inside.any():
        return PlaneErrors(0.0, np.nan, np.nan)
    errors_mm = 1000 * error_m[inside]
    p95_mm = np.percentile(np.abs(errors_mm), 95)
    return PlaneErrors(float(inside.mean()), float(np.median(errors_mm)), float(p95_mm))
