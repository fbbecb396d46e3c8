"""All metrics of one chunk: a predicted future beside the true one.

In: a `ClipChunk` and the cameras. Out: `Score`s, one a metric, frame and view (or arm, or all cameras).
Read next: `score.py`, which does this for the clips of a run.

Pixel metrics are taken on static cameras only, because a wrist view shifts with small errors of the predicted pose;
all cameras enter the cloud, and the pose error itself is reported beside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evalkit.contracts.geometry import ee_pose_from_proprio
from evalkit.contracts.spec import CameraSpec, EnvSpec
from evalkit.contracts.types import ARM_PROPRIO, Prediction
from evalkit.score import cloud, depth, image, pose
from evalkit.score.measure import Measure
from evalkit.score.names import METRICS, Family, Per
from evalkit.store.clips import ClipChunk, Frames

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
        metric: A key of `names.METRICS`.
        value: None where there is none; `status` says why.
        status: A key of `measure.STATUSES`.
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


class Truth:
    """The true side of a chunk, with what several predictions can share: SSIM's windows and fused clouds."""

    def __init__(self, frames: Frames, intrinsics_v33_px: np.ndarray, env: EnvSpec) -> None:
        self.frames = frames
        self.intrinsics_v33_px = intrinsics_v33_px
        self.env = env
        self.num_frames = len(frames.rgb_fvhwc_u8)
        self.static = [(idx, camera.name) for idx, camera in enumerate(env.cameras) if camera.kind == "static"]

    @cached_property
    def ssim_halves(self) -> dict[tuple[int, int], image.SsimHalf]:
        """Return what SSIM needs of each true static frame, by (frame, view)."""
        rgb = self.frames.rgb_fvhwc_u8
        return {(f, v): image.ssim_half(rgb[f, v]) for f in range(self.num_frames) for v, _ in self.static}

    def cloud(self, frame_idx: int, views: list[int]) -> np.ndarray:
        """Return the fused true cloud of some views."""
        frames = self.frames
        return cloud.fuse(
            frames.depth_fvhw_m[frame_idx, views],
            self.intrinsics_v33_px[views],
            frames.T_base_cam_fv44[frame_idx, views],
        )

    def bad_camera(self) -> str:
        """Return what is wrong with the cameras, or nothing."""
        K, T = self.intrinsics_v33_px, self.frames.T_base_cam_fv44
        for idx, camera in enumerate(self.env.cameras):
            if not np.isfinite(K[idx]).all() or K[idx, 0, 0] <= 0 or K[idx, 1, 1] <= 0:
                return f"the intrinsics of {camera.name} are missing or not usable"
            if not np.isfinite(T[:, idx]).all():
                return f"the pose of {camera.name} is not finite"
        return ""


def score_chunk(chunk: ClipChunk, env: EnvSpec, *, references: bool = True) -> list[Score]:
    """Return the scores of a chunk; none for a policy that imagined nothing.

    Args:
        chunk: Only frames that have a truth are scored.
        env: Names and kinds of the cameras, in the order of the views.
        references: Also score what says what a number is worth; see `names.SUBJECTS`.
    """
    if chunk.predicted is None or len(chunk.true.rgb_fvhwc_u8) == 0:
        return []
    truth = Truth(chunk.true, chunk.intrinsics_v33_px, env)
    scores = list(score_prediction(truth, chunk.predicted, subject="policy", chunk_idx=chunk.chunk_idx))
    if references:
        for subject, prediction in reference_predictions(chunk).items():
            scores += score_prediction(truth, prediction, subject=subject, chunk_idx=chunk.chunk_idx)
        scores += _depth_8bit(truth, chunk.chunk_idx) if chunk.predicted.depth is not None else []
    return scores


def reference_predictions(chunk: ClipChunk) -> dict[str, Prediction]:
    """Return the futures that frame the scale: the seen frame repeated; in the first chunk also the truth itself.

    They hold what the policy predicts: without predicted depth or states, theirs are left out too.
    """
    assert chunk.predicted is not None
    num_frames = len(chunk.true.rgb_fvhwc_u8)
    references = {"repeat_last_frame": _as_prediction(chunk.start, [0] * num_frames, chunk.predicted)}
    if chunk.chunk_idx == 0:
        references["ground_truth"] = _as_prediction(chunk.true, list(range(num_frames)), chunk.predicted)
    return references


def score_prediction(truth: Truth, prediction: Prediction, *, subject: str, chunk_idx: int) -> Iterator[Score]:
    """Yield every metric of one prediction against the truth."""
    families = {"image": _image_measures, "depth": _depth_measures, "cloud": _cloud_measures, "state": _state_measures}
    for family, measures in families.items():
        for frame_idx, view, metric, measure in measures(truth, prediction):
            assert METRICS[metric].family == family
            yield Score(
                subject=subject,
                chunk_idx=chunk_idx,
                frame_idx=frame_idx,
                view=view,
                metric=metric,
                value=measure.value,
                status=measure.status,
                reason=measure.reason,
            )


_Measured = tuple[int, str, str, Measure]


