"""Imports a LeRobot data set (v2.0, v2.1, v3.0): one of our exports unchanged, any other one by a map.

In: a folder in LeRobot's format, a map of its features. Out: a folder in our layout; the broken episodes by name.
Read next: `lerobot_read.py`, which reads the folder; `lerobot_camera.py` for its images; `layout.py` for the layout.

Videos are copied as they are, even if they hold several episodes: an episode states the frame at which it starts. The
name of a copy holds a hash of its content, so one name never means two videos. Depth images become lossless video in
millimetres, and the 8-bit video is derived from them.

An episode whose rows change their task becomes one episode per run of rows with the same task. Each episode states
what it was made from (`Origin`); only an episode that would be made from the same content again is skipped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from evalkit.contracts.files import write_whole
from evalkit.contracts.fingerprint import ORIGIN, FileHashes, Origin, read_origin, sha256_of_values
from evalkit.contracts.text import count_of
from evalkit.dataset.about import EpisodeAbout
from evalkit.dataset.layout import Broken, DataSetError, check_against, read_track
from evalkit.dataset.lerobot_camera import CameraWriter
from evalkit.dataset.lerobot_copies import VideoFiles
from evalkit.dataset.lerobot_format import INFO
from evalkit.dataset.lerobot_metadata import LerobotEpisode, one_line
from evalkit.dataset.lerobot_read import LerobotSet, Segment
from evalkit.dataset.writer import episode_key, write_metadata

IMPORT_VERSION = 2
"""Raised when the same source gives other episodes, so that they are written again."""

LEAST_STEP = 10_000
"""Smallest step between the numbers of the parts of a split episode."""

KEY = re.compile(r"chunk-\d+/episode_\d+")
"""Form of the key of an episode."""

PARTS = "imported_parts"
"""Field of `about` in a part of a split episode: the number of its parts."""


class Imported(NamedTuple):
    """Result of an import: episodes in the folder, what was left out and why, and sentences that users should read."""

    num_episodes: int
    broken: list[Broken]
    notes: list[str]


def import_episodes(opened: LerobotSet, out: Path, *, on_episode: Callable[[], None] = lambda: None) -> Imported:
    """Write the episodes in our layout; a second call writes those that are missing or whose source has changed.

    Args:
        opened: The LeRobot data set.
        out: Folder to write.
        on_episode: Called after each episode.

    Raises:
        DataSetError: If `out` holds a data set of LeRobot, or episodes that were not imported from this data set.
    """
    if (out / INFO).exists():
        raise DataSetError(
            f"{out} holds a data set of LeRobot, which an import would be mixed with; give another folder."
        )
    return _Importer(opened, out).run(on_episode)


class _Importer:
    """Writes the episodes of a data set.

    Args:
        opened: The LeRobot data set.
        out: The new data set.
    """

    def __init__(self, opened: LerobotSet, out: Path) -> None:
        self._opened, self._out, self._hashes = opened, out, FileHashes()
        self._files = VideoFiles(out, self._hashes)
        self._keys = _Keys.of(opened.episodes)
        self._broken, self._notes = list(opened.broken), list[str]()
        self._unread = dict[int, str]()
        if self._keys.unfit:
            self._notes.append(
                f"{count_of(len(self._keys.unfit), 'xwam/key')} in meta/episodes ({self._keys.unfit[0]!r:.80}) without "
                f"the form chunk-0000/episode_0000000; all episodes are called by their numbers."
            )

    def run(self, on_episode: Callable[[], None]) -> Imported:
        """Write what is missing or has changed, remove what the source no longer has; return the result."""
        present = {path: read_origin(path) for path in sorted((self._out / "data").glob("chunk-*/episode_*.json"))}
        origins = {episode.number: self._origin(episode) for episode in self._opened.episodes}
        self._claim(present, origins)
        paths_of: dict[int | None, list[Path]] = {}
        for path in present:
            paths_of.setdefault(self._keys.owner(f"{path.parent.name}/{path.stem}"), []).append(path)
        for episode in self._opened.episodes:
            paths, origin = paths_of.pop(episode.number, []), origins[episode.number]
            if paths and origin is None:
                reason = self._unread[episode.number]
                self._leave_out(episode, f"it cannot be compared with its source, so the imported one stays: {reason}")
            elif not self._is_complete({path: present[path] for path in paths}, origin):
                self._files.remove_episodes(paths)
                self._write(episode, origin)
            on_episode()
        if stale := [path for paths in paths_of.values() for path in paths]:
            self._files.remove_episodes(stale)
            self._notes.append(
                f"{count_of(len(stale), 'episode')} removed, because {self._opened.root} no longer holds them: "
                f"{', '.join(path.stem for path in stale[:5])}{', ...' if len(stale) > 5 else ''}."
            )
        self._files.remove_unused()
        return Imported(len(write_metadata(self._out)), self._broken, self._notes)

    def _origin(self, episode: LerobotEpisode) -> Origin | None:
        """Return what an episode is made from; None if one of its files cannot be read."""
        opened = self._opened
        videos = [name for name in opened.feature_map.image_features() if opened.is_video(name)]
        try:
            paths = [*opened.rows_paths(episode), *(opened.video_path(episode, name) for name in videos)]
            paths += opened.image_paths(episode)
            hashes = [self._hashes.sha256(path) for path in paths]
        except (OSError, ValueError, pa.ArrowException) as error:
            self._unread[episode.number] = one_line(error)
            return None
        features = {name: opened.info["features"][name] for name in opened.feature_map.features()}
        settings = [IMPORT_VERSION, opened.feature_map.to_json(), opened.fps, features, sorted(opened.tasks.items())]
        row = json.loads(json.dumps(episode.row, default=str))
        return Origin(source=str(opened.root.resolve()), sha256=sha256_of_values(settings, row, hashes))

    def _is_complete(self, present: Mapping[Path, Origin | None], origin: Origin | None) -> bool:
        """Return whether all parts of an episode are there with whole videos, made from what would be read now."""
        if origin is None or not present or not all(origin.same_content(other) for other in present.values()):
            return False
        about = json.loads(next(iter(present)).read_text()).get("about") or {}
        return len(present) == about.get(PARTS, 1) and all(map(self._files.are_whole, present))

    def _claim(self, present: Mapping[Path, Origin | None], origins: Mapping[int, Origin | None]) -> None:
        """Raise DataSetError if the folder holds episodes that are not from this data set."""
        here = str(self._opened.root.resolve())
        known = {origin.sha256 for origin in origins.values() if origin is not None}
        for path, origin in present.items():
            if origin is None or (origin.source != here and origin.sha256 not in known):
                source = (
                    "no import, or one of an older version, wrote" if origin is None else f"come from {origin.source}"
                )
                raise DataSetError(
                    f"{self._out} already holds episodes that {source} ({path.stem} is one); those of {here} would be "
                    f"mixed with them. Give another folder."
                )

    def _write(self, episode: LerobotEpisode, origin: Origin | None) -> None:
        """Write the parts of an episode, or name what is wrong with it."""
        written = list[Path]()
        try:
            for number, (key, content) in enumerate(self._parts(episode)):
                path = self._out / "data" / f"{key}.json"
                written.append(path)
                write_whole(path, json.dumps({**content, ORIGIN: origin.to_json() if origin else None}))
                check_against(read_track(self._out, key), content["num_frames"], videos=number == 0)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, pa.ArrowException) as error:
            self._files.remove_episodes(written)
            self._leave_out(episode, one_line(error))

    def _leave_out(self, episode: LerobotEpisode, reason: str) -> None:
        self._broken.append(Broken(self._keys.parts(episode, 1)[0], f"episode {episode.number}: {reason}."))

    def _parts(self, episode: LerobotEpisode) -> list[tuple[str, dict[str, Any]]]:
        """Write the videos of an episode; return key and JSON of each of its parts.

        Raises:
            ValueError: If rows or images differ from what the data set states.
        """
        opened, rows = self._opened, self._opened.rows(episode)
        tables = {
            group: {
                name: source.table({source.feature: rows.numbers(source.feature)})
                for name, source in getattr(opened.feature_map, group).items()
            }
            for group in ("proprios", "actions")
        }
        segments, matrices = rows.segments(), episode.addition("cameras", dict)
        keys = self._keys.parts(episode, len(segments))
        views = {}
        for name, view in opened.feature_map.cameras.items():
            entry, notes = CameraWriter(opened, episode, rows, view, self._files).write(f"{name}/{keys[0]}")
            views[name] = {**entry, **_matrices(matrices.get(name) or {}, name)}
            self._notes += [f"episode {episode.number}: {note}." for note in notes]
        if len(segments) > 1:
            changes = [f"row {segment.first}" for segment in segments[1:]]
            self._notes.append(
                f"episode {episode.number}: its task changes at {', '.join(changes[:5])}"
                f"{', ...' if len(changes) > 5 else ''}; it becomes {len(segments)} episodes."
            )
        return [
            (key, _content(episode, segment, len(segments), tables, views))
            for key, segment in zip(keys, segments, strict=True)
        ]


def _content(
    episode: LerobotEpisode,
    segment: Segment,
    num_segments: int,
    tables: Mapping[str, Mapping[str, np.ndarray]],
    views: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the JSON of the part of an episode that has one task."""
    rows = slice(segment.first, segment.stop)
    about = EpisodeAbout.from_json(episode.addition("about", dict))
    part = {"imported_episode": episode.number, "imported_first_row": segment.first, PARTS: num_segments}
    other = {name: value for name, value in about.other.items() if name not in part}  # of an import before an export
    about = replace(about, other={**other, **(part if num_segments > 1 else {})})
    return {
        "num_frames": segment.stop - segment.first,
        "instructions": _instructions(episode, segment.task),
        "observations": {
            name: {**view, "start": view["start"] + segment.first, "end": view["start"] + segment.stop}
            for name, view in views.items()
        },
        **{group: {name: table[rows].tolist() for name, table in of.items()} for group, of in tables.items()},
        "about": about.to_json(),
    }


