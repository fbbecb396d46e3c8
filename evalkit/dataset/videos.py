"""Reads frames of video files, and writes frames as lossless video files, with PyAV.

In: a path and frame numbers; or arrays. Out: arrays; or a file.
Read next: `video_timeline.py` for the numbers of frames, `video_pixels.py` for their colours; `layout.py`, which lists
the files of a data set.

Letters: F frames, H W rows and columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import av
import numpy as np
from av.container import InputContainer

from evalkit.contracts.errors import EvalkitError
from evalkit.contracts.files import whole_file
from evalkit.contracts.text import count_of
from evalkit.dataset.video_pixels import PixelFormat, UnreadablePixels, colour_notes, colour_of, orientation, to_array
from evalkit.dataset.video_timeline import Timeline, read_timeline

KEYFRAME_EVERY = 8
"""Frames from one keyframe to the next. Decoding begins at a keyframe, and a clip may start anywhere."""

Stored = Literal["rgb24", "gray16le"]
"""Pixel formats of the lossless videos that are written."""


class Encoding(NamedTuple):
    """How a video is written: encoder, container, frames from one keyframe to the next, options, pixel format."""

    codec: str
    container: str
    keyframe_every: int
    options: Mapping[str, str]
    pix_fmt: str


_LOSSLESS: dict[Stored, Encoding] = {
    "rgb24": Encoding(
        "libx264rgb", "mp4", KEYFRAME_EVERY, {"crf": "0", "preset": "veryfast", "bf": "0", "threads": "1"}, "rgb24"
    ),
    "gray16le": Encoding("ffv1", "matroska", KEYFRAME_EVERY, {"level": "3", "threads": "1"}, "gray16le"),
}

SAME_FPS_FRAC = 0.01
"""Rates that differ by no more than this share are the same."""

LOSSLESS_CODECS = ("ffv1", "huffyuv", "ffvhuff", "png", "rawvideo", "utvideo", "magicyuv", "qtrle")
"""Codecs that never change a value. H.264, HEVC, VP9 and AV1 can be lossless too, but their files do not say so."""


VideoNotes = dict[str, dict[Path, None]]
"""What a reader should know about videos: sentences, and the files to which each applies, in order."""


class UnreadableVideo(EvalkitError, ValueError):
    """A video that is missing, cut off, too short or not understood; the message names it."""


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """Facts about a video.

    Attributes:
        num_frames: Frames that it shows.
        hw_px: Rows and columns of its images, turned as the file asks.
        fps: Mean frames per second. None if the file does not tell.
        first_uneven: First frame that comes out of step with a constant rate. None if none does.
        times_s: F seconds, the times of the frames in the file; NaN if it does not state them.
        codec: Its codec, for example `h264`.
        pix_fmt: FFmpeg's name of its pixel format.
        bits: Bits of a value.
        is_grey: Whether a pixel has one value.
        matrix: Matrix of its colours; None if it is not YUV.
        full_range: Whether its values run from 0 to the largest one.
        is_turned: Whether the file asks to turn its images.
        notes: What a reader should know before use, one sentence each.
    """

    num_frames: int
    hw_px: tuple[int, int]
    fps: Fraction | None
    first_uneven: int | None
    times_s: np.ndarray = field(compare=False, repr=False)
    codec: str
    pix_fmt: str
    bits: int
    is_grey: bool
    matrix: str | None
    full_range: bool
    is_turned: bool
    notes: tuple[str, ...]

    @property
    def is_vfr(self) -> bool:
        """Return whether frames come at a variable rate."""
        return self.first_uneven is not None

    def notes_at(self, fps: float) -> tuple[str, ...]:
        """Return the notes; another one if the video does not show `fps` frames per second."""
        if self.fps is None or self.is_vfr or abs(float(self.fps) / fps - 1) <= SAME_FPS_FRAC:
            return self.notes
        note = f"It shows {float(self.fps):g} frames per second, {fps:g} are stated; frames are taken in order."
        return (*self.notes, note)

    @property
    def is_lossless(self) -> bool:
        """Return whether the codec never changes a value; False where the file does not say."""
        return self.codec in LOSSLESS_CODECS


def probe(path: Path) -> VideoInfo:
    """Return facts about a video; only its first frame is decoded.

    Raises:
        UnreadableVideo: If it cannot be opened, is cut off, or its pixels are not understood.
    """
    timeline = _timeline(path)
    with _opened(path) as container:
        if timeline.cut_off:
            raise UnreadableVideo(_cut_off(timeline))
        stream = container.streams.video[0]
        frame = next(container.decode(stream), None)
        if frame is None:
            raise UnreadableVideo("no frame decodes")
        turn, colour, rate = orientation(frame), colour_of(frame), timeline.rate()
        hw_px = (frame.width, frame.height) if turn is not None and turn.transposed else (frame.height, frame.width)
        ratio = stream.sample_aspect_ratio
        notes = list(colour_notes(frame, transfer=int(stream.codec_context.color_trc)))
        if (num_streams := len(container.streams.video)) > 1:
            notes.append(f"It holds {num_streams} video streams; the first one is read.")
        if turn is not None:
            notes.append("It asks to be turned or mirrored, and is.")
        if ratio not in (None, 0, 1):
            notes.append(f"Its pixels are {ratio} times as wide as high; they are read as they are.")
        if rate.first_uneven is not None:
            gap_s = float(np.diff(timeline.times_s)[rate.first_uneven - 1])
            notes.append(
                f"Its rate varies: frame {rate.first_uneven} comes {gap_s:.4f} s after the one before, "
                f"{float(np.median(np.diff(timeline.times_s))):.4f} s is usual."
            )
        return VideoInfo(
            num_frames=timeline.num_frames,
            hw_px=hw_px,
            fps=rate.fps,
            first_uneven=rate.first_uneven,
            times_s=timeline.times_s,
            codec=stream.codec_context.codec.canonical_name,
            pix_fmt=frame.format.name,
            bits=max(part.bits for part in frame.format.components),
            is_grey=frame.format.name.startswith("gray"),
            matrix=None if colour is None else colour.matrix,
            full_range=colour is None or colour.full_range,
            is_turned=turn is not None,
            notes=tuple(notes),
        )


def described(notes: VideoNotes) -> tuple[str, ...]:
    """Return each note with its first video and the number of the others.

    Example:
        >>> described({"It is interlaced.": {Path("a.mp4"): None, Path("b.mp4"): None}})
        ('a.mp4 (and 1 other video): It is interlaced.',)
    """
    sentences = []
    for note, (first, *others) in notes.items():
        also = f" (and {count_of(len(others), 'other video')})" if others else ""
        sentences.append(f"{first}{also}: {note}")
    return tuple(sentences)


def decode(path: Path, wanted: range) -> None:
    """Raise UnreadableVideo unless all frames decode without an error that the codec notices.

    H.264 notices most damage within a frame, FFV1 all of it, by its checksums. HEVC, VP9 and AV1 have none.

    Raises:
        UnreadableVideo: If a frame does not decode.
    """
    timeline = _timeline(path)
    _check_numbers(path, timeline, wanted)
    start = timeline.start_for(wanted.start)
    damage = _damage(path, timeline, wanted, start)
    if damage and start is not None:  # what precedes a keyframe may be needed after it, and is not damage
        damage = _damage(path, timeline, wanted, None)
    if damage:
        raise UnreadableVideo(damage)


def _damage(path: Path, timeline: Timeline, wanted: range, start: int | None) -> str | None:
    """Return what a codec notices when it decodes frames from the keyframe of time `start` on; None if nothing."""
    num_decoded = 0
    try:
        with _reported_errors() as errors, _opened(path, strict=True) as container:
            for index, frame in _decoded(container, timeline, start):
                if frame.is_corrupt:
                    return f"{path} is broken: frame {index} is damaged."
                num_decoded += index in wanted
                if index == wanted.stop - 1:
                    break
    except UnreadableVideo as error:
        return str(error)
    if errors:
        return f"{path} is missing or broken: {errors[0][2].strip()}."
    lost = len(wanted) - num_decoded
    return f"{path} is broken: {lost} of {len(wanted)} frames do not decode." if lost else None


@contextmanager
def _reported_errors() -> Iterator[list[tuple[int, str, str]]]:
    """Collect the errors that codecs report and then conceal, as (level, codec, message)."""
    level = av.logging.get_level()
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture() as errors:
            yield errors
    finally:
        av.logging.set_level(level)


def frames_in_order(path: Path, pixels: PixelFormat = "rgb24") -> Iterator[np.ndarray]:
    """Yield all frames of a video in order of presentation, H,W,3 uint8 or H,W uint16, one at a time.

    Raises:
        UnreadableVideo: Where a frame does not decode or the file is cut off, after the frames before it.
    """
    timeline, num_decoded = _timeline(path), 0
    with _opened(path) as container:
        codec = container.streams.video[0].codec_context.codec.canonical_name
        for index, frame in _decoded(container, timeline, None):
            if frame.is_corrupt:
                raise UnreadableVideo(f"frame {index} is damaged")
            yield to_array(frame, pixels, codec=codec)
            num_decoded += 1
        if timeline.cut_off:
            raise UnreadableVideo(_cut_off(timeline))
        if num_decoded < timeline.num_frames:
            raise UnreadableVideo(f"{timeline.num_frames - num_decoded} of {timeline.num_frames} frames do not decode")


def read_frames(path: Path, wanted: Sequence[int], pixels: PixelFormat = "rgb24") -> np.ndarray:
    """Return frames, F,H,W,3 uint8 or F,H,W uint16, in the order of their numbers in `wanted`.

    Args:
        path: The video.
        wanted: Frame numbers from 0, in order of presentation; a number may occur twice.
        pixels: 8-bit RGB, or the numbers of a grey video as they are stored.

    Raises:
        UnreadableVideo: If the video ends before the last of them, or cannot be decoded.
    """
    timeline = _timeline(path)
    needed = sorted(set(wanted))
    _check_numbers(path, timeline, needed)
    images = _read(path, timeline, needed, pixels, start=timeline.start_for(needed[0]))
    if len(images) < len(needed):  # some files decode from their start only
        images = _read(path, timeline, needed, pixels, start=None)
    if missing := [one for one in needed if one not in images]:
        raise UnreadableVideo(f"{path} is broken: frame {missing[0]} of {timeline.num_frames} is damaged.")
    if len(sizes := {images[index].shape[:2] for index in needed}) > 1:
        raise UnreadableVideo(f"{path} has images of several sizes: {' and '.join(map(str, sorted(sizes)))}.")
    return np.stack([images[index] for index in wanted])


def _read(
    path: Path, timeline: Timeline, needed: Sequence[int], pixels: PixelFormat, *, start: int | None
) -> dict[int, np.ndarray]:
    """Return the needed frames that decoding from the keyframe of time `start` gives, by number."""
    images, left = dict[int, np.ndarray](), set(needed)
    with _opened(path) as container:
        codec = container.streams.video[0].codec_context.codec.canonical_name
        for index, frame in _decoded(container, timeline, start):
            if index in left and not frame.is_corrupt:
                images[index] = to_array(frame, pixels, codec=codec)
                left.remove(index)
            if not left:
                break
    return images


def _decoded(container: InputContainer, timeline: Timeline, start: int | None) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yield the frames of a video with their numbers, from the keyframe of time `start` on, as far as it is whole."""
    stream = container.streams.video[0]
    if start is not None:
        container.seek(start, stream=stream)
    count = 0
    for number, packet in enumerate(container.demux(stream)):
        if packet.is_corrupt or (number == 0 and start is not None and (packet.pts is None or packet.pts > start)):
            return  # the file ends here, or seeking went too far
        for frame in packet.decode():
            index = count if timeline.is_counted else timeline.index_of(frame.pts)
            count += 1
            if index is not None and (start is None or timeline.ticks[index] >= start):
                yield index, frame


