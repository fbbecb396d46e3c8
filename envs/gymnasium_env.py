"""Any of our envs as a gymnasium env, for training code and for interactive use.

In: an env that begins, advances and observes. Out: gymnasium's spaces, `reset` and `step`.
Read next: `evalkit/contracts/env.py`, what it wraps; the harness itself does not use gymnasium.

It wraps an env and does not inherit from one, because `env.spec` has another meaning in gymnasium.
"""

from __future__ import annotations

import string
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from evalkit.contracts.env import Env
from evalkit.contracts.recording import DEMONSTRATION_SEEDS
from evalkit.contracts.spec import EnvSpec
from evalkit.contracts.types import ACTION_DIM, PROPRIO_DIM


class GymnasiumEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
    """A gymnasium env whose reward is 1 on success, which also terminates.

    Privileged state is in `info["privileged"]`, so that a policy that gets observations only cannot read it.

    Args:
        env: The env to wrap; it is closed with this one.
        max_steps: Control steps after which an episode is truncated.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium's own declaration

    def __init__(self, env: Env, *, max_steps: int) -> None:
        self.env = env
        self.observation_space = _observation_space(env.spec)
        self.action_space = spaces.Box(-1.0, 1.0, (ACTION_DIM,), np.float32)
        self._max_steps, self._num_steps = max_steps, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start the episode of this seed; without one, of a seed drawn from those of demonstrations."""
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(DEMONSTRATION_SEEDS.stop)) if seed is None else seed
        self._num_steps = 0
        return self._observe(success=self.env.begin(seed=drawn, max_steps=self._max_steps))

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Execute one action and observe."""
        success = self.env.advance(action)
        self._num_steps += 1
        observation, info = self._observe(success=success)
        return observation, float(success), success, self._num_steps >= self._max_steps, info

    def close(self) -> None:
        """Close the wrapped env; calling it twice is fine."""
        self.env.close()

    def _observe(self, *, success: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        observation = self.env.observe(render=True)
        return observation, {"success": success, "privileged": observation.pop("privileged")}


def _observation_space(spec: EnvSpec) -> spaces.Dict:
    views, (height, width) = len(spec.cameras), spec.image_hw_px
    return spaces.Dict(
        {
            "rgb": spaces.Box(0, 255, (views, height, width, 3), np.uint8),
            "depth": spaces.Box(0.0, np.inf, (views, height, width), np.float32),
            "intrinsics": spaces.Box(-np.inf, np.inf, (views, 3, 3), np.float64),
            "T_base_cam": spaces.Box(-np.inf, np.inf, (views, 4, 4), np.float64),
            "proprio": spaces.Box(-np.inf, np.inf, (PROPRIO_DIM,), np.float32),
            "instruction": spaces.Text(1000, charset=string.printable),
        }
    )
