"""What settling and the hashes of a scene mean in robosuite.

In: the real simulator, without images. Out: checks against stacks, grippers and models whose answer is known.
Read next: `evalkit/contracts/worker/server.py`, which settles; `envs/mujoco/observed.py`, which gives the state.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from envs.robosuite.env import RobosuiteEnv
from evalkit.contracts.types import ACTION_DIM
from evalkit.contracts.worker import messages
from evalkit.contracts.worker.fingerprint import hash_arrays
from evalkit.contracts.worker.server import _Server
from tests.doubles.simulators import needs_robosuite

pytestmark = needs_robosuite()

SEED = 1_000_000
ZERO = np.zeros(ACTION_DIM, np.float32)
HALF_A_M, HALF_B_M = 0.02, 0.025
"""Half edges of robosuite's upper and lower cube."""


@pytest.fixture
def stack() -> Iterator[RobosuiteEnv]:
    with closing(RobosuiteEnv(task="Stack")) as env:
        env.begin(seed=SEED, max_steps=100)
        yield env


def put_cube_on_cube(env: RobosuiteEnv, offset_m: float) -> None:
    """Put the upper cube onto the lower one, both upright, the upper one displaced along y."""
    lower, upper = (env._data.joint(f"cube{name}_joint0") for name in "BA")
    lower.qpos[3:], upper.qpos[3:] = [1, 0, 0, 0], [1, 0, 0, 0]
    upper.qpos[:3] = lower.qpos[:3] + np.array([0, offset_m, HALF_A_M + HALF_B_M])
    lower.qvel[:], upper.qvel[:] = 0, 0


@pytest.mark.parametrize(("offset_m", "stands"), [(0.0, True), (0.015, True), (0.032, False)])
def test_a_cube_beyond_the_edge_falls_while_settling(stack: RobosuiteEnv, offset_m: float, stands: bool) -> None:
    """A cube whose centre is beyond the lower cube's edge (25 mm) counts as stacked for a moment, then falls."""
    server = _Server(())
    server._env = stack
    put_cube_on_cube(stack, offset_m)
    counted = server.answer(messages.Advance(actions=ZERO[None]))
    settled = server.answer(messages.Settle(num_steps=20))
    assert isinstance(counted, messages.Advanced)
    assert isinstance(settled, messages.Settled)
    assert (counted.success, settled.success) == (True, stands)


def test_zero_keeps_the_command_of_the_gripper() -> None:
    """After two closing steps from open the command stands at 2/5 of the way; zeros leave it there, -1 goes on."""
    with closing(RobosuiteEnv(task="Lift")) as env:
        ends = {}
        for number in (0.0, -1.0):
            env.begin(seed=SEED, max_steps=100)
            action = ZERO.copy()
            action[6] = 1.0
            for _ in range(10):
                env.advance(action)
            for gripper in (-1.0, -1.0, *[number] * 20):
                action[6] = gripper
                env.advance(action)
            ends[number] = env._sim.robots[0].gripper["right"].current_action.tolist()
    assert ends[0.0] == pytest.approx([0.6, -0.6])
    assert ends[-1.0] == pytest.approx([-1.0, 1.0])


def test_the_hash_of_a_state_covers_all_that_is_drawn(stack: RobosuiteEnv) -> None:
    model, data = stack._model, stack._data
    cube = model.body("cubeA_main").id
    drawn = {
        "position": data.joint("cubeA_joint0").qpos,
        "velocity": data.joint("cubeA_joint0").qvel,
        "size": model.geom("cubeA_g0").size,
        "mass": model.body_mass[cube : cube + 1],
        "friction": model.geom("cubeA_g0").friction,
        "colour": model.geom("cubeA_g0_vis").rgba,
        "camera": model.cam_pos[0],
        "light": model.light_pos[0],
        "material": model.mat_rgba[0],
    }
    hashes = {"none": hash_arrays(stack.state())}
    for name, values in drawn.items():
        before = float(values[0])
        values[0] = np.nextafter(values[0], values.dtype.type(9))
        hashes[name] = hash_arrays(stack.state())
        values[0] = before
    assert len(set(hashes.values())) == len(hashes)
    assert hash_arrays(stack.state()) == hashes["none"]


def test_image_settings_do_not_change_the_hash_of_a_state(stack: RobosuiteEnv) -> None:
    here = hash_arrays(stack.state())
    stack.close()
    with closing(RobosuiteEnv(task="Stack", image_hw_px=(64, 96), mesh_cell_m=0.0)) as other:
        other.begin(seed=SEED, max_steps=1)
        other.observe(render=True)
        assert hash_arrays(other.state()) == here


def test_the_scene_says_where_the_objects_are(stack: RobosuiteEnv) -> None:
    objects, state = stack.scene["objects"], stack.observe(render=False)["privileged"]
    assert set(objects) == {"cubeA", "cubeB"}
    np.testing.assert_allclose(objects["cubeA"]["position_m"], state["red_cube_pos_m"], atol=1e-9)
    np.testing.assert_allclose(objects["cubeB"]["quat_wxyz"], state["green_cube_quat_wxyz"], atol=1e-9)
    assert objects["cubeA"]["height_m"] == pytest.approx(2 * HALF_A_M)
    assert objects["cubeB"]["radius_m"] == pytest.approx(HALF_B_M * 2**0.5)
