"""DreamZero's models by name: nano for each bench, and 5B on Wan2.2.

In: nothing. Out: `ModelConfig`s.
Read next: `config.py` for the network's settings.

Nano has the trunk of X-WAM's nano with two more blocks in place of the depth branch, so that both have as many
parameters within 5 %. A block of actions lasts 8 control steps at nano, whose images are one step apart, and 32 steps
elsewhere, whose images are four steps apart.
"""

from __future__ import annotations

from dataclasses import replace

from baselines.dreamzero.config import DreamZeroConfig
from xwam.checkpoints.by_bench import UNTRAINED
from xwam.config import NANO as XWAM_NANO
from xwam.config import WAN22_5B, CodecConfig, ModelConfig, TextConfig

MOSAIC = (2, 2)
"""Tiles of the image that all cameras share."""

NANO_NETWORK = DreamZeroConfig(
    width=XWAM_NANO.network.width,
    ffn_width=XWAM_NANO.network.ffn_width,
    num_heads=XWAM_NANO.network.num_heads,
    num_blocks=8,
    patch_hw=(4, 4),
    place_grid=(4, 4),
    video_prediction="clean",
    text_width=XWAM_NANO.network.text_width,
    text_len=XWAM_NANO.network.text_len,
    time_width=XWAM_NANO.network.time_width,
    actions_per_block=8,
    state_hidden=192,
    action_hidden=192,
    action_slots=14,
    state_slots=16,
)

WAN22_5B_NETWORK = DreamZeroConfig(
    width=WAN22_5B.width, ffn_width=WAN22_5B.ffn_width, num_heads=WAN22_5B.num_heads, num_blocks=WAN22_5B.num_blocks
)
"""Wan2.2-TI2V-5B with the official sizes of encoders and decoder, without the image branch (CLIP)."""


def _model(name: str, base: ModelConfig, network: DreamZeroConfig, *, frame_stride: int, num_steps: int) -> ModelConfig:
    """Return a model with the images, views, arms and bounds of another; a clip of training fills the window."""
    return replace(
        base,
        name=name,
        family="dreamzero",
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
    """Return the Flash variant: actions have levels of their own and are clean after fewer passes."""
    network = replace(model.network, independent_levels=True)  # type: ignore[call-arg]
    return replace(model, name=f"{model.name}-flash", network=network, num_action_steps=num_action_steps)


NANO_STEPS = 8
"""Denoising steps of nano; the official model has 16."""

NANO = _model("dreamzero-nano", XWAM_NANO, NANO_NETWORK, frame_stride=1, num_steps=NANO_STEPS)

_STRIDED = replace(NANO_NETWORK, actions_per_block=32)
NANO_ROBOCASA = _model(
    "dreamzero-nano-robocasa", UNTRAINED["random-nano-robocasa"], _STRIDED, frame_stride=4, num_steps=NANO_STEPS
)
NANO_ROBOTWIN = _model(
    "dreamzero-nano-robotwin",
    UNTRAINED["random-nano-robotwin"],
    replace(_STRIDED, place_grid=(6, 8)),
    frame_stride=4,
    num_steps=NANO_STEPS,
)

WAN22 = _model(
    "dreamzero-5b",
    replace(
        UNTRAINED["random-nano-robocasa"],
        codec=CodecConfig(kind="wan22"),
        text=TextConfig(kind="umt5"),
        image_hw_px=(256, 320),
    ),
    WAN22_5B_NETWORK,
    frame_stride=4,
    num_steps=16,
)
"""5B for RoboCasa; its bounds stand until the statistics of a data set replace them."""

MODELS: dict[str, ModelConfig] = {
    "nano": NANO,
    "nano-flash": _flash(NANO, num_action_steps=2),
    "nano-robocasa": NANO_ROBOCASA,
    "nano-robotwin": NANO_ROBOTWIN,
    "5b": WAN22,
    "5b-flash": _flash(WAN22, num_action_steps=4),
}
