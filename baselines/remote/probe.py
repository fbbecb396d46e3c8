"""An observation that no env made, with numbers that an env could give: what a server is asked before the first step.

In: an adapter. Out: an observation with its views, sizes, arms and states.
Read next: `plausible.py`, which looks at the answer.
"""

from __future__ import annotations

import numpy as np

from baselines.remote.adapter import Adapter
from evalkit.contracts.spec import EE_POSE_BASE, JOINT_POSITION
from evalkit.contracts.types import ACTION_DIM, ARM_ACTION, ARM_PROPRIO, GRIPPER, PROPRIO_DIM, Observation

ANY_HW_PX = (128, 128)
"""Size of images where the adapter takes any."""

START_M = {"left": (-0.25, -0.3, 0.95), "right": (0.25, -0.3, 0.95)}
"""Where RoboTwin's end effectors start in its world."""

REACH_M = (0.5, 0.0, 0.4)
"""In front of a robot base."""

SENTENCE = "pick up the cube"


def probe_observation(adapter: Adapter) -> Observation:
    """Return grey images, open grippers in front of the robot, and unit quaternions for states of four numbers."""
    views, (height, width) = len(adapter.env.views), adapter.env.image_hw_px or ANY_HW_PX
    proprio, joints = np.zeros(PROPRIO_DIM, np.float32), np.zeros(ACTION_DIM)
    for arm in adapter.env.arms:
        position = START_M[arm] if adapter.actions.layout == EE_POSE_BASE else REACH_M
        proprio[ARM_PROPRIO[arm]] = [*position, 0, 1, 0, 0, 1]
        joints[ARM_ACTION[arm]][GRIPPER] = 1
    named = {
        str(part.name): np.array([0.0, 0.0, 0.0, 1.0]) if part.size == 4 else np.full(part.size or 0, 0.04)
        for state in adapter.states
        for part in state.parts
        if part.part == "named"
    }
    return Observation(
        rgb=np.full((views, height, width, 3), 128, np.uint8),
        depth=np.ones((views, height, width), np.float32),
        intrinsics=np.tile(np.eye(3), (views, 1, 1)),
        T_base_cam=np.tile(np.eye(4), (views, 1, 1)),
        proprio=proprio,
        instruction=SENTENCE,
        privileged={JOINT_POSITION: joints, **named},
    )