def _instructions(episode: LerobotEpisode, task: str) -> list[str]:
    """Return the prompts of rows: their task, and in one of our exports the other prompts of the episode."""
    prompts = episode.addition("instructions", list)
    if not all(isinstance(prompt, str) for prompt in prompts):
        raise ValueError(f"its 'xwam/instructions' in meta/episodes must be texts, got {prompts!r:.80}")
    if not prompts and episode.row.get("xwam/key"):
        prompts = list(episode.tasks)
    return prompts if task in prompts else [task]


def _matrices(stated: Any, camera: str) -> dict[str, Any]:
    """Return the camera matrices that one of our exports states.

    Raises:
        ValueError: If it states anything else.
    """
    if not isinstance(stated, Mapping) or not stated.keys() <= {"intrinsics", "T_base_cam"}:
        raise ValueError(
            f"its 'xwam/cameras' in meta/episodes must state intrinsics and T_base_cam of '{camera}', "
            f"got {stated!r:.80}"
        )
    return dict(stated)


@dataclass(frozen=True, kw_only=True)
class _Keys:
    """Keys of the parts of each episode.

    The first part has the key of the episode. Part `p` of number `n` has the number `n + p * step`, which belongs to no
    other episode.

    Attributes:
        firsts: Key of the first part, by number of the episode.
        numbers: Number in that key, by number of the episode.
        step: A power of ten above all numbers.
        unfit: Stated keys of another form, for which all keys follow from the numbers of the episodes.
    """

    firsts: Mapping[int, str]
    numbers: Mapping[int, int]
    step: int
    unfit: Sequence[Any]

    @classmethod
    def of(cls, episodes: Iterable[LerobotEpisode]) -> _Keys:
        """Return the keys; those of one of our exports, unless an edit of it gave a key to two episodes."""
        firsts = {one.number: one.row.get("xwam/key") or episode_key(one.number) for one in episodes}
        if unfit := [key for key in firsts.values() if not isinstance(key, str) or not KEY.fullmatch(key)]:
            numbers = dict[int, int]()
        else:
            numbers = {number: int(key.rpartition("_")[2]) for number, key in firsts.items()}
        if len(set(numbers.values())) < len(firsts):
            firsts, numbers = {number: episode_key(number) for number in firsts}, {number: number for number in firsts}
        step = LEAST_STEP
        while step <= max(numbers.values(), default=0):
            step *= 10
        return cls(firsts=firsts, numbers=numbers, step=step, unfit=unfit)

    def parts(self, episode: LerobotEpisode, count: int) -> list[str]:
        """Return the keys of an episode's parts."""
        later = (episode_key(self.numbers[episode.number] + part * self.step) for part in range(1, count))
        return [self.firsts[episode.number], *later]

    def owner(self, key: str) -> int | None:
        """Return the number of the episode to which a key belongs; None if there is none."""
        number = int(key.rpartition("_")[2])
        episode = self._by_number.get(number % self.step)
        return episode if episode is not None and key in (self.firsts[episode], episode_key(number)) else None

    @cached_property
    def _by_number(self) -> dict[int, int]:
        return {number: episode for episode, number in self.numbers.items()}
