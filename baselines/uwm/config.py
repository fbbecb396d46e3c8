"""The settings of UWM's network, and its number of parameters.

In: nothing. Out: a frozen configuration.
Read next: `network.py`, which is built from it; `models.py` for the sizes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from xwam.config import NetworkConfig, count_parameters


@dataclass(frozen=True, kw_only=True)
class UwmConfig(NetworkConfig):
    """X-WAM's transformer without the depth branch.

    Attributes:
        num_registers: Learned tokens that belong to no modality (the original has 8); 0 is closest to Wan.
    """

    num_registers: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth != "none":
            raise ValueError(f"UWM predicts no depth; depth must be 'none', got '{self.depth}'.")
        if self.num_registers < 0:
            raise ValueError(f"num_registers must be at least 0, got {self.num_registers}.")


class UwmParameters(NamedTuple):
    """Parameters of UWM by origin.

    Attributes:
        wan: Those of the video model that training starts from.
        views: Embeddings of views and of positions in them.
        actions_and_states: The four MLPs.
        registers: The learned tokens.
    """

    wan: int
    views: int
    actions_and_states: int
    registers: int


def count_uwm(config: UwmConfig) -> UwmParameters:
    """Return the numbers of parameters, without building the network.

    Example:
        >>> WAN22_5B_UWM = UwmConfig(
        ...     width=3072, ffn_width=14336, num_heads=24, num_blocks=30, num_depth_blocks=0, depth="none"
        ... )
        >>> count_uwm(WAN22_5B_UWM)
        UwmParameters(wan=4999787712, views=9216, actions_and_states=37951518, registers=0)
    """
    wan, views, actions_and_states, _ = count_parameters(config)
    return UwmParameters(wan, views, actions_and_states, config.num_registers * config.width)
