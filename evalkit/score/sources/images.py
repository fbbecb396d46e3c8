"""Frames of one view from images, a video or arrays, a few at a time.

In: a `Stream` of files, and the numbers of the frames to read. Out: frames in that order; each is an array, or the
reason why it cannot be read.
Read next: `clip_files.py`, which finds the streams; `array_files.py`, for `.npy` and `.npz`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from evalkit.dataset.videos import UnreadableVideo, VideoInfo, frames_in_order, probe
from evalkit.score.results.outcome import Measure, Modality
from evalkit.score.sources.array_files import array_frames, list_arrays
from evalkit.score.sources.clip_files import Stream

Frame = np.ndarray | Measure
"""H,W,3 uint8 or H,W metres; or why it cannot be read."""

FLAGS: dict[Modality, int] = {
    "rgb": cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION,
    "depth": cv2.IMREAD_UNCHANGED,
}
"""How images are decoded: without rotation and without loss of bits."""


@dataclass(frozen=True, kw_only=True)
class DepthUnits:
    """Stored units per metre, for files of integers and for files of floating point."""

    integer_per_m: float = 1000.0
    floating_per_m: float = 1.0


@dataclass(frozen=True, kw_only=True)
class StreamInfo:
    """What is known about a stream before it is scored.

    Attributes:
        numbers: Of its frames: as the files are named, else 0, 1, 2, ...
        named: Whether file names hold the numbers.
        hw_px: Size of the first frame; None if it cannot be read.
        stored: Type of the stored values, for example `uint16`.
        fps: Frames per second, as a video states it; None for other files.
        uneven_from: First frame of a video that comes out of step with a constant rate, or None.
        problem: Why it cannot be read; empty if it can.
    """

    numbers: tuple[int, ...]
    named: bool
    hw_px: tuple[int, int] | None
    stored: str
    fps: Fraction | None = None
    uneven_from: int | None = None
    problem: str = ""


class View:
    """The frames of one view, read in order.

    Attributes:
        exists: Whether there is anything to read.
    """

    def __init__(self, frames: Iterator[Frame] | None) -> None:
        self.exists = frames is not None
        self._frames = iter(()) if frames is None else frames

    def take(self, count: int) -> list[Frame]:
        """Return the next frames, fewer where the view ends."""
        return list(islice(self._frames, count))


def open_view(
    stream: Stream | None,
    modality: Modality,
    numbers: Sequence[int | None],
    *,
    units: DepthUnits | None = None,
    resize: Callable[[np.ndarray], np.ndarray] | None = None,
) -> View:
    """Return the frames of a stream with the given numbers, in ascending order; None gives a missing frame.

    Args:
        stream: The files; None for a view that exists on the other side alone.
        modality: RGB or depth.
        numbers: As in `StreamInfo.numbers`.
        units: Of stored depth.
        resize: Applied to every frame that could be read.
    """
    if stream is None:
        return View(None)
    stored = _stored_frames(stream, modality, numbers)
    return View(_finished(frame, modality, stream, units or DepthUnits(), resize) for frame in stored)


def copy_frame(target: np.ndarray, frame: Frame) -> Measure | None:
    """Copy one frame into an array; return why that is impossible, or None."""
    if isinstance(frame, Measure):
        return frame
    if frame.shape != target.shape:
        reason = f"expected {target.shape}, got {frame.shape}; --resize pred or --resize gt scales one side"
        return Measure(None, "wrong_size", reason)
    target[...] = frame
    return None


def inspect(stream: Stream, modality: Modality, *, is_mask: bool = False) -> StreamInfo:
    """Return what is known about a stream: numbers, size, stored type and rate; at most one frame is decoded.

    Args:
        stream: The files.
        modality: RGB or depth; a mask is read like depth.
        is_mask: Any values will do.
    """
    if problem := stream.problem or (stream.array.problem if stream.array is not None else ""):
        return StreamInfo(numbers=(), named=False, hw_px=None, stored="", problem=problem)
    numbers = stream.numbers or (0,)
    video: VideoInfo | None = None
    if stream.kind == "video":
        count, video = _video_facts(stream.paths[0])
        numbers = tuple(range(count))
    elif stream.kind == "array" and stream.array is not None:
        numbers = tuple(range(stream.array.num_frames))
    nothing = Measure(None, "unreadable", f"{stream.paths[0]} holds no frame that can be decoded; it may be cut off")
    first = next(iter(_stored_frames(stream, modality, numbers[:1])), nothing)
    return StreamInfo(
        numbers=numbers,
        named=bool(stream.numbers),
        hw_px=(first.shape[0], first.shape[1]) if isinstance(first, np.ndarray) else None,
        stored=str(first.dtype) if isinstance(first, np.ndarray) else "",
        fps=None if video is None else video.fps,
        uneven_from=None if video is None else video.first_uneven,
        problem=_problem(first, None if is_mask else modality, stream),
    )


def _problem(first: Frame, modality: Modality | None, stream: Stream) -> str:
    """Return why a stream's first frame cannot be scored, or an empty text; without a modality any values will do."""
    finished = first if modality is None else _finished(first, modality, stream, DepthUnits(), None)
    return finished.reason if isinstance(finished, Measure) else ""


