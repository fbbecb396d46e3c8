"""Data sets in the layout that X-WAM is trained on, as recorded episodes to be imagined anew.

In: a folder with `metadata.json`, an episode's `data/<key>.json`, RGB as mp4, depth in lossless millimetres as mkv.
Out: chunks of frames, states and actions, read one at a time.
Read next: `recorded.py`, which sets them beside the clips of a run; `baselines/scripted/workers.py`, which writes such.

An episode says in `about` in which bench and task it was recorded; the bench's own spec then gives the cameras. A view
may also hold `intrinsics` (3x3) and, for a static camera, `T_base_cam` (4x4); a wrist camera hangs on the states by
its hand-eye transform. Without them there is no cloud, and the scores say so. The 8-bit depth is never a truth.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from evalkit.contracts import plugins
from evalkit.contracts.errors import BadConfig, EvalkitError, RunFolderError
from evalkit.contracts.geometry import ee_pose_from_proprio, quat_from_matrix
from evalkit.contracts.spec import CameraSpec, EnvSpec, PolicySpec
from evalkit.contracts.types import ACTION_DIM, ARM_PROPRIO, PROPRIO_DIM, Episode
from evalkit.score.results.outcome import ImageKey, Measure
from evalkit.score.sources.images import decoded
from evalkit.store.clips import ClipChunk, Frames, depth_m_from_mm

Problems = Mapping[ImageKey, Measure]
KINDS = {"static": "static", "wrist": "dynamic"}
"""Kinds of cameras as we call them, and as the layout does."""


class BrokenEpisode(RunFolderError):
    """An episode that cannot be used; the sentence names the file and what is wrong with it."""


class DataSet:
    """A folder in the layout.

    Attributes:
        root: The folder.
        bench: The bench that its first readable episode was recorded in.

    Raises:
        BadConfig: If `metadata.json` is no list of episodes, or no episode names its bench.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        try:
            listed = json.loads((root / "metadata.json").read_text())
            self._keys = sorted(str(key) for key in dict(listed))
        except (OSError, ValueError, TypeError) as error:
            raise BadConfig(f"{root / 'metadata.json'} must list the episodes of a data set: {error}.") from error
        self.bench = self._first_bench()

    def _first_bench(self) -> str:
        for _, _, path in self.listed():
            try:
                return str(json.loads(path.read_text())["about"]["bench"])
            except (OSError, ValueError, KeyError, TypeError):
                continue
        raise BadConfig(
            f"{self.root} cannot be imagined anew: no episode names, under 'about', the bench and task that it was "
            f"recorded in."
        )

    def listed(self) -> list[tuple[str, int, Path]]:
        """Return folder, number and file of every listed episode; its own words on its task are not read yet."""
        return [(Path(key).parent.name, _number(key), self.root / "data" / f"{key}.json") for key in self._keys]

    def read(self, path: Path, *, index: int) -> Track:
        """Return an episode without its pictures.

        Raises:
            BrokenEpisode: If its file is missing or broken, or it does not fit the bench that it names.
        """
        try:
            return _track(self.root, json.loads(path.read_text()), index=index)
        except (OSError, LookupError, TypeError, AttributeError, ValueError, EvalkitError) as error:
            raise BrokenEpisode(f"{path} cannot be used: {type(error).__name__}: {error}") from error


