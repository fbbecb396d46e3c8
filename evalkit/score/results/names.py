"""Every metric by the name that it has in the result file, with unit, direction and definition.

In: nothing. Out: `METRICS`, which is also written into the result file.
Read next: `evalkit/score/chunk.py`, which computes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Family = Literal["image", "lpips", "depth", "cloud", "state"]
Better = Literal["higher", "lower"]
Per = Literal["view", "change", "frame", "arm", "chunk"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        name: `what_unit/convention`.
        family: Which part of a prediction it needs.
        better: Which way is better.
        per: What one row covers: a frame of a view, likewise but for the first frame, a frame of all views, a frame of
            an arm, or a chunk.
        definition: Mask, pooling and form, one sentence.
    """

    name: str
    family: Family
    better: Better
    per: Per
    definition: str


def _metrics() -> tuple[Metric, ...]:
    gt_mask = "mask from truth alone (finite, 1 mm < truth < 10 m), an invalid prediction counts as 0 m"
    cloud = "exact nearest neighbours between fused clouds of all cameras, nothing subsampled"
    rows: list[tuple[str, Family, Better, Per, str]] = [
        ("psnr_db/frame_mean", "image", "higher", "view", "decibels of one frame, range 1; identical frames have none"),
        ("psnr_db/frame_eps1e-8", "image", "higher", "view", "the same with 1e-8 added to the squared error"),
        ("psnr_db/clip_pooled", "image", "higher", "chunk", "squared error pooled over a chunk's static frames first"),
        ("ssim/gauss11", "image", "higher", "view", "gaussian 11x11, sigma 1.5, valid window, population covariance"),
        ("lpips/alex_v0.1", "lpips", "lower", "view", "LPIPS v0.1 heads on AlexNet, input in [-1, 1]"),
        ("lpips/squeeze_v0.1", "lpips", "lower", "view", "LPIPS v0.1 heads on SqueezeNet 1.1, input in [-1, 1]"),
        ("lpips/vgg_v0.1", "lpips", "lower", "view", "LPIPS v0.1 heads on VGG16, input in [-1, 1]"),
        ("absrel/gt_mask", "depth", "lower", "view", f"mean |pred - true| / true of a frame; {gt_mask}"),
        ("absrel/gt_mask_clip_pooled", "depth", "lower", "chunk", f"the same, pooled over a chunk's pixels; {gt_mask}"),
        ("delta1/gt_mask", "depth", "higher", "view", f"share with max ratio strictly below 1.25; {gt_mask}"),
        ("delta2/gt_mask", "depth", "higher", "view", f"share with max ratio strictly below 1.25^2; {gt_mask}"),
        ("delta3/gt_mask", "depth", "higher", "view", f"share with max ratio strictly below 1.25^3; {gt_mask}"),
        ("delta1/gt_mask_clip_pooled", "depth", "higher", "chunk", f"delta1 pooled over a chunk's pixels; {gt_mask}"),
        ("rmse_m/gt_mask", "depth", "lower", "view", f"root mean squared error of a frame, metres; {gt_mask}"),
        ("invalid_depth_frac/gt_mask", "depth", "lower", "view", "share of the mask whose prediction is no depth"),
        ("absrel/gt_mask_median_scaled", "depth", "lower", "view", "AbsRel after scaling each frame by medians"),
        ("absrel/gt_mask_affine_disparity", "depth", "lower", "chunk", "AbsRel after one affine disparity fit a chunk"),
        ("depth_change_m/gt_mask", "depth", "lower", "change", "mean |change of prediction - change of truth| a frame"),
        ("chamfer_m/l1_half", "cloud", "lower", "frame", f"mean of accuracy and completeness, metres; {cloud}"),
        ("chamfer_m/l1_sum", "cloud", "lower", "frame", f"accuracy plus completeness, metres; {cloud}"),
        ("chamfer_m/l1_pred_to_gt", "cloud", "lower", "frame", f"accuracy, metres; {cloud}"),
        ("chamfer_m/l1_gt_to_pred", "cloud", "lower", "frame", f"completeness, metres; {cloud}"),
        ("chamfer_m2/l2sq_sum", "cloud", "lower", "frame", f"mean squared distances of both ways added; {cloud}"),
        ("fscore/5mm", "cloud", "higher", "frame", f"harmonic mean of shares strictly nearer than 5 mm; {cloud}"),
        ("fscore/10mm", "cloud", "higher", "frame", f"harmonic mean of shares strictly nearer than 10 mm; {cloud}"),
        ("fscore/50mm", "cloud", "higher", "frame", f"harmonic mean of shares strictly nearer than 50 mm; {cloud}"),
        ("ee_position_mm/euclidean", "state", "lower", "arm", "distance of predicted to true end effector"),
        ("ee_rotation_deg/geodesic", "state", "lower", "arm", "angle between predicted and true end effector"),
        ("gripper_open_frac/abs_error", "state", "lower", "arm", "|predicted - true| open share of the gripper"),
        ("state_mae/mixed_units", "state", "lower", "frame", "mean |pred - true| over the 8 numbers of each arm"),
    ]
    return tuple(Metric(name=n, family=f, better=b, per=p, definition=d) for n, f, b, p, d in rows)


METRICS: dict[str, Metric] = {metric.name: metric for metric in _metrics()}

SUBJECTS: dict[str, str] = {
    "policy": "what the policy imagined of its own actions",
    "policy_given_actions": "what the policy imagined of the recorded actions, which it was given: a world simulator",
    "repeat_last_frame": "floor: the frame that the policy saw, repeated",
    "depth_8bit": "what 8 bits of inverse depth between 0.1 and 4.5 m cost on true depth",
    "ground_truth": "sanity: the truth scored against itself, wrist poses from the true state (first chunk of a clip)",
    "codec_round_trip": "ceiling: the truth after the policy's own codec, there and back",
}
"""Whose frames a row scores; all but those of `PREDICTED` are references."""

PREDICTED = ("policy", "policy_given_actions")
"""Subjects that are predictions of the evaluated policy; all others are references."""
