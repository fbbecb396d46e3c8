"""All metrics of one frame: a prediction against the ground truth.

In: the ground truth of a chunk, a prediction, the frame's index. Out: named measures, and sums to be pooled.
Read next: `chunk.py`, which goes over the frames.

Pixel metrics use static cameras only, because a small error of the predicted pose shifts a whole wrist view. The cloud
uses all cameras. The pose error is reported separately.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from evalkit.contracts.geometry import ee_pose_from_proprio
from evalkit.contracts.spec import Arm, CameraSpec, EnvSpec
from evalkit.contracts.types import ARM_PROPRIO, Prediction
from evalkit.score.checks.cameras import pose_fault
from evalkit.score.metrics import cloud, depth, image, pose
from evalkit.score.metrics.device import CPU
from evalkit.score.metrics.nearest import PointTree, build_tree
from evalkit.score.results.names import METRICS, Family, Per
from evalkit.score.results.outcome import ImageKey, Measure
from evalkit.store.clips import Frames


class Named(NamedTuple):
    """A measure with the metric's name and the view, arm or group of cameras that it describes."""

    view: str
    metric: str
    measure: Measure


@dataclass(kw_only=True)
class FrameScores:
    """Measures of one frame.

    Attributes:
        named: Its measures.
        squares: Mean squared colour error of each static view that could be scored.
        errors: Depth errors of its static views, to be pooled over the clip.
        depth_views: Static views whose depth could be scored.
        problems: Of RGB (`image`) and, if it is predicted, of depth: why static views could not be scored.
    """

    named: list[Named] = field(default_factory=list)
    squares: list[float] = field(default_factory=list)
    errors: depth.DepthErrors = depth.NO_ERRORS
    depth_views: list[int] = field(default_factory=list)
    problems: dict[Family, list[Measure]] = field(default_factory=dict)

    def add(self, view: str, metric: str, measure: Measure) -> None:
        """Add one measure."""
        self.named.append(Named(view, metric, measure))

    def add_unfit(self, view: str, family: Family, per: Per, measure: Measure) -> None:
        """Add the same named outcome for every metric that would have had a value here."""
        self.named += [Named(view, name, measure) for name in names_of(family, per)]


