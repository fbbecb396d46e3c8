"""UWM as a family of models: its configurations, network, objective and recipes.

In: a configuration. Out: what `xwam.families.Family` describes.
Read next: `models.py` for the sizes, `network.py`, `objective.py`; `policy.py` for `--policy uwm`.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING

from baselines.uwm.config import UwmConfig, count_uwm
from baselines.uwm.models import FAMILY, MODELS
from xwam.config import ModelConfig

if TYPE_CHECKING:
    import torch

    from baselines.uwm.levels import UwmLevels
    from baselines.uwm.network import UwmNetwork
    from baselines.uwm.objective import UwmObjective
    from xwam.checkpoints.bundle import Bundle
    from xwam.flow.losses import Batch
    from xwam.flow.sampler import Schedule
    from xwam.network.transformer import TextContext
    from xwam.serving.imagine import Imagined, Observations
    from xwam.training.recipes import Recipe


class UwmFamily:
    """UWM, with or without registers."""

    name = FAMILY
    network_type = UwmConfig
    models: Mapping[str, ModelConfig] = MODELS
    shipped: Mapping[str, Path] = {}
    trained: Mapping[str, str] = {}

    def build(self, config: UwmConfig) -> UwmNetwork:
        """Return the network."""
        from baselines.uwm.network import UwmNetwork

        return UwmNetwork(config)

    def official(self, source: Path) -> None:
        """Refuse the weights of the original UWM, whose network is another one; return None for other sources.

        Raises:
            CheckpointError: Says why they do not load.
        """
        from baselines.uwm.official import refuse_original

        refuse_original(source)

    def count_parameters(self, config: UwmConfig) -> Mapping[str, int]:
        """Return the numbers of parameters by origin."""
        return count_uwm(config)._asdict()

    def recipes(self) -> Mapping[str, Recipe]:
        """Return the recipes of nano and 5B."""
        from baselines.uwm.recipes import RECIPES

        return RECIPES

    def default_recipe(self, model: ModelConfig) -> str:
        """Return the recipe of the model's size."""
        return "uwm-5b" if model.on_wan else "uwm-nano"

    def unused_settings(self, model: ModelConfig, recipe: Recipe) -> Set[str]:
        """Return the settings of X-WAM's depth, spectrum and prefixes, and of DreamZero's levels."""
        return {"weight_depth", "weight_dct", "video_beta", "prefix_actions_max"}

    def objective(self, network: UwmNetwork, recipe: Recipe) -> UwmObjective:
        """Return the losses of video, actions and states."""
        from baselines.uwm.objective import UwmObjective

        return UwmObjective(network, recipe)

    def draw_levels(self, model: ModelConfig, recipe: Recipe, generator: torch.Generator) -> UwmLevels:
        """Return the levels of one sample."""
        from baselines.uwm.levels import draw_uwm_levels

        given, starting = recipe.clean_action_frac, recipe.start_frac
        return draw_uwm_levels(1, given_frac=given, start_frac=starting, generator=generator)

    def imagine(self, bundle: Bundle, observations: Observations, schedule: Schedule, *, seed: int) -> Imagined:
        """Return what the model imagines jointly with its actions."""
        from baselines.uwm.engine import imagine_jointly

        return imagine_jointly(bundle, observations, schedule.num_video_steps, seed=seed)

    def infer_actions(
        self, bundle: Bundle, batch: Batch, text: TextContext, *, num_steps: int | None, seed: int
    ) -> torch.Tensor:
        """Return the actions of inverse dynamics, normalised."""
        from baselines.uwm.engine import infer_actions

        return infer_actions(bundle, batch, text, num_steps or bundle.model.num_action_steps, seed=seed)
