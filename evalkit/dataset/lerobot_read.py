"""Reads the rows of a LeRobot data set (v2.0, v2.1, v3.0) as other tools write it, and finds its videos.

In: a folder in LeRobot's format, a map of its features. Out: episodes, and for each of them its rows in order.
Read next: `lerobot_metadata.py` for the files under `meta`; `lerobot_import.py`, which writes episodes in our layout.

What one episode states about itself is checked when that episode is read, so that an odd one never ends an import.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evalkit.dataset.depth_video import DepthCodes
from evalkit.dataset.layout import Broken, DataSetError
from evalkit.dataset.lerobot_format import INFO, MAP, FeatureMap, read_map
from evalkit.dataset.lerobot_images import DEPTH_UNITS
from evalkit.dataset.lerobot_metadata import (
    LerobotEpisode,
    filled,
    is_text,
    one_line,
    read_episodes,
    read_info,
    read_tasks,
    whole_number,
)

SAME_RATE_FRAC = 0.01
"""The mean step of an episode's timestamps may differ from the stated rate by this share."""

JITTER_FRAC = 0.5
"""First and last timestamp of an episode may together be off by this share of a step."""

OTHER_RATE_FRAC = 0.25
"""If the usual step differs by more than this share from the stated one, the rate is wrong, and not single rows."""

SHARED_FRAMES = 0.5
"""Frames by which two episodes may overlap in a video file, because their times are rounded."""

LARGEST_GAP = 1.5
"""Two rows that follow each other may be this many control steps apart."""


class _VideoSpan(NamedTuple):
    """An episode in a video file: time at which it starts, its number, its rows, time at which it ends."""

    first_s: float
    number: int
    length: int
    stop_s: float


class Segment(NamedTuple):
    """Rows of an episode with one task: first row, row behind the last, prompt."""

    first: int
    stop: int
    task: str


@dataclass(frozen=True, kw_only=True, eq=False)
class EpisodeRows:
    """The rows of an episode, in order.

    Attributes:
        table: N rows.
        times_s: N seconds since the start of the episode.
        tasks: The task of each row.
    """

    table: pa.Table
    times_s: np.ndarray
    tasks: Sequence[str]

    def numbers(self, feature: str) -> np.ndarray:
        """Return a feature as N,X float64.

        Raises:
            ValueError: If it is missing, or not a table of finite numbers.
        """
        if feature not in self.table.column_names:
            raise ValueError(f"there is no '{feature}' in its rows; they hold {', '.join(self.table.column_names)}")
        column = self.table[feature]
        if column.null_count:
            raise ValueError(f"'{feature}' has no value in {column.null_count} of {len(column)} rows")
        try:
            values = np.array(column.to_pylist(), np.float64)
        except (ValueError, TypeError) as error:
            raise ValueError(f"'{feature}' of the type {column.type} is not a table of numbers") from error
        if not np.isfinite(values).all():
            raise ValueError(f"'{feature}' holds values that are not finite")
        return values.reshape(len(column), -1)

    def segments(self) -> list[Segment]:
        """Return the runs of rows with the same task."""
        starts = [0, *(row for row in range(1, len(self.tasks)) if self.tasks[row] != self.tasks[row - 1])]
        return [
            Segment(first, stop, self.tasks[first])
            for first, stop in zip(starts, [*starts[1:], len(self.tasks)], strict=True)
        ]


