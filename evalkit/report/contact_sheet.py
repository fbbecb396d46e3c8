"""A contact sheet: one chunk of a clip as one image, without a viewer.

In: a clip. Out: a PNG with ground truth, prediction and error of each view and frame.
Read next: `rerun_export.py`, the same as point clouds over time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import cv2
import numpy as np

from evalkit.contracts.errors import BadConfig, EvalkitError
from evalkit.contracts.spec import CameraSpec
from evalkit.contracts.text import count_of
from evalkit.report.format import quantity
from evalkit.score.metrics.depth import is_valid, truth_mask
from evalkit.store.clips import ClipChunk, ClipReader
from evalkit.store.files import write_whole

NEAR_M, FAR_M = 0.2, 3.0
RGB_ERROR_MAX_U8, DEPTH_ERROR_MAX_FRAC = 64.0, 0.25
"""Errors at which the maps are brightest."""

MARGIN_PX, LINE_PX, PAD_PX = 2, 20, 4
TILE_PX = 128
"""Views of half this width or less are shown enlarged, by a whole number."""

_ERRORS_HEADER = (
    f"depth: {NEAR_M} m warm to {FAR_M} m cold",
    f"errors: brightest at {RGB_ERROR_MAX_U8:.0f} grey levels and at {DEPTH_ERROR_MAX_FRAC:.0%} of depth",
)

SCREEN = 1.6
"""Width over height that a sheet should have."""

_GREY, _WHITE = 90, 255

Tile = np.ndarray | None
Key = tuple[int, int, int]
"""View, frame, kind."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """The tiles of a sheet in rows and columns, with the lines of each column's label; a missing tile is None."""

    rows: Sequence[str]
    columns: Sequence[Sequence[str]]
    tiles: Sequence[Sequence[Tile]]


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
        raise BadConfig(f"{path} has {quantity(len(clip), 'chunk')}, so no chunk {chunk_idx}; they count from 0.")


def write_contact_sheet(clip: Path, out: Path, *, chunk_idx: int = 0) -> Path:
    """Write the contact sheet of one chunk and return its path.

    Raises:
        RunFolderError: If the clip cannot be read or the image cannot be written.
        BadConfig: If there is no such chunk.
    """
    chunk, cameras = read_chunk(clip, chunk_idx)
    write_whole(out, encode_sheet(contact_sheet(chunk, cameras)))
    return out


def encode_sheet(image: np.ndarray) -> bytes:
    """Return an RGB image as PNG.

    Raises:
        EvalkitError: If it cannot be encoded.
    """
    encoded, data = cv2.imencode(".png", image[..., ::-1])
    if not encoded:
        raise EvalkitError(f"A contact sheet of {image.shape[1]} x {image.shape[0]} pixels cannot be encoded.")
    return data.tobytes()


