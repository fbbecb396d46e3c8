"""Checks of cameras: matrices one by one, and cameras against each other, with every mistake that people make.

In: the closed-form room, from which each mistake is made on purpose. Out: a verdict.
Read next: `evalkit/score/checks/cameras.py`, `evalkit/score/checks/agreement.py`.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evalkit.contracts.geometry import inverse, matrix_from_quat, transform
from evalkit.score.checks.agreement import OPENGL, REFUSE_FRAC, WARN_FRAC, Views, along_ray, assess, combined, describe
from evalkit.score.checks.cameras import centre_oddity, distance_oddity, intrinsics_fault, pose_fault
from tests.doubles.scene import scene_chunk

SIZES = [(24, 32), (48, 64), (64, 48), (120, 160), (256, 320)]
POSE = transform(matrix_from_quat(np.array([0.5, 0.5, -0.5, 0.5])), np.array([0.5, -0.2, 1.1]))
K_320x240 = np.array([[280.0, 0.0, 159.5], [0.0, 280.0, 119.5], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize(
    ("T", "sentence"),
    [
        (POSE.T, "it looks transposed"),
        (np.full((4, 4), np.nan), "missing or not finite"),
        (np.nan, "missing"),
        (POSE[:3], "missing; expected a 4x4"),
        (POSE @ np.diag([1.0, 1.0, -1.0, 1.0]), "mirrors"),
        (POSE * [[1000.0], [1000.0], [1000.0], [1.0]], "rotation is scaled by 1000"),
        (transform(POSE[:3, :3], POSE[:3, 3] * 1000), "looks like millimetres"),
        (transform(POSE[:3, :3] + np.triu(np.full((3, 3), 0.1), 1), POSE[:3, 3]), "not orthonormal"),
        (POSE + np.diag([0.0, 0.0, 0.0, 1.0]), r"bottom row is \[0, 0, 0, 2\]"),
        (np.zeros((4, 4)), "bottom row"),
    ],
)
def test_a_matrix_that_is_no_pose_is_named(T: Any, sentence: str) -> None:
    distance = None if np.shape(T) != (4, 4) else distance_oddity(np.asarray(T))
    fault = pose_fault(np.asarray(T)) or (distance.text if distance is not None else "")
    assert re.search(sentence, fault), fault or "no fault"


def test_poses_pass_whatever_their_rotation() -> None:
    rng = np.random.default_rng(0)
    for quat in rng.normal(size=(200, 4)):
        T = transform(matrix_from_quat(quat / np.linalg.norm(quat)), rng.uniform(-3, 3, 3))
        assert pose_fault(T) == pose_fault(T.round(3)) == ""


@pytest.mark.parametrize(
    ("K", "sentence"),
    [
        (K_320x240 * [[2.0], [2.0], [1.0]], "an image of about 638 x 478"),
        (K_320x240 * [[0.5], [0.5], [1.0]], "an image of about 160 x 120"),
        (K_320x240 / [[320.0], [240.0], [1.0]], "divided by the image size"),
        (K_320x240.T, "look transposed"),
        (K_320x240 + np.array([[0.0, 30.0, 0.0], [0.0] * 3, [0.0] * 3]), "skew"),
        (K_320x240 * [[-1.0, 1.0, 1.0], [1.0] * 3, [1.0] * 3], "positive"),
        (K_320x240 * [[1.0] * 3, [1.0, -1.0, 1.0], [1.0] * 3], "positive"),
        (K_320x240[[1, 0, 2]][:, [1, 0, 2]], "width and height look swapped"),
        (K_320x240 * 2, r"bottom row is \[0, 0, 2\]"),
        (K_320x240 * [[0.1, 1.0, 1.0], [1.0, 0.1, 1.0], [1.0] * 3], "field of view"),
        (K_320x240 * [[20.0, 1.0, 1.0], [1.0, 20.0, 1.0], [1.0] * 3], "field of view"),
        (np.full((3, 3), np.nan), "missing"),
        (np.eye(3), "divided by the image size"),
    ],
)
def test_intrinsics_of_another_image_are_named(K: np.ndarray, sentence: str) -> None:
    centre = centre_oddity(K, (240, 320))
    fault = intrinsics_fault(K, (240, 320)) or (centre.text if centre is not None and centre.is_certain else "")
    assert re.search(sentence, fault), fault or "no fault"


@pytest.mark.parametrize("fovy_deg", [15.0, 45.0, 75.0, 100.0, 130.0])
def test_intrinsics_of_usual_cameras_pass(fovy_deg: float) -> None:
    for height, width in ((240, 320), (256, 256), (480, 640), (320, 240)):
        focal = 0.5 * height / np.tan(np.radians(fovy_deg) / 2)
        centre = np.array([width, height]) * [0.48, 0.53]
        K = np.array([[focal, 0.0, centre[0]], [0.0, focal * 1.05, centre[1]], [0.0, 0.0, 1.0]])
        assert intrinsics_fault(K, (height, width)) == ""
        assert centre_oddity(K, (height, width)) is None


def _views(size: tuple[int, int] = (48, 64), seed: int = 0) -> Views:
    chunk = scene_chunk(seed=seed, chunk_idx=seed * 3, num_frames=1, image_hw_px=size)
    return Views(
        depth_vhw_m=chunk.true.depth_fvhw_m[0].astype(np.float64),
        intrinsics_v33_px=chunk.intrinsics_v33_px,
        T_base_cam_v44=chunk.true.T_base_cam_fv44[0],
    )


@pytest.mark.parametrize("size", SIZES)
def test_correct_cameras_agree(size: tuple[int, int]) -> None:
    for seed in range(3):
        views = _views(size, seed)
        assert assess(views).found is None
        for pair in ([0, 1], [0, 2], [1, 2]):
            assert assess(Views(**{name: array[pair] for name, array in vars(views).items()})).found is None


def test_noise_and_holes_are_no_contradiction() -> None:
    rng, views = np.random.default_rng(0), _views((120, 160))
    noisy = views.depth_vhw_m * (1 + 0.01 * rng.normal(size=views.depth_vhw_m.shape))
    holes = np.where(rng.random(noisy.shape) < 0.3, 0.0, noisy)
    nan = np.where(holes == 0, np.nan, holes)
    for depth_m in (noisy, holes, nan):
        assert assess(replace(views, depth_vhw_m=depth_m)).found is None


def test_views_without_depth_say_nothing() -> None:
    views = _views()
    assert assess(replace(views, depth_vhw_m=np.zeros_like(views.depth_vhw_m))).found is None
    assert assess(Views(**{name: array[:1] for name, array in vars(views).items()})).found is None


def _posed(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Views], Views]:
    return lambda views: replace(views, T_base_cam_v44=np.stack([change(T) for T in views.T_base_cam_v44]))


def _focused(factor: float, centre: float) -> Callable[[Views], Views]:
    scale = np.array([[factor, factor, centre], [factor, factor, centre], [1.0, 1.0, 1.0]])
    return lambda views: replace(views, intrinsics_v33_px=views.intrinsics_v33_px * scale)


def _turned(T: np.ndarray) -> np.ndarray:
    return transform(T[:3, :3].T, T[:3, 3])


def _along_rays(views: Views) -> Views:
    height, width = views.depth_vhw_m.shape[1:]
    rays = np.stack([along_ray(K, (height, width)) for K in views.intrinsics_v33_px])
    return replace(views, depth_vhw_m=views.depth_vhw_m * rays)


SAPIEN = matrix_from_quat(np.array([0.5, 0.5, -0.5, 0.5]))
"""Columns: x forward, y left, z up, in a camera's frame with x right, y down, z forward."""

