"""Camera files of other conventions see the scene where OpenCV's own projection sees it.

In: one camera, written in each form with scipy's rotations. Out: a verdict.
Read next: `evalkit/score/sources/camera_files.py`.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from evalkit.contracts.errors import BadConfig
from evalkit.contracts.geometry import inverse
from evalkit.score.sources.camera_files import Convention, read_cameras
from evalkit.score.sources.cameras import Camera

K = np.array([[61.0, 0.0, 30.5], [0.0, 59.0, 22.0], [0.0, 0.0, 1.0]])
R_cam_base = Rotation.from_euler("xyz", [115.0, -20.0, 35.0], degrees=True)
t_cam_m = np.array([0.2, 0.1, 1.4])
POINTS_M = np.random.default_rng(0).uniform(-0.3, 0.3, (20, 3))
"""In the base frame."""

T_cam_base = np.eye(4)
T_cam_base[:3, :3], T_cam_base[:3, 3] = R_cam_base.as_matrix(), t_cam_m
T_base_cam = np.linalg.inv(T_cam_base)
FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
T_base_gl = T_base_cam @ FLIP
QVEC = np.roll(R_cam_base.as_quat(), 1)

EXPECTED_PX = cv2.projectPoints(POINTS_M, R_cam_base.as_rotvec(), t_cam_m, K, np.zeros(5))[0][:, 0]


def projected(camera: Camera) -> np.ndarray:
    points = inverse(camera.T_base_cam_f44) @ np.concatenate([POINTS_M, np.ones((20, 1))], axis=1).T
    pixels = camera.intrinsics_33_px @ points[:3]
    return np.asarray((pixels[:2] / pixels[2]).T)


def written(tmp_path: Path, data: Any, convention: Convention | None, views: tuple[str, ...] = ("front",)) -> Camera:
    path = tmp_path / "cameras.json"
    path.write_text(json.dumps(data))
    return read_cameras(path, views, convention=convention).cameras[0]


FORMS: list[tuple[str, Convention | None, dict[str, Any]]] = [
    (
        "own",
        None,
        {"views": [{"name": "front", "kind": "static", "intrinsics": K.tolist(), "T_base_cam": T_base_cam.tolist()}]},
    ),
    ("own, inverse", None, {"front": {"K": K.tolist(), "T_cam_base": T_cam_base.tolist()}}),
    ("one camera", "opencv", {"fx": 61, "fy": 59, "cx": 30.5, "cy": 22, "c2w": T_base_cam[:3].tolist()}),
    ("opencv w2c", "opencv", {"cameras": {"front": {"K": K.tolist(), "world_to_camera": T_cam_base.tolist()}}}),
    ("opengl", "opengl", {"front": {"camera_matrix": K.tolist(), "transform_matrix": T_base_gl.tolist()}}),
    ("opengl own", "opengl", {"views": [{"name": "front", "K": K.tolist(), "T_base_cam": T_base_gl.tolist()}]}),
    (
        "opengl w2c",
        "opengl",
        {"cameras": [{"name": "front", "K": K.tolist(), "w2c": np.linalg.inv(T_base_gl).tolist()}]},
    ),
    ("opengl stated", None, {"convention": "opengl", "front": {"K": K.tolist(), "extrinsics": T_base_gl.tolist()}}),
    ("colmap", "colmap", {"front": {"K": K.tolist(), "extrinsics": T_cam_base[:3].tolist()}}),
    ("colmap quaternion", "colmap", {"front": {"K": K.tolist(), "qvec": QVEC.tolist(), "tvec": t_cam_m.tolist()}}),
    (
        "colmap, other length",
        None,
        {"front": {"K": K.tolist(), "qvec": (-2 * QVEC).tolist(), "tvec": t_cam_m.tolist()}},
    ),
    (
        "nerf",
        None,
        {
            **{"fl_x": 61, "fl_y": 59, "cx": 31.0, "cy": 22.5, "w": 62, "h": 45},
            "frames": [{"file_path": "images/0000.png", "transform_matrix": T_base_gl.tolist()}],
        },
    ),
]


@pytest.mark.parametrize(("convention", "data"), [form[1:] for form in FORMS], ids=[form[0] for form in FORMS])
def test_every_form_projects_as_opencv_does(tmp_path: Path, convention: Convention | None, data: Any) -> None:
    camera = written(tmp_path, data, convention)
    assert camera.spec.name == "front"
    if camera.T_base_cam_f44.ndim == 3:
        [pose] = camera.poses([0], 0)
        camera = Camera(spec=camera.spec, intrinsics_33_px=camera.intrinsics_33_px, T_base_cam_f44=pose)
    assert projected(camera) == pytest.approx(EXPECTED_PX, abs=1e-9)


def test_a_field_of_view_gives_square_pixels(tmp_path: Path) -> None:
    frame = {"file_path": "a.png", "transform_matrix": np.eye(4).tolist()}
    path = tmp_path / "transforms.json"
    path.write_text(json.dumps({"camera_angle_x": np.pi / 2, "frames": [frame]}))
    [camera] = read_cameras(path, ["front"], sizes_px={"front": (48, 64)}).cameras
    assert camera.intrinsics_33_px == pytest.approx(np.array([[32, 0, 31.5], [0, 32, 23.5], [0, 0, 1]]))


def test_poses_of_frames_are_found_by_their_number(tmp_path: Path) -> None:
    poses = [np.eye(4) for _ in range(4)]
    for number, pose in enumerate(poses):
        pose[0, 3] = number
    frames = [{"file_path": f"rgb/{n:04d}.png", "transform_matrix": (poses[n] @ FLIP).tolist()} for n in (3, 1, 2)]
    camera = written(tmp_path, {"fl_x": 50, "w": 64, "h": 48, "frames": frames}, None)
    found = camera.poses([1, 2, 3, 4], first=1)
    assert found[:3, 0, 3].tolist() == [1, 2, 3]
    assert np.isnan(found[3]).all()


def test_an_opengl_mount_of_a_wrist_camera_is_converted(tmp_path: Path) -> None:
    mount = T_base_gl.tolist()
    data = {"views": [{"name": "wrist", "arm": "left", "T_ee_cam": mount, "K": K.tolist(), "T_base_cam": mount}]}
    camera = written(tmp_path, data, "opengl", ("wrist",))
    assert (camera.spec.kind, camera.spec.arm) == ("wrist", "left")
    assert np.asarray(camera.spec.T_ee_cam) == pytest.approx(T_base_cam)


@pytest.mark.parametrize(
    ("data", "convention", "said"),
    [
        ({"convention": "opengl", "front": {"K": K.tolist()}}, "opencv", "states the convention opengl"),
        ({"convention": "blender", "front": {"K": K.tolist()}}, None, "must be opencv, opengl or colmap"),
        ({"depth_scale": 0, "front": {"K": K.tolist()}}, None, "depth_scale must be a positive number"),
        (
            {"fl_x": 5, "frames": [{"file_path": "side/0.png", "transform_matrix": []}]},
            None,
            "names none of front, top",
        ),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(
    tmp_path: Path, data: Any, convention: Convention | None, said: str
) -> None:
    with pytest.raises(BadConfig, match=said):
        written(tmp_path, data, convention, ("front", "top"))


@pytest.mark.parametrize(
    ("pose", "convention", "said"),
    [
        ({"c2w": np.eye(4).tolist()}, None, "'c2w' of 'front' does not say its axes"),
        ({"extrinsics": np.eye(4).tolist()}, None, "add --camera-convention opencv, opengl"),
        ({"T_base_cam": np.eye(4).tolist()}, "colmap", "call it T_cam_base"),
        ({"qvec": [1, 0, 0, 0], "tvec": [0, 0, 0]}, "opengl", "contradict opengl"),
    ],
)
def test_an_open_convention_leaves_the_rest_usable(
    tmp_path: Path, pose: Any, convention: Convention | None, said: str
) -> None:
    path = tmp_path / "cameras.json"
    path.write_text(json.dumps({"depth_scale": 5000, "front": {"K": K.tolist(), "kind": "wrist", **pose}}))
    found = read_cameras(path, ("front", "top"), convention=convention)
    assert said in found.problem
    assert found.depth_per_m == 5000
    assert found.cameras[0].spec.kind == "wrist"
    assert found.cameras[0].intrinsics_33_px == pytest.approx(K)
    assert np.isnan(found.cameras[0].T_base_cam_f44).all()


@pytest.mark.parametrize(
    ("key", "value", "per_m"),
    [
        ("depth_scale", 5000, 5000),
        ("depth_scale", 0.001, 1000),
        ("depth_unit_scale_factor", 0.0002, 5000),
        ("png_depth_scale", 6553.5, 6553.5),
    ],
)
def test_a_scale_of_depth_may_be_stated_either_way(tmp_path: Path, key: str, value: float, per_m: float) -> None:
    path = tmp_path / "cameras.json"
    path.write_text(json.dumps({key: value, "front": {"K": K.tolist()}}))
    assert read_cameras(path, ["front"]).depth_per_m == pytest.approx(per_m)
