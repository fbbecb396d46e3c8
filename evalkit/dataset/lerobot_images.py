"""Images of a LeRobot data set: which video frame belongs to which row, and images that are in the rows themselves.

In: the times of rows and of video frames; a column of encoded images or arrays. Out: frame numbers; pixels.
Read next: `lerobot_import.py`, which writes them in our layout.

Letters: N rows, F frames of a video file, H W rows and columns of an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pyarrow as pa

from evalkit.dataset.depth_video import MAX_DEPTH_MM, millimetres

SAME_TIME_FRAC = 0.25
"""A row and its video frame may be this share of a control step apart."""

DEPTH_UNITS = ("mm", "m")


class Placement(NamedTuple):
    """Frames of a video that belong to the rows of an episode: N frame numbers, and a warning or None."""

    frames: np.ndarray
    warning: str | None

    @property
    def start(self) -> int | None:
        """Return the first frame if each row has the frame after that of the row before; None otherwise."""
        first = int(self.frames[0])
        return first if np.array_equal(self.frames, np.arange(first, first + len(self.frames))) else None


def place_rows(
    rows_s: np.ndarray,
    frames_s: np.ndarray,
    *,
    fps: float,
    by_order: int | None,
    span_s: tuple[float, float] = (-np.inf, np.inf),
) -> Placement:
    """Return the video frame of each row: the one shown at its time.

    If times do not agree, rows and frames are matched in order, with a warning, but only if each row has one frame.

    Args:
        rows_s: N, times of the rows in the video file.
        frames_s: F, times of the frames; NaN if the file does not state them.
        fps: Control rate.
        by_order: The episode's first frame if the file has exactly one frame for each row. None if it has not.
        span_s: Times between which the episode lies in the file: of its first frame, and the end of its last one.

    Raises:
        ValueError: If a row has no frame.

    Example:
        >>> place_rows(np.array([0.1, 0.2]), np.arange(4) / 10, fps=10, by_order=None).frames.tolist()
        [1, 2]
    """
    nearest = _nearest(rows_s, frames_s)
    apart = np.abs(rows_s - frames_s[nearest]) * fps
    row = int(np.argmax(~(apart <= SAME_TIME_FRAC)))
    is_close = bool((apart <= SAME_TIME_FRAC).all())
    outside = _outside(rows_s, span_s, fps)
    if is_close and (np.diff(nearest) > 0).all() and not outside.any():
        return Placement(nearest, None)
    if outside.any():
        row = int(np.argmax(outside))
        reason = f"its row {row} is at {rows_s[row]:.4f} s of the video, and meta/episodes states that the episode is "
        reason += f"from {span_s[0]:.4f} s to {span_s[1]:.4f} s"
    elif is_close:
        row = int(np.argmin(np.diff(nearest) > 0)) + 1
        reason = f"its rows {row - 1} and {row} have the same video frame {nearest[row]}, at {rows_s[row]:.4f} s"
    elif np.isnan(frames_s).any():
        reason = "the video states no times"
    else:
        reason = f"its row {row} is at {rows_s[row]:.4f} s, and the nearest video frame {nearest[row]} is at "
        reason += f"{frames_s[nearest[row]]:.4f} s"
    if by_order is None:
        raise ValueError(f"{reason}; the video has {len(frames_s)} frames, which is not one for each row")
    frames = np.arange(by_order, by_order + len(rows_s))
    return Placement(frames, f"{reason}; there is one frame for each row, so they are matched in order")


def _outside(rows_s: np.ndarray, span_s: tuple[float, float], fps: float) -> np.ndarray:
    """Return which rows are at times at which another episode may be shown."""
    first_s, stop_s = span_s
    tolerance_s = SAME_TIME_FRAC / fps
    return (rows_s < first_s - tolerance_s) | (rows_s > stop_s - 1 / fps + tolerance_s)


def _nearest(rows_s: np.ndarray, frames_s: np.ndarray) -> np.ndarray:
    after = np.clip(np.searchsorted(frames_s, rows_s), 1, max(len(frames_s) - 1, 1))
    before = after - 1
    after = np.minimum(after, len(frames_s) - 1)
    return np.where(rows_s - frames_s[before] <= frames_s[after] - rows_s, before, after)


# ---- images in the rows


def rgb_images(column: pa.ChunkedArray, feature: Mapping[str, Any], root: Path) -> np.ndarray:
    """Return the images of a column, N,H,W,3 uint8: encoded in the rows, in files, or as arrays.

    Args:
        column: Images as bytes with a path, bytes, paths, or nested lists.
        feature: What `meta/info.json` says about it; an array may have its channels first.
        root: The data set, in which paths begin.

    Raises:
        ValueError: If a row has no image, or not one of three 8-bit channels.
        OSError: If a file cannot be read.
    """
    return _stacked([_rgb(row, feature, root) for row in column.to_pylist()])


def _rgb(row: Any, feature: Mapping[str, Any], root: Path) -> np.ndarray:
    if isinstance(row, list):
        pixels = _channels_last(np.array(row), feature)
        if pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 255:
            raise ValueError(
                f"the arrays hold {pixels.dtype} from {pixels.min()} to {pixels.max()}, whole numbers from 0 to 255 "
                f"are needed"
            )
        return pixels.astype(np.uint8)
    pixels = _decoded(row, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH, root, "an image of uint8")
    if pixels.dtype != np.uint8:
        raise ValueError(f"the rows hold an image of {pixels.dtype}, an image of uint8 is needed")
    return pixels[..., ::-1]


def _channels_last(pixels: np.ndarray, feature: Mapping[str, Any]) -> np.ndarray:
    """Return an image as H,W,3; names or shape in `meta/info.json` say where its channels are."""
    names, shape = feature.get("names"), feature.get("shape")
    axis = -1
    if isinstance(names, list) and any(str(name).startswith("channel") for name in names):
        axis = next(index for index, name in enumerate(names) if str(name).startswith("channel"))
    elif isinstance(shape, list) and len(shape) == 3 and shape[0] == 3 != shape[2]:
        axis = 0
    if pixels.ndim == 3 and pixels.shape[axis] == 3:
        return np.moveaxis(pixels, axis, -1)
    raise ValueError(f"the arrays have the shape {pixels.shape}, height, width and 3 channels are needed")


def depth_images(column: pa.ChunkedArray, unit: str | None, root: Path) -> np.ndarray:
    """Return the depth of a column in millimetres, N,H,W uint16; values that are not finite become 0, unknown.

    Args:
        column: Images as bytes with a path, bytes, paths, or nested lists.
        unit: Unit of the values; None for LeRobot's rule: whole numbers are millimetres, others metres.
        root: The data set, in which paths begin.

    Raises:
        ValueError: If a row has no image, or one that is not 16 bits or more deep.
        OSError: If a file cannot be read.
    """
    return _stacked([_depth(row, unit, root) for row in column.to_pylist()])


def _depth(row: Any, unit: str | None, root: Path) -> np.ndarray:
    needed = "an image of uint16 or float32"
    pixels = np.array(row) if isinstance(row, list) else _decoded(row, cv2.IMREAD_UNCHANGED, root, needed)
    if pixels.ndim == 3 and 1 in (pixels.shape[0], pixels.shape[2]):
        pixels = pixels[0] if pixels.shape[0] == 1 else pixels[..., 0]
    if pixels.ndim != 2 or pixels.dtype.kind not in "iuf" or pixels.dtype.itemsize < 2:
        raise ValueError(
            f"the rows hold an image of {pixels.dtype} {pixels.shape}, {needed} with one channel is needed"
        )
    if pixels.dtype.kind == "f":
        metres = pixels.astype(np.float64) / (1000 if unit == "mm" else 1)
        return millimetres(np.where(np.isfinite(metres), metres, 0.0))
    if unit == "m":
        raise ValueError(
            f"the rows hold depth of {pixels.dtype} in metres, which is too coarse; millimetres are needed"
        )
    if pixels.min() < 0 or pixels.max() > MAX_DEPTH_MM:
        raise ValueError(f"depth must lie between 0 and {MAX_DEPTH_MM} mm, got {pixels.min()} to {pixels.max()}")
    return pixels.astype(np.uint16)


def _decoded(row: Any, flags: int, root: Path, needed: str) -> np.ndarray:
    data = row.get("bytes") if isinstance(row, Mapping) else row
    path = row.get("path") if isinstance(row, Mapping) else row if isinstance(row, str) else None
    if isinstance(path, str) and not isinstance(data, bytes) and path:
        data = (root / path).read_bytes()
    frame = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if isinstance(data, bytes) and data else None
    if frame is None:
        raise ValueError(f"the rows hold no image, {needed} is needed")
    return frame


def _stacked(images: list[np.ndarray]) -> np.ndarray:
    if sizes := {image.shape for image in images if image.shape != images[0].shape}:
        raise ValueError(f"its images have different sizes: {images[0].shape} and {min(sizes)}")
    return np.stack(images)
