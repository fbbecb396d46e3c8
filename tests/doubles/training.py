"""A model and a recipe so small that a training step takes milliseconds.

In: a data set of `recordings.py`. Out: a trainer that is ready to run, and what it left.
Read next: `tests/unit/test_xwam_training.py`.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from evalkit.dataset.layout import scan, tracks
from evalkit.dataset.statistics import statistics
from xwam.checkpoints.bundle import load_checkpoint
from xwam.checkpoints.fresh import fresh_bundle
from xwam.config import NANO, ModelConfig
from xwam.robots.actions import training_bounds
from xwam.training.batches import slots
from xwam.training.recipes import RECIPES, Recipe

pytest.importorskip("accelerate", reason="training needs Accelerate: pip install 'evalkit[train]'")
from xwam.training.trainer import CHECKPOINT, Trainer, prepare_data

TINY = replace(
    NANO,
    image_hw_px=(32, 32),
    views=("static", "wrist"),
    network=replace(
        NANO.network,
        width=16,
        ffn_width=32,
        num_heads=2,
        num_blocks=3,
        num_depth_blocks=1,
        patch_hw=(2, 2),
        place_grid=(1, 1),
    ),
)


RECIPE = replace(
    RECIPES["nano"],
    num_steps=7,
    warmup_steps=2,
    batch_size=4,
    micro_batch=2,
    save_every=3,
    validate_every=3,
    validation_clips=2,
    validation_share=0.3,
    imagined_clips=2,
    imagined_steps=(2, 1),
)


def model_of(root: Path) -> ModelConfig:
    return replace(TINY, bounds=training_bounds(statistics(lambda: tracks(root)), ("left",), raw=True))


def trainer_of(
    root: Path, folder: Path, recipe: Recipe = RECIPE, say: Callable[[str], None] = lambda line: None
) -> Trainer:
    model = model_of(root)
    bundle = fresh_bundle(model, seed=recipe.seed)
    return Trainer(folder, bundle, prepare_data(root, scan(root), bundle, recipe), recipe, say=say)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    network, _ = load_checkpoint(folder / CHECKPOINT)
    return network.state_dict()


def first_batch(trainer: Trainer) -> Any:
    places = slots(RECIPE, len(trainer.data.training), 0)
    samples = [trainer.data.training[ticket.clip_idx] for ticket in places]
    batch = trainer.encoder.batch(samples)
    return batch, trainer.encoder.draws(batch, samples, places)


SMALL_RECIPE = ["num_steps=3", "warmup_steps=1", "batch_size=2", "micro_batch=2", "validate_every=0"]
"""Overrides of a recipe for a training of two clips a step."""


def small(root: Path, folder: Path, *arguments: str) -> list[str]:
    """Return the arguments of a training of two clips a step."""
    return ["train", str(root), str(folder), *arguments, *SMALL_RECIPE]
