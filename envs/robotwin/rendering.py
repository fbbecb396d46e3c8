"""How RoboTwin's scenes are rendered: shader, shadows, and only the images that are read.

In: settings of the renderer. Out: a class of scenes with these settings; what renders, for the run record.
Read next: `scene.py`, which builds the scenes; `../sapien/cameras.py`, which reads the images.

RoboTwin renders all its cameras whenever it observes, and updates the renderer after each physics step. Here both
happen only for an observation with images. What RoboTwin draws from `np.random` in such an update is still drawn, so
that scenes stay as they are: under "crazy" light every update draws new lights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal

import numpy as np

from ..sapien.cameras import capture

Renderer = Literal["rt", "raster"]
RENDERERS: tuple[Renderer, ...] = ("rt", "raster")

Decimate = Literal["none", "background"]
DECIMATE: tuple[Decimate, ...] = ("none", "background")

RAY_TRACING_SAMPLES, RAY_TRACING_DEPTH, RAY_TRACING_DENOISER = 32, 8, "oidn"
"""What `setup_scene` of RoboTwin sets, at c3ddfa8 and at the head of August 2026, whenever it builds a scene."""

HIDDEN_LINKS = ("lr_", "rr_", "wheel", "castor", "caster")
"""Parts of the names of the robot's links that no camera of an observation can see: rear arms, wheels and castors."""

NO_DIFFERENCE = "0 of 255, 0.000 mm"
"""How `describe_hiding` ends where nothing changes."""


@dataclass(frozen=True, kw_only=True)
class Rendering:
    """Settings of the renderer.

    Attributes:
        renderer: `rt` for RoboTwin's own ray tracing (32 samples, denoised), `raster` for SAPIEN's rasterizer.
        shadows: Whether lights throw shadows.
        decimate: `background` hides the rear arms, wheels and castors, which no camera sees; no mesh is reduced,
            collisions stay.
    """

    renderer: Renderer = "rt"
    shadows: bool = True
    decimate: Decimate = "none"

    def describe(self) -> dict[str, str]:
        """Return what renders here, for the run record; SAPIEN must be importable."""
        import sapien

        system = sapien.render.RenderSystem()
        device = system.device
        if self.renderer == "rt":
            shader = f"ray tracing, {RAY_TRACING_SAMPLES} samples, depth {RAY_TRACING_DEPTH}"
            denoiser = RAY_TRACING_DENOISER
        else:
            shader, denoiser = "rasterizer", "none"
        return {
            "sapien": metadata.version("sapien"),
            "vulkan_device": f"{device.name} ({'CUDA' if device.is_cuda() else 'no CUDA'})",
            "shader": f"{shader}, shadows {'on' if self.shadows else 'off'}, decimate {self.decimate}",
            "denoiser": denoiser,
        }


