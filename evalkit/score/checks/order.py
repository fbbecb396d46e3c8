"""Check of the order and rate of frames: does each predicted frame fit the true frame of the same time.

In: true and predicted frames of one or more views. Out: the shift or rate that fits much better, or None.
Read next: `chunk.py`, which runs it.

Only pixels that move in the ground truth are compared. A prediction that repeats one frame fits some true frame better
than its own too; therefore a shift or rate must also beat every single repeated frame. A model whose objects move too
slowly or too fast lags more and more; therefore a shift must fit each third of the frames, and beat other speeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

MOVES_U8 = 12.0
"""Least difference of a pixel's brightest and darkest value over the frames, grey levels, of a pixel that moves."""

MIN_MOVING = 12
"""Least number of moving values; fewer say nothing."""

MIN_FRAMES = 4
"""Least number of frames that must overlap after a shift."""

FITS_BETTER = 0.5
"""Largest ratio of squared errors, shifted to unshifted."""

BEATS_FROZEN = 0.7
"""Largest ratio of squared errors, shifted to the best repeated frame."""

NEAR_BEST = 1.5
"""Largest ratio of squared errors, in each third of the frames, shifted to the best true frame of each."""

SPEEDS = (0.3, 0.4, 0.45, 0.55, 0.6, 0.7, 0.8, 0.9, 1.1, 1.2, 1.3, 1.4, 1.6, 1.8)
"""Speeds of a model that is too slow or too fast; it is accused of nothing."""

SHIFTS = (-3, -2, -1, 1, 2, 3)
RATES = (0.5, 2.0)
BACKWARDS = -1.0


class Timing(NamedTuple):
    """A shift or rate that fits much better.

    Attributes:
        shift: Frames by which the prediction comes late (negative) or early (positive); 0 for a rate.
        rate: True frames per predicted frame; -1 if the frames are in reverse order.
        error_ratio: Squared error after to before.
    """

    shift: int
    rate: float
    error_ratio: float

    def __str__(self) -> str:
        """Return a clause."""
        if self.rate == BACKWARDS:
            return "it fits the ground truth played backwards"
        if self.rate != 1.0:
            step = "every second true frame" if self.rate > 1 else "each true frame twice"
            speed = "twice as fast as" if self.rate > 1 else "half as fast as"
            return f"it fits {step}: another frame rate, or a model whose objects move {speed} the true ones"
        word = "later" if self.shift > 0 else "earlier"
        frames = "one frame" if abs(self.shift) == 1 else f"{abs(self.shift)} frames"
        return f"it fits the ground truth {frames} {word}"


def timing(
    true: np.ndarray, pred: np.ndarray, start: np.ndarray | None = None, *, min_moving: int = MIN_MOVING
) -> Timing | None:
    """Return the shift or rate at which a prediction fits the ground truth much better; None if there is none.

    Args:
        true: F,N values of F frames.
        pred: F',N values; F' may be smaller.
        start: 1,N values of the frame before the first; 0,N or None if there is none.
        min_moving: Least number of values that move.
    """
    known = true if start is None or not len(start) else np.concatenate([start, true])
    lead = len(known) - len(true)
    moving = known.max(axis=0) - known.min(axis=0) > MOVES_U8
    if moving.sum() < min_moving or len(pred) < MIN_FRAMES:
        return None
    errors = _errors(pred[:, moving].astype(np.float64), known[:, moving].astype(np.float64))
    best: Timing | None = None
    for shift, rate, source in _hypotheses(len(pred), lead, len(known)):
        frames = np.flatnonzero(source >= 0)
        if len(frames) < MIN_FRAMES or len(np.unique(source[frames])) < 3:
            continue
        fitted, own = errors[frames, source[frames]], errors[frames, frames + lead]
        frozen = float(errors[frames].mean(axis=0).min())
        ratio = float(fitted.mean()) / max(float(own.mean()), 1e-9)
        steady = float(np.mean(fitted < own)) >= 0.8
        if not (ratio < FITS_BETTER and steady and fitted.mean() < BEATS_FROZEN * frozen and own.mean() > 1.0):
            continue
        if rate == BACKWARDS or (
            _fits_each_third(errors, frames, fitted) and not _is_speed(errors, frames, fitted, lead)
        ):
            best = Timing(shift, rate, ratio) if best is None or ratio < best.error_ratio else best
    return best


def _fits_each_third(errors: np.ndarray, frames: np.ndarray, fitted: np.ndarray) -> bool:
    """Return whether hardly another true frame fits better, at the beginning, in the middle and at the end."""
    nearest = errors[frames].min(axis=1)
    thirds = np.array_split(np.arange(len(frames)), 3)
    return all(fitted[third].mean() <= NEAR_BEST * nearest[third].mean() + 1e-9 for third in thirds)


def _is_speed(errors: np.ndarray, frames: np.ndarray, fitted: np.ndarray, lead: int) -> bool:
    """Return whether a model of another speed, which starts at the right moment, explains the frames as well."""
    sources = (np.rint((frames + lead) * speed).astype(int) for speed in SPEEDS)
    return any(errors[frames, source.clip(0, errors.shape[1] - 1)].mean() <= fitted.mean() for source in sources)


def _hypotheses(num_pred: int, lead: int, num_known: int) -> Iterator[tuple[int, float, np.ndarray]]:
    """Yield a shift, a rate, and the index of the true frame that each predicted frame would show; -1 outside."""
    frames = np.arange(num_pred)
    for shift in SHIFTS:
        yield shift, 1.0, _inside(frames + lead + shift, num_known)
    yield 0, BACKWARDS, _inside(lead + num_pred - 1 - frames, num_known)
    for rate in RATES:
        for offset in (0.0, rate - 1.0):
            yield 0, rate, _inside(np.floor(frames * rate + offset).astype(int) + lead, num_known)


def _inside(source: np.ndarray, num_known: int) -> np.ndarray:
    return np.where((source >= 0) & (source < num_known), source, -1)


def _errors(pred: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return the mean squared difference of each predicted and each true frame."""
    squares = (pred**2).sum(axis=1)[:, None] + (true**2).sum(axis=1)[None] - 2 * pred @ true.T
    return np.asarray(np.maximum(squares, 0.0) / pred.shape[1])
