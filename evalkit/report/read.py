"""Reading a run or a result file for a report.

In: a run folder, or a result file. Out: its plan, the rows of its tables, and caveats.
Read next: `tables.py`, which counts and averages; `build.py`, which makes a document of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalkit.report.after_settling import settling_caveats
from evalkit.report.caveats import plan_caveats, record_caveats, score_caveats, session_caveats, worker_caveats
from evalkit.report.correlation import CorrelationRow, correlation_rows
from evalkit.report.dependence import DependenceRow, dependence_rows
from evalkit.report.paired import Paired, control_pairs, reference_pairs
from evalkit.report.tables import (
    ErrorRow,
    RemarkRow,
    ScoreRow,
    SuccessRow,
    error_rows,
    remark_rows,
    score_rows,
    success_rows,
)
from evalkit.score.results.checks import check_sentences, split_checks
from evalkit.score.results.coverage import kept_sentence, lost_clips, nothing_to_score
from evalkit.score.results.table import OldScores, read_coverage, read_scores
from evalkit.store.plan import Plan
from evalkit.store.records import EpisodeRecord
from evalkit.store.run_folder import open_run

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreSummary:
    """The scores of one result file, averaged.

    Attributes:
        name: Of the run, or of the folder that was scored.
        caveats: What a reader must know before the numbers, one sentence each.
        scores: Means of the scores; empty where nothing was scored.
        references: The policy's predictions and each reference, over the frames that both have.
        controls: The policy's predictions for the recorded actions and each control, over the frames that both have.
        dependence: How far predictions depend on the actions.
        correlations: Correlation of each metric with success.
        remarks: Every status other than `ok` among the scores.
        unscored_reason: Why there are no scores, one sentence; empty where there are some.
    """

    name: str
    caveats: tuple[str, ...]
    scores: tuple[ScoreRow, ...]
    references: tuple[Paired, ...]
    controls: tuple[Paired, ...]
    dependence: tuple[DependenceRow, ...]
    correlations: tuple[CorrelationRow, ...]
    remarks: tuple[RemarkRow, ...]
    unscored_reason: str


@dataclass(frozen=True, kw_only=True, eq=False)
class RunSummary(ScoreSummary):
    """One run, ready for a report.

    Attributes:
        plan: What was planned.
        about: What `run.json` holds; empty where the run wrote none.
        episodes: The records.
        success: One row per task, then the totals.
        errors: Why episodes gave no result.
    """

    plan: Plan
    about: Mapping[str, Any]
    episodes: tuple[EpisodeRecord, ...]
    success: tuple[SuccessRow, ...]
    errors: tuple[ErrorRow, ...]


def run_names(run_dirs: Sequence[Path]) -> list[str]:
    """Return a name for each run: its folder's, with as many parent folders as make it unique.

    Example:
        >>> run_names([Path("/runs/seed0/xwam"), Path("/runs/seed1/xwam"), Path("/runs/seed1/hold")])
        ['seed0/xwam', 'seed1/xwam', 'hold']
    """
    paths = [run_dir.resolve().parts for run_dir in run_dirs]
    lengths = [1] * len(paths)
    while True:
        names = ["/".join(path[-length:]) for path, length in zip(paths, lengths, strict=True)]
        counts = Counter(names)
        longer = [
            length + (counts[name] > 1 and length < len(path) - 1)
            for name, path, length in zip(names, paths, lengths, strict=True)
        ]
        if longer == lengths:
            return names
        lengths = longer


def read_run(run_dir: Path, *, name: str | None = None) -> RunSummary:
    """Return the summary of a run folder.

    Args:
        run_dir: The run folder.
        name: What to call it; the folder's name if not given.

    Raises:
        RunFolderError: If there is no run, or one of its files is broken.
    """
    run = open_run(run_dir)
    records, about = run.records(), run.read_about()
    planned = Counter(episode.task for episode in run.plan.episodes)
    scores, not_scored = None, f"Not scored yet. Run `evalkit score run {run_dir}`."
    if run.scores_path.exists():
        try:
            scores = read_scores(run.scores_path)
        except OldScores as error:
            not_scored = str(error)
    scored = _summary(scores, name=name or run_dir.resolve().name, not_scored=not_scored)
    success = success_rows(run.plan.tasks, planned, records)
    caveats = [
        *plan_caveats(run.plan, num_missing=success[-1].missing),
        *session_caveats(about),
        *worker_caveats(about),
    ]
    if kept := kept_sentence(about, records):
        caveats.append(kept)
    caveats += [*record_caveats(records), *settling_caveats(run.plan, records), *scored.caveats]
    if scores is not None:
        caveats += score_caveats(run.plan, records, read_coverage(run.scores_path), lost_clips(scores))
    if not scored.scores:
        reason = nothing_to_score(run.plan, records) or scored.unscored_reason
        scored = replace(scored, unscored_reason=reason)
    return RunSummary(
        **{**vars(scored), "caveats": tuple(caveats)},
        plan=run.plan,
        about=about,
        episodes=tuple(records),
        success=tuple(success),
        errors=tuple(error_rows(records)),
    )


def read_scored(scores_path: Path, *, name: str) -> ScoreSummary:
    """Return the summary of a result file.

    Raises:
        RunFolderError: If it is missing or broken.
    """
    return _summary(read_scores(scores_path), name=name)


def _summary(scores: pd.DataFrame | None, *, name: str, not_scored: str = "") -> ScoreSummary:
    if scores is None:
        return ScoreSummary(
            name=name,
            caveats=(),
            scores=(),
            references=(),
            controls=(),
            dependence=(),
            correlations=(),
            remarks=(),
            unscored_reason=not_scored,
        )
    metrics, _ = split_checks(scores)
    rows = tuple(score_rows(metrics))
    return ScoreSummary(
        name=name,
        caveats=tuple(check_sentences(scores)),
        scores=rows,
        references=tuple(reference_pairs(metrics)),
        controls=tuple(control_pairs(metrics)),
        dependence=tuple(dependence_rows(metrics)),
        correlations=tuple(correlation_rows(metrics)),
        remarks=tuple(remark_rows(metrics)),
        unscored_reason="" if rows else "No prediction was scored.",
    )
