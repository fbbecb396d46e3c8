"""Clips: the prediction and the ground truth of each executed chunk of an episode.

In: predictions and observations of one episode. Out: one HDF5 file, lossless (RGB as is, depth as uint16 millimetres).
Read next: `evalkit/run/recorder.py`, which writes it; `evalkit/score/`, which reads it.

Layout: attributes `format`, `plan_sha256`, `episode`, `env_spec`, `policy_spec` (JSON) and `outcome`; then a group a
chunk, `chunks/0000`, with attributes `step_idx`, `num_executed`, `frame_stride`, the executed `actions_nd`, the group
`start` (the observation of the policy), the group `true` (F_true frames of ground truth, one every `frame_stride`
executed steps) and, if the policy predicts, the group `predicted` (F frames, F_true unless the episode ends early or an
older version wrote the clip; the first F_true have ground truth). A chunk whose executed steps reach no predicted frame
has no group `predicted`.

Letters: F frames, N executed steps, V views, H W rows and columns.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from evalkit.contracts.errors import RunFolderError
from evalkit.contracts.spec import EnvSpec
from evalkit.contracts.types import Episode, Observation, Prediction
from evalkit.store.files import write_whole

try:
    from isal import isal_zlib as zlib  # the same format, a third of the time
except ImportError:  # there is no wheel for some platforms
    import zlib  # type: ignore[no-redef]

FORMAT = "evalkit-clip-1"
BROKEN = (OSError, RuntimeError, KeyError, ValueError, TypeError)
"""What h5py raises for a file that is truncated or overwritten."""

GZIP_LEVEL = 1
"""Higher levels take several times as long for a few per cent."""

MAX_DEPTH_M = 65.535
"""Largest depth that uint16 millimetres can hold; a larger depth is stored as this value."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Frames:
    """RGB-D frames with states and cameras.

    Attributes:
        rgb_fvhwc_u8: F,V,H,W,3.
        depth_fvhw_m: F,V,H,W float32, metres along the optical axis, 0 where unknown.
        proprio_fd: F,16 float32, see `contracts.types.PROPRIO_DIM`.
        T_base_cam_fv44: F,V,4,4.
    """

    rgb_fvhwc_u8: np.ndarray
    depth_fvhw_m: np.ndarray
    proprio_fd: np.ndarray
    T_base_cam_fv44: np.ndarray

    @classmethod
    def stack(cls, observations: Sequence[Observation], *, like: Observation) -> Frames:
        """Return observations as frames; `like` gives the shapes where there are none."""
        return cls(
            rgb_fvhwc_u8=_stack([o.rgb for o in observations], like.rgb),
            depth_fvhw_m=_stack([o.depth for o in observations], like.depth),
            proprio_fd=_stack([o.proprio for o in observations], like.proprio),
            T_base_cam_fv44=_stack([o.T_base_cam for o in observations], like.T_base_cam),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipChunk:
    """One executed chunk.

    Attributes:
        chunk_idx: Position in the episode, from 0.
        step_idx: Control steps executed before it.
        num_executed: Control steps that it executed.
        frame_stride: Control steps between frames.
        intrinsics_v33_px: V,3,3.
        start: One frame: the observation of the policy.
        true: Ground truth; fewer frames than predicted if the episode ended within the chunk.
        predicted: The prediction; None if the policy predicts nothing or the executed steps reach no predicted frame.
            Depth that is not finite or not positive is read as 0.
        actions_nd: N,14 float32, the executed actions in the env's layout; None if not recorded.
        view_hw_px: Rows and columns of each view where views differ in size; each fills the upper left corner of its
            arrays, the rest is zero. None if all views fill them. Not stored.
    """

    chunk_idx: int
    step_idx: int
    num_executed: int
    frame_stride: int
    intrinsics_v33_px: np.ndarray
    start: Frames
    true: Frames
    predicted: Prediction | None
    actions_nd: np.ndarray | None = None
    view_hw_px: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True, kw_only=True)
class ClipHeader:
    """The header of a clip.

    Attributes:
        episode: The episode that it shows.
        env_spec: The env that it was recorded in.
        policy_spec: The policy that acted and predicted, JSON values.
        outcome: How the episode ended.
        plan_sha256: Hash of the plan; None if not recorded.
    """

    episode: Episode
    env_spec: EnvSpec
    policy_spec: dict[str, Any]
    outcome: str
    plan_sha256: str | None = None


