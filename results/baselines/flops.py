"""What one training step of a nano model costs: floating point operations of forward and backward pass.

In: demonstrations, the name of a model. Out: a JSON object on standard output.
Read next: `table.py`, which gives every design as many operations.

The counter of torch knows no attention with a dense mask on a CPU: it counts none of DreamZero's. Attention is
therefore computed by its two matrix products, which are counted. Blocks are not compiled, and the optimizer is left
out.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from evalkit.dataset.layout import Scan
from xwam.checkpoints.fresh import fresh_bundle
from xwam.families import family_of, model_named
from xwam.training.batches import Encoder, read
from xwam.training.launch import default_recipe
from xwam.training.recipes import recipe_of
from xwam.training.scan import no_bar, scan_data
from xwam.training.trainer import prepare_data

PLAIN = ("encode_once=false", "compile=false", "checkpointing=false", "validate_every=0")
EPISODES = 8
"""Episodes that are read; the cost depends on shapes alone."""


def main(
    demos: Annotated[Path, typer.Argument(help="Data set.")],
    model: Annotated[str, typer.Argument(help="FAMILY/NAME of the model.")],
    changes: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Changes to the recipe.")] = None,
) -> None:
    """Print parameters, clips and operations of a training step.

    Example: `python results/baselines/flops.py demos uwm/nano`
    """
    torch.set_num_threads(1)
    print(json.dumps(cost_of(demos, model, changes or [])))


def cost_of(demos: Path, model: str, changes: list[str]) -> dict[str, float]:
    """Return the parameters of a model, and clips and operations of a step of its recipe."""
    recipe = recipe_of(default_recipe(model, None), [*changes, *PLAIN])
    bundle = fresh_bundle(model_named(model), seed=recipe.seed)
    data = prepare_data(demos, _few(scan_data(demos, no_bar, prefix="")), bundle, recipe)
    encoder = Encoder(bundle, recipe, torch.device("cpu"))
    group = next(iter(read(data.training, recipe, first_step=0, num_steps=1, rank=0, world=1)))
    batch = encoder.batch(group.samples)
    draws = encoder.draws(batch, group.samples, group.slots)
    objective = family_of(bundle.model.family).objective(bundle.network, recipe)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        objective(batch, draws)["total"].backward()
    return {
        "parameters": sum(weight.numel() for weight in bundle.network.parameters()),
        "clips": len(group.samples),
        "flops": counter.get_total_flops(),
    }


def _few(scanned: Scan) -> Scan:
    return scanned._replace(lengths=dict(list(scanned.lengths.items())[:EPISODES]))


if __name__ == "__main__":
    typer.run(main)