def read_masks(stream: Stream, numbers: Sequence[int | None]) -> Iterator[Frame]:
    """Yield masks, H,W bool: pixels that are not zero; or why one cannot be read."""
    for frame in _stored_frames(stream, "depth", numbers):
        if isinstance(frame, Measure):
            yield frame
        else:
            yield frame[..., :3].any(axis=-1) if frame.ndim == 3 else frame != 0  # opacity is no mask


def _stored_frames(stream: Stream, modality: Modality, numbers: Sequence[int | None]) -> Iterator[Frame]:
    """Yield frames as they are stored: colours as RGB, depth in stored units."""
    if stream.problem:
        yield from (Measure(None, "unreadable", f"{stream.paths[0].parent}: {stream.problem}") for _ in numbers)
    elif stream.kind in ("images", "arrays"):
        paths = dict(zip(stream.numbers or (0,), stream.paths, strict=True))
        for number in numbers:
            path = paths.get(number) if number is not None else None
            yield _missing(stream, number) if path is None else _one_frame(path, stream, modality)
    else:
        yield from _picked(stream, _whole_clip(stream, modality), numbers)


def _picked(stream: Stream, frames: Iterator[Frame], numbers: Sequence[int | None]) -> Iterator[Frame]:
    """Yield the frames of these numbers from all frames of a file; from a frame that cannot be read on, say so."""
    position, broken = -1, None
    for number in numbers:
        frame: Frame | None = broken
        while broken is None and number is not None and position < number:
            frame = next(frames, None)
            position += 1
            if frame is None:
                break
            if isinstance(frame, Measure):
                broken = frame
        yield _missing(stream, number) if frame is None or number is None else frame


def _missing(stream: Stream, number: int | None) -> Measure:
    where = stream.paths[0] if len(stream.paths) == 1 else stream.paths[0].parent
    which = "no frame for this time" if number is None else f"no frame {number}"
    return Measure(None, "missing_frame", f"{where} has {which}")


def _one_frame(path: Path, stream: Stream, modality: Modality) -> Frame:
    if stream.kind == "arrays" and stream.array is not None:
        [info] = [info for info in list_arrays(path, modality) if info.key == stream.array.key][:1] or [stream.array]
        return next(array_frames(path, info))
    if path.suffix.lower() != ".exr":
        return _image(path, modality)
    if modality == "rgb":
        return Measure(None, "unreadable", f"{path}: colours in .exr are linear light; write 8-bit PNGs")
    return _exr(path)


def _image(path: Path, modality: Modality) -> Frame:
    try:
        data = np.fromfile(path, np.uint8)
        is_whole = data.size > 0 and not _is_cut_off(path, data.tobytes())
        image = _decoded(data, modality) if is_whole else None
    except (OSError, cv2.error) as error:
        return Measure(None, "unreadable", f"{path}: {' '.join(str(error).split())}")
    if image is None:
        return Measure(None, "unreadable", f"{path} is broken or cut off")
    return image[..., 2::-1] if modality == "rgb" else image


def _decoded(data: np.ndarray, modality: Modality) -> np.ndarray | None:
    """Return an image, or None; OpenCV's own words about broken data would stand among the results."""
    level = cv2.setLogLevel(0)
    try:
        return cv2.imdecode(data, FLAGS[modality])
    finally:
        cv2.setLogLevel(level)


def _is_cut_off(path: Path, data: bytes) -> bool:
    """Return whether the end of an image is missing; decoders fill in what is lost, without a word."""
    ends = {".png": (b"IEND", 12), ".jpg": (b"\xff\xd9", 512), ".jpeg": (b"\xff\xd9", 512)}
    marker, reach = ends.get(path.suffix.lower(), (b"", 0))
    if path.suffix.lower() == ".webp":
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    return marker not in data[-reach:] if marker else False


