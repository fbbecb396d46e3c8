"""Outcome of a metric: a number, or the reason why there is none.

In: a value or a named outcome. Out: `Measure`, which every metric returns where a frame may be unfit for it; `Score`,
a measure with its keys in the result file.
Read next: `names.py`, the list of metrics with their units and definitions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

OK = "ok"

STATUSES: dict[str, str] = {
    OK: "the value is valid",
    "identical_frames": "prediction and ground truth are identical to the bit, so that PSNR is not finite",
    "some_invalid_depth": "some predicted pixels are not finite or not positive; each is an error and no point",
    "all_invalid_depth": "no predicted pixel is finite and positive; each counts as an error",
    "some_far_depth": "some predicted pixels lie at 10 m or beyond and their ground truth does not; each is an error",
    "some_missing_frames": "the value is over the images that could be scored; the reason counts the others",
    "constant_depth": "the predicted depth is the same everywhere",
    "other_weights": "LPIPS was computed with another backbone than the one that ships with evalkit",
    "no_valid_truth": "the ground-truth depth has no pixel inside the mask",
    "degenerate_alignment": "scale or shift cannot be fitted to this prediction",
    "empty_cloud": "one of the two clouds has no point",
    "bad_state": "the predicted state is not finite or its quaternion has length zero",
    "bad_truth": "an image or state of the ground truth is missing, unreadable or not finite",
    "no_predicted_state": "the policy predicts no states, so that its wrist cameras have no pose",
    "bad_camera": "intrinsics, pose or mount of a camera are missing or not usable",
    "missing_frame": "the prediction has no such frame",
    "wrong_size": "prediction and ground truth differ in shape",
    "too_small": "the images are smaller than the metric's window",
    "no_overlap": "the views of the frame have too few points in common",
    "too_few_samples": "a distance between sets of clips needs more clips, or more frames of a clip",
    "same_truth": "the ground truths for the two actions do not differ, so that the predictions need not differ either",
    "too_few_pixels": "a mask has fewer than 16 pixels in this image",
    "unreadable": "a frame cannot be read or decoded",
    "missing_clip": "the record names a clip that does not exist",
    "broken_clip": "the clip cannot be read",
    "broken_chunk": "a chunk of the clip cannot be read",
    "no_truth": "the prediction has no ground truth of the same name",
    "foreign_clip": "the clip belongs to another plan, or holds another episode than the plan's",
    "scoring_failed": "the scorer failed on this clip",
    "not_finite": "the metric is infinite or not a number",
    "unavailable": "something that the metric needs is not installed or not given",
    "no_prediction": "the ground truth has no prediction of the same name",
    "warning": "a check found something that looks wrong; the metrics have values (rows named check/...)",
    "refused": "a check found something wrong; the metrics that depend on it have no value",
}
"""Every status of a row of scores, with its meaning."""


class Measure(NamedTuple):
    """One number, or the reason why there is none.

    Attributes:
        value: Finite, or None where the metric has no value here. Means are over the rows that have a value.
        status: A key of `STATUSES`; a value can have one other than `ok`.
        reason: One sentence, empty where the status says enough.
    """

    value: float | None
    status: str = OK
    reason: str = ""


Modality = Literal["rgb", "depth"]


class ImageKey(NamedTuple):
    """Which image of a chunk: colour or depth, the frame's index, the view's index."""

    modality: Modality
    frame_idx: int
    view: int


WHOLE_CHUNK = -1
"""`frame_idx` of a value that covers all frames of a chunk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One number of one chunk.

    Attributes:
        subject: A key of `names.SUBJECTS`.
        chunk_idx: Position in the episode.
        frame_idx: Horizon of the frame, 0 for the first predicted one; `WHOLE_CHUNK` for a value over all.
        view: Camera, `static` (all static cameras), `all` (all cameras), or the arm of a pose.
        metric: A key of `names.METRICS`, `check/` and the name of a check, or `clip`.
        value: None where there is none; `status` says why.
        status: A key of `STATUSES`.
        reason: One sentence, or empty.
    """

    subject: str
    chunk_idx: int
    frame_idx: int
    view: str
    metric: str
    value: float | None
    status: str
    reason: str
