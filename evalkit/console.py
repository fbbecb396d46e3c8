"""Consoles of the command line: results go to stdout, errors to stderr.

In: nothing. Out: two rich consoles and the progress bar.
Read next: `cli/main.py`.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

WIDTH_WITHOUT_TERMINAL = 150

_PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}
"""Names, paths and reasons may contain brackets; they are not markup."""

out = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH_WITHOUT_TERMINAL, **_PLAIN)
err = Console(stderr=True, **_PLAIN)


def progress_bar(text: str = "") -> Progress:
    """Return a progress display; `text` may name fields of the task, for example `{task.fields[successes]}`."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(text),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=out,
    )
