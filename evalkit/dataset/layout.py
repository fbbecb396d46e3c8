"""Reads a data set and checks that its episodes are complete.

In: a folder in the released layout. Out: tracks (states, actions and video paths of an episode); the broken episodes.
Read next: `xwam/training/clips.py`, which cuts clips from tracks; `videos.py`; `writer.py`, which writes a folder.

    metadata.json                            {"chunk-0000/episode_0000000": frames}
    data/<key>.json                          states, actions, prompts, cameras
    video/<camera>/<key>.mp4, depth/...      RGB, and depth as an 8-bit video
    depth_mm/<camera>/<key>.mkv              our addition: depth in whole millimetres, lossless

Letters: N control steps of an episode.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from evalkit.contracts.errors import EvalkitError
from evalkit.contracts.geometry import wxyz_from_xyzw
from evalkit.contracts.text import count_of
from evalkit.contracts.types import ARM_ACTION, ARM_PROPRIO
from evalkit.dataset.about import EpisodeAbout
from evalkit.dataset.depth_video import DepthRange
from evalkit.dataset.videos import UnreadableVideo, VideoInfo, VideoNotes, decode, described, probe

ROTATION_TOLERANCE = 1e-2
"""Largest distance of a rotation matrix from an orthonormal one."""

Matrix = tuple[tuple[float, ...], ...]

CAMERA_KINDS: dict[str, Literal["static", "dynamic"]] = {"static": "static", "wrist": "dynamic"}
"""Kind of a camera in a data set, by its kind in the spec of an env or of a model."""

CameraShapes = tuple[tuple[str, frozenset[tuple[int, int]]], ...]
"""Name of each camera of an episode, and the sizes of its images: rows and columns."""


class BrokenEpisode(EvalkitError, ValueError):
    """An episode that cannot be used; the message names the file and the reason."""


class DataSetError(EvalkitError, ValueError):
    """A folder that is not a data set, or a data set that cannot be used for the purpose."""


@dataclass(frozen=True, kw_only=True)
class Camera:
    """One view of an episode.

    Attributes:
        name: Its name. Cameras are sorted by name.
        kind: `dynamic` for a camera that moves with an arm.
        rgb_path: RGB video.
        depth_path: 8-bit depth video. None if there is none.
        depth_mm_path: Depth video in millimetres. None if there is none.
        depth_range: Map from metres to 8-bit depth. None if unknown.
        start: Frame of the videos at which the episode starts.
        fps: Frames per second.
        intrinsics: 3,3 pixels. None if unknown.
        T_base_cam: 4,4, of a static camera. None if unknown.
    """

    name: str
    kind: Literal["static", "dynamic"]
    rgb_path: Path
    depth_path: Path | None
    depth_mm_path: Path | None
    depth_range: DepthRange | None
    start: int
    fps: float
    intrinsics: Matrix | None = None
    T_base_cam: Matrix | None = None

    @property
    def videos(self) -> tuple[Path, ...]:
        """Return the video files that the episode names."""
        return tuple(path for path in (self.rgb_path, self.depth_path, self.depth_mm_path) if path is not None)


class EpisodeSignature(NamedTuple):
    """What a model must match to be trained on an episode.

    Attributes:
        kinds: Kinds of its cameras, in order.
        arms: Arms that exist.
        raw: Whether its actions are raw controller commands.
        rates_hz: Frames per second of its cameras.
        depth_ranges: Maps from metres to its 8-bit depth videos; None for an unknown one.
    """

    kinds: tuple[str, ...]
    arms: tuple[str, ...]
    raw: bool
    rates_hz: frozenset[float]
    depth_ranges: frozenset[DepthRange | None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Track:
    """One episode without its images.

    Attributes:
        key: `chunk-0000/episode_0000000`.
        instructions: Prompts; each of them describes the episode.
        cameras: Its cameras, sorted by name.
        arms: Arms that exist.
        proprio: N,16 float32, (xyz, quat wxyz with w >= 0, gripper) x 2; zeros for an absent arm.
        action: N,14 float32. Raw actions are controller commands with gripper 1 = open. Other actions are the
            difference (m, rad, change of gripper) from the state at the same step; the last change of gripper is 0.
        trusted: N bool, actions that carry loss. False where the expert left its path on purpose.
        raw: Whether actions are raw controller commands.
        executed: N,14 float32, the commands that the robot executed. None if unknown.
        about: Bench, task, seed and policy of the episode.
    """

    key: str
    instructions: tuple[str, ...]
    cameras: tuple[Camera, ...]
    arms: tuple[str, ...]
    proprio: np.ndarray
    action: np.ndarray
    trusted: np.ndarray
    raw: bool
    executed: np.ndarray | None = None
    about: EpisodeAbout = field(default_factory=EpisodeAbout)

    @property
    def num_frames(self) -> int:
        """Return N."""
        return len(self.proprio)

    @property
    def signature(self) -> EpisodeSignature:
        """Return what a model must match."""
        return EpisodeSignature(
            kinds=tuple(camera.kind for camera in self.cameras),
            arms=self.arms,
            raw=self.raw,
            rates_hz=frozenset(camera.fps for camera in self.cameras),
            depth_ranges=frozenset(camera.depth_range for camera in self.cameras if camera.depth_path is not None),
        )


class Broken(NamedTuple):
    """A broken episode and the reason."""

    key: str
    reason: str


class Scan(NamedTuple):
    """The usable and the broken episodes of a data set, and what a reader should know about its videos."""

    lengths: dict[str, int]
    broken: list[Broken]
    signatures: dict[str, EpisodeSignature]
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return the counts in one line."""
        episodes, broken = count_of(len(self.lengths), "episode"), count_of(len(self.broken), "broken episode")
        return f"{episodes}, {sum(self.lengths.values())} frames; {broken} left out"


