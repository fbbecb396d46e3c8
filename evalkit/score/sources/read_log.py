"""What turns out about a clip only while its frames are read: frames that cannot be read, images equal on both sides.

In: frames as they are read. Out: findings about the whole clip.
Read next: `clip_facts.py`, for what names and headers tell before; `evalkit/score/folder_clip.py`, which reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from evalkit.score.results.checks import Finding
from evalkit.score.results.names import Family
from evalkit.score.results.outcome import Measure, Modality

TRUTH, POLICY = "ground_truth", "policy"

REPORTED_BEFORE = ("missing_frame", "refused")
"""Statuses of frames about which `clip_facts.py` has findings."""

DEPENDS_ON: dict[Modality, tuple[Family, ...]] = {"rgb": ("image", "lpips"), "depth": ("depth", "cloud")}
"""Families of metrics that need a modality."""


class ReadLog:
    """Notes of the frames of one clip."""

    def __init__(self) -> None:
        self._faults: dict[tuple[str, Modality, int], dict[int, Measure]] = {}
        self._equal: dict[tuple[Modality, int], bool] = {}

    def add_fault(self, subject: str, modality: Modality, view: int, frame_idx: int, fault: Measure) -> None:
        """Note a frame without values; `frame_idx` counts the compared frames of the clip."""
        if fault.status not in REPORTED_BEFORE:
            self._faults.setdefault((subject, modality, view), {})[frame_idx] = fault

    def compare(self, modality: Modality, view: int, true: np.ndarray, pred: np.ndarray) -> None:
        """Note whether readable frames of both sides are equal; images of zeros alone say nothing."""
        if len(true) and (true.any() or pred.any()):
            self._equal[modality, view] = self._equal.get((modality, view), True) and np.array_equal(true, pred)

    def findings(self, views: Sequence[str], num_frames: int, known: Sequence[Finding]) -> Iterator[Finding]:
        """Yield one finding per view with faults, and one if all predicted images are the ground truth's.

        Args:
            views: Names of the views.
            num_frames: Compared frames of the clip.
            known: Findings so far; a view that is refused already gets no other finding.
        """
        for (subject, modality, view), faults in self._faults.items():
            if any(
                (one.subject, one.view) == (subject, views[view]) and DEPENDS_ON[modality][0] in one.refuses
                for one in known
            ):
                continue
            whose = "ground truth's" if subject == TRUTH else "prediction's"
            frame_idx, fault = min(faults.items())
            rest = "no frame has a score" if len(faults) == num_frames else "means are over the others"
            reason = (
                f"{len(faults)} of {num_frames} compared frames of the {whose} {modality} of {views[view]} cannot be "
                f"used, first frame {frame_idx + 1} of {num_frames}: {fault.reason}; {rest}"
            )
            refuses = DEPENDS_ON[modality] if len(faults) == num_frames else ()
            yield Finding(check="files", subject=subject, view=views[view], reason=reason, refuses=refuses)
        if self._equal and all(self._equal.values()):
            reason = (
                "all predicted images equal the ground truth in every pixel; check that the prediction is no copy of "
                "the ground truth"
            )
            yield Finding(check="same_images", subject=POLICY, reason=reason)
