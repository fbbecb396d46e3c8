"""Metrics of parts of the images, of wrist cameras and of motion, next to those of whole static images.

In: the ground truth, a prediction, the frame's index. Out: named measures of one frame.
Read next: `frame.py`, the metrics of whole images and clouds; `metrics/motion.py`, what moves.

Masks depend on the ground truth alone, so a model cannot choose its pixels. No metric here enters the averages of the
static cameras: each has a name of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np

from evalkit.contracts.types import Prediction
from evalkit.score.checks.agreement import MIN_POINTS, Pair, Views, pair_agreements
from evalkit.score.frame import FrameScores, GroundTruth, Named, predicted_pose, ssim_of, unfit
from evalkit.score.metrics import depth, image, motion
from evalkit.score.results.outcome import ImageKey, Measure

Extra = Literal["wrist", "flow", "distribution"]
"""Metrics that take long, so that they are computed on request: SSIM and LPIPS of wrist cameras; optical flow; the
distance between sets of clips."""

EXTRAS: tuple[Extra, ...] = ("wrist", "flow", "distribution")

Mask = np.ndarray | Measure
"""H,W bool; or why there is none."""


class Base(NamedTuple):
    """The image of each view that motion starts from: what the policy saw, or else the first one of the clip.

    Attributes:
        rgb_vhwc_u8: V,H,W,3.
        depth_vhw_m: V,H,W.
        problems: By view, why its image cannot be used.
    """

    rgb_vhwc_u8: np.ndarray
    depth_vhw_m: np.ndarray
    problems: Mapping[int, Measure]


class RobotMasks(NamedTuple):
    """Pixels of the ground truth that show the robot.

    Attributes:
        shown_fvhw: F,V,H,W bool.
        problems: By frame and view, why there is no mask.
    """

    shown_fvhw: np.ndarray
    problems: Mapping[tuple[int, int], Measure]


class Parts:
    """Masks and motion of the ground truth of a chunk, which several predictions share.

    Attributes:
        truth: The ground truth.
        base: Where motion starts from.
        robot: Pixels that show the robot; None if not given.
    """

    def __init__(self, truth: GroundTruth, base: Base, robot: RobotMasks | None) -> None:
        self.truth = truth
        self.base = base
        self.robot = robot
        self._moving: dict[tuple[int, int], Mask] = {}
        self._flows: dict[tuple[int, int], np.ndarray] = {}

    def masks(self, frame_idx: int, view: int) -> dict[str, Mask]:
        """Return the masks of an image by the name of the part: `moving`, and `robot` if it is given."""
        moving = {"moving": self.moving(frame_idx, view)}
        return moving if self.robot is None else {**moving, "robot": self._robot(self.robot, frame_idx, view)}

    def moving(self, frame_idx: int, view: int) -> Mask:
        """Return the pixels of an image that differ from the base."""
        key = frame_idx, view
        if key not in self._moving:
            frames, base, own = self.truth.frames, self.base, self.truth.own_pixels(view)
            colours = base.rgb_vhwc_u8[view][own], frames.rgb_fvhwc_u8[key][own]
            mask = motion.moving_mask(*colours, base.depth_vhw_m[view][own], frames.depth_fvhw_m[key][own])
            self._moving[key] = base.problems.get(view) or _enough(mask, "move")
        return self._moving[key]

    def _robot(self, robot: RobotMasks, frame_idx: int, view: int) -> Mask:
        key = frame_idx, view
        return robot.problems.get(key) or _enough(robot.shown_fvhw[key][self.truth.own_pixels(view)], "show the robot")

    def flow_px(self, frame_idx: int, view: int) -> np.ndarray:
        """Return how far each pixel of the base has moved in the ground truth, H,W,2 pixels."""
        key = frame_idx, view
        if key not in self._flows:
            own = self.truth.own_pixels(view)
            colours = self.base.rgb_vhwc_u8[view][own], self.truth.frames.rgb_fvhwc_u8[key][own]
            self._flows[key] = motion.flow_px(*colours)
        return self._flows[key]

    def forget(self, frame_idx: int) -> None:
        """Free the masks and flows of a frame."""
        for view in range(len(self.truth.env.cameras)):
            self._moving.pop((frame_idx, view), None)
            self._flows.pop((frame_idx, view), None)


def add_extra(
    scores: FrameScores,
    parts: Parts,
    truth: GroundTruth,
    prediction: Prediction,
    frame_idx: int,
    extras: tuple[Extra, ...],
) -> None:
    """Add these metrics of one frame of a prediction.

    Args:
        scores: Of the frame.
        parts: Masks and motion of the ground truth.
        truth: The ground truth, with the images of this prediction that cannot be scored.
        prediction: What is scored.
        frame_idx: The frame.
        extras: Which of the metrics that take long are added.
    """
    scores.named += _predicted_agreement(truth, prediction, frame_idx)
    for view, camera in enumerate(truth.env.cameras):
        rgb_problem = unfit(truth, ImageKey("rgb", frame_idx, view), prediction.rgb)
        if camera.kind == "wrist":
            for metric, measure in _wrist(truth, prediction, frame_idx, view, rgb_problem, extras):
                scores.add(camera.name, metric, measure)
            continue
        for part, mask in parts.masks(frame_idx, view).items():
            for metric, measure in _masked(truth, prediction, frame_idx, view, rgb_problem, part, mask):
                scores.add(camera.name, metric, measure)
        if "flow" in extras:
            error = rgb_problem or _flow_error(parts, prediction, frame_idx, view)
            scores.add(camera.name, "flow_px/dis_moving_pixels", error)


def true_agreement(truth: GroundTruth) -> Iterator[tuple[int, Named]]:
    """Yield the agreement of the views of the ground truth, each with the index of its frame."""
    frames = truth.frames
    itself = Prediction(rgb=frames.rgb_fvhwc_u8, depth=frames.depth_fvhw_m, proprio=None)
    for frame_idx in truth.frame_idxs:
        poses = dict(enumerate(frames.T_base_cam_fv44[frame_idx]))
        for named in _agreement(truth, itself, frame_idx, poses):
            yield frame_idx, named


def _predicted_agreement(truth: GroundTruth, prediction: Prediction, frame_idx: int) -> Iterator[Named]:
    poses = {view: predicted_pose(truth, prediction, frame_idx, view) for view in range(len(truth.env.cameras))}
    known = {view: T for view, T in poses.items() if T is not None}
    yield from _agreement(truth, prediction, frame_idx, known)


def _agreement(
    truth: GroundTruth, prediction: Prediction, frame_idx: int, poses: Mapping[int, np.ndarray]
) -> Iterator[Named]:
    """Yield the share of points of a view that do not lie in front of what another view shows there.

    Args:
        truth: The ground truth, with the images that cannot be scored.
        prediction: Whose depth is compared.
        frame_idx: The frame.
        poses: Camera poses by view; views without one are left out.
    """
    views = list(poses)
    if prediction.depth is None or len(views) < 2:
        return
    group = "all" if len(views) == len(truth.env.cameras) else "static"
    bad = truth.bad_camera(frame_idx, wrist_mounts=False)
    problem = Measure(None, "bad_camera", bad) if bad else None
    problems = (unfit(truth, ImageKey("depth", frame_idx, view), prediction.depth) for view in views)
    if problem := problem or next(filter(None, problems), None):
        yield Named(group, "view_agreement_frac/not_in_front_10m", problem)
        return
    seen = Views(
        depth_vhw_m=prediction.depth[frame_idx, views],
        intrinsics_v33_px=truth.intrinsics_v33_px[views],
        T_base_cam_v44=np.stack([poses[view] for view in views]),
    )
    total = Pair(0, 0, 0)
    for pair in pair_agreements(seen).values():
        total = total.plus(pair)
    visible = total.agree + total.in_front
    measure = Measure(total.agree / visible) if visible >= MIN_POINTS else Measure(None, "no_overlap")
    yield Named(group, "view_agreement_frac/not_in_front_10m", measure)


def _enough(mask: np.ndarray, what: str) -> Mask:
    """Return a mask, or an outcome if it has too few pixels."""
    if np.count_nonzero(mask) >= motion.MIN_PIXELS:
        return mask
    return Measure(None, "too_few_pixels", f"fewer than {motion.MIN_PIXELS} of {mask.size} pixels {what}")


def _masked(
    truth: GroundTruth,
    prediction: Prediction,
    frame_idx: int,
    view: int,
    rgb_problem: Measure | None,
    part: str,
    mask: Mask,
) -> Iterator[tuple[str, Measure]]:
    """Yield the RGB and depth metrics over the pixels of a mask."""
    key, own = (frame_idx, view), truth.own_pixels(view)
    metrics = f"psnr_db/{part}_pixels", f"absrel/{part}_pixels_10m", f"delta1/{part}_pixels_10m"
    if isinstance(mask, Measure):
        yield from ((metric, mask) for metric in (metrics if prediction.depth is not None else metrics[:1]))
        return
    if rgb_problem:
        yield metrics[0], rgb_problem
    else:
        square = motion.masked_mse(truth.frames.rgb_fvhwc_u8[key][own], prediction.rgb[key][own], mask)
        yield metrics[0], image.psnr_db(square)
    if prediction.depth is None:
        return
    problem = unfit(truth, ImageKey("depth", *key), prediction.depth)
    if problem:
        yield from ((metric, problem) for metric in metrics[1:])
        return
    true_m, pred_m = truth.frames.depth_fvhw_m[key][own], prediction.depth[key][own]
    errors = depth.depth_errors(true_m[mask], pred_m[mask])
    yield metrics[1], errors.absrel()
    yield metrics[2], errors.delta(1)


def _wrist(
    truth: GroundTruth,
    prediction: Prediction,
    frame_idx: int,
    view: int,
    rgb_problem: Measure | None,
    extras: tuple[Extra, ...],
) -> Iterator[tuple[str, Measure]]:
    """Yield the RGB and depth metrics of a whole wrist image."""
    key, own = (frame_idx, view), truth.own_pixels(view)
    if rgb_problem:
        yield "psnr_db/frame_mean_wrist", rgb_problem
    else:
        square = image.mse(truth.frames.rgb_fvhwc_u8[key][own], prediction.rgb[key][own])
        yield "psnr_db/frame_mean_wrist", image.psnr_db(square)
    if "wrist" in extras:
        yield "ssim/gauss11_wrist", rgb_problem or ssim_of(truth, prediction.rgb[key][own], *key)
    if prediction.depth is None:
        return
    problem = unfit(truth, ImageKey("depth", *key), prediction.depth)
    if problem:
        absrel = delta = problem
    else:
        errors = depth.depth_errors(truth.frames.depth_fvhw_m[key][own], prediction.depth[key][own])
        absrel, delta = errors.absrel(), errors.delta(1)
    yield "absrel/gt_mask_wrist_10m", absrel
    yield "delta1/gt_mask_wrist_10m", delta


def _flow_error(parts: Parts, prediction: Prediction, frame_idx: int, view: int) -> Measure:
    """Return how far the ends of predicted motion since the base lie from those of true motion."""
    mask = parts.moving(frame_idx, view)
    if isinstance(mask, Measure):
        return mask
    own = parts.truth.own_pixels(view)
    pred_flow_px = motion.flow_px(parts.base.rgb_vhwc_u8[view][own], prediction.rgb[frame_idx, view][own])
    return Measure(motion.endpoint_error_px(parts.flow_px(frame_idx, view), pred_flow_px, mask))