MISTAKES: dict[str, Callable[[Views], Views]] = {
    "inverted (world to camera)": _posed(inverse),
    "OpenGL's": _posed(lambda T: T @ OPENGL),
    "SAPIEN or ROS (x forward, y left, z up)": _posed(lambda T: T @ transform(SAPIEN, np.zeros(3))),
    "inverted with OpenGL axes": _posed(lambda T: OPENGL @ inverse(T)),
    "rotation looks transposed": _posed(_turned),
    "translation looks like millimetres": _posed(lambda T: transform(T[:3, :3], T[:3, 3] * 1000)),
    "translation looks like centimetres": _posed(lambda T: transform(T[:3, :3], T[:3, 3] * 100)),
    "image twice as large": _focused(2.0, 2.0),
    "image half as large": _focused(0.5, 0.5),
    "focal lengths look doubled": _focused(2.0, 1.0),
    "focal lengths look halved": _focused(0.5, 1.0),
    "distance along the ray": _along_rays,
    "upside down": lambda views: replace(views, depth_vhw_m=views.depth_vhw_m[:, ::-1]),
    "mirrored": lambda views: replace(views, depth_vhw_m=views.depth_vhw_m[:, :, ::-1]),
    "swapped": lambda views: replace(views, T_base_cam_v44=views.T_base_cam_v44[[1, 0, 2]]),
}


