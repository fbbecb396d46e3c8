"""The differences between benches: images, frames of reference, and the meaning of an action.

In: the name of the bench that a model was trained for. Out: its interface.
Read next: `axes.py` and `image_pipeline.py`, the two conversions; `xwam/serving/engine.py`, which applies them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evalkit.contracts.spec import EE_POSE_BASE, OSC_DELTA_BASE
from evalkit.contracts.types import ARM_ACTION
from evalkit.dataset.axes import ROBOCASA_AXES, ROBOTWIN_AXES, SAME_AXES, Axes
from xwam.config import ModelConfig
from xwam.robots.axes import (
    accumulate,
    differences,
    pose_actions,
    states_of_poses,
)


@dataclass(frozen=True, kw_only=True)
class BenchInterface:
    """The conversions between a model and a bench.

    Attributes:
        layout: Action layout of the bench, `OSC_DELTA_BASE` or `EE_POSE_BASE`.
        axes: Rotations between the frames of model and bench.
        env_hw_px: Size of the bench's images; None for the model's own.
        crop_frac: Share of rows and columns that the model sees in evaluation.
    """

    layout: str
    axes: Axes
    env_hw_px: tuple[int, int] | None = None
    crop_frac: float = 1.0

    def env_image_hw_px(self, model: ModelConfig) -> tuple[int, int]:
        """Return the size of the bench's images."""
        return self.env_hw_px or model.image_hw_px

    def env_actions(self, actions: np.ndarray, proprio: np.ndarray, arms: tuple[str, ...]) -> np.ndarray:
        """Return a chunk in the bench's layout, K,14 float32.

        Args:
            actions: K,14, denormalised.
            proprio: The bench's state at the chunk's start.
            arms: Arms that exist.
        """
        if self.layout == OSC_DELTA_BASE:
            commands = np.zeros(np.shape(actions), np.float32)
            for arm in arms:
                commands[:, ARM_ACTION[arm]] = np.clip(actions[:, ARM_ACTION[arm]], -1.0, 1.0)
            return commands
        states = accumulate(actions, self.axes.model_from_sim(proprio, arms), arms)
        poses = pose_actions(self.axes.sim_from_model(states, arms), arms)
        for arm in arms:  # the last number of an arm is an open fraction
            gripper = ARM_ACTION[arm].stop - 1
            poses[:, gripper] = np.clip(poses[:, gripper], 0.0, 1.0)
        return poses

    def model_actions(self, commands: np.ndarray, proprio: np.ndarray, arms: tuple[str, ...]) -> np.ndarray:
        """Return commands of the bench as actions of the model, K,14: the inverse of `env_actions`.

        Args:
            commands: K,14 in the bench's layout.
            proprio: The bench's state at the chunk's start.
            arms: Arms that exist.
        """
        if self.layout == OSC_DELTA_BASE:
            actions = np.zeros(np.shape(commands))
            for arm in arms:
                actions[:, ARM_ACTION[arm]] = commands[:, ARM_ACTION[arm]]
            return actions
        states = self.axes.model_from_sim(states_of_poses(commands, arms), arms)
        return differences(states, self.axes.model_from_sim(proprio, arms), arms)


INTERFACES = {
    "robosuite": BenchInterface(layout=OSC_DELTA_BASE, axes=SAME_AXES),
    "robocasa": BenchInterface(layout=OSC_DELTA_BASE, axes=ROBOCASA_AXES, env_hw_px=(256, 256), crop_frac=0.95),
    "robotwin": BenchInterface(layout=EE_POSE_BASE, axes=ROBOTWIN_AXES, env_hw_px=(240, 320), crop_frac=0.95),
}
"""The RoboCasa model predicts raw controller commands, whose axes are the bench's. The RoboTwin model predicts deltas
of poses in its own axes, which are summed up from the chunk's first state."""
