"""The states of RoboCasa's robot against robosuite's own observables, on the same robot in a robosuite scene.

In: robosuite. Out: a verdict on each state, signs of quaternions included.
"""

import numpy as np
import pytest

from envs.robocasa.robot_state import read_robot_state
from evalkit.contracts.spec import ROBOT_STATE

robosuite = pytest.importorskip("robosuite", reason="robosuite is not installed")


@pytest.mark.sim
def test_states_are_those_of_robosuite() -> None:
    env = robosuite.make(
        "Lift", robots="PandaOmron", has_renderer=False, has_offscreen_renderer=False, use_camera_obs=False
    )
    env.reset()
    rng = np.random.default_rng(0)
    for _ in range(5):
        for _ in range(6):
            env.step(rng.uniform(-1, 1, env.action_dim))
        expected = env._get_observations(force_update=True)
        found = read_robot_state(env.sim.data._data)
        assert {name: len(value) for name, value in found.items()} == ROBOT_STATE
        for name, value in found.items():
            np.testing.assert_allclose(
                value, expected[name], atol=1e-7, err_msg=name
            )  # robosuite makes float32 quaternions
    env.close()
