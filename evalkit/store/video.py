"""Videos for people: what happened above, what was imagined below, depth beside RGB.

In: frames of one episode. Out: one H.264 mp4.
Read next: `evalkit/run/recorder.py`, which feeds it; `clips.py` for the lossless frames that are scored.
"""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from evalkit.store.files import write_whole

DEPTH_NEAR_M, DEPTH_FAR_M = 0.2, 3.0
_CAPTION_PX = 18


class VideoWriter:
    """Collects frames in memory, encoded, and writes the file whole at the end."""

    def __init__(self, *, fps: float) -> None:
        self.fps = fps
        self._buffer = io.BytesIO()
        self._container = av.open(self._buffer, "w", format="mp4")
        self._stream: av.VideoStream | None = None

    def add(self, picture_hwc_u8: np.ndarray) -> None:
        """Add one picture, H,W,3; all have the size of the first."""
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=Fraction(self.fps).limit_denominator(1000))
            self._stream.height, self._stream.width = (size - size % 2 for size in picture_hwc_u8.shape[:2])
            self._stream.pix_fmt = "yuv420p"
            self._stream.options = {"preset": "ultrafast", "crf": "20"}
        cropped = picture_hwc_u8[: self._stream.height, : self._stream.width]
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(cropped), format="rgb24")
        self._container.mux(self._stream.encode(frame))

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


def picture(
    rgb_vhwc_u8: np.ndarray,
    depth_vhw_m: np.ndarray,
    *,
    imagined_rgb_vhwc_u8: np.ndarray | None,
    imagined_depth_vhw_m: np.ndarray | None,
    with_imagination: bool,
    caption: str,
) -> np.ndarray:
    """Return one video picture: a caption, the true views with their depth, and below them the imagined ones.

    Args:
        rgb_vhwc_u8: V,H,W,3, what happened.
        depth_vhw_m: V,H,W metres.
        imagined_rgb_vhwc_u8: The same, imagined; None leaves the row grey.
        imagined_depth_vhw_m: The same for depth.
        with_imagination: Whether there is a lower row at all; all pictures of a video agree on it.
        caption: One short line of text.
    """
    rows = [_row(rgb_vhwc_u8, depth_vhw_m)]
    if with_imagination:
        grey = np.full_like(rgb_vhwc_u8, 64)
        rows.append(_row(grey if imagined_rgb_vhwc_u8 is None else imagined_rgb_vhwc_u8, imagined_depth_vhw_m))
    bar = np.zeros((_CAPTION_PX, rows[0].shape[1], 3), np.uint8)
    cv2.putText(bar, caption, (4, _CAPTION_PX - 5), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255), 1, cv2.LINE_AA)
    return np.concatenate([bar, *rows])


def depth_colours(depth_hw_m: np.ndarray) -> np.ndarray:
    """Return H,W,3 uint8 colours of a depth image, near red, far blue, invalid black.

    Inverse depth between `DEPTH_NEAR_M` and `DEPTH_FAR_M`, OpenCV's turbo map.
    """
    valid = np.isfinite(depth_hw_m) & (depth_hw_m > 0)
    inverse = 1.0 / np.where(valid, np.clip(depth_hw_m, DEPTH_NEAR_M, DEPTH_FAR_M), DEPTH_FAR_M)
    share = (inverse - 1 / DEPTH_FAR_M) / (1 / DEPTH_NEAR_M - 1 / DEPTH_FAR_M)
    colours = cv2.applyColorMap((share * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    return np.where(valid[..., None], colours, 0)


def _row(rgb_vhwc_u8: np.ndarray, depth_vhw_m: np.ndarray | None) -> np.ndarray:
    cells = []
    for view_idx, rgb in enumerate(rgb_vhwc_u8):
        cells.append(rgb)
        cells.append(np.full_like(rgb, 64) if depth_vhw_m is None else depth_colours(depth_vhw_m[view_idx]))
    return np.concatenate(cells, axis=1)