def _image_measures(truth: Truth, prediction: Prediction) -> Iterator[_Measured]:
    true, pred = truth.frames.rgb_fvhwc_u8, prediction.rgb
    squares = []
    for frame_idx, view, name in _static_frames(truth):
        unfit = _unfit(true, pred, frame_idx)
        if unfit:
            yield from _without(frame_idx, name, "image", "view", unfit)
            continue
        squares.append(image.mse(true[frame_idx, view], pred[frame_idx, view]))
        yield frame_idx, name, "psnr_db/frame_mean", image.psnr_db(squares[-1])
        yield frame_idx, name, "psnr_db/frame_eps1e-8", Measure(image.psnr_eps_db(squares[-1]))
        half = truth.ssim_halves[frame_idx, view]
        yield frame_idx, name, "ssim/gauss11", Measure(image.ssim(half, pred[frame_idx, view]))
    if squares:
        yield WHOLE_CHUNK, "static", "psnr_db/clip_pooled", image.psnr_db(float(np.mean(squares)))


def _depth_measures(truth: Truth, prediction: Prediction) -> Iterator[_Measured]:
    if prediction.depth is None:
        return
    true, pred = truth.frames.depth_fvhw_m, prediction.depth
    pooled = depth.NO_ERRORS
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    for frame_idx, view, name in _static_frames(truth):
        unfit = _unfit(true, pred, frame_idx)
        if unfit:
            yield from _without(frame_idx, name, "depth", "view", unfit)
            continue
        true_m, pred_m = true[frame_idx, view], pred[frame_idx, view]
        errors = depth.depth_errors(true_m, pred_m)
        pooled = pooled.plus(errors)
        pairs.append((true_m, pred_m))
        for metric, measure in _frame_depth(errors, true_m, pred_m):
            yield frame_idx, name, metric, measure
        if frame_idx:
            before = true[frame_idx - 1, view], true_m, pred[frame_idx - 1, view], pred_m
            yield frame_idx, name, "depth_change_m/gt_mask", depth.change_error_m(*before)
    if pairs:
        yield WHOLE_CHUNK, "static", "absrel/gt_mask_clip_pooled", pooled.absrel()
        yield WHOLE_CHUNK, "static", "delta1/gt_mask_clip_pooled", pooled.delta(1)
        yield WHOLE_CHUNK, "static", "absrel/gt_mask_affine_disparity", _affine_absrel(pairs)


def _frame_depth(errors: depth.DepthErrors, true_m: np.ndarray, pred_m: np.ndarray) -> Iterator[tuple[str, Measure]]:
    constant = errors.num_valid > 0 and pred_m.size > 1 and pred_m.min() == pred_m.max() and pred_m.flat[0] > 0

    def named(measure: Measure) -> Measure:
        return measure._replace(status="constant_depth") if constant else measure

    yield "absrel/gt_mask", named(errors.absrel())
    for order in (1, 2, 3):
        yield f"delta{order}/gt_mask", named(errors.delta(order))
    yield "rmse_m/gt_mask", named(errors.rmse_m())
    yield "invalid_depth_frac/gt_mask", errors.invalid_frac()
    scaled = depth.depth_errors(true_m, depth.median_aligned(true_m, pred_m))
    yield "absrel/gt_mask_median_scaled", named(scaled.absrel())


def _affine_absrel(pairs: list[tuple[np.ndarray, np.ndarray]]) -> Measure:
    true_m, pred_m = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    fit = depth.fit_disparity(true_m, pred_m)
    if fit is None:
        return Measure(None, "degenerate_alignment")
    return depth.depth_errors(true_m, fit.apply(pred_m)).absrel()


def _cloud_measures(truth: Truth, prediction: Prediction) -> Iterator[_Measured]:
    if prediction.depth is None:
        return
    everything = list(range(len(truth.env.cameras)))
    wrists = [camera for camera in truth.env.cameras if camera.kind == "wrist"]
    for frame_idx in range(truth.num_frames):
        unfit = _unfit(truth.frames.depth_fvhw_m, prediction.depth, frame_idx)
        bad_camera = truth.bad_camera()
        if bad_camera:
            unfit = Measure(None, "bad_camera", bad_camera)
        if unfit:
            yield from _without(frame_idx, "all", "cloud", "frame", unfit)
        elif wrists and prediction.proprio is None:
            yield from _without(frame_idx, "all", "cloud", "frame", Measure(None, "no_predicted_state"))
            yield from _frame_cloud(truth, prediction, frame_idx, "static", [view for view, _ in truth.static])
        else:
            yield from _frame_cloud(truth, prediction, frame_idx, "all", everything)