def contact_sheet(
    chunk: ClipChunk, cameras: tuple[CameraSpec, ...], *, names: Sequence[str] | None = None
) -> np.ndarray:
    """Return the contact sheet, H,W,3 uint8, laid out to fit a screen; grey where there is nothing.

    Args:
        chunk: What is shown.
        cameras: Of the views.
        names: Of the frames, where they are not those of the whole chunk.
    """
    height, width = chunk.true.rgb_fvhwc_u8.shape[2:4]
    zoom = max(1, TILE_PX // width)
    tile_hw = height * zoom, width * zoom
    images = [grid_image(grid, tile_hw, zoom) for grid in grids(chunk, cameras, names)]
    image = min(images, key=lambda image: abs(np.log(image.shape[1] / image.shape[0] / SCREEN)))
    lines = _header(chunk) if names is None else _ERRORS_HEADER
    wide = max(image.shape[1], *(text_px(line) for line in lines))
    return np.concatenate([*(_text(_blank(LINE_PX, wide), line) for line in lines), _widened(image, wide)])


def grids(
    chunk: ClipChunk, cameras: tuple[CameraSpec, ...], names_of_frames: Sequence[str] | None = None
) -> list[Grid]:
    """Return three layouts of the same tiles: for few frames, for few views and frames, and for many frames."""
    frames = names_of_frames or [f"frame {frame + 1}" for frame in range(len(chunk.true.rgb_fvhwc_u8))]
    kinds = [_kinds(chunk, view) for view in range(len(cameras))]
    names = ([camera.name for camera in cameras], frames, [name for name, _ in kinds[0]] if kinds else [])

    def grid(row_axes: Sequence[int], column_axes: Sequence[int]) -> Grid:
        rows, columns = (list(product(*(range(len(names[a])) for a in axes))) for axes in (row_axes, column_axes))
        keys = [[_key(row_axes, row, column_axes, column) for column in columns] for row in rows]
        return Grid(
            rows=[" ".join(_labels(names, row_axes, row)) for row in rows],
            columns=[_labels(names, column_axes, column) for column in columns],
            tiles=[[kinds[view][kind][1](frame) for view, frame, kind in line] for line in keys],
        )

    view, frame, kind = range(3)
    return [grid((view, frame), (kind,)), grid((kind,), (view, frame)), grid((view, kind), (frame,))]


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


def _kinds(chunk: ClipChunk, view: int) -> list[tuple[str, Callable[[int], Tile]]]:
    """Return the kinds of tiles of a view: a label, and a function that gives the tile of a frame."""
    rgb, depth_m = chunk.true.rgb_fvhwc_u8[:, view], chunk.true.depth_fvhw_m[:, view]
    kinds: list[tuple[str, Callable[[int], Tile]]] = [("ground truth", lambda f: rgb[f])]
    predicted = chunk.predicted
    if predicted is not None:
        pred = predicted.rgb[:, view]
        kinds.append(("prediction", lambda f: pred[f] if f < len(pred) else None))
        kinds.append(("error", lambda f: rgb_error_map(rgb[f], pred[f]) if f < len(pred) else None))
    if not is_valid(chunk.true.depth_fvhw_m).any():
        return kinds
    kinds.append(("true depth", lambda f: colour_depth(depth_m[f])))
    if predicted is not None and predicted.depth is not None:
        deep = predicted.depth[:, view]
        kinds.append(("predicted depth", lambda f: colour_depth(deep[f]) if f < len(deep) else None))
        kinds.append(("depth error", lambda f: depth_error_map(depth_m[f], deep[f]) if f < len(deep) else None))
    return kinds


def _coloured(share: np.ndarray, colours: int) -> np.ndarray:
    levels = np.rint(np.clip(share, 0.0, 1.0) * 255.0).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(levels, colours)[..., ::-1])


def _key(row_axes: Sequence[int], row: Sequence[int], column_axes: Sequence[int], column: Sequence[int]) -> Key:
    at = dict(zip([*row_axes, *column_axes], [*row, *column], strict=True))
    return at[0], at[1], at[2]


def _labels(names: Sequence[Sequence[str]], axes: Sequence[int], positions: Sequence[int]) -> list[str]:
    return [names[axis][position] for axis, position in zip(axes, positions, strict=True)]


def _header(chunk: ClipChunk) -> list[str]:
    return [
        f"chunk {chunk.chunk_idx}, {count_of(len(chunk.true.rgb_fvhwc_u8), 'frame')} "
        f"{count_of(chunk.frame_stride, 'step')} apart",
        *_ERRORS_HEADER,
    ]


def grid_image(grid: Grid, tile_hw: tuple[int, int], zoom: int = 1) -> np.ndarray:
    """Return tiles with a label column as wide as its longest label, and columns as wide as theirs."""
    label_px = max((text_px(label) for label in grid.rows), default=0)
    cell_px = max([tile_hw[1], *(text_px(line) for column in grid.columns for line in column)]) + MARGIN_PX
    lines = []
    for texts in zip(*grid.columns, strict=True):
        head = [_blank(LINE_PX, label_px), *(_text(_blank(LINE_PX, cell_px), text) for text in texts)]
        lines.append(np.concatenate(head, axis=1))
    for label, tiles in zip(grid.rows, grid.tiles, strict=True):
        cells = [_cell(tile, tile_hw, cell_px, zoom) for tile in tiles]
        lines.append(np.concatenate([_text(_blank(tile_hw[0] + MARGIN_PX, label_px), label), *cells], axis=1))
    return np.concatenate(lines)


def _cell(tile: Tile, tile_hw: tuple[int, int], cell_px: int, zoom: int) -> np.ndarray:
    cell = _blank(tile_hw[0] + MARGIN_PX, cell_px)
    cell[: tile_hw[0], : tile_hw[1]] = _GREY if tile is None else tile.repeat(zoom, axis=0).repeat(zoom, axis=1)
    return cell


def _blank(height_px: int, width_px: int) -> np.ndarray:
    return np.full((height_px, width_px, 3), _WHITE, np.uint8)


def _widened(image: np.ndarray, width_px: int) -> np.ndarray:
    return np.concatenate([image, _blank(image.shape[0], width_px - image.shape[1])], axis=1)


def text_px(text: str) -> int:
    """Return how wide a label is, with the white on both sides of it."""
    (width_px, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1)
    return int(width_px) + 2 * PAD_PX


def _text(image: np.ndarray, text: str) -> np.ndarray:
    corner = (PAD_PX, 14)
    return np.asarray(cv2.putText(image, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA))
