"""Converts planar YUV to 8-bit RGB, the same to the bit on every machine and with every version of FFmpeg.

In: three planes, a matrix, a range and the places of the chroma samples. Out: an RGB image.
Read next: `video_pixels.py`, which takes them from a decoded frame and calls this.

FFmpeg's own converter (swscale) is not used: by default it is off by one to two grey levels, and with accurate flags
its results differ by version (docs/decisions/0013-colours-of-video.md). Only sums, products and comparisons of float32
are used here, none of them fused, in a fixed order. Chroma is interpolated linearly; interpolated values are exact in
float32.

Source: ITU-T H.273 (2021), section 8.3, equations 20 to 37 and 53 to 56.

Letters: H W rows and columns of the image; h w rows and columns of the chroma planes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np


class ChromaAxis(NamedTuple):
    """Where the rows or columns of an image lie between the chroma samples.

    Attributes:
        step: Rows or columns that share a sample.
        first: For each of them, the sample before it, counted from the shared one: 0 or -1.
        share: For each of them, the share of the next sample.
    """

    step: int
    first: np.ndarray
    share: np.ndarray


def chroma_axis(step: int, *, centred: bool) -> ChromaAxis:
    """Return where the rows or columns of an image lie between the chroma samples.

    Args:
        step: Rows or columns that share a sample.
        centred: Whether a sample lies in the middle of those that share it, instead of on the first of them.

    Example:
        >>> axis = chroma_axis(2, centred=True)
        >>> axis.first.tolist(), axis.share.tolist()
        ([-1, 0], [0.75, 0.25])
    """
    place = (np.arange(step) + 0.5) / step - 0.5 if centred else np.arange(step) / step
    first = np.floor(place)
    return ChromaAxis(step, first.astype(np.int64), (place - first).astype(np.float32))


def factors(red: float, blue: float, *, bits: int, full_range: bool) -> np.ndarray:
    """Return what the conversion multiplies and adds, float32: see `rgb_from_yuv`.

    Args:
        red: Share of red in luma (K_R).
        blue: Share of blue in luma (K_B).
        bits: Bits of a sample.
        full_range: Whether luma runs from 0 to the largest value, instead of from 16 to 235 (of 8 bits).

    Example:
        >>> factors(0.299, 0.114, bits=8, full_range=True).astype(float).round(4).tolist()
        [1.0, 0.0, 128.0, 1.402, -0.7141, -0.3441, 1.772]
    """
    scale = 1 << (bits - 8)
    luma, chroma = (2**bits - 1, 2**bits - 1) if full_range else (219 * scale, 224 * scale)
    green = 1 - red - blue
    by_chroma = np.array([2 * (1 - red), -2 * (1 - red) * red / green, -2 * (1 - blue) * blue / green, 2 * (1 - blue)])
    black = 0 if full_range else 16 * scale
    return np.array([255 / luma, black, 128 * scale, *(255 / chroma * by_chroma)], np.float32)


@numba.njit(cache=True, nogil=True)
def rgb_from_yuv(y: Any, u: Any, v: Any, columns: Any, rows: Any, factor: Any, out: Any) -> None:
    """Write the red, green and blue plane of an image, 3,H,W uint8.

    Args:
        y: Luma, at least H,W.
        u: First chroma plane (blue), at least h,w.
        v: Second chroma plane (red), at least h,w.
        columns: `ChromaAxis` of the columns.
        rows: `ChromaAxis` of the rows.
        factor: Of luma; black; grey of chroma; red by v; green by v; green by u; blue by u.
        out: The planes.
    """
    _, height, width = out.shape
    num_columns, num_rows = -(-width // columns.step), -(-height // rows.step)
    blue, red = np.empty(num_columns + 2, np.float32), np.empty(num_columns + 2, np.float32)
    blue_wide = np.empty((num_columns, columns.step), np.float32)
    red_wide = np.empty((num_columns, columns.step), np.float32)
    blue_row, red_row = blue_wide.reshape(-1), red_wide.reshape(-1)
    for i in range(height):
        above = i // rows.step + rows.first[i % rows.step]
        below, down = min(above + 1, num_rows - 1), rows.share[i % rows.step]
        above = max(above, 0)
        _between(u[above], u[below], down, factor[2], blue)
        _between(v[above], v[below], down, factor[2], red)
        _spread(blue, columns.first, columns.share, blue_wide)
        _spread(red, columns.first, columns.share, red_wide)
        _mix(y[i], blue_row, red_row, factor, out[0, i], out[1, i], out[2, i])


@numba.njit(cache=True, nogil=True)
def _between(above: Any, below: Any, share: Any, grey: Any, out: Any) -> None:
    """Write chroma between two rows, less grey; the first and last sample are repeated."""
    inner = out[1:-1]
    for k in range(len(inner)):
        first = np.float32(above[k])
        inner[k] = first + (np.float32(below[k]) - first) * share - grey
    out[0], out[-1] = out[1], out[-2]


@numba.njit(cache=True, nogil=True)
def _spread(samples: Any, first: Any, share: Any, out: Any) -> None:
    """Write the chroma of all columns, w,step; `samples` begins with one repeated sample."""
    num, step = out.shape
    for phase in range(step):
        left, right, along = samples[1 + first[phase] :], samples[2 + first[phase] :], share[phase]
        for k in range(num):
            out[k, phase] = left[k] + (right[k] - left[k]) * along


@numba.njit(cache=True, nogil=True)
def _mix(luma: Any, blue: Any, red: Any, factor: Any, out_r: Any, out_g: Any, out_b: Any) -> None:
    """Write one row of the three planes, rounded; values beyond 0 and 255 become these."""
    scale, black, red_v, green_v, green_u, blue_u = factor[0], factor[1], factor[3], factor[4], factor[5], factor[6]
    half, low, high = np.float32(0.5), np.int32(0), np.int32(255)
    for j in range(len(out_r)):
        grey = (np.float32(luma[j]) - black) * scale + half
        out_r[j] = np.uint8(min(max(np.int32(grey + red[j] * red_v), low), high))
        out_g[j] = np.uint8(min(max(np.int32(grey + (red[j] * green_v + blue[j] * green_u)), low), high))
        out_b[j] = np.uint8(min(max(np.int32(grey + blue[j] * blue_u), low), high))
