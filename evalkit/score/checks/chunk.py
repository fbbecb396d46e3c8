"""All checks of one chunk, and which metrics they refuse.

In: a chunk, the cameras, the predictions to score. Out: `Checked`: findings, and the images that must not be scored.
Read next: `cameras.py`, `agreement.py`, `depths.py`, `colours.py`, `order.py`, `states.py`; `evalkit/score/chunk.py`,
which scores what is left.

Cameras, depth and states are checked in every chunk, because a refusal must hold for all of them. The order of channels
and frames is checked in the first chunk of a clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np

from evalkit.contracts.spec import EnvSpec
from evalkit.contracts.types import ARM_PROPRIO, Prediction
from evalkit.score.checks import agreement, colours, depths, order, states
from evalkit.score.checks.cameras import centre_oddity, distance_oddity, intrinsics_fault, is_missing, pose_fault
from evalkit.score.checks.oddity import Oddity
from evalkit.score.metrics.pose import pose_error
from evalkit.score.results.checks import Finding
from evalkit.score.results.names import Family
from evalkit.score.results.outcome import ImageKey, Measure, Modality
from evalkit.store.clips import ClipChunk

TRUTH = "ground_truth"
FHWC = 4
"""Axes of several RGB images."""

CORRECT = "; correct the data, then score again"


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What the checks of a chunk found.

    Attributes:
        findings: Everything that looks wrong.
        missing: Which matrix of which camera is not given, a clause; empty if all are.
        num_frames: Frames of the ground truth.
        views: Names of the cameras in the order of the views.
    """

    findings: tuple[Finding, ...]
    missing: str
    num_frames: int
    views: tuple[str, ...]

    def problems(self, subject: str) -> Mapping[ImageKey, Measure]:
        """Return the depth images of a subject that must not be scored, each with the reason."""
        refusals = [finding for finding in self.findings if finding.subject == subject and "depth" in finding.refuses]
        return {
            ImageKey("depth", frame_idx, view): Measure(None, "refused", f"check/{finding.check}: {finding.reason}")
            for finding in refusals
            for view, name in enumerate(self.views)
            if finding.view == name
            for frame_idx in range(self.num_frames)
        }

    def bad_cameras(self) -> str:
        """Return why no cloud of this chunk can be scored, empty if it can."""
        refusals = [finding for finding in self.findings if finding.refuses == ("cloud",)]
        return next((finding.reason for finding in refusals), self.missing)


