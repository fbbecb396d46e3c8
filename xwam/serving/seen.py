"""The present of a request, in the bench's pixels and frames; needs no framework.

In: an `Observation`. Out: the input of the engine and of the finishers.
Read next: `engine.py`.

Letters: V views, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from evalkit.contracts.types import Observation


class Cameras(NamedTuple):
    """Where the cameras are: V,3,3 intrinsics (pixels) and V,4,4 `T_base_cam`."""

    intrinsics_v33_px: np.ndarray
    T_base_cam_v44: np.ndarray


@dataclass(frozen=True, eq=False)
class Seen:
    """The present of a request.

    Attributes:
        rgb_vhwc_u8: V,H,W,3, the images of all cameras.
        proprio: 16 numbers, the state of the robot.
        instruction: The prompt.
        depth_vhw_m: V,H,W metres; None unless every view measures depth.
        cameras: None if they are unknown.
    """

    rgb_vhwc_u8: np.ndarray
    proprio: np.ndarray
    instruction: str
    depth_vhw_m: np.ndarray | None = None
    cameras: Cameras | None = None

    @classmethod
    def of(cls, observation: Observation) -> Seen:
        """Return the present of an observation; its depth counts only if every view measures some."""
        return cls(
            observation.rgb,
            observation.proprio,
            observation.instruction,
            depth_vhw_m=observation.depth if observation.depth.any((1, 2)).all() else None,
            cameras=Cameras(observation.intrinsics, observation.T_base_cam),
        )
