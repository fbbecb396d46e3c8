"""Data sets as recorded episodes: chunks of frames, states and actions, cut as a policy asks for them.

In: a data set that `evalkit/dataset/layout.py` reads, a policy's spec. Out: chunks without a prediction, one at a time.
Read next: `recorded.py`, which offers them together with the clips of a run.

An episode names under `about` the bench and task in which it was recorded. The bench's own spec gives the cameras.
A wrist camera's pose is the end effector's pose times its `T_ee_cam`. Other poses and the intrinsics come from
the episode. Without them there is no point cloud, and the scores say so. The 8-bit depth is never a ground truth.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from evalkit.contracts import plugins
from evalkit.contracts.errors import BadConfig, EvalkitError
from evalkit.contracts.geometry import ee_pose_from_proprio
from evalkit.contracts.recording import DataSetBench
from evalkit.contracts.spec import CameraSpec, EnvSpec, PolicySpec, past_offsets
from evalkit.contracts.types import ARM_PROPRIO, Episode
from evalkit.dataset.axes import SAME_AXES, Axes
from evalkit.dataset.layout import CAMERA_KINDS, BrokenEpisode, Camera, Track, check_against, read_metadata, read_track
from evalkit.dataset.video_pixels import PixelFormat
from evalkit.dataset.videos import UnreadableVideo, read_frames
from evalkit.dataset.writer import read_about
from evalkit.score.results.outcome import ImageKey, Measure
from evalkit.store.clips import ClipChunk, Frames, depth_m_from_mm

Problems = Mapping[ImageKey, Measure]

RATE_TOLERANCE = 0.01
"""Largest difference of a video's rate from the control rate, as a share of it."""


class RecordedChunk(NamedTuple):
    """One chunk of a recorded episode.

    Attributes:
        chunk: The frames, states and actions, without a prediction.
        problems: The images of `chunk.true` that could not be read, and why.
        between: Images, V,H,W,3, at the steps since the previous chunk that `spec.past_offsets` names; not the current.
    """

    chunk: ClipChunk
    problems: Problems
    between: Sequence[np.ndarray]


