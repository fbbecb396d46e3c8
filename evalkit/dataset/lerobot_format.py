"""LeRobot's data set format: its paths, and the map from its features to the tables and cameras of our layout.

In: a JSON map of features. Out: the map as a type; paths of files.
Read next: `lerobot_export.py` and `lerobot_import.py`.

    meta/info.json                          version, rate, features with their shapes and names, templates of paths
    meta/episodes/*/*.parquet (v3.0)        one episode per row: prompts, length, position of its rows and frames
    meta/episodes.jsonl       (v2.x)        the same; the positions follow from the episode's number
    meta/tasks.parquet, meta/stats.json     prompts by number; mean, spread, minimum and maximum of every feature
    data/*/*.parquet                        one control step per row; images (here: depth) inside, as PNG
    videos/.../*.mp4                        one camera; one episode (v2.x) or several in sequence (v3.0)
    meta/xwam.json                          our addition: the map from features to tables and cameras of our layout
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from scipy.spatial.transform import Rotation

from evalkit.contracts.geometry import xyzw_from_wxyz
from evalkit.dataset.depth_video import DepthRange
from evalkit.dataset.layout import DataSetError

INFO, MAP, STATS, TASKS = (Path("meta") / name for name in ("info.json", "xwam.json", "stats.json", "tasks.parquet"))
EPISODES, EPISODES_V2, TASKS_V2 = Path("meta/episodes"), Path("meta/episodes.jsonl"), Path("meta/tasks.jsonl")
FILES_PER_CHUNK = 1000

STATE_NAMES = tuple(
    f"{arm}_{name}" for arm in ("left", "right") for name in ("x", "y", "z", "qw", "qx", "qy", "qz", "gripper_open")
)
ACTION_NAMES = tuple(
    f"{arm}_{name}" for arm in ("left", "right") for name in ("dx", "dy", "dz", "rx", "ry", "rz", "gripper")
)

UNIT_TOLERANCE = 0.01
"""Largest distance of a quaternion's length from 1."""

LONGEST_ROTVEC_RAD = 2 * np.pi + 0.01
"""Longer rotation vectors are probably in degrees."""

