"""Videos for viewing: ground truth above, prediction below, depth next to RGB.

In: frames of one episode. Out: one H.264 mp4.
Read next: `evalkit/run/recorder.py`, which calls it; `clips.py` for the lossless frames that are scored.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np

from evalkit.contracts.errors import EvalkitError
from evalkit.contracts.spec import CameraSpec
from evalkit.store.files import write_whole

DEPTH_RANGE_M = {"static": (0.5, 3.5), "wrist": (0.05, 1.0)}
"""Range of depths that the colours show, by kind of camera."""

_CAPTION_PX = 18

_TURBO_RGB = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_TURBO)[:, 0, ::-1]


class VideoWriter:
    """Encodes frames in memory and writes the whole file at the end."""

    def __init__(self, *, fps: float) -> None:
        self.fps = fps
        self._buffer = io.BytesIO()
        self._container = av.open(self._buffer, "w", format="mp4")
        self._stream: av.VideoStream | None = None

    def add(self, frame_hwc_u8: np.ndarray) -> None:
        """Add one frame, H,W,3; all frames have the size of the first, and an odd last row or column is left out.

        Raises:
            EvalkitError: If the encoder cannot take frames of this size.
        """
        if self._stream is None:
            self._stream = self._open(*frame_hwc_u8.shape[:2])
        cropped = frame_hwc_u8[: self._stream.height, : self._stream.width]
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(cropped), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def _open(self, height: int, width: int) -> av.VideoStream:
        stream = self._container.add_stream("libx264", rate=Fraction(self.fps).limit_denominator(1000))
        stream.height, stream.width = height - height % 2, width - width % 2
        stream.pix_fmt = "yuv420p"
        stream.options = {"preset": "ultrafast", "crf": "20"}
        try:
            stream.codec_context.open()
        except (av.FFmpegError, ValueError) as error:
            raise EvalkitError(
                f"The H.264 encoder does not open for frames of {height} x {width} pixels; it takes 2 to 16384 pixels "
                "each way."
            ) from error
        return stream

    def save(self, path: Path) -> None:
        """Write the file.

        Raises:
            RunFolderError: If it cannot be written.
        """
        self.close()
        write_whole(path, self._buffer.getvalue())

    def close(self) -> None:
        """End the encoding; calling it twice is fine."""
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
            self._stream = None
        self._container.close()


def video_frame(
    rgb_vhwc_u8: np.ndarray,
    depth_vhw_m: np.ndarray,
    *,
    cameras: Sequence[CameraSpec],
    predicted_rgb_vhwc_u8: np.ndarray | None,
    predicted_depth_vhw_m: np.ndarray | None,
    with_prediction: bool,
    caption: str,
) -> np.ndarray:
    """Return one video frame: a caption, the ground-truth views with depth, and below them the predicted views.

    Args:
        rgb_vhwc_u8: V,H,W,3, ground truth.
        depth_vhw_m: V,H,W metres.
        cameras: The V views.
        predicted_rgb_vhwc_u8: The prediction; None leaves the row grey.
        predicted_depth_vhw_m: The predicted depth; None leaves it grey.
        with_prediction: Whether there is a lower row; the same for all frames of a video.
        caption: One short line of text.
    """
    rows = [_row("ground truth", rgb_vhwc_u8, depth_vhw_m, cameras)]
    if with_prediction:
        grey = np.full_like(rgb_vhwc_u8, 64)
        predicted = grey if predicted_rgb_vhwc_u8 is None else predicted_rgb_vhwc_u8
        rows.append(_row("predicted", predicted, predicted_depth_vhw_m, cameras))
    return np.concatenate([_caption(caption, rows[0].shape[1]), *rows])


def _caption(text: str, width_px: int) -> np.ndarray:
    """Return a black bar with text; it changes from frame to frame."""
    label = _drawn_label(text, width_px, 0.4)
    bar = np.zeros((_CAPTION_PX, width_px, 1), np.uint8)
    bar[: len(label.add_hw1)] = label.add_hw1[:_CAPTION_PX]
    return bar.repeat(3, axis=2)


def depth_colours(depth_hw_m: np.ndarray, range_m: tuple[float, float]) -> np.ndarray:
    """Return H,W,3 uint8 colours of inverse depth within `range_m`: near red, far blue, invalid black."""
    near_m, far_m = range_m
    valid = np.isfinite(depth_hw_m) & (depth_hw_m > 0)
    inverse = 1.0 / np.where(valid, np.clip(depth_hw_m, near_m, far_m), far_m)
    share = (inverse - 1 / far_m) / (1 / near_m - 1 / far_m)
    colours = _TURBO_RGB[(share * 255).astype(np.uint8)]
    colours[~valid] = 0
    return colours


def _row(
    label: str, rgb_vhwc_u8: np.ndarray, depth_vhw_m: np.ndarray | None, cameras: Sequence[CameraSpec]
) -> np.ndarray:
    cells = []
    for view_idx, (rgb, camera) in enumerate(zip(rgb_vhwc_u8, cameras, strict=True)):
        cells.append(_labelled(rgb, f"{label} {camera.name}", scale=0.3))
        if depth_vhw_m is None:
            cells.append(np.full_like(rgb, 64))
        else:
            cells.append(depth_colours(depth_vhw_m[view_idx], DEPTH_RANGE_M[camera.kind]))
    return np.concatenate(cells, axis=1)


def _labelled(frame_hwc_u8: np.ndarray, text: str, *, scale: float) -> np.ndarray:
    """Return the image with white text in its upper left corner, smaller where it would not fit."""
    label = _kept_label(text, frame_hwc_u8.shape[1], scale)
    labelled = frame_hwc_u8.copy()
    strip = labelled[: len(label.keep_frac_hw1)]
    strip[:] = strip * label.keep_frac_hw1[: len(strip)] + label.add_hw1[: len(strip)]
    return labelled


class _Label(NamedTuple):
    """What a label does to the top of an image: multiply by a share, then add; H,W,1 each."""

    keep_frac_hw1: np.ndarray
    add_hw1: np.ndarray


def _drawn_label(text: str, width_px: int, scale: float) -> _Label:
    """Return a label, from its text on black and on white."""
    (text_px, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    scale *= min(1.0, (width_px - 6) / max(text_px, 1))
    black, white = (
        _with_text(np.full((round(40 * scale) + 3, width_px), grey, np.uint8), text, scale) for grey in (0, 255)
    )
    return _Label(((white - black) / np.float32(255))[..., None], black.astype(np.float32)[..., None])


_kept_label = lru_cache(maxsize=64)(_drawn_label)


def _with_text(image_hw_u8: np.ndarray, text: str, scale: float) -> np.ndarray:
    """Return a grey image with white text with a black edge; the image is drawn on."""
    for grey, thickness in ((0, 2), (255, 1)):
        origin = (3, round(30 * scale))
        cv2.putText(image_hw_u8, text, origin, cv2.FONT_HERSHEY_SIMPLEX, scale, (grey,), thickness, cv2.LINE_AA)
    return image_hw_u8
