"""Camera files in the forms that people have, converted to evalkit's convention where they are read.

In: a JSON file. Out: a `CameraSet`: camera-to-base poses, x right, y down, z forward; pixel centres at integers.
Read next: `cameras.py`, the result; docs/scoring.md, which lists the forms for users.

A file states its cameras as `{"views": [...]}`, `{"cameras": [...] or {name: ...}}`, `{name: ...}`, a list, one camera,
or as a NeRF `transforms.json`. The name of a pose says its direction (`T_base_cam`, `c2w`; `T_cam_base`, `w2c`). A name
that leaves direction or axes open is read only if the convention is stated, by the user or in the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from evalkit.contracts.errors import BadConfig
from evalkit.contracts.geometry import matrix_from_quat, transform
from evalkit.contracts.spec import CameraSpec
from evalkit.contracts.types import ARM_PROPRIO
from evalkit.score.sources.cameras import Camera, CameraSet
from evalkit.score.sources.clip_files import DEFAULT_VIEW


class OpenConvention(BadConfig):
    """Poses whose axes or direction are not stated, or stated in two ways; the rest of the file is usable."""


Convention = Literal["opencv", "opengl", "colmap"]
"""`opencv`: camera-to-base, x right, y down, z forward. `opengl`: camera-to-base, x right, y up, z backward. `colmap`:
base-to-camera with the axes of OpenCV."""

CV_FROM_GL = np.diag([1.0, -1.0, -1.0, 1.0])
"""`T_base_cam` in OpenGL's axes times this is `T_base_cam` in OpenCV's; it is its own inverse."""

OWN_POSE = "T_base_cam"
TO_BASE = ("T_world_cam", "c2w", "cam2world", "camera_to_world", "cam_to_world", "transform_matrix")
FROM_BASE = ("T_cam_base", "T_cam_world", "w2c", "world2cam", "world_to_camera", "world_to_cam")
OPEN = ("extrinsics", "extrinsic", "extrinsic_matrix", "pose")
"""Names that say neither direction nor axes."""

MATRICES = ("intrinsics", "K", "intrinsic", "intrinsic_matrix", "camera_matrix")
NUMBERS = (("fx", "fy", "cx", "cy"), ("fl_x", "fl_y", "cx", "cy"))
PER_METRE = ("depth_scale", "depth_units_per_m", "png_depth_scale")
METRES_PER_UNIT = ("depth_unit_scale_factor", "integer_depth_scale")


def read_cameras(
    path: Path,
    views: Sequence[str],
    *,
    convention: Convention | None = None,
    sizes_px: Mapping[str, tuple[int, int]] | None = None,
) -> CameraSet:
    """Return the cameras of a file.

    Args:
        path: The file.
        views: The clip's views; names the camera where the file names none.
        convention: As the user states it; None takes the file's.
        sizes_px: Height and width of each view, for intrinsics that need them.

    Raises:
        BadConfig: If it is broken or names no view.
    """
    problem = ""
    try:
        data = json.loads(path.read_text())
        stated = _convention(path, data, convention)
        if isinstance(data, Mapping) and _is_nerf(data):
            found = _nerf(path, data, views, stated or "opengl", sizes_px or {})
        else:
            try:
                found = _listed(path, data, views, stated)
            except OpenConvention as error:
                found, problem = _listed(path, data, views, stated, posed=False), str(error)
        _check(path, found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadConfig(f"{path} is not a list of cameras: {type(error).__name__}: {error}.") from error
    return replace(found, depth_per_m=_depth_per_m(path, data), source=path.name, problem=problem)


def view_names(path: Path) -> list[str]:
    """Return the names of views in a camera file; none if it is broken or names none."""
    try:
        data = json.loads(path.read_text())
        if isinstance(data, Mapping) and _is_nerf(data):
            return []
        return [name for name, _ in _entries(data, []) if isinstance(name, str)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _convention(path: Path, data: Any, asked: Convention | None) -> Convention | None:
    written = None
    if isinstance(data, Mapping):
        written = data.get("convention", data.get("camera_convention"))
    if written is not None:
        written = str(written).lower()
        if written not in get_args(Convention):
            raise BadConfig(f"{path}: the convention must be opencv, opengl or colmap, got '{written}'.")
        if asked is not None and asked != written:
            raise BadConfig(f"{path} states the convention {written}, --camera-convention {asked}; leave one out.")
    return asked or written  # type: ignore[return-value]


def _is_nerf(data: Mapping[str, Any]) -> bool:
    frames = data.get("frames")
    return isinstance(frames, list) and bool(frames) and "transform_matrix" in frames[0]


def _entries(data: Any, views: Sequence[str]) -> list[tuple[Any, Mapping[str, Any]]]:
    """Return name and description of each camera."""
    if isinstance(data, Mapping) and isinstance(data.get("views", data.get("cameras")), list):
        data = data.get("views", data.get("cameras"))
    elif isinstance(data, Mapping) and isinstance(data.get("cameras"), Mapping):
        data = data["cameras"]
    if isinstance(data, list):
        alone = views[0] if len(data) == 1 and len(views) == 1 else None
        return [(view["name"] if alone is None else view.get("name", alone), view) for view in data]
    if any(key in data for key in (*MATRICES, "fx", "fl_x")):
        return [(data.get("name", views[0] if len(views) == 1 else DEFAULT_VIEW), data)]
    return [(name, view) for name, view in data.items() if isinstance(view, Mapping)]


def _listed(
    path: Path, data: Any, views: Sequence[str], convention: Convention | None, *, posed: bool = True
) -> CameraSet:
    cameras = [_camera(path, name, view, convention, posed=posed) for name, view in _entries(data, views)]
    arms = data.get("arms") if isinstance(data, Mapping) else None
    return CameraSet(cameras=tuple(cameras), arms=None if arms is None else tuple(arms))


def _camera(path: Path, name: Any, view: Mapping[str, Any], convention: Convention | None, *, posed: bool) -> Camera:
    T_ee_cam = _matrix(view.get("T_ee_cam"), (4, 4))
    if convention == "opengl":
        T_ee_cam = T_ee_cam @ CV_FROM_GL
    mounted = view.get("arm") is not None or view.get("T_ee_cam") is not None
    return Camera(
        spec=CameraSpec(
            name=name,
            kind=view.get("kind", "wrist" if mounted else "static"),
            arm=view.get("arm"),
            T_ee_cam=tuple(map(tuple, T_ee_cam.tolist())) if np.isfinite(T_ee_cam).all() else None,
        ),
        intrinsics_33_px=_intrinsics(view),
        T_base_cam_f44=_pose(path, name, view, convention) if posed else np.full((4, 4), np.nan),
        stated_hw_px=_stated_size(view),
    )


def _intrinsics(view: Mapping[str, Any]) -> np.ndarray:
    """Return K of a camera's description; NaN if it has none."""
    values = next((view[key] for key in MATRICES if key in view), None)
    source = values if isinstance(values, Mapping) else view
    for names in NUMBERS:
        if (values is None or isinstance(values, Mapping)) and all(name in source for name in names):
            return _from_numbers([source[name] for name in names])
    if isinstance(values, Mapping):
        return np.full((3, 3), np.nan)
    array = np.asarray(np.nan if values is None else values, np.float64)
    if array.shape == (4,):
        return _from_numbers(array)
    return _matrix(array.reshape(3, 3) if array.shape == (9,) else array, (3, 3))