class OnDemand:
    """The part of a scene that replaces RoboTwin's rendering; a base class in front of a task of RoboTwin.

    Attributes:
        rendering: Set by `scene.Scenes`.
        physics_steps: Physics steps since the scene was made.
    """

    rendering: Rendering
    scene: Any
    robot: Any
    crazy_random_light: Any
    physics_steps = 0
    _is_goal_checked = True

    def setup_scene(self, **kwargs: Any) -> None:
        """Set up lights and shader; RoboTwin sets ray tracing here, cameras are made later."""
        import sapien

        shadow = {} if self.rendering.shadows else {"shadow": False}
        super().setup_scene(**kwargs, **shadow)  # type: ignore[misc]
        if self.rendering.renderer == "raster":
            sapien.render.set_camera_shader_dir("default")
        self._count_steps(self.scene)

    def _count_steps(self, sapien_scene: Any) -> None:
        step = sapien_scene.step

        def counted() -> None:
            step()
            self.physics_steps += 1

        sapien_scene.step = counted

    def load_robot(self, **kwargs: Any) -> None:
        """Load the robot, and hide what no camera sees."""
        super().load_robot(**kwargs)  # type: ignore[misc]
        self._compensate_once()
        if self.rendering.decimate == "background":
            show_hidden_links(self, False)

    def _compensate_once(self) -> None:
        """Compute the forces against gravity once per physics step; RoboTwin computes the same ones up to 8 times."""
        compensate = self.robot._entity_qf
        done: dict[int, int] = {}

        def once(entity: Any) -> None:
            if done.get(id(entity)) != self.physics_steps:
                compensate(entity)
                done[id(entity)] = self.physics_steps

        self.robot._entity_qf = once

    def _update_render(self) -> None:
        """Draw what RoboTwin draws in an update of the renderer."""
        if self.crazy_random_light:
            self.update_renderer()

    def update_renderer(self) -> None:
        """Update the renderer as RoboTwin does: lights, poses of cameras and bodies."""
        super()._update_render()  # type: ignore[misc]

    def get_obs(self) -> None:
        """Draw as RoboTwin does, and render nothing: it asks for images at success."""
        self._update_render()

    @contextmanager
    def goal_unchecked(self) -> Iterator[None]:
        """Let actions run to their end, whether the goal is met or not."""
        self._is_goal_checked = False
        try:
            yield
        finally:
            self._is_goal_checked = True

    def check_success(self, *args: Any, **kwargs: Any) -> bool:
        """Return whether the goal is met, as RoboTwin says; False within `goal_unchecked`."""
        return self._is_goal_checked and bool(super().check_success(*args, **kwargs))  # type: ignore[misc]


def hidden_bodies(scene: Any) -> dict[str, Any]:
    """Return what is rendered of the robot's links that no camera of an observation sees, by name of the link."""
    import sapien

    bodies = {
        str(link.get_name()): link.entity.find_component_by_type(sapien.render.RenderBodyComponent)
        for link in scene.robot.left_entity.get_links()
        if any(part in link.get_name() for part in HIDDEN_LINKS)
    }
    return {name: body for name, body in bodies.items() if body is not None}


def show_hidden_links(scene: Any, visible: bool) -> None:
    """Show or hide the robot's parts that no camera of an observation sees; their collision shapes stay."""
    for body in hidden_bodies(scene).values():
        body.visibility = float(visible)


def hiding_error(scene: Any, image_hw_px: tuple[int, int]) -> tuple[int, float]:
    """Return what hiding changes in the present images: largest differences of RGB, of 255, and of depth, metres."""
    views = {}
    for visible in (True, False):
        show_hidden_links(scene, visible)
        with as_observed(scene):
            views[visible] = capture(observed_cameras(scene), image_hw_px=image_hw_px)
    show_hidden_links(scene, scene.rendering.decimate == "none")
    rgb = np.abs(views[True].rgb.astype(int) - views[False].rgb).max()
    return int(rgb), float(np.abs(views[True].depth - views[False].depth).max())


def describe_hiding(scene: Any, image_hw_px: tuple[int, int]) -> str:
    """Return what is hidden in a scene, and what that changes in its present images, for run records and `doctor`."""
    rgb, depth_m = hiding_error(scene, image_hw_px)
    return (
        f"{len(hidden_bodies(scene))} links whose names contain {', '.join(HIDDEN_LINKS)}; largest difference of the "
        f"first frame: {rgb} of 255, {1000 * depth_m:.3f} mm"
    )


def observed_cameras(scene: Any) -> list[Any]:
    """Return the cameras of an observation in its order: head, left wrist, right wrist."""
    cameras = scene.cameras
    return [cameras.static_camera_list[cameras.head_camera_id], cameras.left_camera, cameras.right_camera]


@contextmanager
def as_observed(scene: Any) -> Iterator[None]:
    """Update the renderer as `get_obs` of RoboTwin would now, and take back what that draws.

    An observation so changes nothing: neither the lights of later frames nor `np.random`.
    """
    lights = [*scene.point_light_lst, *scene.direction_light_lst]
    colors, ambient = [light.get_color() for light in lights], scene.scene.ambient_light
    state = np.random.get_state()  # noqa: NPY002 - RoboTwin draws from it
    scene.update_renderer()
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
        if scene.crazy_random_light:
            for light, color in zip(lights, colors, strict=True):
                light.set_color(color)
            scene.scene.set_ambient_light(ambient)
