"""Exports a data set to LeRobot's format, v3.0, without loss: mp4 files as they are, depth as 16-bit PNG in the rows.

In: a folder in our layout. Out: a folder that LeRobot's own loader opens.
Read next: `lerobot_format.py` for the paths, `lerobot_import.py` for the opposite direction.

`observation.state` and `action` hold the state and action of a track, 16 and 14 named numbers, zeros for an absent arm.
The features `xwam.*` hold the tables of our layout, so that an import rounds nothing. The key of an episode, its
`about` and the matrices of its cameras are in its row of `meta/episodes` (`xwam/*`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from evalkit.contracts.files import copy_whole, whole_file, write_whole
from evalkit.dataset.layout import Camera, DataSetError, Matrix, Scan, Track, read_track
from evalkit.dataset.lerobot_format import (
    ACTION_NAMES,
    EPISODES,
    FILES_PER_CHUNK,
    INFO,
    MAP,
    STATE_NAMES,
    STATS,
    TASKS,
    CameraSource,
    FeatureMap,
    Source,
    file_of,
    read_json,
)
from evalkit.dataset.videos import UnreadableVideo, read_frames

SAMPLED_EPISODES = 64
"""Episodes that give one frame each to the statistics of the images."""

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""Type of an image in a row."""


class Exported(NamedTuple):
    """Result of an export: numbers of episodes and frames, and the episodes that turned out broken."""

    num_episodes: int
    num_frames: int
    broken: list[str]


class _Episode(NamedTuple):
    """One episode to write: its key, its states and actions, its JSON."""

    key: str
    track: Track
    content: Mapping[str, Any]


def export(root: Path, scan: Scan, out: Path, *, on_episode: Callable[[], None] = lambda: None) -> Exported:
    """Write the usable episodes of a data set in LeRobot's format; a second call writes the missing ones.

    Args:
        root: The data set.
        scan: Its usable episodes.
        out: Folder to write; `meta/info.json` appears last, when everything else is written.
        on_episode: Called after each episode.

    Raises:
        DataSetError: If no episode is usable, `out` holds something else, episodes differ in their cameras, tables or
            rates, or there is no camera.
    """
    if not scan.lengths:
        raise DataSetError(f"{root} holds no usable episode.")
    keys = list(scan.lengths)
    first = _read(root, keys[0])
    feature_map = map_of(first)
    _claim(out, root, scan, feature_map)
    rows, broken, prompts = list[dict[str, Any]](), list[str](), dict[str, int]()
    num_frames = 0
    for key in keys:
        episode = _read(root, key)
        if (other := map_of(episode)) != feature_map:
            raise DataSetError(
                f"{root}: all episodes of a LeRobot data set have the same cameras and tables; "
                f"{_difference(key, other, feature_map)}"
            )
        if len(rates := first.track.signature.rates_hz | episode.track.signature.rates_hz) != 1:
            raise DataSetError(
                f"{root}: all cameras of a LeRobot data set have the same rate; up to {key} they have "
                f"{' and '.join(f'{rate:g} Hz' for rate in sorted(rates)) or 'none, because there is no camera'}."
            )
        for prompt in episode.track.instructions:
            prompts.setdefault(prompt, len(prompts))
        try:
            rows.append(_write(episode, out, len(rows), num_frames, prompts, feature_map))
        except UnreadableVideo as error:
            broken.append(f"{key}: {error}")
        else:
            num_frames += episode.track.num_frames
        on_episode()
    tasks = pd.DataFrame({"task_index": list(prompts.values())}, index=pd.Index(list(prompts), name="task"))
    tasks.to_parquet(out / TASKS)
    _table_whole(pa.Table.from_pylist(rows), out / EPISODES / "chunk-000" / "file-000.parquet")
    features = _features(first, feature_map)
    write_whole(out / STATS, json.dumps(_stats(out, len(rows), features, feature_map), indent=1))
    write_whole(out / INFO, json.dumps(_info(first, features, len(rows), num_frames, len(prompts)), indent=1))
    return Exported(len(rows), num_frames, broken)


def map_of(episode: _Episode) -> FeatureMap:
    """Return the features of an episode's tables and cameras."""
    cameras = {}
    for camera in episode.track.cameras:
        rgb = f"observation.images.{camera.name}"
        exact = camera.depth_mm_path is not None
        derivable = exact and camera.depth_range is not None  # an import can derive the 8-bit video, so it is left out
        cameras[camera.name] = CameraSource(
            kind=camera.kind,
            rgb=rgb,
            depth=f"{rgb}_depth" if camera.depth_path is not None and not derivable else None,
            depth_mm=f"{rgb}_depth" if derivable else f"{rgb}_depth_mm" if exact else None,
            depth_range=camera.depth_range,
        )
    tables = {
        group: {name: Source(feature=f"xwam.{group}.{name}") for name in episode.content[group]}
        for group in ("proprios", "actions")
    }
    return FeatureMap(cameras=cameras, **tables)


def _read(root: Path, key: str) -> _Episode:
    return _Episode(key, read_track(root, key), json.loads((root / "data" / f"{key}.json").read_text()))


