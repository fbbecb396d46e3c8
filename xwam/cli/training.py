"""The verbs `train` and `train-decoder`.

In: a data set, settings. Out: a run folder; or a checkpoint with a pixel decoder.
Read next: `xwam/training/launch.py`, which prepares a training; `xwam/training/recipes.py` for the settings.
"""

from __future__ import annotations

import inspect
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalkit.contracts.limits import check_range
from xwam.cli.console import counted, say

if TYPE_CHECKING:
    from xwam.training.recipes import Recipe

Threads = Annotated[
    int | None,
    typer.Option(metavar="N", help="CPU threads. [default: all cores]", show_default=False, min=1, max=1024),
]
MAX_MINUTES = 525_600
"""A year."""

MAX_WEIGHT = 1000


def _list_recipes(context: typer.Context, wanted: bool) -> None:
    """Print all recipes, the meaning of their settings, and the settings of the recipe named before; then stop."""
    if not wanted:
        return
    from xwam.training.recipes import Recipe, all_recipes, recipe_of

    for each in all_recipes().values():
        print(f"{each.name:<26}{each.num_steps:>6} steps of {each.batch_size} clips at {each.learning_rate:g}")
    name = context.params.get("recipe") or "nano"
    meanings = (inspect.getdoc(Recipe) or "").partition("Attributes:\n")[2]
    print(f"\nMeaning of the settings:\n{meanings}\n\nSettings of {name}:")
    for key, value in recipe_of(name).to_json().items():
        print(f"    {key}={json.dumps(value)}")
    raise typer.Exit


def train(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="Folder of the data set, with metadata.json and statistics.json.")
    ],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Run folder; the same command again continues from the last save.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE",
            help="Hydra overrides of the recipe, for example `num_steps=200`. `--recipes` lists the keys.",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Recipe to follow; --recipes lists all. [default: that of the model, by family and size]",
            is_eager=True,
            show_default=False,
        ),
    ] = None,
    recipes: Annotated[
        bool,
        typer.Option(
            "--recipes",
            help="List the recipes and the settings of --recipe, then stop.",
            is_eager=True,
            callback=_list_recipes,
        ),
    ] = False,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="Checkpoint to start from. [default: random weights of --model]",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="FAMILY/NAME",
            help="Model to start with random weights, for example uwm/nano. [default: xwam/nano]",
            show_default=False,
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="umT5's tokenizer if the checkpoint holds none: the Wan2.2 folder, its own folder, or a hub id.",
            show_default=False,
        ),
    ] = None,
    threads: Threads = None,
    minutes: Annotated[
        float | None,
        typer.Option(metavar="N", help="Save the state and stop after N minutes; 0: after one step."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Take four steps, save nothing, print time and memory.")
    ] = False,
) -> None:
    """Train a network on a data set.

    Write a run folder: `checkpoint.safetensors`, `state.safetensors` to continue from, `log.jsonl`, curves and images.
    Ctrl-C saves the state and stops.

    Examples:

    - `xwam train data/lift runs/lift --recipe nano num_steps=200 learning_rate=1e-4`
    - `xwam train data/lift runs/lift --minutes 10`
    - `xwam train data/lift runs/uwm --model uwm/nano`
    - `xwam train --recipes`
    """
    from xwam.training.launch import train_model

    chosen = _chosen(recipe, overrides or [], model=model, start=start)
    if minutes is not None:
        check_range("--minutes", minutes, 0, MAX_MINUTES)
    _set_threads(threads)
    status = train_model(
        data,
        out,
        chosen,
        model=model,
        start=start,
        tokenizer=tokenizer,
        minutes=minutes,
        dry_run=dry_run,
        command=_command(),
        bar=counted,
    )
    if status:
        raise typer.Exit(status)


def _chosen(name: str | None, overrides: list[str], *, model: str | None, start: str | None) -> Recipe:
    """Return the recipe of a training; print which it is."""
    from xwam.training.launch import default_recipe
    from xwam.training.recipes import recipe_of

    recipe = recipe_of(name or default_recipe(model, start), overrides)
    why = "" if name else f" (default of {start or model or 'xwam/nano'})"
    say(
        f"recipe {recipe.name}{why}: {recipe.num_steps} steps of {recipe.batch_size} clips, "
        f"learning rate {recipe.learning_rate:g}"
    )
    return recipe


def train_decoder(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA", help="Folder of the data set, with metadata.json; episodes must record camera poses."
        ),
    ],
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT",
            help="Trained network; if it has a pixel decoder, that decoder is trained further.",
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="safetensors file to write: network and pixel decoder.")],
    episodes: Annotated[
        int, typer.Option(metavar="N", help="Episodes to train on; they are held in memory.", min=1)
    ] = 200,
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="Optimizer steps. [default: 6000]", show_default=False, min=1)
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="RATE", help="Peak learning rate. [default: 0.001]", show_default=False)
    ] = None,
    perceptual: Annotated[
        float, typer.Option(metavar="WEIGHT", help="Weight of LPIPS (SqueezeNet) in the loss.")
    ] = 0.0,
    threads: Threads = None,
) -> None:
    """Train the pixel decoder, which turns what a trained network predicts into images.

    A decoder training that is killed starts from the beginning.

    Example: `xwam train-decoder data/lift runs/lift/checkpoint.safetensors lift.safetensors --threads 2`
    """
    from xwam.training.decoder import DecoderRecipe
    from xwam.training.launch import train_pixel_decoder

    check_range("--perceptual", perceptual, 0, MAX_WEIGHT)
    if learning_rate is not None:
        check_range("--learning-rate", learning_rate, 0, MAX_WEIGHT)
    _set_threads(threads)
    recipe = DecoderRecipe(perceptual_weight=perceptual)
    if steps is not None:
        recipe = replace(recipe, num_steps=steps)
    if learning_rate is not None:
        recipe = replace(recipe, learning_rate=learning_rate)
    train_pixel_decoder(data, checkpoint, out, recipe, num_episodes=episodes, command=_command(), bar=counted)


def _command() -> str:
    """Return what the user typed."""
    return shlex.join(["xwam", *sys.argv[1:]])


def _set_threads(threads: int | None) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)
