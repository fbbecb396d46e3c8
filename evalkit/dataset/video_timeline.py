"""The frames of a video in order of presentation, and where decoding begins for each of them.

In: a video. Out: the time of every frame that it shows, and its keyframes.
Read next: `videos.py`, which reads frames by their numbers.

The number of a frame is its place in order of presentation, whatever the rate. Frames that an edit list hides do not
count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

HIDDEN_FRAMES = ("vp8",)
"""Codecs with packets that give no image."""

DECODING_ORDER = ("avi",)
"""Containers that number packets in order of decoding, which the times of packets then follow."""

OpenVideo = Callable[[], AbstractContextManager[InputContainer]]
"""Opens a video at its start."""

UNEVEN_FRAC = 0.1
"""A frame may be this share of a frame's time away from a constant rate."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Timeline:
    """When a video shows its frames.

    Attributes:
        ticks: F, sorted, times in units of `tick_s`. Only their number counts if `is_counted`.
        keyframe_ticks: Sorted times of the frames at which decoding can begin.
        tick_s: Seconds.
        is_counted: Whether times are missing or occur twice, so that only counting from the start finds a frame.
        stated_fps: Frames per second that the file states; None if it does not.
        cut_off: Whether the file ends before its own list or length says; `ticks` then holds the frames before that.
        num_listed: Frames that the file says it holds; 0 if it does not.
    """

    ticks: np.ndarray
    keyframe_ticks: np.ndarray
    tick_s: Fraction
    is_counted: bool
    stated_fps: Fraction | None
    cut_off: bool
    num_listed: int
    _index: dict[int, int] = field(default_factory=dict, repr=False)

    @property
    def num_frames(self) -> int:
        """Return how many frames the video shows."""
        return len(self.ticks)

    @property
    def times_s(self) -> np.ndarray:
        """Return the times of the frames, F float64 seconds; NaN if the file does not state them."""
        if self.is_counted:
            return np.full(self.num_frames, np.nan)
        return self.ticks * float(self.tick_s)

    def index_of(self, tick: int | None) -> int | None:
        """Return the number of the frame of a time; None if there is none."""
        if not self._index:
            self._index.update((int(one), index) for index, one in enumerate(self.ticks))
        return None if tick is None else self._index.get(tick)

    def start_for(self, index: int) -> int | None:
        """Return the time of the keyframe at which decoding must begin to give a frame; None for the file's start.

        A keyframe that is shown after the frame is of no use: frames before it may need the ones before it as well.
        """
        if self.is_counted:
            return None
        place = int(np.searchsorted(self.keyframe_ticks, self.ticks[index], side="right")) - 1
        return int(self.keyframe_ticks[place]) if place > 0 else None

    def rate(self) -> Rate:
        """Return the frames per second, and whether they come at a constant rate."""
        if self.is_counted or self.num_frames < 2:
            return Rate(self.stated_fps, None)
        span_s = int(self.ticks[-1] - self.ticks[0]) * self.tick_s
        mean, stated, tick_s = (self.num_frames - 1) / span_s, self.stated_fps, float(self.tick_s)
        off_s = np.abs((self.ticks - self.ticks[0]) * tick_s - np.linspace(0, float(span_s), self.num_frames))
        if off_s.max() > max(1.5 * tick_s, UNEVEN_FRAC / float(mean)):
            return Rate(mean, self._first_uneven())
        rounding_s = 1.5 * tick_s  # times are whole ticks, so that a mean rate is not exact
        if stated is not None and abs((self.num_frames - 1) / float(stated) - float(span_s)) <= rounding_s:
            return Rate(stated, None)
        return Rate(mean, None)

    def _first_uneven(self) -> int:
        """Return the first frame whose distance from the one before is not the usual one."""
        steps = np.diff(self.ticks)
        usual = np.median(steps)
        return int(np.argmax(np.abs(steps - usual) > max(1.5, UNEVEN_FRAC * usual))) + 1


