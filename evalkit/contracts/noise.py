"""Observations of noise: what a policy is asked where no env runs.

In: the spec of an env, a random generator. Out: an observation of its shapes and types.
Read next: `evalkit/testing/`, which checks policies with them; `evalkit/run/trial.py`, which measures their time.
"""

from __future__ import annotations

import numpy as np

from evalkit.contracts.spec import ROBOT_STATE, EnvSpec
from evalkit.contracts.types import ACTION_DIM, ARM_PROPRIO, PROPRIO_DIM, Observation


def noise_observation(env: EnvSpec, rng: np.random.Generator, instruction: str) -> Observation:
    """Return an observation of noise, in the shapes and types of an env's spec."""
    views, (height, width) = len(env.cameras), env.image_hw_px
    proprio = np.zeros(PROPRIO_DIM, np.float32)
    for arm in env.arms:
        proprio[ARM_PROPRIO[arm]] = [*rng.uniform(-0.5, 0.5, 3), 1, 0, 0, 0, 1]
    return Observation(
        rgb=rng.integers(0, 256, (views, height, width, 3), dtype=np.uint8),
        depth=rng.uniform(0.3, 2.0, (views, height, width)).astype(np.float32),
        intrinsics=np.tile(np.array([[50.0, 0, width / 2], [0, 50.0, height / 2], [0, 0, 1]]), (views, 1, 1)),
        T_base_cam=np.tile(np.eye(4), (views, 1, 1)),
        proprio=proprio,
        instruction=instruction,
        privileged={key: _state(key, rng) for key in env.privileged_keys},
    )


def _state(key: str, rng: np.random.Generator) -> np.ndarray:
    """Return noise for a state of the env, as many numbers as the robot's own states have; quaternions are unit."""
    values = rng.uniform(0.0, 1.0, ROBOT_STATE.get(key, ACTION_DIM))
    return values / np.linalg.norm(values) if key in ROBOT_STATE and key.endswith("_quat") else values
