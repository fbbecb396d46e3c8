"""Checks of depth images: unit, kind (depth, disparity, distance along the ray) and missing values.

In: depths of one view, a few frames. Out: an `Oddity`, or None if nothing looks wrong.
Read next: `chunk.py`, which runs them; `evalkit/score/metrics/depth.py`, the errors of depth.

A bad model must not be accused of a mistake that it did not make: a unit is named only if the prediction also varies as
the ground truth does.
"""

from __future__ import annotations

import numpy as np

from evalkit.score.checks.agreement import along_ray, spread
from evalkit.score.checks.oddity import Oddity
from evalkit.score.metrics.depth import is_valid, measured, truth_mask

UNITS: dict[str, float] = {
    "millimetres": 1000.0,
    "centimetres": 100.0,
    "inches": 39.37,
    "feet": 3.281,
    "thousandths of the true unit": 1e-3,
    "hundredths of the true unit": 1e-2,
}
"""Ratio of prediction to ground truth that a wrong unit gives."""

CERTAIN = ("millimetres", "centimetres", "thousandths of the true unit", "hundredths of the true unit")
"""Units so far from 1 that no model errs so much by chance."""

UNIT_BAND, NEAR_UNIT_BAND = 1.5, 1.05
"""Largest ratio to a certain unit, and to another one, that still counts as that unit."""

SCALE_BAND = 2.0
"""A median ratio of prediction to ground truth beyond this, or below its inverse, is a warning."""

SPREAD_OF_A_SCALE, MIN_SCALE_ERROR = 0.02, 0.15
"""A prediction with a constant ratio to the ground truth (median deviation of its logarithm), that far from 1."""

VARIES_ALIKE = 0.5
"""Least correlation of log depths at which a prediction varies as the ground truth does."""

MIN_PIXELS = 100
MAX_TRUTH_M = 50.0
"""Median depth above which a ground truth cannot be metres."""

MIN_TRUTH_M = 0.01
MAX_MISSING_FRAC = 0.7
SAMPLES = 32
"""At most so many rows and columns of a depth image are looked at."""


def sampled(depth_hw_m: np.ndarray) -> np.ndarray:
    """Return at most `SAMPLES` rows and columns of the last two axes, evenly spread."""
    height, width = depth_hw_m.shape[-2:]
    return np.asarray(depth_hw_m[..., spread(height, SAMPLES)[:, None], spread(width, SAMPLES)])


def percent(depth_fhw_m: np.ndarray, like_fhw_m: np.ndarray) -> np.ndarray:
    """Return 100 times the log of depths, F,H,W, so that the checks of grey levels serve: 1 is about 1 % of the depth.

    Args:
        depth_fhw_m: True or predicted depths.
        like_fhw_m: True depths; where there is no depth, their median is filled in.

    Example:
        >>> percent(np.array([[[1.0, 0.0]]]), np.array([[[2.0, 2.0]]])).astype(int).tolist()
        [[[0, 69]]]
    """
    present = like_fhw_m[truth_mask(like_fhw_m)]
    fill_m = float(np.median(present)) if present.size else 1.0
    filled_m = np.where(truth_mask(depth_fhw_m), depth_fhw_m, fill_m)
    return np.asarray(100.0 * np.log(filled_m), np.float32)


def truth_oddity(true_m: np.ndarray) -> Oddity | None:
    """Return what is odd about a ground-truth depth, any shape, metres.

    Example:
        >>> truth_oddity(np.full((10, 20), 853.0)).text.partition(";")[0]
        'its median is 853, which cannot be metres and looks like millimetres'
    """
    present = measured(true_m)
    if present.size < MIN_PIXELS:
        return None
    median = float(np.median(present))
    if median > MAX_TRUTH_M:
        unit = "millimetres" if median > 150 else "centimetres"
        text = f"its median is {median:.4g}, which cannot be metres and looks like {unit}; give metres or a depth scale"
        return Oddity("depth_unit", median, text, True)
    if median < MIN_TRUTH_M:
        text = f"its median is {median:.3g} m, closer than a camera can see; check its unit"
        return Oddity("depth_unit", median, text)
    masked_frac = 1.0 - float(truth_mask(true_m).mean())
    if masked_frac > MAX_MISSING_FRAC:
        text = f"{masked_frac:.0%} of its pixels are missing or beyond 10 m, so that few pixels decide the scores"
        return Oddity("missing_depth", masked_frac, text)
    return None


def is_still(before_m: np.ndarray, after_m: np.ndarray) -> bool:
    """Return whether most depths of two images are equal to 0.2 %.

    Example:
        >>> is_still(np.full(200, 1.0), np.full(200, 1.001)), is_still(np.full(200, 1.0), np.full(200, 1.02))
        (True, False)
    """
    valid = truth_mask(before_m) & truth_mask(after_m)
    return bool(valid.sum() >= MIN_PIXELS and np.median(np.abs(after_m[valid] / before_m[valid] - 1.0)) < 2e-3)


