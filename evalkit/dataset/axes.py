"""Which way the axes point: the simulators' frames and those of the released data sets and models.

In: states (xyz m, quat wxyz with w >= 0, gripper) x 2 arms. Out: the same in the other frame.
Read next: `writer.py`, which writes states in the frame of the released data sets.

`sim` is the simulator's frame, `model` the one of the data; `eef` the end effector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from evalkit.contracts.geometry import wxyz_from_xyzw, xyzw_from_wxyz
from evalkit.contracts.types import ARM_PROPRIO

R_EEFSIM_EEFMODEL_ROBOCASA = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
"""RoboCasa: the end effector's axes turned by +90 degrees about its z; R_base_eefmodel = R_base_eefsim @ this."""

R_MODELBASE_SIMBASE_ROBOTWIN = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
"""RoboTwin: the base axes turned by -90 degrees about z; p_modelbase = this @ p_simbase."""

R_EEFSIM_EEFMODEL_ROBOTWIN = np.array([[0.0, 0.0, 1.0], [0.0, -1.0, 0.0], [1.0, 0.0, 0.0]])
"""RoboTwin: the end effector's x and z change places and its y turns round."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Axes:
    """How a model's frames lie in a simulator's.

    Attributes:
        R_modelbase_simbase: Turns positions and orientations of the base.
        R_eefsim_eefmodel: Turns the end effector's own axes.
    """

    R_modelbase_simbase: np.ndarray
    R_eefsim_eefmodel: np.ndarray

    def model_from_sim(self, proprio: np.ndarray, arms: Sequence[str]) -> np.ndarray:
        """Return states, ...,16, as the model knows them."""
        return _turn(proprio, arms, self.R_modelbase_simbase, self.R_eefsim_eefmodel)

    def sim_from_model(self, proprio: np.ndarray, arms: Sequence[str]) -> np.ndarray:
        """Return states, ...,16, as the simulator knows them."""
        return _turn(proprio, arms, self.R_modelbase_simbase.T, self.R_eefsim_eefmodel.T)


SAME_AXES = Axes(R_modelbase_simbase=np.eye(3), R_eefsim_eefmodel=np.eye(3))
ROBOCASA_AXES = Axes(R_modelbase_simbase=np.eye(3), R_eefsim_eefmodel=R_EEFSIM_EEFMODEL_ROBOCASA)
ROBOTWIN_AXES = Axes(R_modelbase_simbase=R_MODELBASE_SIMBASE_ROBOTWIN, R_eefsim_eefmodel=R_EEFSIM_EEFMODEL_ROBOTWIN)


def _turn(proprio: np.ndarray, arms: Sequence[str], R_left: np.ndarray, R_right: np.ndarray) -> np.ndarray:
    turned = np.zeros(np.shape(proprio))
    for arm in arms:
        state = np.asarray(proprio, np.float64)[..., ARM_PROPRIO[arm]]
        rotation = Rotation.from_matrix(R_left) * rotation_from_wxyz(state[..., 3:7]) * Rotation.from_matrix(R_right)
        parts = [state[..., :3] @ R_left.T, wxyz_from_xyzw(rotation.as_quat()), state[..., 7:]]
        turned[..., ARM_PROPRIO[arm]] = np.concatenate(parts, axis=-1)
    return turned


def rotation_from_wxyz(quat_wxyz: np.ndarray) -> Rotation:
    """Return scipy's rotation of unit quaternions (w, x, y, z); leading axes are kept."""
    return Rotation.from_quat(xyzw_from_wxyz(quat_wxyz))
