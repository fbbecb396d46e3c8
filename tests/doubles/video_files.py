"""Small video files with known planes, times and tags, and an independent conversion of YUV to RGB in float64.

In: planes, pixel format, tags, times. Out: a file; an RGB image.
Read next: `tests/unit/test_dataset_video_pixels.py` and `tests/unit/test_dataset_video_timeline.py`, which use it.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

LIMITED, FULL = 1, 2
"""Ranges, of `AVColorRange`."""

LOSSLESS: dict[str, dict[str, str]] = {
    "libx264": {"qp": "0", "preset": "ultrafast", "threads": "1"},
    "libx265": {"x265-params": "lossless=1:bframes=0:log-level=error:pools=1"},
    "libvpx-vp9": {"lossless": "1"},
    "ffv1": {"level": "3"},
}
"""Options with which these codecs keep every value."""

SHARES = {
    1: (0.2126, 0.0722),
    2: (0.299, 0.114),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
"""Shares of red and blue in luma by MatrixCoefficients of ITU-T H.273; 2 is not stated, and read as BT.601."""


def planes_of(pix_fmt: str, hw_px: tuple[int, int], *, seed: int = 0) -> list[np.ndarray]:
    """Return random planes of a grey or YUV format whose colours lie inside RGB; chroma changes slowly."""
    bits = 12 if "12" in pix_fmt else 10 if "10" in pix_fmt else 16 if "16" in pix_fmt else 8
    kind, scale, rng = np.uint8 if bits == 8 else np.uint16, 2 ** (bits - 8), np.random.default_rng(seed)
    height, width = hw_px
    planes = [rng.integers(90 * scale, 160 * scale, hw_px)]
    down = 1 + ("420" in pix_fmt)
    across = 1 + ("420" in pix_fmt or "422" in pix_fmt)
    for _ in range(0 if pix_fmt.startswith("gray") else 2):
        rows, columns = -(-height // down), -(-width // across)
        tilt = rng.uniform(-0.4, 0.4, 2) * scale
        chroma = 128 * scale + tilt[0] * np.arange(rows)[:, None] + tilt[1] * np.arange(columns)
        planes.append(np.rint(chroma + rng.uniform(-20, 20) * scale))
    return [plane.astype(kind) for plane in planes]


def write_planes(
    path: Path,
    frames: Sequence[Sequence[np.ndarray]],
    pix_fmt: str,
    *,
    codec: str = "ffv1",
    matrix: int = 2,
    colour_range: int = 0,
    ticks: Sequence[int] | None = None,
    fps: int = 10,
    options: dict[str, str] | None = None,
    gop_size: int = 12,
) -> Path:
    """Write frames, each given as its planes, at times in units of 1 / `fps`."""
    height, width = frames[0][0].shape
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=fps, options=LOSSLESS.get(codec, {}) | (options or {}))
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        stream.codec_context.time_base, stream.codec_context.gop_size = Fraction(1, fps), gop_size
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, colour_range
        for number, planes in enumerate(frames):
            frame: Any = av.VideoFrame(width, height, pix_fmt)
            for plane, values in zip(frame.planes, planes, strict=True):
                lines = np.zeros((values.shape[0], plane.line_size // values.itemsize), values.dtype)
                lines[:, : values.shape[1]] = values
                plane.update(lines.tobytes())
            frame.colorspace, frame.color_range = matrix, colour_range
            frame.time_base, frame.pts = Fraction(1, fps), number if ticks is None else ticks[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def numbered(count: int, hw_px: tuple[int, int] = (32, 48)) -> list[list[np.ndarray]]:
    """Return grey YUV 4:2:0 frames whose brightness tells their numbers: 5 levels apart, from 20 on."""
    rows, columns = hw_px[0] // 2, hw_px[1] // 2
    chroma = np.full((rows, columns), 128, np.uint8)
    return [[np.full(hw_px, 20 + 5 * number, np.uint8), chroma, chroma] for number in range(count)]


def numbers_in(images: np.ndarray) -> list[int]:
    """Return the numbers that `numbered` wrote, from RGB images."""
    luma = images[:, 0, 0, 0].astype(float) * 219 / 255 + 16
    return [round((value - 20) / 5) for value in luma.tolist()]


def expected_rgb(
    planes: Sequence[np.ndarray], *, bits: int, matrix: int, full_range: bool, centred: bool = False
) -> np.ndarray:
    """Return RGB before rounding, H,W,3 float64, by inverting the matrix from RGB to YUV."""
    red, blue = SHARES[matrix]
    luma = np.array([red, 1 - red - blue, blue])
    to_yuv = np.array([luma, (np.eye(3)[2] - luma) / (2 - 2 * blue), (np.eye(3)[0] - luma) / (2 - 2 * red)])
    scale, (height, width) = 2 ** (bits - 8), planes[0].shape
    y, u, v = (_as_large(plane.astype(np.float64), (height, width), centred=centred) for plane in planes)
    span = (2**bits - 1, 2**bits - 1) if full_range else (219 * scale, 224 * scale)
    black = 0 if full_range else 16 * scale
    yuv = np.stack([(y - black) / span[0], (u - 128 * scale) / span[1], (v - 128 * scale) / span[1]], axis=-1)
    return (yuv @ np.linalg.inv(to_yuv).T * 255).clip(0, 255)


def _as_large(plane: np.ndarray, hw_px: tuple[int, int], *, centred: bool) -> np.ndarray:
    """Return a plane as large as the image: rows between samples, columns on the left one or in the middle."""
    for axis, middle in ((0, True), (1, centred)):
        step = round(hw_px[axis] / plane.shape[axis])
        if step > 1:
            samples = np.arange(plane.shape[axis]) * step + (0.5 * (step - 1) if middle else 0)
            at = np.arange(hw_px[axis])
            plane = np.apply_along_axis(lambda line: np.interp(at, samples, line), axis, plane)  # noqa: B023
    return plane


def set_display_matrix(path: Path, matrix: tuple[float, float, float, float]) -> None:
    """Change the display matrix (a, b, c, d) in the track header of an mp4: x' = a x + c y, y' = b x + d y."""
    data = bytearray(path.read_bytes())
    header = data.find(b"tkhd")
    first = header + 8 + (32 if data[header + 4] else 20) + 16
    a, b, c, d = (round(value * 65536) for value in matrix)
    data[first : first + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