class DataSet:
    """A data set whose episodes were recorded in one bench.

    Attributes:
        root: Its folder.
        keys: Its episodes, sorted.
        bench: The bench that the first episode with a readable `about` names.

    Raises:
        DataSetError: If `metadata.json` is no list of episodes.
        BadConfig: If no episode names its bench.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lengths = read_metadata(root)
        self.keys = list(self._lengths)
        self.bench = self._first_bench()

    def _first_bench(self) -> str:
        for key in self.keys:
            about = read_about(self.path(key))
            if about is not None and about.bench is not None:
                return about.bench
        raise BadConfig(
            f"{self.root} cannot be scored: no episode names under 'about' the bench in which it was recorded."
        )

    def path(self, key: str) -> Path:
        """Return the JSON file of an episode."""
        return self.root / "data" / f"{key}.json"

    def read(self, key: str, *, index: int) -> DataSetEpisode:
        """Return an episode without its frames; every video is checked for its length.

        Raises:
            BrokenEpisode: If it is broken, or does not fit the bench that it names.
        """
        track = read_track(self.root, key)
        check_against(track, self._lengths[key], videos=True)
        return _read(track, index)

    def read_without_videos(self, key: str, *, index: int) -> DataSetEpisode:
        """Return an episode whose videos are not checked; errors as in `read`."""
        return _read(read_track(self.root, key), index)


@dataclass(frozen=True, kw_only=True, eq=False)
class DataSetEpisode:
    """An episode of a data set and the env in which it was recorded.

    Attributes:
        episode: What its `about` says.
        env: Spec of the bench that it names.
        track: States, actions and where the videos lie; cameras in the env's order.
        axes: Rotations between the frames of the bench and those of the data set.
    """

    episode: Episode
    env: EnvSpec
    track: Track
    axes: Axes = SAME_AXES

    @cached_property
    def proprio(self) -> np.ndarray:
        """Return the states, N,16 float32, in the frames of the bench."""
        return self.axes.sim_from_model(self.track.proprio, self.track.arms).astype(np.float32)

    def chunks(self, policy: PolicySpec) -> Iterator[RecordedChunk]:
        """Yield the episode in chunks of the policy's length; the last one is what remains.

        Raises:
            BrokenEpisode: If a frame cannot be read.
        """
        last, stride = self.track.num_frames - 1, policy.frame_stride
        for chunk_idx, start in enumerate(range(0, last, policy.chunk_len)):
            horizon = min(policy.num_future_frames * stride, last - start)
            frames = self._frames([start, *range(start + stride, start + horizon + 1, stride)])
            executed, actions = min(policy.chunk_len, last - start), self.track.executed
            chunk = ClipChunk(
                chunk_idx=chunk_idx,
                step_idx=start,
                num_executed=executed,
                frame_stride=stride,
                intrinsics_v33_px=np.stack([_matrix(camera.intrinsics, 3) for camera in self.track.cameras]),
                start=_part(frames, slice(0, 1)),
                true=_part(frames, slice(1, None)),
                predicted=None,
                actions_nd=None if actions is None else actions[start : start + executed],
            )
            past = [start - policy.chunk_len + offset for offset in past_offsets(policy, policy.chunk_len)[:-1]]
            between = list(self._rgb(past)) if past and start else []
            yield RecordedChunk(chunk, self._problems(len(chunk.true.rgb_fvhwc_u8)), between)

    def _rgb(self, steps: Sequence[int]) -> np.ndarray:
        """Return the images of some steps, F,V,H,W,3 uint8."""
        shape = (*self.env.image_hw_px, 3)
        views = [self._read(camera.rgb_path, camera.start, steps, "rgb24", shape) for camera in self.track.cameras]
        return np.stack(views, axis=1)

    def _frames(self, steps: Sequence[int]) -> Frames:
        cameras, hw_px = self.track.cameras, self.env.image_hw_px
        depth_mm = [
            np.zeros((len(steps), *hw_px), np.uint16)
            if camera.depth_mm_path is None
            else self._read(camera.depth_mm_path, camera.start, steps, "gray16le", hw_px)
            for camera in cameras
        ]
        poses = [self._poses(spec, camera, steps) for spec, camera in zip(self.env.cameras, cameras, strict=True)]
        return Frames(
            rgb_fvhwc_u8=self._rgb(steps),
            depth_fvhw_m=depth_m_from_mm(np.stack(depth_mm, axis=1)),
            proprio_fd=self.proprio[list(steps)],
            T_base_cam_fv44=np.stack(poses, axis=1),
        )

    def _read(
        self, path: Path, first: int, steps: Sequence[int], pixels: PixelFormat, shape: tuple[int, ...]
    ) -> np.ndarray:
        try:
            frames = read_frames(path, [first + step for step in steps], pixels)
        except UnreadableVideo as error:
            raise BrokenEpisode(f"{self.track.key}: {error}") from error
        if frames.shape[1:] != shape:
            raise BrokenEpisode(
                f"{self.track.key}: {path} holds frames of {frames.shape[1:]}, {self.env.env_id} gives {shape}."
            )
        return frames

    def _poses(self, spec: CameraSpec, camera: Camera, steps: Sequence[int]) -> np.ndarray:
        """Return the poses of a camera in the base of the bench, F,4,4; NaN where they are unknown."""
        if spec.arm is None or spec.T_ee_cam is None:
            return np.broadcast_to(self.axes.base_to_sim(_matrix(camera.T_base_cam, 4)), (len(steps), 4, 4))
        states = self.proprio[list(steps), ARM_PROPRIO[spec.arm]]
        return np.stack([ee_pose_from_proprio(state) @ np.asarray(spec.T_ee_cam) for state in states])

    def _problems(self, num_frames: int) -> Problems:
        views = [idx for idx, camera in enumerate(self.track.cameras) if camera.depth_mm_path is None]
        missing = Measure(None, "unavailable", "the data set holds no depth in millimetres for this view")
        return {ImageKey("depth", frame_idx, view): missing for frame_idx in range(num_frames) for view in views}


def task_and_index(key: str) -> tuple[str, int]:
    """Return the folder and the number of an episode, which name it until its file is read.

    Example:
        >>> task_and_index("chunk-0001/episode_0001234")
        ('chunk-0001', 1234)
    """
    digits = Path(key).name.rpartition("_")[2]
    return Path(key).parent.name, int(digits) if digits.isdecimal() else 0


def _read(track: Track, index: int) -> DataSetEpisode:
    episode, env, axes = _episode_and_env(track, index)
    return DataSetEpisode(episode=episode, env=env, track=track, axes=axes)


def _episode_and_env(track: Track, index: int) -> tuple[Episode, EnvSpec, Axes]:
    """Return what was recorded, the spec of the env in which it was, and the axes of its frames.

    Raises:
        BrokenEpisode: If the episode names no bench and task, or its cameras or arms are not those of the env.
    """
    about = track.about
    if about.bench is None or about.task is None:
        raise BrokenEpisode(f"{track.key}: 'about' does not name the bench and task that it was recorded in.")
    try:
        bench = plugins.load_bench(about.bench)
        setting = bench.settings[0] if about.setting is None else about.setting
        env: EnvSpec = bench.env_spec(bench.config_type(), task=about.task, setting=setting)
        axes: Axes = bench.dataset_axes() if isinstance(bench, DataSetBench) else SAME_AXES
    except (LookupError, TypeError, AttributeError, ValueError, EvalkitError) as error:
        raise BrokenEpisode(
            f"{track.key} does not fit bench '{about.bench}': {type(error).__name__}: {error}"
        ) from error
    kinds, expected = [camera.kind for camera in track.cameras], [CAMERA_KINDS[camera.kind] for camera in env.cameras]
    if kinds != expected:
        raise BrokenEpisode(f"{track.key}: its views are {kinds}, those of {env.env_id} {expected}.")
    if set(track.arms) != set(env.arms):
        raise BrokenEpisode(f"{track.key}: its arms are {track.arms}, those of {env.env_id} {env.arms}.")
    for name, camera in zip((spec.name for spec in env.cameras), track.cameras, strict=True):
        if abs(camera.fps - env.control_hz) > RATE_TOLERANCE * env.control_hz:
            raise BrokenEpisode(
                f"{track.key}: the video of {name} has {camera.fps:g} frames per second, {env.env_id} takes "
                f"{env.control_hz:g} steps per second, so that its frames would be compared with other moments."
            )
    episode = Episode(
        bench=about.bench,
        setting=setting,
        protocol="recorded",
        task=about.task,
        index=index,
        seed=about.seed or 0,
        instruction=track.instructions[0],
        max_steps=track.num_frames,
    )
    return episode, env, axes


def _matrix(rows: Sequence[Sequence[float]] | None, size: int) -> np.ndarray:
    """Return a camera's matrix; NaN where it is unknown."""
    return np.full((size, size), np.nan) if rows is None else np.asarray(rows, np.float64)


def _part(frames: Frames, which: slice) -> Frames:
    return Frames(**{name: values[which] for name, values in vars(frames).items()})