@pytest.mark.parametrize("size", [(48, 64), (120, 160)])
@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_in_all_cameras_is_named(text: str, size: tuple[int, int]) -> None:
    for seed in range(2):
        found = assess(MISTAKES[text](_views(size, seed))).found
        assert found is not None
        assert text in found.explanation


@pytest.mark.parametrize("view", [0, 1, 2])
@pytest.mark.parametrize("text", list(MISTAKES)[:10])
def test_a_mistake_in_one_camera_is_found_there(text: str, view: int) -> None:
    right = _views((120, 160))
    wrong = MISTAKES[text](right)
    mixed = {name: array.copy() for name, array in vars(right).items()}
    for name, array in vars(wrong).items():
        mixed[name][view] = array[view]
    found = assess(Views(**mixed)).found
    assert found is not None
    assert view in found.views
    assert found.explanation or (found.in_front_frac or 0) > WARN_FRAC


@pytest.mark.parametrize("factor", [0.1, 0.2, 0.5, 2.0, 5.0])
def test_depth_of_a_usual_wrong_scale_is_named(factor: float) -> None:
    views = _views((120, 160))
    found = assess(replace(views, depth_vhw_m=views.depth_vhw_m * factor)).found
    assert found is not None
    assert f"the depth looks {factor:g} times its true value" in found.explanation


@pytest.mark.parametrize("factor", [1.5, 1.9, 3.0])
def test_depth_of_another_scale_contradicts_the_cameras(factor: float) -> None:
    views = _views((120, 160))
    found = assess(replace(views, depth_vhw_m=views.depth_vhw_m * factor)).found
    assert found is not None
    assert (found.in_front_frac or 0) > REFUSE_FRAC


def test_the_axes_of_sapien_are_forward_left_up() -> None:
    assert np.allclose(SAPIEN @ [1, 0, 0], [0, 0, 1])
    assert np.allclose(SAPIEN @ [0, 1, 0], [-1, 0, 0])
    assert np.allclose(SAPIEN @ [0, 0, 1], [0, -1, 0])


def test_other_orders_of_axes_are_named() -> None:
    y_forward = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
    found = assess(_posed(lambda T: T @ transform(y_forward, np.zeros(3)))(_views((120, 160)))).found
    assert found is not None
    assert "the axes look like x right, y forward, z up" in found.explanation


def parallel_views(baseline_m: float, noise_frac: float = 0.0) -> Views:
    """Return two parallel cameras, side by side, above a floor with a box on it, in closed form."""
    height, width = 90, 124
    K = np.array([[110.0, 0.0, 61.5], [0.0, 105.0, 44.5], [0.0, 0.0, 1.0]])
    down = np.diag([1.0, -1.0, -1.0, 1.0])  # looks along -z of the base
    v, u = np.mgrid[:height, :width]
    depths, poses = [], []
    for side in (-0.5, 0.5):
        x_m = side * baseline_m
        at_top = np.stack([(u - 61.5) / 110 + x_m, (v - 44.5) / 105]) * 1.0  # the box's top is 1 m away
        on_box = (np.abs(at_top[0]) < 0.15) & (np.abs(at_top[1]) < 0.1)
        depths.append(np.where(on_box, 1.0, 1.3))
        poses.append(transform(down[:3, :3], np.array([x_m, 0.0, 1.3])))
    noise = np.random.default_rng(0).normal(1.0, noise_frac, (2, height, width)) if noise_frac else 1.0
    return Views(
        depth_vhw_m=np.stack(depths) * noise, intrinsics_v33_px=np.stack([K, K]), T_base_cam_v44=np.stack(poses)
    )