@dataclass(frozen=True, kw_only=True, eq=False)
class LayoutView:
    """One view as an episode describes it; a matrix that nobody wrote down is NaN.

    Attributes:
        rgb_path: Colour video.
        depth_mm_path: Depth in millimetres; None where there is none.
        start: Frame of the videos at which the episode starts.
        intrinsics_33_px: 3,3.
        T_base_cam: 4,4; looked at where the camera is static.
    """

    rgb_path: Path
    depth_mm_path: Path | None
    start: int
    intrinsics_33_px: np.ndarray
    T_base_cam: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Track:
    """An episode without its pictures.

    Attributes:
        episode: What its `about` says.
        env: Of the bench that it names.
        views: In the env's order.
        proprio_nd: N,16 float32.
        executed_nd: N,14 float32 in the env's layout; None where nobody wrote it down.
    """

    episode: Episode
    env: EnvSpec
    views: Sequence[LayoutView]
    proprio_nd: np.ndarray
    executed_nd: np.ndarray | None

    @contextmanager
    def opened(self) -> Iterator[Videos]:
        """Open the videos."""
        with ExitStack() as stack:
            files = {
                (what, idx): stack.enter_context(_Video(path, pixels, start=view.start))
                for idx, view in enumerate(self.views)
                for what, path, pixels in (("rgb", view.rgb_path, "rgb24"), ("depth", view.depth_mm_path, "gray16le"))
                if path is not None
            }
            yield Videos(self, files)

    def cameras(self, steps: Sequence[int]) -> np.ndarray:
        """Return the poses of all cameras, F,V,4,4; NaN where nobody wrote them down."""
        poses = [self._pose(camera, view, steps) for camera, view in zip(self.env.cameras, self.views, strict=True)]
        return np.stack(poses, axis=1)

    def intrinsics(self) -> np.ndarray:
        """Return V,3,3; NaN where nobody wrote them down."""
        return np.stack([view.intrinsics_33_px for view in self.views])

    def _pose(self, camera: CameraSpec, view: LayoutView, steps: Sequence[int]) -> np.ndarray:
        if camera.arm is None or camera.T_ee_cam is None:
            return np.broadcast_to(view.T_base_cam, (len(steps), 4, 4))
        states = self.proprio_nd[steps, ARM_PROPRIO[camera.arm]]
        poses = [ee_pose_from_proprio(state) @ np.asarray(camera.T_ee_cam) for state in states]
        return np.reshape(poses, (len(steps), 4, 4))


class Videos:
    """The open videos of an episode."""

    def __init__(self, track: Track, files: Mapping[tuple[str, int], _Video]) -> None:
        self._track, self._files = track, files

    def chunks(self, policy: PolicySpec) -> Iterator[tuple[ClipChunk, Problems]]:
        """Yield the episode in chunks of the policy's length; the last one is what is left of it.

        Raises:
            BrokenEpisode: If a video breaks off.
        """
        last, stride = len(self._track.proprio_nd) - 1, policy.frame_stride
        for chunk_idx, start in enumerate(range(0, last, policy.chunk_len)):
            horizon = min(policy.num_future_frames * stride, last - start)
            steps = list(range(start + stride, start + horizon + 1, stride))
            seen, future = self._frames([start]), self._frames(steps)
            executed = min(policy.chunk_len, last - start)
            actions = self._track.executed_nd
            yield (
                ClipChunk(
                    chunk_idx=chunk_idx,
                    step_idx=start,
                    num_executed=executed,
                    frame_stride=stride,
                    intrinsics_v33_px=self._track.intrinsics(),
                    start=seen,
                    true=future,
                    predicted=None,
                    actions_nd=None if actions is None else actions[start : start + executed],
                ),
                self._problems(len(steps)),
            )

    def _frames(self, steps: Sequence[int]) -> Frames:
        height, width = self._track.env.image_hw_px
        views = range(len(self._track.views))
        rgb = np.zeros((len(steps), len(views), height, width, 3), np.uint8)
        depth_mm = np.zeros((len(steps), len(views), height, width), np.uint16)
        for place, step in enumerate(steps):
            for view in views:
                rgb[place, view] = self._files["rgb", view].read(step, rgb.shape[2:])
                if ("depth", view) in self._files:
                    depth_mm[place, view] = self._files["depth", view].read(step, depth_mm.shape[2:])
        return Frames(
            rgb_fvhwc_u8=rgb,
            depth_fvhw_m=depth_m_from_mm(depth_mm),
            proprio_fd=self._track.proprio_nd[list(steps)],
            T_base_cam_fv44=self._track.cameras(list(steps)),
        )

    def _problems(self, num_frames: int) -> Problems:
        without = [view for view in range(len(self._track.views)) if ("depth", view) not in self._files]
        missing = Measure(None, "unavailable", "the data set holds no depth in millimetres for this view")
        return {ImageKey("depth", frame_idx, view): missing for frame_idx in range(num_frames) for view in without}


