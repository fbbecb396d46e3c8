"""The command `python -m baselines.replay`; run again, it does what is missing.

In: arguments. Out: a data set, and lines on the screen; mistakes as one sentence.
Read next: `jobs.py`, which does the work.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from baselines.arguments import count, settings_of
from evalkit.contracts.errors import EvalkitError
from evalkit.dataset.writer import write_metadata
from evalkit.record.pool import why_stopped
from evalkit.replay.jobs import PLAYERS, UNREPRODUCED, jobs, replay
from evalkit.replay.render import HAND_TOLERANCE_M


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
    parser.add_argument("--bench", required=True, choices=sorted(PLAYERS), help="where the demonstrations are from")
    parser.add_argument("--task", help="task of the files; theirs if not given")
    parser.add_argument("--first", type=int, default=0, help="added to the numbers of demonstrations")
    parser.add_argument(
        "--workers", type=count, default=1, metavar="N", help="simulators side by side (default: %(default)s)"
    )
    parser.add_argument(
        "--hand-tolerance-mm",
        type=float,
        default=1000 * HAND_TOLERANCE_M,
        metavar="MM",
        help="how far the hand may be from where the demonstration had it (default: %(default)s)",
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of the bench, e.g. art=real"
    )
    options = parser.parse_args(arguments)
    try:
        todo = jobs(
            options.root,
            options.files,
            options.bench,
            settings=settings_of(options.set),
            task=options.task,
            first=options.first,
            hand_tolerance_m=options.hand_tolerance_mm / 1000,
        )
        try:
            written, reasons = replay(todo, workers=options.workers)
        finally:
            lengths = write_metadata(options.root)
    except (EvalkitError, ValueError, TypeError, OSError, BrokenProcessPool) as error:
        print(f"replay: {why_stopped(error, options.root)}", file=sys.stderr)
        return 2
    for reason in reasons:
        print(f"not kept: {reason}")
    noted = sum(1 for _ in (options.root / UNREPRODUCED).rglob("*.txt"))
    print(
        f"{options.root}: {written} of {len(todo)} replayed now; {len(lengths)} episodes, {sum(lengths.values())} "
        f"frames in all, {noted} demonstrations cannot be reproduced"
    )
    return 1 if reasons else 0


if __name__ == "__main__":
    raise SystemExit(main())
