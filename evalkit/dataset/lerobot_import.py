"""Imports a LeRobot data set (v2.0, v2.1, v3.0): one of our exports unchanged, any other one by a map.

In: a folder in LeRobot's format, a map of its features. Out: a folder in our layout; the broken episodes by name.
Read next: `lerobot_format.py` for the map, `layout.py` for the layout.

Videos are copied as they are, even if they hold several episodes: an episode states the frame at which it starts.
Depth images become lossless video in millimetres, and the 8-bit video is derived from them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from evalkit.contracts.files import copy_whole, write_whole
from evalkit.dataset.about import EpisodeAbout
from evalkit.dataset.depth_video import DepthRange, depth_bytes
from evalkit.dataset.layout import Broken, DataSetError, check_against, read_track
from evalkit.dataset.lerobot_format import (
    EPISODES,
    EPISODES_V2,
    INFO,
    MAP,
    CameraSource,
    FeatureMap,
    read_json,
    read_map,
)
from evalkit.dataset.videos import read_frames, write_video
from evalkit.dataset.writer import episode_key, write_metadata

VERSIONS = ("v2.0", "v2.1", "v3.0")


@dataclass(frozen=True, kw_only=True)
class Import:
    """An open LeRobot data set.

    Attributes:
        root: Its folder.
        info: Its `meta/info.json`.
        episodes: Its rows of `meta/episodes`, one per episode.
        feature_map: Map from its features to the tables and cameras of our layout.
    """

    root: Path
    info: Mapping[str, Any]
    episodes: list[dict[str, Any]]
    feature_map: FeatureMap

    @property
    def is_v2(self) -> bool:
        """Return whether each episode has its own files, whose names follow from its number."""
        return str(self.info["codebase_version"]).startswith("v2")

    def rows_path(self, episode: Mapping[str, Any]) -> Path:
        """Return the file with an episode's rows."""
        return self.root / self.info["data_path"].format(**self._position(episode, "data"))

    def video_path(self, episode: Mapping[str, Any], feature: str) -> Path:
        """Return the file with an episode's frames of one feature."""
        position = self._position(episode, f"videos/{feature}")
        return self.root / self.info["video_path"].format(video_key=feature, **position)

    def first_frame(self, episode: Mapping[str, Any], feature: str) -> int:
        """Return the frame of the video at which an episode starts."""
        return 0 if self.is_v2 else round(episode[f"videos/{feature}/from_timestamp"] * self.info["fps"])

    def is_video(self, feature: str) -> bool:
        """Return whether a feature is in video files, not in the rows."""
        return self.info["features"][feature]["dtype"] == "video"

    def _position(self, episode: Mapping[str, Any], prefix: str) -> dict[str, int]:
        number = episode["episode_index"]
        if self.is_v2:
            return {"episode_chunk": number // self.info.get("chunks_size", 1000), "episode_index": number}
        return {name: episode[f"{prefix}/{name}"] for name in ("chunk_index", "file_index")}


def open_lerobot(root: Path, map_path: Path | None = None) -> Import:
    """Return a LeRobot data set, ready to import.

    Args:
        root: Its folder.
        map_path: File with the map of its features. One of our exports holds its own map.

    Raises:
        DataSetError: If it is not a LeRobot data set, has an unknown version, or does not fit the map.
    """
    if not (root / INFO).is_file():
        raise DataSetError(f"{root} is not a LeRobot data set: it holds no {INFO}.")
    info = read_json(root / INFO)
    missing = {"codebase_version", "fps", "features", "data_path"} - set(info)
    if missing:
        raise DataSetError(f"{root / INFO} is not LeRobot's: it lacks {', '.join(sorted(missing))}.")
    if info["codebase_version"] not in VERSIONS:
        raise DataSetError(f"{root} is of version {info['codebase_version']}; {', '.join(VERSIONS)} can be read.")
    if map_path is None and not (root / MAP).is_file():
        raise DataSetError(
            f"{root} is not one of our exports, so it needs a map of its features: --map FILE, as in docs/data.md. "
            f"Its features: {', '.join(info['features'])}."
        )
    opened = Import(root=root, info=info, episodes=_episodes(root, info), feature_map=read_map(map_path or root / MAP))
    _check_map(opened, map_path or root / MAP)
    return opened


def import_episodes(
    opened: Import, out: Path, *, on_episode: Callable[[], None] = lambda: None
) -> tuple[int, list[Broken]]:
    """Write the episodes in our layout; a second call writes the missing ones.

    Args:
        opened: The LeRobot data set.
        out: Folder to write.
        on_episode: Called after each episode.

    Returns:
        The number of episodes in the folder, and the broken episodes.
    """
    broken, files = [], _Files(opened, out)
    for episode in opened.episodes:
        key = episode.get("xwam/key") or episode_key(episode["episode_index"])
        path = out / "data" / f"{key}.json"
        if not path.is_file():
            try:
                write_whole(path, json.dumps(_content(opened, episode, key, files)))
                check_against(read_track(out, key), episode["length"], videos=True)
            except (OSError, ValueError, KeyError, pa.ArrowException) as error:
                path.unlink(missing_ok=True)
                broken.append(Broken(key, f"episode {episode['episode_index']}: {error}"))
        on_episode()
    return len(write_metadata(out)), broken


def _episodes(root: Path, info: Mapping[str, Any]) -> list[dict[str, Any]]:
    if str(info["codebase_version"]).startswith("v2"):
        path = root / EPISODES_V2
        try:
            rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        except (OSError, ValueError) as error:
            raise DataSetError(f"{path} cannot be read: {error}.") from error
    else:
        files = sorted((root / EPISODES).glob("*/*.parquet"))
        if not files:
            raise DataSetError(f"{root / EPISODES}/*/*.parquet, which lists the episodes, does not exist.")
        try:
            tables = [pq.read_table(file) for file in files]
        except (OSError, pa.ArrowException) as error:
            raise DataSetError(f"{root / EPISODES} cannot be read: {error}.") from error
        names = [name for name in tables[0].column_names if not name.startswith("stats/")]
        rows = [row for table in tables for row in table.select(names).to_pylist()]
    if not rows or not all({"episode_index", "length", "tasks"} <= set(row) for row in rows):
        raise DataSetError(f"{root} must list its episodes with episode_index, length and tasks.")
    return sorted(rows, key=lambda row: row["episode_index"])


def _check_map(opened: Import, path: Path) -> None:
    features, mapped = opened.info["features"], opened.feature_map
    named = [source.feature for table in (mapped.proprios, mapped.actions) for source in table.values()]
    if absent := [name for name in (*named, *mapped.image_features()) if name not in features]:
        raise DataSetError(f"{path} names '{absent[0]}', which is none of {', '.join(features)}.")
    for view in mapped.cameras.values():
        if view.depth is not None and not opened.is_video(view.depth):
            raise DataSetError(f"{path} uses '{view.depth}' as 8-bit depth, which must be a video.")
        if view.depth_mm is not None and opened.is_video(view.depth_mm):
            raise DataSetError(f"{path} uses '{view.depth_mm}' as exact depth; it is a video, which is not exact.")
        if view.depth_mm is not None:
            unit = (features[view.depth_mm].get("info") or {}).get("depth_unit", "mm")
            if unit != "mm":
                raise DataSetError(f"'{view.depth_mm}' has the unit '{unit}'; whole millimetres are needed.")


# ---- one episode


def _content(opened: Import, episode: Mapping[str, Any], key: str, files: _Files) -> dict[str, Any]:
    """Write the videos of an episode, and return its JSON.

    Raises:
        ValueError: If rows or images differ from what the data set states.
    """
    count = episode["length"]
    rows = _rows(opened, episode)
    if rows.num_rows != count:
        raise ValueError(f"{opened.rows_path(episode)} has {rows.num_rows} rows of it, {count} are needed")
    plain = [name for name in rows.column_names if not pa.types.is_struct(rows[name].type)]
    numbers = {name: np.array(rows[name].to_pylist()) for name in plain}
    tables = {
        group: {name: source.table(numbers).tolist() for name, source in getattr(opened.feature_map, group).items()}
        for group in ("proprios", "actions")
    }
    views = {
        name: _images(opened, episode, rows, view, files, f"{name}/{key}")
        for name, view in opened.feature_map.cameras.items()
    }
    for name, matrices in json.loads(episode.get("xwam/cameras") or "{}").items():
        if name in views:
            views[name] |= matrices
    return {
        "num_frames": count,
        "instructions": list(episode["tasks"]),
        "observations": views,
        **tables,
        "about": EpisodeAbout.from_json(json.loads(episode.get("xwam/about") or "{}")).to_json(),
    }


def _rows(opened: Import, episode: Mapping[str, Any]) -> pa.Table:
    mapped = opened.feature_map
    names = {source.feature for table in (mapped.proprios, mapped.actions) for source in table.values()}
    names |= {feature for feature in mapped.image_features() if not opened.is_video(feature)}
    only = [("episode_index", "=", episode["episode_index"])]
    return pq.read_table(opened.rows_path(episode), columns=[*sorted(names), "frame_index"], filters=only).sort_by(
        "frame_index"
    )


def _images(
    opened: Import, episode: Mapping[str, Any], rows: pa.Table, view: CameraSource, files: _Files, name: str
) -> dict[str, Any]:
    """Write the videos of one camera; return its entry in the episode's JSON."""
    fps, count, start = float(opened.info["fps"]), episode["length"], 0

    def video(feature: str, target: str) -> tuple[str, int]:
        first = opened.first_frame(episode, feature)
        if view.depth_mm is None or not files.is_shared(episode, feature):
            return files.copy(episode, feature, target), first
        frames = read_frames(opened.video_path(episode, feature), range(first, first + count))
        return files.write(target, frames, fps), 0  # exact depth has a file for each episode

    entry: dict[str, Any] = {"type": view.kind, "fps": fps}
    if opened.is_video(view.rgb):
        entry["rgb_path"], start = video(view.rgb, f"video/{name}.mp4")
    else:
        frames = np.stack([_decoded(row, cv2.IMREAD_COLOR, np.uint8)[..., ::-1] for row in rows[view.rgb].to_pylist()])
        entry["rgb_path"] = files.write(f"video/{name}.mp4", frames, fps)
    if view.depth is not None:
        entry["depth_path"], first = video(view.depth, f"depth/{name}.mp4")
        if first != start:
            raise ValueError(f"'{view.rgb}' and '{view.depth}' start at different frames of their videos")
    depth_range = view.depth_range
    if view.depth_mm is not None:
        exact = np.stack([_decoded(row, cv2.IMREAD_UNCHANGED, np.uint16) for row in rows[view.depth_mm].to_pylist()])
        entry["depth_mm_path"] = files.write(f"depth_mm/{name}.mkv", exact, fps)
        if view.depth is None or depth_range is not None:
            depth_range = depth_range or DepthRange()
            grey = depth_bytes(exact / 1000, depth_range)[..., None].repeat(3, -1)
            entry["depth_path"] = files.write(f"depth/{name}.mp4", grey, fps)
    stated = {} if depth_range is None else {"depth_range": asdict(depth_range)}
    return {**entry, **stated, "start": start, "end": start + count}


class _Files:
    """Writes the video files of a new data set.

    Args:
        opened: The LeRobot data set.
        out: The new data set.
    """

    def __init__(self, opened: Import, out: Path) -> None:
        self._opened, self._out = opened, out
        videos = [name for name in opened.feature_map.image_features() if opened.is_video(name)]
        self._users = Counter(opened.video_path(episode, name) for episode in opened.episodes for name in videos)

    def is_shared(self, episode: Mapping[str, Any], feature: str) -> bool:
        """Return whether the video of an episode also holds other episodes, or starts before it."""
        shared = self._users[self._opened.video_path(episode, feature)] > 1
        return shared or self._opened.first_frame(episode, feature) != 0

    def write(self, name: str, frames: np.ndarray, fps: float) -> str:
        """Write frames without loss; return the path of the file."""
        write_video(self._out / name, frames, fps=fps)
        return name

    def copy(self, episode: Mapping[str, Any], feature: str, name: str) -> str:
        """Copy a video unless it exists; return its path. A video of several episodes keeps its name."""
        source = self._opened.video_path(episode, feature)
        if self._users[source] > 1:
            name = f"{name.split('/chunk-')[0]}/{source.parent.name}/{source.name}"
            if (self._out / name).is_file():
                return name
        copy_whole(source, self._out / name)
        return name


def _decoded(row: Mapping[str, Any] | None, flags: int, kind: type) -> np.ndarray:
    data = row["bytes"] if row else None
    frame = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if frame is None or frame.dtype != kind:
        actual = "no image" if frame is None else f"an image of {frame.dtype}"
        raise ValueError(f"the rows hold {actual}, an image of {np.dtype(kind)} is needed")
    return frame
