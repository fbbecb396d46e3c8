"""Pictures made of seen pixels: what moved is sharp again, what stood still is untouched.

In: textures that are moved and blurred. Out: a verdict.
Read next: `xwam/motion.py`.
"""

import cv2
import numpy as np
import pytest

from xwam.motion import CHANGE, REACH_PX, compensated

SIZE = (64, 96)
BLUR_PX = 1.5


def textured(seed, size):
    spots = np.random.default_rng(seed).integers(0, 256, (size[0] // 4, size[1] // 4, 3), dtype=np.uint8)
    return np.kron(spots, np.ones((4, 4, 1), np.uint8))


def scene(left_px):
    """Return a textured square before a grey wall."""
    picture = np.full((*SIZE, 3), 128, np.uint8)
    picture[20:44, left_px : left_px + 24] = textured(0, (24, 24))
    return picture


def blurred(picture):
    return cv2.GaussianBlur(picture, (0, 0), BLUR_PX)


def made_of(pred, seen):
    return compensated(pred[None, None], seen[None])[0, 0]


def error(first, second):
    return np.abs(first.astype(int) - second).mean()


@pytest.mark.parametrize("shift_px", [2, 5, -7])
def test_what_moved_gets_its_detail_back(shift_px):
    seen, future = scene(30), scene(30 + shift_px)
    found = made_of(blurred(future), seen)
    assert error(found, future) < 0.4 * error(blurred(future), future)
    assert error(found, future) < 0.4 * error(seen, future)


def test_what_is_predicted_to_stand_still_keeps_every_pixel():
    seen = textured(1, SIZE)
    faint = np.clip(seen.astype(int) + np.random.default_rng(2).integers(-15, 16, seen.shape), 0, 255).astype(np.uint8)
    assert np.abs(faint.astype(int) - seen).max() < CHANGE
    np.testing.assert_array_equal(made_of(faint, seen), seen)


def test_what_was_not_seen_near_by_is_not_shown():
    seen = np.full((*SIZE, 3), 100, np.uint8)
    seen[:, 80:] = 200
    pred = seen.copy()
    pred[16:40, 16:40] = 200  # the like of it is farther away than blocks are looked for
    assert REACH_PX + BLUR_PX * 4 < 80 - 40
    assert set(np.unique(made_of(pred, seen)[:, :60])) == {100}


def test_views_and_frames_are_made_each_by_itself():
    seen = np.stack([scene(30), scene(50)])
    pred = np.stack([np.stack([blurred(scene(30 + 2 * frame)), blurred(scene(50 - 2 * frame))]) for frame in (1, 2, 3)])
    found = compensated(pred, seen)
    assert (found.shape, found.dtype) == (pred.shape, np.uint8)
    for frame, view in np.ndindex(3, 2):
        np.testing.assert_array_equal(found[frame, view], made_of(pred[frame, view], seen[view]))


def test_pictures_that_do_not_belong_together_are_named():
    with pytest.raises(ValueError, match=r"Predicted pictures are \(2, .* those seen \(1, "):
        compensated(np.zeros((3, 2, 64, 64, 3), np.uint8), np.zeros((1, 64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match="multiples of 4 pixels, got 62x96"):
        made_of(np.zeros((62, 96, 3), np.uint8), np.zeros((62, 96, 3), np.uint8))
