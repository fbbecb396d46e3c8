"""Check of the order of clips: whether predictions belong to each other's ground truth, or one has two names.

In: the first part of each clip of a folder. Out: findings, each with its clip.
Read next: `order.py`, the order of the frames of one clip; `evalkit/score/folders.py`, which runs it.

A prediction is accused only if it fits another clip's ground truth much better, in the first frame and over all frames
looked at, and that clip's prediction fits yet another one's, until the circle closes. A poor model, whose predictions
resemble some other clip, closes no circle: the prediction of that clip fits its own ground truth.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from evalkit.score.checks import colours
from evalkit.score.checks.agreement import spread
from evalkit.score.results.checks import Finding
from evalkit.score.results.truth import ScoredChunk

NUM_FRAMES = 4
"""Frames of a clip that are compared, evenly spread over its first part."""


class _Seen(NamedTuple):
    """The first view of a clip: thumbnails of a few frames, F,h,w,3, and a hash of all that was predicted."""

    true_u8: np.ndarray
    pred_u8: np.ndarray
    pred_hash: str


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipOrder:
    """The clips of a folder that were seen so far, by key."""

    seen: dict[str, _Seen] = field(default_factory=dict)

    def add(self, scored: ScoredChunk) -> None:
        """Keep thumbnails of a clip's first part; without RGB there is nothing to compare."""
        predicted = scored.chunk.predicted
        if scored.first_frame_idx or predicted is None or not predicted.rgb.any():
            return
        frames = spread(min(len(predicted.rgb), len(scored.chunk.true.rgb_fvhwc_u8)), NUM_FRAMES)
        true_u8, pred_u8 = (
            colours.thumbnails(images[frames, 0]).round().astype(np.uint8)
            for images in (scored.chunk.true.rgb_fvhwc_u8, predicted.rgb)
        )
        digest = hashlib.blake2b(np.ascontiguousarray(predicted.rgb).data, digest_size=16)
        self.seen[scored.key] = _Seen(true_u8, pred_u8, digest.hexdigest())

    def findings(self, names: Mapping[str, str]) -> Iterator[tuple[str, Finding]]:
        """Yield the key of each clip whose prediction looks like another clip's, and what was found.

        Args:
            names: Of the clips, by key.
        """
        for key, other, ratio in self._mixed_up():
            reason = (
                f"the prediction of {names[key]} fits the ground truth of {names[other]} much better than its own "
                f"(squared error {ratio:.2f} times); the predictions look mixed up, check the names of the clips."
            )
            yield key, Finding(check="clip_order", subject="policy", value=ratio, reason=reason)
        for key, other in self._equal():
            reason = (
                f"the predictions of {names[other]} and {names[key]} have equal RGB, byte for byte, but their ground "
                "truths differ; check whether one was copied."
            )
            yield key, Finding(check="clip_order", subject="policy", reason=reason)

    def _equal(self) -> Iterator[tuple[str, str]]:
        first: dict[str, str] = {}
        for key, clip in self.seen.items():
            other = first.setdefault(clip.pred_hash, key)
            if not np.array_equal(self.seen[other].true_u8, clip.true_u8):
                yield key, other

    def _mixed_up(self) -> Iterator[tuple[str, str, float]]:
        """Yield the clips of each circle: a clip, the one whose ground truth its prediction fits, the errors' ratio."""
        fits = {key: found for key in self.seen if (found := self._better(key)) is not None}
        for key, (other, ratio) in fits.items():
            visited = [key]
            while visited[-1] in fits and (after := fits[visited[-1]][0]) not in visited:
                visited.append(after)
            if visited[-1] in fits and fits[visited[-1]][0] == key:
                yield key, other, ratio

    def _better(self, key: str) -> tuple[str, float] | None:
        """Return the clip whose ground truth a prediction fits best, if much better than its own."""
        pred = self.seen[key].pred_u8
        like = [other for other, clip in self.seen.items() if clip.true_u8.shape == pred.shape]
        if key not in like or len(like) == 1:
            return None
        errors = np.array([_errors(pred, self.seen[other].true_u8) for other in like])
        own, best = errors[like.index(key)], int(errors.sum(axis=1).argmin())
        explained = errors[best].mean() < colours.EXPLAINS * float(self.seen[like[best]].true_u8.var())
        better = (errors[best] < colours.FITS_BETTER * own).all() and own.min() > colours.MIN_ERROR_U8SQ
        return (like[best], float(errors[best].sum() / own.sum())) if better and explained else None


def _errors(pred_u8: np.ndarray, true_u8: np.ndarray) -> tuple[float, float]:
    """Return the mean squared difference of the first frame and of all frames."""
    squares = (pred_u8.astype(np.float32) - true_u8) ** 2
    return float(squares[0].mean()), float(squares.mean())
