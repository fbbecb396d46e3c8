"""Frames in `.npy` and `.npz` files: one array for a clip, or one file per frame.

In: a file. Out: what its arrays hold, from their headers alone; their frames, one at a time.
Read next: `clip_files.py`, which sorts them into clips; `images.py`, which scales their depth.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from evalkit.score.results.outcome import Measure, Modality

KEYS: dict[Modality, tuple[str, ...]] = {
    "rgb": ("rgb", "color", "colour", "images", "image", "frames", "video"),
    "depth": ("depth_m", "depth", "depths"),
}
"""Names of the arrays in an `.npz`; the only array of a file may have another."""

METRES = "depth_m"
"""An array of this name holds metres in floating point."""

CHANNELS = (3, 4)
UINT8 = np.dtype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class ArrayInfo:
    """What the header of an array says.

    Attributes:
        key: Its name in an `.npz`; None in an `.npy`.
        modality: RGB or depth.
        shape: As stored.
        dtype: As stored.
        channels_first: Colours are F,3,H,W or 3,H,W.
        one_frame: It holds one frame, without a leading axis of frames.
        problem: Why it cannot be read; empty if it can.
    """

    key: str | None
    modality: Modality
    shape: tuple[int, ...] = ()
    dtype: np.dtype = UINT8
    channels_first: bool = False
    one_frame: bool = False
    problem: str = ""

    @property
    def num_frames(self) -> int:
        """Return the number of frames."""
        return 0 if self.problem else 1 if self.one_frame else self.shape[0]


def list_arrays(path: Path, modality: Modality | None) -> list[ArrayInfo]:
    """Return the arrays of frames in a file; one with a `problem` if it is broken or holds none.

    Args:
        path: The file.
        modality: What its place says that it holds; None if only the file can say.
    """
    try:
        headers = _headers(path)
    except Exception as error:  # a broken archive raises whatever its decoder raises
        return [ArrayInfo(key=None, modality=modality or "rgb", problem=f"{path}: {type(error).__name__}: {error}")]
    if path.suffix.lower() == ".npy":
        return [_info(path, key, shape, dtype, fortran, modality) for key, shape, dtype, fortran in headers]
    wanted: list[Modality] = ["rgb", "depth"] if modality is None else [modality]
    named = [
        _info(path, *next(header for header in headers if header[0] == key), kind)
        for kind in wanted
        for key in [next((key for key in KEYS[kind] if any(header[0] == key for header in headers)), None)]
        if key is not None
    ]
    if named:
        return named
    if len(headers) == 1 and len(headers[0][1]) >= 2:
        return [_info(path, *headers[0], modality)]
    if modality is None:
        return []  # states, actions and the like
    there = ", ".join(str(header[0]) for header in headers) or "none"
    return [
        ArrayInfo(key=None, modality=modality, problem=f"{path} holds no array '{KEYS[modality][0]}', only {there}")
    ]


def array_frames(path: Path, info: ArrayInfo) -> Iterator[np.ndarray | Measure]:
    """Yield the frames of an array, H,W,3 or H,W, without loading it whole; a `Measure` where it cannot be read."""
    if info.problem:
        yield Measure(None, "unreadable", info.problem)
        return
    shape = info.shape if info.one_frame else info.shape[1:]
    num_bytes = int(np.prod(shape)) * info.dtype.itemsize
    try:
        with _opened(path, info.key) as file:
            _read_header(file)
            for frame_idx in range(info.num_frames):
                data = file.read(num_bytes)
                if len(data) < num_bytes:
                    reason = f"{path} is cut off: it holds {frame_idx} of {info.num_frames} frames"
                    yield Measure(None, "unreadable", reason)
                    return
                yield _channels_last(np.frombuffer(data, info.dtype).reshape(shape), info)
    except Exception as error:  # a broken archive raises whatever its decoder raises
        yield Measure(None, "unreadable", f"{path}: {type(error).__name__}: {error}")


def _channels_last(frame: np.ndarray, info: ArrayInfo) -> np.ndarray:
    if info.modality == "depth":
        return frame.reshape([size for size in frame.shape if size > 1]) if frame.ndim > 2 else frame
    return (np.moveaxis(frame, 0, -1) if info.channels_first else frame)[..., :3]


Header = tuple[str | None, tuple[int, ...], np.dtype, bool]


def _headers(path: Path) -> list[Header]:
    """Return name, shape, type and Fortran order of each array in a file."""
    if path.suffix.lower() == ".npy":
        with _opened(path, None) as file:
            return [(None, *_read_header(file))]
    with zipfile.ZipFile(path) as archive:
        keys = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    headers: list[Header] = []
    for key in keys:
        with _opened(path, key) as file:
            headers.append((key, *_read_header(file)))
    return headers


@contextmanager
def _opened(path: Path, key: str | None) -> Iterator[IO[bytes]]:
    if key is None:
        with path.open("rb") as file:
            yield file
    else:
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as member:
            yield member


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, bool]:
    version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
    read: Any = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return shape, dtype, fortran


def _info(
    path: Path, key: str | None, shape: tuple[int, ...], dtype: np.dtype, fortran: bool, modality: Modality | None
) -> ArrayInfo:
    if modality is None:
        has_steps = dtype.kind == "f" or (dtype.kind in "ui" and dtype.itemsize > 1)
        is_depth = _colour_layout(shape) is None and _depth_layout(shape) is not None and has_steps
        modality = "depth" if is_depth else "rgb"
    layout = _colour_layout(shape) if modality == "rgb" else _depth_layout(shape)
    if fortran or layout is None or dtype.kind not in ("f" if key == METRES else "ufb"):
        wanted = "F,H,W,3 or H,W,3, best uint8" if modality == "rgb" else "F,H,W or H,W"
        wanted += ", floating metres" if key == METRES else ""
        got = f"{dtype} {shape}" + (" in Fortran order" if fortran else "")
        problem = f"{path}: {key or 'the array'} must be {wanted}, one frame after another; got {got}"
        return ArrayInfo(key=key, modality=modality, shape=shape, dtype=dtype, problem=problem)
    return ArrayInfo(
        key=key,
        modality=modality,
        shape=shape,
        dtype=dtype,
        channels_first=layout.channels_first,
        one_frame=layout.one_frame,
    )


class Layout(NamedTuple):
    """Where the frames and channels of an array are, as in `ArrayInfo`."""

    one_frame: bool
    channels_first: bool = False


def _colour_layout(shape: tuple[int, ...]) -> Layout | None:
    """Return where the frames and channels of colours are; None if the shape has none.

    Example:
        >>> _colour_layout((8, 3, 24, 32)), _colour_layout((8, 24, 32))
        (Layout(one_frame=False, channels_first=True), None)
    """
    if len(shape) in (3, 4) and shape[-1] in CHANNELS:
        return Layout(one_frame=len(shape) == 3)
    return Layout(one_frame=False, channels_first=True) if len(shape) == 4 and shape[1] in CHANNELS else None


def _depth_layout(shape: tuple[int, ...]) -> Layout | None:
    """Return whether depth is one frame; None if the shape is not one of depth. An axis of length 1 is a channel."""
    if len(shape) == 4 and 1 in (shape[1], shape[3]):
        return Layout(one_frame=False)
    if len(shape) not in (2, 3):
        return None
    return Layout(one_frame=len(shape) == 2 or shape[-1] == 1)
