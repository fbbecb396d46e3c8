"""What the distance between sets of clips needs of one clip: sums over its frames.

In: sums of parts of a clip. Out: sums of the clip.
Read next: `evalkit/score/distribution.py`, which fills them and computes the distance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from evalkit.score.results.outcome import Measure

NO_REMARK = Measure(0.0)


@dataclass(kw_only=True)
class Total:
    """Sums over the frames of a clip that could be compared.

    Attributes:
        true_e: Sum of the embedded true frames.
        pred_e: Sum of the embedded predicted frames.
        num_frames: Frames in the sums, counted in each view.
        num_left_out: Frames that are not in them.
        problem: Why the first of those is not.
        remark: Status and reason of a value, where the network's weights are not those of this package.
    """

    true_e: np.ndarray | float = 0.0
    pred_e: np.ndarray | float = 0.0
    num_frames: int = 0
    num_left_out: int = 0
    problem: Measure | None = None
    remark: Measure = NO_REMARK

    def plus(self, other: Total) -> Total:
        """Return the sums over the frames of both."""
        return Total(
            true_e=self.true_e + other.true_e,
            pred_e=self.pred_e + other.pred_e,
            num_frames=self.num_frames + other.num_frames,
            num_left_out=self.num_left_out + other.num_left_out,
            problem=self.problem or other.problem,
            remark=other.remark,
        )

    def measure(self, value: float) -> Measure:
        """Return a value with what a reader must know of it."""
        if self.problem is None:
            return self.remark._replace(value=value)
        num_all = self.num_frames + self.num_left_out
        why = ": ".join(filter(None, (self.problem.status, self.problem.reason)))
        reason = f"{self.num_left_out} of {num_all} images are not in the value (first: {why})"
        return Measure(value, "some_missing_frames", reason)


Totals = dict[str, Total]
"""The sums of one clip, by subject."""


def add_totals(totals: Totals, more: Mapping[str, Total]) -> None:
    """Add the sums of another part of the same clip."""
    for subject, total in more.items():
        totals[subject] = totals[subject].plus(total) if subject in totals else total
