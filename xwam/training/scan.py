"""Scans a data set before it is used, with a progress bar and a line for each broken episode.

In: a data set. Out: its usable and its broken episodes.
Read next: `evalkit/dataset/layout.py`, which reads the episodes; `launch.py`, which trains on them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from evalkit.dataset.layout import Scan, read_metadata, scan

OnProgress = Callable[[int, int], None]
"""Called with (units done, units in all)."""

Bar = Callable[[str], AbstractContextManager[OnProgress]]
"""Opens a progress bar with this label."""


@contextmanager
def no_bar(label: str) -> Iterator[OnProgress]:
    """Show no progress."""
    yield lambda done, total: None


def scan_data(root: Path, bar: Bar, *, videos: bool = True, decode: bool = False, prefix: str = "") -> Scan:
    """Return a scan of a data set; print the reason of each broken episode, and notes about videos.

    Args:
        root: The data set.
        bar: Opens a progress bar.
        videos: Whether to check the videos.
        decode: Whether to decode every frame of them.
        prefix: Printed before each reason.
    """
    total, done = len(read_metadata(root)), itertools.count(1)
    with bar("read episodes") as on_progress:
        on_progress(0, total)
        scanned = scan(root, videos=videos, decoded=decode, on_episode=lambda: on_progress(next(done), total))
    for broken in scanned.broken:
        print(f"{prefix}{broken.reason}")
    for note in scanned.notes:
        print(note)
    return scanned
