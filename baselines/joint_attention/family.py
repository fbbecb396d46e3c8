"""Joint attention as a family of models.

In: a configuration. Out: what `xwam.families.Family` describes.
Read next: `models.py` for the sizes, `network.py`; `policy.py` for `--policy joint_attention`;
`baselines/video_in_training/family.py`, the same network with a mask.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from baselines.joint_attention.config import TwoStreamConfig, count_two_streams
from baselines.joint_attention.models import models_of
from xwam.config import ModelConfig
from xwam.family import XwamLosses

if TYPE_CHECKING:
    from baselines.joint_attention.network import TwoStreamNetwork
    from xwam.training.recipes import Recipe


class JointAttentionFamily(XwamLosses):
    """Two streams of tokens with one self-attention; losses and sampler are X-WAM's."""

    name: str = "joint_attention"
    network_type = TwoStreamConfig
    models: Mapping[str, ModelConfig] = models_of("joint_attention", actions_see_future=True)
    shipped: Mapping[str, Path] = {}
    trained: Mapping[str, str] = {}

    def build(self, config: TwoStreamConfig) -> TwoStreamNetwork:
        """Return the network."""
        from baselines.joint_attention.network import TwoStreamNetwork

        return TwoStreamNetwork(config)

    def count_parameters(self, config: TwoStreamConfig) -> Mapping[str, int]:
        """Return the numbers of parameters by origin; the second stream counts as `actions_and_states`."""
        return count_two_streams(config)._asdict()

    def recipes(self) -> Mapping[str, Recipe]:
        """Return X-WAM's recipes of nano and fine-tuning with independent noise levels, as OpenWAM and Fast-WAM train.

        Inference is synchronous: independent levels cover every schedule.
        """
        from xwam.training.recipes import FINETUNING, NANO

        recipes = (
            replace(NANO, name=f"{self.name}-nano", noise="decoupled"),
            replace(FINETUNING, name=f"{self.name}-finetuning", noise="decoupled"),
        )
        return {recipe.name: recipe for recipe in recipes}

    def default_recipe(self, model: ModelConfig) -> str:
        """Return the recipe of the model's size."""
        return f"{self.name}-{'finetuning' if model.on_wan else 'nano'}"
