"""What a report is made of: everything that a run folder says.

In: a run folder. Out: its plan, records and scores, and what a reader must be told about them.
Read next: `tables.py`, which counts and averages them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from evalkit.score.table import read_scores
from evalkit.store.plan import Plan
from evalkit.store.run_folder import open_run


@dataclass(frozen=True, kw_only=True, eq=False)
class Imagination:
    """What a result file says.

    Attributes:
        name: Of the run, or of the folder that was scored.
        scores: Means of the imagination; empty where nothing was imagined.
        correlations: How imagination and success go together.
        remarks: Every named outcome among the scores.
        scored: Whether there is a result file at all.
    """

    name: str
    scores: tuple[ScoreRow, ...]
    correlations: tuple[CorrelationRow, ...]
    remarks: tuple[RemarkRow, ...]
    scored: bool


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


def read_run(run_dir: Path) -> RunReport:
    """Return what a run folder says.

    Raises:
        RunFolderError: If there is no run, or one of its files is broken.
    """
    run = open_run(run_dir)
    records = run.records()
    planned = Counter(episode.task for episode in run.plan.episodes)
    imagination = read_imagination(run.scores_path, name=run_dir.resolve().name)
    success = success_rows(run.plan.tasks, planned, records)
    return RunReport(
        **vars(imagination),
        plan=run.plan,
        about=run.read_about(),
        caveats=tuple(caveats(run.plan, num_missing=success[-1].missing)),
        success=tuple(success),
        errors=tuple(error_rows(records)),
    )


def read_imagination(scores_path: Path, *, name: str) -> Imagination:
    """Return what a result file says; nothing where there is none.

    Raises:
        RunFolderError: If it is broken.
    """
    if not scores_path.exists():
        return Imagination(name=name, scores=(), correlations=(), remarks=(), scored=False)
    scores = read_scores(scores_path)
    return Imagination(
        name=name,
        scores=tuple(score_rows(scores)),
        correlations=tuple(correlation_rows(scores)),
        remarks=tuple(remark_rows(scores)),
        scored=True,
    )


def caveats(plan: Plan, *, num_missing: int) -> list[str]:
    """Return one sentence for everything that a reader must know before the numbers.

    Args:
        plan: Names the departures, the simulator state that the policy reads, and what its weights are.
        num_missing: Planned episodes that have no record yet.
    """
    sentences = []
    if num_missing:
        sentences.append(f"The run is not finished: {num_missing} planned episodes have no record yet.")
    for name, spec in plan.policy.specs.items():
        if spec.get("privileged_keys"):
            keys = ", ".join(spec["privileged_keys"])
            sentences.append(f"{name} is an oracle, not a learned policy: it reads simulator state ({keys}).")
    for key, value in plan.policy.provenance.items():
        if "random" in f"{key} {value}".lower():
            sentences.append(f"{plan.policy.name}: {key}: {value}.")
    if plan.departures:
        count = "1 departure" if len(plan.departures) == 1 else f"{len(plan.departures)} departures"
        sentences.append(f"Not a benchmark score, {count} from {plan.protocol}: {' '.join(plan.departures)}")
    return sentences
