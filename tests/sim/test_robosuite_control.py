"""Our arm control against robosuite's own controller, state by state.

In: the real simulator. Out: checks that both leave the same bits.
Read next: `envs/robosuite/control.py`.
"""

import numpy as np
import pytest

from envs.robosuite import scene
from tests.doubles.simulators import needs_robosuite

pytestmark = needs_robosuite()


@pytest.mark.parametrize("task", ["Stack", "Door", "TwoArmLift"])
def test_torques_are_robosuites_own_bit_for_bit(task: str) -> None:
    ours, theirs = (scene.build(task, setting="default", seed=1_000_000) for _ in range(2))
    theirs._pre_action = super(type(theirs), theirs)._pre_action  # robosuite's own in every substep
    for action in np.random.default_rng(0).uniform(-1.2, 1.2, (40, ours.action_dim)):
        for env in (ours, theirs):
            env.step(action)
        np.testing.assert_array_equal(ours.sim.data.ctrl, theirs.sim.data.ctrl)
        np.testing.assert_array_equal(ours.sim.get_state().flatten(), theirs.sim.get_state().flatten())
