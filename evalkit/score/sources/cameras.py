"""Cameras of a folder clip: `cameras.json`.

In: a `cameras.json` as `evalkit/score/folders.py` describes it. Out: one `Camera` a view, and the arms.
Read next: `images.py`, the frames of each view.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evalkit.contracts.errors import BadConfig
from evalkit.contracts.spec import Arm, CameraSpec
from evalkit.contracts.types import ARM_PROPRIO


@dataclass(frozen=True, kw_only=True, eq=False)
class Camera:
    """One view of `cameras.json`; a missing or misshapen matrix is NaN, which gives the status `bad_camera`."""

    spec: CameraSpec
    intrinsics_33_px: np.ndarray
    T_base_cam_f44: np.ndarray


def read_cameras(path: Path) -> tuple[list[Camera], tuple[Arm, ...]]:
    """Return the views of a `cameras.json`, and its arms.

    Raises:
        BadConfig: If it is missing, broken, or names no view.
    """
    try:
        data = json.loads(path.read_text())
        cameras = [_camera(view) for view in data["views"]]
        carriers = [camera.spec.arm for camera in cameras if camera.spec.arm is not None]
        arms: tuple[Arm, ...] = tuple(dict.fromkeys(data.get("arms", carriers)))
        _check_cameras(path, [camera.spec for camera in cameras], arms)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadConfig(f"{path} is not a list of cameras: {type(error).__name__}: {error}.") from error
    return cameras, arms


def _check_cameras(path: Path, cameras: Sequence[CameraSpec], arms: Sequence[str]) -> None:
    names, kinds = [camera.name for camera in cameras], {camera.kind for camera in cameras}
    if not names:
        raise BadConfig(f"{path} names no view.")
    if not all(isinstance(name, str) and name for name in names):
        raise BadConfig(f"{path}: the name of a view must be a text, got {', '.join(map(repr, names))}.")
    if len(set(names)) < len(names):
        raise BadConfig(f"{path} names a view twice: {', '.join(names)}.")
    if unknown := kinds - {"static", "wrist"}:
        raise BadConfig(f"{path}: the kind of a view must be static or wrist, got {', '.join(map(repr, unknown))}.")
    if unknown_arms := {*arms, *(camera.arm for camera in cameras if camera.arm is not None)} - set(ARM_PROPRIO):
        raise BadConfig(f"{path}: an arm must be {' or '.join(ARM_PROPRIO)}, got {', '.join(map(repr, unknown_arms))}.")


def _camera(view: Mapping[str, Any]) -> Camera:
    T_ee_cam = _matrix(view.get("T_ee_cam"), (4, 4))
    return Camera(
        spec=CameraSpec(
            name=view["name"],
            kind=view["kind"],
            arm=view.get("arm"),
            T_ee_cam=tuple(map(tuple, T_ee_cam.tolist())) if np.isfinite(T_ee_cam).all() else None,
        ),
        intrinsics_33_px=_matrix(view.get("intrinsics"), (3, 3)),
        T_base_cam_f44=_matrix(view.get("T_base_cam"), (4, 4), one_a_frame=True),
    )


def _matrix(values: Any, shape: tuple[int, int], *, one_a_frame: bool = False) -> np.ndarray:
    """Return a matrix (or one per frame, if `one_a_frame` allows it); NaN if it is missing."""
    matrix = np.asarray(np.nan if values is None else values, np.float64)
    fits = matrix.shape == shape or (one_a_frame and matrix.ndim == 3 and matrix.shape[1:] == shape)
    return matrix if fits else np.full(shape, np.nan)


def poses_of(camera: Camera, begin: int, num_frames: int) -> np.ndarray:
    """Return a camera's poses from a frame on, F,4,4; NaN where the file has none."""
    poses = camera.T_base_cam_f44
    if poses.ndim == 2:
        return np.broadcast_to(poses, (num_frames, 4, 4))
    padded, known = np.full((num_frames, 4, 4), np.nan), poses[begin : begin + num_frames]
    padded[: len(known)] = known
    return padded
