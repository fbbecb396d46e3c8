"""Joint attention as a family of models.

In: a configuration. Out: what `xwam.families.Family` describes.
Read next: `models.py` for the sizes, `network.py`; `policy.py` for `--policy joint_attention`;
`baselines/video_in_training/family.py`, the same network with a mask.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from baselines.joint_attention.config import TwoStreamConfig, count_two_streams
from baselines.joint_attention.models import models_of
from xwam.config import ModelConfig

if TYPE_CHECKING:
    from baselines.joint_attention.network import TwoStreamNetwork
    from xwam.checkpoints.bundle import Bundle
    from xwam.flow.sampler import Schedule
    from xwam.serving.imagine import Imagined, Observations
    from xwam.training.objective import XwamObjective
    from xwam.training.recipes import Recipe


class JointAttentionFamily:
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

    def unused_settings(self, model: ModelConfig, recipe: Recipe) -> Set[str]:
        """Return those that X-WAM's losses do not use."""
        from xwam.training.objective import unused_by_xwam

        return unused_by_xwam(model, recipe)

    def objective(self, network: TwoStreamNetwork, recipe: Recipe) -> XwamObjective:
        """Return the losses of X-WAM's equation 6."""
        from xwam.training.objective import XwamObjective

        return XwamObjective(network, recipe)

    def imagine(self, bundle: Bundle, observations: Observations, schedule: Schedule, *, seed: int) -> Imagined:
        """Return what the model imagines after all passes."""
        from xwam.serving.imagine import imagine

        return imagine(bundle, observations, schedule, seed=seed)