class GroundTruth:
    """The ground truth of a chunk, with what several predictions share: SSIM windows and trees of fused clouds.

    Attributes:
        frames: Recorded frames.
        intrinsics_v33_px: V,3,3.
        env: The cameras.
        problems: Images, ground truth or predicted, that could not be read or are refused.
        bad_cameras: Why no cloud can be scored; empty if it can.
        num_frames: F.
        first: Index of the first frame to score; earlier frames were scored with the part before.
        device: Where SSIM and the nearest neighbours are computed; SSIM's windows lie there.
        view_hw_px: Sizes of the views where they differ; see `ClipChunk`.
        static: Index and name of each static camera.
    """

    def __init__(
        self,
        frames: Frames,
        intrinsics_v33_px: np.ndarray,
        env: EnvSpec,
        *,
        problems: Mapping[ImageKey, Measure] | None = None,
        bad_cameras: str = "",
        first: int = 0,
        device: str = CPU,
        view_hw_px: tuple[tuple[int, int], ...] | None = None,
    ) -> None:
        self.frames = frames
        self.first = first
        self.device = device
        self.view_hw_px = view_hw_px
        self.problems = problems or {}
        self.bad_cameras = bad_cameras
        self.intrinsics_v33_px = intrinsics_v33_px
        self.env = env
        self.num_frames = len(frames.rgb_fvhwc_u8)
        self.static = [(idx, camera.name) for idx, camera in enumerate(env.cameras) if camera.kind == "static"]
        self._halves: dict[tuple[int, int], image.SsimHalf] = {}
        self._clouds: dict[tuple[int, tuple[int, ...]], PointTree | None] = {}

    def with_problems(self, problems: Mapping[ImageKey, Measure]) -> GroundTruth:
        """Return the same ground truth with more images that cannot be scored."""
        return GroundTruth(
            self.frames,
            self.intrinsics_v33_px,
            self.env,
            problems={**self.problems, **problems},
            bad_cameras=self.bad_cameras,
            first=self.first,
            device=self.device,
            view_hw_px=self.view_hw_px,
        )

    def first_frame(self) -> GroundTruth:
        """Return the ground truth of the first frame alone."""
        return GroundTruth(
            Frames(**{name: array[:1] for name, array in vars(self.frames).items()}),
            self.intrinsics_v33_px,
            self.env,
            problems=self.problems,
            bad_cameras=self.bad_cameras,
            device=self.device,
            view_hw_px=self.view_hw_px,
        )

    def own_pixels(self, view: int) -> tuple[slice, slice]:
        """Return the rows and columns of a view's arrays that its image fills."""
        height, width = (None, None) if self.view_hw_px is None else self.view_hw_px[view]
        return slice(height), slice(width)

    def ssim_half(self, frame_idx: int, view: int) -> image.SsimHalf:
        """Return the part of SSIM that depends on a ground-truth frame alone."""
        key = frame_idx, view
        if key not in self._halves:
            self._halves[key] = image.ssim_half(
                self.frames.rgb_fvhwc_u8[key][self.own_pixels(view)], device=self.device
            )
        return self._halves[key]

    def cloud(self, frame_idx: int, views: list[int]) -> PointTree | None:
        """Return the fused ground-truth cloud of some views; None if it is empty."""
        key = frame_idx, tuple(views)
        if key not in self._clouds:
            frames = self.frames
            points = cloud.fuse(
                frames.depth_fvhw_m[frame_idx, views],
                self.intrinsics_v33_px[views],
                frames.T_base_cam_fv44[frame_idx, views],
            )
            self._clouds[key] = build_tree(points) if len(points) else None
        return self._clouds[key]

    def forget(self, frame_idx: int) -> None:
        """Free the windows and trees of a frame."""
        for half in [key for key in self._halves if key[0] == frame_idx]:
            del self._halves[half]
        for fused in [key for key in self._clouds if key[0] == frame_idx]:
            del self._clouds[fused]

    @property
    def frame_idxs(self) -> range:
        """Return the frames to be scored."""
        return range(self.first, self.num_frames)

    def bad_camera(self, frame_idx: int, *, wrist_mounts: bool) -> str:
        """Return what is wrong with the cameras of a frame, or an empty text.

        Args:
            frame_idx: The frame.
            wrist_mounts: Also check the `T_ee_cam` of wrist cameras.
        """
        if self.bad_cameras:
            return self.bad_cameras
        for idx, camera in enumerate(self.env.cameras):
            if fault := pose_fault(self.frames.T_base_cam_fv44[frame_idx, idx]):
                return f"the pose of {camera.name} cannot be right: {fault}"
            if wrist_mounts and camera.kind == "wrist":
                fault = "its arm is missing" if camera.arm is None else pose_fault(np.asarray(camera.T_ee_cam))
                if fault:
                    return f"the T_ee_cam of {camera.name} cannot be right: {fault}"
        return ""


def score_frame(truth: GroundTruth, prediction: Prediction, frame_idx: int) -> FrameScores:
    """Return every metric of one frame of a prediction."""
    scores = FrameScores(problems={"image": []} if prediction.depth is None else {"image": [], "depth": []})
    for view, name in truth.static:
        _add_image(scores, truth, prediction, frame_idx, view, name)
        if prediction.depth is not None:
            _add_depth(scores, truth, prediction.depth, frame_idx, view, name)
    if prediction.depth is not None:
        _add_cloud(scores, truth, prediction, prediction.depth, frame_idx)
    if prediction.proprio is not None:
        _add_state(scores, truth, prediction.proprio, frame_idx)
    return scores


def names_of(family: Family, per: Per) -> list[str]:
    """Return the metrics of a family that have a row for each view, frame, arm or chunk."""
    return [metric.name for metric in METRICS.values() if metric.family == family and metric.per == per]


def predicted_pose(truth: GroundTruth, prediction: Prediction, frame_idx: int, view: int) -> np.ndarray | None:
    """Return a camera's pose in a prediction: static cameras as recorded, wrist cameras from the predicted state."""
    camera: CameraSpec = truth.env.cameras[view]
    if camera.kind == "static":
        return np.asarray(truth.frames.T_base_cam_fv44[frame_idx, view])
    if prediction.proprio is None or frame_idx >= len(prediction.proprio):
        return None
    return pose.wrist_pose(prediction.proprio[frame_idx], camera)


