"""Exports a data set to LeRobot's format, v3.0: mp4 files as they are, depth as 16-bit PNG in the rows.

In: a folder in our layout. Out: a folder that LeRobot's own loader opens.
Read next: `lerobot_videos.py` for the videos; `lerobot_format.py` for the paths; `lerobot_import.py` for the opposite.

`observation.state` and `action` hold the state and action of a track, 16 and 14 named numbers, zeros for an absent arm.
The features `xwam.*` hold the tables of our layout, so that an import rounds nothing. The key of an episode, its
prompts, its `about` and the matrices of its cameras are in its row of `meta/episodes` (`xwam/*`).

The file with the rows of an episode is written last and holds a hash of what it was made from, so that a second call
skips exactly what is complete and unchanged. A complete export holds a hash of its whole source: the same call again
changes nothing, and an export whose source has changed since is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from evalkit.contracts.files import whole_file, write_whole
from evalkit.contracts.fingerprint import FileHashes, sha256_of_values
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
from evalkit.dataset.lerobot_stats import Sums
from evalkit.dataset.lerobot_videos import ExportedVideos, VideoCodec
from evalkit.dataset.videos import UnreadableVideo, probe, read_frames

EXPORT_VERSION = 1
"""Raised when the same source gives other files, so that they are written again."""

ORIGIN_KEY = b"xwam.origin"
"""Where a file of rows holds the hash of what it was made from, in its parquet metadata."""

COMPLETE = "complete"
"""Field of the map of a complete export: the hash of its source, and the episodes that were left out."""

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


def export(
    root: Path,
    scan: Scan,
    out: Path,
    *,
    codec: VideoCodec = "copy",
    on_episode: Callable[[], None] = lambda: None,
) -> Exported:
    """Write the usable episodes of a data set in LeRobot's format; a second call writes what a stopped one left out.

    Args:
        root: The data set.
        scan: Its usable episodes.
        out: Folder to write; `meta/info.json` appears last, when everything else is written.
        codec: Codec of RGB videos; `copy` keeps the files.
        on_episode: Called after each episode.

    Raises:
        DataSetError: If no episode is usable, `out` holds something else or a complete export of what has changed
            since, episodes differ in their cameras, image sizes, tables or rates, or there is no camera.
    """
    if not scan.lengths:
        raise DataSetError(f"{root} holds no usable episode.")
    first = _read(root, next(iter(scan.lengths)))
    writer = _Writer(root, out, first, codec)
    if (complete := writer.claim(scan)) is not None:
        return complete
    for key in scan.lengths:
        writer.add(_read(root, key))
        on_episode()
    return writer.finish()


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


def _difference(key: str, actual: FeatureMap, expected: FeatureMap) -> str:
    sides = [
        {name: sorted(getattr(side, name)) for name in ("cameras", "proprios", "actions")}
        for side in (actual, expected)
    ]
    for name in sides[0]:
        if sides[0][name] != sides[1][name]:
            return f"{key} has the {name} {sides[0][name]}, the first episode has {sides[1][name]}."
    return f"{key} has the cameras {dict(actual.cameras)}, the first episode has {dict(expected.cameras)}."


class _Writer:
    """Writes an export, episode by episode.

    Args:
        root: The data set.
        out: Folder to write.
        first: Its first episode, with which all others must agree.
        codec: Codec of RGB videos.
    """

    def __init__(self, root: Path, out: Path, first: _Episode, codec: VideoCodec) -> None:
        self._root, self._out, self._first, self._map = root, out, first, map_of(first)
        rates, self._hashes = first.track.signature.rates_hz, FileHashes()
        self._fps = next(iter(rates)) if len(rates) == 1 else 0.0
        self._videos = ExportedVideos(out=out, codec=codec, fps=self._fps, hashes=self._hashes)
        self._episodes, self._num_frames = list[dict[str, Any]](), 0
        self._prompts, self._sums, self._broken = dict[str, int](), dict[str, Sums](), list[str]()
        self._claim, self._contents = dict[str, Any](), list[str]()

    def claim(self, scan: Scan) -> Exported | None:
        """Write the map first; it identifies the source, so that an export of other data does not continue this one.

        Returns:
            The result of the export that is there, if it is complete and its source has not changed.

        Raises:
            DataSetError: If the folder holds something else, or a complete export of what has changed since.
        """
        out = self._out
        digest = sha256_of_values(str(self._root.resolve()), scan.lengths, self._videos.codec)
        self._claim = {"source_sha256": digest, **self._map.to_json()}
        stated = read_json(out / MAP) if (out / MAP).exists() else None
        if (out / INFO).exists():
            if stated is None or stated.get(COMPLETE) is None:
                raise DataSetError(f"{out} already holds a complete data set; give another folder.")
            return self._complete(scan, stated[COMPLETE])
        if stated is None and out.exists() and any(out.iterdir()):
            raise DataSetError(f"{out} is not empty and not an export; give another folder.")
        if stated is not None and {**stated, COMPLETE: None} != {**self._claim, COMPLETE: None}:
            raise DataSetError(f"{out} holds part of an export of other data; remove it or give another folder.")
        write_whole(out / MAP, json.dumps(self._claim, indent=1))
        return None

    def _complete(self, scan: Scan, stated: Mapping[str, Any]) -> Exported:
        """Return the result of the export that is there; raises DataSetError if it is of other data."""
        contents = [self._content(_read(self._root, key)) for key in scan.lengths]
        if stated["sha256"] != self._digest(contents):
            raise DataSetError(
                f"{self._out} holds a complete export of other data, of {self._root} before it changed, or with "
                f"another codec; remove it or give another folder."
            )
        info = read_json(self._out / INFO)
        return Exported(info["total_episodes"], info["total_frames"], list(stated["left_out"]))

    def _digest(self, contents: list[str]) -> str:
        """Return the hash of all that decides an export."""
        return sha256_of_values(EXPORT_VERSION, self._claim, contents)

    def add(self, episode: _Episode) -> None:
        """Write one episode, or name it if its videos cannot be read.

        Raises:
            DataSetError: If it does not agree with the first one.
        """
        self._check(episode)
        track, number = episode.track, len(self._episodes)
        prompts, num_videos = dict(self._prompts), self._videos.counts()
        self._contents.append(self._content(episode))
        for prompt in track.instructions:
            self._prompts.setdefault(prompt, len(self._prompts))
        try:
            row = self._write(episode, number)
            sums = self._statistics(track, number)
        except UnreadableVideo as error:
            self._prompts = prompts
            self._videos.withdraw(num_videos)
            self._broken.append(f"{episode.key}: {error}")
            return
        if not self._episodes:
            self._first = episode  # the first one that can be read describes the features
        exact = {source.depth_mm for source in self._map.cameras.values()}
        for name, one in sums.items():
            self._sums.setdefault(name, Sums()).add(one)
            if name in exact:  # LeRobot 0.4 cannot edit a data set whose episodes have statistics of one channel
                continue
            row |= {f"stats/{name}/{kind}": value for kind, value in one.stats(image=self._is_image(name)).items()}
        self._episodes.append(row)
        self._num_frames += track.num_frames

    def finish(self) -> Exported:
        """Write the files under `meta`, `info.json` last.

        Raises:
            DataSetError: If no episode could be written.
        """
        self._remove_unused()
        if not self._episodes:
            raise DataSetError(f"{self._root}: no episode could be written; {'; '.join(self._broken)}")
        out, prompts = self._out, self._prompts
        tasks = pd.DataFrame({"task_index": list(prompts.values())}, index=pd.Index(list(prompts), name="task"))
        tasks.to_parquet(out / TASKS)
        _table_whole(pa.Table.from_pylist(self._episodes), out / EPISODES / "chunk-000" / "file-000.parquet")
        stats = {name: sums.stats(image=self._is_image(name)) for name, sums in self._sums.items()}
        write_whole(out / STATS, json.dumps(stats, indent=1))
        complete = {"sha256": self._digest(self._contents), "left_out": self._broken}
        write_whole(out / MAP, json.dumps({**self._claim, COMPLETE: complete}, indent=1))
        write_whole(out / INFO, json.dumps(self._info(), indent=1))
        return Exported(len(self._episodes), self._num_frames, self._broken)

    def _remove_unused(self) -> None:
        """Remove the rows and videos of episodes that were left out."""
        rows = {self._out / "data" / f"{file_of(number)}.parquet" for number in range(len(self._episodes))}
        used = rows | self._videos.paths()
        for path in sorted((self._out / "data").rglob("*.parquet")) + sorted((self._out / "videos").rglob("*.mp4")):
            if path not in used:
                path.unlink()

    def _check(self, episode: _Episode) -> None:
        if (other := map_of(episode)) != self._map:
            raise DataSetError(
                f"{self._root}: all episodes of a LeRobot data set have the same cameras and tables; "
                f"{_difference(episode.key, other, self._map)}"
            )
        if len(rates := self._first.track.signature.rates_hz | episode.track.signature.rates_hz) != 1:
            raise DataSetError(
                f"{self._root}: all cameras of a LeRobot data set have the same rate; up to {episode.key} they have "
                f"{' and '.join(f'{rate:g} Hz' for rate in sorted(rates)) or 'none, because there is no camera'}."
            )

    def _write(self, episode: _Episode, number: int) -> dict[str, Any]:
        """Write videos and rows of an episode unless they are there; return its row of `meta/episodes`."""
        track, count, (chunk, file) = episode.track, episode.track.num_frames, divmod(number, FILES_PER_CHUNK)
        target, origin = self._out / "data" / f"{file_of(number)}.parquet", self._origin(episode, number)
        missing = not target.is_file() or (pq.read_schema(target).metadata or {}).get(ORIGIN_KEY) != origin
        if missing:
            target.unlink(missing_ok=True)
        row: dict[str, Any] = {
            "episode_index": number,
            "tasks": list(track.instructions),
            "length": count,
            "data/chunk_index": chunk,
            "data/file_index": file,
            "dataset_from_index": self._num_frames,
            "dataset_to_index": self._num_frames + count,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
            "xwam/key": episode.key,
            "xwam/instructions": json.dumps(list(track.instructions)),
            "xwam/about": json.dumps(track.about.to_json()),
            "xwam/cameras": json.dumps({camera.name: _matrices(camera) for camera in track.cameras}),
        }
        for feature, path, frames, is_depth in self._video_sources(track):
            place = self._videos.add(feature, path, frames, is_depth=is_depth, write=missing)
            video_chunk, video_file = divmod(place.number, FILES_PER_CHUNK)
            row |= {
                f"videos/{feature}/chunk_index": video_chunk,
                f"videos/{feature}/file_index": video_file,
                f"videos/{feature}/from_timestamp": place.start_s,
                f"videos/{feature}/to_timestamp": place.start_s + count / self._fps,
            }
        if missing:  # last: an episode with rows is complete
            table = _rows(episode, number, self._num_frames, self._prompts, self._map)
            _table_whole(table.replace_schema_metadata({ORIGIN_KEY: origin}), target)
        return row

    def _origin(self, episode: _Episode, number: int) -> bytes:
        """Return the hash of everything that decides an episode's rows and videos."""
        place = [EXPORT_VERSION, number, self._num_frames, self._prompts[episode.track.instructions[0]]]
        return sha256_of_values(place, self._videos.codec, self._content(episode)).encode()

    def _content(self, episode: _Episode) -> str:
        """Return the hash of an episode's JSON and videos; a video that cannot be read counts by its error."""
        hashes = []
        for path in (path for camera in episode.track.cameras for path in camera.videos):
            try:
                hashes.append(self._hashes.sha256(path))
            except OSError as error:
                hashes.append(str(error.strerror))
        return sha256_of_values(episode.content, hashes)

    def _video_sources(self, track: Track) -> Iterator[tuple[str, Path, range, bool]]:
        """Yield the videos of an episode: feature, source, frames, whether it is 8-bit depth."""
        for camera in track.cameras:
            source, frames = self._map.cameras[camera.name], range(camera.start, camera.start + track.num_frames)
            yield source.rgb, camera.rgb_path, frames, False
            if source.depth is not None and camera.depth_path is not None:
                yield source.depth, camera.depth_path, frames, True

    def _statistics(self, track: Track, number: int) -> dict[str, Sums]:
        """Return the sums of every feature of an episode; those of images use its middle frame."""
        table = pq.read_table(self._out / "data" / f"{file_of(number)}.parquet")
        exact = {source.depth_mm for source in self._map.cameras.values() if source.depth_mm is not None}
        sums = {
            name: Sums.of(np.array(table[name].to_pylist(), np.float64).reshape(table.num_rows, -1))
            for name in table.column_names
            if name not in exact
        }
        for name in exact:
            png = table[name][table.num_rows // 2].as_py()["bytes"]
            depth = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
            sums[name] = Sums.of(depth.reshape(-1, 1))
        for feature, path, frames, _ in self._video_sources(track):
            sums[feature] = Sums.of(read_frames(path, [frames[len(frames) // 2]]).reshape(-1, 3) / 255)
        return sums

    def _is_image(self, feature: str) -> bool:
        return feature in self._map.image_features()

    def _info(self) -> dict[str, Any]:
        num_episodes, fps = len(self._episodes), self._fps
        return {
            "codebase_version": "v3.0",
            "robot_type": self._first.track.about.bench or "unknown",
            "total_episodes": num_episodes,
            "total_frames": self._num_frames,
            "total_tasks": len(self._prompts),
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": int(fps) if fps == int(fps) else fps,
            "splits": {"train": f"0:{num_episodes}"},
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
            "features": self._features(),
        }

    def _features(self) -> dict[str, Any]:
        features: dict[str, Any] = {
            "observation.state": _floats(len(STATE_NAMES), list(STATE_NAMES)),
            "action": _floats(len(ACTION_NAMES), list(ACTION_NAMES)),
        }
        for group in ("proprios", "actions"):
            for name, source in getattr(self._map, group).items():
                features[source.feature] = _floats(len(self._first.content[group][name][0]))
        axes = ["height", "width", "channels"]
        for camera in self._first.track.cameras:
            source = self._map.cameras[camera.name]
            for feature in (source.rgb, source.depth):
                if feature is not None:
                    hw_px, info = self._videos.infos[feature].hw_px, self._videos.describe(feature)
                    features[feature] = {"dtype": "video", "shape": [*hw_px, 3], "names": axes, "info": info}
            if source.depth_mm is not None and camera.depth_mm_path is not None:
                shape, exact = [*probe(camera.depth_mm_path).hw_px, 1], {"is_depth_map": True, "depth_unit": "mm"}
                features[source.depth_mm] = {"dtype": "image", "shape": shape, "names": axes, "info": exact}
        for name in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
            features[name] = {"dtype": "float32" if name == "timestamp" else "int64", "shape": [1], "names": None}
        return features


def _floats(width: int, names: list[str] | None = None) -> dict[str, Any]:
    return {"dtype": "float32", "shape": [width], "names": names}


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
