"""Whether SAPIEN renders in an interpreter: a tiny scene, its depth compared with the closed form; run as a script.

In: the renderer (`rt` or `raster`), and `cuda` to let torch compute on the GPU at the same time. Out: one JSON object
on stdout: device, seconds, and how far depth and colours are from what they must be.
Read next: `doctor.py`, which starts it with a time limit, because a renderer can hang.

A camera 1 m above the ground looks straight down on a red cube of 0.2 m: its middle pixel is 0.8 m away.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

CUBE_M, CAMERA_M = 0.2, 1.0
SIZE_PX = 64
SAMPLES = 32


def main(renderer: str, *, cuda: bool) -> dict[str, Any]:
    """Render once and return what was found."""
    import numpy as np
    import sapien

    started = time.perf_counter()
    if renderer == "rt":
        sapien.render.set_camera_shader_dir("rt")
        sapien.render.set_ray_tracing_samples_per_pixel(SAMPLES)
        sapien.render.set_ray_tracing_path_depth(8)
        sapien.render.set_ray_tracing_denoiser("oidn")
    scene = sapien.Scene()
    scene.set_ambient_light([0.5, 0.5, 0.5])
    scene.add_ground(0)
    builder = scene.create_actor_builder()
    builder.add_box_visual(half_size=[CUBE_M / 2] * 3, material=[1.0, 0.0, 0.0])
    builder.set_initial_pose(sapien.Pose([0, 0, CUBE_M / 2]))
    builder.build_static("cube")
    camera = scene.add_camera("down", SIZE_PX, SIZE_PX, 0.8, 0.01, 10)
    camera.entity.set_pose(sapien.Pose([0, 0, CAMERA_M], [0.70710678, 0, 0.70710678, 0]))  # x, its front, points down
    stop = threading.Event()
    computing = compute_with_torch(stop) if cuda else None
    images = []
    for _ in range(10 if cuda else 2):
        scene.update_render()
        camera.take_picture()
        images.append(camera.get_picture("Color"))
    stop.set()
    depth_m = -camera.get_picture("Position")[..., 2]
    middle = SIZE_PX // 2
    color = np.asarray(images[-1])[middle - 4 : middle + 4, middle - 4 : middle + 4, :3]
    return {
        "device": device(sapien),
        "seconds": time.perf_counter() - started,
        "depth_error_m": abs(float(depth_m[middle, middle]) - (CAMERA_M - CUBE_M)),
        "is_red": bool((color[..., 0] > 2 * color[..., 1]).all()),
        "computed": computing,
    }


def device(sapien: Any) -> dict[str, Any]:
    """Return the name of the rendering device, and whether it is CUDA's; older versions of SAPIEN do not tell."""
    try:
        found = sapien.render.RenderSystem().device
        return {"name": str(found.name), "is_cuda": bool(found.is_cuda())}
    except (AttributeError, RuntimeError, TypeError):
        return {"name": "unnamed", "is_cuda": None}


def compute_with_torch(stop: threading.Event) -> str:
    """Start a thread that multiplies matrices on the GPU until `stop`; return the GPU's name."""
    import torch

    matrix = torch.ones(1024, 1024, device="cuda")

    def work() -> None:
        while not stop.is_set():
            (matrix @ matrix).sum().item()

    threading.Thread(target=work, daemon=True).start()
    return str(torch.cuda.get_device_name(0))


if __name__ == "__main__":
    sys.path.pop(0)  # this folder: its modules have common names
    print(json.dumps(main(sys.argv[1], cuda="cuda" in sys.argv[2:])))
