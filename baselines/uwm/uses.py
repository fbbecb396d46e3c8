"""The five uses of one UWM: what each does with the actions, and with the next observation.

In: the name of a use. Out: a row of the table.
Read next: `sampling.py`, which follows it.

The next observation is the video after the present frame, and the states after the present one. Present frame and
present state are clean in every use.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Does(Enum):
    """What happens to a group of tokens during denoising.

    Attributes:
        DENOISED: Its level runs down from noise to data.
        NOISE: It stays noise, at the first level, which says nothing about the others: it is marginalised.
        GIVEN: It is known, at level 0.
    """

    DENOISED = "denoised"
    NOISE = "held as noise"
    GIVEN = "given"


class Use(NamedTuple):
    """What a use does with both groups."""

    action: Does
    observation: Does


POLICY, VIDEO, FORWARD_DYNAMICS, INVERSE_DYNAMICS, JOINT = (
    "policy",
    "video",
    "forward_dynamics",
    "inverse_dynamics",
    "joint",
)

USES: dict[str, Use] = {
    POLICY: Use(action=Does.DENOISED, observation=Does.NOISE),
    VIDEO: Use(action=Does.NOISE, observation=Does.DENOISED),
    FORWARD_DYNAMICS: Use(action=Does.GIVEN, observation=Does.DENOISED),
    INVERSE_DYNAMICS: Use(action=Does.DENOISED, observation=Does.GIVEN),
    JOINT: Use(action=Does.DENOISED, observation=Does.DENOISED),
}
"""The original's table (arXiv 2504.02792, section 3), with flow-matching levels."""