@dataclass(frozen=True, kw_only=True, eq=False)
class LerobotSet:
    """An open LeRobot data set.

    Attributes:
        root: Its folder.
        info: Its `meta/info.json`.
        feature_map: Map from its features to the tables and cameras of our layout.
        fps: Control rate.
        episodes: Its episodes by number.
        broken: What its metadata list and cannot be read.
        tasks: Tasks by `task_index`; empty if there is no table of tasks.
    """

    root: Path
    info: Mapping[str, Any]
    feature_map: FeatureMap
    fps: float
    episodes: Sequence[LerobotEpisode]
    broken: Sequence[Broken]
    tasks: Mapping[int, Any]
    _spans: dict[str, dict[Path, list[_VideoSpan]]] = field(default_factory=dict, repr=False)
    _unreadable: dict[Path, str] = field(default_factory=dict, repr=False)

    @property
    def is_v2(self) -> bool:
        """Return whether each episode has its own files, whose names follow from its number."""
        return str(self.info["codebase_version"]).startswith("v2")

    def feature(self, name: str) -> Mapping[str, Any]:
        """Return what `meta/info.json` says about a feature."""
        return self.info["features"][name] or {}

    def details(self, name: str) -> Mapping[str, Any]:
        """Return what `meta/info.json` says about the encoding of a feature; v2.0 calls it `video_info`."""
        feature = self.feature(name)
        return {**(feature.get("video_info") or {}), **(feature.get("info") or {})}

    def is_video(self, name: str) -> bool:
        """Return whether a feature is in video files, not in the rows."""
        return self.feature(name).get("dtype") == "video"

    def is_depth(self, name: str) -> bool:
        """Return whether a feature is marked as depth."""
        details = self.details(name)
        return bool(details.get("is_depth_map") or details.get("video.is_depth_map"))

    def rows_paths(self, episode: LerobotEpisode) -> list[Path]:
        """Return the files with an episode's rows; the metadata of v3.0 may name another file than the one they are in.

        Raises:
            ValueError: If there is none.
        """
        stated = self.root / filled("data_path", self.info["data_path"], **self._position(episode, "data"))
        paths = [stated] if self.is_v2 else self._row_files.get(episode.number, [])
        if not paths:
            reason = self._unreadable.get(stated, "should")
            raise ValueError(f"no file in {self.root / 'data'} has rows of it; {stated} {reason}")
        return paths

    def image_paths(self, episode: LerobotEpisode) -> list[Path]:
        """Return the image files that an episode's rows name and that are there, in order."""
        images = [name for name in self.feature_map.image_features() if not self.is_video(name)]
        named = list[Any]()
        for path in self.rows_paths(episode) if images else ():
            schema = pq.read_schema(path)
            for name in images:
                kind = schema.field(name).type if name in schema.names else pa.null()
                if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:
                    named += self._rows_of(path, episode, [f"{name}.path"])["path"].to_pylist()
                elif is_text(kind):
                    named += self._rows_of(path, episode, [name])[name].to_pylist()
        return [file for name in named if isinstance(name, str) and (file := self.root / name).is_file()]

    def video_path(self, episode: LerobotEpisode, feature: str) -> Path:
        """Return the file with an episode's frames of one feature."""
        template = self.info.get("video_path")
        if not isinstance(template, str):
            raise ValueError(f"'{feature}' is a video, and meta/info.json has no 'video_path'")
        position = self._position(episode, f"videos/{feature}")
        return self.root / filled("video_path", template, video_key=feature, **position)

    def first_time_s(self, episode: LerobotEpisode, feature: str) -> float:
        """Return the time in the video file at which an episode starts."""
        return 0.0 if self.is_v2 else episode.seconds(f"videos/{feature}/from_timestamp")

    def span_s(self, episode: LerobotEpisode, feature: str) -> tuple[float, float]:
        """Return the times between which an episode lies in its video file; a file of v2.x holds one episode alone."""
        if self.is_v2:
            return -np.inf, np.inf
        own = self._span(episode, feature)
        return own.first_s, max(own.stop_s, own.first_s + episode.length / self.fps)

    def frame_by_order(self, episode: LerobotEpisode, feature: str) -> tuple[int, int]:
        """Return an episode's first frame if each row has one frame, in order; and all rows of that video file."""
        own = self._span(episode, feature)
        in_file = self._spans_in(feature)[self.video_path(episode, feature)]
        return sum(other.length for other in in_file if other < own), sum(other.length for other in in_file)

    def overlapping(self, episode: LerobotEpisode, feature: str) -> int | None:
        """Return the number of an episode that claims frames of this one in the same video file; None if none does."""
        own = self._span(episode, feature)
        for other in self._spans_in(feature)[self.video_path(episode, feature)]:
            common_s = min(own.stop_s, other.stop_s) - max(own.first_s, other.first_s)
            if other.number != own.number and common_s * self.fps > SHARED_FRAMES:
                return other.number
        return None

    def rows(self, episode: LerobotEpisode) -> EpisodeRows:
        """Return the rows of an episode, in order.

        Raises:
            OSError, pa.ArrowException: If its file cannot be read.
            ValueError: If rows are missing, occur twice, or do not fit the rate.
        """
        paths = self.rows_paths(episode)
        table = pa.concat_tables([self._read(path, episode) for path in paths])
        if table.num_rows != episode.length:
            named = " and ".join(map(str, paths))
            raise ValueError(f"{named} has {table.num_rows} rows of it, {episode.length} are needed")
        table = _ordered(table)
        return EpisodeRows(table=table, times_s=self._times(table), tasks=self._tasks_of(table, episode))

    def _read(self, path: Path, episode: LerobotEpisode) -> pa.Table:
        """Return the rows of an episode in a file; without `episode_index`, a file of v2.x holds one episode."""
        try:
            names, mapped = set(pq.read_schema(path).names), self.feature_map
        except (OSError, pa.ArrowException) as error:
            raise ValueError(f"{path} cannot be read: {one_line(error)}") from error
        wanted = {source.feature for group in (mapped.proprios, mapped.actions) for source in group.values()}
        wanted |= {feature for feature in mapped.image_features() if not self.is_video(feature)}
        if absent := sorted(wanted - names):
            raise ValueError(f"{path} has no column '{absent[0]}'; it has {', '.join(sorted(names))}")
        return self._rows_of(path, episode, sorted(wanted | (names & {"frame_index", "timestamp", "task_index"})))

    def _rows_of(self, path: Path, episode: LerobotEpisode, columns: list[str]) -> pa.Table:
        """Return columns of a file, of the rows of an episode."""
        schema = pq.read_schema(path)
        if "episode_index" not in schema.names:
            return pq.read_table(path, columns=columns)
        if not pa.types.is_nested(schema.field("episode_index").type):
            return pq.read_table(path, columns=columns, filters=[("episode_index", "=", episode.number)])
        numbers = _plain(pq.read_table(path, columns=["episode_index"]), "episode_index")
        return pq.read_table(path, columns=columns).filter(pa.array(numbers == episode.number))

    @cached_property
    def _row_files(self) -> dict[int, list[Path]]:
        """The files with rows of each episode of v3.0."""
        files = defaultdict[int, list[Path]](list)
        stated = re.sub(r"\{[^}]*\}", "*", self.info["data_path"])
        for path in sorted({*self.root.glob("data/*/*.parquet"), *self.root.glob(stated)}):
            try:
                numbers = _plain(pq.read_table(path, columns=["episode_index"]), "episode_index")
            except (OSError, KeyError, ValueError, pa.ArrowException) as error:  # its episodes are named when read
                self._unreadable[path] = f"cannot be read: {one_line(error)}"
                continue
            for number in np.unique(numbers).tolist():
                files[number].append(path)
        return files

    def _times(self, table: pa.Table) -> np.ndarray:
        """Return the time of each row; without timestamps, rows follow each other at the rate."""
        if "timestamp" not in table.column_names:
            return np.arange(table.num_rows) / self.fps
        times_s = _plain(table, "timestamp")
        if not np.isfinite(times_s).all():
            raise ValueError("its rows have timestamps that are not finite")
        steps = np.diff(times_s) * self.fps
        if not len(steps):
            return times_s
        wrong = (steps > LARGEST_GAP) | (steps <= 0)
        if wrong.any() and abs(np.median(steps) - 1) <= OTHER_RATE_FRAC:
            row = int(np.argmax(wrong))
            raise ValueError(
                f"its rows {row} and {row + 1} are at {times_s[row]:.4f} s and {times_s[row + 1]:.4f} s; at "
                f"{self.fps:g} Hz they are {1 / self.fps:.4f} s apart, so steps are missing or in another order"
            )
        if abs(steps.mean() - 1) > max(SAME_RATE_FRAC, JITTER_FRAC / len(steps)):
            raise ValueError(
                f"its rows are {steps.mean() / self.fps:.4g} s apart, and fps {self.fps:g} in {INFO} means "
                f"{1 / self.fps:.4g} s; correct one of them"
            )
        return times_s

    def _tasks_of(self, table: pa.Table, episode: LerobotEpisode) -> list[str]:
        """Return the task of each row."""
        if self.tasks and "task_index" in table.column_names:
            numbers = [whole_number(value, "task_index") for value in _plain(table, "task_index").tolist()]
            if unknown := sorted(set(numbers) - set(self.tasks)):
                raise ValueError(f"its rows name task {unknown[0]}, which the table of tasks does not have")
            for number in sorted(set(numbers)):
                _check_prompt(self.tasks[number], f"its task {number}")
            return [self.tasks[number] for number in numbers]
        if len(episode.tasks) != 1:
            raise ValueError(
                f"it has {len(episode.tasks)} tasks ({', '.join(map(repr, episode.tasks))}), and no 'task_index' in "
                f"its rows or no table of tasks says which of them a row belongs to"
            )
        _check_prompt(episode.tasks[0], "its task in meta/episodes")
        return [episode.tasks[0]] * table.num_rows

    def _position(self, episode: LerobotEpisode, prefix: str) -> dict[str, int]:
        if self.is_v2:
            chunk = episode.number // max(1, whole_number(self.info.get("chunks_size", 1000), "chunks_size"))
            return {"episode_chunk": chunk, "episode_index": episode.number}
        return {name: episode.whole(f"{prefix}/{name}") for name in ("chunk_index", "file_index")}

    def _spans_in(self, feature: str) -> Mapping[Path, list[_VideoSpan]]:
        """Return the episodes in each video file of a feature."""
        if feature not in self._spans:
            spans = self._spans[feature] = defaultdict(list)
            for episode in self.episodes:
                with suppress(ValueError):  # such an episode is named when it is read
                    spans[self.video_path(episode, feature)].append(self._span(episode, feature))
        return self._spans[feature]

    def _span(self, episode: LerobotEpisode, feature: str) -> _VideoSpan:
        first_s, name = self.first_time_s(episode, feature), f"videos/{feature}/to_timestamp"
        stop_s = first_s + episode.length / self.fps if episode.row.get(name) is None else episode.seconds(name)
        return _VideoSpan(first_s, episode.number, episode.length, stop_s)


