"""Every metric by its name in the result file, with unit, direction and definition.

In: nothing. Out: `METRICS`, which is also written into the result file.
Read next: `evalkit/score/chunk.py`, which computes them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Family = Literal[
    "image", "lpips", "depth", "cloud", "state", "parts", "wrist", "views", "flow", "distribution", "dependence"
]
Better = Literal["higher", "lower", "neither"]
Per = Literal["view", "change", "frame", "arm", "chunk", "clip"]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        name: `what_unit/convention`.
        family: Part of a prediction that it needs; or that it describes moving or robot pixels (`parts`), wrist
            cameras, the agreement of views, optical flow, a set of clips, or how predictions for two actions differ.
        better: Direction of better values; `neither` where a value is judged next to another one alone.
        per: What one row covers: a frame of a view (`view`), a frame of a view except the first (`change`), a frame of
            all views (`frame`), a frame of an arm (`arm`), a chunk (`chunk`), or a clip (`clip`).
        definition: Mask, pooling and form, one sentence.
    """

    name: str
    family: Family
    better: Better
    per: Per
    definition: str


MASK = "mask from the ground truth alone (finite, 1 mm < true < 10 m), invalid predictions count as 0 m"
"""Pixels of which depth metrics are the mean."""


def _metrics() -> tuple[Metric, ...]:
    cloud = "clouds of all cameras in the range of the masks, exact nearest neighbours, no subsampling"
    clip = "a generated clip (a predicted chunk; of folders, the whole clip)"
    lpips = "LPIPS v0.1, a learned distance of RGB images, with"
    ratio = "share of pixels with max(pred / true, true / pred) strictly below"
    rows: list[tuple[str, Family, Better, Per, str]] = [
        ("psnr_db/frame_mean", "image", "higher", "view", "PSNR of an RGB image, dB; identical images have none"),
        ("psnr_db/frame_eps1e-8", "image", "higher", "view", "PSNR with 1e-8 added to the mean squared error, dB"),
        ("psnr_db/clip_pooled", "image", "higher", "chunk", f"PSNR of {clip}, squared error averaged over images, dB"),
        (
            "ssim/gauss11",
            "image",
            "higher",
            "view",
            "SSIM of an RGB image: 11x11 gaussian window, sigma 1.5, valid part",
        ),
        ("lpips/alex_v0.1", "lpips", "lower", "view", f"{lpips} AlexNet"),
        ("lpips/squeeze_v0.1", "lpips", "lower", "view", f"{lpips} SqueezeNet 1.1"),
        ("lpips/vgg_v0.1", "lpips", "lower", "view", f"{lpips} VGG16"),
        ("absrel/gt_mask_10m", "depth", "lower", "view", f"mean of |pred - true| / true over a depth image; {MASK}"),
        ("absrel/gt_mask_clip_pooled_10m", "depth", "lower", "chunk", f"the same over all pixels of {clip}; {MASK}"),
        ("delta1/gt_mask_10m", "depth", "higher", "view", f"{ratio} 1.25; {MASK}"),
        ("delta2/gt_mask_10m", "depth", "higher", "view", f"{ratio} 1.25^2; {MASK}"),
        ("delta3/gt_mask_10m", "depth", "higher", "view", f"{ratio} 1.25^3; {MASK}"),
        ("delta1/gt_mask_clip_pooled_10m", "depth", "higher", "chunk", f"delta1 over all pixels of {clip}; {MASK}"),
        ("rmse_m/gt_mask_10m", "depth", "lower", "view", f"root mean squared error of a depth image, metres; {MASK}"),
        (
            "invalid_depth_frac/gt_mask_10m",
            "depth",
            "lower",
            "view",
            "share of the mask without a predicted depth",
        ),
        ("far_depth_frac/gt_mask_10m", "depth", "lower", "view", "share of the mask predicted at 10 m or beyond"),
        (
            "absrel/gt_mask_median_scaled_10m",
            "depth",
            "lower",
            "view",
            f"absrel of a depth image scaled by the ratio of the medians of true and pred; {MASK}",
        ),
        (
            "absrel/gt_mask_affine_disparity_10m",
            "depth",
            "lower",
            "chunk",
            f"absrel of {clip} after one affine map of disparity, fitted by least squares without outliers",
        ),
        (
            "depth_change_m/gt_mask_10m",
            "depth",
            "lower",
            "change",
            f"mean |change of pred - change of true| since the frame before, metres; {MASK}, in both frames",
        ),
        ("chamfer_m/l1_half_10m", "cloud", "lower", "frame", f"mean of accuracy and completeness, metres; {cloud}"),
        ("chamfer_m/l1_sum_10m", "cloud", "lower", "frame", f"accuracy plus completeness, metres; {cloud}"),
        (
            "chamfer_m/l1_pred_to_gt_10m",
            "cloud",
            "lower",
            "frame",
            f"accuracy: mean distance pred to true, metres; {cloud}",
        ),
        (
            "chamfer_m/l1_gt_to_pred_10m",
            "cloud",
            "lower",
            "frame",
            f"completeness: mean distance true to pred, metres; {cloud}",
        ),
        (
            "chamfer_m2/l2sq_sum_10m",
            "cloud",
            "lower",
            "frame",
            f"sum of the mean squared distances both ways, m^2; {cloud}",
        ),
        (
            "fscore/5mm_10m",
            "cloud",
            "higher",
            "frame",
            f"F-score: harmonic mean of shares strictly nearer than 5 mm; {cloud}",
        ),
        (
            "fscore/10mm_10m",
            "cloud",
            "higher",
            "frame",
            f"F-score: harmonic mean of shares strictly nearer than 10 mm; {cloud}",
        ),
        (
            "fscore/50mm_10m",
            "cloud",
            "higher",
            "frame",
            f"F-score: harmonic mean of shares strictly nearer than 50 mm; {cloud}",
        ),
        ("ee_position_mm/euclidean", "state", "lower", "arm", "distance between predicted and true end effector, mm"),
        ("ee_rotation_deg/geodesic", "state", "lower", "arm", "angle between predicted and true end effector, degrees"),
        ("gripper_open_frac/abs_error", "state", "lower", "arm", "|pred - true| of the gripper opening, 0 to 1"),
        ("state_mae/mixed_units", "state", "lower", "frame", "mean |pred - true| of the 8 state numbers of each arm"),
    ]
    return tuple(Metric(name=n, family=f, better=b, per=p, definition=d) for n, f, b, p, d in rows)