def read_metadata(root: Path) -> dict[str, int]:
    """Return the number of frames of every episode, sorted by key.

    Raises:
        DataSetError: If `metadata.json` is missing or broken.
    """
    path = root / "metadata.json"
    if not root.is_dir():
        raise DataSetError(f"The data set {root} does not exist.")
    try:
        lengths = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataSetError(f"{path} must list the episodes of a data set as JSON: {error}.") from error
    if not isinstance(lengths, dict) or not all(type(count) is int and count > 0 for count in lengths.values()):
        raise DataSetError(f"{path} must map episodes to whole numbers of frames.")
    return dict(sorted(lengths.items()))


def scan(
    root: Path, *, videos: bool = True, decoded: bool = False, on_episode: Callable[[], None] = lambda: None
) -> Scan:
    """Return the usable and the broken episodes of a data set.

    If more than half of the usable episodes have the same cameras and image sizes, episodes with other ones count as
    broken. Cameras are compared only with `videos`.

    Args:
        root: The data set.
        videos: Whether to count the frames of the videos.
        decoded: Whether to decode every frame of the videos.
        on_episode: Called after each episode.
    """
    lengths: dict[str, int] = {}
    signatures: dict[str, EpisodeSignature] = {}
    broken: list[Broken] = []
    shapes: dict[str, CameraShapes] = {}
    notes: VideoNotes = {}
    for key, count in read_metadata(root).items():
        try:
            track = read_track(root, key)
            shapes[key] = check_against(track, count, videos=videos, decoded=decoded, notes=notes)
            lengths[key], signatures[key] = count, track.signature
        except BrokenEpisode as error:
            broken.append(Broken(key, str(error)))
        on_episode()
    for key, reason in _unusual_cameras(shapes):
        del lengths[key], signatures[key]
        broken.append(Broken(key, f"{root / 'data' / key}.json: {reason}"))
    return Scan(lengths, sorted(broken), signatures, described(notes))


def _unusual_cameras(shapes: Mapping[str, CameraShapes]) -> Iterator[tuple[str, str]]:
    """Yield each episode whose cameras or image sizes differ from those of more than half, and the reason."""
    usual, num_usual = Counter(shapes.values()).most_common(1)[0] if shapes else ((), 0)
    for key, own in shapes.items() if 2 * num_usual > len(shapes) else ():
        if own != usual:
            yield key, f"its cameras are {_listed(own)}; most episodes here have {_listed(usual)}."


