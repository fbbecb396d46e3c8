"""PSNR and SSIM of RGB frames.

In: uint8 images, true and predicted, of equal shape. Out: decibels and similarities in [-1, 1].
Read next: `lpips.py`, the learned distance; `depth.py`, the same for depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numba
import numpy as np

from evalkit.score.metrics.device import CPU, filter_valid, to_device
from evalkit.score.results.outcome import Measure

GAUSS_TAPS, GAUSS_SIGMA_PX = 11, 1.5
C1, C2 = 0.01**2, 0.03**2
"""SSIM's constants for a range of 1."""

Grid = Any
"""An array of H,W,3; a tensor of the same axes if the images are on a device."""


def mse(rgb_true_u8: np.ndarray, rgb_pred_u8: np.ndarray) -> float:
    """Return the mean squared difference of uint8 images over pixels and channels, of a range of 1.

    Example:
        >>> mse(np.full((2, 2, 3), 90, np.uint8), np.full((2, 2, 3), 141, np.uint8))  # (51 / 255) ** 2
        0.04
    """
    squares = cv2.norm(np.ascontiguousarray(rgb_true_u8), np.ascontiguousarray(rgb_pred_u8), cv2.NORM_L2SQR)
    return float(squares / (rgb_true_u8.size * 255.0**2))


def psnr_db(mean_squared: float) -> Measure:
    """Return -10 log10 of a mean squared error of range 1, decibels; an error of 0 gives a status and no value.

    The caller averages: decibels over frames (`frame_mean`), or the error first (`clip_pooled`), which never gives
    more.

    Example:
        >>> psnr_db(0.01).value
        20.0
        >>> psnr_db(0.0).status
        'identical_frames'
    """
    if mean_squared == 0.0:
        return Measure(None, "identical_frames")
    return Measure(float(-10.0 * np.log10(mean_squared)))


def psnr_eps_db(mean_squared: float) -> float:
    """Return PSNR with 1e-8 added to the squared error, decibels: X-WAM's form, 80 dB for identical frames.

    Example:
        >>> psnr_eps_db(0.0)
        80.0
    """
    return float(-10.0 * np.log10(mean_squared + 1e-8))


@dataclass(frozen=True, kw_only=True, eq=False)
class SsimHalf:
    """The part of SSIM that depends on one image; reused if an image is compared more than once.

    Attributes:
        image_hwc: The image: uint8, or on a device float64 of range 1.
        mean_hwc: Its windowed mean, range 1, float64: variances of flat regions need the digits.
        square_hwc: The windowed mean of its square.
    """

    image_hwc: Grid
    mean_hwc: Grid
    square_hwc: Grid


def ssim_half(rgb_u8: np.ndarray, *, device: str = CPU) -> SsimHalf:
    """Return the windowed mean of one uint8 image and of its square, range 1."""
    image: Grid = rgb_u8 if device == CPU else to_device(device, rgb_u8) * (1 / 255)
    return SsimHalf(image_hwc=image, mean_hwc=_window_mean(image), square_hwc=_window_mean(image, image))


def ssim(rgb_true_u8: np.ndarray | SsimHalf, rgb_pred_u8: np.ndarray | SsimHalf, *, device: str = CPU) -> float:
    """Return the structural similarity of two images, 1 for equal ones: the form of the original paper.

    Window: gaussian of 11x11 pixels, sigma 1.5; only windows that lie inside the image (5 pixels are cropped);
    population covariance; range 1; a channel at a time, then the mean over pixels and channels. Equals scikit-image
    with `gaussian_weights=True, sigma=1.5, use_sample_covariance=False`; its defaults are another metric.

    Args:
        rgb_true_u8: H,W,3 uint8, or its `ssim_half` on the same device.
        rgb_pred_u8: The same of the other image.
        device: Where to compute; the values agree to rounding.

    Raises:
        ValueError: If the image is smaller than the window.

    Example:
        >>> round(ssim(np.full((16, 16, 3), 90, np.uint8), np.full((16, 16, 3), 110, np.uint8)), 4)
        0.9802
    """
    a, b = (
        each if isinstance(each, SsimHalf) else ssim_half(each, device=device) for each in (rgb_true_u8, rgb_pred_u8)
    )
    both = _window_mean(a.image_hwc, b.image_hwc)
    windows = a.mean_hwc, b.mean_hwc, a.square_hwc, b.square_hwc, both
    return float(_ssim_mean(*windows) if device == CPU else _ssim(*windows).mean())