def open_lerobot(root: Path, map_path: Path | None = None) -> LerobotSet:
    """Return a LeRobot data set, ready to import.

    Args:
        root: Its folder.
        map_path: File with the map of its features. One of our exports holds its own map.

    Raises:
        DataSetError: If it is not a LeRobot data set, has an unknown version, or does not fit the map.
    """
    info = read_info(root)
    if map_path is None and not (root / MAP).is_file():
        raise DataSetError(
            f"{root} is not one of our exports, so it needs a map of its features: --map FILE, as in docs/data.md. "
            f"Its features: {', '.join(info['features'])}."
        )
    map_path = map_path or root / MAP
    episodes, broken = read_episodes(root, is_v2=str(info["codebase_version"]).startswith("v2"))
    opened = LerobotSet(
        root=root,
        info=info,
        feature_map=read_map(map_path),
        fps=float(info["fps"]),
        episodes=episodes,
        broken=broken,
        tasks=read_tasks(root),
    )
    _check_map(opened, map_path)
    return opened


def _check_prompt(task: Any, name: str) -> None:
    """Raise ValueError if a task is no text, or an empty one."""
    if not isinstance(task, str):
        raise ValueError(f"{name} is {task!r:.80}, a text is needed")
    if not task.strip():
        raise ValueError(f"{name} is an empty text, which cannot be a prompt")