def _check_numbers(path: Path, timeline: Timeline, needed: Sequence[int]) -> None:
    """Raise UnreadableVideo if a frame is not in the video; `needed` is sorted."""
    if needed[0] < 0 or needed[-1] >= timeline.num_frames:
        absent = needed[0] if needed[0] < 0 else next(one for one in needed if one >= timeline.num_frames)
        ending = f"; {_cut_off(timeline)}" if timeline.cut_off else ""
        raise UnreadableVideo(f"{path} has no frame {absent}; it holds {timeline.num_frames} frames{ending}.")


def _cut_off(timeline: Timeline) -> str:
    listed = f" of {timeline.num_listed}" if timeline.num_listed else ""
    return f"the video is cut off after {timeline.num_frames}{listed} frames"


@contextmanager
def _opened(path: Path, *, strict: bool = False) -> Iterator[InputContainer]:
    """Open a video; turn every error of PyAV into UnreadableVideo, which names the file."""
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise UnreadableVideo("its codec is unknown here")
            stream.thread_type = "NONE"
            stream.codec_context.options = {"err_detect": "explode"} if strict else {}
            yield container
    except UnreadablePixels as error:
        raise UnreadableVideo(f"{path}: {error}.") from error
    except (OSError, av.FFmpegError, IndexError, UnreadableVideo) as error:
        raise UnreadableVideo(f"{path} is missing or broken: {error}.") from error