def _listed(shapes: CameraShapes) -> str:
    """Return cameras and their image sizes as text.

    Example:
        >>> _listed((("front", frozenset({(64, 48)})), ("wrist", frozenset({(64, 64)}))))
        'front (64x48), wrist (64x64)'
    """
    sizes = {name: " and ".join(f"{rows}x{cols}" for rows, cols in sorted(of)) for name, of in shapes}
    return ", ".join(f"{name} ({size})" for name, size in sizes.items()) or "none"


def tracks(root: Path) -> Iterator[Track]:
    """Yield the episodes whose states and actions are complete, one at a time; videos are not checked, see `scan`."""
    for key, count in read_metadata(root).items():
        try:
            track = read_track(root, key)
            check_against(track, count, videos=False)
        except BrokenEpisode:
            continue
        yield track


def check_against(
    track: Track, count: int, *, videos: bool, decoded: bool = False, notes: VideoNotes | None = None
) -> CameraShapes:
    """Return the image sizes of an episode's cameras, after a check of its length.

    Args:
        track: The episode.
        count: Frames that `metadata.json` states.
        videos: Whether to count the frames of the videos; without, no camera is returned.
        decoded: Whether to decode every frame of the videos.
        notes: Takes what a reader should know about the videos.

    Raises:
        BrokenEpisode: If states, actions or videos are shorter than stated, or a video cannot be read or is of another
            kind than its name says.
    """
    if track.num_frames != count:
        raise BrokenEpisode(f"{track.key}: the episode has {track.num_frames} frames, metadata.json says {count}.")
    shapes = []
    for camera in track.cameras if videos else ():
        try:
            infos = {path: probe(path) for path in camera.videos}
            for path, info in infos.items():
                if problem := _problem(camera, path, info, count):
                    raise BrokenEpisode(f"{track.key}: {path} {problem}.")
                if decoded:
                    decode(path, range(camera.start, camera.start + count))
                for note in info.notes_at(camera.fps):
                    if notes is not None:
                        notes.setdefault(note, {})[path] = None
        except UnreadableVideo as error:
            raise BrokenEpisode(f"{track.key}: {error}") from error
        shapes.append((camera.name, frozenset(info.hw_px for info in infos.values())))
    return tuple(shapes)


def _problem(camera: Camera, path: Path, info: VideoInfo, count: int) -> str | None:
    """Return why a video does not hold what the episode names it for; None if it does."""
    if info.num_frames < camera.start + count:
        return f"holds {info.num_frames} frames, {count} from frame {camera.start} on are needed"
    if path == camera.depth_mm_path:
        exact = info.is_grey and info.bits == 16
        return None if exact else f"has the pixel format {info.pix_fmt}, depth in millimetres has gray16le"
    if info.is_grey and info.bits > 8:
        return f"is grey with {info.bits} bits, {'RGB' if path == camera.rgb_path else '8-bit depth'} is needed"
    return None


def read_track(root: Path, key: str) -> Track:
    """Return one episode of a data set.

    Raises:
        BrokenEpisode: If its JSON is missing or broken, or is not an episode.
    """
    path = root / "data" / f"{key}.json"
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BrokenEpisode(f"{path} cannot be read: {error}.") from error
    try:
        return track_from_json(content, root=root, key=key)
    except BrokenEpisode:
        raise
    except KeyError as error:
        raise BrokenEpisode(f"{path} lacks {error}.") from error
    except (TypeError, AttributeError, ValueError, IndexError, OverflowError) as error:
        raise BrokenEpisode(f"{path} is not in the form of an episode: {error}.") from error