@dataclass(frozen=True, kw_only=True, eq=False)
class Checker:
    """One chunk to be checked.

    Attributes:
        chunk: The ground truth.
        env: The cameras.
        predictions: By subject.
        problems: Images that could not be read; they are not checked.
        first: Index of the first frame to score.
    """

    chunk: ClipChunk
    env: EnvSpec
    predictions: Mapping[str, Prediction]
    problems: Mapping[ImageKey, Measure] = field(default_factory=dict)
    first: int = 0

    def check(self) -> Checked:
        """Return what looks wrong, the first finding of each check, subject and view."""
        findings = []
        if any(prediction.depth is not None for prediction in self.predictions.values()):
            findings += [*self._truth_depth(), *self._matrices()]
            if not any(finding.refuses for finding in findings):
                findings += self._cameras()
        for subject, prediction in self.predictions.items():
            if prediction.depth is not None:
                findings += self._depth(subject, prediction.depth)
            if prediction.proprio is not None:
                findings += self._states(subject, prediction.proprio)
            if self.chunk.chunk_idx == 0:
                findings += self._colours(subject, prediction.rgb)
                if prediction.depth is not None:
                    findings += self._depth_order(subject, prediction.depth)
        once = {(finding.check, finding.subject, finding.view): finding for finding in reversed(findings)}
        return Checked(
            findings=tuple(reversed(once.values())),
            missing=self._missing(),
            num_frames=len(self.chunk.true.rgb_fvhwc_u8),
            views=tuple(camera.name for camera in self.env.cameras),
        )

    def _readable(self, modality: Modality, view: int, num_frames: int) -> list[int]:
        """Return the frames of a view that can be compared."""
        frames = range(self.first, min(num_frames, len(self.chunk.true.rgb_fvhwc_u8)))
        return [frame_idx for frame_idx in frames if ImageKey(modality, frame_idx, view) not in self.problems]

    def _few(self, view: int, num_frames: int) -> list[int]:
        """Return the first and the last frame of a view whose depth can be compared."""
        frames = self._readable("depth", view, num_frames)
        return sorted({frames[0], frames[-1]}) if frames else []

    def _size(self, view: int) -> tuple[int, int]:
        """Return the height and width of a view's images; its arrays may be larger."""
        height, width = self.chunk.true.rgb_fvhwc_u8.shape[2:4]
        return (height, width) if self.chunk.view_hw_px is None else self.chunk.view_hw_px[view]

    def _images(self, array_fvhw: np.ndarray, frames: Sequence[int], view: int) -> np.ndarray:
        """Return some images of a view, without what fills its arrays."""
        height, width = self._size(view)
        return array_fvhw[frames, view, :height, :width]

    def _missing(self) -> str:
        """Return which matrix of which camera is not given; empty if all are."""
        for view, camera in enumerate(self.env.cameras):
            if is_missing(self.chunk.intrinsics_v33_px[view]):
                return f"the intrinsics of {camera.name} are missing"
            if is_missing(self.chunk.true.T_base_cam_fv44[self.first, view]):
                return f"the pose of {camera.name} is missing"
        return ""

    def _matrices(self) -> Iterator[Finding]:
        """Yield each camera whose matrices cannot be right; one sentence where no camera is known at all."""
        if np.isnan(self.chunk.intrinsics_v33_px).all() and np.isnan(self.chunk.true.T_base_cam_fv44).all():
            text = "the ground truth has no intrinsics and no poses of its cameras, so point clouds have no score."
            yield _bad_cameras("cameras", "all", text)
            return
        for view, camera in enumerate(self.env.cameras):
            K, T = self.chunk.intrinsics_v33_px[view], self.chunk.true.T_base_cam_fv44[self.first, view]
            if not is_missing(K) and (fault := intrinsics_fault(K, self._size(view))):
                text = f"the intrinsics of {camera.name} cannot be right: {fault}{CORRECT}."
                yield _bad_cameras("intrinsics", camera.name, text)
            if not is_missing(T) and (fault := pose_fault(T)):
                yield _bad_cameras("pose", camera.name, f"the pose of {camera.name} cannot be right: {fault}{CORRECT}.")

    def _cameras(self) -> Iterator[Finding]:
        """Yield what is odd about cameras whose matrices are possible: each alone, then together."""
        given = agreement.Assessment() if self._missing() else self._assessment()
        doubts = [*self._doubts(given.confirmed)]
        yield from doubts
        if self._missing() or any(finding.refuses for finding in doubts):
            return
        if given.found is not None:
            yield self._contradiction(given.found)
        elif given.num_views > 1 and not given.confirmed:
            yield _warning(Oddity("camera_agreement", None, agreement.UNCONFIRMED), TRUTH, "", agreement.UNCONFIRMED)
        yield from self._wrists()
        yield from self._moving()

    def _doubts(self, confirmed: Set[int]) -> Iterator[Finding]:
        """Yield each camera whose matrices are unusual; refuse those that are likely wrong and that no view confirms.

        The cloud of a single view does not depend on its pose.
        """
        for view, camera in enumerate(self.env.cameras):
            K, T = self.chunk.intrinsics_v33_px[view], self.chunk.true.T_base_cam_fv44[self.first, view]
            centre = None if is_missing(K) else centre_oddity(K, self._size(view))
            distance = None if is_missing(T) else distance_oddity(T)
            for whose, oddity, is_used in (("intrinsics", centre, True), ("pose", distance, len(self.env.cameras) > 1)):
                if oddity is None:
                    continue
                what = f"the {whose} of {camera.name}"
                if view in confirmed:
                    text = f"{what}: {oddity.text} (but another view agrees)"
                    yield _warning(oddity, TRUTH, camera.name, text)
                elif oddity.is_certain and is_used:
                    yield _bad_cameras(oddity.check, camera.name, f"{what} cannot be right: {oddity.text}{CORRECT}.")
                else:
                    yield _warning(oddity, TRUTH, camera.name, f"{what}: {oddity.text}")

    def _assessment(self) -> agreement.Assessment:
        """Return what the first and the last frame say about the cameras."""
        num_frames = len(self.chunk.true.rgb_fvhwc_u8)
        return agreement.combined({idx: self._assessed(idx) for idx in sorted({self.first, num_frames - 1})})

    def _assessed(self, frame_idx: int) -> agreement.Assessment:
        """Return what one frame says; views without a readable depth say nothing."""
        T_base_cam_v44, num_frames = self.chunk.true.T_base_cam_fv44[frame_idx], len(self.chunk.true.rgb_fvhwc_u8)
        if len(T_base_cam_v44) < 2 or any(map(pose_fault, T_base_cam_v44)):
            return agreement.Assessment()
        views = range(len(T_base_cam_v44))
        readable = np.array([frame_idx in self._readable("depth", view, num_frames) for view in views])
        return agreement.assess(
            agreement.Views(
                depth_vhw_m=np.where(readable[:, None, None], self.chunk.true.depth_fvhw_m[frame_idx], 0),
                intrinsics_v33_px=self.chunk.intrinsics_v33_px,
                T_base_cam_v44=T_base_cam_v44,
            )
        )

    def _contradiction(self, found: agreement.Disagreement) -> Finding:
        concerned = ", ".join(self.env.cameras[view].name for view in found.views)
        is_certain = (found.in_front_frac or 0.0) > agreement.REFUSE_FRAC
        return Finding(
            check="camera_agreement",
            subject=TRUTH,
            view=concerned,
            value=found.in_front_frac,
            reason=f"{agreement.describe(found)} ({concerned}){CORRECT if is_certain else ''}.",
            refuses=("cloud",) if is_certain else (),
        )

    def _wrists(self) -> Iterator[Finding]:
        """Yield each wrist camera whose stated pose is not the one that the robot's state gives."""
        frames = sorted({self.first, len(self.chunk.true.proprio_fd) - 1})
        for view, camera in enumerate(self.env.cameras):
            if camera.kind != "wrist" or camera.arm is None or pose_fault(np.asarray(camera.T_ee_cam)):
                continue
            T_base_cam = self.chunk.true.T_base_cam_fv44[frames, view]
            arm = self.chunk.true.proprio_fd[frames, ARM_PROPRIO[camera.arm]]
            error = states.wrist_error(T_base_cam, arm, np.asarray(camera.T_ee_cam))
            if error is None or not states.exceeds(error, states.WRIST_WARN):
                continue
            cause = states.wrist_explanation(T_base_cam, arm, np.asarray(camera.T_ee_cam))
            text = (
                f"the pose of {camera.name} differs by {error.position_mm:.0f} mm and {error.rotation_deg:.1f} degrees "
                f"from the end effector's pose times T_ee_cam, expected below {states.WRIST_WARN.position_mm:.0f} mm "
                f"and {states.WRIST_WARN.rotation_deg:.0f} degrees; {cause or 'check states, T_ee_cam and T_base_cam'}"
            )
            refuses: tuple[Family, ...] = ("cloud",) if states.exceeds(error, states.WRIST_REFUSE) else ()
            yield Finding(
                check="wrist_pose",
                subject=TRUTH,
                view=camera.name,
                value=error.position_mm,
                reason=f"{text}{CORRECT}.",
                refuses=refuses,
            )

    def _moving(self) -> Iterator[Finding]:
        """Yield each static camera whose stated pose moves while its depth does not."""
        for view, camera in enumerate(self.env.cameras):
            frames = self._few(view, len(self.chunk.true.depth_fvhw_m))
            if camera.kind != "static" or len(frames) < 2:
                continue
            before_m, after_m = map(depths.sampled, self._images(self.chunk.true.depth_fvhw_m, frames, view))
            moved = pose_error(*self.chunk.true.T_base_cam_fv44[frames, view])
            if states.exceeds(moved, states.WRIST_WARN) and depths.is_still(before_m, after_m):
                text = (
                    f"the pose of the static camera {camera.name} moves by {moved.position_mm:.0f} mm and "
                    f"{moved.rotation_deg:.1f} degrees, but its depth does not change; check the order of its poses"
                )
                yield _warning(Oddity("pose", moved.position_mm, text), TRUTH, camera.name, text)

    def _truth_depth(self) -> Iterator[Finding]:
        for view, camera in enumerate(self.env.cameras):
            if frames := self._few(view, len(self.chunk.true.depth_fvhw_m)):
                true_m = depths.sampled(self._images(self.chunk.true.depth_fvhw_m, frames, view))
                yield from _depth_finding(depths.truth_oddity(true_m), TRUTH, camera.name, "ground-truth depth")

    def _depth(self, subject: str, depth_fvhw_m: np.ndarray) -> Iterator[Finding]:
        true = self.chunk.true.depth_fvhw_m
        if depth_fvhw_m.shape[1:] != true.shape[1:]:
            return
        for view, camera in enumerate(self.env.cameras):
            if frames := self._few(view, len(depth_fvhw_m)):
                K = self.chunk.intrinsics_v33_px[view]
                true_m, pred_m = (self._images(array, frames, view) for array in (true, depth_fvhw_m))
                few_true, few_pred = (depths.sampled(depths.percent(array, true_m)) for array in (true_m, pred_m))
                flipped = colours.mistake_oddity(few_true, few_pred, colours.DEPTH_MISTAKES)
                oddity = flipped or depths.prediction_oddity(true_m, pred_m, K)
                yield from _depth_finding(oddity, subject, camera.name, "predicted depth")

    def _states(self, subject: str, proprio_fd: np.ndarray) -> Iterator[Finding]:
        true, num_frames = self.chunk.true.proprio_fd, min(len(self.chunk.true.proprio_fd), len(proprio_fd))
        for arm in self.env.arms:
            true_f8, pred_f8 = (array[self.first : num_frames, ARM_PROPRIO[arm]] for array in (true, proprio_fd))
            found = [(TRUTH, oddity) for oddity in states.state_oddities(true_f8, "true states")]
            own = states.state_oddities(pred_f8, "predicted states", norm_error=states.PREDICTED_NORM_ERROR)
            found += [(subject, oddity) for oddity in own]
            late = None
            if self.chunk.chunk_idx == 0 and not self.first:
                late = states.late_oddity(true_f8, pred_f8, self.chunk.start.proprio_fd[:1, ARM_PROPRIO[arm]])
            compared = [late] if late is not None else states.predicted_oddities(true_f8, pred_f8)
            found += [(subject, oddity) for oddity in compared]
            for owner, oddity in found:
                yield _warning(oddity, owner, arm, f"{arm} arm: {oddity.text}")

    def _colours(self, subject: str, rgb_fvhwc_u8: np.ndarray) -> Iterator[Finding]:
        """Yield what is odd about the RGB images of each view, then of their order."""
        true, names = self.chunk.true.rgb_fvhwc_u8, [camera.name for camera in self.env.cameras]
        if rgb_fvhwc_u8.shape[1:] != true.shape[1:]:
            return
        small: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for view, name in enumerate(names):
            frames = self._readable("rgb", view, len(rgb_fvhwc_u8))
            if not frames:
                continue
            true_u8, pred_u8 = (self._images(array, frames, view) for array in (true, rgb_fvhwc_u8))
            flat = [*_constant(true_u8, TRUTH, name, "ground-truth"), *_constant(pred_u8, subject, name, "predicted")]
            yield from flat
            if flat:
                continue
            small[name] = colours.thumbnails(true_u8), colours.thumbnails(pred_u8)
            oddity = colours.range_oddity(true_u8, pred_u8) or colours.mistake_oddity(*small[name])
            if oddity is not None:
                yield _warning(oddity, subject, name, f"predicted RGB of {name}: {oddity.text}")
        yield from _swapped(subject, small, "predictions")
        yield from self._order(subject, rgb_fvhwc_u8, "rgb")

    def _depth_order(self, subject: str, depth_fvhw_m: np.ndarray) -> Iterator[Finding]:
        """Yield depth of the wrong view, then of the wrong frame."""
        true = self.chunk.true.depth_fvhw_m
        if depth_fvhw_m.shape[1:] != true.shape[1:]:
            return
        small: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for view, camera in enumerate(self.env.cameras):
            if frames := self._readable("depth", view, len(depth_fvhw_m)):
                true_m, pred_m = (self._images(array, frames, view) for array in (true, depth_fvhw_m))
                small[camera.name] = self._small(true_m, true_m), self._small(pred_m, true_m)
        yield from _swapped(subject, small, "predicted depths")
        yield from self._order(subject, depth_fvhw_m, "depth")

    @staticmethod
    def _small(images: np.ndarray, true: np.ndarray) -> np.ndarray:
        """Return thumbnails, in grey levels, of depth in percent."""
        return colours.thumbnails(images if images.ndim == FHWC else depths.percent(images, true))

    def _order(self, subject: str, pred_fv: np.ndarray, modality: Modality) -> Iterator[Finding]:
        """Yield a shift or another rate of the frames of some views, or of all together; frames must be readable."""
        true, start, count = self._true(modality), self._start(modality), len(self.chunk.true.rgb_fvhwc_u8)
        views = [v for v in range(true.shape[1]) if len(self._readable(modality, v, count)) == count - self.first]
        if not views or self.first or len(pred_fv) < order.MIN_FRAMES:
            return
        flat = [[self._flat(array, true, view) for view in views] for array in (true, pred_fv[:count], start)]
        found = {view: order.timing(*each) for view, *each in zip(views, *flat, strict=True)}
        if not any(found.values()):
            together = order.timing(*(np.concatenate(each, axis=1) for each in flat))
            found = dict.fromkeys(views, together)
        for timing in {(t.shift, t.rate): t for t in found.values() if t is not None}.values():
            like = [v for v, t in found.items() if t is not None and (t.shift, t.rate) == (timing.shift, timing.rate)]
            names = "" if like == views else ", ".join(self.env.cameras[view].name for view in like)
            what = ("predicted frames" if modality == "rgb" else "predicted depths") + (f" of {names}" if names else "")
            text = f"the {what} fit another moment: {timing} (squared error {timing.error_ratio:.2f} times)"
            yield _warning(Oddity("frame_order", timing.error_ratio, text), subject, names, text)

    def _true(self, modality: Modality) -> np.ndarray:
        return self.chunk.true.rgb_fvhwc_u8 if modality == "rgb" else self.chunk.true.depth_fvhw_m

    def _start(self, modality: Modality) -> np.ndarray:
        """Return the frame before the first, if there is one; depth only if it was recorded."""
        start = self.chunk.start
        if modality == "rgb":
            return start.rgb_fvhwc_u8[:1]
        return start.depth_fvhw_m[: 1 if start.depth_fvhw_m.any() else 0]

    def _flat(self, images_fv: np.ndarray, true_fv: np.ndarray, view: int) -> np.ndarray:
        """Return F,N values of the thumbnails of a view."""
        if not len(images_fv):
            return np.zeros((0, 0))
        images, true = (self._images(array, range(len(array)), view) for array in (images_fv, true_fv))
        return self._small(images, true).reshape(len(images), -1)