def _extra_metrics() -> Iterator[Metric]:
    """Yield the metrics of parts of the images, of wrist cameras and of motion."""
    moving = "pixels whose true colour or depth has changed since the frame that the policy saw (25 of 255 levels, 2 %)"
    robot = "pixels of the robot, by the masks of the ground truth"
    for part, pixels in (("moving", moving), ("robot", robot)):
        yield _extra(f"psnr_db/{part}_pixels", "parts", "higher", f"PSNR of RGB, dB, over {pixels}")
        yield _extra(f"absrel/{part}_pixels_10m", "parts", "lower", f"absrel over {pixels}")
        yield _extra(f"delta1/{part}_pixels_10m", "parts", "higher", f"delta1 over {pixels}")
    wrist = "of the image of a wrist camera, which a wrong predicted pose shifts as a whole"
    yield _extra("psnr_db/frame_mean_wrist", "wrist", "higher", f"PSNR {wrist}, dB")
    yield _extra("ssim/gauss11_wrist", "wrist", "higher", f"SSIM {wrist}")
    for net, title in (("alex", "AlexNet"), ("squeeze", "SqueezeNet 1.1"), ("vgg", "VGG16")):
        yield _extra(f"lpips/{net}_v0.1_wrist", "wrist", "lower", f"LPIPS with {title} {wrist}")
    yield _extra("absrel/gt_mask_wrist_10m", "wrist", "lower", f"absrel {wrist}; {MASK}")
    yield _extra("delta1/gt_mask_wrist_10m", "wrist", "higher", f"delta1 {wrist}; {MASK}")
    yield Metric(
        name="view_agreement_frac/not_in_front_10m",
        family="views",
        better="higher",
        per="frame",
        definition="share of agreeing points: points of one predicted view that project into another view and are not "
        "hidden from it agree if they lie on its surface (within 2 % + 5 mm), and disagree if they lie in front of it; "
        "predicted depth and poses alone, so a frozen prediction agrees with itself",
    )
    flow = (
        "end-point error of motion since the frame that the policy saw, pixels, over moving pixels (OpenCV's DIS flow)"
    )
    yield _extra("flow_px/dis_moving_pixels", "flow", "lower", flow)
    yield Metric(
        name="kernel_distance/alex_frames_changes",
        family="distribution",
        better="lower",
        per="clip",
        definition="distance between the sets of predicted and true frames of a task, neither FID nor FVD: squared "
        "maximum mean discrepancy with a gaussian kernel, unbiased, of AlexNet's last features and their change since "
        "the frame before; only frames of different clips are compared; the distance is the mean over the clips of a "
        "task, one clip's value its jackknife part; 5 clips at least; near 0, the distance may be estimated below 0",
    )


