"""The verbs `report` and `view`: tables and images from a run.

In: run folders, clips. Out: Markdown, CSV, images.
Read next: `evalkit/report/write.py`, `evalkit/report/contact_sheet.py`, `evalkit/report/rerun_export.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from evalkit.console import out
from evalkit.contracts.errors import BadConfig, RunFolderError


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Run folders, or folders of scores.")],
    to: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder of the report. [default: report/ in the first folder]",
            show_default=False,
        ),
    ] = None,
    across_protocols: Annotated[
        bool, typer.Option("--across-protocols", help="Allow a comparison of runs with different protocols.")
    ] = False,
    published: Annotated[
        Path | None,
        typer.Option(
            "--published", metavar="PATH", help="Also show published results: a CSV file, or a folder of CSV files."
        ),
    ] = None,
) -> None:
    """Print and write the tables of runs, or of scored predictions.

    Several runs get a table of success rates, one column per run; then one section per run.

    Read records and scores; a run that was not scored is reported without scores. Write `report.md`, `success.csv`,
    `scores.csv`, and `episodes.csv` with the hashes of each episode's scene. Success rates come with counts, errors and
    95 % intervals, as the bench counts success and as it stands after settling.

    Folders that `evalkit score folders` or `evalkit score dataset` wrote are reported too; with several, the first is
    compared with each other one over the frames that both predicted, with intervals of the differences.

    Examples:

    - `evalkit report results/runs/mine`
    - `evalkit report results/runs/mine results/runs/theirs --out results/report`
    - `evalkit report results/runs/mine --published results/published`
    - `evalkit report scores/model_a scores/model_b --out scores/report`
    """
    from evalkit.report.published import read_published
    from evalkit.report.render_console import render_console
    from evalkit.report.write import is_scored_folder, write_report, write_scored_folders_report

    for path in runs:
        _check_reportable(path)
    folder = to or runs[0] / "report"
    rows = [] if published is None else read_published(published)
    scored = [path for path in runs if is_scored_folder(path)]
    with out.status("Reading scores ..."):
        if scored:
            _check_all_scored(runs, scored)
            written = write_scored_folders_report(scored, folder)
        else:
            written = write_report(runs, folder, across_protocols=across_protocols, published=rows)
    out.print(render_console(written.document))
    out.print(f"report: {folder / 'report.md'}", soft_wrap=True)


def _check_reportable(folder: Path) -> None:
    """Raise BadConfig unless a folder holds a run or scores."""
    if not folder.exists():
        raise BadConfig(f"{folder} does not exist.")
    if folder.is_file():
        raise BadConfig(f"{folder} is a file; name its folder: {folder.parent}.")
    if not any((folder / name).exists() for name in ("plan.json", "scores.parquet")):
        raise BadConfig(
            f"{folder} holds no scores and no run (scores.parquet, plan.json); write scores with `evalkit score`."
        )


def _check_all_scored(folders: Sequence[Path], scored: Sequence[Path]) -> None:
    """Raise BadConfig if runs and scored folders are mixed."""
    if other := [folder for folder in folders if folder not in scored]:
        raise BadConfig(
            f"{scored[0]} holds scores without a run, {other[0]} does not: report runs and scored folders separately."
        )


def view(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="A clip of a run: clips/TASK/INDEX.h5.")],
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet",
            metavar="FILE",
            help="File of the contact sheet. [default: the clip's path with the suffix .png]",
            show_default=False,
        ),
    ] = None,
    chunk: Annotated[int, typer.Option("--chunk", metavar="N", help="Chunk that the contact sheet shows.")] = 0,
    rrd: Annotated[
        Path | None,
        typer.Option("--rrd", metavar="FILE", help="Also write a rerun recording (needs the extra `viz`)."),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Also open the rerun viewer.")] = False,
) -> None:
    """Show one clip: predictions next to ground truth.

    Write a contact sheet (PNG) of predicted and true frames of one chunk. With --rrd or --show, also export the point
    clouds over time for the rerun viewer.

    Examples:

    - `evalkit view results/runs/mine/clips/Lift/0000.h5`
    - `evalkit view results/runs/mine/clips/Lift/0000.h5 --chunk 3 --sheet chunk3.png`
    - `evalkit view results/runs/mine/clips/Lift/0000.h5 --rrd lift.rrd`
    """
    from evalkit.report.contact_sheet import write_contact_sheet
    from evalkit.report.rerun_export import write_rerun

    wants_recording = rrd is not None or show
    try:
        written = write_contact_sheet(clip, sheet or clip.with_suffix(".png"), chunk_idx=chunk)
        out.print(f"contact sheet: {written}", soft_wrap=True)
    except RunFolderError as error:
        if not wants_recording:
            raise
        out.print(Text(f"no contact sheet: {error}", style="yellow"), soft_wrap=True)
    if wants_recording:
        with out.status("Writing the rerun recording ..."):
            path = write_rerun(clip, rrd or clip.with_suffix(".rrd"), show=show)
        out.print(f"recording: {path}", soft_wrap=True)