def _claim(out: Path, root: Path, scan: Scan, feature_map: FeatureMap) -> None:
    """Write the map first; it identifies the source, so that an export of other data does not continue this one."""
    digest = hashlib.sha256(json.dumps([str(root.resolve()), scan.lengths], sort_keys=True).encode()).hexdigest()
    claim = {"source_sha256": digest, **feature_map.to_json()}
    if (out / INFO).exists():
        raise DataSetError(f"{out} already holds a complete data set; give another folder.")
    if (out / MAP).exists():
        if read_json(out / MAP) != claim:
            raise DataSetError(f"{out} holds part of an export of other data; remove it or give another folder.")
    elif out.exists() and any(out.iterdir()):
        raise DataSetError(f"{out} is not empty and not an export; give another folder.")
    write_whole(out / MAP, json.dumps(claim, indent=1))


def _difference(key: str, actual: FeatureMap, expected: FeatureMap) -> str:
    sides = [
        {name: sorted(getattr(side, name)) for name in ("cameras", "proprios", "actions")}
        for side in (actual, expected)
    ]
    for name in sides[0]:
        if sides[0][name] != sides[1][name]:
            return f"{key} has the {name} {sides[0][name]}, the first episode has {sides[1][name]}."
    return f"{key} has the cameras {dict(actual.cameras)}, the first episode has {dict(expected.cameras)}."


# ---- one episode


def _write(
    episode: _Episode, out: Path, number: int, first_row: int, prompts: Mapping[str, int], feature_map: FeatureMap
) -> dict[str, Any]:
    """Write the rows and videos of an episode unless they exist; return its row of `meta/episodes`."""
    track, count, chunk, file = episode.track, episode.track.num_frames, *divmod(number, FILES_PER_CHUNK)
    row: dict[str, Any] = {
        "episode_index": number,
        "tasks": list(track.instructions),
        "length": count,
        "data/chunk_index": chunk,
        "data/file_index": file,
        "dataset_from_index": first_row,
        "dataset_to_index": first_row + count,
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
        "xwam/key": episode.key,
        "xwam/about": json.dumps(track.about.to_json()),
        "xwam/cameras": json.dumps({camera.name: _matrices(camera) for camera in track.cameras}),
    }
    target = out / "data" / f"{file_of(number)}.parquet"
    table = None if target.is_file() else _rows(episode, number, first_row, prompts, feature_map)
    for camera in track.cameras:
        source = feature_map.cameras[camera.name]
        for feature, path in ((source.rgb, camera.rgb_path), (source.depth, camera.depth_path)):
            if feature is None or path is None:
                continue
            if table is not None:
                copy_whole(path, out / "videos" / feature / f"{file_of(number)}.mp4")
            row |= {
                f"videos/{feature}/chunk_index": chunk,
                f"videos/{feature}/file_index": file,
                f"videos/{feature}/from_timestamp": camera.start / camera.fps,
                f"videos/{feature}/to_timestamp": (camera.start + count) / camera.fps,
            }
    if table is not None:  # last: an episode with rows is complete
        _table_whole(table, target)
    return row


def _matrices(camera: Camera) -> dict[str, Matrix]:
    """Return the known matrices of a camera."""
    known = {"intrinsics": camera.intrinsics, "T_base_cam": camera.T_base_cam}
    return {name: matrix for name, matrix in known.items() if matrix is not None}


def _rows(
    episode: _Episode, number: int, first_row: int, prompts: Mapping[str, int], feature_map: FeatureMap
) -> pa.Table:
    track, count = episode.track, episode.track.num_frames
    columns: dict[str, pa.Array] = {
        "observation.state": _numbers(track.proprio),
        "action": _numbers(track.action),
    }
    for group in ("proprios", "actions"):
        for name, source in getattr(feature_map, group).items():
            columns[source.feature] = _numbers(np.array(episode.content[group][name], np.float32))
    for camera in track.cameras:
        if (feature := feature_map.cameras[camera.name].depth_mm) is not None:
            columns[feature] = pa.array(_depth_images(camera, count), IMAGE)
    frame = np.arange(count, dtype=np.int64)
    columns |= {
        "timestamp": pa.array((frame / track.cameras[0].fps if track.cameras else frame).astype(np.float32)),
        "frame_index": pa.array(frame),
        "episode_index": pa.array(np.full(count, number, np.int64)),
        "index": pa.array(first_row + frame),
        "task_index": pa.array(np.full(count, prompts[track.instructions[0]], np.int64)),
    }
    return pa.table(columns)


def _numbers(table: np.ndarray) -> pa.Array:
    """Return a table as a column: single numbers as they are, longer rows as lists of fixed length."""
    flat = pa.array(np.ascontiguousarray(table, np.float32).reshape(-1))
    return flat if table.shape[1] == 1 else pa.FixedSizeListArray.from_arrays(flat, table.shape[1])


