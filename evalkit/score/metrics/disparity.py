"""Affine alignment of a clip in disparity (1 / depth), fitted so that single wrong pixels do not move it.

In: true and predicted depths of one clip, image by image. Out: AbsRel after one scale and one shift of disparity.
Read next: `depth.py`, the errors without an alignment.

An estimator with a free scale and shift of disparity is judged after the affine map that brings it nearest to the
ground truth. Least squares alone would let one predicted pixel at 1 mm (disparity 1000) decide the map of a clip.
Therefore outliers are found first, with a line through the predicted disparity as a function of the true one. Its slope
is a weighted repeated median (Siegel 1982), so nearly half of the pixels can be anything. Least squares over the other
pixels then gives the map. On a prediction without outliers it is the least-squares map of all pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np

from evalkit.score.metrics.depth import MAX_DEPTH_M, MIN_DEPTH_M, is_valid, mask_size, valid_pairs
from evalkit.score.results.outcome import Measure

NUM_ANCHORS, NUM_PARTNERS = 128, 1024
"""Pixels whose pairs give the slope of the line that tells outliers; drawn with a fixed seed."""

KEPT_WHOLE, LEFT_OUT = 6.0, 9.0
"""A pixel nearer to that line than 6 robust standard deviations counts whole, one farther than 9 not at all."""

EXACT = 1e-6
"""Least standard deviation of a pixel, as a share of its disparity: about what float32 depths are rounded by."""

MAX_PAIRS = 2**23
"""Pixels of a clip that are kept; of a longer clip, a random half (a quarter, ...) is."""

MIN_DISPARITY = 1e-3

Pairs = tuple[np.ndarray, np.ndarray]
"""True and predicted depths of the same valid pixels of one image, flat, metres."""


class DisparityFit(NamedTuple):
    """The map `1 / true ~ scale / pred + shift`."""

    scale: float
    shift: float

    def apply(self, pred_m: np.ndarray, *, max_depth_m: float = MAX_DEPTH_M) -> np.ndarray:
        """Return aligned depth: disparity at least 1e-3, depth in [1 mm, max]; invalid pixels become 0."""
        valid = is_valid(pred_m)
        disparity = self.scale / np.where(valid, pred_m, 1.0).astype(np.float64) + self.shift
        aligned = np.clip(1.0 / np.maximum(disparity, MIN_DISPARITY), MIN_DEPTH_M, max_depth_m)
        return np.where(valid, aligned, 0.0)


def fit_least_squares(
    true_m: np.ndarray, pred_m: np.ndarray, *, max_depth_m: float = MAX_DEPTH_M
) -> DisparityFit | None:
    """Return the least-squares map over all pixels; None where they do not determine it.

    Example:
        >>> true = np.array([1.0, 2.0, 4.0])
        >>> fit = fit_least_squares(true, 1.0 / (2.0 / true + 0.5))
        >>> round(fit.scale, 6), round(fit.shift, 6)
        (0.5, -0.25)
    """
    return _weighted_fit([valid_pairs(true_m, pred_m, max_depth_m=max_depth_m)], _Line(0.0, 0.0, np.inf, 0.0))


def fit_robustly(true_m: np.ndarray, pred_m: np.ndarray, *, max_depth_m: float = MAX_DEPTH_M) -> DisparityFit | Measure:
    """Return the map that outliers do not move; or a `degenerate_alignment` with its reason.

    Args:
        true_m: Any shape, metres; pixels outside the mask of `depth.truth_mask` are left out.
        pred_m: The same shape, metres; pixels that are not finite or not positive are left out.
        max_depth_m: Far end of the mask.

    Example:
        >>> true = np.linspace(0.5, 4.0, 1000)
        >>> pred = 1.0 / (2.0 / true + 0.5)
        >>> pred[::4] = 0.001
        >>> fit = fit_robustly(true, pred)
        >>> round(fit.scale, 6), round(fit.shift, 6)
        (0.5, -0.25)
    """
    return _fit_robustly([valid_pairs(true_m, pred_m, max_depth_m=max_depth_m)])


class AlignedAbsrel:
    """AbsRel of a clip after one robust affine map of disparity; images are added one after another.

    Attributes:
        num_kept: Pixels in memory, at most `MAX_PAIRS` however long the clip is.
    """

    def __init__(self) -> None:
        self._pairs: list[Pairs] = []
        self._kept_frac = 1.0
        self.num_kept = 0
        self._num_invalid = 0
        self._rng = np.random.default_rng(0)

    def add(self, true_m: np.ndarray, pred_m: np.ndarray) -> None:
        """Add the pixels of one image that have a ground truth."""
        pairs = valid_pairs(true_m, pred_m)
        self._num_invalid += mask_size(true_m) - pairs[0].size
        self._keep(pairs if self._kept_frac == 1.0 else self._thinned(pairs, self._kept_frac))
        while self.num_kept > MAX_PAIRS:
            self._kept_frac /= 2
            whole, self._pairs, self.num_kept = self._pairs, [], 0
            for kept in whole:
                self._keep(self._thinned(kept, 0.5))

    def measure(self) -> Measure:
        """Return AbsRel over the mask, where a pixel without a valid prediction counts as an error of 1."""
        num_pairs = self.num_kept / self._kept_frac
        if num_pairs + self._num_invalid == 0:
            return Measure(None, "no_valid_truth")
        if not self.num_kept:
            return Measure(1.0, "all_invalid_depth")
        fit = _fit_robustly(self._pairs)
        if isinstance(fit, Measure):
            return fit
        aligned = sum(_aligned_absrel(*pairs, fit.scale, fit.shift) for pairs in self._pairs) / self._kept_frac
        status = "some_invalid_depth" if self._num_invalid else "ok"
        return Measure(float((aligned + self._num_invalid) / (num_pairs + self._num_invalid)), status)

    def _keep(self, pairs: Pairs) -> None:
        self._pairs.append(pairs)
        self.num_kept += pairs[0].size

    def _thinned(self, pairs: Pairs, frac: float) -> Pairs:
        chosen = self._rng.random(pairs[0].size) < frac
        return pairs[0][chosen], pairs[1][chosen]


class _Line(NamedTuple):
    """Predicted disparity as a line in the true one, with the robust standard deviation of the pixels from it.

    Attributes:
        intercept: At a true disparity of 0, per metre.
        slope: Of predicted in true disparity.
        spread: Standard deviation per metre.
        relative_spread: Standard deviation as a share of the disparity on the line.
    """

    intercept: float
    slope: float
    spread: float
    relative_spread: float


def _degenerate(reason: str) -> Measure:
    return Measure(None, "degenerate_alignment", reason)


def _fit_robustly(images: Sequence[Pairs]) -> DisparityFit | Measure:
    images = [pairs for pairs in images if pairs[0].size]
    num_pairs = sum(true.size for true, _ in images)
    if num_pairs < 2:
        return _degenerate(f"{num_pairs} pixels have a true and a predicted depth; a scale and a shift need 2")
    for name, depths_m in (("predicted", [pred for _, pred in images]), ("true", [true for true, _ in images])):
        if min(depth_m.min() for depth_m in depths_m) == max(depth_m.max() for depth_m in depths_m):
            return _degenerate(f"the {name} depth is {depths_m[0][0]:.3f} m everywhere, which determines no scale")
    line = _robust_line(images)
    fit = None if line is None else _weighted_fit(images, line)
    if fit is None:
        return _degenerate("without outliers, the predicted depth is the same everywhere")
    if fit.scale <= 0:
        return _degenerate(f"the best scale of disparity is {fit.scale:.3g}: the prediction swaps near and far")
    return fit


def _robust_line(images: Sequence[Pairs]) -> _Line | None:
    """Return the line that most pixels follow; None if the drawn pixels have one true depth only.

    The ground truth has no outliers, so the line goes through the prediction as a function of it. Noise may be
    constant in disparity or in depth, so a pixel counts as near if it is near in one of the two senses.
    """
    x, y = _drawn(images)
    slope = _repeated_median(x, y)
    if np.isnan(slope):
        return None
    intercept = float(np.median(y - slope * x))
    on_line = np.abs(intercept + slope * x)
    off_line = np.abs(y - intercept - slope * x)
    floor = EXACT * float(np.median(np.abs(y)))
    spread = 1.4826 * float(np.median(off_line))
    relative = 1.4826 * float(np.median(off_line / np.maximum(on_line, floor)))
    return _Line(intercept, slope, max(spread, floor), max(relative, EXACT))


def _drawn(images: Sequence[Pairs]) -> tuple[np.ndarray, np.ndarray]:
    """Return the true and predicted disparities of pixels drawn from all images, all of them if they are few."""
    rng, ends = np.random.default_rng(0), np.cumsum([true.size for true, _ in images])
    few = ends[-1] <= NUM_PARTNERS
    drawn = rng.permutation(ends[-1]) if few else rng.integers(0, ends[-1], NUM_PARTNERS)
    image, x, y = np.searchsorted(ends, drawn, side="right"), np.empty(drawn.size), np.empty(drawn.size)
    for idx, (true_m, pred_m) in enumerate(images):
        here = image == idx
        pixels = drawn[here] - (ends[idx] - true_m.size)
        x[here], y[here] = 1.0 / true_m[pixels].astype(np.float64), 1.0 / pred_m[pixels].astype(np.float64)
    return x, y


@numba.njit(cache=True, nogil=True)
def _repeated_median(x: np.ndarray, y: np.ndarray) -> float:
    """Return the median over points of the median slope to all others, both weighted with the distance in x.

    NaN if x is the same everywhere.
    """
    num_anchors, count = min(NUM_ANCHORS, x.size), 0
    medians, totals = np.empty(num_anchors), np.empty(num_anchors)
    slopes, weights = np.empty(x.size), np.empty(x.size)
    for anchor in range(num_anchors):
        for i in range(x.size):
            across = x[i] - x[anchor]
            weights[i] = abs(across)
            slopes[i] = (y[i] - y[anchor]) / across if across != 0.0 else 0.0
        totals[count] = weights.sum()
        if totals[count] > 0.0:
            medians[count] = _weighted_median(slopes, weights)
            count += 1
    return _weighted_median(medians[:count], totals[:count]) if count else np.nan


@numba.njit(cache=True, nogil=True)
def _weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """Return the smallest value up to which half of the weight lies; the arrays are overwritten.

    No sorting: each round weighs the values below, at and above one of them, and keeps the part with the median.
    """
    needed, size = 0.5 * weights.sum(), values.size
    while True:
        pivot = values[size // 2]
        below, at, num_below, num_above = 0.0, 0.0, 0, 0
        for i in range(size):
            below += weights[i] if values[i] < pivot else 0.0
            at += weights[i] if values[i] == pivot else 0.0
            num_below += int(values[i] < pivot)
            num_above += int(values[i] > pivot)
        goes_down = below >= needed
        if not (num_below if goes_down else num_above) or (not goes_down and below + at >= needed):
            return float(pivot)
        needed -= 0.0 if goes_down else below + at
        kept = 0
        for i in range(size):
            if (values[i] < pivot) if goes_down else (values[i] > pivot):
                values[kept], weights[kept] = values[i], weights[i]
                kept += 1
        size = kept


def _weighted_fit(images: Sequence[Pairs], line: _Line) -> DisparityFit | None:
    """Return the least-squares map over the pixels near a line; None where they have one predicted depth only."""
    total, sum_true, sum_pred = np.sum([_sums(*pairs, *line) for pairs in images], axis=0).tolist()
    if total < 2:
        return None
    mean_true, mean_pred = sum_true / total, sum_pred / total
    spreads = [_spreads(*pairs, mean_true, mean_pred, *line) for pairs in images]
    variance, covariance = np.sum(spreads, axis=0).tolist()
    if variance <= 1e-24 * total * mean_pred**2:
        return None
    scale = covariance / variance
    return DisparityFit(scale, mean_true - scale * mean_pred)


@numba.njit(cache=True, nogil=True)
def _weight(true: float, pred: float, intercept: float, slope: float, spread: float, relative_spread: float) -> float:
    """Return 1 for a pair of disparities near the line, 0 for one far from it, and a linear share in between."""
    on_line = intercept + slope * true
    distance = abs(pred - on_line)
    deviations = distance / max(spread, relative_spread * abs(on_line))
    return min(1.0, max(0.0, (LEFT_OUT - deviations) / (LEFT_OUT - KEPT_WHOLE)))


@numba.njit(cache=True, nogil=True)
def _sums(
    true_m: np.ndarray, pred_m: np.ndarray, intercept: float, slope: float, spread: float, relative_spread: float
) -> tuple[float, float, float]:
    total, sum_true, sum_pred = 0.0, 0.0, 0.0
    for i in range(true_m.size):
        true, pred = 1.0 / float(true_m[i]), 1.0 / float(pred_m[i])
        weight = _weight(true, pred, intercept, slope, spread, relative_spread)
        total += weight
        sum_true += weight * true
        sum_pred += weight * pred
    return total, sum_true, sum_pred


@numba.njit(cache=True, nogil=True)
def _spreads(
    true_m: np.ndarray,
    pred_m: np.ndarray,
    mean_true: float,
    mean_pred: float,
    intercept: float,
    slope: float,
    spread: float,
    relative_spread: float,
) -> tuple[float, float]:
    variance, covariance = 0.0, 0.0
    for i in range(true_m.size):
        true, pred = 1.0 / float(true_m[i]), 1.0 / float(pred_m[i])
        weight = _weight(true, pred, intercept, slope, spread, relative_spread)
        across = pred - mean_pred
        variance += weight * across * across
        covariance += weight * across * (true - mean_true)
    return variance, covariance


@numba.njit(cache=True, nogil=True)
def _aligned_absrel(true_m: np.ndarray, pred_m: np.ndarray, scale: float, shift: float) -> float:
    """Return the sum of AbsRel over valid pairs after `DisparityFit.apply`."""
    total = 0.0
    for i in range(true_m.size):
        true = float(true_m[i])
        aligned = 1.0 / max(scale / float(pred_m[i]) + shift, MIN_DISPARITY)
        total += abs(min(max(aligned, MIN_DEPTH_M), MAX_DEPTH_M) - true) / true
    return total