def unfit(truth: GroundTruth, key: ImageKey, pred: np.ndarray) -> Measure | None:
    """Return why an image cannot be scored: it is unreadable, has another shape, or lies after the prediction's end."""
    true = truth.frames.rgb_fvhwc_u8 if key.modality == "rgb" else truth.frames.depth_fvhw_m
    if pred.shape[1:] != true.shape[1:]:
        return Measure(
            None, "wrong_size", f"a predicted frame is {pred.shape[1:]}, a ground-truth frame {true.shape[1:]}"
        )
    return _missing(len(pred)) if key.frame_idx >= len(pred) else truth.problems.get(key)


def _missing(num_frames: int) -> Measure:
    return Measure(None, "missing_frame", f"the prediction has {num_frames} frames")


def _add_image(
    scores: FrameScores, truth: GroundTruth, prediction: Prediction, frame_idx: int, view: int, name: str
) -> None:
    problem = unfit(truth, ImageKey("rgb", frame_idx, view), prediction.rgb)
    if problem:
        scores.add_unfit(name, "image", "view", problem)
        scores.problems["image"].append(problem)
        return
    own = truth.own_pixels(view)
    pred_u8 = prediction.rgb[frame_idx, view][own]
    square = image.mse(truth.frames.rgb_fvhwc_u8[frame_idx, view][own], pred_u8)
    scores.squares.append(square)
    scores.add(name, "psnr_db/frame_mean", image.psnr_db(square))
    scores.add(name, "psnr_db/frame_eps1e-8", Measure(image.psnr_eps_db(square)))
    scores.add(name, "ssim/gauss11", ssim_of(truth, pred_u8, frame_idx, view))


def ssim_of(truth: GroundTruth, pred_u8: np.ndarray, frame_idx: int, view: int) -> Measure:
    """Return the SSIM of one predicted image; an outcome if it is smaller than the window."""
    if min(pred_u8.shape[:2]) < image.GAUSS_TAPS:
        reason = f"the window has {image.GAUSS_TAPS} pixels a side, the image {pred_u8.shape[:2]}"
        return Measure(None, "too_small", reason)
    return Measure(image.ssim(truth.ssim_half(frame_idx, view), pred_u8, device=truth.device))


def _add_depth(
    scores: FrameScores, truth: GroundTruth, depth_fvhw_m: np.ndarray, frame_idx: int, view: int, name: str
) -> None:
    true, pred = truth.frames.depth_fvhw_m, depth_fvhw_m
    problem = unfit(truth, ImageKey("depth", frame_idx, view), pred)
    if problem:
        scores.add_unfit(name, "depth", "view", problem)
        scores.problems["depth"].append(problem)
        if frame_idx:
            scores.add_unfit(name, "depth", "change", problem)
        return
    own = truth.own_pixels(view)
    true_m, pred_m = true[frame_idx, view][own], pred[frame_idx, view][own]
    errors = depth.depth_errors(true_m, pred_m)
    scores.errors = scores.errors.plus(errors)
    scores.depth_views.append(view)
    for metric, measure in _frame_depth(errors, true_m, pred_m):
        scores.add(name, metric, measure)
    if frame_idx:
        before = true[frame_idx - 1, view][own], true_m, pred[frame_idx - 1, view][own], pred_m
        unfit_before = unfit(truth, ImageKey("depth", frame_idx - 1, view), pred)
        scores.add(name, "depth_change_m/gt_mask_10m", unfit_before or depth.change_error_m(*before))


def _frame_depth(errors: depth.DepthErrors, true_m: np.ndarray, pred_m: np.ndarray) -> Iterator[tuple[str, Measure]]:
    usable = errors.num_valid > errors.num_invalid_pred
    constant = usable and pred_m.size > 1 and pred_m.min() == pred_m.max()

    def named(measure: Measure) -> Measure:
        return measure._replace(status="constant_depth") if constant else measure

    yield "absrel/gt_mask_10m", named(errors.absrel())
    for order in (1, 2, 3):
        yield f"delta{order}/gt_mask_10m", named(errors.delta(order))
    yield "rmse_m/gt_mask_10m", named(errors.rmse_m())
    yield "invalid_depth_frac/gt_mask_10m", errors.invalid_frac()
    yield "far_depth_frac/gt_mask_10m", errors.far_frac()
    scaled = depth.depth_errors(true_m, depth.median_aligned(true_m, pred_m))
    yield "absrel/gt_mask_median_scaled_10m", named(scaled.absrel())