def test_axes_that_parallel_cameras_share_are_doubted() -> None:
    views = parallel_views(0.2)
    assert assess(views).found is None
    assert assess(views).confirmed == {0, 1}
    backwards = replace(views, T_base_cam_v44=views.T_base_cam_v44 @ np.diag([-1.0, -1.0, 1.0, 1.0]))
    assert assess(backwards).confirmed == {0, 1}, "the two confirm each other"
    found = assess(backwards).found
    assert found is not None
    assert (found.views, found.explanation[:18]) == ((0, 1), "the axes look like")
    assert found.in_front_frac is not None
    assert found.in_front_frac <= WARN_FRAC
    assert "the cameras agree better with other axes" in describe(found)


@pytest.mark.parametrize("noise_frac", [0.005, 0.01, 0.02])
@pytest.mark.parametrize("baseline_m", [0.05, 0.2, 0.4])
def test_noise_of_parallel_cameras_is_no_doubt(noise_frac: float, baseline_m: float) -> None:
    assert assess(parallel_views(baseline_m, noise_frac)).found is None


def test_a_turn_about_the_line_between_changes_no_distance() -> None:
    views = parallel_views(0.2)
    turned = views.T_base_cam_v44 @ np.diag([1.0, -1.0, -1.0, 1.0])
    assert assess(replace(views, T_base_cam_v44=turned)).found is None

    def cloud(poses: np.ndarray) -> np.ndarray:
        v, u = np.mgrid[:90:9, :124:9]
        rays = np.stack([(u - 61.5) / 110, (v - 44.5) / 105, np.ones(u.shape)], axis=-1)
        points = [
            (depth[v, u][..., None] * rays) @ T[:3, :3].T + T[:3, 3]
            for depth, T in zip(views.depth_vhw_m, poses, strict=True)
        ]
        return np.concatenate([each.reshape(-1, 3) for each in points])

    one, other = (
        np.linalg.norm(each[:, None] - each[None], axis=-1) for each in map(cloud, (views.T_base_cam_v44, turned))
    )
    np.testing.assert_allclose(one, other, atol=1e-12)


def test_a_scale_of_depth_may_be_one_of_translations() -> None:
    found = assess(_posed(lambda T: transform(T[:3, :3], T[:3, 3] * 0.5))(_views((120, 160)))).found
    assert found is not None
    assert "the depth looks 2 times its true value, or all translations 0.5 times theirs" in found.explanation


def test_a_wrong_pose_in_one_frame_is_no_convention() -> None:
    right = _views((120, 160))
    poses = right.T_base_cam_v44.copy()
    poses[2, :3, 3] += [0.2, 0.1, -0.3]
    wrong = assess(replace(right, T_base_cam_v44=poses))
    assert wrong.found is not None
    found = combined({0: wrong, 7: assess(right)}).found
    assert found is not None
    assert (found.views, found.in_front_frac) == (wrong.found.views, wrong.found.in_front_frac)
    assert found.explanation == "another frame agrees; check the poses of frame 0 of the chunk"
    assert combined({0: wrong, 7: wrong}).found == wrong.found


@pytest.mark.parametrize(
    ("scale", "is_certain"),
    [((2, 2), True), ((0.5, 0.5), True), ((5, 2.8), True), ((0, 1), False), ((2, 1), False), ((1, 0.3), False)],
)
def test_a_crop_is_no_other_image_size(scale: tuple[float, float], is_certain: bool) -> None:
    centre = np.array([320, 240]) * scale / 2 - 0.5
    K = np.array([[280.0, 0.0, centre[0]], [0.0, 280.0, centre[1]], [0.0, 0.0, 1.0]])
    found = centre_oddity(K, (240, 320))
    assert found is not None
    assert found.is_certain == is_certain
