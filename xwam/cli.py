"""The command `xwam`: what a checkpoint is, how to rewrite it, what lies in a data set, and training.

In: arguments. Out: files, or lines on the screen; mistakes as one sentence and exit code 2.
Read next: `checkpoints/convert.py`; `data/commands.py` and `training/commands.py` for the verbs that are added from
there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.text import Text

from xwam.training import commands as training
from xwam.training import data_commands as data

PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False, "soft_wrap": True}
"""Names and paths may hold brackets; none of them is markup."""

EXAMPLES = {
    "check-data": "`xwam check-data data/robocasa`",
    "statistics": "`xwam statistics data/robocasa` · `xwam statistics data/robocasa --out quantiles.json`",
    "export-lerobot": "`xwam export-lerobot data/lift lerobot/lift`",
    "import-lerobot": "`xwam import-lerobot lerobot/lift data/lift` · `xwam import-lerobot their data/x --map x.json`",
    "train-decoder": "`xwam train-decoder data/lift runs/lift/checkpoint.safetensors lift.safetensors --threads 2`",
    "train": "`xwam train data/lift runs/lift --recipe nano --minutes 10` · `xwam train --recipes`",
}

app = typer.Typer(
    name="xwam",
    help="Checkpoints, data sets and training of X-WAM.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

Source = Annotated[str, typer.Argument(help="A file or folder, or an id such as sharinka0715/X-WAM-checkpoints/x.")]


@app.command()
def show(source: Source) -> None:
    """Say what a checkpoint is.

    Examples: `xwam show last.safetensors` · `xwam show sharinka0715/X-WAM-checkpoints/robocasa`
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
    say("parameters: unknown until loaded" if counts is None else f"{sum(counts):,} parameters: {counts._asdict()}")


@app.command()
def convert(
    source: Source,
    target: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    to: Annotated[Literal["ours", "released", "wan", "diffusers"], typer.Option(help="Layout to write.")] = "ours",
    num_heads: Annotated[
        int | None, typer.Option(help="Attention heads, where they are not Wan's of 128 numbers.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="Type of the matrices, for example bfloat16.")] = None,
    start: Annotated[
        str | None, typer.Option(metavar="BENCH", help="The source is Wan2.2 alone; start tuning for this bench.")
    ] = None,
    statistics: Annotated[Path | None, typer.Option(help="Quantiles of the bench's data (JSON), with --start.")] = None,
) -> None:
    """Rewrite a checkpoint in another layout.

    Examples: `xwam convert experiment/ ours/` · `xwam convert ours/ wan/ --to wan --precision bfloat16` ·
    `xwam convert Wan2.2-TI2V-5B/ fresh/ --start robocasa --statistics data/robocasa/statistics.json`
    """
    from xwam.checkpoints import convert as writers
    from xwam.checkpoints.bundle import dtype_of, load_bundle
    from xwam.checkpoints.hub import locate
    from xwam.checkpoints.metadata import CheckpointError, read_notes

    if target.exists():
        raise CheckpointError(f"{target} exists already; give a folder that does not.")
    dtype = None if precision is None else dtype_of(precision)
    notes: dict[str, str] = {}
    if start is None:
        bundle = load_bundle(source, num_heads=num_heads)
        notes = read_notes(locate(source))
    elif statistics is None:
        raise CheckpointError("--start needs --statistics: the quantiles of the data it will be trained on.")
    else:
        bundle = writers.from_wan(Path(source), bench=start, statistics=_read_json(statistics))
    if dtype is not None:
        bundle.network.cast(dtype)
    writers.write(bundle, target, to, notes=notes)
    if bundle.decoder is not None and to != "ours":
        say(f"The decoder is left behind: the layout '{to}' has no place for it.")
    say(f"{target}: {bundle.model.name} in the layout '{to}'")


@app.command()
def average(
    first: Source,
    second: Source,
    target: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    share: Annotated[float, typer.Option(help="Of the second network, 0 to 1.")] = 0.5,
    second_only: Annotated[
        list[str] | None, typer.Option(help="Weights whose names begin so are the second's alone; may be repeated.")
    ] = None,
) -> None:
    """Write a network between two, for example between those before and after a fine-tuning.

    Examples: `xwam average nano runs/tuned/checkpoint.safetensors between/ --share 0.5 --second-only proprio_decoder.`
    """
    from xwam.checkpoints import convert as writers
    from xwam.checkpoints.bundle import load_bundle
    from xwam.checkpoints.hub import locate
    from xwam.checkpoints.metadata import network_notes, read_notes

    loaded = [load_bundle(source) for source in (first, second)]
    between = writers.averaged(*loaded, share=share, second_only=second_only or ())
    notes = network_notes(read_notes(locate(second)))
    notes["averaged"] = f"{share} of {second} and {1 - share:g} of {first}"
    writers.write(between, target, "ours", notes=notes)
    say(f"{target}: {between.model.name}, {share} of {second} and {1 - share:g} of {first}")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"Cannot read {path}: {error}.") from error


def _adopt(add_verbs: Callable[[Any], None]) -> None:
    """Add verbs that read their arguments with argparse, in the form in which other modules offer them."""
    parser = argparse.ArgumentParser(prog="xwam")
    verbs = parser.add_subparsers(dest="verb", required=True)
    add_verbs(verbs)
    told = {choice.dest: choice.help or "" for choice in verbs._choices_actions}
    for name, verb in verbs.choices.items():
        verb.epilog = f"Examples: {EXAMPLES[name].replace('`', '')}" if name in EXAMPLES else None
        app.command(
            name,
            help=f"{told[name][:1].upper()}{told[name][1:]}.",
            add_help_option=False,  # the verb has its own
            context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        )(_passed_on(parser, name))


def _passed_on(parser: argparse.ArgumentParser, name: str) -> Callable[[typer.Context], None]:
    """Return a command that leaves its arguments to a verb of the parser."""

    def run(context: typer.Context) -> None:
        options = parser.parse_args([name, *context.args])
        raise typer.Exit(options.run(options))

    return run


_adopt(data.add_verbs)
_adopt(training.add_verbs)


def say(text: str) -> None:
    """Print a line."""
    Console().print(text, **PLAIN)


def call(program: typer.Typer, name: str, arguments: Sequence[str] | None) -> int:
    """Run a program; return its exit status. A user's mistake is one sentence and 2."""
    try:
        program(args=None if arguments is None else list(arguments), prog_name=name)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except (ValueError, OSError) as error:
        Console(stderr=True).print(Text.assemble((f"{name}: ", "red"), str(error)), soft_wrap=True)
        return 2
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit status."""
    return call(app, "xwam", arguments)


if __name__ == "__main__":
    raise SystemExit(main())