def _add_cloud(
    scores: FrameScores, truth: GroundTruth, prediction: Prediction, depth_fvhw_m: np.ndarray, frame_idx: int
) -> None:
    views = range(len(truth.env.cameras))
    problems = [unfit(truth, ImageKey("depth", frame_idx, view), depth_fvhw_m) for view in views]
    problem = next((measure for measure in problems if measure), None)
    if bad_camera := truth.bad_camera(frame_idx, wrist_mounts=prediction.proprio is not None):
        problem = Measure(None, "bad_camera", bad_camera)
    wrists = any(camera.kind == "wrist" for camera in truth.env.cameras)
    if problem is None and wrists and prediction.proprio is None:
        problem = Measure(None, "no_predicted_state")
        static = [view for view, _ in truth.static]
        _add_fused(scores, truth, prediction, depth_fvhw_m, frame_idx, "static", static)
    if problem:
        scores.add_unfit("all", "cloud", "frame", problem)
    else:
        _add_fused(scores, truth, prediction, depth_fvhw_m, frame_idx, "all", list(views))


def _add_fused(
    scores: FrameScores,
    truth: GroundTruth,
    prediction: Prediction,
    depth_fvhw_m: np.ndarray,
    frame_idx: int,
    name: str,
    views: list[int],
) -> None:
    poses = [predicted_pose(truth, prediction, frame_idx, view) for view in views]
    known = [T for T in poses if T is not None]
    if len(known) < len(poses):
        scores.add_unfit(name, "cloud", "frame", Measure(None, "bad_state", "a wrist camera has no pose"))
        return
    true_m, pred_m = truth.frames.depth_fvhw_m[frame_idx, views], depth_fvhw_m[frame_idx, views]
    pred = cloud.fuse(pred_m, truth.intrinsics_v33_px[views], known, true_vhw_m=true_m)
    true = truth.cloud(frame_idx, views)
    measured = cloud.distances(np.empty((0, 3)) if true is None else true, pred, device=truth.device)
    remark = depth.count_out_of_range(true_m, pred_m).remark
    for metric, measure in _distances(measured):
        scores.add(name, metric, remark(measure))


def _distances(measured: cloud.CloudDistances) -> Iterator[tuple[str, Measure]]:
    yield "chamfer_m/l1_half_10m", measured.l1_half_m()
    yield "chamfer_m/l1_sum_10m", measured.l1_sum_m()
    yield "chamfer_m/l1_pred_to_gt_10m", measured.accuracy_m()
    yield "chamfer_m/l1_gt_to_pred_10m", measured.completeness_m()
    yield "chamfer_m2/l2sq_sum_10m", measured.l2sq_sum_m2()
    for radius_m in cloud.FSCORE_RADII_M:
        yield f"fscore/{radius_m * 1000:.0f}mm_10m", measured.fscore(radius_m)


def _add_state(scores: FrameScores, truth: GroundTruth, proprio_fd: np.ndarray, frame_idx: int) -> None:
    if frame_idx >= len(proprio_fd):
        scores.add_unfit("all", "state", "frame", _missing(len(proprio_fd)))
        for arm in truth.env.arms:
            scores.add_unfit(arm, "state", "arm", _missing(len(proprio_fd)))
        return
    true, pred = truth.frames.proprio_fd[frame_idx], proprio_fd[frame_idx]
    if truth.env.arms:
        scores.add("all", "state_mae/mixed_units", pose.state_mae(true, pred, arms=truth.env.arms))
    for arm in truth.env.arms:
        _add_arm(scores, arm, true[ARM_PROPRIO[arm]], pred[ARM_PROPRIO[arm]])


def _add_arm(scores: FrameScores, arm: Arm, true: np.ndarray, pred: np.ndarray) -> None:
    if problem := pose.bad_state(arm, true, pred):
        scores.add_unfit(arm, "state", "arm", problem)
        return
    error = pose.pose_error(ee_pose_from_proprio(true), ee_pose_from_proprio(pred))
    scores.add(arm, "ee_position_mm/euclidean", Measure(error.position_mm))
    scores.add(arm, "ee_rotation_deg/geodesic", Measure(error.rotation_deg))
    scores.add(arm, "gripper_open_frac/abs_error", Measure(float(abs(pred[7] - true[7]))))
