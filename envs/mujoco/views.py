"""Images of a MuJoCo simulation: RGB, metric depth at pixel centres, camera matrices, and one safe GL context.

In: a compiled model, its data, camera names. Out: images with row 0 on top, metres, OpenCV camera poses in the world.
Read next: `envs/robosuite/env.py`, which turns world poses into the robot base frame.

It knows MuJoCo and no simulator built on it. Two offscreen contexts in one process, or one that outlived its model,
corrupt frames silently; hence one renderer a process, which drops the old model's GPU copy before it takes a new one.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import numpy as np

from evalkit.contracts import geometry
from evalkit.contracts.errors import EvalkitError

MAX_DEPTH_M = 20.0
"""Beyond this distance there is only backdrop; its depth is 0, which means none."""

HIDDEN_GROUP = 0
"""Geom group of collision shapes, which no image shows."""

OUTSIDE_MARGIN_M = 0.001
"""A geom is left out of an image only if it is further from it than this, which is above any rounding."""

R_mjcam_cam = np.diag([1.0, -1.0, -1.0])
"""MuJoCo cameras look along -z with y up; ours look along +z with y down."""

_GL_LIBRARIES = {"egl": "libEGL.so.1", "osmesa": "libOSMesa.so.8"}

GL_PACKAGES = {"egl": "libegl1 libegl-mesa0 libgl1-mesa-dri", "osmesa": "libosmesa6"}
"""Debian's packages with each renderer."""


class Views(NamedTuple):
    """The images and matrices of V cameras at one moment."""

    rgb: np.ndarray
    """V,H,W,3 uint8, row 0 on top."""
    depth: np.ndarray
    """V,H,W float32 metres along the optical axis; 0 where there is none."""
    intrinsics: np.ndarray
    """V,3,3 pixels, pixel centres at integers."""
    T_world_cam: np.ndarray
    """V,4,4, x right, y down, z forward."""


def choose_gl() -> str:
    """Return the offscreen renderer to use: MUJOCO_GL where it is set, else egl, else osmesa.

    Raises:
        EvalkitError: If neither library is installed.
    """
    chosen = os.environ.get("MUJOCO_GL", "").strip().lower()
    if chosen:
        return chosen
    for name in _GL_LIBRARIES:
        if _has_library(name):
            return name
    raise EvalkitError(
        f"Rendering needs {' or '.join(_GL_LIBRARIES.values())} and neither is installed; install libegl1 and "
        "libegl-mesa0 (a GPU's driver brings them too) or libosmesa6."
    )


def check_gl() -> None:
    """Check that the library of the chosen renderer is there; robosuite cannot even be imported without it.

    Raises:
        EvalkitError: Says what to install, or what to set MUJOCO_GL to.
    """
    name = choose_gl()
    if name not in _GL_LIBRARIES or _has_library(name):
        return
    others = [other for other in _GL_LIBRARIES if other != name and _has_library(other)]
    instead = f", or set MUJOCO_GL={others[0]}, which is there" if others else ""
    raise EvalkitError(
        f"MUJOCO_GL={name} needs {_GL_LIBRARIES[name]}, which is not installed: apt-get install "
        f"{GL_PACKAGES[name]}{instead}"
    )


def _has_library(name: str) -> bool:
    """Return whether the library of a renderer can be loaded, under its usual name or another one of its versions."""
    names = [_GL_LIBRARIES[name], ctypes.util.find_library(_GL_LIBRARIES[name][len("lib") :].partition(".")[0])]
    for library in filter(None, names):
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
        return True
    return False


def depth_from_zbuffer(zbuffer: np.ndarray, *, near_m: float, far_m: float) -> np.ndarray:
    """Return float32 metres along the optical axis from a reversed z-buffer (1 near, 0 far); 0 where there is none.

    Example:
        >>> depth_from_zbuffer(np.float32([1.0, 0.0]), near_m=0.01, far_m=100.0)
        array([0.01, 0.  ], dtype=float32)
    """
    z = zbuffer.astype(np.float64)
    depth = near_m * far_m / (z * (far_m - near_m) + near_m)
    depth[(z <= 0) | (depth > MAX_DEPTH_M)] = 0.0
    return depth.astype(np.float32)


def look_at(eye_m: Sequence[float], target_m: Sequence[float]) -> np.ndarray:
    """Return 4,4 `T_world_cam` of a level camera at `eye_m` that looks at `target_m`; not for straight up or down.

    Example:
        >>> look_at([0.0, 0.0, 1.0], [1.0, 0.0, 1.0])[:3, :3].round(6) + 0.0  # looks along x: right is -y, down is -z
        array([[ 0.,  0.,  1.],
               [-1.,  0.,  0.],
               [ 0., -1.,  0.]])
    """
    forward = np.asarray(target_m, np.float64) - np.asarray(eye_m, np.float64)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right = right / np.linalg.norm(right)
    return geometry.transform(np.stack([right, np.cross(forward, right), forward], axis=-1), np.asarray(eye_m))


