"""Metrics of parts of the images, of wrist cameras and of motion, next to those of whole static images.

In: the ground truth, a prediction, the frame's index. Out: named measures of one frame.
Read next: `frame.py`, the metrics of whole images and clouds; `metrics/motion.py`, what moves.

Masks depend on the ground truth alone, so a model cannot choose its pixels. None of these metrics enters the averages of
the static cameras: each has a name of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np

from evalkit.contracts.types import Prediction
from evalkit.score.frame import FrameScores, GroundTruth, ssim_of, unfit
from evalkit.score.metrics import depth, image, motion
from evalkit.score.results.outcome import ImageKey, Measure

Extra = Literal["wrist", "flow"]
"""Metrics that take long, so that they are computed on request: SSIM and LPIPS of wrist cameras; optical flow."""

EXTRAS: tuple[Extra, ...] = ("wrist", "flow")

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


class Parts:
    """Masks and motion of the ground truth of a chunk, which several predictions share.

    Attributes:
        truth: The ground truth.
        base: Where motion starts from.
        robot_fvhw: F,V,H,W bool, pixels that show the robot; None if not given.
    """

    def __init__(self, truth: GroundTruth, base: Base, robot_fvhw: np.ndarray | None) -> None:
        self.truth = truth
        self.base = base
        self.robot_fvhw = robot_fvhw
        self._moving: dict[tuple[int, int], Mask] = {}
        self._flows: dict[tuple[int, int], np.ndarray] = {}

    def masks(self, frame_idx: int, view: int) -> dict[str, Mask]:
        """Return the masks of an image by the name of the part: `moving`, and `robot` if it is given."""
        key = frame_idx, view
        robot = (
            {}
            if self.robot_fvhw is None
            else {"robot": _enough(self.robot_fvhw[key], "show the robot", self.truth.num_pixels(view))}
        )
        return {"moving": self.moving(frame_idx, view), **robot}

    def moving(self, frame_idx: int, view: int) -> Mask:
        """Return the pixels of an image that differ from the base."""
        key = frame_idx, view
        if key not in self._moving:
            frames, base = self.truth.frames, self.base
            colours = base.rgb_vhwc_u8[view], frames.rgb_fvhwc_u8[key]
            mask = motion.moving_mask(*colours, base.depth_vhw_m[view], frames.depth_fvhw_m[key])
            self._moving[key] = base.problems.get(view) or _enough(mask, "move", self.truth.num_pixels(view))
        return self._moving[key]

    def flow_px(self, frame_idx: int, view: int) -> np.ndarray:
        """Return how far each pixel of the base has moved in the ground truth, H,W,2 pixels."""
        key = frame_idx, view
        if key not in self._flows:
            own = self.truth.own_pixels(view)
            images = self.base.rgb_vhwc_u8[view][own], self.truth.frames.rgb_fvhwc_u8[key][own]
            self._flows[key] = motion.flow_px(*images)
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


def _enough(mask: np.ndarray, what: str, num_pixels: int) -> Mask:
    """Return a mask, or an outcome if it has too few pixels."""
    count = int(mask.sum())
    if count >= motion.MIN_PIXELS:
        return mask
    return Measure(None, "too_few_pixels", f"{count} of {num_pixels} pixels {what}, needed are {motion.MIN_PIXELS}")


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
    problem = rgb_problem or (mask if isinstance(mask, Measure) else None)
    key = frame_idx, view
    if problem or isinstance(mask, Measure):
        yield f"psnr_db/{part}_pixels", problem or mask
    else:
        square = motion.masked_mse(truth.frames.rgb_fvhwc_u8[key], prediction.rgb[key], mask)
        yield f"psnr_db/{part}_pixels", image.psnr_db(square)
    if prediction.depth is None:
        return
    problem = unfit(truth, ImageKey("depth", *key), prediction.depth)
    if problem or isinstance(mask, Measure):
        absrel = delta = problem or mask
    else:
        errors = depth.depth_errors(truth.frames.depth_fvhw_m[key][mask], prediction.depth[key][mask])
        absrel, delta = errors.absrel(), errors.delta(1)
    yield f"absrel/{part}_pixels_10m", absrel
    yield f"delta1/{part}_pixels_10m", delta


def _wrist(
    truth: GroundTruth,
    prediction: Prediction,
    frame_idx: int,
    view: int,
    rgb_problem: Measure | None,
    extras: tuple[Extra, ...],
) -> Iterator[tuple[str, Measure]]:
    """Yield the RGB and depth metrics of a whole wrist image."""
    key = frame_idx, view
    own = truth.own_pixels(view)
    true_u8 = truth.frames.rgb_fvhwc_u8[key][own]
    yield "psnr_db/frame_mean_wrist", rgb_problem or image.psnr_db(image.mse(true_u8, prediction.rgb[key][own]))
    if "wrist" in extras:
        yield "ssim/gauss11_wrist", rgb_problem or ssim_of(truth, prediction.rgb[key][own], frame_idx, view)
    if prediction.depth is None:
        return
    problem = unfit(truth, ImageKey("depth", *key), prediction.depth)
    errors = depth.NO_ERRORS if problem else depth.depth_errors(truth.frames.depth_fvhw_m[key], prediction.depth[key])
    yield "absrel/gt_mask_wrist_10m", problem or errors.absrel()
    yield "delta1/gt_mask_wrist_10m", problem or errors.delta(1)


def _flow_error(parts: Parts, prediction: Prediction, frame_idx: int, view: int) -> Measure:
    """Return how far the ends of predicted motion since the base lie from those of true motion."""
    mask = parts.moving(frame_idx, view)
    if isinstance(mask, Measure):
        return mask
    own = parts.truth.own_pixels(view)
    pred_flow_px = motion.flow_px(parts.base.rgb_vhwc_u8[view][own], prediction.rgb[frame_idx, view][own])
    return Measure(motion.endpoint_error_px(parts.flow_px(frame_idx, view), pred_flow_px, mask[own]))
