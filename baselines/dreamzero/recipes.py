"""DreamZero's training recipes.

In: nothing. Out: recipes by name.
Read next: `xwam/training/recipes.py` for their settings, `objective.py`, which follows them.
"""

from __future__ import annotations

from dataclasses import replace

from baselines.dreamzero.levels import FLASH_BETA
from xwam.training.recipes import FINETUNING, Recipe
from xwam.training.recipes import NANO as XWAM_NANO

NANO = replace(
    XWAM_NANO,
    name="dreamzero-nano",
    batch_size=4,
    micro_batch=4,
    noise="sync",
    start_frac=0.0,
    weight_action=1.0,
    imagined_steps=(8, 8),
)
"""As X-WAM's nano. A clip has four blocks, so that a step has as many chunks of actions as there."""

WAN22 = replace(
    FINETUNING,
    name="dreamzero-5b",
    noise="sync",
    learning_rate=1e-5,
    warmup_steps=1000,
    weight_decay=1e-5,
    betas=(0.95, 0.999),
    imagined_steps=(16, 16),
)
"""The official fine-tuning of 5B: cosine after 5 % warm-up, bfloat16; steps and batch are those of X-WAM's."""


def _flash(recipe: Recipe, name: str, imagined_steps: tuple[int, int]) -> Recipe:
    return replace(recipe, name=name, noise="decoupled", video_beta=FLASH_BETA, imagined_steps=imagined_steps)


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        NANO,
        _flash(NANO, "dreamzero-flash-nano", (8, 2)),
        WAN22,
        _flash(WAN22, "dreamzero-flash-5b", (16, 4)),
    )
}