def track_from_json(content: Mapping[str, Any], *, root: Path, key: str) -> Track:
    """Return the episode that a JSON describes.

    Raises:
        BrokenEpisode: If a field has a wrong form or length. `read_track` turns the other errors of malformed content
            (KeyError, TypeError and similar ones) into it.
    """
    file, count = root / "data" / f"{key}.json", content["num_frames"]
    if type(count) is not int or count < 1:
        raise BrokenEpisode(f"{file}: 'num_frames' must be a whole number above 0, got {_shown(count)}.")
    tables = {
        f"{group}.{name}": _rows(file, f"{group}.{name}", rows, count)
        for group in ("proprios", "actions")
        for name, rows in content[group].items()
    }
    tables.setdefault("actions.trusted", np.ones((count, 1), np.float32))
    arms = tuple(arm for arm in ARM_PROPRIO if f"proprios.{arm}_ee_pos" in tables)
    if not arms:
        raise BrokenEpisode(f"{file}: the states hold neither 'left_ee_pos' nor 'right_ee_pos'.")
    raw, views = "actions.raw_actions" in tables, content.get("observations", {})
    return Track(
        key=key,
        instructions=_instructions(file, content["instructions"]),
        cameras=tuple(_camera(file, root, name, view) for name, view in sorted(views.items())),
        arms=arms,
        proprio=_proprio(file, tables, arms),
        action=_raw_action(file, tables, arms) if raw else _delta_action(file, tables, arms),
        trusted=_table(file, tables, "actions.trusted", 1)[:, 0] > 0,
        raw=raw,
        executed=_table(file, tables, "actions.executed", 14) if "actions.executed" in tables else None,
        about=_about(file, content.get("about")),
    )


def _about(file: Path, stated: Any) -> EpisodeAbout:
    try:
        return EpisodeAbout.from_json(stated or {})
    except ValueError as error:
        raise BrokenEpisode(f"{file}: {error}") from error


def _instructions(file: Path, stated: Any) -> tuple[str, ...]:
    """Return the prompts; text in place of a list is refused, because each letter would become a prompt."""
    if not isinstance(stated, list) or not stated or not all(isinstance(one, str) and one.strip() for one in stated):
        raise BrokenEpisode(
            f"{file}: 'instructions' must be a list of one or more sentences, none of them empty, got {_shown(stated)}."
        )
    return tuple(stated)


def _camera(file: Path, root: Path, name: str, view: Mapping[str, Any]) -> Camera:
    prefix = f"observations.{name}"
    kind, fps, start = view["type"], _number(file, f"{prefix}.fps", view["fps"]), view.get("start", 0)
    if kind not in ("static", "dynamic"):
        raise BrokenEpisode(f"{file}: '{prefix}.type' must be static or dynamic, got {_shown(kind)}.")
    if fps <= 0:
        raise BrokenEpisode(f"{file}: '{prefix}.fps' must be above 0, got {fps}.")
    if _number(file, f"{prefix}.start", start) != int(start) or start < 0:
        raise BrokenEpisode(f"{file}: '{prefix}.start' must be the number of a frame, from 0, got {start}.")
    return Camera(
        name=name,
        kind=kind,
        rgb_path=root / view["rgb_path"],
        depth_path=root / view["depth_path"] if view.get("depth_path") else None,
        depth_mm_path=root / view["depth_mm_path"] if view.get("depth_mm_path") else None,
        depth_range=_depth_range(file, f"{prefix}.depth_range", view.get("depth_range")),
        start=int(start),
        fps=fps,
        intrinsics=_matrix(file, f"{prefix}.intrinsics", view.get("intrinsics"), 3),
        T_base_cam=_matrix(file, f"{prefix}.T_base_cam", view.get("T_base_cam"), 4),
    )


def _depth_range(file: Path, name: str, stated: Mapping[str, Any] | None) -> DepthRange | None:
    """Return the map from metres to the depth video; None if unknown."""
    if stated is None:
        return None
    depth_range = DepthRange(**{key: _number(file, f"{name}.{key}", value) for key, value in stated.items()})
    if not -depth_range.offset_m < depth_range.near_m < depth_range.far_m:
        raise BrokenEpisode(f"{file}: '{name}' must go from near to far, got {depth_range}.")
    return depth_range


def _matrix(file: Path, name: str, rows: Any, size: int) -> Matrix | None:
    """Return a square matrix of a camera; None if unknown.

    Raises:
        BrokenEpisode: If it is of another size, or not finite.
    """
    if rows is None:
        return None
    matrix = _rows(file, name, rows, size)
    if matrix.shape != (size, size):
        raise BrokenEpisode(f"{file}: '{name}' must be {size}x{size}, got {matrix.shape}.")
    return tuple(tuple(float(number) for number in row) for row in rows)


