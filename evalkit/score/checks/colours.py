"""Checks of RGB images: channel order, value range, flips, swapped views, constant images.

In: true and predicted images of some views. Out: an `Oddity`, or None if nothing looks wrong.
Read next: `chunk.py`, which runs them; `order.py`, the order of frames.

Each check compares the error of the images as given with the error after one mistake is undone. A mistake is named only
if undoing it halves the squared error or more and leaves a prediction that explains over half of the ground truth's
variance, so that noise, constant images and blurred predictions are not accused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from evalkit.score.checks.oddity import Oddity
from evalkit.score.metrics.image import thumbnail

THUMBNAIL_PX = 32
"""Longest side of the images that are compared."""

FITS_BETTER = 0.5
"""Largest ratio of the squared errors after and before a mistake is undone."""

EXPLAINS = 0.5
"""Largest ratio of the squared error, after the mistake is undone, to the variance of the ground truth."""

MIN_ERROR_U8SQ = 4.0
"""Squared error, grey levels squared, below which a prediction is right as it is."""


def thumbnails(images: np.ndarray) -> np.ndarray:
    """Return F,h,w,... float32 images of at most `THUMBNAIL_PX` a side, averaged over areas."""
    return np.stack([thumbnail(image, THUMBNAIL_PX) for image in images])


def constant_value(rgb_fhwc_u8: np.ndarray) -> int | None:
    """Return the value that every channel of every pixel has; None if they differ."""
    first = int(rgb_fhwc_u8.flat[0])
    return first if bool((rgb_fhwc_u8 == first).all()) else None


def range_oddity(true_u8: np.ndarray, pred_u8: np.ndarray) -> Oddity | None:
    """Return whether predicted colours from 0 to 1 were cast to 8 bits.

    Example:
        >>> range_oddity(np.array([0, 200]), np.array([0, 1])).value
        1.0
    """
    largest = int(pred_u8.max())
    if largest != 1 or int(true_u8.max()) < 50:
        return None
    return Oddity("rgb_range", 1.0, "its largest value is 1; it looks like colours from 0 to 1 cast to 8 bits")


MISTAKES: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
    "channels in the order BGR": ("rgb_channels", lambda frames: frames[..., ::-1]),
    "images upside down": ("rgb_flip", lambda frames: frames[:, ::-1]),
    "mirrored images": ("rgb_flip", lambda frames: frames[:, :, ::-1]),
    "images turned by 180 degrees": ("rgb_flip", lambda frames: frames[:, ::-1, ::-1]),
    "inverted colours": ("rgb_range", lambda frames: 255.0 - frames),
    "limited range (16 to 235)": ("rgb_range", lambda frames: np.clip((frames - 16.0) * (255.0 / 219.0), 0.0, 255.0)),
    "colours without gamma (linear light)": ("rgb_range", lambda frames: 255.0 * (frames / 255.0) ** (1.0 / 2.2)),
    "colours with gamma twice": ("rgb_range", lambda frames: 255.0 * (frames / 255.0) ** 2.2),
}


Mistakes = Mapping[str, tuple[str, Callable[[np.ndarray], np.ndarray]]]
"""The check's name and how to undo a mistake, by what it looks like."""

DEPTH_MISTAKES: Mistakes = {
    text: ("depth_flip", undo) for text, (check, undo) in MISTAKES.items() if check == "rgb_flip"
}


def mistake_oddity(true: np.ndarray, pred: np.ndarray, mistakes: Mistakes = MISTAKES) -> Oddity | None:
    """Return the mistake that, once undone, makes a prediction fit much better.

    Args:
        true: F,h,w,3, thumbnails of one view; or F,h,w, `depths.percent`.
        pred: The same shape.
        mistakes: Those that are tried.
    """
    given = _error(true, pred)
    if given < MIN_ERROR_U8SQ:
        return None
    errors = {text: _error(true, undo(pred)) for text, (_, undo) in mistakes.items()}
    text = min(errors, key=errors.__getitem__)
    if not _is_explained(errors[text], given, true):
        return None
    found = f"its mean squared error falls from {given:.0f} to {errors[text]:.0f} if one mistake is undone"
    sentence = f"{found}; it looks like {text}"
    return Oddity(mistakes[text][0], errors[text] / given, sentence)


def swapped_with(true: dict[str, np.ndarray], pred: dict[str, np.ndarray]) -> tuple[str, str, float] | None:
    """Return two views whose predictions fit much better the other way round, and the ratio of the errors.

    Args:
        true: Thumbnails of each view.
        pred: The same.
    """
    names = list(true)
    for number, a in enumerate(names):
        for b in names[number + 1 :]:
            if true[a].shape != true[b].shape or _error(true[a], true[b]) < MIN_ERROR_U8SQ:
                continue
            crossed = _error(true[a], pred[b]), _error(true[b], pred[a])
            given = _error(true[a], pred[a]) + _error(true[b], pred[b])
            explained = all(error < EXPLAINS * _variance(true[n]) for error, n in zip(crossed, (a, b), strict=True))
            if explained and sum(crossed) < FITS_BETTER * given and given > 2 * MIN_ERROR_U8SQ:
                return a, b, sum(crossed) / given
    return None


def _is_explained(after: float, before: float, true: np.ndarray) -> bool:
    return after < FITS_BETTER * before and after < EXPLAINS * _variance(true)


def _error(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.mean((a - b) ** 2))


def _variance(frames: np.ndarray) -> float:
    return float(frames.var())
