"""UWM's training recipes.

In: nothing. Out: recipes by name.
Read next: `xwam/training/recipes.py` for their settings, `objective.py`, which follows them.
"""

from __future__ import annotations

from dataclasses import replace

from baselines.uwm.models import NANO_STEPS, WAN22_STEPS
from xwam.training.recipes import FINETUNING, Recipe
from xwam.training.recipes import NANO as XWAM_NANO

NANO = replace(
    XWAM_NANO,
    name="uwm-nano",
    noise="decoupled",
    clean_action_frac=0.25,
    start_frac=0.0,
    weight_action=1.0,
    weight_proprio=1.0,
    imagined_steps=(NANO_STEPS, NANO_STEPS),
)
"""As X-WAM's nano, with independent noise levels and equal weights. In a quarter of the samples actions or observation
are given, which the original does not do: a short training sees too few levels near 0 otherwise."""

WAN22 = replace(
    FINETUNING, name="uwm-5b", noise="decoupled", clean_action_frac=0.0, imagined_steps=(WAN22_STEPS, WAN22_STEPS)
)
"""As X-WAM's fine-tuning from Wan2.2, with independent noise levels."""

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (NANO, WAN22)}