def mujoco_quat_from_camera(T_world_cam: np.ndarray) -> np.ndarray:
    """Return the wxyz quaternion that MuJoCo's `cam_quat` needs for a camera of our convention."""
    return geometry.quat_from_matrix(T_world_cam[:3, :3] @ R_mjcam_cam.T)


def camera_pose(data: Any, name: str) -> np.ndarray:
    """Return 4,4 `T_world_cam` of a named camera, as of the last kinematics."""
    camera = data.camera(name)
    return geometry.transform(camera.xmat.reshape(3, 3) @ R_mjcam_cam, camera.xpos)


class ViewRenderer:
    """Renders named cameras of one model after another; there is one per process.

    Depth is measured at pixel centres, whatever the number of samples: an antialiased buffer gives the depth of one of
    its samples, 3/8 of a pixel below the centre. With samples, a second pass without them renders the depth; it has no
    lights, shadows, mirrors and textures, which change no depth, and adds a third to the time. Without samples, one
    pass gives both.

    Args:
        image_hw_px: Height and width of every image.
        antialias_samples: Samples per pixel of colour; 0 is twice as fast and jagged. A driver may take more, or fewer
            if it has fewer.
        as_robosuite: Render the same pixels as robosuite's own renderer, with shadows, mirrors and visible sites.
    """

    _alive: ClassVar[ViewRenderer | None] = None

    def __init__(self, *, image_hw_px: tuple[int, int], antialias_samples: int = 0, as_robosuite: bool = False) -> None:
        check_gl()
        if ViewRenderer._alive is not None:
            raise EvalkitError(
                "A MuJoCo env is already open in this process and two would corrupt each other's images; "
                "close it first, or give each env a process of its own."
            )
        ViewRenderer._alive = self
        self.image_hw_px = image_hw_px
        self._antialias_samples = antialias_samples
        self._as_robosuite = as_robosuite
        self._model: Any = None
        self._gl: Any = None
        self._context: Any = None
        self._colour_scene: Any = None
        self._depth_scene: Any = None

    def describe(self) -> str:
        """Return the name of the renderer, for the run record, for example `egl, llvmpipe (LLVM 15.0.6, 256 bits)`."""
        try:
            self._make_current()
            from OpenGL import GL

            renderer, most = GL.glGetString(GL.GL_RENDERER).decode(), int(GL.glGetIntegerv(GL.GL_MAX_SAMPLES))
            limit = f", {most} samples a pixel at most" if self._antialias_samples > most else ""
            return f"{choose_gl()}, {renderer}{limit}"
        except Exception as error:  # an oracle's run needs no images; `capture` raises where they are needed
            return f"none ({type(error).__name__}: {error})"

    def forget(self) -> None:
        """Free the GPU copy of the last model; call it before that model goes away."""
        if self._context is not None:
            self._gl.make_current()
            self._context.free()
        self._model = self._context = self._colour_scene = self._depth_scene = None

    def close(self) -> None:
        """Free everything; calling it twice is fine."""
        self.forget()
        if self._gl is not None:
            self._gl.free()
            self._gl = None
        if ViewRenderer._alive is self:
            ViewRenderer._alive = None

    def capture(self, model: Any, data: Any, cameras: Sequence[str]) -> Views:
        """Return the views of the named cameras; kinematics and lights must be up to date."""
        if not cameras:
            return _no_views(self.image_hw_px)
        if self._model is not model:
            self._load(model)
        self._gl.make_current()
        height, width = self.image_hw_px
        rgb = np.empty((len(cameras), height, width, 3), np.uint8)
        zbuffer = np.empty((len(cameras), height, width), np.float32)
        for view, name in enumerate(cameras):
            self._colour_scene.update(model, data, name, self.image_hw_px)
            self._render(self._colour_scene, rgb[view], zbuffer[view])
        if self._depth_scene is not None:
            with self._without_samples():
                for view, name in enumerate(cameras):
                    self._depth_scene.update(model, data, name, self.image_hw_px)
                    self._render(self._depth_scene, None, zbuffer[view])
        near_m, far_m = (float(clip * model.stat.extent) for clip in (model.vis.map.znear, model.vis.map.zfar))
        return Views(
            rgb=np.ascontiguousarray(rgb[:, ::-1]),
            depth=depth_from_zbuffer(np.ascontiguousarray(zbuffer[:, ::-1]), near_m=near_m, far_m=far_m),
            intrinsics=np.stack(
                [
                    geometry.intrinsics_from_fovy(
                        np.deg2rad(model.camera(name).fovy[0]), height_px=height, width_px=width
                    )
                    for name in cameras
                ]
            ),
            T_world_cam=np.stack([camera_pose(data, name) for name in cameras]),
        )

    def _make_current(self) -> None:
        if self._gl is None:
            self._gl = _open_context(*self.image_hw_px)
        self._gl.make_current()

    def _load(self, model: Any) -> None:
        """Copy a model to the GPU."""
        import mujoco

        self.forget()
        self._make_current()
        height, width = self.image_hw_px
        model.vis.global_.offheight, model.vis.global_.offwidth = height, width
        model.vis.quality.offsamples = self._antialias_samples
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50.value)
        self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._colour_scene = _Scene(model, as_robosuite=self._as_robosuite)
        if self._context.offSamples > 0:
            self._depth_scene = _Scene(model, as_robosuite=self._as_robosuite, depth_only=True)
        self._model = model

    def _render(self, scene: _Scene, rgb: np.ndarray | None, zbuffer: np.ndarray) -> None:
        """Render a scene into arrays, bottom row first."""
        import mujoco

        height, width = self.image_hw_px
        viewport = mujoco.MjrRect(0, 0, width, height)
        mujoco.mjr_render(viewport, scene.scene, self._context)
        mujoco.mjr_readPixels(rgb, zbuffer, viewport, self._context)

    @contextmanager
    def _without_samples(self) -> Iterator[None]:
        """Render into a buffer without samples; the model's copy on the GPU stays."""
        samples, (height, _) = self._context.offSamples, self.image_hw_px
        self._replace_buffer(samples=0, height_px=height + 1)
        try:
            yield
        finally:
            self._replace_buffer(samples=samples, height_px=height)

    def _replace_buffer(self, *, samples: int, height_px: int) -> None:
        """Make a new offscreen buffer, which takes 0.02 ms; MuJoCo makes one only if the size changes."""
        import mujoco

        self._context.offSamples = samples
        mujoco.mjr_resizeOffscreen(self.image_hw_px[1], height_px, self._context)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)