def _exr(path: Path) -> Frame:
    try:
        import OpenEXR
    except ImportError:
        reason = f"{path}: an .exr file needs the package OpenEXR; run `pip install OpenEXR`"
        return Measure(None, "unavailable", reason)
    try:
        channels = OpenEXR.File(str(path), separate_channels=True).channels()
    except Exception as error:  # a broken file raises whatever its decoder raises
        return Measure(None, "unreadable", f"{path}: {type(error).__name__}: {error}")
    names = [name for name in ("Z", "depth", "Y", "R") if name in channels] or list(channels)
    if len(names) > 1 and names[0] not in ("Z", "depth", "Y", "R"):
        return Measure(None, "unreadable", f"{path} has the channels {', '.join(names)}; expected depth in Z or Y")
    return np.asarray(channels[names[0]].pixels)


def _whole_clip(stream: Stream, modality: Modality) -> Iterator[Frame]:
    path = stream.paths[0]
    if stream.kind == "video":
        return _video(path, modality)
    assert stream.array is not None
    return array_frames(path, stream.array)


def _video(path: Path, modality: Modality) -> Iterator[Frame]:
    try:
        if modality == "depth" and (fault := _depth_fault(probe(path))):
            yield Measure(None, "unreadable", f"{path}: {fault}")
        else:
            yield from frames_in_order(path, "rgb24" if modality == "rgb" else "gray16le")
    except UnreadableVideo as error:
        yield Measure(None, "unreadable", str(error))


def _depth_fault(info: VideoInfo) -> str:
    """Return why a video cannot hold depth; empty if it can."""
    if info.is_grey and info.bits > 8 and info.is_lossless:
        return ""
    return (
        f"depth needs a lossless grey video of 10 to 16 bits (ffv1, gray16le), found {info.codec} with pixel format "
        f"{info.pix_fmt}; write it so, or use PNGs or npz"
    )


def _video_facts(path: Path) -> tuple[int, VideoInfo | None]:
    """Return the number of frames that can be decoded, and what the file states; None if it is cut off."""
    try:
        info = probe(path)
        return info.num_frames, info
    except UnreadableVideo:
        return sum(not isinstance(frame, Measure) for frame in _video(path, "rgb")), None  # cut off


def _finished(
    frame: Frame,
    modality: Modality,
    stream: Stream,
    units: DepthUnits,
    resize: Callable[[np.ndarray], np.ndarray] | None,
) -> Frame:
    """Return a frame as it is scored: 8-bit colours, or depth in metres."""
    if isinstance(frame, Measure):
        return frame
    where = stream.paths[0]
    ready = _colours(frame, where) if modality == "rgb" else _metres(frame, where, units)
    return ready if resize is None or isinstance(ready, Measure) else resize(ready)


def _colours(image: np.ndarray, where: Path) -> Frame:
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind == "f" and np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1:
        return np.rint(image * 255).astype(np.uint8)
    expected = "expected 8 bits (0 to 255), or floating point from 0 to 1"
    return Measure(None, "unreadable", f"{where} has {image.dtype} colours {_range(image)}, {expected}")


def _range(image: np.ndarray) -> str:
    """Return the smallest and largest value of an image in words, and how many are no numbers.

    Example:
        >>> _range(np.array([-1.0, 1.0])), _range(np.array([0.0, np.nan, 0.5]))
        ('from -1 to 1', 'from 0 to 0.5 with 1 value that is not finite')
    """
    usable = image[np.isfinite(image)] if image.dtype.kind == "f" else image
    lost = image.size - usable.size
    values = f"from {usable.min():.6g} to {usable.max():.6g}" if usable.size else "without a finite value"
    others = f" with {lost} value{'s' * (lost > 1)} that {'are' if lost > 1 else 'is'} not finite"
    return values + (others if lost and usable.size else "")


def _metres(image: np.ndarray, where: Path, units: DepthUnits) -> Frame:
    if image.ndim != 2:
        reason = (
            f"{where} is not a depth image, but has the shape {image.shape}: a coloured view of depth has no metres"
        )
        return Measure(None, "unreadable", reason)
    if image.dtype.kind == "f":
        with np.errstate(over="ignore"):  # values too large for float32 become infinite and get a status
            metres = image.astype(np.float32)
            return metres if units.floating_per_m == 1 else metres / np.float32(units.floating_per_m)
    if image.dtype.kind not in "ui" or image.dtype.itemsize < 2:
        reason = f"{where} is not a uint16 depth image: {image.dtype} has too few steps for metres"
        return Measure(None, "unreadable", reason)
    return np.asarray(image.astype(np.float32) / np.float32(units.integer_per_m))