class _Video:
    """A video that is read forwards only; the frame read last may be asked for again."""

    def __init__(self, path: Path, pixels: str, *, start: int) -> None:
        self._path, self._pixels, self._start = path, pixels, start

    def __enter__(self) -> _Video:
        try:
            self._container = av.open(str(self._path))
        except (OSError, ValueError, av.error.FFmpegError) as error:
            raise BrokenEpisode(f"{self._path} is missing, or no whole video: {error}.") from error
        self._frames = decoded(self._container)
        self._next = 0
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()

    def read(self, step: int, shape: tuple[int, ...]) -> np.ndarray:
        try:
            while self._next <= self._start + step:
                self._frame, self._next = next(self._frames), self._next + 1
            image = self._frame.to_ndarray(format=self._pixels)
        except StopIteration:
            raise BrokenEpisode(f"{self._path} ends after {self._next} frames, before step {step}.") from None
        except (OSError, ValueError, IndexError, av.error.FFmpegError) as error:
            raise BrokenEpisode(f"{self._path} breaks off at step {step}: {error}.") from error
        if image.shape != shape:
            raise BrokenEpisode(f"{self._path} holds frames of {image.shape}, the bench gives {shape}.")
        return image


def _number(key: str) -> int:
    digits = Path(key).name.rpartition("_")[2]
    return int(digits) if digits.isdecimal() else 0


def _track(root: Path, said: Mapping[str, Any], *, index: int) -> Track:
    about, count = said.get("about") or {}, int(said["num_frames"])
    if "bench" not in about or "task" not in about:
        raise ValueError("'about' does not name the bench and task that it was recorded in.")
    bench = plugins.load_bench(about["bench"])
    setting = about.get("setting", bench.settings[0])
    env = bench.env_spec(bench.config_type(), task=about["task"], setting=setting)
    views = [view for _, view in sorted(said["observations"].items())]
    kinds, expected = [view["type"] for view in views], [KINDS[camera.kind] for camera in env.cameras]
    if kinds != expected:
        raise ValueError(f"its views are {kinds}, those of {env.env_id} {expected}.")
    executed = said["actions"].get("executed")
    return Track(
        episode=Episode(
            bench=about["bench"],
            setting=setting,
            protocol="recorded",
            task=about["task"],
            index=index,
            seed=int(about.get("seed", 0)),
            instruction=said["instructions"][0],
            max_steps=count,
        ),
        env=env,
        views=[_view(root, view) for view in views],
        proprio_nd=_proprio(said["proprios"], env, count),
        executed_nd=None if executed is None else _table("executed", executed, (count, ACTION_DIM)),
    )


def _view(root: Path, said: Mapping[str, Any]) -> LayoutView:
    depth_mm, start = said.get("depth_mm_path"), int(said.get("start", 0))
    if start < 0:
        raise ValueError(f"a view starts at frame {start} of its videos.")
    return LayoutView(
        rgb_path=root / said["rgb_path"],
        depth_mm_path=None if depth_mm is None else root / depth_mm,
        start=start,
        intrinsics_33_px=_matrix(said.get("intrinsics"), (3, 3)),
        T_base_cam=_matrix(said.get("T_base_cam"), (4, 4)),
    )


def _proprio(states: Mapping[str, Any], env: EnvSpec, count: int) -> np.ndarray:
    proprio = np.zeros((count, PROPRIO_DIM), np.float32)
    for arm in env.arms:
        matrices = _table(f"{arm}_ee_rotm", states[f"{arm}_ee_rotm"], (count, 9)).reshape(-1, 3, 3)
        if np.abs(matrices @ matrices.transpose(0, 2, 1) - np.eye(3)).max() > 1e-2:
            raise ValueError(f"a matrix of '{arm}_ee_rotm' is no rotation.")
        parts = [
            _table(f"{arm}_ee_pos", states[f"{arm}_ee_pos"], (count, 3)),
            np.stack([quat_from_matrix(matrix) for matrix in matrices.astype(np.float64)]),
            _table(f"{arm}_gripper_pos", states[f"{arm}_gripper_pos"], (count, 1)),
        ]
        proprio[:, ARM_PROPRIO[arm]] = np.hstack(parts)
    return proprio


def _table(name: str, rows: Any, shape: tuple[int, int]) -> np.ndarray:
    table = np.asarray(rows, np.float32)
    if table.shape != shape or not np.isfinite(table).all():
        raise ValueError(f"'{name}' must hold {shape} finite numbers, got {table.shape}.")
    return table


def _matrix(values: Any, shape: tuple[int, int]) -> np.ndarray:
    matrix = np.full(shape, np.nan) if values is None else np.asarray(values, np.float64)
    return matrix if matrix.shape == shape else np.full(shape, np.nan)
