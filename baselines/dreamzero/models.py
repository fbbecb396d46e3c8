"""DreamZero's models by name: nano for each bench, and 5B on Wan2.2.

In: nothing. Out: `ModelConfig`s.
Read next: `config.py` for the network's settings.

Nano has the trunk of X-WAM's nano, with two more blocks in place of the depth branch: as many parameters within 5 %.
A block of actions lasts 8 control steps at nano, whose images are one step apart, and 32 steps elsewhere, whose images
are four steps apart. A clip of training fills the window.
"""

from __future__ import annotations

from dataclasses import replace

from baselines.dreamzero.config import DreamZeroConfig
from xwam.config import NANO as XWAM_NANO
from xwam.config import WAN22_5B, ModelConfig
from xwam.families import at_robocasa, at_robotwin, at_wan22

FAMILY = "dreamzero"

MOSAIC = (2, 2)
"""Tiles of the image that all cameras share."""

NANO_NETWORK = DreamZeroConfig(
    width=XWAM_NANO.network.width,
    ffn_width=XWAM_NANO.network.ffn_width,
    num_heads=XWAM_NANO.network.num_heads,
    num_blocks=8,
    patch_hw=XWAM_NANO.network.patch_hw,
    place_grid=(4, 4),
    video_prediction="clean",
    text_width=XWAM_NANO.network.text_width,
    text_len=XWAM_NANO.network.text_len,
    time_width=XWAM_NANO.network.time_width,
    actions_per_block=8,
    guidance=0.0,
    state_hidden=192,
    action_hidden=192,
    action_slots=14,
    state_slots=16,
)

WAN22_5B_NETWORK = DreamZeroConfig(
    width=WAN22_5B.width, ffn_width=WAN22_5B.ffn_width, num_heads=WAN22_5B.num_heads, num_blocks=WAN22_5B.num_blocks
)
"""Wan2.2-TI2V-5B with the official sizes of encoders and decoder, without the image branch (CLIP)."""


def _model(base: ModelConfig, network: DreamZeroConfig, *, size: str, frame_stride: int, num_steps: int) -> ModelConfig:
    """Return a model with the images, views, arms and bounds of another one."""
    return replace(
        base,
        name=f"{FAMILY}-{size}",
        family=FAMILY,
        network=network,
        codec=replace(base.codec, warp_widths=None, mosaic=MOSAIC),
        num_actions=network.window_blocks * network.actions_per_block,
        num_future_frames=network.window_blocks * network.frames_per_block,
        frame_stride=frame_stride,
        num_video_steps=num_steps,
        num_action_steps=num_steps,
        execute_steps=network.actions_per_block,
    )


def _flash(model: ModelConfig, *, num_action_steps: int) -> ModelConfig:
    """Return the Flash variant: actions have levels of their own, and are clean after fewer passes."""
    network = replace(model.network, independent_levels=True)  # type: ignore[call-arg]
    return replace(model, name=f"{model.name}-flash", network=network, num_action_steps=num_action_steps)


NANO = _model(XWAM_NANO, NANO_NETWORK, size="nano", frame_stride=1, num_steps=8)

_STRIDED = _model(XWAM_NANO, replace(NANO_NETWORK, actions_per_block=32), size="nano", frame_stride=4, num_steps=8)

_WAN22 = _model(
    at_wan22(XWAM_NANO),
    WAN22_5B_NETWORK,
    size="5b",
    frame_stride=4,
    num_steps=16,
)

MODELS: dict[str, ModelConfig] = {
    "nano": NANO,
    "nano-robocasa": at_robocasa(_STRIDED),
    "nano-robotwin": replace(at_robotwin(_STRIDED), execute_steps=32),
    "5b": _WAN22,
    "nano-flash": _flash(NANO, num_action_steps=2),
    "5b-flash": _flash(_WAN22, num_action_steps=4),
}
