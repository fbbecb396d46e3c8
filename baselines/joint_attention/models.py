"""The models of both designs with two streams, as data: nano for each bench, and 5B on Wan2.2.

In: nothing. Out: frozen configurations by name.
Read next: `config.py` for the sizes; `family.py`, which gives them to loader and trainer.

Nano has as many parameters as X-WAM's nano within 5 %, with the depth branch and without it: one block of six less
pays for the second stream. The second stream is a third as wide as the video's, as in OpenWAM (1024 of 3072).
"""

from __future__ import annotations

from dataclasses import replace

from baselines.joint_attention.config import TwoStreamConfig, two_streams
from xwam.config import NANO, WAN22_5B, ModelConfig
from xwam.families import at_robocasa, at_robotwin, at_wan22

NANO_STREAMS = two_streams(replace(NANO.network, num_blocks=5), action_width=64, action_ffn_width=192)

WAN22_STREAMS = two_streams(WAN22_5B, action_width=1024, action_ffn_width=4096)
"""Wan2.2-TI2V-5B with the stream of actions of OpenWAM (arXiv 2609.07398, section 5.1: 1024 wide, about 1B parameters)
and the MLP of Fast-WAM's (arXiv 2603.16666, configs/model/fastwam.yaml), and X-WAM's depth branch."""

NANO_STEPS, WAN22_STEPS = 3, 10
"""Denoising steps of video and actions together; 10 is OpenWAM's and Fast-WAM's, 3 that of the video of X-WAM's
nano."""


def models_of(family: str, *, actions_see_future: bool) -> dict[str, ModelConfig]:
    """Return the models of a family with two streams, by name."""
    nano = _model(NANO, family, NANO_STREAMS, NANO_STEPS, actions_see_future=actions_see_future)
    large = _model(at_wan22(NANO), family, WAN22_STREAMS, WAN22_STEPS, actions_see_future=actions_see_future)
    return {
        "nano": nano,
        "nano-robocasa": at_robocasa(nano),
        "nano-robotwin": at_robotwin(nano),
        "5b": replace(large, name=nano.name.replace("nano", "5b")),
    }


def _model(
    base: ModelConfig, family: str, network: TwoStreamConfig, num_steps: int, *, actions_see_future: bool
) -> ModelConfig:
    return replace(
        base,
        name=f"{family.replace('_', '-')}-nano",
        family=family,
        network=replace(network, actions_see_future=actions_see_future),
        num_video_steps=num_steps,
        num_action_steps=num_steps,
    )