def _frame_cloud(
    truth: Truth, prediction: Prediction, frame_idx: int, name: str, views: list[int]
) -> Iterator[_Measured]:
    poses = [predicted_pose(truth, prediction, frame_idx, view) for view in views]
    known = [T for T in poses if T is not None]
    if len(known) < len(poses):
        yield from _without(frame_idx, name, "cloud", "frame", Measure(None, "bad_state", "a wrist camera has no pose"))
        return
    assert prediction.depth is not None
    pred = cloud.fuse(prediction.depth[frame_idx, views], truth.intrinsics_v33_px[views], known)
    distances = cloud.distances(truth.cloud(frame_idx, views), pred)
    yield frame_idx, name, "chamfer_m/l1_half", distances.l1_half_m()
    yield frame_idx, name, "chamfer_m/l1_sum", distances.l1_sum_m()
    yield frame_idx, name, "chamfer_m/l1_pred_to_gt", distances.accuracy_m()
    yield frame_idx, name, "chamfer_m/l1_gt_to_pred", distances.completeness_m()
    yield frame_idx, name, "chamfer_m2/l2sq_sum", distances.l2sq_sum_m2()
    for radius_m in cloud.FSCORE_RADII_M:
        yield frame_idx, name, f"fscore/{radius_m * 1000:.0f}mm", distances.fscore(radius_m)


def predicted_pose(truth: Truth, prediction: Prediction, frame_idx: int, view: int) -> np.ndarray | None:
    """Return a camera's pose as the prediction knows it: static ones as they are, wrist ones from predicted states."""
    camera: CameraSpec = truth.env.cameras[view]
    if camera.kind == "static":
        return np.asarray(truth.frames.T_base_cam_fv44[frame_idx, view])
    if prediction.proprio is None or frame_idx >= len(prediction.proprio):
        return None
    return pose.wrist_pose(prediction.proprio[frame_idx], camera)


def _state_measures(truth: Truth, prediction: Prediction) -> Iterator[_Measured]:
    if prediction.proprio is None:
        return
    for frame_idx in range(truth.num_frames):
        true = truth.frames.proprio_fd[frame_idx]
        if frame_idx >= len(prediction.proprio):
            missing = _missing(len(prediction.proprio))
            yield from _without(frame_idx, "all", "state", "frame", missing)
            for arm in truth.env.arms:
                yield from _without(frame_idx, arm, "state", "arm", missing)
            continue
        pred = prediction.proprio[frame_idx]
        yield frame_idx, "all", "state_mae/mixed_units", pose.state_mae(true, pred, arms=truth.env.arms)
        for arm in truth.env.arms:
            for metric, measure in _arm_measures(true[ARM_PROPRIO[arm]], pred[ARM_PROPRIO[arm]]):
                yield frame_idx, arm, metric, measure


def _arm_measures(true: np.ndarray, pred: np.ndarray) -> Iterator[tuple[str, Measure]]:
    if not pose.is_valid_state(pred):
        unfit = Measure(None, "bad_state", np.array2string(pred, precision=3))
        yield from ((metric, measure) for _, _, metric, measure in _without(0, "", "state", "arm", unfit))
        return
    error = pose.pose_error(ee_pose_from_proprio(true), ee_pose_from_proprio(pred))
    yield "ee_position_mm/euclidean", Measure(error.position_mm)
    yield "ee_rotation_deg/geodesic", Measure(error.rotation_deg)
    yield "gripper_open_frac/abs_error", Measure(float(abs(pred[7] - true[7])))


def _static_frames(truth: Truth) -> Iterator[tuple[int, int, str]]:
    for frame_idx in range(truth.num_frames):
        for view, name in truth.static:
            yield frame_idx, view, name


def _unfit(true: np.ndarray, pred: np.ndarray, frame_idx: int) -> Measure | None:
    """Return why a frame cannot be scored: the prediction has another shape or ends before it."""
    if pred.shape[1:] != true.shape[1:]:
        return Measure(None, "wrong_size", f"a predicted frame is {pred.shape[1:]}, a true one {true.shape[1:]}")
    return _missing(len(pred)) if frame_idx >= len(pred) else None


def _missing(num_frames: int) -> Measure:
    return Measure(None, "missing_frame", f"the prediction has {num_frames} frames")


def _without(frame_idx: int, view: str, family: Family, per: Per, measure: Measure) -> Iterator[_Measured]:
    """Yield a named outcome for every metric that would have had a value here."""
    for metric in METRICS.values():
        if metric.family == family and metric.per == per:
            yield frame_idx, view, metric.name, measure


def _as_prediction(frames: Frames, frame_idxs: list[int], like: Prediction) -> Prediction:
    return Prediction(
        rgb=frames.rgb_fvhwc_u8[frame_idxs],
        depth=frames.depth_fvhw_m[frame_idxs] if like.depth is not None else None,
        proprio=frames.proprio_fd[frame_idxs] if like.proprio is not None else None,
    )


def _depth_8bit(truth: Truth, chunk_idx: int) -> Iterator[Score]:
    true = truth.frames.depth_fvhw_m
    for frame_idx, view, name in _static_frames(truth):
        errors = depth.depth_errors(true[frame_idx, view], depth.quantised_8bit(true[frame_idx, view]))
        for metric, measure in (("absrel/gt_mask", errors.absrel()), ("delta1/gt_mask", errors.delta(1))):
            yield Score(
                subject="depth_8bit",
                chunk_idx=chunk_idx,
                frame_idx=frame_idx,
                view=name,
                metric=metric,
                value=measure.value,
                status=measure.status,
                reason=measure.reason,
            )
