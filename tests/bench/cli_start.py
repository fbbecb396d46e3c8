"""Figure `cli_start`: the start of `evalkit --help` against the imports that the command line once began with.

In: two commands, each a process of its own. Out: one figure.
Read next: `evalkit/cli/main.py`, whose verbs import what they need when they are called.

The other side imports the packages that the command line of release 0.1.0 loaded before it printed its help, and
nothing of ours. It is therefore faster than that release was, so that a ratio of at most 1.05 is a strict goal.
"""

from __future__ import annotations

import subprocess
import sys

from tests.bench.figure import Figure, compare

ROUNDS = 10
PACKAGES = "numpy, hydra, omegaconf, typer, rich.progress, rich.table"


def start_figure() -> Figure:
    """Time both in turn."""

    def start(*arguments: str) -> None:
        subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)

    ours = ("evalkit --help", lambda: start("-m", "evalkit.cli", "--help"))
    theirs = ("imports of release 0.1.0", lambda: start("-c", f"import {PACKAGES}"))
    return compare("cli_start", ours, theirs, goal="<= 1.05", rounds=ROUNDS)


FIGURES = {"cli_start": start_figure}
