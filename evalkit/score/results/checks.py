"""Rows of the checks: what looks wrong in a ground truth or a prediction, next to the scores in the result file.

In: a `Finding` of any check. Out: its row in the result file; sentences for the user, one per check and verdict.
Read next: `evalkit/score/checks/`, the checks; `table.py`, the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from evalkit.score.results.names import Family
from evalkit.score.results.outcome import WHOLE_CHUNK, Score

if TYPE_CHECKING:
    import pandas as pd

CHECK_PREFIX = "check/"
"""`metric` of a check's row starts with it; the check's name follows."""

CHECK_COLUMNS = ("task", "index", "metric", "view", "status", "reason")
"""Columns of the result file that `check_sentences` reads."""

Verdict = Literal["refused", "warning"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that looks wrong.

    Attributes:
        check: Name of the check; docs/scoring.md describes each.
        subject: Whose data: `ground_truth`, or the prediction's subject.
        view: The camera or arm, `all` for all cameras, empty where none is meant.
        value: The measured number, if there is one.
        reason: One sentence: what was expected, what was found, the likely cause, what to do.
        refuses: Families of metrics that have no value because of it; none for a warning.
    """

    check: str
    subject: str
    view: str = ""
    value: float | None = None
    reason: str
    refuses: tuple[Family, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Return `refused` if metrics have no value because of it, else `warning`."""
        return "refused" if self.refuses else "warning"


def check_row(finding: Finding, *, chunk_idx: int = -1) -> Score:
    """Return the row of a finding; -1 as `chunk_idx` means the whole clip."""
    return Score(
        subject=finding.subject,
        chunk_idx=chunk_idx,
        frame_idx=WHOLE_CHUNK,
        view=finding.view,
        metric=f"{CHECK_PREFIX}{finding.check}",
        value=finding.value,
        status=finding.verdict,
        reason=finding.reason,
    )


def split_checks(scores: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows of metrics and the rows of checks of a result file."""
    is_check = scores["metric"].map(lambda metric: metric.startswith(CHECK_PREFIX)).astype(bool)
    return scores[~is_check], scores[is_check]


def check_sentences(scores: pd.DataFrame) -> list[str]:
    """Return one sentence per check and verdict, refusals first: its name, in how many clips, and the first example.

    Args:
        scores: A result file with at least the columns `CHECK_COLUMNS`.
    """
    num_clips = len(scores[["task", "index"]].drop_duplicates())
    _, checks = split_checks(scores)
    sentences = []
    for status in ("refused", "warning"):
        rows = checks[checks["status"] == status]
        for metric, group in rows.groupby("metric", observed=True, sort=False):
            clips = group[["task", "index"]].drop_duplicates()
            example = group.iloc[0]
            where = f"{example['task']}/{example['index']:04d}" + (f", {example['view']}" if example["view"] else "")
            count = f"{len(clips)} of {num_clips} clip{'s' if num_clips > 1 else ''}"
            sentences.append(f"{metric}: {status} in {count}, for example {where}: {example['reason']}")
    return sentences


def has_findings(scores: pd.DataFrame) -> bool:
    """Return whether a check found something, in a result file with the column metric."""
    return len(split_checks(scores)[1]) > 0
