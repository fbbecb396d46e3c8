"""Cameras of a folder clip: one `Camera` a view, with poses in the convention of evalkit.

In: a camera file in any form that `camera_files.py` reads. Out: `CameraSet`.
Read next: `camera_files.py`, the forms; `evalkit/contracts/geometry.py`, the convention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evalkit.contracts.spec import Arm, CameraSpec
from evalkit.contracts.types import ARM_PROPRIO
from evalkit.score.metrics.pose import is_valid_state


@dataclass(frozen=True, kw_only=True, eq=False)
class Camera:
    """One view; a missing or misshapen matrix is NaN, which gives the status `bad_camera`.

    Attributes:
        spec: Name, kind and mount.
        intrinsics_33_px: Pixel centres at integers.
        T_base_cam_f44: One pose (4,4), or one per frame (F,4,4).
        pose_numbers: Frame numbers of the poses; empty if they follow the frames of the ground truth in order.
        stated_hw_px: Image size that the file states for the intrinsics, if it states one.
    """

    spec: CameraSpec
    intrinsics_33_px: np.ndarray
    T_base_cam_f44: np.ndarray
    pose_numbers: tuple[int, ...] = ()
    stated_hw_px: tuple[int, int] | None = None

    def poses(self, numbers: Sequence[int], first: int) -> np.ndarray:
        """Return the poses of frames, F,4,4; NaN where the file has none.

        Args:
            numbers: Of the frames, as in the ground truth.
            first: Number of the first frame of the ground truth.
        """
        known = self.T_base_cam_f44
        if known.ndim == 2:
            return np.broadcast_to(known, (len(numbers), 4, 4))
        places = {number: place for place, number in enumerate(self.pose_numbers)}
        found = np.full((len(numbers), 4, 4), np.nan)
        for row, number in enumerate(numbers):
            place = places.get(number, -1) if places else number - first
            if 0 <= place < len(known):
                found[row] = known[place]
        return found

    def resized(self, hw_px: tuple[int, int], to_hw_px: tuple[int, int]) -> np.ndarray:
        """Return the intrinsics of the image scaled to another size; pixel centres keep their place in the scene.

        Example:
            >>> K = np.array([[60.0, 0.0, 31.5], [0.0, 60.0, 23.5], [0.0, 0.0, 1.0]])
            >>> front = Camera(spec=CameraSpec(name="a", kind="static"), intrinsics_33_px=K, T_base_cam_f44=np.eye(4))
            >>> front.resized((48, 64), (96, 128))[:2].tolist()
            [[120.0, 0.0, 63.5], [0.0, 120.0, 47.5]]
        """
        scale_y, scale_x = to_hw_px[0] / hw_px[0], to_hw_px[1] / hw_px[1]
        half = np.array([[scale_x, 0.0, (scale_x - 1) / 2], [0.0, scale_y, (scale_y - 1) / 2], [0.0, 0.0, 1.0]])
        return np.asarray(half @ self.intrinsics_33_px)


@dataclass(frozen=True, kw_only=True)
class CameraSet:
    """All cameras of a clip.

    Attributes:
        cameras: In the order of the views.
        arms: Arms of the robot; None if the file does not say.
        depth_per_m: Stored units of depth per metre; None if the file does not say.
        source: Name of the file, or what stands in for it.
        problem: Why poses, or all of the file, are not used; empty if they are.
        is_read: Whether the file could be read.
    """

    cameras: tuple[Camera, ...]
    arms: tuple[Arm, ...] | None = None
    depth_per_m: float | None = None
    source: str = "no camera file"
    problem: str = ""
    is_read: bool = True


def unknown_cameras(names: Sequence[str]) -> CameraSet:
    """Return static cameras without intrinsics and poses, for a clip without a camera file."""
    nan33, nan44 = np.full((3, 3), np.nan), np.full((4, 4), np.nan)
    return CameraSet(
        cameras=tuple(
            Camera(spec=CameraSpec(name=name, kind="static"), intrinsics_33_px=nan33, T_base_cam_f44=nan44)
            for name in names
        )
    )


def arms_of(found: CameraSet, states: np.ndarray | None) -> tuple[Arm, ...]:
    """Return the robot's arms: as the camera file says, else those of wrist cameras and of states that are not zero."""
    if found.arms is not None:
        return found.arms
    carriers = {camera.spec.arm for camera in found.cameras}
    used = [] if states is None else [arm for arm, part in ARM_PROPRIO.items() if _moves(states[:, part])]
    return tuple(arm for arm in ("left", "right") if arm in carriers or arm in used)


def _moves(states_f8: np.ndarray) -> bool:
    return any(is_valid_state(state) for state in states_f8)