def _from_numbers(numbers: Iterable[float]) -> np.ndarray:
    fx, fy, cx, cy = (float(number) for number in numbers)
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def _pose(path: Path, name: str, view: Mapping[str, Any], convention: Convention | None) -> np.ndarray:
    """Return `T_base_cam` (4,4 or F,4,4) in evalkit's convention; NaN if there is none.

    Raises:
        OpenConvention: If the pose's name contradicts the convention, or needs one that is not stated.
    """
    if "qvec" in view and "tvec" in view:
        if convention not in (None, "colmap"):
            raise OpenConvention(f"{path}: '{name}' has COLMAP's qvec and tvec, which contradict {convention}.")
        return _inverse(_from_quat(view["qvec"], view["tvec"]))
    key = next((key for key in (OWN_POSE, *TO_BASE, *FROM_BASE, *OPEN) if key in view), None)
    if key is None:
        return np.full((4, 4), np.nan)
    pose = _matrix(view[key], (4, 4), one_a_frame=True)
    if convention is None and key != OWN_POSE and key not in ("T_cam_base",):
        raise OpenConvention(
            f"{path}: '{key}' of '{name}' does not say its axes; add --camera-convention opencv, opengl or colmap, or "
            f'"convention" in the file.'
        )
    if key in (OWN_POSE, *TO_BASE) and convention == "colmap":
        raise OpenConvention(
            f"{path}: '{key}' of '{name}' is camera-to-base by its name, the convention colmap is base-to-camera; call "
            "it T_cam_base, or state opencv or opengl."
        )
    axes = CV_FROM_GL if convention == "opengl" else np.eye(4)
    if key in FROM_BASE or (key in OPEN and convention == "colmap"):
        return _inverse(axes @ pose)
    return np.asarray(pose @ axes)


def _from_quat(qvec_wxyz: Any, tvec_m: Any) -> np.ndarray:
    quat = np.asarray(qvec_wxyz, np.float64)
    return transform(matrix_from_quat(quat / np.linalg.norm(quat)), np.asarray(tvec_m, np.float64))


def _inverse(T: np.ndarray) -> np.ndarray:
    """Return the inverse of any matrix, so that a wrong bottom row stays visible to the checks; NaN if singular."""
    try:
        return np.asarray(np.linalg.inv(T))
    except np.linalg.LinAlgError:
        return np.full(T.shape, np.nan)


