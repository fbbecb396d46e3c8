"""Writes the images of one camera of an imported episode: copied videos, or videos made from images and codes.

In: the rows of an episode, the features of a camera. Out: its videos, and its entry in the episode's JSON.
Read next: `lerobot_images.py`, which finds the frame of each row; `lerobot_copies.py`, where the files are written.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from evalkit.contracts.text import count_of
from evalkit.dataset.depth_video import LARGEST_CODE, MAX_DEPTH_MM, DepthCodes, DepthRange, depth_bytes, states_lossless
from evalkit.dataset.lerobot_copies import VideoFiles
from evalkit.dataset.lerobot_format import CameraSource
from evalkit.dataset.lerobot_images import Placement, depth_images, place_rows, rgb_images
from evalkit.dataset.lerobot_metadata import LerobotEpisode
from evalkit.dataset.lerobot_read import EpisodeRows, LerobotSet
from evalkit.dataset.videos import SAME_FPS_FRAC, probe, read_frames

LENGTH_TOLERANCE = 0.9
"""Frames by which the stated span of an episode's video may differ from its number of rows."""


class CameraWriter:
    """Writes the videos of one camera in one episode.

    Args:
        opened: The LeRobot data set.
        episode: The episode.
        rows: Its rows.
        view: The features that hold the camera's images.
        files: Where videos are written.
    """

    def __init__(
        self, opened: LerobotSet, episode: LerobotEpisode, rows: EpisodeRows, view: CameraSource, files: VideoFiles
    ) -> None:
        self._opened, self._episode, self._rows, self._view, self._files = opened, episode, rows, view, files
        named = (view.rgb, view.depth, view.depth_mm)
        self._notes = list[str]()
        self._placed = {name: self._place(name) for name in named if name and opened.is_video(name)}

    def write(self, name: str) -> tuple[dict[str, Any], list[str]]:
        """Write the videos; return the camera's entry in the episode's JSON, and warnings.

        All videos of a camera start at the same frame. If they do not in the source, or if one is made from images in
        the rows, they are written again, without loss.
        """
        view, count, fps = self._view, self._rows.table.num_rows, self._opened.fps
        starts = {placement.start for placement in self._placed.values()}
        made = view.depth_mm is not None or not self._opened.is_video(view.rgb)
        copied = starts == {0} if made else len(starts) == 1 and None not in starts
        start = next(iter(starts)) if copied and starts else 0
        entry: dict[str, Any] = {"type": view.kind, "fps": fps, "rgb_path": self._rgb(f"video/{name}.mp4", copied)}
        if view.depth is not None:
            entry["depth_path"] = self._video(view.depth, f"depth/{name}.mp4", copied)
        depth_range = view.depth_range
        if view.depth_mm is not None:
            exact = self._exact(view.depth_mm)
            entry["depth_mm_path"] = self._files.write(f"depth_mm/{name}.mkv", exact, fps)
            if view.depth is None:
                depth_range = depth_range or DepthRange()
                entry["depth_path"] = self._files.write(f"depth/{name}.mp4", _grey(exact, depth_range), fps)
        stated = {} if depth_range is None else {"depth_range": asdict(depth_range)}
        return {**entry, **stated, "start": start, "end": start + count}, self._notes

    def _place(self, feature: str) -> Placement:
        """Return which frames of a video belong to the rows.

        Raises:
            ValueError: If a row has no frame, or the metadata contradict each other.
        """
        opened, episode, fps = self._opened, self._episode, self._opened.fps
        first_s, info = opened.first_time_s(episode, feature), probe(opened.video_path(episode, feature))
        if not opened.is_v2 and episode.row.get(f"videos/{feature}/to_timestamp") is not None:
            num_frames = (episode.seconds(f"videos/{feature}/to_timestamp") - first_s) * fps
            if abs(num_frames - episode.length) > LENGTH_TOLERANCE:
                raise ValueError(
                    f"'{feature}': its from_timestamp and to_timestamp are {num_frames:.1f} frames apart, and it has "
                    f"{episode.length} rows"
                )
        before, total = opened.frame_by_order(episode, feature)
        by_order = before if total == info.num_frames else None
        if feature == self._view.depth and info.bits != 8:
            raise ValueError(f"'{feature}' has values of {info.bits} bits ({info.pix_fmt}), 8-bit depth is needed")
        if (other := opened.overlapping(episode, feature)) is not None:
            reason = f"'{feature}': its frames and those of episode {other} overlap, as from_timestamp states them"
            if by_order is None:
                raise ValueError(reason)
            self._notes.append(f"{reason}; there is one frame for each row, so they are matched in order")
            return Placement(np.arange(by_order, by_order + episode.length), None)
        try:
            span_s = opened.span_s(episode, feature)
            rows_s = first_s + self._rows.times_s
            placement = place_rows(rows_s, info.times_s, fps=fps, by_order=by_order, span_s=span_s)
        except ValueError as error:
            raise ValueError(f"'{feature}': {error}") from error
        if placement.warning is not None:
            self._notes.append(f"'{feature}': {placement.warning}")
        elif opened.is_v2 and info.num_frames > total and info.fps and abs(float(info.fps) / fps - 1) <= SAME_FPS_FRAC:
            self._notes.append(
                f"'{feature}': its video has {info.num_frames} frames for {count_of(total, 'row')}; the times of the "
                f"rows decide which are used"
            )
        return placement

    def _rgb(self, name: str, copied: bool) -> str:
        feature = self._view.rgb
        if self._opened.is_video(feature):
            return self._video(feature, name, copied)
        images = rgb_images(self._rows.table[feature], self._opened.feature(feature), self._opened.root)
        return self._files.write(name, images, self._opened.fps)

    def _video(self, feature: str, name: str, copied: bool) -> str:
        path = self._opened.video_path(self._episode, feature)
        if copied:
            return self._files.copy(path, name.split("/chunk-")[0])
        return self._files.write(name, read_frames(path, self._placed[feature].frames.tolist()), self._opened.fps)

    def _exact(self, feature: str) -> np.ndarray:
        """Return depth in millimetres, N,H,W uint16: images in the rows, or a video of LeRobot's codes."""
        details = self._opened.details(feature)
        if not self._opened.is_video(feature):
            return depth_images(self._rows.table[feature], details.get("depth_unit"), self._opened.root)
        codes_of, frames = DepthCodes.from_info(details), self._placed[feature].frames.tolist()
        codes = read_frames(self._opened.video_path(self._episode, feature), frames, "gray16le")
        if not states_lossless(details):
            self._notes.append(
                f"'{feature}': meta/info.json does not say that its video is lossless; its depth is approximate"
            )
        if ((codes == 0) | (codes == LARGEST_CODE)).any():
            self._notes.append(f"'{feature}': {codes_of.describe_limits(codes)}; the former count as unknown")
        return codes_of.decode(codes)


def _grey(depth_mm: np.ndarray, depth_range: DepthRange) -> np.ndarray:
    """Return N,H,W,3 uint8, the 8-bit video of depth in millimetres, by a table of all depths; it takes little memory.

    All three channels are the same bytes.
    """
    greys = depth_bytes(np.arange(MAX_DEPTH_MM + 1) / 1000, depth_range)[depth_mm]
    return np.broadcast_to(greys[..., None], (*greys.shape, 3))
