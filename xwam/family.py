"""X-WAM's own family: its configurations, its network, its objective.

In: a configuration. Out: what `Family` describes.
Read next: `config.py` for the sizes, `network/transformer.py` for the network, `training/objective.py` for the losses.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xwam.checkpoints.metadata import RELEASED_BENCHES
from xwam.config import NANO, ModelConfig, NetworkConfig, count_parameters
from xwam.families import OWN, at_robocasa, at_robotwin

if TYPE_CHECKING:
    from xwam.checkpoints.bundle import Bundle
    from xwam.flow.sampler import Schedule
    from xwam.network.transformer import XwamNetwork
    from xwam.serving.imagine import Imagined, Observations
    from xwam.training.objective import XwamObjective
    from xwam.training.recipes import Recipe

_RELEASED = "checkpoint=sharinka0715/X-WAM-checkpoints/{bench}_sft tokenizer=google/umt5-xxl"

NANO_MODELS: dict[str, ModelConfig] = {
    "nano": NANO,
    "nano-robocasa": at_robocasa(NANO),
    "nano-robotwin": replace(at_robotwin(NANO), execute_steps=32),
}


class XwamLosses:
    """What families share whose networks train on X-WAM's losses and imagine with its sampler."""

    def unused_settings(self, model: ModelConfig, recipe: Recipe) -> Set[str]:
        """Return what depends on the noise and on the depth of the model; only X-WAM's own networks know prefixes."""
        unused = {"video_beta"}
        if model.family != OWN:
            unused.add("prefix_actions_max")
        if recipe.noise != "ans":
            unused.add("clean_action_frac")
        if (recipe.depth or model.network.depth) == "none":
            unused.add("weight_depth")
        return unused

    def objective(self, network: Any, recipe: Recipe) -> XwamObjective:
        """Return the losses of equation 6."""
        from xwam.training.objective import XwamObjective

        return XwamObjective(network, recipe)

    def imagine(self, bundle: Bundle, observations: Observations, schedule: Schedule, *, seed: int) -> Imagined:
        """Return what the model imagines after all passes."""
        from xwam.serving.imagine import imagine

        return imagine(bundle, observations, schedule, seed=seed)


class XwamFamily(XwamLosses):
    """X-WAM, and its variants without a depth branch or with depth in the denoised tokens."""

    name = OWN
    network_type = NetworkConfig
    models: Mapping[str, ModelConfig] = NANO_MODELS
    shipped: Mapping[str, Path] = {"nano": Path(__file__).parent / "nano" / "weights" / "nano.safetensors"}
    trained: Mapping[str, str] = {
        "robosuite": "checkpoint=nano",
        **{bench: _RELEASED.format(bench=bench) for bench in RELEASED_BENCHES},
    }

    def build(self, config: NetworkConfig) -> XwamNetwork:
        """Return the network."""
        from xwam.network.transformer import XwamNetwork

        return XwamNetwork(config)

    def count_parameters(self, config: NetworkConfig) -> Mapping[str, int]:
        """Return the numbers of parameters by origin."""
        return count_parameters(config)._asdict()

    def recipes(self) -> Mapping[str, Recipe]:
        """Return the recipes of the paper, of the release and of nano."""
        from xwam.training.recipes import RECIPES

        return RECIPES

    def default_recipe(self, model: ModelConfig) -> str:
        """Return nano's recipe, or the fine-tuning of the model's bench."""
        if not model.on_wan:
            return "nano"
        return model.bench if model.bench in RELEASED_BENCHES else "robocasa"
