"""The frames of a video in order of presentation, and where decoding begins for each of them.

In: an open video. Out: the time of every frame that it shows, and its keyframes.
Read next: `videos.py`, which reads frames by their numbers.

The number of a frame is its place in order of presentation, whatever the rate. Frames that an edit list hides do not
count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from av.container import InputContainer

HIDDEN_FRAMES = ("vp8",)
"""Codecs with packets that give no image."""

SAME_RATE_FRAC = 0.1
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
        cut_off: Whether the file ends within a packet; `ticks` then holds the frames before it.
        num_listed: Frames that the list of an mp4 names; 0 without a list.
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
        if off_s.max() > max(1.5 * tick_s, SAME_RATE_FRAC / float(mean)):
            return Rate(mean, self._first_uneven())
        rounding_s = 1.5 * tick_s  # times are whole ticks, so that a mean rate is not exact
        if stated is not None and abs((self.num_frames - 1) / float(stated) - float(span_s)) <= rounding_s:
            return Rate(stated, None)
        return Rate(mean, None)

    def _first_uneven(self) -> int:
        """Return the first frame whose distance from the one before is not the usual one."""
        steps = np.diff(self.ticks)
        usual = np.median(steps)
        return int(np.argmax(np.abs(steps - usual) > max(1.5, SAME_RATE_FRAC * usual))) + 1


class Rate(NamedTuple):
    """Frames per second (mean; None if unknown), and the first frame that comes out of step (None if none does)."""

    fps: Fraction | None
    first_uneven: int | None


def read_timeline(container: InputContainer) -> Timeline:
    """Return the timeline of a video, without decoding it where its packets tell it.

    Raises:
        av.FFmpegError: If it cannot be read.
    """
    stream = container.streams.video[0]
    packets, num_packets, cut_off = list[_Packet](), 0, False
    for packet in container.demux(stream):
        if packet.is_corrupt:
            cut_off = True
            break
        num_packets += packet.size > 0
        if packet.size > 0 and not packet.is_discard:
            packets.append(_Packet(packet.pts, packet.is_keyframe))
    num_listed = stream.frames if "mp4" in container.format.name else 0
    cut_off = cut_off or num_packets < num_listed
    if not cut_off and _tells_all(packets, stream.codec_context.codec.canonical_name):
        ticks, counted = [packet.pts for packet in packets], False
    elif not cut_off:
        ticks, counted = _decoded_ticks(container)
    else:
        ticks, counted = [packet.pts for packet in packets], any(packet.pts is None for packet in packets)
    keyframes = [] if counted else [packet.pts for packet in packets if packet.is_keyframe]
    return Timeline(
        ticks=np.arange(len(ticks)) if counted else np.array(sorted(ticks), np.int64),
        keyframe_ticks=np.array(sorted(keyframes), np.int64),
        tick_s=stream.time_base or Fraction(1),
        is_counted=counted,
        stated_fps=stream.average_rate or stream.guessed_rate,
        cut_off=cut_off,
        num_listed=num_listed,
    )


class _Packet(NamedTuple):
    pts: Any
    is_keyframe: bool


def _tells_all(packets: Sequence[_Packet], codec: str) -> bool:
    """Return whether every packet gives one frame, at a time of its own.

    Frames that come before the first keyframe but after it in the file may need others that the file lacks.
    """
    times = [packet.pts for packet in packets]
    known = bool(times) and None not in times and len(set(times)) == len(times)
    return known and codec not in HIDDEN_FRAMES and packets[0].is_keyframe and min(times) == times[0]


def _decoded_ticks(container: InputContainer) -> tuple[list[Any], bool]:
    """Return the times of the frames that decoding gives, and whether only their number counts."""
    container.seek(0)
    ticks: list[Any] = [frame.pts for frame in container.decode(video=0)]
    return ticks, None in ticks or any(later <= earlier for earlier, later in pairwise(ticks))
