"""Depth is measured at pixel centres, with any number of colour samples: against planes in closed form.

In: MuJoCo with a renderer, robosuite. Out: checks of depth images, and of frames over many models.
Read next: `envs/mujoco/views.py`; `robocasa_facts.py`, which does the same in a kitchen.
"""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from envs.mujoco.views import ViewRenderer
from envs.robosuite.env import RobosuiteEnv
from tests.doubles.planes import plane_errors
from tests.doubles.simulators import needs_robosuite

pytestmark = needs_robosuite()

SAMPLES = (0, 2, 4, 8)

TILTED = """<mujoco><worldbody><light pos="0 0 3"/>
<geom group="1" type="plane" size="3 3 .1" euler="20 -15 {tilt}" rgba=".5 .6 .7 1"/>
<geom group="1" type="box" size=".1 .1 .1" pos="0 0 .3" euler="10 30 50" rgba="1 .2 .1 1"/>
<geom group="1" type="sphere" size=".1" pos=".3 0 .3" rgba="1 1 1 .3"/>
<camera name="c" pos=".9 .3 .9" xyaxes="-.3 .9 0 -.5 -.2 .8"/></worldbody></mujoco>"""


def compiled(tilt: float) -> tuple[Any, Any]:
    import mujoco

    model = mujoco.MjModel.from_xml_string(TILTED.format(tilt=tilt))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


@pytest.fixture(params=SAMPLES)
def renderer(request: pytest.FixtureRequest) -> Iterator[ViewRenderer]:
    with closing(ViewRenderer(image_hw_px=(96, 128), antialias_samples=request.param)) as renderer:
        yield renderer


def test_depth_of_a_tilted_plane(renderer: ViewRenderer) -> None:
    model, data = compiled(0)
    views = renderer.capture(model, data, ["c"])
    plane = data.geom(0)
    errors = plane_errors(
        views.depth[0],
        views.intrinsics[0],
        views.T_world_cam[0],
        normal=plane.xmat.reshape(3, 3)[:, 2],
        point_m=plane.xpos,
    )
    assert errors.share_frac > 0.3
    assert errors.p95_mm < 0.1
    assert abs(errors.median_mm) < 0.01


def test_frames_repeat_over_many_models(renderer: ViewRenderer) -> None:
    """Each model is rendered three times, dropped, and built again later: the same bits, and no depth lost."""
    seen: dict[float, list[np.ndarray]] = {}
    for tilt in (0.0, 10.0, 0.0, 20.0, 10.0, 0.0):
        model, data = compiled(tilt)
        for _ in range(3):
            views = renderer.capture(model, data, ["c"])
            assert np.isfinite(views.depth).all()
            rgb, depth = seen.setdefault(tilt, [views.rgb, views.depth])
            np.testing.assert_array_equal(views.rgb, rgb)
            np.testing.assert_array_equal(views.depth, depth)
        renderer.forget()
    assert not np.array_equal(seen[0.0][1], seen[10.0][1])


def test_samples_change_colour_and_no_depth() -> None:
    model, data = compiled(0)
    frames = []
    for samples in SAMPLES:
        with closing(ViewRenderer(image_hw_px=(96, 128), antialias_samples=samples)) as renderer:
            frames.append(renderer.capture(model, data, ["c"]))
    for frame in frames[1:]:
        np.testing.assert_array_equal(frame.depth, frames[0].depth)
        assert (frame.rgb != frames[0].rgb).any()


@pytest.mark.parametrize("samples", SAMPLES)
def test_robosuites_table_is_where_it_is(samples: int) -> None:
    """robosuite puts the table's top at z = 0.8 and the robot's base at 0.912, both in the world."""
    with closing(RobosuiteEnv(task="Lift", antialias_samples=samples)) as env:
        env.begin(seed=1_000_000, max_steps=10)
        observation = env.observe(render=True)
    views = zip(observation["depth"], observation["intrinsics"], observation["T_base_cam"], strict=True)
    for depth, K, T_base_cam in views:
        errors = plane_errors(
            depth, K, T_base_cam, normal=np.array([0.0, 0.0, 1.0]), point_m=np.array([0.0, 0.0, 0.8 - 0.912])
        )
        assert errors.share_frac > 0.1
        assert errors.p95_mm < 0.1