class ClipWriter:
    """Collects the chunks of an episode, compressed, in memory; the file appears whole or not at all."""

    def __init__(self) -> None:
        self._buffer = io.BytesIO()
        self._file = h5py.File(self._buffer, "w")
        self._file.attrs["format"] = FORMAT
        self._chunks = self._file.create_group("chunks")

    def add(self, chunk: ClipChunk) -> None:
        """Compress one chunk."""
        _write_chunk(self._chunks.create_group(f"{chunk.chunk_idx:04d}"), chunk)

    def save(self, path: Path, header: ClipHeader) -> None:
        """Write the file; nothing can be added afterwards.

        Raises:
            RunFolderError: If it cannot be written.
        """
        attributes = self._file.attrs
        attributes["episode"] = json.dumps(header.episode.to_json())
        attributes["env_spec"] = json.dumps(header.env_spec.to_json())
        attributes["policy_spec"] = json.dumps(header.policy_spec)
        attributes["outcome"] = header.outcome
        if header.plan_sha256 is not None:
            attributes["plan_sha256"] = header.plan_sha256
        self.close()
        write_whole(path, self._buffer.getvalue())

    def close(self) -> None:
        """Free the HDF5 library's memory; calling it twice is fine."""
        self._file.close()


class ClipReader:
    """A clip on disk; chunks are read one at a time, to bound the memory.

    Example:
        with ClipReader(path) as clip:
            for chunk in clip:
                ...
    """

    def __init__(self, path: Path) -> None:
        """Open a clip.

        Raises:
            RunFolderError: If the file is missing, broken or not a clip.
        """
        self.path = path
        if not path.is_file():
            problem = "is a folder" if path.is_dir() else "does not exist"
            raise RunFolderError(f"{path} {problem}; the clips of a run are RUN/clips/TASK/INDEX.h5.")
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise RunFolderError(f"Cannot read the clip {path}: {_why_unreadable(path, error)}.") from error
        try:
            is_clip = self._file.attrs.get("format") == FORMAT
            if is_clip:
                self.header = _read_header(self._file.attrs)
                self._names = sorted(self._file["chunks"])
        except BROKEN as error:
            self._file.close()
            raise RunFolderError(
                f"The clip {path} has a broken header: {_damage(error)}; copy or record it again."
            ) from error
        if not is_clip:
            self._file.close()
            raise RunFolderError(f"{path} is not a clip of format '{FORMAT}'.")

    def __enter__(self) -> ClipReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._names)

    def __iter__(self) -> Iterator[ClipChunk]:
        return map(self.read, range(len(self)))

    def read(self, position: int) -> ClipChunk:
        """Return one chunk.

        Raises:
            RunFolderError: If it is broken.
        """
        name = self._names[position]
        try:
            return _read_chunk(self._file["chunks"][name], int(name))
        except BROKEN as error:
            raise RunFolderError(f"Chunk {name} of the clip {self.path} is broken: {_damage(error)}.") from error

    def read_actions(self) -> np.ndarray | None:
        """Return all executed actions of the episode, N,14 float32; None if not recorded.

        Raises:
            RunFolderError: If it is broken.
        """
        try:
            groups = [self._file["chunks"][name] for name in self._names]
            if not groups or not all("actions_nd" in group for group in groups):
                return None
            return np.concatenate([group["actions_nd"][()] for group in groups])
        except BROKEN as error:
            raise RunFolderError(f"The actions of the clip {self.path} are broken: {_damage(error)}.") from error

    def read_starts(self) -> dict[int, np.ndarray]:
        """Return the state at the start of each chunk, 16 numbers, by the steps executed before it.

        Raises:
            RunFolderError: If it is broken.
        """
        try:
            groups = [self._file["chunks"][name] for name in self._names]
            return {int(group.attrs["step_idx"]): group["start"]["proprio_fd"][0] for group in groups}
        except BROKEN as error:
            raise RunFolderError(f"The states of the clip {self.path} are broken: {_damage(error)}.") from error


def _why_unreadable(path: Path, error: OSError) -> str:
    """Return why a file cannot be opened, without the text of HDF5."""
    if isinstance(error, PermissionError) or not os.access(path, os.R_OK):
        return "this user may not read it"
    if path.stat().st_size == 0:
        return "it is empty"
    if not h5py.is_hdf5(path):
        return "it is not an HDF5 file, or its beginning is overwritten"
    if "truncated" in str(error):
        return "it is cut off; copy or record it again"
    if "lock" in str(error):
        return "another process writes to it"
    return "it is damaged; copy or record it again"


def _damage(error: Exception) -> str:
    """Return what is wrong with a part of a clip, without the text of HDF5.

    Example:
        >>> _damage(KeyError("Unable to open object (object 'true' doesn't exist)"))
        'a part of it is missing'
    """
    if isinstance(error, KeyError):
        return "a part of it is missing"
    if isinstance(error, OSError | RuntimeError):
        return "its data are damaged"
    return f"{type(error).__name__}: {error}".rstrip(".")


def depth_mm_from_m(depth_m: np.ndarray) -> np.ndarray:
    """Return uint16 millimetres; values that are not finite or not positive become 0, larger ones 65.535 m.

    Example:
        >>> depth_mm_from_m(np.array([1.2345, np.nan, -1.0, 99.0]))
        array([ 1234,     0,     0, 65535], dtype=uint16)
    """
    positive = np.where(np.isfinite(depth_m) & (depth_m > 0), depth_m, 0.0)
    return np.rint(np.minimum(positive, MAX_DEPTH_M) * 1000.0).astype(np.uint16)