def _ssim(a: Grid, b: Grid, square_a: Grid, square_b: Grid, both: Grid) -> Grid:
    """Return the similarity of windows from the means of both images, of their squares and of their product."""
    ab, aa_bb = a * b, a * a + b * b
    return (2 * ab + C1) * (2 * (both - ab) + C2) / ((aa_bb + C1) * (square_a + square_b - aa_bb + C2))


_ssim_of_numbers = numba.njit(cache=True, nogil=True)(_ssim)


@numba.njit(cache=True, nogil=True)
def _ssim_mean(
    mean_a: np.ndarray, mean_b: np.ndarray, square_a: np.ndarray, square_b: np.ndarray, both: np.ndarray
) -> float:
    total = 0.0
    height, width, channels = mean_a.shape
    for v in range(height):
        for u in range(width):
            for c in range(channels):
                a, b = mean_a[v, u, c], mean_b[v, u, c]
                total += _ssim_of_numbers(a, b, square_a[v, u, c], square_b[v, u, c], both[v, u, c])
    return total / mean_a.size


def _window_mean(image_hwc: Grid, other_hwc: Grid | None = None) -> Grid:
    """Return the mean of each window of an image, or of its product with another one, range 1."""
    height, width, channels = image_hwc.shape
    if min(height, width) < GAUSS_TAPS:
        raise ValueError(f"SSIM needs images of at least {GAUSS_TAPS} pixels a side, got {(height, width)}.")
    taps = cv2.getGaussianKernel(GAUSS_TAPS, GAUSS_SIGMA_PX, cv2.CV_64F)
    if not isinstance(image_hwc, np.ndarray):
        return filter_valid(image_hwc if other_hwc is None else image_hwc * other_hwc, taps)
    other_hwc, grey_levels = (np.ones_like(image_hwc), 255.0) if other_hwc is None else (other_hwc, 255.0**2)
    rows, others = (np.ascontiguousarray(each).reshape(height, -1) for each in (image_hwc, other_hwc))
    means = np.empty((height - GAUSS_TAPS + 1, (width - GAUSS_TAPS + 1) * channels))
    _filter_product(rows, others, taps[:, 0], 1.0 / grey_levels, channels, means)
    return means.reshape(len(means), -1, channels)


@numba.njit(cache=True, nogil=True)
def _filter_product(
    a_u8: np.ndarray, b_u8: np.ndarray, taps: np.ndarray, scale: float, num_channels: int, means: np.ndarray
) -> None:
    """Write the filtered product of two uint8 images, H,W*C, where all taps lie inside; products are exact integers.

    Taps are symmetric, so that two pixels share one multiplication. A pass down the columns fills a row that stays in
    the cache for the pass along it.
    """
    middle, width = taps.size // 2, means.shape[1]
    down = np.empty(a_u8.shape[1])
    for v in range(means.shape[0]):
        a, b = a_u8[v + middle], b_u8[v + middle]
        for u in range(down.size):
            down[u] = scale * taps[middle] * (np.int32(a[u]) * np.int32(b[u]))
        for tap in range(middle):
            a, b, a2, b2 = a_u8[v + tap], b_u8[v + tap], a_u8[v + 2 * middle - tap], b_u8[v + 2 * middle - tap]
            for u in range(down.size):
                down[u] += scale * taps[tap] * (np.int32(a[u]) * np.int32(b[u]) + np.int32(a2[u]) * np.int32(b2[u]))
        mean, centre = means[v], down[middle * num_channels :]
        for u in range(width):
            mean[u] = taps[middle] * centre[u]
        for tap in range(middle):
            left, right = down[tap * num_channels :], down[(2 * middle - tap) * num_channels :]
            for u in range(width):
                mean[u] += taps[tap] * (left[u] + right[u])


def thumbnail(image: np.ndarray, longest_px: int) -> np.ndarray:
    """Return an image, H,W or H,W,C, of at most `longest_px` a side, averaged over areas, float32.

    Example:
        >>> thumbnail(np.zeros((64, 128, 3), np.uint8), 32).shape
        (16, 32, 3)
    """
    height, width = image.shape[:2]
    scale = min(1.0, longest_px / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(np.ascontiguousarray(image), size, interpolation=cv2.INTER_AREA).astype(np.float32)
