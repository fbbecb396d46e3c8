"""Prepares the model that a training starts from: float32 weights, and the depth map of the data.

In: a loaded checkpoint, the scan of a data set, a recipe. Out: a model to train.
Read next: `launch.py`, which calls it; `check_data.py`, which compares data and model afterwards.
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


def prepare_for_training(bundle: Bundle, scan: Scan, root: Path, recipe: Recipe) -> Bundle:
    """Return a loaded checkpoint in the form that training needs.

    Weights become float32, because bfloat16 loses the small steps of a fine-tuning. The recipe's `precision` sets the
    type of matrix products. A pixel decoder is removed, because it fits the loaded weights only.

    Args:
        bundle: The loaded checkpoint, changed in place.
        scan: The data.
        root: Folder of the data, for the message.
        recipe: The training recipe.

    Raises:
        ValueError: If the data's depth videos use different maps.
    """
    bundle.network.cast(torch.float32)
    bundle = without_decoder(bundle)
    return bundle._replace(model=with_data_depth(bundle.model, scan, root, exact=recipe.exact_depth))


def with_data_depth(model: ModelConfig, scan: Scan, root: Path, *, exact: bool) -> ModelConfig:
    """Return the model with the depth map of the data, and whether that map is known.

    A model with an unknown map takes the map of the data. A model with another map stays as it is, and the first clip
    raises an error. If the data state no map, as the released data do, the model's metres are an estimate.

    Args:
        model: The loaded model.
        scan: The data.
        root: Folder of the data, for the message.
        exact: Whether depth comes from millimetres; training then uses the model's own map.

    Raises:
        ValueError: If the data's depth videos use different maps.
    """
    maps: frozenset[DepthRange | None] = frozenset().union(
        *(signature.depth_ranges for signature in scan.signatures.values())
    )
    if len(maps) > 1:
        listed = "; ".join(sorted("an unknown one" if one is None else str(one) for one in maps))
        raise ValueError(f"{root}: all depth videos must use the same map from metres, there are {listed}.")
    if exact or not maps:
        return replace(model, depth_known=model.depth_known or exact)
    (stated,) = maps
    if stated is None:
        return replace(model, depth_known=False)
    return model if model.depth_known else replace(model, depth_range=stated, depth_known=True)
