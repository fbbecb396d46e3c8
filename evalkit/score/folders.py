"""Scoring of anyone's predictions: two folders of frames, no run and no policy needed.

In: a folder of predictions and one of truths. Out: the same result file as for a run, a task a clip.
Read next: `chunk.py`, which scores what was read.

Each folder holds a folder a clip, equally named on both sides (or is itself one clip). A clip holds:

    cameras.json           {"views": [{"name", "kind": "static"|"wrist", "intrinsics": 3x3, "T_base_cam": 4x4 or
                           one a frame, and for a wrist camera "arm" and "T_ee_cam"}], "arms": ["right"]}; needed in
                           the truth; `arms` may be left out where wrist cameras name them
    rgb/<view>/0000.png    8-bit colour, or rgb/<view>.mp4, or rgb/<view>.npz with `rgb`, F,H,W,3 uint8
    depth/<view>/0000.png  uint16 millimetres, or depth/<view>.npz with `depth_m`, F,H,W; optional
    states.npz             `proprio`, F,16, see `contracts.types.PROPRIO_DIM`; optional
    start/                 the frame that was seen, laid out as a clip of one frame; optional, in the truth
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
import cv2
import numpy as np

from evalkit.contracts.errors import BadConfig
from evalkit.contracts.spec import Arm, CameraSpec, EnvSpec
from evalkit.contracts.types import PROPRIO_DIM, Prediction
from evalkit.score.chunk import Score, ScoreOptions, score_chunk
from evalkit.score.frame import Picture
from evalkit.score.measure import Measure
from evalkit.score.table import ClipScores, ScoreWriter
from evalkit.store.clips import ClipChunk, Frames

CAMERAS, STATES, START = "cameras.json", "states.npz", "start"
What = Literal["rgb", "depth"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Camera:
    """One view of `cameras.json`; a matrix that is missing or misshapen is NaN, which the scores name."""

    spec: CameraSpec
    intrinsics_33_px: np.ndarray
    T_base_cam_f44: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """What one folder shows of one view.

    Attributes:
        frames: H,W,3 uint8 or H,W metres each; None for one that cannot be read.
        problems: Why, by index of the frame.
    """

    frames: Sequence[np.ndarray | None]
    problems: Mapping[int, Measure]


def score_folders(
    pred_dir: Path,
    true_dir: Path,
    result: Path,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    options: ScoreOptions | None = None,
) -> Path:
    """Score every clip of two folders and return the path of the result file.

    Args:
        pred_dir: Predictions, see the module's text for the layout.
        true_dir: Truths; decides clips, views, number and size of frames.
        result: Where the Parquet file goes.
        on_progress: Called with (clips done, clips in all).
        options: What is scored beside the metrics that every clip gets.

    Raises:
        BadConfig: If there is no clip, or a truth has no usable `cameras.json` or no readable frame.
        RunFolderError: If the result cannot be written.
    """
    names = clip_names(true_dir)
    with ScoreWriter(result) as writer:
        for num_done, name in enumerate(names, start=1):
            scores = score_folder_clip(pred_dir / name, true_dir / name, options)
            task = name if name != "." else true_dir.resolve().name
            writer.write(ClipScores(task=task, index=0, outcome="unknown", scores=scores))
            if on_progress is not None:
                on_progress(num_done, len(names))
    return result


def clip_names(true_dir: Path) -> list[str]:
    """Return the clips of a folder of truths, sorted; `.` where it is itself one.

    Raises:
        BadConfig: If there is none.
    """
    if (true_dir / CAMERAS).is_file():
        return ["."]
    names = sorted(path.parent.name for path in true_dir.glob(f"*/{CAMERAS}"))
    if not names:
        raise BadConfig(f"{true_dir} holds no clip: neither it nor a folder in it has a {CAMERAS}.")
    return names


def score_folder_clip(pred: Path, true: Path, options: ScoreOptions | None = None) -> list[Score]:
    """Return the scores of one clip; every picture that cannot be read is a row that says so."""
    cameras, arms = read_cameras(true / CAMERAS)
    names = [camera.spec.name for camera in cameras]
    sides = {
        (side, what): {name: _read_images(folder, what, name) for name in names}
        for side, folder in (("true", true), ("pred", pred))
        for what in ("rgb", "depth")
    }
    true_rgb = sides["true", "rgb"]
    num_frames = max(len(images.frames) for images in true_rgb.values())
    height, width = _size(true, true_rgb.values())
    problems: dict[Picture, Measure] = {}

    def stack(side: str, what: What) -> np.ndarray:
        shape = (num_frames, len(cameras), height, width, *((3,) if what == "rgb" else ()))
        array = np.zeros(shape, np.uint8 if what == "rgb" else np.float32)
        for view, images in enumerate(sides[side, what].values()):
            for frame_idx in range(num_frames):
                problem = _place(array[frame_idx, view], images, frame_idx)
                if problem is not None:
                    problems.setdefault(Picture(what, frame_idx, view), problem)
        return array

    has_depth = {side: any(images.frames for images in sides[side, "depth"].values()) for side in ("true", "pred")}
    empty_depth = np.zeros((num_frames, len(cameras), height, width), np.float32)
    chunk = ClipChunk(
        chunk_idx=0,
        step_idx=0,
        num_executed=0,
        frame_stride=1,
        intrinsics_v33_px=np.stack([camera.intrinsics_33_px for camera in cameras]),
        start=_start(true / START, cameras, (height, width)),
        true=Frames(
            rgb_fvhwc_u8=stack("true", "rgb"),
            depth_fvhw_m=stack("true", "depth") if has_depth["true"] else empty_depth,
            proprio_fd=_states(true / STATES, num_frames),
            T_base_cam_fv44=np.stack([_poses(camera, num_frames) for camera in cameras], axis=1),
        ),
        predicted=Prediction(
            rgb=stack("pred", "rgb"),
            depth=stack("pred", "depth") if has_depth["pred"] else None,
            proprio=_states(pred / STATES, num_frames) if (pred / STATES).exists() else None,
        ),
    )
    return score_chunk(chunk, _env(cameras, arms, (height, width)), options, problems=problems)


def read_cameras(path: Path) -> tuple[list[Camera], tuple[Arm, ...]]:
    """Return the views of a `cameras.json`, and the arms that exist.

    Raises:
        BadConfig: If it is missing, broken, or names no view.
    """
    try:
        data = json.loads(path.read_text())
        cameras = [_camera(view) for view in data["views"]]
        carriers = [camera.spec.arm for camera in cameras if camera.spec.arm is not None]
        arms: tuple[Arm, ...] = tuple(dict.fromkeys(data.get("arms", carriers)))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadConfig(f"{path} is not a list of cameras: {type(error).__name__}: {error}.") from error
    if not cameras:
        raise BadConfig(f"{path} names no view.")
    return cameras, arms


def _camera(view: Mapping[str, Any]) -> Camera:
    hand_eye = view.get("T_ee_cam")
    return Camera(
        spec=CameraSpec(
            name=view["name"],
            kind=view["kind"],
            arm=view.get("arm"),
            T_ee_cam=None if hand_eye is None else tuple(tuple(map(float, row)) for row in hand_eye),
        ),
        intrinsics_33_px=_matrix(view.get("intrinsics"), (3, 3)),
        T_base_cam_f44=_matrix(view.get("T_base_cam"), (4, 4)),
    )


def _matrix(values: Any, shape: tuple[int, int]) -> np.ndarray:
    """Return a matrix, or one a frame; NaN where there is none."""
    matrix = np.asarray(np.nan if values is None else values, np.float64)
    return matrix if matrix.shape[-2:] == shape else np.full(shape, np.nan)


def _poses(camera: Camera, num_frames: int) -> np.ndarray:
    poses = camera.T_base_cam_f44
    if poses.ndim == 2:
        return np.broadcast_to(poses, (num_frames, 4, 4))
    padded = np.full((num_frames, 4, 4), np.nan)
    padded[: min(num_frames, len(poses))] = poses[:num_frames]
    return padded


def _env(cameras: Sequence[Camera], arms: tuple[Arm, ...], size: tuple[int, int]) -> EnvSpec:
    return EnvSpec(
        env_id="folders",
        cameras=tuple(camera.spec for camera in cameras),
        image_hw_px=size,
        arms=arms,
        action_layout="none",
        control_hz=0.0,
    )


def _size(true: Path, views: Any) -> tuple[int, int]:
    for images in views:
        for frame in images.frames:
            if frame is not None:
                return frame.shape[0], frame.shape[1]
    raise BadConfig(f"{true} has no readable RGB frame, so that nothing can be held against it.")


def _place(target: np.ndarray, images: Images, frame_idx: int) -> Measure | None:
    """Copy one frame into its place; return why that cannot be done."""
    if frame_idx in images.problems:
        return images.problems[frame_idx]
    if frame_idx >= len(images.frames):
        return Measure(None, "missing_frame", f"there are {len(images.frames)} frames")
    frame = images.frames[frame_idx]
    if frame is None or frame.shape != target.shape:
        return Measure(None, "wrong_size", f"expected {target.shape}, got {None if frame is None else frame.shape}")
    target[...] = frame
    return None


def _states(path: Path, num_frames: int) -> np.ndarray:
    """Return F,16 states, NaN where there are none."""
    states = np.full((num_frames, PROPRIO_DIM), np.nan, np.float32)
    try:
        with np.load(path, allow_pickle=False) as file:
            found = np.asarray(file["proprio"], np.float32).reshape(-1, PROPRIO_DIM)[:num_frames]
    except (OSError, ValueError, KeyError, EOFError):
        return states
    states[: len(found)] = found
    return states


def _start(folder: Path, cameras: Sequence[Camera], size: tuple[int, int]) -> Frames:
    """Return the seen frame, or no frame."""
    height, width = size
    num_frames = 1 if folder.is_dir() else 0
    rgb = np.zeros((num_frames, len(cameras), height, width, 3), np.uint8)
    depth = np.zeros((num_frames, len(cameras), height, width), np.float32)
    for view, camera in enumerate(cameras):
        for what, array in (("rgb", rgb), ("depth", depth)):
            if num_frames:
                _place(array[0, view], _read_images(folder, what, camera.spec.name), 0)
    return Frames(
        rgb_fvhwc_u8=rgb,
        depth_fvhw_m=depth,
        proprio_fd=_states(folder / STATES, num_frames),
        T_base_cam_fv44=np.zeros((num_frames, len(cameras), 4, 4)),
    )


def _read_images(folder: Path, what: str, view: str) -> Images:
    """Return the frames of a view from PNGs, an mp4 or an npz; what breaks while it is read is named."""
    place = folder / what / view
    if place.is_dir():
        return _collect(_png(path, what) for path in sorted(place.glob("*.png")))
    for suffix, read in ((".npz", _npz), (".mp4", _mp4)):
        path = place.with_name(place.name + suffix)
        if path.exists():
            return _collect(read(path, what))
    return Images(frames=(), problems={})


def _collect(frames: Iterator[np.ndarray | Measure]) -> Images:
    read: list[np.ndarray | None] = []
    problems: dict[int, Measure] = {}
    for frame_idx, frame in enumerate(frames):
        if isinstance(frame, Measure):
            problems[frame_idx] = frame
        read.append(None if isinstance(frame, Measure) else frame)
    return Images(frames=read, problems=problems)


def _png(path: Path, what: str) -> np.ndarray | Measure:
    data = np.fromfile(path, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR if what == "rgb" else cv2.IMREAD_UNCHANGED) if data.size else None
    whole = data[-12:].tobytes()[4:8] == b"IEND"  # the decoder fills up a truncated file without a word
    if image is None or not whole:
        return Measure(None, "unreadable", f"{path} is broken or cut off")
    if what == "rgb":
        return image[..., ::-1]
    if image.dtype != np.uint16 or image.ndim != 2:
        return Measure(None, "unreadable", f"{path} is no uint16 depth: {image.dtype}, {image.shape}")
    return (image.astype(np.float32) / 1000.0).astype(np.float32)


def _npz(path: Path, what: str) -> Iterator[np.ndarray | Measure]:
    try:
        with np.load(path, allow_pickle=False) as file:
            array = file["rgb" if what == "rgb" else "depth_m"]
    except Exception as error:  # a broken archive raises whatever its decoder raises
        yield Measure(None, "unreadable", f"{path}: {type(error).__name__}: {error}")
        return
    if what == "rgb" and array.dtype != np.uint8:
        yield Measure(None, "unreadable", f"{path}: rgb must be uint8, got {array.dtype}")
        return
    yield from array if what == "rgb" else array.astype(np.float32)


def _mp4(path: Path, what: str) -> Iterator[np.ndarray | Measure]:
    if what != "rgb":
        yield Measure(None, "unreadable", f"{path}: depth is read from PNG or npz, an mp4 loses it")
        return
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")
    except av.error.FFmpegError as error:
        yield Measure(None, "unreadable", f"{path}: {error}")
