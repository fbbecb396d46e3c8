"""Whether another match of frames fits clearly better than the one that file names suggest.

In: the first frames of one view on both sides, made small. Out: the option that fits better, or None.
Read next: `matching.py`, which asks where lengths or first numbers differ.

Every plausible match is tried: conditioning frames in the prediction, a ground truth that begins earlier, another rate.
A match fits clearly better if the median of its frames' squared errors is at most `CLEARLY_BETTER` of the default's, so
that one broken frame decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

CLEARLY_BETTER = 0.5
MIN_MSE = 2.0
"""Squared grey levels: a default match with a smaller error needs no better one."""

MIN_PAIRS = 3
MAX_SKIPPED = 16
MAX_RATIO = 4
NUM_TRIED = 24
"""Ground-truth frames that are tried."""

THUMBNAIL_PX = 64
"""Longest side of the images that are compared."""


class Alternative(NamedTuple):
    """A match: ground-truth frame `true_step * i + true_skip` with predicted frame `pred_step * i + pred_skip`."""

    true_step: int
    true_skip: int
    pred_step: int
    pred_skip: int

    @classmethod
    def of(cls, true: Sequence[int], pred: Sequence[int]) -> Alternative:
        """Return the match of two sequences of positions; pairs before the first frame of a side are left out.

        Example:
            >>> Alternative.of([0, 1, 2], [-1, 0, 1])
            Alternative(true_step=1, true_skip=1, pred_step=1, pred_skip=0)
        """
        true_step, pred_step = (side[1] - side[0] if len(side) > 1 else 1 for side in (true, pred))
        before = -min(true[0], pred[0], 0)
        return cls(true_step, true[0] + before * true_step, pred_step, pred[0] + before * pred_step)

    def options(self) -> str:
        """Return the command-line options that give this match.

        Example:
            >>> Alternative(1, 0, 1, 2).options(), Alternative(2, 1, 1, 0).options()
            ('--offset 2', '--fps 1,2 --gt-offset 1')
        """
        parts = [f"--fps {self.pred_step},{self.true_step}"] if self.true_step != self.pred_step else []
        parts += [f"--offset {self.pred_skip}"] if self.pred_skip else []
        parts += [f"--gt-offset {self.true_skip}"] if self.true_skip else []
        return " ".join(parts) or "--offset 0"


class BetterMatch(NamedTuple):
    """An alternative and the squared errors of both matches (median over the frames), squared grey levels."""

    alternative: Alternative
    mse: float
    default_mse: float


def alternatives(num_true: int, num_pred: int, default: Alternative) -> Iterator[Alternative]:
    """Yield the matches that the lengths allow; where the user states two rates, those that begin otherwise."""
    if default.true_step != default.pred_step:
        yield from (default._replace(true_skip=default.true_skip + skip) for skip in range(default.true_step))
        yield from (default._replace(pred_skip=default.pred_skip + skip) for skip in range(default.pred_step))
        return
    for skip in range(min(MAX_SKIPPED, max(num_pred - num_true, 1)) + 1):
        yield Alternative(1, 0, 1, skip)
    for skip in range(1, min(MAX_SKIPPED, max(num_true - num_pred, 1)) + 1):
        yield Alternative(1, skip, 1, 0)
    for ratio in range(2, MAX_RATIO + 1):
        if abs(num_true - ratio * num_pred) <= ratio:
            yield from (Alternative(ratio, skip, 1, 0) for skip in range(ratio))
        if abs(num_pred - ratio * num_true) <= ratio:
            yield from (Alternative(1, 0, ratio, skip) for skip in range(ratio))


def better_match(
    true: Mapping[int, np.ndarray], pred: Mapping[int, np.ndarray], default: Alternative, num_true: int, num_pred: int
) -> BetterMatch | None:
    """Return the match that fits clearly better than the default, if there is one.

    Args:
        true: Thumbnails of the ground truth by position from its first frame.
        pred: Thumbnails of the prediction by position from its first frame.
        default: What would be compared.
        num_true: Frames of the ground truth.
        num_pred: Frames of the prediction.
    """
    default_mse = _mse(true, pred, default)
    if default_mse is None or default_mse < MIN_MSE:
        return None
    tried = [
        (mse, a)
        for a in alternatives(num_true, num_pred, default)
        if a != default and (mse := _mse(true, pred, a)) is not None
    ]
    if not tried:
        return None
    mse, best = min(tried)
    return BetterMatch(best, mse, default_mse) if mse <= CLEARLY_BETTER * default_mse else None


def _mse(true: Mapping[int, np.ndarray], pred: Mapping[int, np.ndarray], match: Alternative) -> float | None:
    """Return the median of the frames' mean squared errors of a match; None if both sides have few frames."""
    errors = [
        float(np.mean((true[t] - pred[p]) ** 2))
        for i in range(NUM_TRIED)
        if (t := match.true_step * i + match.true_skip) in true
        and (p := match.pred_step * i + match.pred_skip) in pred
        and true[t].shape == pred[p].shape
    ]
    return float(np.median(errors)) if len(errors) >= MIN_PAIRS else None
