"""Videos of an export: copied once per file and shared by episodes, or written again with a codec of choice.

In: cameras of episodes. Out: mp4 files, the place of each episode in them, and what `info.json` says about them.
Read next: `lerobot_export.py`, which writes the rest of the data set.

LeRobot finds a frame by its time: `from_timestamp` of the episode plus the time of the row, to 0.1 ms. A video whose
frames do not come at the control rate is therefore written again, without loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import av
import numpy as np

from evalkit.contracts.files import copy_whole
from evalkit.contracts.fingerprint import FileHashes
from evalkit.dataset.layout import DataSetError
from evalkit.dataset.lerobot_format import file_of
from evalkit.dataset.videos import Encoding, VideoInfo, encode, probe, read_frames

VideoCodec = Literal["copy", "hevc", "h264", "av1"]
"""Codecs of an export: as the source, or lossless HEVC of RGB, or H.264 or AV1 with loss."""

SAME_TIME_S = 5e-5
"""Largest distance of a frame from its row's time in a video that is copied; half of what LeRobot allows."""

LEROBOT_KEYFRAME_EVERY = 2
"""Frames from one keyframe to the next, as LeRobot writes."""

_ENCODINGS: dict[str, Encoding] = {
    codec: Encoding(encoder, "mp4", LEROBOT_KEYFRAME_EVERY, options, pix_fmt)
    for codec, encoder, pix_fmt, options in (
        ("hevc", "libx265", "gbrp", {"x265-params": "lossless=1:log-level=error", "tag": "hvc1"}),
        ("h264", "libx264", "yuv420p", {"crf": "12"}),
        ("av1", "libsvtav1", "yuv420p", {"crf": "18", "preset": "8"}),
    )
}

_STATED: dict[str, dict[str, Any]] = {
    "hevc": {"video.extra_options": {"x265-params": "lossless=1"}},
    "h264": {"video.crf": 12},
    "av1": {"video.crf": 18, "video.preset": 8},
}
"""What `info.json` states in addition, so that LeRobot's own tools write videos again in the same way."""


class Place(NamedTuple):
    """Where an episode's frames of one feature are: number of the file, time of the first frame in it."""

    number: int
    start_s: float


@dataclass(eq=False)
class ExportedVideos:
    """The video files of an export.

    Attributes:
        out: Folder of the export.
        codec: Codec of RGB videos.
        fps: Control rate.
        hashes: Hashes of files.
        infos: The first video of each feature.
    """

    out: Path
    codec: VideoCodec
    fps: float
    hashes: FileHashes
    infos: dict[str, VideoInfo] = field(default_factory=dict)
    _numbers: dict[str, dict[Any, int]] = field(default_factory=dict)

    def add(self, feature: str, path: Path, frames: range, *, is_depth: bool, write: bool) -> Place:
        """Place an episode's frames of one feature, and write their file unless it is there.

        Args:
            feature: Name of the feature.
            path: Source.
            frames: Frames of the episode in it.
            is_depth: Whether it is 8-bit depth, which a codec with loss would spoil.
            write: Whether to write; otherwise the file is known to be there.

        Raises:
            UnreadableVideo: If the source cannot be read.
            DataSetError: If its images have another size than those before.
        """
        info, codec = probe(path), self.codec
        if (codec == "copy" and not self._can_copy(path, info, frames)) or (is_depth and codec != "copy"):
            codec = "hevc"
        numbers = self._numbers.setdefault(feature, {})
        source = path if codec == "copy" else (path, frames.start, frames.stop)
        number = numbers.setdefault(source, len(numbers))
        target = self._path(feature, number)
        if write and codec != "copy":
            write_video_as(target, read_frames(path, frames), codec, fps=self.fps)
        elif write and not (target.is_file() and self.hashes.sha256(target) == self.hashes.sha256(path)):
            copy_whole(path, target)
        first = self.infos.setdefault(feature, info if codec == "copy" else probe(target))
        if first.hw_px != info.hw_px:
            raise DataSetError(
                f"All images of a LeRobot feature have the same size; {path} has {_size(info)}, and the first episode "
                f"has {_size(first)} ('{feature}')."
            )
        return Place(number, float(info.times_s[frames.start]) if codec == "copy" else 0.0)

    def counts(self) -> dict[str, int]:
        """Return the number of files of each feature."""
        return {feature: len(numbers) for feature, numbers in self._numbers.items()}

    def withdraw(self, counts: Mapping[str, int]) -> None:
        """Forget the files that were placed since `counts`, so that those of the next episode get their numbers."""
        self._numbers = {
            feature: dict(list(numbers.items())[: counts.get(feature, 0)]) for feature, numbers in self._numbers.items()
        }
        self.infos = {feature: info for feature, info in self.infos.items() if self._numbers.get(feature)}

    def paths(self) -> set[Path]:
        """Return the files of all episodes."""
        return {
            self._path(feature, number) for feature, numbers in self._numbers.items() for number in numbers.values()
        }

    def _path(self, feature: str, number: int) -> Path:
        return self.out / "videos" / feature / f"{file_of(number)}.mp4"

    def describe(self, feature: str) -> dict[str, Any]:
        """Return what `info.json` says about the videos of a feature."""
        info = self.infos[feature]
        rate = int(self.fps) if self.fps == int(self.fps) else self.fps
        lossless = info.codec == "hevc" and info.pix_fmt == "gbrp"
        stated = _STATED["hevc"] if lossless else _STATED.get(self.codec, {})
        return {
            "video.height": info.hw_px[0],
            "video.width": info.hw_px[1],
            "video.codec": info.codec,
            "video.pix_fmt": info.pix_fmt,
            "video.fps": rate,
            "video.channels": 1 if info.is_grey else 3,
            "is_depth_map": False,
            "has_audio": False,
            **stated,
        }

    def _can_copy(self, path: Path, info: VideoInfo, frames: range) -> bool:
        times_s = info.times_s[frames.start : frames.stop]
        if path.suffix != ".mp4" or info.is_turned or not np.isfinite(times_s).all():
            return False
        return bool(np.abs(times_s - times_s[0] - np.arange(len(times_s)) / self.fps).max() <= SAME_TIME_S)


def write_video_as(path: Path, frames: np.ndarray, codec: str, *, fps: float) -> None:
    """Write RGB frames, F,H,W,3 uint8, whole or not at all; sizes that 4:2:0 cannot hold are written in 4:4:4."""
    encoding, hw_px = _ENCODINGS[codec], frames.shape[1:3]
    if encoding.pix_fmt == "yuv420p" and any(side % 2 for side in hw_px):
        encoding = encoding._replace(pix_fmt="yuv444p")
    given = (av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24") for frame in frames)
    encode(path, (image.reformat(format=encoding.pix_fmt) for image in given), encoding, hw_px=hw_px, fps=fps)


def codec_named(name: str) -> VideoCodec:
    """Return a codec.

    Raises:
        DataSetError: If there is no such codec.
    """
    for codec in get_args(VideoCodec):
        if codec == name:
            return codec  # type: ignore[no-any-return]
    raise DataSetError(f"There is no video codec '{name}'; {', '.join(get_args(VideoCodec))} can be written.")


def _size(info: VideoInfo) -> str:
    return f"{info.hw_px[0]}x{info.hw_px[1]}"
