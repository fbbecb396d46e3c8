"""Converts depth from metres to the values of a grey video, to bytes and to whole millimetres.

In: depth in metres and a `DepthRange`. Out: the same depth as values from -1 to 1, as bytes or as millimetres.
Read next: `writer.py`, which writes both kinds of depth video.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_DEPTH_MM = 65535


@dataclass(frozen=True, kw_only=True)
class DepthRange:
    """Map from metres to the values of a depth video, -1 (far) to 1 (near), linear in 1 / (depth + offset).

    Attributes:
        near_m: Nearest depth; smaller depths become this.
        far_m: Farthest depth; larger and unknown depths become this.
        offset_m: 0 for plain inverse depth. Larger offsets give far surfaces more of the range.
    """

    near_m: float = 0.05
    far_m: float = 5.0
    offset_m: float = 0.5


def video_from_depth(depth_m: np.ndarray, depth_range: DepthRange) -> np.ndarray:
    """Return depth as values from -1 (far, or unknown) to 1 (near), float32.

    Example:
        >>> video_from_depth(np.array([0.05, 5.0, 0.0, 99.0]), DepthRange()).tolist()
        [1.0, -1.0, -1.0, -1.0]
    """
    r = depth_range
    depth_m = np.asarray(depth_m, np.float64)
    known = np.clip(np.where(depth_m > 0, depth_m, r.far_m), r.near_m, r.far_m)
    near, far = 1 / (r.near_m + r.offset_m), 1 / (r.far_m + r.offset_m)
    return (2 * (1 / (known + r.offset_m) - far) / (near - far) - 1).astype(np.float32)


def depth_from_video(video: np.ndarray, depth_range: DepthRange) -> np.ndarray:
    """Return metres, float32, from values in [-1, 1]; the inverse of `video_from_depth` between near and far.

    Example:
        >>> depth_from_video(video_from_depth(np.array([0.3, 2.0]), DepthRange()), DepthRange()).round(4).tolist()
        [0.30000001192092896, 2.0]
    """
    r = depth_range
    near, far = 1 / (r.near_m + r.offset_m), 1 / (r.far_m + r.offset_m)
    inverse = (np.clip(np.asarray(video, np.float64), -1, 1) + 1) / 2 * (near - far) + far
    return np.clip(1 / inverse - r.offset_m, r.near_m, r.far_m).astype(np.float32)


def millimetres(depth_m: np.ndarray) -> np.ndarray:
    """Return depth as whole millimetres, uint16, rounded; known depths below 0.5 mm become 1, because 0 means unknown.

    Raises:
        ValueError: If a depth is above 65.535 m, negative or not finite.

    Example:
        >>> millimetres(np.array([0.0, 1e-5, 1.2344])).tolist()
        [0, 1, 1234]
    """
    whole = np.rint(np.asarray(depth_m, np.float64) * 1000)
    if not np.isfinite(whole).all() or depth_m.min() < 0 or whole.max() > MAX_DEPTH_MM:
        raise ValueError(
            f"Depth must lie between 0 and {MAX_DEPTH_MM / 1000} m, got {depth_m.min()} to {depth_m.max()}."
        )
    return np.where(depth_m > 0, np.maximum(whole, 1), 0).astype(np.uint16)


def depth_bytes(depth_m: np.ndarray, depth_range: DepthRange) -> np.ndarray:
    """Return depth as the bytes of the 8-bit video: 255 near, 0 far or unknown."""
    return np.rint((video_from_depth(depth_m, depth_range) + 1) * 127.5).astype(np.uint8)
