"""Converts depth from metres to the values of a grey video, to bytes, to whole millimetres and to LeRobot's codes.

In: depth in metres and a `DepthRange`, or millimetres and `DepthCodes`. Out: the same depth as values from -1 to 1, as
bytes, as millimetres or as codes.
Read next: `writer.py`, which writes both kinds of depth video.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

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


LARGEST_CODE = 4095
"""Largest code of a 12-bit depth video."""

_INFO_NAMES = ("depth_min", "depth_max", "shift", "use_log")


@dataclass(frozen=True, kw_only=True)
class DepthCodes:
    """Map from metres to the 12-bit codes of LeRobot's depth videos; the names are those in its `info.json`.

    Code 0 is `depth_min` or nearer, and also what a missing depth becomes: LeRobot has no code for it. Code 4095 is
    `depth_max` or farther.

    Attributes:
        depth_min: Metres at code 0.
        depth_max: Metres at code 4095.
        shift: Metres added before the logarithm.
        use_log: Whether codes are linear in log(depth + shift), instead of in depth.

    Raises:
        ValueError: If the numbers give no map.
    """

    depth_min: float = 0.01
    depth_max: float = 10.0
    shift: float = 3.5
    use_log: bool = True

    def __post_init__(self) -> None:
        finite = np.isfinite([self.depth_min, self.depth_max, self.shift]).all()
        if (
            not finite
            or not 0 <= self.depth_min < self.depth_max
            or (self.use_log and self.depth_min + self.shift <= 0)
        ):
            raise ValueError(
                f"codes of depth need 0 <= depth_min < depth_max and depth_min + shift > 0, got {asdict(self)}"
            )

    @classmethod
    def from_info(cls, info: Mapping[str, Any]) -> DepthCodes:
        """Return the map that the `info` of a feature states; LeRobot's defaults where it states none.

        Raises:
            ValueError: If a number is of another type, or they give no map.

        Example:
            >>> DepthCodes.from_info({"video.depth_max": 5.0, "video.use_log": False}).depth_max
            5.0
        """
        stated = {key: info[name] for key in _INFO_NAMES if info.get(name := f"video.{key}") is not None}
        for key, value in stated.items():
            if isinstance(value, bool) != (key == "use_log") or not isinstance(value, int | float):
                raise ValueError(f"'video.{key}' of a depth video is {value!r}")
        return cls(**stated)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """Return whole millimetres, uint16, from codes, as LeRobot 0.6.1 computes them; but code 0 is unknown, 0.

        LeRobot rounds in float32: where a code is half a millimetre between two, its own ways of reading differ by one.

        Raises:
            ValueError: If a code is above 4095.

        Example:
            >>> DepthCodes().decode(np.array([0, 1, 397, 4095])).tolist()
            [0, 11, 500, 10000]
        """
        if codes.size and codes.max() > LARGEST_CODE:
            raise ValueError(f"codes of depth go up to {LARGEST_CODE}, this video holds {codes.max()}")
        return self._millimetres()[codes]

    def describe_limits(self, codes: np.ndarray) -> str:
        """Return which share of pixels is at the first and last code, where a code does not tell the depth.

        Example:
            >>> DepthCodes().describe_limits(np.array([0, 0, 7, 4095]))
            '50.0 % of pixels have no depth or are nearer than 0.01 m, 25.0 % are at 10 m or farther'
        """
        near, far = (100 * np.count_nonzero(codes == code) / max(codes.size, 1) for code in (0, LARGEST_CODE))
        return (
            f"{near:.1f} % of pixels have no depth or are nearer than {self.depth_min:g} m, "
            f"{far:.1f} % are at {self.depth_max:g} m or farther"
        )

    def _millimetres(self) -> np.ndarray:
        """Return the depth of every code."""
        codes = np.arange(LARGEST_CODE + 1, dtype=np.float32)
        low, high = self.depth_min, self.depth_max
        if self.use_log:
            low, high = math.log(low + self.shift), math.log(high + self.shift)
        depth = codes * np.float32((high - low) / LARGEST_CODE) + np.float32(low)
        if self.use_log:
            depth = np.exp(depth) - np.float32(self.shift)
        millimetre = np.rint(depth.clip(self.depth_min, self.depth_max) * np.float32(1000)).clip(1, MAX_DEPTH_MM)
        millimetre[0] = 0
        return millimetre.astype(np.uint16)


def states_lossless(info: Mapping[str, Any]) -> bool:
    """Return whether the `info` of a depth video says that encoding it changed no code.

    Example:
        >>> states_lossless({"video.codec": "hevc", "video.extra_options": {"x265-params": "lossless=1"}})
        True
        >>> states_lossless({"video.codec": "hevc", "video.crf": 30})
        False
    """
    return info.get("video.codec") == "ffv1" or "lossless=1" in str(info.get("video.extra_options"))