def _ordered(table: pa.Table) -> pa.Table:
    """Return rows by their frame number, or else by their time, or else as they are.

    Raises:
        ValueError: If a frame number is missing or occurs twice.
    """
    if "frame_index" not in table.column_names:
        order = np.argsort(_plain(table, "timestamp"), kind="stable") if "timestamp" in table.column_names else None
        return table if order is None else table.take(pa.array(order))
    numbers = np.array([whole_number(value, "frame_index") for value in _plain(table, "frame_index").tolist()])
    order = np.argsort(numbers, kind="stable")
    steps = np.diff(numbers[order])
    if len(steps) and (steps != 1).any():
        row = int(np.argmax(steps != 1))
        number, then = (int(numbers[order[row + offset]]) for offset in (0, 1))
        fault = f"frame {number} twice" if number == then else f"frame {then} after frame {number}"
        raise ValueError(f"its rows have {fault}; frame numbers must follow each other")
    return table.take(pa.array(order))


def _plain(table: pa.Table, name: str) -> np.ndarray:
    """Return a column with one number per row, N float64; it may be stored as lists of one.

    Raises:
        ValueError: If it holds anything else.
    """
    try:
        values = np.array(table[name].to_pylist(), np.float64).reshape(table.num_rows, -1)
    except (ValueError, TypeError) as error:
        raise ValueError(f"'{name}' of the type {table[name].type} must hold one number per row") from error
    if table.num_rows and values.shape[1] != 1:
        raise ValueError(f"'{name}' must hold one number per row, got {values.shape[1]}")
    return values.reshape(-1)


