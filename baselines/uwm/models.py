"""UWM's models by name: nano for each bench, and 5B on Wan2.2.

In: nothing. Out: `ModelConfig`s.
Read next: `config.py` for the network's settings.

Nano has the trunk of X-WAM's nano, with two more blocks in place of the depth branch: as many parameters within 5 %.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from baselines.uwm.config import UwmConfig
from xwam.config import NANO as XWAM_NANO
from xwam.config import WAN22_5B, ModelConfig, NetworkConfig
from xwam.families import at_robocasa, at_robotwin, at_wan22

FAMILY = "uwm"

NANO_STEPS, WAN22_STEPS = 10, 50
"""Denoising steps of video and actions alike: those of the original (DDIM), and of X-WAM's evaluation at 5B."""


def uwm_network(base: NetworkConfig, **changes: Any) -> UwmConfig:
    """Return a network of UWM with the settings of one of X-WAM's."""
    settings = {field.name: getattr(base, field.name) for field in fields(base)}
    return UwmConfig(**(settings | {"depth": "none", "num_depth_blocks": 0} | changes))


def _model(base: ModelConfig, network: UwmConfig, *, size: str, num_steps: int) -> ModelConfig:
    """Return a model with the images, views, arms and bounds of another one."""
    return replace(
        base,
        name=f"{FAMILY}-{size}",
        family=FAMILY,
        network=network,
        codec=replace(base.codec, warp_widths=None),
        num_video_steps=num_steps,
        num_action_steps=num_steps,
    )


NANO = _model(
    XWAM_NANO,
    uwm_network(XWAM_NANO.network, num_blocks=XWAM_NANO.network.num_blocks + XWAM_NANO.network.num_depth_blocks),
    size="nano",
    num_steps=NANO_STEPS,
)

_WAN22 = _model(
    at_wan22(XWAM_NANO),
    uwm_network(WAN22_5B),
    size="5b",
    num_steps=WAN22_STEPS,
)

MODELS: dict[str, ModelConfig] = {
    "nano": NANO,
    "nano-robocasa": at_robocasa(NANO),
    "nano-robotwin": at_robotwin(NANO),
    "nano-registers": replace(NANO, name="uwm-nano-registers", network=replace(NANO.network, num_registers=8)),  # type: ignore[call-arg]
    "5b": _WAN22,
}