RotationKind = Literal["quat_wxyz", "quat_xyzw", "rotvec"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Origin of a table of our layout.

    Attributes:
        feature: Name of a feature.
        columns: The columns to take; None for all.
        rotation: Representation of a rotation; None for the nine numbers of its matrix.
    """

    feature: str
    columns: tuple[int, ...] | None = None
    rotation: RotationKind | None = None

    def table(self, rows: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the table, N,X, from an episode's features.

        Raises:
            ValueError: If the feature or one of its columns does not exist.
        """
        if self.feature not in rows:
            raise ValueError(f"there is no feature '{self.feature}'; the features are {', '.join(sorted(rows))}")
        values = rows[self.feature].reshape(len(rows[self.feature]), -1)
        if self.columns is not None:
            if max(self.columns) >= values.shape[1]:
                raise ValueError(f"'{self.feature}' has {values.shape[1]} columns, columns {self.columns} are needed")
            values = values[:, list(self.columns)]
        return values if self.rotation is None else self._matrices(values)

    def _matrices(self, values: np.ndarray) -> np.ndarray:
        """Return rotations as the nine numbers of their matrices, N,9.

        Raises:
            ValueError: If the values are not rotations of this kind.
        """
        width, lengths = (3 if self.rotation == "rotvec" else 4), np.linalg.norm(values, axis=1)
        if values.shape[1] != width:
            raise ValueError(
                f"'{self.feature}': a {self.rotation} has {width} columns, the map names {values.shape[1]}"
            )
        if self.rotation == "rotvec":
            if lengths.max() > LONGEST_ROTVEC_RAD:
                raise ValueError(
                    f"'{self.feature}': a rotation vector has the length {lengths.max():.1f}, radians are needed"
                )
            return Rotation.from_rotvec(values).as_matrix().reshape(-1, 9)
        if np.abs(lengths - 1).max() > UNIT_TOLERANCE:
            raise ValueError(
                f"'{self.feature}': quaternions have lengths from {lengths.min():.3f} to {lengths.max():.3f}, 1 is "
                f"needed; check the columns"
            )
        quat_xyzw = xyzw_from_wxyz(values) if self.rotation == "quat_wxyz" else values
        return Rotation.from_quat(quat_xyzw).as_matrix().reshape(-1, 9)


@dataclass(frozen=True, kw_only=True)
class CameraSource:
    """Features that hold the images of a camera.

    Attributes:
        kind: `dynamic` for a camera that moves with an arm.
        rgb: RGB, as video or as images.
        depth: 8-bit depth, as video. None if there is none.
        depth_mm: Depth in millimetres, as 16-bit images. None if there is none.
        depth_range: Map from metres to 8 bits. None if unknown.
    """

    kind: Literal["static", "dynamic"]
    rgb: str
    depth: str | None = None
    depth_mm: str | None = None
    depth_range: DepthRange | None = None


@dataclass(frozen=True, kw_only=True)
class FeatureMap:
    """Map from the features of a LeRobot data set to the cameras and tables of our layout.

    Attributes:
        cameras: Cameras by name; the sorted names give the order of the views.
        proprios: Tables of states, for example `left_ee_pos`, `left_ee_rotm`, `left_gripper_pos`.
        actions: Tables of actions: the same names, or `raw_actions`.
    """

    cameras: Mapping[str, CameraSource]
    proprios: Mapping[str, Source]
    actions: Mapping[str, Source]

    def image_features(self) -> list[str]:
        """Return the features that hold images."""
        return [name for view in self.cameras.values() for name in (view.rgb, view.depth, view.depth_mm) if name]

    def features(self) -> list[str]:
        """Return all features that the map names, sorted."""
        tables = {source.feature for group in (self.proprios, self.actions) for source in group.values()}
        return sorted(tables | set(self.image_features()))

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; `from_json` gives the same map back."""
        return _without_nones(asdict(self))

    @classmethod
    def from_json(cls, data: Any, *, source: Path) -> FeatureMap:
        """Return the map that a file holds; the name of a feature is enough for a table.

        Raises:
            DataSetError: If the file does not hold a map.
        """
        try:
            return cls(
                cameras={_file_name(name): _camera(view) for name, view in sorted(data["cameras"].items())},
                proprios={name: _source(value) for name, value in data["proprios"].items()},
                actions={name: _source(value) for name, value in data["actions"].items()},
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise DataSetError(
                f"{source} must map features to tables and cameras as docs/data.md describes: {reason}."
            ) from error


def read_map(path: Path) -> FeatureMap:
    """Return the map in a file.

    Raises:
        DataSetError: If it cannot be read.
    """
    return FeatureMap.from_json(read_json(path), source=path)


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        DataSetError: If it is missing or broken.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataSetError(f"{path} cannot be read: {error}.") from error


def file_of(number: int) -> str:
    """Return the chunk and file of an episode in an export; each episode has its own file.

    Example:
        >>> file_of(1234)
        'chunk-001/file-234'
    """
    return f"chunk-{number // FILES_PER_CHUNK:03d}/file-{number % FILES_PER_CHUNK:03d}"


def _file_name(name: str) -> str:
    """Return the name of a camera, which names folders too.

    Raises:
        ValueError: If it cannot.
    """
    if name in ("", ".", "..") or set(name) & set("/\\\0"):
        raise ValueError(f"'{name}' cannot be the name of a camera, because folders get it")
    return name


def _camera(view: Mapping[str, Any]) -> CameraSource:
    depth_range = view.get("depth_range")
    if view["kind"] not in ("static", "dynamic"):
        raise ValueError(f"kind '{view['kind']}' of a camera, which must be static or dynamic")
    return CameraSource(**{**view, "depth_range": None if depth_range is None else DepthRange(**depth_range)})


def _source(value: str | Mapping[str, Any]) -> Source:
    if isinstance(value, str):
        return Source(feature=value)
    columns: Sequence[int] | None = value.get("columns")
    if value.get("rotation") not in (None, *get_args(RotationKind)):
        raise ValueError(f"rotation '{value['rotation']}', which must be one of {', '.join(get_args(RotationKind))}")
    if columns is not None and not (
        isinstance(columns, list) and columns and all(type(column) is int and column >= 0 for column in columns)
    ):
        raise ValueError(f"columns {columns!r:.40}, which must be a list of whole numbers from 0")
    return Source(**{**value, "columns": None if columns is None else tuple(columns)})


def _without_nones(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_nones(inner) for name, inner in value.items() if inner is not None}
    return value