def _matrix(values: Any, shape: tuple[int, int], *, one_a_frame: bool = False) -> np.ndarray:
    """Return a matrix (or one per frame, if `one_a_frame` allows it); NaN if it is missing. 3x4 gets a bottom row."""
    matrix = np.asarray(np.nan if values is None else values, np.float64)
    if shape == (4, 4) and matrix.ndim in (2, 3) and matrix.shape[-2:] == (3, 4):
        bottom = np.broadcast_to([[0.0, 0.0, 0.0, 1.0]], (*matrix.shape[:-2], 1, 4))
        matrix = np.concatenate([matrix, bottom], axis=-2)
    fits = matrix.shape == shape or (one_a_frame and matrix.ndim == 3 and matrix.shape[1:] == shape)
    return matrix if fits else np.full(shape, np.nan)


def _stated_size(view: Mapping[str, Any]) -> tuple[int, int] | None:
    for height, width in (("height", "width"), ("h", "w")):
        if height in view and width in view:
            return int(view[height]), int(view[width])
    return None


def _nerf(
    path: Path,
    data: Mapping[str, Any],
    views: Sequence[str],
    convention: Convention,
    sizes_px: Mapping[str, tuple[int, int]],
) -> CameraSet:
    """Return the cameras of a `transforms.json`, whose pixel centres lie at half numbers."""
    frames: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for place, frame in enumerate(data["frames"]):
        parts = Path(str(frame.get("file_path", ""))).with_suffix("").parts
        view = next((part for part in parts if part in views), views[0] if len(views) == 1 else None)
        if view is None:
            raise BadConfig(f"{path}: the file_path {frame.get('file_path')!r} names none of {', '.join(views)}.")
        digits = re.findall(r"\d+", parts[-1]) if parts else []
        frames.setdefault(view, []).append((int(digits[-1]) if digits else place, frame))
    cameras = []
    for view, numbered in frames.items():
        source = {**data, **numbered[0][1]}
        size = _stated_size(source) or sizes_px.get(view)
        poses = np.stack([_pose(path, view, frame, convention) for _, frame in numbered])
        cameras.append(
            Camera(
                spec=CameraSpec(name=view, kind="static"),
                intrinsics_33_px=_nerf_intrinsics(source, size),
                T_base_cam_f44=poses,
                pose_numbers=tuple(number for number, _ in numbered),
                stated_hw_px=_stated_size(source),
            )
        )
    return CameraSet(cameras=tuple(cameras))


def _nerf_intrinsics(source: Mapping[str, Any], size_hw_px: tuple[int, int] | None) -> np.ndarray:
    if "fl_x" in source:
        height, width = size_hw_px or (np.nan, np.nan)
        focal = source["fl_x"], source.get("fl_y", source["fl_x"])
        K = _from_numbers([*focal, source.get("cx", width / 2), source.get("cy", height / 2)])
    elif "camera_angle_x" in source and size_hw_px is not None:
        focal_px = 0.5 * size_hw_px[1] / np.tan(0.5 * source["camera_angle_x"])
        K = _from_numbers([focal_px, focal_px, size_hw_px[1] / 2, size_hw_px[0] / 2])
    else:
        return _intrinsics(source)
    K[:2, 2] -= 0.5
    return K


def _depth_per_m(path: Path, data: Any) -> float | None:
    """Return stored units per metre as the file states them."""
    if not isinstance(data, Mapping):
        return None
    for key in (*PER_METRE, *METRES_PER_UNIT):
        if key in data:
            value = float(data[key])
            if not np.isfinite(value) or value <= 0:
                raise BadConfig(f"{path}: {key} must be a positive number, got {data[key]!r}.")
            return 1 / value if key in METRES_PER_UNIT or value < 1 else value
    return None


def _check(path: Path, found: CameraSet) -> None:
    specs = [camera.spec for camera in found.cameras]
    names, kinds = [spec.name for spec in specs], {spec.kind for spec in specs}
    if not names:
        raise BadConfig(f"{path} names no view.")
    if not all(isinstance(name, str) and name for name in names):
        raise BadConfig(f"{path}: the name of a view must be a text, got {', '.join(map(repr, names))}.")
    if len(set(names)) < len(names):
        raise BadConfig(f"{path} names a view twice: {', '.join(names)}.")
    if unknown := kinds - {"static", "wrist"}:
        raise BadConfig(f"{path}: the kind of a view must be static or wrist, got {', '.join(map(repr, unknown))}.")
    arms = {*(found.arms or ()), *(spec.arm for spec in specs if spec.arm is not None)}
    if unknown_arms := arms - set(ARM_PROPRIO):
        raise BadConfig(f"{path}: an arm must be {' or '.join(ARM_PROPRIO)}, got {', '.join(map(repr, unknown_arms))}.")
