"""Refuses changes to settings of a recipe that have no effect in a training.

In: a recipe with the user's changes, the model to train. Out: nothing, or one sentence.
Read next: `recipes.py` for the settings; `Family.unused_settings` for what each family ignores.

A recipe may hold such settings, because recipes derive from one another. Only another value than that of the recipe
itself is refused: whoever changes it expects an effect.
"""

from __future__ import annotations

from collections.abc import Iterator

from xwam.config import ModelConfig
from xwam.families import Family, family_of, names
from xwam.training.recipes import Recipe, RecipeError

MAX_NAMED = 3


def refuse_unused(recipe: Recipe, model: ModelConfig, *, started: bool) -> None:
    """Raise RecipeError if a setting without effect has another value than in the recipe of that name.

    Args:
        recipe: The recipe with all changes; one of another family is compared with the model's own.
        model: The model to train.
        started: Whether it starts from a checkpoint, which keeps its bounds of actions.

    Raises:
        RecipeError: Names the setting, what ignores it, the value to leave it at, and recipes with an effect.
    """
    family = family_of(model.family)
    own = family.recipes()
    plain = own.get(recipe.name) or own[family.default_recipe(model)]
    for name in sorted(family.unused_settings(model, recipe)):
        given, kept = getattr(recipe, name), getattr(plain, name)
        if given != kept:
            users = list(_users(name))
            where = f" It has an effect in {', '.join(users[:MAX_NAMED])}." if users else ""
            raise RecipeError(
                f"{name}={given} has no effect: the objective of {model.name} does not use it (noise={recipe.noise}, "
                f"depth={recipe.depth or model.network.depth}). Leave it at {kept}.{where}"
            )
    if started and recipe.least_action != plain.least_action:
        raise RecipeError(
            f"least_action={recipe.least_action} has no effect with --start: a checkpoint keeps its bounds of actions. "
            f"Leave it at {plain.least_action}."
        )


def _users(setting: str) -> Iterator[str]:
    """Yield the recipes of all families whose training a setting has an effect on."""
    for family in map(family_of, names()):
        yield from _users_in(family, setting)


def _users_in(family: Family, setting: str) -> Iterator[str]:
    recipes, seen = family.recipes(), set[str]()
    for model in family.models.values():
        name = family.default_recipe(model)
        if name not in seen and setting not in family.unused_settings(model, recipes[name]):
            seen.add(name)
            yield name