def _depth_images(camera: Camera, count: int) -> Iterator[dict[str, Any]]:
    assert camera.depth_mm_path is not None
    depth = read_frames(camera.depth_mm_path, range(camera.start, camera.start + count), "gray16le")
    for index, frame in enumerate(depth):
        encoded, data = cv2.imencode(".png", frame)
        assert encoded, "OpenCV writes PNG"
        yield {"bytes": data.tobytes(), "path": f"frame-{index:06d}.png"}


def _table_whole(table: pa.Table, target: Path) -> None:
    with whole_file(target) as partial:
        pq.write_table(table, partial)


# ---- the files under meta


def _info(first: _Episode, features: Mapping[str, Any], episodes: int, frames: int, tasks: int) -> dict[str, Any]:
    rate = first.track.cameras[0].fps
    return {
        "codebase_version": "v3.0",
        "robot_type": first.track.about.bench or "unknown",
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": FILES_PER_CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": int(rate) if rate == int(rate) else rate,
        "splits": {"train": f"0:{episodes}"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": features,
    }


def _features(first: _Episode, feature_map: FeatureMap) -> dict[str, Any]:
    def numbers(width: int, names: list[str] | None = None) -> dict[str, Any]:
        return {"dtype": "float32", "shape": [width], "names": names}

    features: dict[str, Any] = {
        "observation.state": numbers(len(STATE_NAMES), list(STATE_NAMES)),
        "action": numbers(len(ACTION_NAMES), list(ACTION_NAMES)),
    }
    for group in ("proprios", "actions"):
        for name, source in getattr(feature_map, group).items():
            features[source.feature] = numbers(len(first.content[group][name][0]))
    axes = ["height", "width", "channels"]
    for camera in first.track.cameras:
        source = feature_map.cameras[camera.name]
        height, width = read_frames(camera.rgb_path, [camera.start]).shape[1:3]
        for feature in (source.rgb, source.depth):
            if feature is not None:
                about: dict[str, Any] = {
                    "video.height": height,
                    "video.width": width,
                    "video.channels": 3,
                    "video.fps": camera.fps,
                }
                about |= {"video.codec": "h264", "video.pix_fmt": "gbrp", "is_depth_map": False, "has_audio": False}
                features[feature] = {"dtype": "video", "shape": [height, width, 3], "names": axes, "info": about}
        if source.depth_mm is not None:
            exact: dict[str, Any] = {"is_depth_map": True, "depth_unit": "mm"}
            features[source.depth_mm] = {"dtype": "image", "shape": [height, width, 1], "names": axes, "info": exact}
    for name in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
        kind = "float32" if name == "timestamp" else "int64"
        features[name] = {"dtype": kind, "shape": [1], "names": None}
    return features


def _stats(out: Path, num_episodes: int, features: Mapping[str, Any], feature_map: FeatureMap) -> dict[str, Any]:
    """Return minimum, maximum, mean and spread of every feature; those of images use one frame of some episodes."""
    plain = [name for name, feature in features.items() if feature["dtype"] not in ("video", "image")]
    sums = {name: _Sums() for name in features}
    for number in range(num_episodes):
        table = pq.read_table(out / "data" / f"{file_of(number)}.parquet", columns=plain)
        for name in plain:
            sums[name].add(np.array(table[name].to_pylist(), np.float64).reshape(table.num_rows, -1))
    for number in np.unique(np.linspace(0, num_episodes - 1, SAMPLED_EPISODES).round().astype(int)).tolist():
        path = out / "data" / f"{file_of(number)}.parquet"
        middle = pq.read_metadata(path).num_rows // 2
        for source in feature_map.cameras.values():
            if source.depth_mm is not None:
                png = pq.read_table(path, columns=[source.depth_mm])[source.depth_mm][middle].as_py()["bytes"]
                depth = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
                sums[source.depth_mm].add(depth.reshape(-1, 1).astype(np.float64))
            for feature in (source.rgb, source.depth):
                if feature is not None:
                    frame = read_frames(out / "videos" / feature / f"{file_of(number)}.mp4", [middle])
                    sums[feature].add(frame.reshape(-1, 3) / 255)
    return {name: sums[name].stats(image=name not in plain) for name in features}


class _Sums:
    """Running sums of values."""

    def __init__(self) -> None:
        self.count, self.low, self.high, self.sum, self.squares = 0, np.inf, -np.inf, 0.0, 0.0

    def add(self, values_NX: np.ndarray) -> None:
        """Add values."""
        self.count += len(values_NX)
        self.low, self.high = np.minimum(self.low, values_NX.min(0)), np.maximum(self.high, values_NX.max(0))
        self.sum, self.squares = self.sum + values_NX.sum(0), self.squares + np.square(values_NX).sum(0)

    def stats(self, *, image: bool) -> dict[str, Any]:
        """Return the statistics in LeRobot's form; for images one value per channel, C,1,1."""
        mean = np.asarray(self.sum) / self.count
        std = np.sqrt(np.maximum(np.asarray(self.squares) / self.count - mean**2, 0))
        values = {"min": self.low, "max": self.high, "mean": mean, "std": std}
        shaped = {name: np.asarray(value).reshape((-1, 1, 1) if image else -1) for name, value in values.items()}
        return {name: value.tolist() for name, value in shaped.items()} | {"count": [self.count]}