def prediction_oddity(true_m: np.ndarray, pred_m: np.ndarray, K: np.ndarray) -> Oddity | None:
    """Return what is odd about a predicted depth.

    Args:
        true_m: F,H,W metres.
        pred_m: The same shape.
        K: Intrinsics of these images.
    """
    true, pred = sampled(true_m), sampled(pred_m)
    usable = truth_mask(true) & is_valid(pred)
    if usable.sum() < MIN_PIXELS:
        return _nothing_valid(true, pred) if not is_valid(pred).any() else None
    log_true, log_pred = np.log(true[usable].astype(np.float64)), np.log(pred[usable].astype(np.float64))
    alike = _correlation(log_true, log_pred)
    ratio = float(np.exp(np.median(log_pred - log_true)))
    spread = float(np.median(np.abs(log_pred - log_true - np.log(ratio))))
    if alike is not None and alike < -VARIES_ALIKE:
        text = f"far looks near in it (correlation of log depths {alike:.2f}); it looks like disparity or inverse depth"
        return Oddity("depth_kind", alike, f"{text}; give metres along the optical axis", alike < -0.9)
    flat = alike is None and float(np.ptp(log_pred)) > 0 and spread < 0.2
    follows = flat or (alike is not None and alike > VARIES_ALIKE)
    if not 1 / SCALE_BAND <= ratio <= SCALE_BAND:
        return _wrong_scale(ratio, float(pred[usable].max()), follows=follows)
    if follows and abs(np.log(ratio)) > MIN_SCALE_ERROR and spread < SPREAD_OF_A_SCALE:
        text = (
            f"it is {ratio:.3g} times the ground truth in almost every pixel, expected about 1; check its scale or "
            "that of the ground truth"
        )
        return Oddity("depth_unit", ratio, text)
    if not follows or not np.isfinite(K).all() or min(K[0, 0], K[1, 1]) <= 0:
        return None
    rays = np.broadcast_to(along_ray(K, (true_m.shape[1], true_m.shape[2])), true_m.shape)
    return _ray_oddity(np.log(sampled(rays)[usable]), log_pred - log_true)


def _nothing_valid(true: np.ndarray, pred: np.ndarray) -> Oddity | None:
    """Return that a prediction has no valid pixel, and whether it looks like OpenGL's z."""
    if truth_mask(true).sum() < MIN_PIXELS:
        return None
    negated = truth_mask(true) & is_valid(-pred)
    text = "no predicted pixel is finite and above 0, so that each counts as an error"
    if negated.sum() < MIN_PIXELS:
        return Oddity("depth_unit", 0.0, f"{text}; check whether depth was predicted at all")
    ratio = float(np.median(-pred[negated] / true[negated]))
    alike = _correlation(np.log(true[negated]), np.log(-pred[negated]))
    fits = 1 / SCALE_BAND <= ratio <= SCALE_BAND and alike is not None and alike > VARIES_ALIKE
    hint = "they look like OpenGL's negative z" if fits else "they are negative"
    return Oddity("depth_unit", -ratio, f"{text}; {hint}; give positive metres along the optical axis")


def _wrong_scale(ratio: float, max_pred: float, *, follows: bool) -> Oddity:
    text = f"it is {ratio:.3g} times the ground truth (median), expected about 1"
    for unit, factor in UNITS.items():
        band = UNIT_BAND if unit in CERTAIN else NEAR_UNIT_BAND
        if follows and 1 / band <= ratio / factor <= band:
            return Oddity("depth_unit", ratio, f"{text}; it looks like {unit}; give metres", unit in CERTAIN)
    if follows and ratio < 1 and 0.9 <= max_pred <= 1.001:
        text += "; it looks normalised to 0..1; give metres"
    return Oddity("depth_unit", ratio, text)


def _ray_oddity(log_ray: np.ndarray, log_ratio: np.ndarray) -> Oddity | None:
    """Return whether the ratio of prediction and ground truth grows as the distance along the ray does."""
    centred = log_ray - log_ray.mean()
    variance = float(centred @ centred)
    if variance / len(centred) < 0.02**2:
        return None
    slope = float(centred @ (log_ratio - log_ratio.mean())) / variance
    explained = _correlation(log_ray, log_ratio)
    if explained is None or abs(explained) < 0.7 or not 0.7 < abs(slope) < 1.3:
        return None
    which = "it looks like" if slope > 0 else "the ground truth looks like"
    text = (
        f"its error grows to the corners as the ray's length does (exponent {slope:.2f}); {which} the distance along "
        "the ray; give the depth along the optical axis"
    )
    return Oddity("depth_kind", slope, text)


def _correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Return Pearson's correlation; None if one of both hardly varies."""
    a, b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / spread if spread > 1e-4 * len(a) else None
