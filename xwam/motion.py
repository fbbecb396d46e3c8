"""Pictures of a future made of pixels that were seen: motion compensation, as video codecs do it.

In: predicted RGB, the RGB seen now. Out: the prediction, sharp where it moves what was seen.
Read next: `policy.py`, which asks for it; `surfaces.py`, the same thought for depth; `codecs.py`, whose decoding blurs.

A codec of few numbers shows where things move to, without their detail. So each small block that changes is looked for
in the blurred picture that was seen, near by, and takes the pixels found there (block matching: Jain and Jain 1981,
doi:10.1109/TCOM.1981.1094950). What does not change stays as it was seen, and so does what changes into something that
nothing near by fits clearly better: what newly appears is not shown.

Letters: F future frames, V views, H W rows and columns, C = 3 colours. Colours are 0 to 255.
"""

from __future__ import annotations

import cv2
import numpy as np

BLOCK_PX = 4
"""Rows and columns of what moves together; pictures are multiples of it."""

WINDOW_PX = 10
"""Rows and columns around a block that are compared."""

REACH_PX = 14
"""How far a block is looked for, in rows and in columns."""

BLUR_PX = 2.0
"""Spread of the Gaussian that takes off what the codec takes off."""

NEAR_WEIGHT = 15.0
"""Squared difference of colours, summed over the three, that a pixel of distance weighs; it grows with its square."""

BETTER_FRAC = 0.7
"""A block moves if it fits with less than this share of the misfit of standing still."""

CHANGE = 20.0
"""Root mean square change of colours, about a pixel, from which it has moved."""


def compensated(rgb_fvhwc_u8: np.ndarray, seen_vhwc_u8: np.ndarray) -> np.ndarray:
    """Return F,V,H,W,3 uint8: the predicted pictures, made of what was seen.

    Args:
        rgb_fvhwc_u8: Predicted.
        seen_vhwc_u8: Seen, of the same views and size.

    Raises:
        ValueError: If views or sizes differ, or rows or columns are no multiples of `BLOCK_PX`.
    """
    if rgb_fvhwc_u8.shape[1:] != seen_vhwc_u8.shape:
        raise ValueError(f"Predicted pictures are {rgb_fvhwc_u8.shape[1:]}, those seen {seen_vhwc_u8.shape}.")
    height, width = seen_vhwc_u8.shape[1:3]
    if height % BLOCK_PX or width % BLOCK_PX:
        raise ValueError(f"Pictures must be multiples of {BLOCK_PX} pixels, got {height}x{width}.")
    made = np.empty_like(rgb_fvhwc_u8)
    for view, seen in enumerate(seen_vhwc_u8):
        reference = _Seen(seen)
        for frame_idx, pred in enumerate(rgb_fvhwc_u8[:, view]):
            made[frame_idx, view] = reference.moved_as(pred)
    return made


class _Seen:
    """One picture that was seen, ready to be looked through."""

    def __init__(self, rgb_hwc_u8: np.ndarray) -> None:
        margin = (WINDOW_PX - BLOCK_PX) // 2
        self.rgb = rgb_hwc_u8
        self.pixels = _widened(rgb_hwc_u8, REACH_PX)
        self.blurred = _widened(cv2.GaussianBlur(rgb_hwc_u8, (0, 0), BLUR_PX).astype(np.float32), REACH_PX + margin)
        self.margin = margin
        offsets = np.arange(-REACH_PX, REACH_PX + 1) ** 2
        self.too_far = NEAR_WEIGHT * WINDOW_PX**2 * (offsets[:, None] + offsets[None])

    def moved_as(self, pred_hwc_u8: np.ndarray) -> np.ndarray:
        """Return the predicted picture made of this one's pixels."""
        squares = np.square(pred_hwc_u8.astype(np.float32) - self.rgb).mean(-1)
        changed = np.sqrt(cv2.GaussianBlur(squares, (0, 0), 2.0)) > CHANGE
        pred = _widened(pred_hwc_u8.astype(np.float32), self.margin)
        moved = self.rgb.astype(np.float32)
        height, width = changed.shape
        blocks = changed.reshape(height // BLOCK_PX, BLOCK_PX, width // BLOCK_PX, BLOCK_PX).any((1, 3))
        has_moved = np.zeros((height, width), np.float32)
        for row, col in np.argwhere(blocks) * BLOCK_PX:
            around = slice(row, row + WINDOW_PX + 2 * REACH_PX), slice(col, col + WINDOW_PX + 2 * REACH_PX)
            window = pred[row : row + WINDOW_PX, col : col + WINDOW_PX]
            misfit = cv2.matchTemplate(self.blurred[around], window, cv2.TM_SQDIFF) + self.too_far
            down, right = np.unravel_index(misfit.argmin(), misfit.shape)
            if misfit[down, right] < BETTER_FRAC * misfit[REACH_PX, REACH_PX]:
                block = slice(row, row + BLOCK_PX), slice(col, col + BLOCK_PX)
                moved[block] = self.pixels[row + down :, col + right :][:BLOCK_PX, :BLOCK_PX]
                has_moved[block] = 1.0
        weight = cv2.GaussianBlur(has_moved * changed, (0, 0), 1.0)[..., None]
        return (self.rgb + weight * (moved - self.rgb)).round().astype(np.uint8)


def _widened(picture_hwc: np.ndarray, margin: int) -> np.ndarray:
    return cv2.copyMakeBorder(picture_hwc, margin, margin, margin, margin, cv2.BORDER_REPLICATE)