def _check_map(opened: LerobotSet, path: Path) -> None:
    """Raise DataSetError unless the data set has the features that a map names, in a form that can be read."""
    features, mapped = opened.info["features"], opened.feature_map
    named = [source.feature for table in (mapped.proprios, mapped.actions) for source in table.values()]
    if absent := [name for name in (*named, *mapped.image_features()) if name not in features]:
        raise DataSetError(f"{path} names '{absent[0]}', which is none of {', '.join(features)}.")
    for name in mapped.features():
        _check_feature(features[name], f"{opened.root / INFO}: '{name}'")
    for view in mapped.cameras.values():
        if opened.is_depth(view.rgb):
            raise DataSetError(f"{path} uses '{view.rgb}' as RGB; {opened.root / INFO} marks it as depth.")
        if view.depth is not None and not opened.is_video(view.depth):
            raise DataSetError(f"{path} uses '{view.depth}' as 8-bit depth, which must be a video.")
        if view.depth is not None and is_depth_codes(opened.details(view.depth)):
            raise DataSetError(
                f"{path} uses '{view.depth}' as 8-bit depth; it is LeRobot's own depth video of 12-bit codes. "
                f"Name it 'depth_mm', which decodes them."
            )
        if view.depth_mm is not None:
            _check_exact_depth(opened, view.depth_mm, path)


def _check_feature(facts: Any, name: str) -> None:
    """Raise DataSetError if what `meta/info.json` says about a feature is not a JSON object."""
    if not isinstance(facts, Mapping | None):
        raise DataSetError(f"{name} must be an object, got {facts!r:.80}.")
    for part in ("info", "video_info"):
        if not isinstance(value := (facts or {}).get(part), Mapping | None):
            raise DataSetError(f"{name}: its '{part}' must be an object, got {value!r:.80}.")


def is_depth_codes(details: Mapping[str, Any]) -> bool:
    """Return whether a video holds LeRobot's 12-bit codes of depth."""
    return details.get("video.depth_min") is not None


def _check_exact_depth(opened: LerobotSet, feature: str, path: Path) -> None:
    details = opened.details(feature)
    if opened.is_video(feature):
        if not is_depth_codes(details):
            raise DataSetError(
                f"{path} uses '{feature}' as depth in millimetres; it is a video, and {opened.root / INFO} does not "
                f"state how its values become metres (video.depth_min and others)."
            )
        try:
            DepthCodes.from_info(details)
        except ValueError as error:
            raise DataSetError(f"{opened.root / INFO}: '{feature}': {error}.") from error
    elif (unit := details.get("depth_unit")) not in (None, *DEPTH_UNITS):
        raise DataSetError(f"'{feature}' has the unit '{unit}' in {opened.root / INFO}; mm or m is needed.")
