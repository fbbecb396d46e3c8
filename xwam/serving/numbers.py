"""States and actions of a bench as the numbers of a network, and the inverse.

In: states and commands in the bench's frames and layout. Out: normalised states and actions in the model's frames.
Read next: `xwam/robots/interfaces.py` and `xwam/robots/actions.py`, the two conversions; `engine.py`, the caller.

Letters: F frames, K actions, A numbers in an action, S numbers in a state.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from evalkit.contracts.errors import EpisodeFault
from evalkit.contracts.spec import OSC_DELTA_BASE
from evalkit.contracts.types import ARM_PROPRIO, QUAT_WXYZ
from xwam.config import ModelConfig
from xwam.robots import actions
from xwam.robots.axes import states_of_poses
from xwam.robots.interfaces import INTERFACES


class RobotNumbers:
    """Converts states and actions between a model and its bench."""

    def __init__(self, model: ModelConfig) -> None:
        self.model, self.interface = model, INTERFACES[model.bench]

    def state(self, proprio: np.ndarray) -> Tensor:
        """Return a state of the bench, 16 numbers, as the network knows it, 1,S.

        Raises:
            EpisodeFault: If the state holds no rotation; blames the env.
        """
        model, bounds = self.model, self.model.bounds
        _check_rotations(proprio, model.arms)
        known = self.interface.axes.model_from_sim(proprio, model.arms)
        known = actions.with_quaternions_near(known, model.arms, model.quat_side_wxyz)
        return torch.from_numpy(actions.normalise(known, bounds.proprio_low, bounds.proprio_high))[None]

    def states(self, proprio_FS: Tensor) -> np.ndarray:
        """Return states of the network in the model's units and frames, F,16, with unit quaternions."""
        bounds = self.model.bounds
        states = actions.denormalise(proprio_FS.cpu().numpy(), bounds.proprio_low, bounds.proprio_high)
        return actions.tidy_quaternions(states, self.model.arms)

    def known_actions(self, commands: np.ndarray, proprio: np.ndarray) -> Tensor:
        """Return commands of the bench, K,14, that start at a state, as actions of the network, 1,K,A."""
        known, bounds = self.interface.model_actions(commands, proprio, self.model.arms), self.model.bounds
        return torch.from_numpy(actions.normalise(known, bounds.action_low, bounds.action_high))[None]

    def commanded(self, command: np.ndarray, proprio: np.ndarray) -> np.ndarray:
        """Return the state, 16 numbers, that a command of the bench, 14 numbers, leads to; its deltas lead nowhere.

        Args:
            command: The last executed one.
            proprio: The state of the bench, which is returned where commands are deltas.
        """
        if self.interface.layout == OSC_DELTA_BASE:
            return proprio
        return states_of_poses(command[None], self.model.arms)[0]

    def plain_actions(self, action_KA: Tensor) -> np.ndarray:
        """Return actions of the network in the model's units, K,14."""
        bounds = self.model.bounds
        return actions.denormalise(action_KA.cpu().numpy(), bounds.action_low, bounds.action_high)

    def commands(self, action_KA: Tensor, proprio: np.ndarray) -> np.ndarray:
        """Return actions of the network as commands of the bench that start at a state, K,14 float32."""
        return self.interface.env_actions(self.plain_actions(action_KA), proprio, self.model.arms)


def _check_rotations(proprio: np.ndarray, arms: Sequence[str]) -> None:
    """Raise EpisodeFault if the quaternion of an arm is not finite or has length 0: it stands for no rotation."""
    for arm in arms:
        quat_wxyz = proprio[ARM_PROPRIO[arm]][QUAT_WXYZ]
        if not (np.isfinite(quat_wxyz).all() and quat_wxyz.any()):
            found = ", ".join(f"{number:.3g}" for number in quat_wxyz)
            raise EpisodeFault(
                "env",
                f"The observed state holds no rotation of the {arm} arm: its quaternion (w, x, y, z) must be finite "
                f"and of length 1, got ({found}); correct the state that the env gives.",
            )