def _swapped(subject: str, small: Mapping[str, tuple[np.ndarray, np.ndarray]], what: str) -> Iterator[Finding]:
    """Yield two views whose predictions fit each other's ground truth; thumbnails of true and predicted images."""
    found = colours.swapped_with(
        {name: true for name, (true, _) in small.items()}, {name: pred for name, (_, pred) in small.items()}
    )
    if found is not None:
        a, b, ratio = found
        text = (
            f"the {what} of {a} and {b} look swapped: the other way round, their squared error is {ratio:.2f} times as "
            "large"
        )
        yield _warning(Oddity("view_order", ratio, text), subject, f"{a}, {b}", text)


def check_chunk(
    chunk: ClipChunk,
    env: EnvSpec,
    predictions: Mapping[str, Prediction],
    *,
    problems: Mapping[ImageKey, Measure] | None = None,
    first: int = 0,
) -> Checked:
    """Return what looks wrong in the ground truth and the predictions of a chunk; arguments as in `Checker`."""
    return Checker(chunk=chunk, env=env, predictions=predictions, problems=problems or {}, first=first).check()


def _constant(rgb_fhwc_u8: np.ndarray, subject: str, view: str, whose: str) -> Iterator[Finding]:
    value = colours.constant_value(rgb_fhwc_u8)
    if value is not None:
        text = f"every pixel of the {whose} RGB of {view} is {value}"
        yield _warning(Oddity("constant_rgb", float(value), text), subject, view, text)


def _depth_finding(oddity: Oddity | None, subject: str, view: str, whose: str) -> Iterator[Finding]:
    if oddity is not None:
        refuses: tuple[Family, ...] = ("depth", "cloud") if oddity.is_certain else ()
        text = f"{whose} of {view}: {oddity.text}."
        yield Finding(check=oddity.check, subject=subject, view=view, value=oddity.value, reason=text, refuses=refuses)


def _warning(oddity: Oddity, subject: str, view: str, text: str) -> Finding:
    return Finding(check=oddity.check, subject=subject, view=view, value=oddity.value, reason=f"{text}.")


def _bad_cameras(check: str, view: str, reason: str) -> Finding:
    return Finding(check=check, subject=TRUTH, view=view, reason=reason, refuses=("cloud",))