def depth_m_from_mm(depth_mm: np.ndarray) -> np.ndarray:
    """Return float32 metres."""
    return depth_mm.astype(np.float32) / np.float32(1000.0)


def _stack(arrays: list[np.ndarray], like: np.ndarray) -> np.ndarray:
    return np.stack(arrays) if arrays else np.empty((0, *like.shape), like.dtype)


def _write_chunk(group: h5py.Group, chunk: ClipChunk) -> None:
    group.attrs.update(step_idx=chunk.step_idx, num_executed=chunk.num_executed, frame_stride=chunk.frame_stride)
    group["intrinsics_v33_px"] = chunk.intrinsics_v33_px
    if chunk.actions_nd is not None:
        group["actions_nd"] = chunk.actions_nd
    for name, frames in (("start", chunk.start), ("true", chunk.true)):
        subgroup = group.create_group(name)
        _write_images(subgroup, frames.rgb_fvhwc_u8, frames.depth_fvhw_m)
        subgroup["proprio_fd"] = frames.proprio_fd
        subgroup["T_base_cam_fv44"] = frames.T_base_cam_fv44
    if chunk.predicted is not None:
        subgroup = group.create_group("predicted")
        _write_images(subgroup, chunk.predicted.rgb, chunk.predicted.depth)
        if chunk.predicted.proprio is not None:
            subgroup["proprio_fd"] = chunk.predicted.proprio


def _write_images(group: h5py.Group, rgb_fvhwc_u8: np.ndarray, depth_fvhw_m: np.ndarray | None) -> None:
    _write_frames(group, "rgb_fvhwc_u8", rgb_fvhwc_u8)
    if depth_fvhw_m is not None:
        _write_frames(group, "depth_fvhw_mm", depth_mm_from_m(depth_fvhw_m))


def _write_frames(group: h5py.Group, name: str, frames: np.ndarray) -> None:
    """Write frames, F first, compressed one by one with HDF5's filters `shuffle` and `gzip`, applied here.

    Other threads run while `zlib` compresses; inside HDF5, they would wait.
    """
    if frames.size == 0:
        group[name] = frames
        return
    filters: dict[str, Any] = {"compression": "gzip", "compression_opts": GZIP_LEVEL, "shuffle": True}
    dataset = group.create_dataset(
        name, shape=frames.shape, dtype=frames.dtype, chunks=(1, *frames.shape[1:]), **filters
    )
    for index, frame in enumerate(frames):
        offset = (index, *[0] * (frames.ndim - 1))
        dataset.id.write_direct_chunk(offset, zlib.compress(_shuffled(frame), GZIP_LEVEL))


def _shuffled(frame: np.ndarray) -> bytes:
    """Return the first byte of every number, then the second one of every number, and so on."""
    bytes_NB = np.ascontiguousarray(frame).reshape(-1, 1).view(np.uint8)
    return bytes_NB.T.tobytes()


def _read_header(attributes: h5py.AttributeManager) -> ClipHeader:
    return ClipHeader(
        episode=Episode(**json.loads(attributes["episode"])),
        env_spec=EnvSpec.from_json(json.loads(attributes["env_spec"])),
        policy_spec=json.loads(attributes["policy_spec"]),
        outcome=attributes["outcome"],
        plan_sha256=attributes.get("plan_sha256"),
    )


def _read_chunk(group: h5py.Group, chunk_idx: int) -> ClipChunk:
    attributes = group.attrs
    return ClipChunk(
        chunk_idx=chunk_idx,
        step_idx=int(attributes["step_idx"]),
        num_executed=int(attributes["num_executed"]),
        frame_stride=int(attributes["frame_stride"]),
        intrinsics_v33_px=group["intrinsics_v33_px"][()],
        start=_read_frames(group["start"]),
        true=_read_frames(group["true"]),
        predicted=_read_prediction(group["predicted"]) if "predicted" in group else None,
        actions_nd=group["actions_nd"][()] if "actions_nd" in group else None,
    )


def _read_frames(group: h5py.Group) -> Frames:
    return Frames(
        rgb_fvhwc_u8=group["rgb_fvhwc_u8"][()],
        depth_fvhw_m=depth_m_from_mm(group["depth_fvhw_mm"][()]),
        proprio_fd=group["proprio_fd"][()],
        T_base_cam_fv44=group["T_base_cam_fv44"][()],
    )


def _read_prediction(group: h5py.Group) -> Prediction:
    return Prediction(
        rgb=group["rgb_fvhwc_u8"][()],
        depth=depth_m_from_mm(group["depth_fvhw_mm"][()]) if "depth_fvhw_mm" in group else None,
        proprio=group["proprio_fd"][()] if "proprio_fd" in group else None,
    )