def _apart_metrics() -> Iterator[Metric]:
    """Yield how far predictions and ground truths for the recorded and for other actions lie apart."""
    pixels = "over all pixels of all static cameras"
    quantities = (
        ("apart_levels", f"RGB, root mean square {pixels}, of 255 grey levels"),
        (
            "apart_m",
            f"depth, root mean square {pixels} with depth in both ground truths (1 mm to 10 m), metres; predicted "
            "depth that is not finite or not positive counts as 0 m",
        ),
        ("apart_mm", "position of the end effector, mm"),
    )
    for branch in BRANCHES:
        between = f"for the recorded actions and for those of `{branch}`, from the same frame"
        for name, quantity in quantities:
            definitions: tuple[tuple[str, Better, str], ...] = (
                ("pred", "neither", f"distance between the predictions {between}: {quantity}"),
                ("true", "neither", f"distance between the ground truths {between}: {quantity}"),
                (
                    "along",
                    "higher",
                    f"part of `{name}/pred_{branch}` that points along the true difference; signed",
                ),
            )
            for side, better, definition in definitions:
                yield Metric(
                    name=f"{name}/{side}_{branch}",
                    family="dependence",
                    better=better,
                    per="arm" if name == "apart_mm" else "frame",
                    definition=definition,
                )


def _extra(name: str, family: Family, better: Better, definition: str) -> Metric:
    return Metric(name=name, family=family, better=better, per="view", definition=definition)


BRANCHES = ("other_branch", "mirrored_action")
"""Controls whose actions can be executed from the same state, so that they have a ground truth of their own."""

CONTROLS = (*BRANCHES, "wrong_instruction")
"""Subjects that are predictions of the evaluated policy for something that was not done; no good value is expected."""

METRICS: dict[str, Metric] = {metric.name: metric for metric in (*_metrics(), *_extra_metrics(), *_apart_metrics())}

EXTRA_FAMILIES: tuple[Family, ...] = ("parts", "wrist", "views", "flow", "distribution")
"""Families that do not enter the tables of whole static images; reports show them in a table of their own."""


def metric_bounds(name: str) -> tuple[float, float]:
    """Return the lowest and the highest value that a metric can have; an unknown metric has no bounds.

    Example:
        >>> [metric_bounds(name) for name in ("absrel/gt_mask_10m", "ssim/gauss11", "psnr_db/frame_mean")]
        [(0.0, inf), (-1.0, 1.0), (-inf, inf)]
    """
    metric, kind = METRICS.get(name), name.partition("/")[0]
    if metric is None or kind in ("psnr_db", "kernel_distance") or (kind.startswith("apart") and "/along" in name):
        return -math.inf, math.inf
    if metric.better in ("lower", "neither"):
        return 0.0, 1.0 if kind.endswith("_frac") else math.inf
    return (-1.0 if kind == "ssim" else 0.0), 1.0


SUBJECTS: dict[str, str] = {
    "policy": "predictions of the policy for its own actions",
    "policy_given_actions": "predictions of the policy for the recorded actions (the policy as a world simulator)",
    "other_branch": "control, predictions of the policy for the recorded actions of another chunk of the task, against "
    "the ground truth of this one",
    "mirrored_action": "control, predictions of the policy for the recorded motion mirrored left to right",
    "wrong_instruction": "control, predictions of the policy for the recorded actions with another task's instruction",
    "repeat_last_frame": "floor, which repeats the last frame that the policy saw",
    "depth_8bit": "ground-truth depth stored with 8 bits of inverse depth between 0.1 and 4.5 m",
    "ground_truth": "sanity check, ground truth scored against itself, perfect up to rounding (first frame of a clip)",
    "codec_round_trip": "ceiling, ground truth encoded and decoded by the policy's codec",
}
"""What a row scores: predictions of the policy (`PREDICTED`), `CONTROLS`, and references (all others)."""

GIVEN = "policy_given_actions"
PREDICTED = ("policy", GIVEN)
"""Subjects that are predictions of the evaluated policy."""
