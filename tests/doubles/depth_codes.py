"""LeRobot's 12-bit codes of depth as it writes them: codes of millimetres, their map in `info.json`, their video.

In: depth in millimetres, a map. Out: codes; a video of grey HEVC.
Read next: `evalkit/dataset/depth_video.py`, which reads them; `tests/unit/test_dataset_depth_codes.py`.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.dataset.depth_video import LARGEST_CODE, DepthCodes
from tests.doubles.video_files import write_planes


def exact_codes(depth_mm: np.ndarray) -> DepthCodes:
    """Return the map that keeps every known depth to the millimetre; these span at most 4.093 m."""
    nearest = int(depth_mm[depth_mm > 0].min())
    low, high = (nearest - 1) / 1000, (nearest - 1 + LARGEST_CODE) / 1000
    return DepthCodes(depth_min=low, depth_max=high, shift=0.0, use_log=False)


def info_of(codes_of: DepthCodes) -> dict[str, Any]:
    """Return what `info.json` states of a map."""
    return {f"video.{name}": value for name, value in asdict(codes_of).items()}


def encoded(codes_of: DepthCodes, depth_mm: np.ndarray) -> np.ndarray:
    """Return the codes of whole millimetres, uint16, as LeRobot 0.6.1 computes them.

    An unknown depth, 0, gets code 0, and a known one never.
    """
    low, high, shift = (np.float32(value * 1000) for value in (codes_of.depth_min, codes_of.depth_max, codes_of.shift))
    depth = np.maximum(depth_mm, 1).astype(np.float32)
    if codes_of.use_log:
        low_log, high_log = math.log(float(low + shift)), math.log(float(high + shift))
        share = (np.log(depth + shift) - np.float32(low_log)) / np.float32(high_log - low_log)
    else:
        share = (depth - low) / (high - low)
    codes = np.rint(share * np.float32(LARGEST_CODE)).clip(1, LARGEST_CODE)
    return np.where(np.asarray(depth_mm) > 0, codes, 0).astype(np.uint16)


def write_depth_codes(path: Path, codes: np.ndarray, *, fps: int) -> None:
    """Write codes, F,H,W uint16, without loss: all frames are keyframes, because x265's lossless mode changes values
    of narrow images between frames."""
    options = {"x265-params": "lossless=1:keyint=1:ctu=16:log-level=error:pools=1"}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_planes(path, [[frame] for frame in codes], "gray12le", codec="libx265", fps=fps, options=options)
