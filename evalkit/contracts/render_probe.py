"""Whether MuJoCo draws in an interpreter with a renderer, tried out there.

In: an interpreter, a value of MUJOCO_GL. Out: a word for `Finding.found`, or why not.
Read next: `env.py`, the findings; `evalkit/doctor.py` and `envs/robocasa/install.py`, who ask.
"""

from __future__ import annotations

import os
import subprocess

_RENDER = """
import mujoco
model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><light pos="0 0 3"/><geom size="1"/></worldbody></mujoco>')
renderer = mujoco.Renderer(model, 32, 32)
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer.update_scene(data)
assert renderer.render().std() > 1, "a blank picture"
"""


def draws(python: str, gl: str) -> str:
    """Return that it draws a picture.

    Args:
        python: An interpreter with mujoco.
        gl: `egl` or `osmesa`.

    Raises:
        OSError: If it does not; the message is the last line that it printed.
        subprocess.SubprocessError: If it takes more than a minute.
    """
    environ = {**os.environ, "MUJOCO_GL": gl}
    done = subprocess.run([python, "-c", _RENDER], env=environ, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise OSError((done.stderr.strip().splitlines() or ["it crashed"])[-1])
    return "draws a picture"
