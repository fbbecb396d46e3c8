"""The verb `train` of the command `xwam`.

In: parsed arguments. Out: a run folder; mistakes as one sentence.
Read next: `recipes.py` for what `--recipe` takes, `trainer.py`, which does the work.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any


def add_verbs(verbs: Any) -> None:
    """Add `train` to an argument parser's verbs; it sets `run`, which returns the exit status."""
    train = verbs.add_parser("train", help="train on a data set; the same command again goes on where it stopped")
    train.add_argument("data", type=Path, help="folder with metadata.json and statistics.json")
    train.add_argument("out", type=Path, help="run folder")
    train.add_argument("--recipe", default="nano", help="name of a recipe")
    train.add_argument("--start", help="checkpoint to start from; fresh nano weights if not given")
    train.add_argument("--threads", type=int, help="CPU threads")
    train.add_argument("--minutes", type=float, help="stop, with the state saved, after this long")
    train.add_argument("--dry-run", action="store_true", help="take three steps, save nothing, print time and memory")
    train.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="changes to the recipe")
    train.set_defaults(run=train_model)


def train_model(options: argparse.Namespace) -> int:
    """Train until the recipe is done or the time is up; return 0."""
    import torch

    from xwam import checkpoints
    from xwam.config import NANO, ModelConfig
    from xwam.data.layout import read_track, scan
    from xwam.training.recipes import recipe_of
    from xwam.training.start import to_be_trained
    from xwam.training.trainer import Trainer, prepare_data

    until_s = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    if options.threads:
        torch.set_num_threads(options.threads)
    recipe = recipe_of(options.recipe, options.set)
    found = scan(options.data)
    for broken in found.broken:
        print(f"left out: {broken.reason}")
    if not found.lengths:
        raise ValueError(f"{options.data} holds no usable episode.")
    started = to_be_trained(checkpoints.load(options.start), found, options.data, recipe) if options.start else None
    model: ModelConfig = NANO if started is None else started.model
    if started is None:
        raw = read_track(options.data, next(iter(found.lengths))).raw
        model = replace(model, bounds=_bounds(options.data, model, raw=raw, least_action=recipe.least_action))
    if recipe.blind and not model.blind:
        model = replace(model, name=f"{model.name}-blind", blind=True)
    if recipe.depth is not None and recipe.depth != model.network.depth:
        if started is not None:
            raise ValueError(
                f"{options.start} was built for depth '{model.network.depth}', the recipe says '{recipe.depth}'."
            )
        model = replace(model, network=replace(model.network, depth=recipe.depth))
    bundle = checkpoints.fresh_bundle(model, seed=recipe.seed) if started is None else started._replace(model=model)
    data = prepare_data(options.data, found, bundle, recipe)
    print(data.description)
    trainer = Trainer(options.out, bundle, data, recipe, command=shlex.join(["xwam", *sys.argv[1:]]))
    if options.dry_run:
        print(trainer.try_out())
    else:
        trainer.run(until_s=until_s)
    return 0


def _bounds(root: Path, model: Any, *, raw: bool, least_action: float) -> Any:
    """Return the bounds of a data set for a fresh model."""
    from xwam.actions import training_bounds

    path = root / "statistics.json"
    if not path.is_file():
        raise ValueError(f"There is no {path}; run `xwam statistics {root}` first.")
    return training_bounds(json.loads(path.read_text()), model.arms, raw=raw, least_action=least_action)
