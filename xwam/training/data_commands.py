"""The verbs of the command `xwam` that look at data sets.

In: parsed arguments. Out: files, or lines on the screen.
Read next: `layout.py`, `statistics.py`, `lerobot_export.py` and `lerobot_import.py`, which do the work.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from evalkit.contracts.files import write_whole


def add_verbs(verbs: Any) -> None:
    """Add the verbs of data sets to an argument parser; each sets `run`, which returns the status."""
    check = verbs.add_parser("check-data", help="look through a data set; name every episode that is broken")
    check.add_argument("root", type=Path, help="folder with metadata.json")
    check.add_argument(
        "--decode", action="store_true", help="decode every frame too, which takes far longer; else they are counted"
    )
    check.set_defaults(run=check_data)
    statistics = verbs.add_parser("statistics", help="take the quantiles that normalise a data set")
    statistics.add_argument("root", type=Path, help="folder with metadata.json")
    statistics.add_argument("--out", type=Path, help="file to write; DIR/statistics.json if not given")
    statistics.set_defaults(run=take_statistics)
    export = verbs.add_parser("export-lerobot", help="write a data set in LeRobot's format (v3.0), without loss")
    export.add_argument("root", type=Path, help="folder with metadata.json")
    export.add_argument("out", type=Path, help="folder to write; the same command again goes on where it stopped")
    export.set_defaults(run=export_lerobot)
    adopt = verbs.add_parser("import-lerobot", help="write a data set of LeRobot's (v2.0, v2.1, v3.0) in our layout")
    adopt.add_argument("source", type=Path, help="folder with meta/info.json")
    adopt.add_argument("out", type=Path, help="folder to write; the same command again goes on where it stopped")
    adopt.add_argument("--map", type=Path, help="JSON that says which feature is what; exports of ours bring their own")
    adopt.set_defaults(run=import_lerobot)


def check_data(options: argparse.Namespace) -> int:
    """Print each broken episode and the counts; return 1 if any is broken."""
    from rich.progress import Progress

    from evalkit.dataset.layout import read_metadata, scan

    with Progress(disable=not options.decode) as progress:
        bar = progress.add_task("episodes", total=len(read_metadata(options.root)))
        found = scan(options.root, decoded=options.decode, on_episode=lambda: progress.advance(bar))
    for broken in found.broken:
        print(broken.reason)
    print(f"{options.root}: {found.describe()}" + ("" if options.decode else "; frames counted, not decoded"))
    return 1 if found.broken else 0


def take_statistics(options: argparse.Namespace) -> int:
    """Write the statistics of a data set; episodes whose states or actions cannot be read are named and left out.

    Videos hold none of these numbers and are not looked at: that would take far longer.
    """
    from evalkit.dataset.layout import scan, tracks
    from evalkit.dataset.statistics import about, statistics

    found = scan(options.root, videos=False)
    for broken in found.broken:
        print(broken.reason)
    numbers = statistics(lambda: tracks(options.root))
    notes = about(len(found.lengths), sum(found.lengths.values()), len(found.broken))
    path = options.out or options.root / "statistics.json"
    write_whole(path, json.dumps({**numbers, "about": notes}, indent=1) + "\n")
    print(f"{path}: {found.describe()}; videos not looked at")
    return 0


def export_lerobot(options: argparse.Namespace) -> int:
    """Write a data set in LeRobot's format; episodes that cannot be read are named and left out."""
    from rich.progress import Progress

    from evalkit.dataset.layout import scan
    from evalkit.dataset.lerobot_export import export

    found = scan(options.root)
    for broken in found.broken:
        print(broken.reason)
    with Progress() as progress:
        bar = progress.add_task("episodes", total=len(found.lengths))
        written = export(options.root, found, options.out, on_episode=lambda: progress.advance(bar))
    for reason in written.broken:
        print(reason)
    left_out = len(found.broken) + len(written.broken)
    print(f"{options.out}: {written.num_episodes} episodes, {written.num_frames} frames; {left_out} left out")
    return 0


def import_lerobot(options: argparse.Namespace) -> int:
    """Write a data set of LeRobot's in our layout; return 1 if an episode is broken."""
    from rich.progress import Progress

    from evalkit.dataset.lerobot_import import import_episodes, open_lerobot

    opened = open_lerobot(options.source, options.map)
    with Progress() as progress:
        bar = progress.add_task("episodes", total=len(opened.episodes))
        count, broken = import_episodes(opened, options.out, on_episode=lambda: progress.advance(bar))
    for one in broken:
        print(one.reason)
    print(f"{options.out}: {count} episodes; {len(broken)} broken, left out")
    return 1 if broken else 0