def _number(file: Path, name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise BrokenEpisode(f"{file}: '{name}' must be a finite number, got {_shown(value)}.")
    return float(value)


def _shown(value: Any) -> str:
    """Return a value as text that fits into a sentence."""
    return f"{value!r:.80}"


def _rows(file: Path, name: str, rows: Any, count: int) -> np.ndarray:
    """Return a table as N,X float32; the released numbers come from subtractions in this type."""
    try:
        table = np.array(rows, np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise BrokenEpisode(f"{file}: '{name}' is not a table of numbers: {error}.") from error
    if len(table.shape) != 2 or len(table) != count:
        raise BrokenEpisode(f"{file}: '{name}' has the shape {table.shape}, {count} rows are needed.")
    if not np.isfinite(table).all():
        raise BrokenEpisode(f"{file}: '{name}' holds values that are not finite.")
    return table


def _table(file: Path, tables: Mapping[str, np.ndarray], name: str, width: int) -> np.ndarray:
    """Return one table of an episode, N,width.

    Raises:
        BrokenEpisode: If it is missing, or its rows have another width.
    """
    if name not in tables:
        raise BrokenEpisode(f"{file}: there is no '{name}', rows of {width} are needed.")
    if (actual := tables[name].shape[1]) != width:
        raise BrokenEpisode(f"{file}: '{name}' has rows of {actual}, {width} are needed.")
    return tables[name]


def _proprio(file: Path, tables: Mapping[str, np.ndarray], arms: tuple[str, ...]) -> np.ndarray:
    proprio = np.zeros((len(tables[f"proprios.{arms[0]}_ee_pos"]), 16), np.float32)
    for arm in arms:
        position = _table(file, tables, f"proprios.{arm}_ee_pos", 3)
        quat_wxyz = wxyz_from_xyzw(_rotation(file, tables, f"proprios.{arm}_ee_rotm").as_quat())
        gripper = _table(file, tables, f"proprios.{arm}_gripper_pos", 1)
        proprio[:, ARM_PROPRIO[arm]] = np.hstack([position, quat_wxyz, gripper])
    return proprio


def _delta_action(file: Path, tables: Mapping[str, np.ndarray], arms: tuple[str, ...]) -> np.ndarray:
    """Return the difference from the state of each step to its goal pose: R_delta = R_goal R_state^T."""
    action = np.zeros((len(tables[f"proprios.{arms[0]}_ee_pos"]), 14), np.float32)
    for arm in arms:
        goal, state = (_table(file, tables, f"{group}.{arm}_ee_pos", 3) for group in ("actions", "proprios"))
        R_goal, R_state = (_rotation(file, tables, f"{group}.{arm}_ee_rotm") for group in ("actions", "proprios"))
        gripper = _table(file, tables, f"proprios.{arm}_gripper_pos", 1)
        change = np.diff(gripper, axis=0, append=gripper[-1:])
        action[:, ARM_ACTION[arm]] = np.hstack([goal - state, (R_goal * R_state.inv()).as_rotvec(), change])
    return action


def _raw_action(file: Path, tables: Mapping[str, np.ndarray], arms: tuple[str, ...]) -> np.ndarray:
    """Return the controller commands; 1 closes robosuite's gripper, and opens the model's."""
    raw = _table(file, tables, "actions.raw_actions", 7 * len(arms))
    action, opens = np.zeros((len(raw), 14), np.float32), np.array([1, 1, 1, 1, 1, 1, -1], np.float32)
    for index, arm in enumerate(arms):
        action[:, ARM_ACTION[arm]] = raw[:, 7 * index : 7 * index + 7] * opens
    return action


def _rotation(file: Path, tables: Mapping[str, np.ndarray], name: str) -> Rotation:
    matrices = _table(file, tables, name, 9).astype(np.float64).reshape(-1, 3, 3)
    if np.abs(matrices @ matrices.transpose(0, 2, 1) - np.eye(3)).max() > ROTATION_TOLERANCE:
        raise BrokenEpisode(f"{file}: '{name}' holds a rotation matrix that is not orthonormal.")
    if (least := np.linalg.det(matrices).min()) < 0:
        raise BrokenEpisode(f"{file}: '{name}' holds a reflection, with determinant {least:.0f}; rotations have 1.")
    return Rotation.from_matrix(matrices)
