"""Frames of one view from PNGs, an mp4 or an npz, a few at a time.

In: a folder laid out as in `evalkit/score/folders.py`. Out: frames in order; each is an array, or the reason why it
cannot be read.
Read next: `evalkit/score/folders.py`, which compares predictions with ground truth.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from evalkit.dataset.videos import UnreadableVideo, frames_in_order
from evalkit.score.results.outcome import Measure, Modality

Frame = np.ndarray | Measure
"""H,W,3 uint8 or H,W metres; or why it cannot be read."""

FLAGS: dict[Modality, int] = {
    "rgb": cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION,
    "depth": cv2.IMREAD_UNCHANGED,
}
"""How PNGs are decoded: without rotation and without loss of bits."""


class View:
    """The frames of one view, read in order.

    Attributes:
        exists: Whether there is anything to read.
        num_read: Frames read so far.
    """

    def __init__(self, frames: Iterator[Frame] | None) -> None:
        self.exists = frames is not None
        self.num_read = 0
        self._frames = iter(()) if frames is None else frames

    def take(self, count: int) -> list[Frame]:
        """Return the next frames, fewer where the view ends."""
        taken = list(islice(self._frames, count))
        self.num_read += len(taken)
        return taken


def open_view(folder: Path, modality: Modality, name: str) -> View:
    """Return the frames of a view of a clip."""
    base = folder / modality / name
    if base.is_dir():
        return View(_pngs(base, modality))
    for suffix, read in ((".npz", _npz), (".mp4", _mp4)):
        path = base.with_name(base.name + suffix)
        if path.exists():
            return View(read(path, modality))
    return View(None)


def copy_frame(target: np.ndarray, frame: Frame) -> Measure | None:
    """Copy one frame into an array; return why that is impossible, or None."""
    if isinstance(frame, Measure):
        return frame
    if frame.shape != target.shape:
        return Measure(None, "wrong_size", f"expected {target.shape}, got {frame.shape}")
    target[...] = frame
    return None


def _pngs(folder: Path, modality: Modality) -> Iterator[Frame]:
    """Yield the frames of a folder by their numbers; an absent number is a missing frame."""
    paths = sorted(folder.glob("*.png"))
    unnamed = [path for path in paths if not path.stem.isdecimal()]
    if unnamed:
        yield Measure(None, "unreadable", f"{unnamed[0]} is not named after its frame number, for example 0000.png")
        return
    numbered = {int(path.stem): path for path in paths}
    end = max(numbered, default=-1) + 1
    if end > 10 * len(numbered) + 100 or len(numbered) < len(paths):
        yield Measure(None, "unreadable", f"{folder}: frames must be numbered 0, 1, 2, ..., each once")
        return
    for number in range(end):
        path = numbered.get(number)
        missing = Measure(None, "missing_frame", f"{folder} has no frame {number}")
        yield missing if path is None else _png(path, modality)


def _png(path: Path, modality: Modality) -> Frame:
    try:
        data = np.fromfile(path, np.uint8)
        image = cv2.imdecode(data, FLAGS[modality]) if data.size else None
    except (OSError, cv2.error) as error:
        return Measure(None, "unreadable", f"{path}: {error}")
    whole = data[-12:].tobytes()[4:8] == b"IEND"  # the decoder silently completes a truncated file
    if image is None or not whole:
        return Measure(None, "unreadable", f"{path} is broken or cut off")
    if modality == "rgb" and image.dtype != np.uint8:
        return Measure(None, "unreadable", f"{path} has {image.dtype} colours, expected 8 bits")
    if modality == "rgb":
        return image[..., ::-1]
    if image.dtype != np.uint16 or image.ndim != 2:
        return Measure(None, "unreadable", f"{path} is not a uint16 depth image: {image.dtype}, {image.shape}")
    return np.asarray(image.astype(np.float32) / np.float32(1000.0))


def _npz(path: Path, modality: Modality) -> Iterator[Frame]:
    """Yield the frames of an array without loading it whole."""
    name = "rgb" if modality == "rgb" else "depth_m"
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
            version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)  # type: ignore[no-untyped-call]
            if fortran or len(shape) < 2 or (dtype != np.uint8 if modality == "rgb" else dtype.kind != "f"):
                kind = "uint8" if modality == "rgb" else "floating metres"
                got = f"{dtype} {shape}" + (" in Fortran order" if fortran else "")
                yield Measure(None, "unreadable", f"{path}: {name} must be {kind}, one frame after another; got {got}")
                return
            num_bytes = int(np.prod(shape[1:])) * dtype.itemsize
            for _ in range(shape[0]):
                frame = np.frombuffer(file.read(num_bytes), dtype).reshape(shape[1:])
                with np.errstate(over="ignore"):  # values too large for float32 become infinite and get a status
                    yield frame if modality == "rgb" else frame.astype(np.float32)
    except Exception as error:  # a broken archive raises whatever its decoder raises
        yield Measure(None, "unreadable", f"{path}: {type(error).__name__}: {error}")


def _mp4(path: Path, modality: Modality) -> Iterator[Frame]:
    if modality != "rgb":
        yield Measure(None, "unreadable", f"{path}: depth must be PNG or npz, because an mp4 is lossy")
        return
    try:
        yield from frames_in_order(path)
    except UnreadableVideo as error:
        yield Measure(None, "unreadable", str(error))
