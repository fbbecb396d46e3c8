"""What outlasts one part of a clip: metrics that are pooled over its frames, and the images that motion starts from.

In: the scores of some frames, with the images that they score. Out: one measure per pooled metric and subject.
Read next: `frame.py`, which scores the frames; `chunk.py`, which fills the pools.

A generated clip is one predicted chunk of a run or of a data set, or one whole clip of folders. Frames that cannot be
scored are left out and counted in the status and reason of the pooled value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from evalkit.contracts.types import Prediction
from evalkit.score.extra import Base
from evalkit.score.frame import FrameScores, GroundTruth, Named, names_of
from evalkit.score.metrics import depth, image
from evalkit.score.metrics.disparity import AlignedAbsrel
from evalkit.score.results.names import Family
from evalkit.score.results.outcome import Measure


class Images(NamedTuple):
    """Static images of one family: how many there are, and why some could not be scored."""

    num_all: int = 0
    num_left_out: int = 0
    first_problem: Measure | None = None

    def plus(self, num_all: int, problems: Sequence[Measure]) -> Images:
        """Return the images with more of them."""
        first = self.first_problem or next(iter(problems), None)
        return Images(self.num_all + num_all, self.num_left_out + len(problems), first)

    def remark(self, measure: Measure) -> Measure:
        """Return a pooled measure that says how many images are not in it."""
        if self.first_problem is None or measure.value is None:
            return measure
        why = ": ".join(filter(None, (self.first_problem.status, self.first_problem.reason)))
        left_out = f"{self.num_left_out} of {self.num_all} images are not in the value (first: {why})"
        also = "" if measure.status == "ok" else f"; {measure.status}"
        return Measure(measure.value, "some_missing_frames", left_out + also)


@dataclass
class Pool:
    """What one subject's pooled metrics need of the frames so far."""

    families: Sequence[Family]
    squares: list[float] = field(default_factory=list)
    errors: depth.DepthErrors = depth.NO_ERRORS
    aligned: AlignedAbsrel = field(default_factory=AlignedAbsrel)
    images: dict[Family, Images] = field(default_factory=dict)

    def add(self, truth: GroundTruth, prediction: Prediction, frames: Sequence[FrameScores]) -> None:
        """Add frames of a clip, in order.

        Args:
            truth: The ground truth of the frames `truth.frame_idxs`.
            prediction: The subject's prediction.
            frames: Their scores.
        """
        num_static = len(truth.static)
        for frame_idx, frame in zip(truth.frame_idxs, frames, strict=True):
            self.squares += frame.squares
            self.errors = self.errors.plus(frame.errors)
            for family, problems in frame.problems.items():
                self.images[family] = self.images.get(family, Images()).plus(num_static, problems)
            if prediction.depth is not None:
                for view in frame.depth_views:
                    self.aligned.add(truth.frames.depth_fvhw_m[frame_idx, view], prediction.depth[frame_idx, view])

    def named(self) -> Iterator[Named]:
        """Yield the pooled measures; the problem of the first image where no image of a family could be scored."""
        for family, images in self.images.items():
            if family not in self.families:
                continue
            if images.num_left_out == images.num_all and images.first_problem is not None:
                yield from (Named("static", name, images.first_problem) for name in names_of(family, "chunk"))
            else:
                for name, measure in self._image() if family == "image" else self._depth():
                    yield Named("static", name, images.remark(measure))

    def _image(self) -> Iterator[tuple[str, Measure]]:
        yield "psnr_db/clip_pooled", image.psnr_db(float(np.mean(self.squares)))

    def _depth(self) -> Iterator[tuple[str, Measure]]:
        yield "absrel/gt_mask_clip_pooled_10m", self.errors.absrel()
        yield "delta1/gt_mask_clip_pooled_10m", self.errors.delta(1)
        yield "absrel/gt_mask_affine_disparity_10m", self.aligned.measure()


class Pools:
    """The pools of every subject of one clip.

    Attributes:
        base: The images that motion starts from, kept from the first part of a clip for all others.
    """

    def __init__(self) -> None:
        self.base: Base | None = None
        self._pools: dict[str, Pool] = {}

    def add(
        self,
        subject: str,
        truth: GroundTruth,
        prediction: Prediction,
        frames: Sequence[FrameScores],
        families: Sequence[Family],
    ) -> None:
        """Add frames of one subject; metrics of the given families are pooled."""
        self._pools.setdefault(subject, Pool(families)).add(truth, prediction, frames)

    def named(self) -> Iterator[tuple[str, Named]]:
        """Yield the pooled measures of every subject."""
        for subject, pool in self._pools.items():
            for named in pool.named():
                yield subject, named
