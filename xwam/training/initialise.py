"""The model that a training starts from, told what its data say: bounds, way with depth, map of the depth videos.

In: a checkpoint or none, what a scan of the data found, a recipe. Out: a model to be trained, in float32.
Read next: `commands.py`, which asks for it; `check_data.py`, which compares data and model afterwards.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from evalkit.dataset.depth_video import DepthRange
from evalkit.dataset.layout import Scan
from xwam.checkpoints.bundle import Bundle, without_decoder
from xwam.config import ModelConfig
from xwam.training.recipes import Recipe


def prepare_for_training(bundle: Bundle, found: Scan, root: Path, recipe: Recipe) -> Bundle:
    """Return a loaded checkpoint as training needs it.

    Weights become float32, whatever type they were stored in: steps of a fine-tuning are smaller than bfloat16 can add.
    `precision` of the recipe says what matrices are multiplied in. A decoder is left behind: it was trained for the
    weights as they are.

    Args:
        bundle: What was loaded, changed in place.
        found: The data.
        root: Their folder, for the message.
        recipe: How it will be trained.

    Raises:
        ValueError: If the data's depth videos were made with several maps.
    """
    bundle.network.cast(torch.float32)
    bundle = without_decoder(bundle)
    return bundle._replace(model=with_data_depth(bundle.model, found, root, exact=recipe.exact_depth))


def with_data_depth(model: ModelConfig, found: Scan, root: Path, *, exact: bool) -> ModelConfig:
    """Return a model that says truly whether metres can be read off its depth.

    A map that the data state is taken over by a model that had none; one that has another is left as it is, and the
    first clip is refused. Where nobody wrote the map down, as in the released data, the model's metres are a guess.

    Args:
        model: As it was loaded.
        found: The data.
        root: Their folder, for the message.
        exact: Whether depth comes from millimetres: then the model's own map is what it is trained with.

    Raises:
        ValueError: If the data's depth videos were made with several maps.
    """
    maps: frozenset[DepthRange | None] = frozenset().union(
        *(signature.depth_ranges for signature in found.signatures.values())
    )
    if len(maps) > 1:
        held = "; ".join(sorted("nobody wrote it down" if one is None else str(one) for one in maps))
        raise ValueError(f"{root}: all depth videos must be made with one map from metres, there are {held}.")
    if exact or not maps:
        return replace(model, depth_known=model.depth_known or exact)
    (stated,) = maps
    if stated is None:
        return replace(model, depth_known=False)
    return model if model.depth_known else replace(model, depth_range=stated, depth_known=True)
