"""A number that says how it came about, or why there is none.

In: a value or a named outcome. Out: `Measure`, which every metric returns where a frame may be unfit for it.
Read next: `names.py`, the list of metrics with their units and definitions.
"""

from __future__ import annotations

from typing import NamedTuple

OK = "ok"

STATUSES: dict[str, str] = {
    OK: "a value without remark",
    "identical_frames": "prediction and truth are the same to the bit, so that PSNR has no finite value",
    "some_invalid_depth": "some predicted pixels are not finite or not positive; each counts as an error",
    "all_invalid_depth": "no predicted pixel is finite and positive; each counts as an error",
    "constant_depth": "the predicted depth is the same everywhere",
    "no_valid_truth": "the true depth has no pixel inside the mask",
    "degenerate_alignment": "scale or shift cannot be fitted to this prediction",
    "empty_cloud": "one of the two clouds has no point",
    "bad_state": "the predicted state is not finite or its quaternion has no length",
    "no_predicted_state": "the policy predicts no states, so that its wrist cameras have no pose",
    "bad_camera": "intrinsics, pose or hand-eye transform of a camera are missing or not usable",
    "missing_frame": "the prediction ends before the truth",
    "wrong_size": "prediction and truth differ in their shape",
    "too_small": "the pictures are smaller than the metric's window",
    "unreadable": "a frame cannot be read or decoded",
    "missing_clip": "the record names a clip that is not there",
    "broken_clip": "the clip cannot be read",
    "broken_chunk": "a chunk of the clip cannot be read",
    "no_truth": "the prediction has no truth of the same name",
    "foreign_clip": "the clip belongs to another plan, or holds another episode than the plan's",
    "scoring_failed": "the scorer itself failed on this clip",
    "not_finite": "the metric came out infinite or not a number",
    "unavailable": "what the number needs is not there",
}
"""Every status a row of scores may carry, with what it means."""


class Measure(NamedTuple):
    """One number or the reason why there is none.

    Attributes:
        value: Finite, or None where the metric has no value here. A mean is taken over the rows that have one.
        status: A key of `STATUSES`; a value may carry a remark.
        reason: One sentence, empty where the status says enough.
    """

    value: float | None
    status: str = OK
    reason: str = ""
