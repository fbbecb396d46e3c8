"""The figures of scored folders: curves over the horizon, links to contact sheets.

In: result files. Out: PNGs in the report's folder, and the parts of a report that show them.
Read next: `curves.py`, which draws; `sheets.py`, which writes contact sheets while clips are scored.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from evalkit.report.curves import write_curves
from evalkit.report.document import Figures, Paragraph, Part
from evalkit.report.format import quantity
from evalkit.report.sheets import SHEETS
from evalkit.score.results.names import PREDICTED
from evalkit.score.results.table import read_scores

if TYPE_CHECKING:
    import pandas as pd

FLOOR = "repeat_last_frame"


def scored_figures(scores_path: Path, out_dir: Path, curves: str) -> list[Part]:
    """Return the figures of a result file: its policy and floor over the horizon, and its contact sheets.

    Args:
        scores_path: The result file; contact sheets lie next to it.
        out_dir: Folder of the report.
        curves: File name of the curves.
    """
    scores = read_scores(scores_path)
    subjects = [subject for subject in PREDICTED if (scores["subject"] == subject).any()]
    parts: list[Part] = []
    if subjects:
        ours, floor = _of(scores, subjects[0]), _of(scores, FLOOR)
        names, theirs = ((subjects[0], FLOOR), floor) if len(floor) else ((subjects[0], ""), ours)
        parts.append(_curves(ours, theirs, names, out_dir / curves))
    if sheets := sorted((scores_path.parent / SHEETS).glob("*.png")):
        linked = tuple(os.path.relpath(sheet, out_dir) for sheet in sheets)
        num_clips = len(scores[["task", "index"]].drop_duplicates())
        parts.append(
            Figures(
                note=f"Contact sheets of {len(sheets)} of {quantity(num_clips, 'clip')} are in {SHEETS}/.",
                linked=linked,
            )
        )
    return parts


def compared_figures(paths: tuple[Path, Path], names: tuple[str, str], out_dir: Path, curves: str) -> list[Part]:
    """Return the curves of two result files over the frames that both have."""
    sides = [read_scores(path) for path in paths]
    ours, theirs = (_of(scores, PREDICTED[0]) for scores in sides)
    return [_curves(ours, theirs, names, out_dir / curves)]


def _of(scores: pd.DataFrame, subject: str) -> pd.DataFrame:
    return scores[scores["subject"] == subject]


def _curves(ours: pd.DataFrame, theirs: pd.DataFrame, names: tuple[str, str], path: Path) -> Part:
    if reason := write_curves(ours, theirs, names, path):
        return Paragraph(text=reason)
    sides = (
        f"{names[0]} and {names[1]}, over the frames that both have" if names[1] else f"{names[0]}; there is no floor"
    )
    note = f"Curves over the horizon, in {path.name}: {sides}. Thin curves are single clips of {names[0]}."
    return Figures(note=note, shown=(path.name,))