class Rate(NamedTuple):
    """Frames per second (mean; None if unknown), and the first frame that comes out of step (None if none does)."""

    fps: Fraction | None
    first_uneven: int | None


def read_timeline(open_video: OpenVideo) -> Timeline:
    """Return the timeline of a video, without decoding it where its packets tell it.

    Args:
        open_video: Opens the video at its start.

    Raises:
        av.FFmpegError: If it cannot be read.
    """
    packets, num_packets, corrupt = list[_Packet](), 0, False
    with open_video() as container:
        stream = container.streams.video[0]
        for packet in container.demux(stream):
            if corrupt := packet.is_corrupt:
                break
            num_packets += packet.size > 0
            if packet.size > 0 and not packet.is_discard:
                packets.append(_Packet(packet.pts, packet.is_keyframe, packet.duration or 0))
        ends_s, codec = _stated_end_s(stream), stream.codec_context.codec.canonical_name
        in_order = container.format.name not in DECODING_ORDER
        tick_s, stated_fps, num_listed = stream.time_base or Fraction(1), stream.average_rate, stream.frames
    counted = any(packet.pts is None for packet in packets)
    cut_off = corrupt or ((num_listed == 0 or num_packets < num_listed) and _ends_before(packets, ends_s, tick_s))
    ticks: list[Any] = [packet.pts for packet in packets]
    if not cut_off and not (in_order and _tells_all(packets, codec)):
        ticks, counted = _decoded_ticks(open_video)
    keyframes = [] if counted else [packet.pts for packet in packets if packet.is_keyframe]
    return Timeline(
        ticks=np.arange(len(ticks)) if counted else np.array(sorted(ticks), np.int64),
        keyframe_ticks=np.array(sorted(keyframes), np.int64),
        tick_s=tick_s,
        is_counted=counted,
        stated_fps=stated_fps,
        cut_off=cut_off,
        num_listed=num_listed,
    )


class _Packet(NamedTuple):
    pts: Any
    is_keyframe: bool
    num_ticks: int


def _stated_end_s(stream: VideoStream) -> Fraction | None:
    """Return the time at which the file says that the video ends; None if it does not."""
    if stream.duration is not None and stream.time_base is not None:
        return stream.duration * stream.time_base
    clock = stream.metadata.get("DURATION", "").split(":")  # Matroska: 00:00:04.000000000
    try:
        hours, minutes, seconds = (Fraction(part) for part in clock)
    except ValueError:
        return None
    return 3600 * hours + 60 * minutes + seconds


def _ends_before(packets: Sequence[_Packet], end_s: Fraction | None, tick_s: Fraction) -> bool:
    """Return whether the last packet ends more than one and a half of its own length before a time."""
    known = [packet for packet in packets if packet.pts is not None]
    if end_s is None or not known:
        return end_s is not None and not packets
    last = max(known, key=lambda packet: packet.pts)
    steps = np.diff(sorted(packet.pts for packet in known))
    length = last.num_ticks or (float(np.median(steps)) if steps.size else 0)
    return float(end_s) > (last.pts + 2.5 * length) * float(tick_s)


def _tells_all(packets: Sequence[_Packet], codec: str) -> bool:
    """Return whether every packet gives one frame, at a time of its own.

    Frames that come before the first keyframe but after it in the file may need others that the file lacks.
    """
    times = [packet.pts for packet in packets]
    known = bool(times) and None not in times and len(set(times)) == len(times)
    return known and codec not in HIDDEN_FRAMES and packets[0].is_keyframe and min(times) == times[0]


def _decoded_ticks(open_video: OpenVideo) -> tuple[list[Any], bool]:
    """Return the times of the frames that decoding gives, and whether only their number counts."""
    with open_video() as container:
        ticks: list[Any] = [frame.pts for frame in container.decode(video=0)]
    return ticks, None in ticks or any(later <= earlier for earlier, later in pairwise(ticks))
