"""The report of one or several runs, or of two scored folders: written, and shown.

In: run folders, or a result file. Out: `report.md`, `success.csv`, `scores.csv`, and tables for the console.
Read next: `read.py`, where the numbers come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from evalkit.contracts.errors import RunFolderError
from evalkit.report.caveats import between_caveats
from evalkit.report.published import Beside, PublishedRow, beside
from evalkit.report.read import Imagination, RunReport, read_imagination, read_run, run_names
from evalkit.report.render_console import caveat_list, imagination, published_beside, renderables
from evalkit.report.render_markdown import markdown, scores_csv, scores_markdown, success_csv
from evalkit.store.files import write_whole


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """A written report.

    Attributes:
        runs: What it shows.
        files: Where it lies.
        caveats: What must be known before one run is held against another.
        published: What others published, by the name of the run that it stands beside.
    """

    runs: tuple[Imagination, ...]
    files: tuple[Path, ...]
    caveats: tuple[str, ...] = ()
    published: Mapping[str, Beside] = field(default_factory=dict)

    def render(self, console: Console) -> None:
        """Print the tables."""
        if self.caveats:
            console.print(caveat_list(self.caveats))
        for run in self.runs:
            for renderable in renderables([run]) if isinstance(run, RunReport) else imagination(run):
                console.print(renderable)
            for renderable in published_beside(run.name, self.published.get(run.name)):
                console.print(renderable)


def write_report(
    run_dirs: Sequence[Path],
    out_dir: Path,
    *,
    across_protocols: bool = False,
    published: Sequence[PublishedRow] = (),
) -> Report:
    """Write the report of some runs and return it.

    Args:
        run_dirs: Run folders; unfinished ones and ones without scores are reported as such; one named twice shows once.
        out_dir: Where `report.md`, `success.csv` and `scores.csv` go.
        across_protocols: Whether runs of different protocols may stand beside each other.
        published: What others published; shown beside the runs that it belongs to.

    Raises:
        MixedProtocols: If the protocols differ and were not asked for.
        RunFolderError: If a run cannot be read, or the report cannot be written.
    """
    folders = list({run_dir.resolve(): run_dir for run_dir in run_dirs}.values())
    runs = tuple(read_run(folder, name=name) for folder, name in zip(folders, run_names(folders), strict=True))
    caveats = tuple(between_caveats({run.name: run.plan for run in runs}, across_protocols=across_protocols))
    shown = {run.name: found for run in runs if (found := beside(run, published)) is not None}
    texts = {
        "report.md": markdown(runs, caveats, shown),
        "success.csv": success_csv(runs),
        "scores.csv": scores_csv(runs),
    }
    return Report(runs=runs, files=_write(out_dir, texts), caveats=caveats, published=shown)


def write_scores_report(scores_path: Path, out_dir: Path, *, name: str) -> Report:
    """Write the report of a result file that belongs to no run: `report.md` and `scores.csv`.

    Args:
        scores_path: What `score.folders.score_folders` wrote.
        out_dir: Where the report goes.
        name: Its title.

    Raises:
        RunFolderError: If the result file is missing or broken, or the report cannot be written.
    """
    if not scores_path.exists():
        raise RunFolderError(f"{scores_path} is not there. Score the folders first.")
    scored = read_imagination(scores_path, name=name)
    texts = {"report.md": scores_markdown(scored), "scores.csv": scores_csv([scored])}
    return Report(runs=(scored,), files=_write(out_dir, texts))


def _write(out_dir: Path, texts: Mapping[str, str]) -> tuple[Path, ...]:
    for name, text in texts.items():
        write_whole(out_dir / name, text.encode())
    return tuple(out_dir / name for name in texts)
