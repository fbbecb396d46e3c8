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
    """The part of SSIM that depends on one image; reused if a ground-truth frame is compared more than once.

    Attributes:
        image_hwc: The image, range 1, float64: variances of flat regions need the digits.
        mean_hwc: Its windowed mean.
        variance_hwc: Its windowed variance.
    """

    image_hwc: Grid
    mean_hwc: Grid
    variance_hwc: Grid


def ssim_half(rgb_u8: np.ndarray, *, device: str = CPU) -> SsimHalf:
    """Return the windowed mean and variance of one uint8 image, range 1."""
    image: Grid = (rgb_u8 if device == CPU else to_device(device, rgb_u8)) * (1 / 255)
    mean = _gauss_valid(image)
    variance = _gauss_valid(image * image)
    variance -= mean * mean
    return SsimHalf(image_hwc=image, mean_hwc=mean, variance_hwc=variance)


def ssim(rgb_true_u8: np.ndarray | SsimHalf, rgb_pred_u8: np.ndarray, *, device: str = CPU) -> float:
    """Return the structural similarity of two images, 1 for equal ones: the form of the original paper.

    Window: gaussian of 11x11 pixels, sigma 1.5; only windows that lie inside the image (5 pixels are cropped);
    population covariance; range 1; a channel at a time, then the mean over pixels and channels. Equals scikit-image
    with `gaussian_weights=True, sigma=1.5, use_sample_covariance=False`; its defaults are another metric.

    Args:
        rgb_true_u8: H,W,3 uint8, or its `ssim_half` on the same device.
        rgb_pred_u8: H,W,3 uint8.
        device: Where to compute; the values agree to rounding.

    Raises:
        ValueError: If the image is smaller than the window.

    Example:
        >>> round(ssim(np.full((16, 16, 3), 90, np.uint8), np.full((16, 16, 3), 110, np.uint8)), 4)
        0.9802
    """
    a = rgb_true_u8 if isinstance(rgb_true_u8, SsimHalf) else ssim_half(rgb_true_u8, device=device)
    b = ssim_half(rgb_pred_u8, device=device)
    covariance = _gauss_valid(a.image_hwc * b.image_hwc)
    covariance -= a.mean_hwc * b.mean_hwc
    windows = a.mean_hwc, b.mean_hwc, a.variance_hwc, b.variance_hwc, covariance
    return float(_ssim_mean(*windows) if device == CPU else _ssim(*windows).mean())


def _ssim(a: Grid, b: Grid, variance_a: Grid, variance_b: Grid, covariance: Grid) -> Grid:
    """Return the similarity of windows from their means, variances and covariance; for numbers and for grids."""
    numerator = (2 * a * b + C1) * (2 * covariance + C2)
    return numerator / ((a * a + b * b + C1) * (variance_a + variance_b + C2))


_ssim_of_numbers = numba.njit(cache=True, nogil=True)(_ssim)


@numba.njit(cache=True, nogil=True)
def _ssim_mean(
    mean_a: np.ndarray, mean_b: np.ndarray, variance_a: np.ndarray, variance_b: np.ndarray, covariance: np.ndarray
) -> float:
    total = 0.0
    height, width, channels = mean_a.shape
    for v in range(height):
        for u in range(width):
            for c in range(channels):
                a, b, both = mean_a[v, u, c], mean_b[v, u, c], covariance[v, u, c]
                total += _ssim_of_numbers(a, b, variance_a[v, u, c], variance_b[v, u, c], both)
    return total / mean_a.size


def _gauss_valid(image_hwc: Grid) -> Grid:
    crop = GAUSS_TAPS // 2
    if min(image_hwc.shape[:2]) < GAUSS_TAPS:
        raise ValueError(f"SSIM needs images of at least {GAUSS_TAPS} pixels a side, got {image_hwc.shape[:2]}.")
    kernel = cv2.getGaussianKernel(GAUSS_TAPS, GAUSS_SIGMA_PX, cv2.CV_64F)
    if not isinstance(image_hwc, np.ndarray):
        return filter_valid(image_hwc, kernel)
    return cv2.sepFilter2D(image_hwc, cv2.CV_64F, kernel, kernel)[crop:-crop, crop:-crop]
