"""The report of one or several runs: written, and shown.

In: run folders. Out: `report.md`, `success.csv`, `scores.csv`, and tables for the console.
Read next: `read.py`, where the numbers come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from evalkit.report.console import renderables
from evalkit.report.page import markdown, scores_csv, success_csv
from evalkit.report.read import RunReport, read_run
from evalkit.store.files import write_whole


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """A written report.

    Attributes:
        runs: What it shows.
        files: Where it lies.
    """

    runs: tuple[RunReport, ...]
    files: tuple[Path, ...]

    def render(self, console: Console) -> None:
        """Print the tables."""
        for renderable in renderables(self.runs):
            console.print(renderable)


def write_report(run_dirs: Sequence[Path], out_dir: Path) -> Report:
    """Write the report of some runs and return it.

    Args:
        run_dirs: Run folders; unfinished ones and ones without scores are reported as such.
        out_dir: Where `report.md`, `success.csv` and `scores.csv` go.

    Raises:
        RunFolderError: If a run cannot be read, or the report cannot be written.
    """
    runs = tuple(read_run(run_dir) for run_dir in run_dirs)
    texts = {"report.md": markdown(runs), "success.csv": success_csv(runs), "scores.csv": scores_csv(runs)}
    for name, text in texts.items():
        write_whole(out_dir / name, text.encode())
    return Report(runs=runs, files=tuple(out_dir / name for name in texts))
