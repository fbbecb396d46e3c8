"""The command `xwam`: what a checkpoint is, how to rewrite it, and what lies in a data set.

In: arguments. Out: files, or lines on the screen; mistakes as one sentence.
Read next: `convert.py`; `data/commands.py` for the verbs on data sets.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from xwam.data.commands import add_verbs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit status."""
    parser = argparse.ArgumentParser(prog="xwam", description="Checkpoints and data sets of X-WAM.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    show = verbs.add_parser("show", help="say what a checkpoint is")
    show.add_argument("source", help="a file or folder, or an id on the hub")
    show.set_defaults(run=_show)
    convert = verbs.add_parser("convert", help="rewrite a checkpoint in another layout")
    convert.add_argument("source", help="a file or folder, or an id such as sharinka0715/X-WAM-checkpoints/robocasa")
    convert.add_argument("target", type=Path, help="a folder that does not exist yet")
    convert.add_argument("--to", choices=["ours", "released", "wan", "diffusers"], default="ours")
    convert.add_argument("--num-heads", type=int, help="attention heads, where they are not Wan's of 128 numbers")
    convert.add_argument("--precision", default=None, help="type of the matrices, for example bfloat16")
    convert.add_argument("--start", metavar="BENCH", help="the source is Wan2.2 alone; start tuning for this bench")
    convert.add_argument("--statistics", type=Path, help="quantiles of the bench's data (JSON), with --start")
    convert.set_defaults(run=_convert)
    add_verbs(verbs)
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except ValueError as error:
        print(f"xwam: {error}", file=sys.stderr)
        return 2


def _show(options: argparse.Namespace) -> int:
    from xwam.config import count_parameters
    from xwam.header import locate, read_model

    model = read_model(locate(options.source, header_only=True))
    counts = count_parameters(model.network)
    print(f"{model.name}: bench {model.bench}, arms {', '.join(model.arms)}, depth {model.network.depth}")
    height, width = model.image_hw_px
    print(f"{model.num_actions} actions, {model.num_future_frames} frames of {height}x{width} pixels")
    print(f"{sum(counts):,} parameters: {counts._asdict()}")
    return 0


def _convert(options: argparse.Namespace) -> int:
    import torch

    from xwam import checkpoints, convert
    from xwam.header import CheckpointError

    if options.target.exists():
        raise CheckpointError(f"{options.target} exists already; give a folder that does not.")
    if options.start is None:
        bundle = checkpoints.load(options.source, num_heads=options.num_heads)
    elif options.statistics is None:
        raise CheckpointError("--start needs --statistics: the quantiles of the data it will be trained on.")
    else:
        statistics = json.loads(options.statistics.read_text())
        bundle = convert.from_wan(Path(options.source), bench=options.start, statistics=statistics)
    if options.precision is not None:
        bundle.network.cast(getattr(torch, options.precision))
    options.target.mkdir(parents=True)
    convert.WRITERS[options.to](bundle, options.target)
    print(f"{options.target}: {bundle.model.name} in the layout '{options.to}'")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
