"""All checks of one chunk, and which metrics they refuse.

In: a chunk, the cameras, the predictions to score. Out: `Checked`: findings, and the images that must not be scored.
Read next: `cameras.py`; `evalkit/score/chunk.py`, which scores what is left.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from evalkit.contracts.spec import EnvSpec
from evalkit.contracts.types import Prediction
from evalkit.score.checks.cameras import intrinsics_fault, pose_fault
from evalkit.score.results.checks import Finding
from evalkit.score.results.outcome import ImageKey, Measure
from evalkit.store.clips import ClipChunk

TRUTH = "ground_truth"


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What the checks of a chunk found.

    Attributes:
        findings: Everything that looks wrong.
        num_frames: Frames of the ground truth.
        views: Names of the cameras in the order of the views.
    """

    findings: tuple[Finding, ...]
    num_frames: int
    views: tuple[str, ...]

    def problems(self, subject: str) -> Mapping[ImageKey, Measure]:
        """Return the depth images of a subject that must not be scored, each with the reason."""
        refusals = [finding for finding in self.findings if finding.subject == subject and "depth" in finding.refuses]
        return {
            ImageKey("depth", frame_idx, view): _measure(finding)
            for finding in refusals
            for view, name in enumerate(self.views)
            if finding.view in (name, "all")
            for frame_idx in range(self.num_frames)
        }

    def bad_cameras(self) -> str:
        """Return why no cloud of this chunk can be scored, empty if it can."""
        refusals = [finding for finding in self.findings if finding.refuses == ("cloud",)]
        return next((finding.reason for finding in refusals), "")


def check_chunk(chunk: ClipChunk, env: EnvSpec, predictions: Mapping[str, Prediction], *, first: int = 0) -> Checked:
    """Return what looks wrong in the ground truth and the predictions of a chunk.

    Args:
        chunk: The ground truth.
        env: The cameras.
        predictions: By subject.
        first: Index of the first frame to score.
    """
    with_cloud = any(prediction.depth is not None for prediction in predictions.values())
    findings = [*_camera_findings(chunk, env, first)] if with_cloud else []
    return Checked(
        findings=tuple(findings),
        num_frames=len(chunk.true.rgb_fvhwc_u8),
        views=tuple(camera.name for camera in env.cameras),
    )


def _camera_findings(chunk: ClipChunk, env: EnvSpec, first: int) -> Iterator[Finding]:
    """Yield each camera whose matrices cannot be right; no cloud is scored with them."""
    for view, camera in enumerate(env.cameras):
        hw_px = env.image_hw_px if chunk.view_hw_px is None else chunk.view_hw_px[view]
        faults = {
            "intrinsics": ("the intrinsics", intrinsics_fault(chunk.intrinsics_v33_px[view], hw_px)),
            "pose": ("the pose", pose_fault(chunk.true.T_base_cam_fv44[first, view])),
        }
        for check, (part, fault) in faults.items():
            if fault:
                yield _camera_finding(check, camera.name, f"{part} of {camera.name} cannot be right: {fault}")


def _camera_finding(check: str, view: str, reason: str) -> Finding:
    return Finding(
        check=check,
        subject=TRUTH,
        view=view,
        reason=f"{reason}; correct the cameras, then score again.",
        refuses=("cloud",),
    )


def _measure(finding: Finding) -> Measure:
    return Measure(None, "refused", f"check/{finding.check}: {finding.reason}")