class _Scene:
    """What one pass renders: visual geometry; sites, mirrors and shadows where robosuite renders them.

    Args:
        model: A compiled `MjModel`.
        as_robosuite: As in `ViewRenderer`.
        depth_only: Leave out what changes no depth.
    """

    def __init__(self, model: Any, *, as_robosuite: bool, depth_only: bool = False) -> None:
        import mujoco

        self.scene = mujoco.MjvScene(model, maxgeom=10000)
        self._options, self._depth_only = mujoco.MjvOption(), depth_only
        self._options.geomgroup[HIDDEN_GROUP] = 0
        self._culls = depth_only or not as_robosuite
        if not as_robosuite:
            self._options.sitegroup[:] = 0
        if depth_only:
            self._options.flags[mujoco.mjtVisFlag.mjVIS_TEXTURE] = 0
            self.scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = 0
        if self._culls:
            self.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            self.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0

    def update(self, model: Any, data: Any, camera_name: str, image_hw_px: tuple[int, int]) -> None:
        """Take in the state, as seen by a camera; without shadows and mirrors, what lies outside its image has no part.

        Software rendering takes time for each vertex, also outside the image; this saves a tenth to a third of it, and
        no pixel changes.
        """
        import mujoco

        camera = mujoco.MjvCamera()
        camera.type, camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, model.camera(camera_name).id
        everything = mujoco.mjtCatBit.mjCAT_ALL.value
        groups = model.geom_group.copy()
        if self._culls:
            model.geom_group[outside_image(model, data, camera_name, image_hw_px)] = HIDDEN_GROUP
        mujoco.mjv_updateScene(model, data, self._options, None, camera, everything, self.scene)
        model.geom_group[:] = groups
        if self._depth_only:
            self.scene.nlight = 0