def _timeline(path: Path) -> Timeline:
    """Return the timeline of a video; read once as long as the file stays the same."""
    try:
        stat = path.stat()
    except OSError as error:
        raise UnreadableVideo(f"{path} is missing or broken: {error}.") from error
    return _timeline_of(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _timeline_of(path: Path, num_bytes: int, changed_ns: int) -> Timeline:
    timeline = read_timeline(lambda: _opened(path))
    if timeline.num_frames == 0:
        raise UnreadableVideo(f"{path} is missing or broken: it holds no whole frame.")
    return timeline


def write_video(path: Path, frames: np.ndarray, *, fps: float) -> None:
    """Write frames without loss, whole or not at all: F,H,W,3 uint8 as H.264 of RGB (mp4), F,H,W uint16 as FFV1 (mkv).

    Raises:
        ValueError: If the frames have another shape or type, there is none, or the encoder does not take their size.
    """
    formats: dict[tuple[int, Any], Stored] = {
        (4, np.dtype(np.uint8)): "rgb24",
        (3, np.dtype(np.uint16)): "gray16le",
    }
    stored = formats.get((frames.ndim, frames.dtype))
    if stored is None or len(frames) == 0:
        raise ValueError(f"A video needs F,H,W,3 uint8 or F,H,W uint16, got {frames.shape} {frames.dtype}.")
    encode(path, (_frame_of(frame, stored) for frame in frames), _LOSSLESS[stored], hw_px=frames.shape[1:3], fps=fps)


def encode(
    path: Path, images: Iterable[av.VideoFrame], encoding: Encoding, *, hw_px: tuple[int, ...], fps: float
) -> None:
    """Write images in the encoding's pixel format, whole or not at all.

    Raises:
        ValueError: If the encoder does not take their size.
    """
    with whole_file(path) as partial, av.open(str(partial), "w", format=encoding.container) as container:
        rate = Fraction(fps).limit_denominator(1000)
        stream: Any = container.add_stream(encoding.codec, rate=rate, options=dict(encoding.options))
        stream.height, stream.width = hw_px
        stream.pix_fmt, stream.codec_context.gop_size = encoding.pix_fmt, encoding.keyframe_every
        try:
            stream.codec_context.open()
        except (av.FFmpegError, ValueError) as error:
            rows, columns = hw_px
            raise ValueError(
                f"{path}: {encoding.codec} does not encode images of {rows} x {columns} pixels."
            ) from error
        for image in images:
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))


def _frame_of(values: np.ndarray, stored: Stored) -> av.VideoFrame:
    """Return a frame that holds the values as they are."""
    if stored == "rgb24":
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(values), format=stored)
    frame = av.VideoFrame(values.shape[1], values.shape[0], stored)
    lines = np.zeros((values.shape[0], frame.planes[0].line_size // 2), "<u2")
    lines[:, : values.shape[1]] = values
    frame.planes[0].update(lines.tobytes())
    return frame
