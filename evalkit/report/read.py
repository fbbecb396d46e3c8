"""What a report is made of: everything that a run folder says.

In: a run folder. Out: its plan, records and scores, and what a reader must be told about them.
Read next: `tables.py`, which counts and averages them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.contracts.errors import RunFolderError
from evalkit.report.caveats import plan_caveats, score_caveats, session_caveats
from evalkit.report.tables import (
    CorrelationRow,
    ErrorRow,
    RemarkRow,
    ScoreRow,
    SuccessRow,
    correlation_rows,
    error_rows,
    remark_rows,
    score_rows,
    success_rows,
)
from evalkit.score.results.coverage import lost_clips, nothing_to_score
from evalkit.score.results.table import read_coverage, read_scores
from evalkit.store.plan import Plan
from evalkit.store.run_folder import RunFolder, open_run

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, eq=False)
class Imagination:
    """What a result file says.

    Attributes:
        name: Of the run, or of the folder that was scored.
        scores: Means of the imagination; empty where nothing was imagined.
        correlations: How imagination and success go together.
        remarks: Every named outcome among the scores.
        nothing: Why there are no scores, one sentence; empty where there are some.
    """

    name: str
    scores: tuple[ScoreRow, ...]
    correlations: tuple[CorrelationRow, ...]
    remarks: tuple[RemarkRow, ...]
    nothing: str


@dataclass(frozen=True, kw_only=True, eq=False)
class RunReport(Imagination):
    """One run, ready to be shown.

    Attributes:
        plan: What was planned.
        about: What `run.json` holds; empty where the run wrote none.
        caveats: What must be read before the numbers.
        success: A row a task, then the totals.
        errors: Why episodes gave no result.
    """

    plan: Plan
    about: Mapping[str, Any]
    caveats: tuple[str, ...]
    success: tuple[SuccessRow, ...]
    errors: tuple[ErrorRow, ...]


def run_names(run_dirs: Sequence[Path]) -> list[str]:
    """Return a name for each run: its folder's, with as many parents as tell it from the others.

    Example:
        >>> run_names([Path("/runs/seed0/xwam"), Path("/runs/seed1/xwam"), Path("/runs/seed1/hold")])
        ['seed0/xwam', 'seed1/xwam', 'hold']
    """
    parts = [run_dir.resolve().parts for run_dir in run_dirs]
    lengths = [1] * len(parts)
    while True:
        names = ["/".join(part[-length:]) for part, length in zip(parts, lengths, strict=True)]
        counts = Counter(names)
        longer = [
            length + (counts[name] > 1 and length < len(part) - 1)
            for name, part, length in zip(names, parts, lengths, strict=True)
        ]
        if longer == lengths:
            return names
        lengths = longer


def read_run(run_dir: Path, *, name: str | None = None) -> RunReport:
    """Return what a run folder says.

    Args:
        run_dir: The run folder.
        name: What to call it; the folder's name if not given.

    Raises:
        RunFolderError: If there is no run, or one of its files is broken.
    """
    run = open_run(run_dir)
    records, about = run.records(), _about(run)
    planned = Counter(episode.task for episode in run.plan.episodes)
    scores = read_scores(run.scores_path) if run.scores_path.exists() else None
    imagination = _imagination(scores, name=name or run_dir.resolve().name)
    success = success_rows(run.plan.tasks, planned, records)
    caveats = [*plan_caveats(run.plan, num_missing=success[-1].missing), *session_caveats(about)]
    if scores is not None:
        caveats += score_caveats(run.plan, records, read_coverage(run.scores_path), lost_clips(scores))
    if not imagination.scores:
        imagination = replace(imagination, nothing=nothing_to_score(run.plan, records) or imagination.nothing)
    return RunReport(
        **vars(imagination),
        plan=run.plan,
        about=about,
        caveats=tuple(caveats),
        success=tuple(success),
        errors=tuple(error_rows(records)),
    )


def read_imagination(scores_path: Path, *, name: str) -> Imagination:
    """Return what a result file says.

    Raises:
        RunFolderError: If it is missing or broken.
    """
    return _imagination(read_scores(scores_path), name=name)


def _imagination(scores: pd.DataFrame | None, *, name: str) -> Imagination:
    if scores is None:
        nothing = "Not scored yet: run `evalkit score` on the folder."
        return Imagination(name=name, scores=(), correlations=(), remarks=(), nothing=nothing)
    rows = tuple(score_rows(scores))
    return Imagination(
        name=name,
        scores=rows,
        correlations=tuple(correlation_rows(scores)),
        remarks=tuple(remark_rows(scores)),
        nothing="" if rows else "Nothing imagined was scored.",
    )


def _about(run: RunFolder) -> Mapping[str, Any]:
    try:
        return run.read_about()
    except TypeError as error:
        raise RunFolderError(f"{run.path / 'run.json'} is broken: it holds no object.") from error
