"""Reads frames of video files, and writes frames as lossless video files, with PyAV.

In: a path and frame numbers; or arrays. Out: arrays; or a file.
Read next: `layout.py`, which lists the files of a data set.

Letters: F frames, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple

import av
import numpy as np
from av.container import InputContainer

from evalkit.contracts.errors import EvalkitError
from evalkit.contracts.files import whole_file

KEYFRAME_EVERY = 8
"""Frames from one keyframe to the next. Decoding begins at a keyframe, and a clip may start anywhere."""

DECODED_AT_ONCE = 64
"""Frames that are in memory while a whole video is decoded."""

PixelFormat = Literal["rgb24", "gray16le"]

_CODECS: dict[PixelFormat, tuple[str, str, dict[str, str]]] = {
    "rgb24": ("libx264rgb", "mp4", {"crf": "0", "preset": "veryfast", "bf": "0", "threads": "1"}),
    "gray16le": ("ffv1", "matroska", {"level": "3", "threads": "1"}),
}


class UnreadableVideo(EvalkitError, ValueError):
    """A video that is missing, cut off or too short; the message names it."""


class VideoInfo(NamedTuple):
    """Number of frames of a video, and their rows and columns."""

    num_frames: int
    hw_px: tuple[int, int]


def probe(path: Path) -> VideoInfo:
    """Return the number and size of the frames in a video, without decoding them.

    Raises:
        UnreadableVideo: If it cannot be opened, or is cut off.
    """
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            count = sum(packet.size > 0 for packet in whole_packets(container))
            return VideoInfo(count, (stream.height, stream.width))
    except (OSError, av.FFmpegError, IndexError, UnreadableVideo) as error:
        raise UnreadableVideo(f"{path} is missing or broken: {error}.") from error


def decode_in_order(container: InputContainer) -> Iterator[av.VideoFrame]:
    """Yield the frames of a video in order, up to the point where its file is cut off.

    Raises:
        UnreadableVideo: If the file is cut off.
    """
    num_whole, num_listed = 0, container.streams.video[0].frames
    for packet in whole_packets(container):
        num_whole += packet.size > 0
        yield from packet.decode()
    if num_whole < num_listed:
        raise UnreadableVideo(f"the video is cut off after {num_whole} of {num_listed} frames")


def whole_packets(container: InputContainer) -> Iterator[av.Packet]:
    """Yield the packets of a video. Decoders fill in what a damaged packet lacks, often without a warning.

    Raises:
        UnreadableVideo: At a packet that is not whole, because the file is cut off.
    """
    num_whole = 0
    for packet in container.demux(container.streams.video[0]):
        if packet.is_corrupt:
            raise UnreadableVideo(f"the video is cut off after {num_whole} packets")
        num_whole += packet.size > 0
        yield packet


def decode(path: Path, wanted: range) -> None:
    """Raise UnreadableVideo unless all frames decode without an error that the codec notices.

    H.264 notices damage within a frame. FFV1, the codec of depth in millimetres, notices it only if it cannot go on.

    Raises:
        UnreadableVideo: If a frame does not decode.
    """
    pixels: PixelFormat = "gray16le" if path.suffix == ".mkv" else "rgb24"
    for first in range(wanted.start, wanted.stop, DECODED_AT_ONCE):
        read_frames(path, range(first, min(first + DECODED_AT_ONCE, wanted.stop)), pixels, strict=True)


def read_frames(
    path: Path, wanted: Sequence[int], pixels: PixelFormat = "rgb24", *, strict: bool = False
) -> np.ndarray:
    """Return frames, F,H,W,3 uint8 or F,H,W uint16, in the order of their numbers in `wanted`.

    Args:
        path: The video.
        wanted: Frame numbers from 0; a number may occur twice.
        pixels: Format of a pixel.
        strict: Whether to refuse damage that the codec could conceal.

    Raises:
        UnreadableVideo: If the video ends before the last of them, or cannot be decoded.
    """
    needed, images = set(wanted), dict[int, np.ndarray]()
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            stream.codec_context.options = {"err_detect": "explode"} if strict else {}
            step = 1 / ((stream.average_rate or stream.guessed_rate) * stream.time_base)  # type: ignore[operator]
            container.seek(int(min(needed) * step) + (stream.start_time or 0), stream=stream)
            frames = (frame for packet in whole_packets(container) for frame in packet.decode())
            for frame in frames:
                index = round((frame.pts - (stream.start_time or 0)) / step)  # type: ignore[operator]
                if index in needed:
                    images[index] = frame.to_ndarray(format=pixels)
                if len(images) == len(needed):
                    break
    except (OSError, av.FFmpegError, IndexError, UnreadableVideo) as error:
        raise UnreadableVideo(f"{path} is missing or broken: {error}.") from error
    if missing := needed - images.keys():
        raise UnreadableVideo(f"{path} has no frame {min(missing)}.")
    return np.stack([images[index] for index in wanted])


def write_video(path: Path, frames: np.ndarray, *, fps: float) -> None:
    """Write frames without loss, whole or not at all: F,H,W,3 uint8 as H.264 of RGB (mp4), F,H,W uint16 as FFV1 (mkv).

    Raises:
        ValueError: If the frames have another shape or type, or there is none.
    """
    formats: dict[tuple[int, Any], PixelFormat] = {
        (4, np.dtype(np.uint8)): "rgb24",
        (3, np.dtype(np.uint16)): "gray16le",
    }
    pixels = formats.get((frames.ndim, frames.dtype))
    if pixels is None or len(frames) == 0:
        raise ValueError(f"A video needs F,H,W,3 uint8 or F,H,W uint16, got {frames.shape} {frames.dtype}.")
    codec, container_format, options = _CODECS[pixels]
    with whole_file(path) as partial, av.open(str(partial), "w", format=container_format) as container:
        stream: Any = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000), options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.codec_context.gop_size = pixels, KEYFRAME_EVERY
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format=pixels)))
        container.mux(stream.encode(None))
