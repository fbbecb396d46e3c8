"""The command `python -m baselines.replay`; run again, it does what is missing.

In: arguments. Out: a data set, and lines on the screen; mistakes as one sentence.
Read next: `jobs.py`, which does the work.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from baselines.arguments import configured, count
from evalkit.contracts.errors import EvalkitError
from evalkit.contracts.plugins import load_bench
from evalkit.replay.jobs import jobs, replay
from evalkit.replay.render import EE_TOLERANCE_M


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status: 1 if a demonstration could not be reproduced."""
    parser = argparse.ArgumentParser(
        prog="python -m baselines.replay",
        description="Render recorded demonstrations again, by state, with metric depth, into a data set.",
        epilog="Examples: python -m baselines.replay data/robocasa OpenDrawer/demo.hdf5 --bench robocasa --workers 8 · "
        "python -m baselines.replay data/lift lift/ph/low_dim.hdf5 --bench robosuite --task Lift",
    )
    parser.add_argument("root", type=Path, help="folder of the data set; the same command again does what is missing")
    parser.add_argument("files", nargs="+", type=Path, help="robomimic HDF5 files, of one bench")
    parser.add_argument("--bench", required=True, help="where the demonstrations are from")
    parser.add_argument("--task", help="task of the files; theirs if not given")
    parser.add_argument("--first", type=int, default=0, help="added to the numbers of demonstrations")
    parser.add_argument(
        "--workers", type=count, default=1, metavar="N", help="simulators side by side (default: %(default)s)"
    )
    parser.add_argument(
        "--hand-tolerance-mm",
        type=float,
        default=1000 * EE_TOLERANCE_M,
        metavar="MM",
        help="how far the hand may be from where the demonstration had it (default: %(default)s)",
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of the bench, e.g. art=real"
    )
    options = parser.parse_args(arguments)
    try:
        bench = configured(options.bench, load_bench(options.bench).config_type, options.set)
        tolerance_m = options.hand_tolerance_mm / 1000
        todo = jobs(
            options.root,
            options.files,
            bench,
            task=options.task,
            first_number=options.first,
            ee_tolerance_m=tolerance_m,
        )
        replayed = replay(options.root, todo, workers=options.workers)
    except EvalkitError as error:
        print(f"replay: {error}", file=sys.stderr)
        return 2
    for reason in replayed.reasons:
        print(f"not kept: {reason}")
    print(
        f"{options.root}: {replayed.written} of {len(todo)} replayed now; {len(replayed.lengths)} episodes, "
        f"{sum(replayed.lengths.values())} frames in all, {replayed.num_unreproduced} demonstrations cannot be "
        f"reproduced"
    )
    return 1 if replayed.reasons else 0


if __name__ == "__main__":
    raise SystemExit(main())
