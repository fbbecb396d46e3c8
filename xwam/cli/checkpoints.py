"""The verbs `show`, `convert`, `average` and `speed`: checkpoints, and how fast the network is.

In: checkpoints. Out: checkpoints in another layout, or lines on the screen.
Read next: `xwam/checkpoints/convert.py`, `xwam/serving/speed.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from xwam.cli.console import say, working

if TYPE_CHECKING:
    from xwam.checkpoints.bundle import Bundle

SOURCE_HELP = "A file, a folder, or a Hugging Face id such as sharinka0715/X-WAM-checkpoints/robocasa_sft."

Source = Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCE_HELP)]
First = Annotated[str, typer.Argument(metavar="FIRST", help=SOURCE_HELP)]
Second = Annotated[str, typer.Argument(metavar="SECOND", help=SOURCE_HELP)]
Target = Annotated[Path, typer.Argument(metavar="TARGET", help="Folder to write; it must not exist.")]


def show(source: Source) -> None:
    """Show what a checkpoint is: bench, sizes, training notes, number of parameters.

    Examples:

    - `xwam show last.safetensors`
    - `xwam show sharinka0715/X-WAM-checkpoints/robocasa_sft`
    """
    from xwam.checkpoints.bundle import parameter_counts
    from xwam.checkpoints.hub import locate
    from xwam.checkpoints.metadata import read_model, read_notes

    path = locate(source, header_only=True)
    model, counts = read_model(path), parameter_counts(path)
    say(f"{model.name}: bench {model.bench}, arms {', '.join(model.arms)}, depth {model.network.depth}")
    height, width = model.image_hw_px
    say(f"{model.num_actions} actions, {model.num_future_frames} frames of {height}x{width} pixels")
    for name, note in read_notes(path).items():
        if name != "recipe":
            say(f"{name}: {note}")
    total = None if counts is None else f"{sum(counts.values()):,} parameters: {dict(counts)}"
    say(total or "parameters: unknown until loaded")


def convert(
    source: Source,
    target: Target,
    to: Annotated[
        Literal["ours", "released", "wan", "diffusers"],
        typer.Option(help="Layout to write: ours, the released X-WAM's, Wan's, or diffusers'."),
    ] = "ours",
    num_heads: Annotated[
        int | None, typer.Option(metavar="N", help="Attention heads, if their width is not Wan's 128.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="TYPE", help="Type of the weight matrices: float32, bfloat16 or float16.")
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="umT5's tokenizer, to be written too; the Wan2.2 folder, or its own."),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="BENCH",
            help="The source is Wan2.2 alone, or official weights of --model; make a model to fine-tune for BENCH.",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="FAMILY/NAME",
            help="With --start: the model to make, for example dreamzero/5b-flash; FAMILY alone means its 5b.",
        ),
    ] = "xwam",
    statistics: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --start: statistics.json of the bench's data.")
    ] = None,
) -> None:
    """Write a checkpoint in another layout.

    Examples:

    - `xwam convert experiment/ ours/`
    - `xwam convert ours/ wan/ --to wan --precision bfloat16`
    - `xwam convert Wan2.2-TI2V-5B/ fresh/ --start robocasa --statistics data/robocasa/statistics.json`
    - `xwam convert official/ fresh/ --model dreamzero --start robocasa --statistics data/robocasa/statistics.json`
    - `xwam convert Wan2.2-TI2V-5B/ fresh/ --model dreamzero/5b-flash --start robocasa --statistics statistics.json`
    """
    from xwam.checkpoints import convert as writers
    from xwam.checkpoints.bundle import dtype_of, load_bundle
    from xwam.checkpoints.hub import locate
    from xwam.checkpoints.metadata import CheckpointError, read_notes
    from xwam.checkpoints.start import start_bundle

    if target.exists():
        raise CheckpointError(f"{target} exists already; give a folder that does not.")
    dtype = None if precision is None else dtype_of(precision)
    if start is not None and statistics is None:
        raise CheckpointError("--start needs --statistics: the quantiles of the data it will be trained on.")
    if start is None and model != "xwam":
        raise CheckpointError("--model is for --start; a checkpoint states its own.")
    notes: dict[str, str] = {}
    left_out: list[str] = []
    with working(f"Reading {source} ..."):
        if start is None or statistics is None:
            bundle = load_bundle(source, num_heads=num_heads, tokenizer=tokenizer)
            notes = read_notes(locate(source))
        else:
            bundle, left_out = start_bundle(
                Path(source), model=model, bench=start, statistics=_read_json(statistics), tokenizer=tokenizer
            )
        if dtype is not None:
            bundle.network.cast(dtype)
    if tokenizer is not None:
        _check_tokenizer_is_read(bundle, Path(source) if start else locate(source))
    with working(f"Writing {target} ..."):
        writers.write(bundle, target, to, notes=notes)
    for part in left_out:
        say(part)
    if bundle.decoder is not None and to != "ours":
        say(f"The pixel decoder is left out: the layout '{to}' has no place for it.")
    say(f"{target}: {bundle.model.name} in the layout '{to}'")


def average(
    first: First,
    second: Second,
    target: Target,
    share: Annotated[float, typer.Option(metavar="FRACTION", help="Weight of the second network, 0 to 1.")] = 0.5,
    second_only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PREFIX",
            help="Take weights named PREFIX... (such as `proprio_decoder.`) from SECOND only; repeatable.",
        ),
    ] = None,
) -> None:
    """Write the weighted average of two networks, for example before and after a fine-tuning.

    Example: `xwam average nano runs/tuned/checkpoint.safetensors between/ --share 0.5 --second-only proprio_decoder.`
    """
    from xwam.checkpoints import convert as writers
    from xwam.checkpoints.bundle import load_bundle
    from xwam.checkpoints.hub import locate
    from xwam.checkpoints.metadata import network_notes, read_notes

    with working(f"Reading {first} and {second} ..."):
        loaded = [load_bundle(source) for source in (first, second)]
        between = writers.averaged(*loaded, share=share, second_only=second_only or ())
    notes = network_notes(read_notes(locate(second)))
    notes["averaged"] = f"{share} of {second} and {1 - share:g} of {first}"
    writers.write(between, target, "ours", notes=notes)
    say(f"{target}: {between.model.name}, {share} of {second} and {1 - share:g} of {first}")


def speed(
    size: Annotated[Literal["5b", "nano"], typer.Option(help="Size of the network.")] = "5b",
    steps: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="Action denoising steps; may be repeated. [default: 5, 8, 10]"),
    ] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="Requests per forward pass; may be repeated. [default: 1, 4, 16]", min=1),
    ] = None,
    rounds: Annotated[int, typer.Option(metavar="N", min=1, help="Repetitions; the fastest counts.")] = 3,
    device: Annotated[Literal["cuda", "cpu"], typer.Option(help="Device.")] = "cuda",
    compiled: Annotated[bool, typer.Option("--compile/--no-compile", help="Also time the compiled network.")] = True,
) -> None:
    """Measure the time per chunk of the network with random weights.

    Print milliseconds per chunk until the actions are fully denoised, the same for a reference implementation on this
    device, their ratio (below 1: faster than the reference), and the share of the measured peak of matrix products.

    Examples:

    - `xwam speed`
    - `xwam speed --size nano --device cpu --steps 5 --batch 1 --no-compile`
    """
    from xwam.serving.speed import measure

    with working("Measuring ..."):
        table = measure(
            size=size,
            device=device,
            steps=steps or (5, 8, 10),
            batches=batch or (1, 4, 16),
            rounds=rounds,
            compiled=compiled,
        )
    Console().print(table)


def _check_tokenizer_is_read(bundle: Bundle, source: Path) -> None:
    """Say if a given tokenizer is not read because the source holds one.

    Raises:
        CheckpointError: If the model has no umT5.
    """
    from xwam.checkpoints.metadata import CheckpointError
    from xwam.checkpoints.tokenizer import find_tokenizer

    if bundle.model.text.kind != "umt5":
        raise CheckpointError(f"{bundle.model.name} does not read its prompts with umT5; leave --tokenizer out.")
    if (own := find_tokenizer(source)) is not None:
        say(f"--tokenizer is not read: the source holds its own in {own}.")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"Cannot read {path}: {error}.") from error
