"""Whether MuJoCo can render offscreen in an interpreter, tried there with each renderer.

In: an interpreter, a value of MUJOCO_GL. Out: findings for `evalkit doctor`.
Read next: `evalkit/contracts/env.py`, the findings; `envs/robosuite/bench.py` and `envs/robocasa/install.py`, who ask.
"""

from __future__ import annotations

import functools
import os
import subprocess

from envs.mujoco.views import GL_PACKAGES
from evalkit.contracts.env import Finding

_RENDER = """
import sys
sys.path[:] = [entry for entry in sys.path if entry]  # a folder `mujoco` in the current one would hide the package
import mujoco
model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><light pos="0 0 3"/><geom size="1"/></worldbody></mujoco>')
renderer = mujoco.Renderer(model, 32, 32)
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer.update_scene(data)
assert renderer.render().std() > 1, "a blank image"
"""


@functools.cache
def can_render(python: str, gl: str) -> None:
    """Render one image.

    Args:
        python: An interpreter with mujoco.
        gl: `egl` or `osmesa`.

    Raises:
        OSError: If it cannot render; the message is the last line that it printed.
        subprocess.SubprocessError: If it takes more than a minute.
    """
    environ = {**os.environ, "MUJOCO_GL": gl}
    done = subprocess.run([python, "-c", _RENDER], env=environ, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise OSError((done.stderr.strip().splitlines() or ["it crashed"])[-1])


def find_renderer(python: str, gl: str, *, what: str, remedy: str, needed: bool) -> Finding:
    """Return whether one renderer works; the arguments after `gl` are those of `Finding`."""
    try:
        can_render(python, gl)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(what=what, ok=False, found=str(error)[:80], remedy=remedy, needed=needed)
    return Finding(what=what, ok=True, found="renders an image", remedy=remedy, needed=needed)


def find_renderers(python: str) -> list[Finding]:
    """Return which renderers work, and whether there is one."""
    each = {
        gl: find_renderer(
            python, gl, what=f"MuJoCo with MUJOCO_GL={gl}", remedy=f"apt-get install {packages}", needed=False
        )
        for gl, packages in GL_PACKAGES.items()
    }
    working = [gl for gl, finding in each.items() if finding.ok]
    any_of_them = Finding(
        what="a renderer for MuJoCo",
        ok=bool(working),
        found=", ".join(working),
        remedy=f"tools/system-libraries, or apt-get install {GL_PACKAGES['egl']}",
    )
    return [*each.values(), any_of_them]
