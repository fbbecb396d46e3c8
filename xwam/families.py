"""Families of models: each is one design of network, with its configurations, its weights and its training.

In: the name of a family. Out: the `Family`, found by entry point.
Read next: `family.py`, X-WAM's own; `baselines/uwm/family.py` for another one.

Checkpoints, training and policies know a network only through its family. A package adds a family with an entry point
of the group `xwam.families`; importing it loads no framework.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from dataclasses import replace
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from xwam.config import W_POSITIVE, Bounds, CodecConfig, ModelConfig, NetworkConfig, TextConfig

if TYPE_CHECKING:
    from xwam.checkpoints.bundle import Bundle
    from xwam.flow.sampler import Schedule
    from xwam.network.transformer import Trunk
    from xwam.serving.imagine import Imagined, Observations
    from xwam.training.objective import Objective
    from xwam.training.recipes import Recipe

GROUP = "xwam.families"

OWN = "xwam"
"""The family of models that name none."""


class Family(Protocol):
    """One design of network.

    A family may have three more methods: `official(source)` if its authors published weights
    (`xwam.checkpoints.start.ReadsOfficial`), `draw_levels(model, recipe, generator)` if its noise levels are not
    X-WAM's (`xwam.training.batches.DrawsLevels`), and `infer_actions(bundle, batch, text, num_steps, seed)` if its
    models do inverse dynamics (`xwam.training.inverse_dynamics.InfersActions`).

    Attributes:
        name: Name in configurations and in `xwam train --model`.
        network_type: Type of its network configurations.
        models: Configurations by name: `nano`, and its variants for other benches, `nano-robocasa`; larger sizes.
        shipped: Weights that come with the package, by name.
        trained: Settings of the policy that load the trained model of a bench, without their prefix.
    """

    name: str
    network_type: type[NetworkConfig]
    models: Mapping[str, ModelConfig]
    shipped: Mapping[str, Path]
    trained: Mapping[str, str]

    def build(self, config: Any) -> Trunk:
        """Return the network without meaningful weights, on the current default device."""
        ...

    def count_parameters(self, config: Any) -> Mapping[str, int]:
        """Return the numbers of parameters by origin, without building the network."""
        ...

    def recipes(self) -> Mapping[str, Recipe]:
        """Return its training recipes by name."""
        ...

    def default_recipe(self, model: ModelConfig) -> str:
        """Return the name of the recipe that trains one of its models if the user names none."""
        ...

    def unused_settings(self, model: ModelConfig, recipe: Recipe) -> Set[str]:
        """Return the settings of the recipe that have no effect on the losses of this model."""
        ...

    def objective(self, network: Any, recipe: Recipe) -> Objective:
        """Return the module that computes its losses."""
        ...

    def imagine(self, bundle: Bundle, observations: Observations, schedule: Schedule, *, seed: int) -> Imagined:
        """Return what a model imagines, for the validation in training.

        Raises:
            ValueError: If models of this family imagine nothing.
        """
        ...


def names() -> list[str]:
    """Return the names of all families, X-WAM first."""
    found = {entry.name for entry in metadata.entry_points(group=GROUP)}
    return sorted(found, key=lambda name: (name != OWN, name))


@cache
def family_of(name: str) -> Family:
    """Return the family of this name.

    Raises:
        ValueError: If no installed package has it.
    """
    targets = {entry.name: entry.value for entry in metadata.entry_points(group=GROUP)}
    if name not in targets:
        raise ValueError(f"There is no family of models '{name}'; choose among {', '.join(names())}.")
    module, _, attribute = targets[name].partition(":")
    return getattr(import_module(module), attribute)()  # type: ignore[no-any-return]


def model_named(name: str) -> ModelConfig:
    """Return the configuration `FAMILY/NAME`.

    Raises:
        ValueError: If there is none.

    Example:
        >>> model_named("xwam/nano").name
        'xwam-nano'
    """
    family_name, _, model_name = name.partition("/")
    models = family_of(family_name).models
    if model_name not in models:
        choices = ", ".join(f"{family_name}/{each}" for each in models)
        raise ValueError(f"There is no model '{name}'; choose among {choices}.")
    return models[model_name]


def model_from_json(data: Mapping[str, Any]) -> ModelConfig:
    """Return the configuration that `ModelConfig.to_json` wrote, with the network of its family.

    Raises:
        ValueError: If its family is not installed.
    """
    return ModelConfig.from_json(data, family_of(data.get("family", OWN)).network_type)


def model_from_text(text: str) -> ModelConfig:
    """Return the configuration in a JSON text, see `model_from_json`."""
    return model_from_json(json.loads(text))


# ---- the same model at other benches

_ARM_LOW = (-0.6, -0.6, 0.6, -1.0, -1.0, -1.0, -1.0, 0.0)
_ARM_HIGH = (0.6, 0.6, 1.4, 1.0, 1.0, 1.0, 1.0, 1.0)
_ARM_STEP = (0.01, 0.01, 0.01, 0.05, 0.05, 0.05, 0.05)
"""Bounds of one arm over RoboTwin's table, in the frames of the release: states, and small changes between actions."""


def at_robocasa(model: ModelConfig) -> ModelConfig:
    """Return a model of robosuite with the interface of RoboCasa, whose images and actions have the same form."""
    return _changed(model, name=f"{model.name}-robocasa", bench="robocasa")


def at_robotwin(model: ModelConfig) -> ModelConfig:
    """Return a model with the interface of RoboTwin: views, arms and executed steps of the released model."""
    return _changed(
        model,
        name=f"{model.name}-robotwin",
        bench="robotwin",
        bounds=Bounds(
            proprio_low=_ARM_LOW * 2,
            proprio_high=_ARM_HIGH * 2,
            action_low=tuple(-step for step in _ARM_STEP) * 2,
            action_high=_ARM_STEP * 2,
        ),
        image_hw_px=(192, 256),
        views=("static", "wrist", "wrist"),
        arms=("left", "right"),
        control_hz=None,
        execute_steps=model.num_actions,
        quat_side_wxyz=W_POSITIVE,
    )


def at_wan22(model: ModelConfig) -> ModelConfig:
    """Return a model with the codec and text encoder of Wan2.2, and images, axes and executed steps of the released
    RoboCasa model; its network stays as it is, and the statistics of a data set replace its bounds in training.
    """
    return replace(
        at_robocasa(model),
        codec=CodecConfig(kind="wan22"),
        text=TextConfig(kind="umt5"),
        image_hw_px=(256, 320),
        execute_steps=model.num_actions,
        quat_side_wxyz=W_POSITIVE,
    )


def _changed(model: ModelConfig, **changes: Any) -> ModelConfig:
    """Return a model with changes, and as many learned positions as its images then have tokens."""
    model = replace(model, **changes)
    if model.network.place_grid is None:
        return model
    *_, rows, cols = model.latent_shape
    grid = rows // model.network.patch_hw[0], cols // model.network.patch_hw[1]
    return replace(model, network=replace(model.network, place_grid=grid))
