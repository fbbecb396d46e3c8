"""A contact sheet: one chunk of a clip as one picture, no viewer needed.

In: a clip. Out: a PNG; a column a frame, and for each view what happened, what was imagined, and where they differ.
Read next: `view.py`, the same as clouds over time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from evalkit.contracts.errors import BadConfig, EvalkitError
from evalkit.contracts.spec import CameraSpec
from evalkit.score.depth import is_valid, truth_mask
from evalkit.store.clips import ClipChunk, ClipReader
from evalkit.store.files import write_whole

NEAR_M, FAR_M = 0.2, 3.0
RGB_ERROR_MAX_U8, DEPTH_ERROR_MAX_FRAC = 64.0, 0.25
"""Errors at which the maps are brightest."""

LABEL_PX, MARGIN_PX = 150, 2
_GREY = 90


def read_chunk(path: Path, chunk_idx: int) -> tuple[ClipChunk, tuple[CameraSpec, ...]]:
    """Return one chunk of a clip with the cameras of its views.

    Raises:
        RunFolderError: If the clip cannot be read.
        BadConfig: If it has no such chunk.
    """
    with ClipReader(path) as clip:
        for chunk in clip:
            if chunk.chunk_idx == chunk_idx:
                return chunk, clip.header.env_spec.cameras
        raise BadConfig(f"{path} has {len(clip)} chunks, so no chunk {chunk_idx}; they count from 0.")


def write_sheet(clip: Path, out: Path, *, chunk_idx: int = 0) -> Path:
    """Write the contact sheet of one chunk and return its path.

    Raises:
        RunFolderError: If the clip cannot be read or the picture cannot be written.
        BadConfig: If there is no such chunk.
    """
    chunk, cameras = read_chunk(clip, chunk_idx)
    whole, data = cv2.imencode(".png", sheet(chunk, cameras)[..., ::-1])
    if not whole:
        raise EvalkitError(f"The contact sheet of {clip} cannot be encoded.")
    write_whole(out, data.tobytes())
    return out


def sheet(chunk: ClipChunk, cameras: tuple[CameraSpec, ...]) -> np.ndarray:
    """Return the contact sheet, H,W,3 uint8: rows of each view, a column a true frame; grey where there is nothing."""
    num_frames = len(chunk.true.rgb_fvhwc_u8)
    rows = [_header(chunk, num_frames)]
    for view, camera in enumerate(cameras):
        for label, tile in _kinds(chunk, view):
            tiles = [tile(frame) for frame in range(num_frames)]
            rows.append(_row(f"{camera.name} {label}", tiles, chunk.true.rgb_fvhwc_u8.shape[2:4]))
    return np.concatenate(rows)


def colour_depth(depth_hw_m: np.ndarray) -> np.ndarray:
    """Return depth as colours, near is warm; grey where there is none."""
    share = (FAR_M - np.clip(np.where(is_valid(depth_hw_m), depth_hw_m, FAR_M), NEAR_M, FAR_M)) / (FAR_M - NEAR_M)
    return np.where(is_valid(depth_hw_m)[..., None], _coloured(share, cv2.COLORMAP_TURBO), np.uint8(_GREY))


def rgb_error_map(true_u8: np.ndarray, pred_u8: np.ndarray) -> np.ndarray:
    """Return the mean absolute difference of colours as colours; brightest at `RGB_ERROR_MAX_U8`."""
    difference = np.abs(true_u8.astype(np.float32) - pred_u8).mean(axis=-1)
    return _coloured(difference / RGB_ERROR_MAX_U8, cv2.COLORMAP_INFERNO)


def depth_error_map(true_m: np.ndarray, pred_m: np.ndarray) -> np.ndarray:
    """Return |pred - true| / true as colours; an invalid prediction is brightest, grey is outside the mask."""
    mask = truth_mask(true_m)
    error = np.abs(np.where(is_valid(pred_m), pred_m, 0.0) - true_m) / np.where(mask, true_m, 1.0)
    return np.where(mask[..., None], _coloured(error / DEPTH_ERROR_MAX_FRAC, cv2.COLORMAP_INFERNO), np.uint8(_GREY))


def _kinds(chunk: ClipChunk, view: int) -> list[tuple[str, Callable[[int], np.ndarray | None]]]:
    """Return the rows of a view: a label, and a function that gives the tile of a frame."""
    rgb, depth_m = chunk.true.rgb_fvhwc_u8[:, view], chunk.true.depth_fvhw_m[:, view]
    kinds: list[tuple[str, Callable[[int], np.ndarray | None]]] = [("true", lambda f: rgb[f])]
    predicted = chunk.predicted
    if predicted is not None:
        pred = predicted.rgb[:, view]
        kinds.append(("imagined", lambda f: pred[f] if f < len(pred) else None))
        kinds.append(("difference", lambda f: rgb_error_map(rgb[f], pred[f]) if f < len(pred) else None))
    kinds.append(("true depth", lambda f: colour_depth(depth_m[f])))
    if predicted is not None and predicted.depth is not None:
        deep = predicted.depth[:, view]
        kinds.append(("imagined depth", lambda f: colour_depth(deep[f]) if f < len(deep) else None))
        kinds.append(("depth error", lambda f: depth_error_map(depth_m[f], deep[f]) if f < len(deep) else None))
    return kinds


def _coloured(share: np.ndarray, colours: int) -> np.ndarray:
    levels = np.rint(np.clip(share, 0.0, 1.0) * 255.0).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(levels, colours)[..., ::-1])


def _header(chunk: ClipChunk, num_frames: int) -> np.ndarray:
    width = LABEL_PX + num_frames * (chunk.true.rgb_fvhwc_u8.shape[3] + MARGIN_PX)
    text = (
        f"chunk {chunk.chunk_idx}, {num_frames} frames {chunk.frame_stride} steps apart; depth {NEAR_M} m warm to "
        f"{FAR_M} m cold; errors bright at {RGB_ERROR_MAX_U8:.0f} grey levels and {DEPTH_ERROR_MAX_FRAC:.0%} of depth"
    )
    return _text(np.full((20, width, 3), 255, np.uint8), text)


def _row(label: str, tiles: list[np.ndarray | None], size_hw: tuple[int, ...]) -> np.ndarray:
    height, width = size_hw
    parts = [_text(np.full((height + MARGIN_PX, LABEL_PX, 3), 255, np.uint8), label)]
    for tile in tiles:
        cell = np.full((height + MARGIN_PX, width + MARGIN_PX, 3), 255, np.uint8)
        cell[:height, :width] = _GREY if tile is None else tile
        parts.append(cell)
    return np.concatenate(parts, axis=1)


def _text(picture: np.ndarray, text: str) -> np.ndarray:
    return np.asarray(cv2.putText(picture, text, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA))