def outside_image(model: Any, data: Any, camera_name: str, image_hw_px: tuple[int, int]) -> np.ndarray:
    """Return for each geom whether its bounding box lies beyond one of the four planes through an image's edges.

    Args:
        model: A compiled `MjModel`.
        data: Its state, kinematics up to date.
        camera_name: Name of a camera with a field of view in degrees.
        image_hw_px: Height and width of its image.

    Returns:
        G bool; False for infinite planes.
    """
    height, width = image_hw_px
    camera = data.camera(camera_name)
    up = np.tan(np.deg2rad(model.camera(camera_name).fovy[0]) / 2)
    right = up * width / height
    inward_cam = np.array([[1, 0, -right], [-1, 0, -right], [0, 1, -up], [0, -1, -up]])  # MuJoCo's axes: looks along -z
    inward = inward_cam @ camera.xmat.reshape(3, 3).T
    R_world_geom = data.geom_xmat.reshape(-1, 3, 3)
    middle, half_size = model.geom_aabb[:, :3, None], model.geom_aabb[:, None, 3:]
    from_camera = data.geom_xpos + (R_world_geom @ middle)[:, :, 0] - camera.xpos
    reach = (np.abs(inward @ R_world_geom) * half_size).sum(-1)
    beyond = ((from_camera @ inward.T + reach) < -OUTSIDE_MARGIN_M).any(axis=1)
    return np.asarray(beyond & (model.geom_type != 0))  # 0 is mjGEOM_PLANE


def simplify_meshes(model: Any, cell_m: float, *, min_faces: int = 500) -> int:
    """Merge vertices of heavy visual meshes that share a grid cell; return how many faces are left in all.

    Software rendering costs time by vertex. Only what is drawn changes: meshes that can collide are left alone, and
    MuJoCo collides with their hulls, never with the faces edited here.

    Args:
        model: A compiled `MjModel`, edited in place before it is first rendered.
        cell_m: Edge of a grid cell; 0 leaves every mesh as it is.
        min_faces: Meshes with fewer faces are left as they are.
    """
    is_mesh = model.geom_type == 7  # mjGEOM_MESH
    collides = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    keep_whole = set(model.geom_dataid[is_mesh & collides].tolist())
    for mesh in range(model.nmesh if cell_m > 0 else 0):
        if mesh not in keep_whole and model.mesh_facenum[mesh] >= min_faces:
            _simplify_mesh(model, mesh, cell_m)
    return int(model.mesh_facenum.sum())


def _simplify_mesh(model: Any, mesh: int, cell_m: float) -> None:
    first_vertex, num_vertices = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    first_face, num_faces = model.mesh_faceadr[mesh], model.mesh_facenum[mesh]
    cells = np.floor(model.mesh_vert[first_vertex : first_vertex + num_vertices] / cell_m).astype(np.int64) + 2**19
    keys = (cells[:, 0] << 40) | (cells[:, 1] << 20) | cells[:, 2]
    _, representative, cell_of_vertex = np.unique(keys, return_index=True, return_inverse=True)
    faces = representative[cell_of_vertex][model.mesh_face[first_face : first_face + num_faces]]
    lowest_first = (faces.argmin(axis=1)[:, None] + np.arange(3)) % 3  # turned, never flipped: sides stay apart
    a, b, c = np.take_along_axis(faces, lowest_first, axis=1).astype(np.int64).T
    whole = np.flatnonzero((a != b) & (b != c) & (c != a))
    _, unique = np.unique((a[whole] << 40) | (b[whole] << 20) | c[whole], return_index=True)
    kept = whole[np.sort(unique)]
    for table in (model.mesh_facenormal, model.mesh_facetexcoord):
        table[first_face : first_face + len(kept)] = table[first_face : first_face + num_faces][kept]
    model.mesh_face[first_face : first_face + len(kept)] = faces[kept]
    model.mesh_facenum[mesh] = len(kept)


def _no_views(image_hw_px: tuple[int, int]) -> Views:
    return Views(
        rgb=np.zeros((0, *image_hw_px, 3), np.uint8),
        depth=np.zeros((0, *image_hw_px), np.float32),
        intrinsics=np.zeros((0, 3, 3)),
        T_world_cam=np.zeros((0, 4, 4)),
    )


def _open_context(height: int, width: int) -> Any:
    """Return a GL context of the chosen renderer.

    Raises:
        EvalkitError: If it cannot be opened, with what to do.
    """
    name = choose_gl()
    if name not in _GL_LIBRARIES:
        raise EvalkitError(f"MUJOCO_GL is '{name}', but images are rendered offscreen; set it to egl or osmesa")
    check_gl()
    try:
        if name == "egl":  # imported here, because importing it binds the library
            from mujoco.egl import GLContext
        else:
            from mujoco.osmesa import GLContext
        return GLContext(width, height)
    except Exception as error:  # PyOpenGL's and MuJoCo's errors have no common type
        others = " or ".join(other for other in _GL_LIBRARIES if other != name)
        raise EvalkitError(
            f"MUJOCO_GL={name} cannot render here ({' '.join(str(error).split())}): apt-get install "
            f"{GL_PACKAGES[name]}, or set MUJOCO_GL={others}"
        ) from error
