"""Depth moved to measured surfaces: edges that move, cameras that move, holes.

In: planes and a wall behind a bar. Out: a verdict.
Read next: `xwam/nano/depth_refinement.py`.
"""

from typing import Any

import numpy as np
import pytest
from scipy.spatial import cKDTree

from evalkit.contracts.geometry import points_from_depth
from xwam.nano.depth_refinement import (
    END_EFFECTOR_M,
    REACH_PX,
    STILL_M,
    SURE_FRAC,
    reproject,
    reproject_views,
    snap_to_measured_depth,
)

K = np.array([[60.0, 0.0, 31.5], [0.0, 60.0, 23.5], [0.0, 0.0, 1.0]])
SIZE = (48, 64)
WALL_M, BAR_M = 3.0, 1.0


def bar(left_px: Any) -> Any:
    """Return a near bar before a far wall."""
    depth = np.full(SIZE, WALL_M)
    depth[:, left_px : left_px + 10] = BAR_M
    return depth


def blurred(depth: Any, width: Any = 3) -> Any:
    kernel = np.ones(width) / width
    padded = np.pad(depth, ((0, 0), (width // 2, width // 2)), mode="edge")
    return np.stack([np.convolve(row, kernel, "valid") for row in padded])


def one(depth: Any) -> Any:
    return depth[None, None]


def test_a_moved_blurred_edge_becomes_sharp() -> None:
    seen, future = bar(20), bar(22)
    found = snap_to_measured_depth(one(blurred(future)), one(seen))[0, 0]
    assert set(np.unique(found)) == {BAR_M, WALL_M}
    assert (found != future).mean() <= 0.5 * (seen != future).mean()


def test_small_departures_leave_the_measurement() -> None:
    seen = bar(20)
    noise = np.random.default_rng(0).uniform(-0.25, 0.25, SIZE)
    np.testing.assert_array_equal(snap_to_measured_depth(one(seen + noise), one(seen))[0, 0], seen.astype(np.float32))


def test_a_surface_beyond_reach_or_hardly_nearer_is_not_taken() -> None:
    seen, pred = bar(20), np.full(SIZE, WALL_M)
    pred[:, 50] = BAR_M
    assert REACH_PX < 50 - 30
    np.testing.assert_array_equal(snap_to_measured_depth(one(pred), one(seen))[0, 0][:, 50], WALL_M)
    halfway = np.full(SIZE, (WALL_M + BAR_M) / 2)
    np.testing.assert_array_equal(snap_to_measured_depth(one(halfway), one(seen))[0, 0], seen.astype(np.float32))


def test_holes_take_the_surface_beside_them_or_the_prediction() -> None:
    seen = np.full(SIZE, WALL_M)
    seen[:, 40:] = 0.0
    found = snap_to_measured_depth(one(np.full(SIZE, WALL_M - 0.1)), one(seen))[0, 0]
    np.testing.assert_allclose(found[:, : 40 + REACH_PX], WALL_M)
    np.testing.assert_allclose(found[:, 40 + REACH_PX :], WALL_M - 0.1)


def test_reprojection_follows_the_camera_motion() -> None:
    np.testing.assert_allclose(reproject(bar(20), K, np.eye(4)).depth_hw_m, bar(20))
    ahead = np.eye(4)
    ahead[2, 3] = 0.4
    found = reproject(np.full(SIZE, 2.0), K, ahead).depth_hw_m
    np.testing.assert_allclose(found[found > 0], 1.6)
    assert (found > 0).all()
    back = reproject(np.full(SIZE, 2.0), K, np.linalg.inv(ahead)).depth_hw_m
    assert (back[[0, -1]] == 0).all()  # nothing is known of what comes in at the border


def carried_depth(depth: Any, T_cam_future: Any, moving: Any) -> Any:
    return reproject_views(np.zeros((1, *SIZE, 3), np.uint8), depth[None], K[None], T_cam_future, moving).depth_fvhw_m


def test_pictures_are_carried_along_with_their_depth() -> None:
    """A camera that moves aside by whole pixels before a wall shows the same image, moved by as many."""
    rgb, depth = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8), np.full(SIZE, 1.0)
    depth[40:] = END_EFFECTOR_M / 2
    aside = np.eye(4)
    aside[0, 3] = 5 / K[0, 0]
    (found,) = reproject_views(rgb[None], depth[None], K[None], aside[None, None], [0]).rgb_fvhwc_u8[:, 0]
    np.testing.assert_array_equal(found[:39, :-6], rgb[:39, 5:-1])
    np.testing.assert_array_equal(found[40:], rgb[40:])  # the end effector
    away = np.eye(4)
    away[:3, :3] = np.diag([-1.0, 1.0, -1.0])  # turned round: nothing that was seen is there
    (elsewhere,) = reproject_views(rgb[None], np.full((1, *SIZE), 1.0), K[None], away[None, None], [0]).rgb_fvhwc_u8[
        :, 0
    ]
    np.testing.assert_array_equal(elsewhere, rgb)
    (still,) = reproject_views(rgb[None], depth[None], K[None], aside[None, None], []).rgb_fvhwc_u8[:, 0]
    np.testing.assert_array_equal(still, rgb)


def test_what_is_carried_along_lies_where_it_was_in_space() -> None:
    rng = np.random.default_rng(3)
    v, u = np.mgrid[: SIZE[0], : SIZE[1]]
    depth = 1.5 + 0.3 * np.sin(u / 9) * np.cos(v / 7)
    T_base_cam = np.eye(4)
    T_base_cam[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    T_base_cam[:3, :3] *= np.linalg.det(T_base_cam[:3, :3])
    T_base_cam[:3, 3] = rng.normal(size=3)
    move = np.eye(4)
    angle = 0.1
    move[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    move[:3, 3] = [0.05, -0.03, 0.04]
    T_cam_future = (np.linalg.inv(T_base_cam) @ move @ T_base_cam)[None, None]
    carried = carried_depth(depth, T_cam_future, [0])
    before = points_from_depth(depth, K, T_base_cam)
    was_seen = reproject(depth, K, T_cam_future[0, 0]).depth_hw_m > 0
    assert was_seen.mean() > 0.5
    after = points_from_depth(np.where(was_seen, carried[0, 0], 0.0), K, move @ T_base_cam)
    left_behind = points_from_depth(depth, K, move @ T_base_cam)
    near, far = (np.median(cKDTree(before).query(points)[0]) for points in (after, left_behind))
    assert near < 0.5 * 1.5 / K[0, 0]  # half a pixel
    assert far > 4 * near
    np.testing.assert_array_equal(carried_depth(depth, T_cam_future, [])[0, 0], depth)


def test_a_hand_comes_along_with_its_camera() -> None:
    depth = np.full(SIZE, 0.5)
    depth[30:, 20:40] = finger = END_EFFECTOR_M / 2
    closer = np.eye(4)
    closer[2, 3] = 0.1
    carried = carried_depth(depth, closer[None, None], [0])[0, 0]
    np.testing.assert_array_equal(carried[30:, 20:40], finger)
    np.testing.assert_allclose(carried[:28], 0.4)
    aside = np.eye(4)
    aside[0, 3] = 0.1
    carried = carried_depth(depth, aside[None, None], [0])[0, 0]
    np.testing.assert_array_equal(carried < END_EFFECTOR_M, depth < END_EFFECTOR_M)


def test_uncovered_pixels_take_the_neighbours_depth() -> None:
    back = np.eye(4)
    back[2, 3] = -0.5
    seen = np.full(SIZE, 1.0)
    seen[:, : SIZE[1] // 2] = 2.0
    (carried,) = carried_depth(seen, back[None, None], [0])[:, 0]
    assert (reproject(seen, K, back).depth_hw_m == 0).any()
    np.testing.assert_allclose(carried[:, 0], 2.5)
    np.testing.assert_allclose(carried[:, -1], 1.5)
    nothing = carried_depth(np.zeros(SIZE), back[None, None], [0])
    assert not nothing.any()


@pytest.mark.parametrize("measured", [np.zeros(SIZE), np.full(SIZE, WALL_M)])
def test_where_nothing_else_is_measured_the_prediction_stays(measured: np.ndarray) -> None:
    pred = np.full(SIZE, WALL_M)
    np.testing.assert_array_equal(snap_to_measured_depth(one(pred), one(measured))[0, 0], pred.astype(np.float32))


def test_a_hole_far_from_every_surface_takes_the_prediction() -> None:
    seen = np.full(SIZE, WALL_M)
    seen[:, 40:] = 0.0
    found = snap_to_measured_depth(one(np.full(SIZE, 0.4)), one(seen))[0, 0]
    np.testing.assert_allclose(found[:, 40:], 0.4)
    np.testing.assert_array_equal(found[:, :40], WALL_M)


def test_every_pixel_follows_the_rule_as_it_is_written() -> None:
    rng = np.random.default_rng(5)
    size = (14, 16)
    measured = np.where(rng.random(size) < 0.2, 0, rng.choice([0.5, 1.0, 1.6, 3.0], size))
    pred = rng.uniform(0.3, 3.2, size)
    expected = np.where(measured > 0, measured, pred)
    for row, col in np.ndindex(size):
        own = measured[row, col]
        if own > 0 and abs(own - pred[row, col]) < STILL_M:
            continue
        around = measured[max(0, row - REACH_PX) : row + REACH_PX + 1, max(0, col - REACH_PX) : col + REACH_PX + 1]
        gaps = np.abs(around[around > 0] - pred[row, col])
        if gaps.min() < (SURE_FRAC * abs(own - pred[row, col]) if own > 0 else STILL_M):
            expected[row, col] = around[around > 0][gaps.argmin()]
    np.testing.assert_allclose(snap_to_measured_depth(one(pred), one(measured))[0, 0], expected, rtol=1e-6)
