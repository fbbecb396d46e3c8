"""The verb `infer-actions`: inverse dynamics of a trained model, scored against recorded actions.

In: a data set, a checkpoint. Out: a table on the screen, and a JSON file.
Read next: `xwam/training/inverse_dynamics.py`, which does the work.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evalkit.contracts.files import write_whole
from xwam.cli.console import counted, say

if TYPE_CHECKING:
    from xwam.config import ModelConfig
    from xwam.training.recipes import Recipe


def infer_actions(
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="Folder of the data set; best one that was not trained.")
    ],
    checkpoint: Annotated[str, typer.Argument(metavar="CHECKPOINT", help="Trained model, for example of uwm.")],
    clips: Annotated[int, typer.Option(metavar="N", help="Clips, evenly from all episodes.", min=2)] = 64,
    steps: Annotated[
        int | None,
        typer.Option(metavar="N", help="Denoising steps. [default: the model's own]", show_default=False, min=1),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the noise.", min=0)] = 0,
    device: Annotated[str, typer.Option(metavar="NAME", help="Device, for example cuda.")] = "cpu",
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="umT5's tokenizer if the checkpoint holds none.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON file to write the errors to.", show_default=False)
    ] = None,
) -> None:
    """Infer the actions between recorded frames, and compare them with the recorded ones (inverse dynamics).

    The model sees all frames and states of a clip. Print the error next to that of the mean action: `unexplained` is
    the ratio of both mean squares, 0 for the recorded actions and 1 for the mean action.

    Examples:

    - `xwam infer-actions data/lift-unseen out/uwm/checkpoint.safetensors`
    - `xwam infer-actions data/lift-unseen out/uwm/checkpoint.safetensors --clips 200 --steps 10 --out errors.json`
    """
    from xwam.checkpoints.bundle import dtype_of, load_bundle
    from xwam.checkpoints.hub import locate
    from xwam.checkpoints.metadata import read_notes
    from xwam.training.inverse_dynamics import check_infers, clips_of, errors_of, infer, rows, to_json
    from xwam.training.scan import scan_data
    from xwam.training.trainer import data_sha256

    bundle, notes = load_bundle(checkpoint, tokenizer=tokenizer), read_notes(locate(checkpoint))
    check_infers(bundle)
    scanned, recipe = scan_data(data, counted, prefix="left out: "), _recipe(bundle.model, notes)
    chosen = clips_of(data, scanned, bundle, recipe)
    if notes.get("data_sha256") == data_sha256(data, scanned.lengths):
        say("warning: the model was trained on these episodes.")
    bundle = bundle.to(device, dtype_of("float32"))
    with counted("infer actions") as on_progress:
        found = infer(chosen, bundle, recipe, num_clips=clips, num_steps=steps, seed=seed, on_progress=on_progress)
    errors = errors_of(found)
    say(f"{bundle.model.name}: {len(found.episodes)} clips of {errors['all'].num_episodes} episodes in {data}")
    for row in rows(errors):
        say(row)
    if out is not None:
        about = {"checkpoint": checkpoint, "data": str(data), "clips": len(found.episodes), "seed": seed}
        write_whole(out, to_json(errors, **about, steps=steps or bundle.model.num_action_steps))


def _recipe(model: ModelConfig, notes: dict[str, str]) -> Recipe:
    """Return the recipe of a checkpoint, for its crop and depth; the default one if none is noted."""
    from dataclasses import replace

    from xwam.families import family_of
    from xwam.training.recipes import Recipe, recipe_of

    if "recipe" in notes:
        recipe = Recipe.from_json(json.loads(notes["recipe"]))
    else:
        recipe = recipe_of(family_of(model.family).default_recipe(model))
    return replace(recipe, noise_draws=1)
