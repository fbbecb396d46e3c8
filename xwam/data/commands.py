"""The verbs of the command `xwam` that look at data sets.

In: parsed arguments. Out: files, or lines on the screen.
Read next: `layout.py` and `statistics.py`, which do the work.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def add_verbs(verbs: Any) -> None:
    """Add `check-data` and `statistics` to an argument parser's verbs; each sets `run`, which returns the status."""
    check = verbs.add_parser("check-data", help="look through a data set; name what is broken")
    check.add_argument("root", type=Path, help="folder with metadata.json")
    check.set_defaults(run=check_data)
    statistics = verbs.add_parser("statistics", help="take the quantiles that normalise a data set")
    statistics.add_argument("root", type=Path, help="folder with metadata.json")
    statistics.add_argument("--out", type=Path, help="file to write; DIR/statistics.json if not given")
    statistics.set_defaults(run=take_statistics)


def check_data(options: argparse.Namespace) -> int:
    """Print each broken episode and the counts; return 1 if any is broken."""
    from xwam.data.layout import scan

    found = scan(options.root)
    for broken in found.broken:
        print(broken.reason)
    print(f"{options.root}: {found.describe()}")
    return 1 if found.broken else 0


def take_statistics(options: argparse.Namespace) -> int:
    """Write the statistics of a data set; episodes that cannot be read are named and left out."""
    from xwam.data.layout import scan, tracks
    from xwam.data.statistics import about, statistics

    found = scan(options.root, videos=False)
    for broken in found.broken:
        print(broken.reason)
    numbers = statistics(lambda: tracks(options.root))
    notes = about(len(found.lengths), sum(found.lengths.values()), len(found.broken))
    path = options.out or options.root / "statistics.json"
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps({**numbers, "about": notes}, indent=1) + "\n")
    partial.replace(path)
    print(f"{path}: {found.describe()}")
    return 0
