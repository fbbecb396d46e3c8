"""Joint attention as a policy: X-WAM's, with a model of another family.

In: requests of evalkit. Out: replies of evalkit.
Read next: `xwam/policy.py`, which does the work; `network.py` for what differs.
"""

from __future__ import annotations

from dataclasses import dataclass

from xwam.policy import XwamPlugin, XwamPolicyConfig


@dataclass(frozen=True)
class JointAttentionPolicyConfig(XwamPolicyConfig):
    """Settings of the policy: those of X-WAM's.

    Attributes:
        checkpoint: Weights: a path, an id on the Hugging Face hub, or `random-nano`, `random-nano-robocasa`,
            `random-nano-robotwin` for random ones.
    """

    checkpoint: str = "random-nano"


class JointAttentionPlugin(XwamPlugin):
    """The entry point `joint_attention`; its import loads no framework."""

    name = "joint_attention"
    family_name = "joint_attention"
    summary = (
        "Joint attention: own parameters for actions, one self-attention; random weights unless a checkpoint is named"
    )
    config_type = JointAttentionPolicyConfig
