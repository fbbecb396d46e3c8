"""DreamZero as a family of models: its configurations, network, levels, objective and recipes.

In: a configuration. Out: what `xwam.families.Family` describes.
Read next: `models.py` for the sizes, `network.py`, `objective.py`; `policy.py` for `--policy dreamzero`.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING

from baselines.dreamzero.config import DreamZeroConfig, count_dreamzero, network_of
from baselines.dreamzero.models import FAMILY, MODELS
from xwam.config import ModelConfig

if TYPE_CHECKING:
    import torch

    from baselines.dreamzero.levels import BlockLevels
    from baselines.dreamzero.network import DreamZeroNetwork
    from baselines.dreamzero.objective import DreamZeroObjective
    from baselines.dreamzero.official import Official
    from xwam.checkpoints.bundle import Bundle
    from xwam.flow.sampler import Schedule
    from xwam.serving.imagine import Imagined, Observations
    from xwam.training.recipes import Recipe


class DreamZeroFamily:
    """DreamZero, and its Flash variant."""

    name = FAMILY
    network_type = DreamZeroConfig
    models: Mapping[str, ModelConfig] = MODELS
    shipped: Mapping[str, Path] = {}
    trained: Mapping[str, str] = {}

    def build(self, config: DreamZeroConfig) -> DreamZeroNetwork:
        """Return the network."""
        from baselines.dreamzero.network import DreamZeroNetwork

        return DreamZeroNetwork(config)

    def official(self, source: Path) -> Official | None:
        """Return the content of a folder of official weights; None for other folders."""
        from baselines.dreamzero.official import is_official, read_official

        return read_official(source) if is_official(source) else None

    def count_parameters(self, config: DreamZeroConfig) -> Mapping[str, int]:
        """Return the numbers of parameters by origin."""
        return count_dreamzero(config)._asdict()

    def recipes(self) -> Mapping[str, Recipe]:
        """Return the recipes of nano and 5B, each also for the Flash variant."""
        from baselines.dreamzero.recipes import RECIPES

        return RECIPES

    def default_recipe(self, model: ModelConfig) -> str:
        """Return the recipe of the model's size and variant."""
        flash = "-flash" if network_of(model).independent_levels else ""
        return f"dreamzero{flash}-{'5b' if model.on_wan else 'nano'}"

    def unused_settings(self, model: ModelConfig, recipe: Recipe) -> Set[str]:
        """Return the settings of states, depth, levels and prefixes that it lacks; `video_beta` is Flash's."""
        unused = {"clean_action_frac", "start_frac", "prefix_actions_max"}
        unused |= {"weight_proprio", "weight_depth", "weight_dct"}
        return unused if network_of(model).independent_levels else unused | {"video_beta"}

    def objective(self, network: DreamZeroNetwork, recipe: Recipe) -> DreamZeroObjective:
        """Return the losses of video and actions."""
        from baselines.dreamzero.objective import DreamZeroObjective

        return DreamZeroObjective(network, recipe)

    def draw_levels(self, model: ModelConfig, recipe: Recipe, generator: torch.Generator) -> BlockLevels:
        """Return the levels of one clip: one for each block, or independent ones for actions (`noise=decoupled`)."""
        from baselines.dreamzero.levels import draw_block_levels

        network = network_of(model)
        return draw_block_levels(
            1,
            num_blocks=model.num_actions // network.actions_per_block,
            actions_per_block=network.actions_per_block,
            flash_beta=recipe.video_beta if recipe.noise == "decoupled" else None,
            generator=generator,
        )

    def imagine(self, bundle: Bundle, observations: Observations, schedule: Schedule, *, seed: int) -> Imagined:
        """Return what the model imagines of the first block."""
        from baselines.dreamzero.imagine import imagine_first_block

        return imagine_first_block(bundle, observations, schedule, seed=seed)
